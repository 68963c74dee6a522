//! What every database must be able to do. A database is one file that implements [`Database`] and one word in the list
//! below.
//!
//! **Invariant:** whatever an implementation is told to do has an end on the database's side as well: it runs under that
//! side's limits of time, and under a lock by the user's name that is held until its connection ends. What comes later
//! for the same user waits for it, so nothing is made after it was undone, and no older password set after a newer one.
//!
//! Read next: [`super::postgresql`], [`super::mysql`].

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arca_engine_api::{EngineError, Secretive};
use async_trait::async_trait;

use super::pool::Limits;
use super::statements;

/// Longest time for everything one call does, its connection included. Less than the kernel's for carrying out.
pub(super) const CALL_PATIENCE: Duration = Duration::from_secs(45);
/// Longest time to connect and log in.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time of one statement on the database's side, in seconds.
pub(super) const STATEMENT_SECONDS: u64 = 30;
/// Longest time a statement waits for a lock on the database's side, in seconds.
pub(super) const LOCK_SECONDS: u64 = 10;

/// Why a database did not do what it was told.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// It never came to asking: what was configured is wrong.
    Invalid(EngineError),
    /// The database said no, and nothing is changed.
    Refused(String),
    /// It is not known what is changed.
    Unknown(String),
    /// There is no connection, so nothing is changed.
    Unreachable(String),
}

impl From<EngineError> for Failure {
    fn from(err: EngineError) -> Self {
        Self::Invalid(err)
    }
}

impl Failure {
    /// Whether nothing is changed for certain.
    pub(super) fn is_certain(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// As the caller reads it: without any of `secrets`, should the database have repeated one.
    pub(super) fn into_error(self, secrets: &[&str]) -> EngineError {
        match self {
            Self::Invalid(err) => err,
            Self::Refused(text) | Self::Unknown(text) | Self::Unreachable(text) => {
                EngineError::Upstream(masked(text, secrets))
            }
        }
    }
}

/// So much of a secret's beginning counts as the secret: databases cut short what they repeat.
const BEGINNING: usize = 6;

/// The text without secrets: as they are, as quotations escape them, whole or cut short.
fn masked(text: String, secrets: &[&str]) -> String {
    let secrets = secrets.iter().filter(|secret| !secret.is_empty());
    let shapes: Vec<String> = secrets.flat_map(|secret| statements::shapes(secret)).collect();
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(letter) = rest.chars().next() {
        let longest = shapes.iter().filter_map(|shape| beginning(rest, shape)).max();
        if longest.is_some() {
            kept.push_str("[password]");
        } else {
            kept.push(letter);
        }
        rest = rest.get(longest.unwrap_or(letter.len_utf8())..).unwrap_or_default();
    }
    kept
}

/// How many bytes of `secret`, or of a long enough beginning of it, `text` begins with.
fn beginning(text: &str, secret: &str) -> Option<usize> {
    let enough = secret.char_indices().nth(BEGINNING).map_or(secret.len(), |(at, _)| at);
    let common = text.chars().zip(secret.chars()).take_while(|(ours, theirs)| ours == theirs);
    let length: usize = common.map(|(letter, _)| letter.len_utf8()).sum();
    (length >= enough).then_some(length)
}

/// Where a database is and how to log in.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// With places for username and password.
    pub(super) url: String,
    pub(super) username: String,
    /// Passwords to try, in this order: more than one while a change of password is not known to be through.
    pub(super) passwords: Vec<Secretive>,
    /// Username and password are percent-encoded where they go into the URL.
    pub(super) escapes: bool,
    pub(super) limits: Limits,
    /// Authorities to trust, in PEM; the usual ones when empty.
    pub(super) tls_ca: String,
    /// Certificate and key to show, in PEM; none when empty.
    pub(super) tls_certificate_key: Secretive,
    /// Name the server's certificate must bear; the host's when empty.
    pub(super) tls_server_name: String,
    pub(super) tls_skips_verification: bool,
    /// Passwords are hashed here, so that no statement holds one.
    pub(super) hashes_passwords: bool,
}

/// What `{{expiration}}` stands for, and the statements it stands in.
pub(super) struct Renewal<'a> {
    pub(super) username: &'a str,
    pub(super) expiration: &'a str,
    pub(super) statements: &'a [String],
}

/// A user to be made.
pub(super) struct NewUser<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) expiration: &'a str,
    pub(super) statements: &'a [String],
    /// Run when making it failed halfway, where a database cannot take back by itself.
    pub(super) rollback: &'a [String],
    /// Run when it is removed, and when making it failed and something may be left.
    pub(super) revocation: &'a [String],
}

/// A user to be removed.
pub(super) struct OldUser<'a> {
    pub(super) username: &'a str,
    pub(super) statements: &'a [String],
    /// For which hosts the user was made, as [`Kind::hosts`] has it.
    pub(super) hosts: Option<&'a [String]>,
}

/// A password to be changed.
pub(super) struct NewPassword<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) statements: &'a [String],
}

/// A database, reached when it is first needed.
#[async_trait]
pub(super) trait Database: Debug + Send + Sync {
    /// Logs in.
    async fn verify(&self) -> Result<(), Failure>;
    /// Makes a user: whole, or not at all where the database can. One that is there already is [`Failure::Refused`], for
    /// whoever undoes a failure that is not certain removes the user.
    async fn create_user(&self, user: &NewUser<'_>) -> Result<(), Failure>;
    /// Changes a password.
    async fn change_password(&self, change: &NewPassword<'_>) -> Result<(), Failure>;
    /// Whether the user is let in by that password: false only if the database refuses the login for it.
    async fn lets_in(&self, username: &str, password: &str) -> Result<bool, Failure>;
    /// Moves the moment a user expires, where the database knows one.
    async fn renew_user(&self, renewal: &Renewal<'_>) -> Result<(), Failure>;
    /// Removes a user and ends its sessions. A user that is not there is fine, if that is certain.
    async fn revoke_user(&self, user: &OldUser<'_>) -> Result<(), Failure>;
    /// Closes connections that have been idle for long.
    fn sweep(&self);
}

/// A type of database, as configurations name it.
#[derive(Debug)]
pub(super) struct Kind {
    /// `plugin_name`.
    pub(super) name: &'static str,
    pub(super) username_template: &'static str,
    /// Longest name of a user, in bytes.
    pub(super) username_max: usize,
    /// Makes the database's value. Connects to nothing.
    pub(super) open: fn(&Settings) -> Result<Arc<dyn Database>, EngineError>,
    /// The URL without a password in it.
    pub(super) redact: fn(&str) -> String,
    /// Whether the URL holds a password of its own.
    pub(super) has_password: fn(&str) -> bool,
    /// As whom the URL logs in. None if it does not parse, or says nothing of it.
    pub(super) login: fn(&Settings) -> Option<Login>,
    /// The servers that the URL names, written so that the same text is the same server. None of them if it does
    /// not parse.
    pub(super) servers: fn(&Settings) -> Vec<String>,
    /// For which hosts creation statements make the user of that name, where that is a part of who a user is. None if it
    /// is not, or they do not say so plainly.
    pub(super) hosts: fn(&[String], &str) -> Option<Vec<String>>,
}

/// As whom a connection logs in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) username: String,
    /// Whether by the configured password, and not by one in the URL.
    pub(super) takes_password: bool,
}

/// Declares which files bring databases: one word each.
macro_rules! databases {
    ($($name:ident),* $(,)?) => {
        /// Every type of database.
        pub(super) static KINDS: &[&[Kind]] = &[$(super::$name::KINDS),*];
    };
}

databases![mysql, postgresql];

/// The type of that name.
pub(super) fn kind_named(kinds: &'static [&'static [Kind]], name: &str) -> Option<&'static Kind> {
    kinds.iter().copied().flatten().find(|kind| kind.name == name)
}

/// Whether a user that is to be made may be there already by what was told to the database.
#[derive(Debug, Default)]
pub(super) struct Begun(AtomicBool);

impl Begun {
    /// Says it, before the first of the statements that make the user; or takes it back, once they have come to nothing.
    pub(super) fn set(&self, has_begun: bool) {
        self.0.store(has_begun, Ordering::Relaxed);
    }

    /// What a call came to that was given up: before anything was begun nothing is changed.
    pub(super) fn judge(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Unknown(why) if !self.0.load(Ordering::Relaxed) => Failure::Unreachable(why),
            failure => failure,
        }
    }
}

/// What is said where a user of that name is there already: whose it is, is not known.
pub(super) fn already_there(username: &str) -> Failure {
    Failure::Refused(format!(
        "a user {username:?} is there already: username_template must make another name each time"
    ))
}

/// A call with an end.
///
/// # Errors
/// As `call` says, or [`Failure::Unknown`] when it takes too long.
pub(super) async fn bounded<T>(call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let outcome = tokio::time::timeout(CALL_PATIENCE, call).await;
    outcome.unwrap_or_else(|_| Err(Failure::Unknown("the database did not answer in time".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that hangs before it was told anything has made nobody: nothing is to be undone, and nobody to be
    /// removed who was there before.
    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_before_it_began_has_changed_nothing() {
        for (steps, want) in [(&[][..], true), (&[true], false), (&[true, false], true)] {
            let begun = Begun::default();
            let hangs = async {
                steps.iter().for_each(|has_begun| begun.set(*has_begun));
                std::future::pending().await
            };
            let failure = begun.judge(bounded::<()>(hangs).await.unwrap_err());
            assert_eq!(failure.is_certain(), want, "{steps:?}");
        }
    }

    #[test]
    fn no_failure_repeats_a_secret() {
        let text = "near \"can''ary\" can'ary".to_owned();
        let err = Failure::Refused(text).into_error(&["can'ary", ""]);
        assert_eq!(err.to_string(), "near \"[password]\" [password]");
    }

    #[test]
    fn no_failure_repeats_an_escaped_secret_or_its_beginning() {
        let secret = "ca'na\\ry\"1`";
        for text in [
            "near 'ca''na\\\\ry\"1`'",
            "near 'ca''na\\ry\"1`'",
            "near \"ca'na\\ry\"\"1`\"",
            "near `ca'na\\ry\"1```",
            "near 'ca''na\\\\r",
            "near 'ca'na\\",
        ] {
            let shown = Failure::Refused(text.to_owned()).into_error(&[secret]).to_string();
            assert!(!shown.contains("na") && !shown.contains("ry"), "{text}: {shown}");
            assert!(shown.contains("near") && shown.contains("[password]"), "{text}: {shown}");
        }
        let short = Failure::Refused("abc cab ab".to_owned()).into_error(&["abc"]);
        assert_eq!(short.to_string(), "[password] cab ab");
    }
}
