//! A database that is made up, in every mood.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::EngineError;
use async_trait::async_trait;
use parking_lot::Mutex;

use crate::secrets::database::adapter::{
    Database, Failure, Kind, Login, NewPassword, NewUser, OldUser, Renewal, Settings, bounded,
};

/// How it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// It does nothing, and never answers.
    Deaf,
    /// It does what it is told after so many seconds.
    Late(u64),
    /// It does what it is told, and then the line breaks.
    Lying,
    /// It says no.
    Refusing,
    /// It does what it is told, but takes no password twice.
    Remembering,
    /// There is no way to it.
    Unreachable,
    #[default]
    Well,
}

/// The server behind every connection of one test.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// With their passwords.
    pub(super) users: Mutex<BTreeMap<String, String>>,
    pub(super) mood: Mutex<Mood>,
    /// What it was told, in order.
    pub(super) told: Mutex<Vec<String>>,
}

impl Server {
    pub(super) fn is(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(super) fn password(&self, user: &str) -> Option<String> {
        self.users.lock().get(user).cloned()
    }

    /// Who there is besides `root` and `app`.
    pub(super) fn made(&self) -> Vec<String> {
        self.users.lock().keys().filter(|name| name.starts_with("v-")).cloned().collect()
    }
}

thread_local! {
    static SERVER: RefCell<Arc<Server>> = RefCell::default();
}

/// A server of this test's own, with users `root` and `app`.
pub(super) fn server() -> Arc<Server> {
    let server = Arc::new(Server::default());
    server.users.lock().insert("root".to_owned(), "secret".to_owned());
    server.users.lock().insert("app".to_owned(), "old".to_owned());
    SERVER.set(Arc::clone(&server));
    server
}

pub(super) static KINDS: &[&[Kind]] = &[&[Kind {
    name: "fake",
    username_template: "v-{{.RoleName}}-{{random 8}}",
    username_max: 40,
    open,
    redact: str::to_owned,
    has_password: |url| url.contains("canary"),
    login: |settings| {
        let takes_password = !settings.url.contains("canary");
        Some(Login { username: settings.username.clone(), takes_password })
    },
    servers: |settings| vec![settings.url.clone()],
    hosts: |statements, _| statements.iter().any(|text| text == "here").then(|| vec!["here".to_owned()]),
}]];

fn open(settings: &Settings) -> Result<Arc<dyn Database>, EngineError> {
    Ok(Arc::new(Fake { server: SERVER.with_borrow(Arc::clone), settings: settings.clone() }))
}

#[derive(Debug)]
struct Fake {
    server: Arc<Server>,
    settings: Settings,
}

impl Fake {
    async fn told(
        &self,
        what: String,
        act: impl FnOnce(&mut BTreeMap<String, String>) + Send,
    ) -> Result<(), Failure> {
        bounded(async {
            let mood = *self.server.mood.lock();
            match mood {
                Mood::Deaf => std::future::pending().await,
                Mood::Late(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                Mood::Refusing => return Err(Failure::Refused("no".to_owned())),
                Mood::Unreachable => return Err(Failure::Unreachable("no way".to_owned())),
                Mood::Lying | Mood::Remembering | Mood::Well => {}
            }
            let root = self.server.password(&self.settings.username);
            if !self.settings.passwords.iter().any(|password| Some(password.0.as_str()) == root.as_deref()) {
                return Err(Failure::Unreachable("access denied".to_owned()));
            }
            self.server.told.lock().push(what);
            act(&mut self.server.users.lock());
            if mood == Mood::Lying { Err(Failure::Unknown("the line broke".to_owned())) } else { Ok(()) }
        })
        .await
    }
}

#[async_trait]
impl Database for Fake {
    async fn verify(&self) -> Result<(), Failure> {
        self.told("verify".to_owned(), |_| ()).await
    }

    async fn create_user(&self, user: &NewUser<'_>) -> Result<(), Failure> {
        let (name, password) = (user.username.to_owned(), user.password.to_owned());
        let what = format!("create until {}: {}", user.expiration, user.statements.join("; "));
        self.told(what, |users| drop(users.insert(name, password))).await
    }

    async fn change_password(&self, change: &NewPassword<'_>) -> Result<(), Failure> {
        let (name, password) = (change.username.to_owned(), change.password.to_owned());
        if self.server.password(&name).is_none() {
            return Err(Failure::Refused("no such user".to_owned()));
        }
        let is_reused = self.server.password(&name).as_ref() == Some(&password);
        if is_reused && *self.server.mood.lock() == Mood::Remembering {
            return Err(Failure::Refused("a password that was used before".to_owned()));
        }
        self.told(format!("change {name}"), |users| drop(users.insert(name, password))).await
    }

    async fn lets_in(&self, username: &str, password: &str) -> Result<bool, Failure> {
        match *self.server.mood.lock() {
            Mood::Deaf | Mood::Unreachable => Err(Failure::Unreachable("no way".to_owned())),
            _ => Ok(self.server.password(username).as_deref() == Some(password)),
        }
    }

    async fn renew_user(&self, renewal: &Renewal<'_>) -> Result<(), Failure> {
        self.told(format!("renew until {}", renewal.expiration), |_| ()).await
    }

    async fn revoke_user(&self, user: &OldUser<'_>) -> Result<(), Failure> {
        let hosts = user.hosts.map(|hosts| format!(" at {}", hosts.join(", "))).unwrap_or_default();
        let what = format!("revoke: {}{hosts}", user.statements.join("; "));
        self.told(what, |users| drop(users.remove(user.username))).await
    }

    fn sweep(&self) {}
}
