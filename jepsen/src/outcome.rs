//! What an answer, or the lack of one, says about a call: the table of `SEMANTICS.md` as one function.
//!
//! **Invariant:** in doubt the outcome is [`Outcome::Unknown`]. A wrong `Fail` would hide a lost write from
//! the checkers or invent one; a wrong `Unknown` only makes them work harder.

use arca_client::{Error, TransportKind};

use crate::history::Call;

/// Part of what the server says when a checked write finds another version.
const MISMATCH: &str = "check-and-set parameter did not match";
/// Part of what the server says of a wrapping token that is no good, whatever the reason.
const NOT_A_WRAPPING_TOKEN: &str = "wrapping token is not valid or does not exist";

/// What the server says of a login that did not prove who it says it is.
const BAD_LOGINS: [&str; 2] = ["invalid role or secret ID", "invalid username or password"];

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A whole answer.
    Answered {
        /// HTTP status.
        status: u16,
        /// The lines of `errors` in the body; empty for a success.
        errors: Vec<String>,
    },
    /// The connection broke, the time limit passed, or what came back was no answer, after bytes may have
    /// been sent.
    Broken,
    /// Not a byte of the request left: there was no connection, or the request could not be built.
    NotSent,
}

impl Reply {
    /// A success.
    #[must_use]
    pub const fn success() -> Self {
        Self::Answered { status: 200, errors: Vec::new() }
    }
}

impl From<&Error> for Reply {
    fn from(err: &Error) -> Self {
        match err {
            Error::Api(err) => Self::Answered { status: err.status.as_u16(), errors: err.errors.clone() },
            // `Tls` is among them: a record that cannot be opened may come long after the request was sent.
            Error::Transport(err) => match err.kind {
                TransportKind::CertificateAuthority
                | TransportKind::CertificateName
                | TransportKind::CertificateOther
                | TransportKind::Connect
                | TransportKind::HttpServerAskedForTls => Self::NotSent,
                _ => Self::Broken,
            },
            Error::BadResponse { .. } | Error::TooLarge { .. } => Self::Broken,
            // A redirect says that nothing was done where it comes from.
            Error::Redirect { .. } => Self::NotSent,
            Error::Address { .. }
            | Error::BadRequest { .. }
            | Error::Config { .. }
            | Error::DryRun(_)
            | Error::File { .. } => Self::NotSent,
        }
    }
}

/// What is known of a call afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It surely did not happen, and nothing is learned.
    Fail,
    /// It happened, and the answer is its result.
    Ok,
    /// It surely did not happen, and why not is a fact about the state that the checkers hold against the rest.
    Refused,
    /// It may or may not have happened, or may happen yet.
    Unknown,
}

/// The outcome of a call. The rules are in `SEMANTICS.md`, in the same order.
#[must_use]
pub fn outcome(call: &Call, reply: &Reply) -> Outcome {
    let found = match reply {
        Reply::Answered { status, errors } => answered(call, *status, errors),
        Reply::Broken => Outcome::Unknown,
        Reply::NotSent => Outcome::Fail,
    };
    // What changes nothing cannot have changed anything: a read without an answer is a read that did not
    // happen.
    if found == Outcome::Unknown && !call.has_effect() { Outcome::Fail } else { found }
}

fn answered(call: &Call, status: u16, errors: &[String]) -> Outcome {
    let says = |what: &str| errors.iter().any(|line| line.contains(what));
    match (call, status) {
        (_, 200 | 204) => Outcome::Ok,
        // The lease is marked and that is committed before anything is waited for: whatever goes wrong after that, it ends.
        (Call::RevokeNow, 307 | 400 | 472 | 503) => Outcome::Unknown,
        (Call::Cas { .. }, 400) if says(MISMATCH) => Outcome::Refused,
        (Call::Unwrap, 400) if says(NOT_A_WRAPPING_TOKEN) => Outcome::Refused,
        (Call::Login { .. }, 400) if BAD_LOGINS.iter().any(|text| says(text)) => Outcome::Refused,
        (Call::Use | Call::Spend, 403) => Outcome::Refused,
        // Nothing is there: that is what was asked.
        (Call::Read | Call::Probe | Call::Remaining, 404) => Outcome::Ok,
        // Refused before anything ran, or by a node that could not take it on.
        (_, 307 | 405 | 408 | 412 | 413 | 415 | 429 | 431 | 472 | 503) => Outcome::Fail,
        // The request ran and failed; the use it took is kept all the same.
        (Call::Spend, 400 | 404) => Outcome::Unknown,
        // The wrapped answer may be about something that is not there, and is then taken out with a 404.
        (Call::Unwrap, 404) => Outcome::Unknown,
        (_, 400 | 403 | 404) => Outcome::Fail,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Fail, Ok, Refused, Unknown};
    use super::*;

    const WRITE: Call = Call::Write { value: 1 };
    const CAS: Call = Call::Cas { version: 1, from: Some(1), value: 2 };
    const APPEND: Call = Call::Append { value: 1 };
    const LOGIN: Call = Call::Login { password: None };
    const CREATE: Call = Call::Create { uses: None, ttl_ms: None };

    fn reply(status: u16, error: &str) -> Reply {
        let errors = if error.is_empty() { Vec::new() } else { vec![error.to_owned()] };
        Reply::Answered { status, errors }
    }

    #[track_caller]
    fn check(status: u16, error: &str, expected: &[(Call, Outcome)]) {
        for (call, want) in expected {
            assert_eq!(outcome(call, &reply(status, error)), *want, "{call:?} answered {status} {error}");
        }
    }

    /// Every call, with its outcome where nothing but the status class counts.
    fn all(effect: Outcome, none: Outcome) -> Vec<(Call, Outcome)> {
        let with = [
            WRITE,
            CAS,
            Call::Delete,
            APPEND,
            CREATE,
            LOGIN,
            Call::Revoke,
            Call::Spend,
            Call::Wrap,
            Call::Unwrap,
            Call::Renew { ttl_ms: 1 },
        ];
        let without = [Call::Read, Call::Use, Call::Probe, Call::Remaining];
        with.map(|call| (call, effect)).into_iter().chain(without.map(|call| (call, none))).collect()
    }

    #[test]
    fn successes() {
        check(200, "", &all(Ok, Ok));
        check(204, "", &all(Ok, Ok));
    }

    #[test]
    fn nobody_took_it_on() {
        for status in [307, 405, 408, 412, 413, 415, 429, 431, 472, 503] {
            check(status, "try again", &all(Fail, Fail));
        }
    }

    #[test]
    fn in_doubt() {
        for status in [201, 302, 418, 500, 501, 502, 504, 599] {
            check(status, "it may or may not have happened", &all(Unknown, Fail));
        }
    }

    #[test]
    fn revocations_that_were_waited_for_in_vain() {
        for status in [307, 400, 472, 500, 502, 503] {
            check(status, "it could not be revoked yet", &[(Call::RevokeNow, Unknown)]);
        }
        for status in [403, 404, 405, 412, 413, 429] {
            check(status, "refused before it began", &[(Call::RevokeNow, Fail)]);
        }
        check(204, "", &[(Call::RevokeNow, Ok)]);
    }

    #[test]
    fn bad_requests() {
        check(400, "something", &[(WRITE, Fail), (CAS, Fail), (APPEND, Fail), (Call::Delete, Fail)]);
        check(400, "something", &[(CREATE, Fail), (Call::Revoke, Fail), (Call::Wrap, Fail)]);
        check(400, "the request body broke off", &[(CAS, Fail), (Call::Unwrap, Fail), (Call::Read, Fail)]);
        check(400, "something", &[(Call::Use, Fail), (Call::Spend, Unknown)]);
    }

    #[test]
    fn another_version_is_there() {
        let text = "check-and-set parameter did not match the current version";
        // An append reads first and then writes what it read and more: which version it met is not in the
        // history.
        check(400, text, &[(CAS, Refused), (APPEND, Fail), (WRITE, Fail)]);
    }

    #[test]
    fn tokens_that_are_no_good() {
        check(403, "permission denied", &[(Call::Use, Refused), (Call::Spend, Refused), (Call::Read, Fail)]);
        check(403, "permission denied", &[(WRITE, Fail), (CREATE, Fail), (Call::Revoke, Fail), (CAS, Fail)]);
        check(400, NOT_A_WRAPPING_TOKEN, &[(Call::Unwrap, Refused), (Call::Wrap, Fail)]);
        check(403, "permission denied", &[(Call::Unwrap, Fail)]);
    }

    #[test]
    fn logins_that_prove_nothing() {
        for text in BAD_LOGINS {
            check(400, text, &[(LOGIN, Refused), (CREATE, Fail), (Call::Spend, Unknown)]);
        }
        // Locked, or from the wrong address: says nothing of the secret.
        check(403, "permission denied", &[(LOGIN, Fail)]);
        check(400, "missing secret_id", &[(LOGIN, Fail)]);
    }

    #[test]
    fn nothing_is_there() {
        check(404, "", &[(Call::Read, Ok), (Call::Probe, Ok), (WRITE, Fail), (Call::Delete, Fail)]);
        check(404, "", &[(Call::Remaining, Ok), (Call::Renew { ttl_ms: 1 }, Fail)]);
        check(404, "", &[(Call::Unwrap, Unknown), (Call::Spend, Unknown), (Call::Use, Fail)]);
    }

    #[test]
    fn no_answer() {
        for (call, want) in all(Unknown, Fail) {
            assert_eq!(outcome(&call, &Reply::Broken), want, "{call:?}");
            assert_eq!(outcome(&call, &Reply::NotSent), Fail, "{call:?}");
        }
    }

    #[test]
    fn errors_of_the_sdk() {
        let check = |err: Error, want: Reply| assert_eq!(Reply::from(&err), want, "{err}");
        let text = || "reason".to_owned();
        check(Error::BadRequest { reason: text() }, Reply::NotSent);
        check(Error::Redirect { from: text(), to: text(), reason: text() }, Reply::NotSent);
        check(Error::TooLarge { path: text(), limit: 1 }, Reply::Broken);
        check(Error::BadResponse { method: http::Method::PUT, path: text(), reason: text() }, Reply::Broken);
    }
}
