//! Just enough DER to take keys apart and put them together: sequences, integers, strings, one level at a time.
//! Whatever holds a secret is wiped when dropped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0]` and `[1]`, explicit.
pub(crate) const EXPLICIT_0: u8 = 0xa0;
pub(crate) const EXPLICIT_1: u8 = 0xa1;

/// What is left of an encoding.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content of the next element, if it has that tag.
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next(tag).map(|element| element.content)
    }

    /// The next element whole, if it has that tag.
    pub(crate) fn element(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next(tag).map(|element| element.whole)
    }

    fn next(&mut self, tag: u8) -> Option<Element<'a>> {
        let (found, rest) = split(self.0).filter(|(found, _)| found.tag == tag)?;
        self.0 = rest;
        Some(found)
    }

    /// What stands in the next element.
    pub(crate) fn enter(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Self)
    }

    /// A whole number of zero or more, without zeros before it.
    pub(crate) fn unsigned(&mut self) -> Option<&'a [u8]> {
        let content = self.take(INTEGER)?;
        match content {
            [] => None,
            [first, ..] if first & 0x80 != 0 => None,
            [0, second, ..] if second & 0x80 == 0 => None,
            [0, rest @ ..] => Some(rest),
            whole => Some(whole),
        }
    }

    /// The bytes of a bit string that is made of whole bytes.
    pub(crate) fn bits(&mut self) -> Option<&'a [u8]> {
        self.take(BIT_STRING)?.strip_prefix(&[0])
    }
}

struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
}

/// The first element, and what follows.
fn split(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let (digits, rest) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        let len = digits.iter().fold(0_usize, |len, digit| (len << 8) | usize::from(*digit));
        if len < 0x80 || digits.first() == Some(&0) {
            return None;
        }
        (len, rest)
    };
    let (content, after) = rest.split_at_checked(len)?;
    let (whole, _) = bytes.split_at_checked(bytes.len() - after.len())?;
    Some((Element { tag, whole, content }, after))
}

/// An element of these parts, one after the other.
pub(crate) fn write(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(len + 6));
    out.extend_from_slice(&header(tag, len));
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// What stands before the content of an element: tag and length.
pub(crate) fn header(tag: u8, len: usize) -> Vec<u8> {
    let mut out = vec![tag];
    if let Some(short) = u8::try_from(len).ok().filter(|len| *len < 0x80) {
        out.push(short);
    } else {
        let digits = len.to_be_bytes();
        let skipped = digits.iter().take_while(|digit| **digit == 0).count();
        out.push(0x80 | u8::try_from(digits.len() - skipped).unwrap_or_default());
        out.extend(digits.iter().skip(skipped));
    }
    out
}

/// A whole number of zero or more, given big-endian.
pub(crate) fn write_unsigned(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let digits = trimmed(bytes);
    let needs_zero = digits.first().is_none_or(|first| first & 0x80 != 0);
    write(INTEGER, &[if needs_zero { &[0] } else { &[] }, digits])
}

/// A bit string of whole bytes.
pub(crate) fn write_bits(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    write(BIT_STRING, &[&[0], bytes])
}

/// The number without the zeros before it.
pub(crate) fn trimmed(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// The number in exactly `len` bytes, if it fits.
pub(crate) fn padded(bytes: &[u8], len: usize) -> Option<Zeroizing<Vec<u8>>> {
    let digits = trimmed(bytes);
    let mut out = Zeroizing::new(vec![0; len]);
    let start = len.checked_sub(digits.len())?;
    out.get_mut(start..)?.copy_from_slice(digits);
    Some(out)
}

/// PEM with lines of 64 letters, and a line end behind the last.
pub(crate) fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut out = Zeroizing::new(String::with_capacity(text.len() + text.len() / 64 + 2 * label.len() + 40));
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// The first PEM block: its label, its content, and what follows it.
pub(crate) fn first_pem(text: &str) -> Option<(&str, Vec<u8>, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, rest) = rest.split_once("-----END ")?;
    let rest = rest.strip_prefix(label)?.strip_prefix("-----")?;
    let letters: String = body.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    Some((label, STANDARD.decode(letters).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![9; len];
            let element = write(OCTET_STRING, &[&content]);
            let mut reader = Reader::new(&element);
            assert_eq!(reader.take(OCTET_STRING), Some(content.as_slice()), "{len}");
            assert!(reader.is_empty());
        }
        for (number, want) in [(&[0, 0][..], &[0][..]), (&[0, 1], &[1]), (&[0x80], &[0, 0x80]), (&[], &[0])] {
            assert_eq!(Reader::new(&write_unsigned(number)).take(INTEGER), Some(want));
        }
    }

    #[test]
    fn refuses_what_is_no_der() {
        for bytes in
            [&b""[..], b"\x30", b"\x30\x02\x01", b"\x30\x80", b"\x30\x81\x01\x01", b"\x30\x85\0\0\0\0\0"]
        {
            assert!(Reader::new(bytes).take(SEQUENCE).is_none(), "{bytes:?}");
        }
        for bytes in [&b"\x02\x00"[..], b"\x02\x01\x80", b"\x02\x02\x00\x01"] {
            assert!(Reader::new(bytes).unsigned().is_none(), "{bytes:?}");
        }
        assert!(Reader::new(b"\x03\x02\x01\xff").bits().is_none());
    }

    #[test]
    fn pem_goes_both_ways() {
        let text = pem("PUBLIC KEY", &[7; 60]);
        let twice = format!("note\n{}{}", *text, *text);
        let (label, der, rest) = first_pem(&twice).unwrap();
        assert_eq!((label, der), ("PUBLIC KEY", vec![7; 60]));
        assert!(first_pem(rest).is_some_and(|(_, _, rest)| rest.trim().is_empty()));
        assert!(first_pem("-----BEGIN A-----\n!\n-----END A-----").is_none());
        assert!(first_pem("-----BEGIN A-----\nAA==\n-----END B-----").is_none());
    }
}
