//! `arca operator rotate-keys`, also called `rekey`: new key shares for old.

use arca_client::{Client, Request};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::init::pgp_key;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};

/// Replaces the key shares by new ones.
#[derive(Args, Debug)]
#[command(
    after_help = "Begin with -init. Then each holder of a share of today runs the command and is asked for it; the last \
one gets the new shares, and the old ones open nothing any more. With -init -verify they take over \
only once enough of them were given back with -verify: prefer that, for a lost answer then loses \
nothing.\n\n\
Examples:\n  arca operator rotate-keys -init -verify -key-shares=5 -key-threshold=3\n  arca operator rotate-keys\n  \
arca operator rotate-keys -verify"
)]
pub struct Rekey {
    /// Begin.
    #[arg(long, group = "what")]
    init: bool,
    /// Show how far it is.
    #[arg(long, group = "what")]
    status: bool,
    /// Give up; with -verify, only forget the new shares given back so far.
    #[arg(long, group = "what")]
    cancel: bool,
    /// With -init, have the new shares verified before they take over; otherwise, give one back.
    #[arg(long)]
    verify: bool,
    /// New shares to make [default: 5].
    #[arg(long, short = 'n', value_name = "N", requires = "init")]
    key_shares: Option<u16>,
    /// New shares that unseal [default: 3].
    #[arg(long, short = 't', value_name = "N", requires = "init")]
    key_threshold: Option<u16>,
    /// PGP keys that encrypt the new shares, base64 or @file, separated by commas.
    #[arg(long, value_name = "KEY,…", value_delimiter = ',', requires = "init")]
    pgp_keys: Vec<String>,
    /// What -init printed, so that shares go to the right attempt.
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
    /// A key share; - reads it from standard input.
    key: Option<String>,
}

/// What the server answers, whichever step it was.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Answer {
    nonce: String,
    started: bool,
    complete: bool,
    t: u16,
    n: u16,
    progress: u32,
    required: u32,
    verification_required: bool,
    verification_nonce: String,
    keys: Vec<String>,
    keys_base64: Vec<String>,
}

/// One of the two families of paths. What needs no token is closed on most servers.
struct Paths {
    client: Client,
    base: &'static str,
}

impl Paths {
    fn of(client: Client) -> Self {
        let base = if client.config().token.is_some() { "sys/rotate/root" } else { "sys/rekey" };
        Self { client, base }
    }

    fn at(&self, step: &str) -> String {
        format!("{}/{step}", self.base)
    }

    /// The answer as it was sent, out of its envelope if it has one.
    async fn ask(&self, request: Request) -> Result<Value, CliError> {
        let doing = || "replace the key shares".to_owned();
        let answer: Value = self.client.send(request).await.and_then(|answer| answer.json()).doing(doing)?;
        Ok(data_of(answer))
    }
}

impl Rekey {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let doing = || "replace the key shares".to_owned();
        let paths = Paths::of(context.client()?);
        let step = paths.at(if self.verify && !self.init { "verify" } else { "init" });
        if self.cancel {
            paths.client.send(Request::delete(step)).await.doing(doing)?;
            return context.success(if self.verify {
                "The new shares given back so far are forgotten."
            } else {
                "The attempt is given up, if there was one. The shares of today stay."
            });
        }
        let answer = if self.status {
            paths.ask(Request::get(step)).await?
        } else if self.init {
            let keys: Vec<_> = self.pgp_keys.iter().map(|key| pgp_key(key)).collect::<Result<_, _>>()?;
            let body = json!({
                "secret_shares": self.key_shares.unwrap_or(5),
                "secret_threshold": self.key_threshold.unwrap_or(3),
                "require_verification": self.verify,
                "pgp_keys": keys,
            });
            paths.ask(Request::put(step).json(&body).doing(doing)?).await?
        } else {
            self.give(context, &paths, &step).await?
        };
        show(context, answer)
    }

    /// Gives one share: of today, or a new one back.
    async fn give(&self, context: &mut Context<'_>, paths: &Paths, status: &str) -> Result<Value, CliError> {
        let known: Answer = parsed(&paths.ask(Request::get(status)).await?)?;
        if !known.started {
            let missing = if self.verify {
                "no new shares wait for verification; -status shows how far it is"
            } else {
                "no attempt is under way; begin one with -init"
            };
            return Err(CliError::Usage(missing.into()));
        }
        let share = context.share(self.key.as_deref())?;
        // The share is the request.
        let body = json!({"key": share.expose(), "nonce": self.nonce.clone().unwrap_or(known.nonce)});
        let path = paths.at(if self.verify { "verify" } else { "update" });
        let doing = || "replace the key shares".to_owned();
        paths.ask(Request::put(path).json(&body).doing(doing)?).await
    }
}

/// What an answer says: paths that need a token put it into an envelope, others do not.
pub(super) fn data_of(answer: Value) -> Value {
    match answer {
        Value::Object(mut fields) if fields.get("data").is_some_and(Value::is_object) => {
            fields.remove("data").unwrap_or_default()
        }
        bare => bare,
    }
}

fn parsed(answer: &Value) -> Result<Answer, CliError> {
    Answer::deserialize(answer)
        .map_err(|err| CliError::Usage(format!("the server's answer is not understood: {err}")))
}

fn show(context: &mut Context<'_>, answer: Value) -> Outcome {
    if context.is_for_programs() {
        return context.structured(&answer);
    }
    let known = parsed(&answer)?;
    if !known.keys_base64.is_empty() {
        let mut text: String =
            (1..).zip(&known.keys_base64).map(|(number, key)| format!("Key {number}: {key}\n")).collect();
        text.push_str(if known.verification_nonce.is_empty() {
            "\nThese shares have taken over, and are not shown again. The old ones open nothing any more.\n"
        } else {
            "\nThese shares are not shown again, and have not taken over yet: give them back with -verify.\n"
        });
        context.console.print(text.as_bytes());
        return Ok(0);
    }
    if known.complete {
        return context.success("The new shares have taken over. The old ones open nothing any more.");
    }
    let mut rows = vec![("Nonce", known.nonce), ("Started", known.started.to_string())];
    if known.started {
        rows.push(("Progress", format!("{}/{}", known.progress, known.required.max(u32::from(known.t)))));
        rows.push(("New Shares", known.n.to_string()));
        rows.push(("New Threshold", known.t.to_string()));
        rows.push(("Verification Required", known.verification_required.to_string()));
    }
    if !known.verification_nonce.is_empty() {
        rows.push(("Verification Nonce", known.verification_nonce));
    }
    context.pairs(&answer, rows)
}
