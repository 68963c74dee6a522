//! `arca operator init` and `arca operator unseal`: the two commands that handle key shares.

use arca_client::sys::{InitRequest, InitResponse};
use arca_client::{Client, Token};
use clap::Args;
use serde::Serialize;

use super::status;
use crate::args::Format;
use crate::context::Context;
use crate::error::{AtFile, CliError, Doing, Outcome};

/// Initializes a cluster: makes its keys, shows the shares and the first root token, once.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca operator init -key-shares=5 -key-threshold=3")]
pub struct Init {
    /// Shares to split the unseal key into [default: 5].
    #[arg(long, short = 'n', value_name = "N")]
    key_shares: Option<u16>,
    /// Shares that unseal [default: 3].
    #[arg(long, short = 't', value_name = "N")]
    key_threshold: Option<u16>,
    /// PGP keys that encrypt the shares, base64 or @file, separated by commas.
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    pgp_keys: Vec<String>,
    /// Shares to split the recovery key into, with a seal that unseals by itself.
    #[arg(long, value_name = "N")]
    recovery_shares: Option<u16>,
    /// Shares that recover.
    #[arg(long, value_name = "N")]
    recovery_threshold: Option<u16>,
    /// PGP keys that encrypt the recovery shares.
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    recovery_pgp_keys: Vec<String>,
    /// PGP key that encrypts the root token.
    #[arg(long, value_name = "KEY")]
    root_token_pgp_key: Option<String>,
    /// Only tell whether it is initialized: exits with 0 if so, 2 if not.
    #[arg(long)]
    status: bool,
}

/// What scripts read; the names are those of Vault's CLI.
#[derive(Serialize)]
struct Shown<'a> {
    unseal_keys_b64: Vec<&'a str>,
    unseal_keys_hex: Vec<&'a str>,
    unseal_shares: u16,
    unseal_threshold: u16,
    recovery_keys_b64: Vec<&'a str>,
    recovery_keys_hex: Vec<&'a str>,
    recovery_keys_shares: u16,
    recovery_keys_threshold: u16,
    root_token: &'a str,
}

impl Init {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        if self.status {
            return show_init_status(context, &client).await;
        }
        let request = self.request(&client).await?;
        let answer = client.sys().init(&request).await.doing(|| "initialize".to_owned())?;
        if context.is_for_programs() {
            return context.structured(&shown(&request, &answer));
        }
        let text = text(&request, &answer);
        context.console.print(text.as_bytes());
        Ok(0)
    }

    /// Fills the defaults of the seal in use in: shares for Shamir, recovery shares for the others.
    async fn request(&self, client: &Client) -> Result<InitRequest, CliError> {
        let has_recovery = self.recovery_shares.is_some() || self.recovery_threshold.is_some();
        let seal = client.live().sys().seal_status().await.doing(|| "ask which seal is in use".to_owned())?;
        let is_shamir = seal.kind.is_empty() || seal.kind == "shamir";
        let recovers = has_recovery || (!is_shamir && self.key_shares.is_none());
        let keys = |list: &[String]| list.iter().map(|key| pgp_key(key)).collect::<Result<Vec<_>, _>>();
        let (shares, threshold) = if recovers { (0, 0) } else { (5, 3) };
        let (recovery_shares, recovery_threshold) = if recovers { (5, 3) } else { (0, 0) };
        Ok(InitRequest {
            secret_shares: self.key_shares.unwrap_or(shares),
            secret_threshold: self.key_threshold.unwrap_or(threshold),
            pgp_keys: keys(&self.pgp_keys)?,
            recovery_shares: self.recovery_shares.unwrap_or(recovery_shares),
            recovery_threshold: self.recovery_threshold.unwrap_or(recovery_threshold),
            recovery_pgp_keys: keys(&self.recovery_pgp_keys)?,
            root_token_pgp_key: self
                .root_token_pgp_key
                .as_deref()
                .map(pgp_key)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

/// A PGP key, base64 on the command line or in a file, binary in a file.
pub(super) fn pgp_key(key: &str) -> Result<String, CliError> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    if key.starts_with("keybase:") {
        return Err(CliError::Usage(
            "keybase: is not supported; save the key in a file and give @file".into(),
        ));
    }
    let path = match key.strip_prefix('@') {
        Some(path) => path,
        None if std::path::Path::new(key).is_file() => key,
        None => return Ok(key.to_owned()),
    };
    let bytes = std::fs::read(path).at_file(path)?;
    let text = std::str::from_utf8(&bytes).map(str::trim).ok();
    let is_base64 = text.is_some_and(|text| BASE64_STANDARD.decode(text).is_ok());
    Ok(text.filter(|_| is_base64).map_or_else(|| BASE64_STANDARD.encode(&bytes), str::to_owned))
}

async fn show_init_status(context: &mut Context<'_>, client: &Client) -> Outcome {
    let is_initialized =
        client.sys().init_status().await.doing(|| "ask whether it is initialized".to_owned())?;
    if context.format == Format::Table {
        context.console.say(if is_initialized { "Initialized" } else { "Not initialized" });
    } else {
        // Vault's CLI spells it so.
        context.structured(&serde_json::json!({"Initialized": is_initialized}))?;
    }
    Ok(if is_initialized { 0 } else { 2 })
}

// Shares and token are exposed here because this is the one time they are shown.
fn exposed(tokens: &[Token]) -> Vec<&str> {
    tokens.iter().map(Token::expose).collect()
}

fn shown<'a>(request: &InitRequest, answer: &'a InitResponse) -> Shown<'a> {
    Shown {
        unseal_keys_b64: exposed(&answer.keys_base64),
        unseal_keys_hex: exposed(&answer.keys),
        unseal_shares: request.secret_shares,
        unseal_threshold: request.secret_threshold,
        recovery_keys_b64: exposed(answer.recovery_keys_base64.as_deref().unwrap_or_default()),
        recovery_keys_hex: exposed(answer.recovery_keys.as_deref().unwrap_or_default()),
        recovery_keys_shares: request.recovery_shares,
        recovery_keys_threshold: request.recovery_threshold,
        root_token: answer.root_token.expose(),
    }
}

fn text(request: &InitRequest, answer: &InitResponse) -> String {
    let mut text = String::new();
    let mut list = |title: &str, keys: &[Token]| {
        for (index, key) in exposed(keys).into_iter().enumerate() {
            text.push_str(&format!("{title} {}: {key}\n", index + 1));
        }
    };
    list("Unseal Key", &answer.keys_base64);
    list("Recovery Key", answer.recovery_keys_base64.as_deref().unwrap_or_default());
    text.push_str(&format!("\nInitial Root Token: {}\n\n", answer.root_token.expose()));
    let (shares, threshold) = match request.secret_shares {
        0 => (request.recovery_shares, request.recovery_threshold),
        shares => (shares, request.secret_threshold),
    };
    text.push_str(&format!(
        "The cluster is initialized. Give each of the {shares} keys to another person: {threshold} of them are needed \
         whenever\na server starts, and without them nobody opens what it holds, not even its makers. They are not \
         shown again.\n\nNext: `arca operator unseal` on every server, {threshold} times each, then `arca login`.\n"
    ));
    text
}

/// Gives a key share to a sealed server; once enough are there, it unseals.
#[derive(Args, Debug)]
#[command(
    after_help = "The share is asked for, or read from a pipe: an argument would stay in the shell's history.\n\n\
Example: arca operator unseal"
)]
pub struct Unseal {
    /// Forget the shares given so far.
    #[arg(long)]
    reset: bool,
    /// The share is for migrating the seal.
    #[arg(long)]
    migrate: bool,
    /// The share; - reads it from standard input.
    key: Option<String>,
}

impl Unseal {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let status = if self.reset {
            client.sys().unseal_reset().await
        } else {
            let share = context.share(self.key.as_deref())?;
            client.sys().unseal(&share, self.migrate).await
        };
        let status = status.doing(|| "unseal".to_owned())?;
        let leader = if status.sealed { None } else { client.sys().leader().await.ok() };
        status::show(context, &status, leader.as_ref())?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json;

    #[test]
    fn scripts_find_their_names() {
        let request = InitRequest { secret_shares: 1, secret_threshold: 1, ..InitRequest::default() };
        let answer: InitResponse =
            serde_json::from_str(r#"{"keys":["aa"],"keys_base64":["qg=="],"root_token":"hvs.r"}"#).unwrap();
        expect_test::expect![[r#"
            {
              "unseal_keys_b64": [
                "qg=="
              ],
              "unseal_keys_hex": [
                "aa"
              ],
              "unseal_shares": 1,
              "unseal_threshold": 1,
              "recovery_keys_b64": [],
              "recovery_keys_hex": [],
              "recovery_keys_shares": 0,
              "recovery_keys_threshold": 0,
              "root_token": "hvs.r"
            }
        "#]]
        .assert_eq(&json::pretty(&shown(&request, &answer)));
    }
}
