//! A device's salt: what turns a value into an HMAC that only this device's log knows.

use aws_lc_rs::hmac;

/// Text in front of every HMAC.
const MARK: &str = "hmac-sha256:";

/// The keyed state, ready for use: no key schedule per value.
pub(super) struct Salt(hmac::Key);

impl Salt {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// `hmac-sha256:` and 64 hex digits.
    pub(super) fn hash(&self, value: &[u8]) -> String {
        let tag = hmac::sign(&self.0, value);
        let mut text = String::with_capacity(MARK.len() + 64);
        text.push_str(MARK);
        for byte in tag.as_ref() {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        text
    }
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(redacted)")
    }
}
