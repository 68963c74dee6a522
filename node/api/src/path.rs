//! One form of a path, decided once: what ACL, audit and storage see is what was checked here.
//!
//! Refused: `.` and `..` segments, empty segments, control bytes, percent-escapes that decode to a slash, a NUL or
//! invalid UTF-8, and anything over the limits. (CVE-2026-3605 and kin.) Nothing is decoded twice: what a double
//! encoding leaves, `%2e%2e` for one, is a name like any other. A route may ask for its rest as it was written, which is
//! then one segment ([`with_raw_rest`]).

/// Longest path, bytes, decoded.
pub(crate) const PATH_SIZE_MAX: usize = 8 << 10;
/// Longest segment, bytes, decoded. Names are stored with up to 4,096, what engines add included.
const SEGMENT_SIZE_MAX: usize = 4_000;
/// Most segments. Names are stored with up to 256, where they are stored included.
const SEGMENTS_MAX: usize = 200;

/// Why a path is refused. The text is for the caller and does not quote the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("path contains a control character")]
    Control,
    #[error("path contains an empty segment: write it with single slashes")]
    Empty,
    #[error("path contains an encoded slash")]
    EncodedSlash,
    #[error("path contains a bad percent escape")]
    Escape,
    #[error("path contains a relative segment: write it without \".\" and \"..\"")]
    Relative,
    #[error("path contains a segment longer than {SEGMENT_SIZE_MAX} bytes")]
    SegmentTooLong,
    #[error("path has more than {SEGMENTS_MAX} segments")]
    TooDeep,
    #[error("path is longer than {PATH_SIZE_MAX} bytes")]
    TooLong,
    #[error("path is not UTF-8")]
    Utf8,
}

/// The canonical form of what follows `/v1/`. A trailing slash is kept: it tells a folder from an entry.
pub(crate) fn canonical(raw: &str) -> Result<String, PathError> {
    if raw.len() > PATH_SIZE_MAX * 3 {
        return Err(PathError::TooLong);
    }
    let decoded = decode(raw)?;
    if decoded.len() > PATH_SIZE_MAX {
        return Err(PathError::TooLong);
    }
    if decoded.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    let body = decoded.strip_suffix('/').unwrap_or(&decoded);
    if !body.is_empty() {
        for (count, segment) in body.split('/').enumerate() {
            match segment {
                "" => return Err(PathError::Empty),
                "." | ".." => return Err(PathError::Relative),
                _ if segment.len() > SEGMENT_SIZE_MAX => return Err(PathError::SegmentTooLong),
                _ if count >= SEGMENTS_MAX => return Err(PathError::TooDeep),
                _ => {}
            }
        }
    } else if decoded == "/" {
        return Err(PathError::Empty);
    }
    Ok(decoded)
}

/// The canonical form of a path that [`canonical`] refuses, if `takes` says that a route below a path reads what follows
/// as it was written. What stands before is checked like any path. What follows is base64, perhaps escaped, and comes as
/// one segment in which slashes are written `%2F`: nothing here decodes it, and nobody takes it for folders.
pub(crate) fn with_raw_rest(raw: &str, takes: impl Fn(&str) -> bool) -> Option<String> {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_%".contains(&byte);
    if raw.len() > PATH_SIZE_MAX {
        return None;
    }
    raw.match_indices('/').take(SEGMENTS_MAX).find_map(|(at, _)| {
        let (head, rest) = (canonical(raw.get(..at)?).ok()?, raw.get(at + 1..)?);
        if head.ends_with('/') || !rest.bytes().all(is_base64) || !takes(&head) {
            return None;
        }
        let rest = rest.replace('/', "%2F");
        (!rest.is_empty() && rest.len() <= SEGMENT_SIZE_MAX).then(|| format!("{head}/{rest}"))
    })
}

fn decode(raw: &str) -> Result<String, PathError> {
    if !raw.contains('%') {
        return Ok(raw.to_owned());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(PathError::Escape) };
        let value = u8::try_from(high * 16 + low).map_err(|_| PathError::Escape)?;
        if value == b'/' {
            return Err(PathError::EncodedSlash);
        }
        bytes.push(value);
    }
    String::from_utf8(bytes).map_err(|_| PathError::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, want: Result<&str, PathError>) {
        assert_eq!(canonical(raw), want.map(str::to_owned), "input {raw:?}");
    }

    #[test]
    fn keeps_good_paths() {
        check("secret/data/a", Ok("secret/data/a"));
        check("secret/data/a/", Ok("secret/data/a/"));
        check("secret/a%20b/%C3%A4", Ok("secret/a b/ä"));
        check("secret/...", Ok("secret/..."));
        check("a%2525", Ok("a%25"));
        check("a/%252e%252e/%252fb", Ok("a/%2e%2e/%2fb"));
        check("", Ok(""));
    }

    #[test]
    fn refuses_to_climb() {
        for raw in ["a/../b", "a/..", "../a", "a/./b", ".", "a/%2e%2e/b", "a/.%2E", "a/../"] {
            check(raw, Err(PathError::Relative));
        }
    }

    #[test]
    fn refuses_ambiguity() {
        check("a//b", Err(PathError::Empty));
        check("/", Err(PathError::Empty));
        check("/a", Err(PathError::Empty));
        check("a//", Err(PathError::Empty));
        check("a%2fb", Err(PathError::EncodedSlash));
        check("a%00", Err(PathError::Control));
        check("a%0a", Err(PathError::Control));
        check("a%7f", Err(PathError::Control));
        check("a%c0%af", Err(PathError::Utf8));
        check("a%zz", Err(PathError::Escape));
        check("a%2", Err(PathError::Escape));
    }

    #[track_caller]
    fn check_raw(raw: &str, want: Option<&str>) {
        let got = with_raw_rest(raw, |path| path == "pki/ocsp");
        assert_eq!(got.as_deref(), want, "input {raw:?}");
    }

    #[test]
    fn only_what_a_route_asks_for_is_left_as_it_was_written() {
        check_raw("pki/ocsp/a%2Fb%2b%3D", Some("pki/ocsp/a%2Fb%2b%3D"));
        check_raw("pki/ocsp/a//b/", Some("pki/ocsp/a%2F%2Fb%2F"));
        check_raw("pki/ocsp//a", Some("pki/ocsp/%2Fa"));
        check_raw("pk%69/ocsp/a%2Fb", Some("pki/ocsp/a%2Fb"));
        for raw in [
            "pki/ocsp",
            "pki/ocsp/",
            "pki//ocsp/a",
            "pki/x/../ocsp/a%2Fb",
            "pki%2Focsp/a%2Fb",
            "pki/./ocsp/a",
            "pki/ocsp/..%2Fa",
            "pki/ocsp/../a%2Fb",
            "pki/ocsp/a%2Fb ",
            "pki/ocsp/a%2Fb\u{e4}",
            "pki/ocsp/a?%2Fb",
            "secret/data/a%2Fb",
            "secret//data",
            "a/pki/ocsp/a%2Fb",
        ] {
            check_raw(raw, None);
        }
        let longest = "a".repeat(SEGMENT_SIZE_MAX - 3);
        check_raw(&format!("pki/ocsp/{longest}/"), Some(&format!("pki/ocsp/{longest}%2F")));
        check_raw(&format!("pki/ocsp/{longest}a/"), None);
        check_raw(&format!("pki/ocsp/{}", "/".repeat(PATH_SIZE_MAX)), None);
    }

    #[test]
    fn refuses_too_much() {
        check(&"a".repeat(10 << 20), Err(PathError::TooLong));
        check(&"a".repeat(PATH_SIZE_MAX + 1), Err(PathError::TooLong));
        let longest = "a".repeat(SEGMENT_SIZE_MAX);
        check(&format!("x/{longest}/y"), Ok(&format!("x/{longest}/y")));
        check(&format!("x/{longest}a/y"), Err(PathError::SegmentTooLong));
        let deepest = vec!["a"; SEGMENTS_MAX].join("/");
        check(&deepest, Ok(&deepest));
        check(&format!("{deepest}/"), Ok(&format!("{deepest}/")));
        check(&format!("{deepest}/a"), Err(PathError::TooDeep));
    }
}
