//! The making of a root token, or a DR operation token, out of key shares: one attempt, from its one-time pad to the
//! encoded token. Decides; [`crate::root_keys`] carries out.

use arca_kernel::root_keys::{Generation, Offered, Purpose};
use arca_kernel::tokens::ROOT_TOKEN_LEN;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::root_attempt::{AttemptError, Collected, check_nonce, share};

const WHAT: &str = "root generation";
/// Said of a set of shares that is not the key.
pub(crate) const ABORTED: &str =
    "root generation aborted: key shares do not give the key; give them again, the attempt goes on";

/// An attempt under way.
#[derive(Debug)]
pub(crate) struct GenerationAttempt {
    purpose: Purpose,
    nonce: String,
    otp: Pad,
    collected: Collected,
}

/// A one-time pad. Not printed.
struct Pad(Zeroizing<String>);

impl std::fmt::Debug for Pad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pad(redacted)")
    }
}

/// Begins an attempt, if there is none and the pad fits a token.
pub(crate) fn begin(
    slot: &mut Option<GenerationAttempt>,
    purpose: Purpose,
    otp: Zeroizing<String>,
    nonce: String,
) -> Result<(), AttemptError> {
    if otp.len() != ROOT_TOKEN_LEN {
        return Err(AttemptError::Invalid("OTP string has incorrect length".to_owned()));
    }
    if slot.is_some() {
        return Err(AttemptError::Busy("root generation"));
    }
    *slot = Some(GenerationAttempt { purpose, nonce, otp: Pad(otp), collected: Collected::default() });
    Ok(())
}

/// How far it is.
pub(crate) fn status(slot: Option<&GenerationAttempt>, required: u8) -> Generation {
    Generation {
        nonce: slot.map(|attempt| attempt.nonce.clone()),
        progress: slot.map_or(0, |attempt| attempt.collected.progress()),
        required,
    }
}

/// Takes a share; gives the seal key once there are enough.
pub(crate) fn offer(
    slot: Option<&mut GenerationAttempt>,
    offered: &Offered,
    threshold: u8,
) -> Result<Option<Zeroizing<Vec<u8>>>, AttemptError> {
    let share = share(&offered.share)?;
    let attempt = slot.ok_or(AttemptError::None("no root generation in progress"))?;
    check_nonce(WHAT, &attempt.nonce, &offered.nonce)?;
    attempt.collected.offer(share, threshold, "generation", ABORTED)
}

impl GenerationAttempt {
    /// Whether it makes that. Shares given for one thing must not make another.
    pub(crate) fn is_for(&self, purpose: Purpose) -> bool {
        self.purpose == purpose
    }

    /// Names it.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// The token under the pad; `None` if they are not of one length.
    pub(crate) fn encode(&self, token: &str) -> Option<Zeroizing<String>> {
        let pad = self.otp.0.as_bytes();
        if token.len() != pad.len() {
            return None;
        }
        let hidden: Vec<u8> = token.bytes().zip(pad).map(|(byte, pad)| byte ^ pad).collect();
        Some(Zeroizing::new(STANDARD_NO_PAD.encode(Zeroizing::new(hidden).as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Option<GenerationAttempt> {
        let mut slot = None;
        let otp = Zeroizing::new("p".repeat(ROOT_TOKEN_LEN));
        begin(&mut slot, Purpose::RootToken, otp, "n".to_owned()).unwrap();
        slot
    }

    fn offered(share: &str, nonce: &str) -> Offered {
        Offered { share: Zeroizing::new(share.to_owned()), nonce: nonce.to_owned() }
    }

    #[track_caller]
    fn check(slot: &mut Option<GenerationAttempt>, share: &str, nonce: &str, want: &str) {
        let got = match offer(slot.as_mut(), &offered(share, nonce), 2) {
            Ok(None) => status(slot.as_ref(), 2).progress.to_string(),
            Ok(Some(_)) => "key".to_owned(),
            Err(err) => err.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn the_pad_must_fit_and_one_attempt_runs() {
        let mut slot = None;
        let mut try_begin = |otp: &str| {
            let otp = Zeroizing::new(otp.to_owned());
            begin(&mut slot, Purpose::RootToken, otp, "n".to_owned()).map_err(|err| err.to_string())
        };
        for otp in ["", "short", &"p".repeat(ROOT_TOKEN_LEN + 1)] {
            assert_eq!(try_begin(otp), Err("OTP string has incorrect length".to_owned()));
        }
        let fits = "p".repeat(28);
        assert_eq!(try_begin(&fits), Ok(()));
        assert_eq!(try_begin(&fits), Err("root generation already in progress".to_owned()));
    }

    #[test]
    fn shares_count_for_the_attempt_they_name() {
        let (one, two) = (format!("{}01", "aa".repeat(32)), format!("{}02", "bb".repeat(32)));
        check(&mut None, &one, "n", "no root generation in progress");
        let mut slot = begun();
        check(&mut slot, "zz!", "n", "'key' must be a valid hex or base64 string");
        let wrong = "incorrect nonce supplied; nonce for this root generation operation is \"n\"";
        check(&mut slot, &one, "m", wrong);
        check(&mut slot, &one, "n", "1");
        check(&mut slot, &one, "n", "given key has already been provided during this generation operation");
        check(&mut slot, &two, "n", "key");
        assert_eq!(status(slot.as_ref(), 2).progress, 0);
    }

    #[test]
    fn the_token_goes_out_under_the_pad() {
        let attempt = begun().unwrap();
        let token = "hvs.abcdefghijklmnopqrstuvwx";
        let encoded = attempt.encode(token).unwrap();
        let hidden = STANDARD_NO_PAD.decode(encoded.as_bytes()).unwrap();
        assert_eq!(hidden.iter().map(|byte| byte ^ b'p').collect::<Vec<u8>>(), token.as_bytes());
        assert!(attempt.encode("short").is_none());
        assert!(!format!("{attempt:?}").contains("pppp"));
    }
}
