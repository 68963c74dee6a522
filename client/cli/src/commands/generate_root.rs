//! `arca operator generate-root`: a new root token from key shares, hidden by a one-time pad on its way.

use arca_client::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::init::pgp_key;
use super::rekey::data_of;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;

/// Makes a new root token with key shares.
#[derive(Args, Debug)]
#[command(
    after_help = "Begin with -init, which prints a one-time password. Then each holder of a share runs the command and \
is asked for it. The last one gets the encoded token, which -decode opens with the one-time \
password.\n\n\
Example: arca operator generate-root -decode=ENCODED -otp=OTP"
)]
pub struct GenerateRoot {
    /// Begin.
    #[arg(long, group = "what")]
    init: bool,
    /// Show how far it is.
    #[arg(long, group = "what")]
    status: bool,
    /// Give up and forget the shares given so far.
    #[arg(long, group = "what")]
    cancel: bool,
    /// Print a one-time password for -init.
    #[arg(long, group = "what")]
    generate_otp: bool,
    /// Decode the encoded token with -otp; - reads it from standard input.
    #[arg(long, value_name = "ENCODED", group = "what")]
    decode: Option<String>,
    /// The one-time password.
    #[arg(long, value_name = "OTP")]
    otp: Option<String>,
    /// PGP key that encrypts the token, instead of a one-time password: base64, or a file.
    #[arg(long, value_name = "KEY")]
    pgp_key: Option<String>,
    /// What -init printed, so that shares go to the right attempt.
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
    /// Make a token for a server in recovery mode, instead of a root token.
    #[arg(long, group = "kind")]
    recovery_token: bool,
    /// Make an operation token for a disaster-recovery secondary, instead of a root token.
    #[arg(long, group = "kind")]
    dr_token: bool,
    /// A key share; - reads it from standard input.
    key: Option<String>,
}

/// How far an attempt is.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Attempt {
    nonce: String,
    started: bool,
    progress: u32,
    required: u32,
    complete: bool,
    encoded_token: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    encoded_root_token: String,
    pgp_fingerprint: String,
    otp: String,
    otp_length: usize,
}

impl GenerateRoot {
    /// The same for an operation token, whatever the flags say.
    pub(super) fn for_operations(self) -> Self {
        Self { dr_token: true, recovery_token: false, ..self }
    }

    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(encoded) = &self.decode {
            return self.decode(context, encoded);
        }
        let client = context.client()?;
        let base = match (self.recovery_token, self.dr_token) {
            (true, _) => "sys/generate-recovery-token",
            (false, true) => "sys/replication/dr/secondary/generate-operation-token",
            // What needs no token is closed on most servers.
            (false, false) if client.config().token.is_some() => "sys/generate-root-token",
            (false, false) => "sys/generate-root",
        };
        let attempt_path = || format!("{base}/attempt");
        let doing = || "make a root token".to_owned();
        let ask = |request: Request| {
            let client = client.clone();
            async move {
                let answer = data_of(client.send(request).await.doing(doing)?.json().doing(doing)?);
                let attempt = Attempt::deserialize(answer);
                attempt
                    .map_err(|err| CliError::Usage(format!("the server's answer is not understood: {err}")))
            }
        };
        if self.cancel {
            client.send(Request::delete(attempt_path())).await.doing(doing)?;
            return context.success("The attempt is given up, if there was one.");
        }
        if self.generate_otp {
            let attempt = ask(Request::get(attempt_path())).await?;
            let otp = otp(attempt.otp_length.max(1))?;
            context.console.say(&otp);
            return Ok(0);
        }
        let attempt = if self.status {
            ask(Request::get(attempt_path())).await?
        } else if self.init {
            let pgp_key = self.pgp_key.as_deref().map(pgp_key).transpose()?.unwrap_or_default();
            let body = json!({"otp": self.otp.unwrap_or_default(), "pgp_key": pgp_key});
            let attempt = ask(Request::put(attempt_path()).json(&body).doing(doing)?).await?;
            if !attempt.otp.is_empty() {
                context.console.note("Keep the OTP: -decode needs it, and it is not shown again.");
            }
            attempt
        } else {
            let attempt = ask(Request::get(attempt_path())).await?;
            if !attempt.started {
                return Err(CliError::Usage("no attempt is under way; begin one with -init".into()));
            }
            let share = context.share(self.key.as_deref())?;
            // The share is the request.
            let body = json!({"key": share.expose(), "nonce": self.nonce.unwrap_or(attempt.nonce)});
            ask(Request::put(format!("{base}/update")).json(&body).doing(doing)?).await?
        };
        show(context, &attempt)
    }

    fn decode(&self, context: &mut Context<'_>, encoded: &str) -> Outcome {
        let otp = self.otp.as_deref().ok_or_else(|| CliError::Usage("-decode needs -otp".into()))?;
        let encoded = match encoded {
            "-" => input::value("-", &mut context.console.stdin)?.trim().to_owned(),
            text => text.to_owned(),
        };
        let token = decoded(&encoded, otp)?;
        if context.is_for_programs() {
            return context.structured(&json!({"token": token.as_str()}));
        }
        context.console.say(&token);
        Ok(0)
    }
}

/// Takes the pad off.
fn decoded(encoded: &str, otp: &str) -> Result<Zeroizing<String>, CliError> {
    let bad = |reason: &str| CliError::Usage(format!("cannot decode the token: {reason}"));
    let bytes = STANDARD_NO_PAD.decode(encoded.trim_end_matches('='));
    let bytes = Zeroizing::new(bytes.map_err(|_| bad("it is not base64"))?);
    if bytes.is_empty() {
        return Err(bad("there is none"));
    }
    if bytes.len() != otp.len() {
        return Err(bad("the one-time password is not as long as the token; is it the one -init printed?"));
    }
    let token = bytes.iter().zip(otp.bytes()).map(|(byte, pad)| byte ^ pad).collect();
    let token = String::from_utf8(token).map_err(|_| bad("the one-time password does not fit"))?;
    Ok(Zeroizing::new(token))
}

/// A random text of letters and digits.
fn otp(length: usize) -> Result<String, CliError> {
    use std::io::Read;
    let mut out = String::with_capacity(length);
    let failed = |source| CliError::File { path: "/dev/urandom".into(), source };
    let mut random = std::fs::File::open("/dev/urandom").map_err(failed)?;
    while out.len() < length {
        let mut bytes = Zeroizing::new([0_u8; 64]);
        random.read_exact(bytes.as_mut_slice()).map_err(failed)?;
        // Bytes from 248 on are skipped, so that each of the 62 characters is equally likely.
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| byte % 62);
        out.extend(fair.map(|index| {
            char::from(match index {
                0..26 => b'a' + index,
                26..52 => b'A' + (index - 26),
                _ => b'0' + (index - 52),
            })
        }));
    }
    out.truncate(length);
    Ok(out)
}

fn show(context: &mut Context<'_>, attempt: &Attempt) -> Outcome {
    let mut rows = vec![
        ("Nonce", attempt.nonce.clone()),
        ("Started", attempt.started.to_string()),
        ("Progress", format!("{}/{}", attempt.progress, attempt.required)),
        ("Complete", attempt.complete.to_string()),
    ];
    let more = [
        ("PGP Fingerprint", &attempt.pgp_fingerprint),
        ("Encoded Token", &attempt.encoded_token),
        ("OTP", &attempt.otp),
    ];
    rows.extend(
        more.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.clone())),
    );
    if attempt.otp_length > 0 {
        rows.push(("OTP Length", attempt.otp_length.to_string()));
    }
    context.pairs(attempt, rows)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn the_pad_comes_off() {
        let (token, pad) = ("hvs.abcdefghijklmnopqrstuvwx", otp(28).unwrap());
        let hidden: Vec<u8> = token.bytes().zip(pad.bytes()).map(|(byte, pad)| byte ^ pad).collect();
        assert_eq!(decoded(&STANDARD_NO_PAD.encode(&hidden), &pad).unwrap().as_str(), token);
        assert_eq!(decoded(&STANDARD.encode(&hidden), &pad).unwrap().as_str(), token);
        assert!(decoded(&STANDARD.encode(&hidden), "short").is_err());
        assert!(decoded("§", &pad).is_err());
        assert!(decoded("", "").is_err());
    }
}
