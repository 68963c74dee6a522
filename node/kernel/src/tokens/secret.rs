//! Tokens and accessors as text: made without bias, read in either spelling, never shown.

use arca_engine_api::{Entropy, EntropyError};
use zeroize::Zeroizing;

use crate::namespaces::ROOT_ID;

/// Prefix of service tokens.
pub const SERVICE_PREFIX: &str = "hvs.";
/// Prefix of batch tokens.
pub const BATCH_PREFIX: &str = "hvb.";
/// The same as older versions and OpenBao spell them.
const SERVICE_PREFIX_OLD: &str = "s.";
const BATCH_PREFIX_OLD: &str = "b.";

/// Random characters of a root token: with its prefix 28, the size of one-time pads that carry one.
pub const ROOT_BODY_LEN: usize = 24;
/// Length of a root token: what a one-time pad for it must have.
pub const ROOT_TOKEN_LEN: usize = SERVICE_PREFIX.len() + ROOT_BODY_LEN;
/// Random characters of any other service token.
pub const BODY_LEN: usize = 32;
/// Random characters of accessors and lease ids.
pub const HANDLE_LEN: usize = 24;
/// Longest token that is looked at, bytes.
pub const TOKEN_MAX: usize = 8 << 10;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Bytes from here on are thrown away: the rest divides evenly.
const BASE62_LIMIT: u8 = 248;

/// `len` random characters of base 62, every one equally likely.
///
/// # Errors
/// When randomness fails.
pub fn base62(entropy: &dyn Entropy, len: usize) -> Result<Zeroizing<String>, EntropyError> {
    let mut text = Zeroizing::new(String::with_capacity(len));
    let mut bytes = Zeroizing::new([0; 48]);
    while text.len() < len {
        entropy.fill(bytes.as_mut_slice())?;
        for byte in bytes.iter().filter(|byte| **byte < BASE62_LIMIT) {
            if let Some(letter) = BASE62.get(usize::from(byte % 62)).filter(|_| text.len() < len) {
                text.push(char::from(*letter));
            }
        }
    }
    Ok(text)
}

/// What stands behind tokens, accessors and lease ids of a namespace: nothing for root.
#[must_use]
pub fn namespace_suffix(namespace_id: &str) -> String {
    if namespace_id == ROOT_ID { String::new() } else { format!(".{namespace_id}") }
}

/// A fresh accessor.
///
/// # Errors
/// When randomness fails.
pub fn new_handle(entropy: &dyn Entropy, namespace_id: &str) -> Result<String, EntropyError> {
    Ok(format!("{}{}", *base62(entropy, HANDLE_LEN)?, namespace_suffix(namespace_id)))
}

/// A fresh service token with `body_len` random characters.
///
/// # Errors
/// When randomness fails.
pub fn new_service_token(
    entropy: &dyn Entropy,
    body_len: usize,
    namespace_id: &str,
) -> Result<Zeroizing<String>, EntropyError> {
    let suffix = namespace_suffix(namespace_id);
    let mut token = Zeroizing::new(String::with_capacity(SERVICE_PREFIX.len() + body_len + suffix.len()));
    token.push_str(SERVICE_PREFIX);
    token.push_str(&base62(entropy, body_len)?);
    token.push_str(&suffix);
    Ok(token)
}

/// A presented token, taken apart.
pub enum Presented<'a> {
    /// The sealed part of a batch token.
    Batch(&'a str),
    /// The token in its one spelling, and the namespace its end names.
    Service(Zeroizing<String>, &'a str),
}

impl<'a> Presented<'a> {
    /// Takes a token apart; `None` when no token could look like this.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > TOKEN_MAX || !is_plain {
            return None;
        }
        for prefix in [BATCH_PREFIX, BATCH_PREFIX_OLD] {
            if let Some(body) = text.strip_prefix(prefix) {
                let body = body.split_once('.').map_or(body, |(body, _)| body);
                return Some(Self::Batch(body));
            }
        }
        let body = text.strip_prefix(SERVICE_PREFIX).or_else(|| text.strip_prefix(SERVICE_PREFIX_OLD));
        let namespace_id = body.unwrap_or(text).split_once('.').map_or(ROOT_ID, |(_, id)| id);
        if !is_namespace_id(namespace_id) {
            return None;
        }
        let canonical =
            Zeroizing::new(body.map_or_else(|| text.to_owned(), |body| format!("{SERVICE_PREFIX}{body}")));
        Some(Self::Service(canonical, namespace_id))
    }
}

/// Keeps the end of a token from reaching into another storage path.
fn is_namespace_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether a token's id may be chosen like this.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_chosen_id(id: &str) -> Result<(), String> {
    let prefixes = [SERVICE_PREFIX, BATCH_PREFIX, "hvr.", SERVICE_PREFIX_OLD, BATCH_PREFIX_OLD, "r."];
    if let Some(prefix) = prefixes.iter().find(|prefix| id.starts_with(**prefix)) {
        return Err(format!("custom token ID cannot have the '{prefix}' prefix"));
    }
    if id.contains('.') {
        return Err("custom token ID cannot have a '.' in the value".to_owned());
    }
    if id.len() > TOKEN_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("custom token ID must be of printable characters without blanks".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SeededEntropy;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match Presented::parse(text) {
            None => "none".to_owned(),
            Some(Presented::Batch(body)) => format!("batch {body}"),
            Some(Presented::Service(token, namespace)) => format!("{} in {namespace}", *token),
        };
        assert_eq!(got, want, "token {text:?}");
    }

    #[test]
    fn both_spellings_name_one_token() {
        check("hvs.abc", "hvs.abc in root");
        check("s.abc", "hvs.abc in root");
        check("s.abc.n1", "hvs.abc.n1 in n1");
        check("hvb.AAAA", "batch AAAA");
        check("b.AAAA.n1", "batch AAAA");
        check("chosen-id", "chosen-id in root");
    }

    #[test]
    fn no_token_reaches_into_another_path() {
        for text in ["", " ", "hvs.a.b/c", "hvs.a.", "hvs.a.b.c", "a b", "hvs.a\n", "é", "hvs.a.../root"] {
            check(text, "none");
        }
        check(&"x".repeat(TOKEN_MAX + 1), "none");
    }

    /// The 62 letters come out evenly: with bytes taken modulo 62, the first eight would be a quarter more likely.
    #[test]
    fn letters_are_equally_likely() {
        let entropy = SeededEntropy::default();
        let mut counts = [0_u32; 256];
        for _ in 0..1_000 {
            base62(&entropy, 620).unwrap().bytes().for_each(|byte| counts[usize::from(byte)] += 1);
        }
        for letter in BASE62 {
            let count = counts[usize::from(*letter)];
            assert!((9_500..10_500).contains(&count), "{letter} came {count} times");
        }
    }

    #[test]
    fn chosen_ids_cannot_pass_for_generated_ones() {
        for id in ["hvs.x", "s.x", "b.x", "hvb.x", "hvr.x", "a.b", "a b", "é"] {
            assert!(check_chosen_id(id).is_err(), "{id}");
        }
        assert!(check_chosen_id("my-token_1").is_ok());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,64}") {
            let _parsed = Presented::parse(&text);
        }
    }
}
