//! How bytes and versions are written in requests and answers: standard base64, and `vault:v3:` before what a version
//! of a key made.

use arca_engine_api::EngineError;
use base64::alphabet::{STANDARD as LETTERS, URL_SAFE as URL_LETTERS};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _};
use zeroize::Zeroizing;

const PREFIX: &str = "vault:v";

/// As lenient as Go: bits after the last whole byte may be anything.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&LETTERS, LENIENT);
const URL: GeneralPurpose = GeneralPurpose::new(
    &URL_LETTERS,
    LENIENT.with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Standard base64.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Base64 for URLs, without padding.
pub(super) fn encode_url(bytes: &[u8]) -> String {
    URL.encode(bytes)
}

/// Reads standard base64. The error says where it is wrong, not what stands there.
pub(super) fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    decode_by(&STANDARD, text)
}

/// Reads base64 for URLs, without padding.
pub(super) fn decode_url(text: &str) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    decode_by(&URL, text)
}

fn decode_by(engine: &GeneralPurpose, text: &str) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    // Line ends may stand anywhere.
    let joined: Option<Zeroizing<String>> = text
        .contains(['\r', '\n'])
        .then(|| Zeroizing::new(text.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect()));
    let text = joined.as_ref().map_or(text, |joined| joined.as_str());
    engine.decode(text).map(Zeroizing::new).map_err(|err| {
        let at = match err {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            // A group of four is not whole: said of its start.
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => {
                text.trim_end_matches('=').len() / 4 * 4
            }
        };
        EngineError::invalid(format!("illegal base64 data at input byte {at}"))
    })
}

/// What a version of a key made, as shown.
pub(super) fn versioned(version: u32, encoded: &str) -> String {
    format!("{PREFIX}{version}:{encoded}")
}

/// Why a text is not what a version of a key made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unversioned {
    Fields,
    Number,
    Prefix,
}

impl Unversioned {
    /// In words: `what` is a ciphertext, a signature or an HMAC.
    pub(super) fn of(self, what: &str) -> EngineError {
        EngineError::Invalid(match self {
            Self::Fields => format!("invalid {what}: wrong number of fields"),
            Self::Number => format!("invalid {what}: version number could not be decoded"),
            Self::Prefix if what == "HMAC" => "invalid HMAC to verify: no prefix".to_owned(),
            Self::Prefix => format!("invalid {what}: no prefix"),
        })
    }
}

/// The version and what stands behind it.
pub(super) fn split_version(text: &str) -> Result<(i64, &str), Unversioned> {
    let rest = text.strip_prefix(PREFIX).ok_or(Unversioned::Prefix)?;
    let (version, rest) = rest.split_once(':').ok_or(Unversioned::Fields)?;
    Ok((version.parse().map_err(|_| Unversioned::Number)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<&[u8], &str>) {
        let got = decode(text);
        let got = got.as_ref().map(|bytes| bytes.as_slice()).map_err(ToString::to_string);
        assert_eq!(got, want.map_err(str::to_owned), "input {text:?}");
    }

    #[test]
    fn reads_base64_as_go_does() {
        check("aGk=", Ok(b"hi"));
        check("aG\r\nk=\n", Ok(b"hi"));
        check("aGl=", Ok(b"hi"));
        check("", Ok(b""));
        check("a!k=", Err("illegal base64 data at input byte 1"));
        check("aGk", Err("illegal base64 data at input byte 0"));
        check("!", Err("illegal base64 data at input byte 0"));
        assert_eq!(*decode_url("-_8").unwrap(), [0xfb, 0xff]);
        assert!(decode_url("-_8=").is_err());
    }

    #[test]
    fn splits_what_a_version_made() {
        assert_eq!(split_version("vault:v3:a:b"), Ok((3, "a:b")));
        assert_eq!(split_version("vault:v-3:a"), Ok((-3, "a")));
        assert_eq!(split_version("vault:v3"), Err(Unversioned::Fields));
        assert_eq!(split_version("vault:vx:a"), Err(Unversioned::Number));
        assert_eq!(split_version("arca:v1:a"), Err(Unversioned::Prefix));
    }
}
