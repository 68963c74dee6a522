//! Object identifiers: as dotted text, and as the bytes inside an encoding.

/// Arcs of an identifier that is taken from a caller.
const ARCS_MAX: usize = 32;

pub(crate) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
pub(crate) const SERIAL_NUMBER: &[u8] = &[0x55, 0x04, 0x05];
pub(crate) const COUNTRY: &[u8] = &[0x55, 0x04, 0x06];
pub(crate) const LOCALITY: &[u8] = &[0x55, 0x04, 0x07];
pub(crate) const PROVINCE: &[u8] = &[0x55, 0x04, 0x08];
pub(crate) const STREET_ADDRESS: &[u8] = &[0x55, 0x04, 0x09];
pub(crate) const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
pub(crate) const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 0x04, 0x0b];
pub(crate) const POSTAL_CODE: &[u8] = &[0x55, 0x04, 0x11];
/// 0.9.2342.19200300.100.1.1
pub(crate) const USER_ID: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01];

pub(crate) const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
pub(crate) const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
pub(crate) const CRL_DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 0x1f];
pub(crate) const CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 0x20];
pub(crate) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
pub(crate) const FRESHEST_CRL: &[u8] = &[0x55, 0x1d, 0x2e];
/// 1.3.6.1.5.5.7.1.1
pub(crate) const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
/// 1.3.6.1.5.5.7.48.1 and .2
pub(crate) const OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];
pub(crate) const CA_ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 2];
/// 1.3.6.1.5.5.7.48.1.1 and .2
pub(crate) const OCSP_BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
pub(crate) const OCSP_NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];
/// 1.3.6.1.5.5.7.2.1 and .2
pub(crate) const POLICY_CPS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 2, 1];
pub(crate) const POLICY_NOTICE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 2, 2];
/// 1.2.840.113549.1.9.14
pub(crate) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];

/// The bytes of an identifier in dotted text.
pub(crate) fn parse(text: &str) -> Option<Vec<u8>> {
    let arcs = text
        .split('.')
        .map(|arc| {
            let is_plain = !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
            (is_plain && (arc == "0" || !arc.starts_with('0'))).then(|| arc.parse::<u64>().ok()).flatten()
        })
        .collect::<Option<Vec<u64>>>()?;
    let [first, second, rest @ ..] = arcs.as_slice() else { return None };
    if *first > 2 || (*first < 2 && *second > 39) || arcs.len() > ARCS_MAX {
        return None;
    }
    let mut out = Vec::new();
    push_arc(&mut out, (first * 40).checked_add(*second)?);
    for arc in rest {
        push_arc(&mut out, *arc);
    }
    Some(out)
}

fn push_arc(out: &mut Vec<u8>, arc: u64) {
    let digits = (u64::BITS - arc.leading_zeros()).div_ceil(7).max(1);
    for at in (0..digits).rev() {
        let more = if at == 0 { 0 } else { 0x80 };
        out.push(u8::try_from((arc >> (7 * at)) & 0x7f).unwrap_or_default() | more);
    }
}

/// Dotted text of the bytes, or `None` if they are no identifier of arcs that fit 64 bits.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let mut arcs = Vec::new();
    let mut arc: u64 = 0;
    let mut is_open = false;
    for byte in bytes {
        arc = arc.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        is_open = byte & 0x80 != 0;
        if !is_open {
            arcs.push(std::mem::take(&mut arc));
        }
    }
    let (first, rest) = arcs.split_first().filter(|_| !is_open)?;
    let (root, second) = match first {
        0..40 => (0, *first),
        40..80 => (1, first - 40),
        _ => (2, first - 80),
    };
    let rest: String = rest.iter().map(|arc| format!(".{arc}")).collect();
    Some(format!("{root}.{second}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dotted: &str, want: Option<&[u8]>) {
        assert_eq!(parse(dotted).as_deref(), want, "{dotted}");
        if let Some(bytes) = want {
            assert_eq!(text(bytes).as_deref(), Some(dotted));
        }
    }

    #[test]
    fn both_ways() {
        check("2.5.4.3", Some(COMMON_NAME));
        check("0.9.2342.19200300.100.1.1", Some(USER_ID));
        check("1.3.6.1.5.5.7.48.1", Some(OCSP));
        check("1.2.840.113549.1.9.14", Some(EXTENSION_REQUEST));
        check("2.999.1", Some(&[0x88, 0x37, 1]));
        for bad in ["", "1", "3.1", "1.40", "1.2.", "1..2", "a.b", "1.02", "1.2.99999999999999999999", "-1.2"]
        {
            check(bad, None);
        }
        assert_eq!(text(&[0x2a, 0x86]), None);
        assert_eq!(text(&[]), None);
    }
}
