//! Names of roles, issuers and keys, and the ids that stand for the latter two.

use arca_engine_api::{EngineError, Entropy};

/// Bytes of a name.
const LEN_MAX: usize = 256;

/// What is said of a name that is none.
pub(super) const REFUSED: &str =
    "names are made of letters, digits, '_', '-' and '.', and begin and end with a letter, digit or '_'";

/// Whether a role, issuer or key can have the name.
pub(super) fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|first| is_word(*first))
        && bytes.last().is_some_and(|last| is_word(*last))
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'-' | b'.'))
        && bytes.len() <= LEN_MAX
}

/// A new id: a random UUID.
pub(super) fn new_id(entropy: &dyn Entropy) -> Result<String, EngineError> {
    let mut bytes = [0_u8; 16];
    entropy.fill(&mut bytes)?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex(&bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok(format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(u32::from(nibble), 16))
        .collect()
}

/// Bytes out of hexadecimal, with or without a separator between them.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|letter| !matches!(letter, ':' | '-' | ' '))
        .map(|letter| letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "A_b", "a.b-c", "_", "7"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a/b", "a b", "ä", "a\0", &"a".repeat(257)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn hexadecimal_leads_back() {
        assert_eq!(from_hex("0a:FF-01"), Some(vec![10, 255, 1]));
        assert_eq!((from_hex("0"), from_hex("zz"), hex(&[10, 255])), (None, None, "0aff".to_owned()));
    }
}
