//! Whole numbers between bytes and decimal digits, as backups have them.

use zeroize::Zeroizing;

/// Most digits read: enough for 8192 bits, and few enough that the time spent on them does not matter.
const DIGITS_MAX: usize = 2_500;

/// The bytes of a number, big-endian, without zeros before it.
pub(super) fn to_bytes(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    // Little-endian while it grows, in a buffer that never has to.
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len()));
    for letter in digits.bytes() {
        let digit = letter.checked_sub(b'0').filter(|digit| *digit < 10)?;
        let mut carry = u16::from(digit);
        for byte in bytes.iter_mut() {
            let [high, low] = (u16::from(*byte) * 10 + carry).to_be_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        if carry > 0 {
            bytes.push(u8::try_from(carry).ok()?);
        }
    }
    bytes.reverse();
    Some(bytes)
}

/// The decimal digits of a number.
pub(super) fn from_bytes(bytes: &[u8]) -> Zeroizing<String> {
    let mut rest = Zeroizing::new(bytes.to_vec());
    let mut digits = Zeroizing::new(Vec::with_capacity(bytes.len() * 5 / 2 + 1));
    while rest.iter().any(|byte| *byte != 0) {
        let mut remainder = 0_u16;
        for byte in rest.iter_mut() {
            let value = remainder << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 10).unwrap_or_default();
            remainder = value % 10;
        }
        digits.push(b'0' + u8::try_from(remainder).unwrap_or_default());
    }
    let mut text = Zeroizing::new(String::with_capacity(digits.len() + 1));
    text.extend(digits.iter().rev().map(|digit| char::from(*digit)));
    if text.is_empty() {
        text.push('0');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], digits: &str) {
        assert_eq!(from_bytes(bytes).as_str(), digits);
        assert_eq!(to_bytes(digits).as_deref().map(Vec::as_slice), Some(bytes));
    }

    #[test]
    fn numbers_go_both_ways() {
        check(&[], "0");
        check(&[9], "9");
        check(&[0xff, 0xff], "65535");
        check(&[1, 0, 0, 0, 0, 0, 0, 0, 0], "18446744073709551616");
        check(&[0x80; 512], &from_bytes(&[0x80; 512]));
        for text in ["", "-1", "1e3", "1.0", "٣", &"9".repeat(2_501)] {
            assert!(to_bytes(text).is_none(), "{text}");
        }
    }
}
