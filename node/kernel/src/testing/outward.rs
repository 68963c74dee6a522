//! An engine that makes accounts in a system outside, and that system: both as simple as can be, so that what is left
//! behind after a failure at any point can be counted.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arca_engine_api::{
    Ctx, Effect, Engine, EngineError, EngineKind, EngineType, Http, HttpAnswer, HttpRequest, LeaseGrant,
    LeaseRecord, Map, Method, Operation, Request, Response, Route, RouteTable, StorageExt,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;

/// How the system outside does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It answers nobody, and does nothing.
    Deaf,
    /// It does what it is asked, and says that it failed.
    Lying,
    /// It does what it is asked, and never answers.
    Mute,
    /// It refuses.
    Unwilling,
    /// It cannot be reached, and whoever asks knows that nothing was done.
    Unreachable,
    /// It does what it is asked.
    #[default]
    Well,
}

/// The system outside. `POST` of a name makes an account, `DELETE` removes it.
#[derive(Debug, Default)]
pub struct Accounts {
    there: Mutex<BTreeSet<String>>,
    mood: Mutex<Mood>,
    removals: Mutex<usize>,
    /// What it was last asked to make while it was deaf.
    unheard: Mutex<Option<String>>,
}

impl Accounts {
    /// The accounts there are.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.there.lock().iter().cloned().collect()
    }

    /// Does what it was last asked and did not do; answers whose account that was.
    pub fn make_late(&self) -> String {
        let name = self.unheard.lock().take().unwrap_or_default();
        self.there.lock().insert(name.clone());
        name
    }

    /// How often it was asked to remove one.
    #[must_use]
    pub fn removals(&self) -> usize {
        *self.removals.lock()
    }

    /// From now on it does so.
    pub fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

#[async_trait]
impl Http for Accounts {
    async fn send(&self, request: HttpRequest) -> Result<HttpAnswer, EngineError> {
        let mood = *self.mood.lock();
        let name = String::from_utf8_lossy(&request.body).into_owned();
        if mood == Mood::Deaf {
            *self.unheard.lock() = Some(name.clone());
            std::future::pending::<()>().await;
        }
        if mood == Mood::Unreachable {
            return Err(EngineError::Upstream("no way".to_owned()).with_nothing_done());
        }
        if mood == Mood::Unwilling {
            return Err(EngineError::Upstream("no".to_owned()));
        }
        // On the way there, and back: whoever asks may be gone meanwhile.
        tokio::task::yield_now().await;
        if request.method == "POST" {
            self.there.lock().insert(name);
        } else {
            *self.removals.lock() += 1;
            self.there.lock().remove(&name);
        }
        tokio::task::yield_now().await;
        match mood {
            Mood::Mute => std::future::pending().await,
            Mood::Lying => Err(EngineError::Upstream("it broke".to_owned())),
            _ => Ok(HttpAnswer { status: 200, ..HttpAnswer::default() }),
        }
    }
}

static ROUTES: &[Route] = &[Route::new(
    "creds",
    "creds/{name}",
    &[Method::with_effect(Operation::Read, Effect::Writes, "An account.")],
    &[],
    "An account outside.",
)];

static TABLE: LazyLock<RouteTable> = LazyLock::new(|| RouteTable::new(ROUTES));

struct Outward;

/// The engine, as it can be mounted.
#[must_use]
pub fn outward_engine() -> EngineType {
    EngineType {
        name: "outward",
        kind: EngineKind::Secrets,
        make: |_| Ok(Arc::new(Outward)),
        summary: "Makes accounts outside, for tests.",
    }
}

async fn ask(ctx: &Ctx<'_>, method: &'static str, name: &str) -> Result<(), EngineError> {
    let request =
        HttpRequest { body: name.as_bytes().to_vec(), ..HttpRequest::new(method, "http://outside/") };
    ctx.http.send(request).await.map(drop)
}

fn account(map: &Map) -> Result<&str, EngineError> {
    map.get("account").and_then(|name| name.as_str()).ok_or_else(|| EngineError::Bug("no account".to_owned()))
}

#[async_trait]
impl Engine for Outward {
    fn routes(&self) -> &RouteTable {
        &TABLE
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let mut bytes = [0; 8];
        ctx.entropy.fill(&mut bytes)?;
        let name = format!("{}-{:016x}", request.param("name"), u64::from_be_bytes(bytes));
        let intent = Map::from_iter([("account".to_owned(), name.into())]);
        let ttl = Duration::from_secs(600);
        let lease = LeaseGrant { ttl, is_renewable: true, internal: intent.clone(), ..LeaseGrant::default() };
        Ok(Response { intent: Some(intent), lease: Some(lease), ..Response::default() })
    }

    async fn carry_out(&self, ctx: &Ctx<'_>, intent: &Map) -> Result<Map, EngineError> {
        ask(ctx, "POST", account(intent)?).await?;
        Ok(Map::new())
    }

    fn conclude(
        &self,
        ctx: &Ctx<'_>,
        intent: &Map,
        outcome: Result<Map, EngineError>,
    ) -> Result<Response, EngineError> {
        ctx.storage.put_record("last", &outcome.is_ok())?;
        outcome?;
        Ok(Response::data(json!({"username": account(intent)?})))
    }

    async fn renew(&self, _ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        let lease = LeaseGrant { ttl: lease.increment, ..LeaseGrant::default() };
        Ok(Response { lease: Some(lease), ..Response::default() })
    }

    async fn revoke(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<(), EngineError> {
        ask(ctx, "DELETE", account(&lease.internal)?).await
    }

    /// Makes an account of its own, if it is told to.
    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        let wanted: Option<String> = ctx.storage.get_record("wanted")?;
        ctx.storage.delete("wanted")?;
        Ok(wanted.into_iter().map(|name| Map::from_iter([("account".to_owned(), name.into())])).collect())
    }
}
