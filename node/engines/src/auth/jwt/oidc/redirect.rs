//! Where browsers may be sent back to.

/// Whether `uri` is one of `allowed`, letter by letter; for a program on the user's own machine any port will do, since it
/// cannot choose one beforehand (RFC 8252, 7.3).
pub(super) fn is_allowed(uri: &str, allowed: &[String]) -> bool {
    if allowed.iter().any(|known| known == uri) {
        return true;
    }
    let Some(wanted) = Parts::of(uri).filter(Parts::is_loopback) else { return false };
    allowed.iter().filter_map(|known| Parts::of(known)).any(|known| known == wanted)
}

/// A URI without its port.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    scheme: String,
    host: &'a str,
    /// Path, query, fragment.
    rest: &'a str,
}

impl<'a> Parts<'a> {
    /// None for what is no URI of a web server, names a user or hides something behind odd characters.
    fn of(uri: &'a str) -> Option<Self> {
        if uri
            .chars()
            .any(|letter| letter.is_control() || letter.is_whitespace() || matches!(letter, '\\' | '@'))
        {
            return None;
        }
        let (scheme, behind) = uri.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return None;
        }
        let end = behind.find(['/', '?', '#']).unwrap_or(behind.len());
        let (authority, rest) = behind.split_at_checked(end)?;
        let port_at = authority.rfind(':').filter(|at| *at > authority.rfind(']').unwrap_or(0));
        let (host, port) = match port_at {
            Some(at) => authority.split_at_checked(at)?,
            None => (authority, ""),
        };
        let digits = port.strip_prefix(':').unwrap_or(port);
        (digits.is_empty() || digits.parse::<u16>().is_ok()).then_some(Self { scheme, host, rest })
    }

    fn is_loopback(&self) -> bool {
        matches!(self.host, "localhost" | "127.0.0.1" | "[::1]")
    }
}

/// The URI without its query parameter `namespace`, and that parameter.
pub(super) fn without_namespace(uri: &str) -> (String, Option<String>) {
    let Some((before, query)) = uri.split_once('?') else { return (uri.to_owned(), None) };
    let (found, others): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.starts_with("namespace="));
    let Some(namespace) = found.first().and_then(|pair| pair.strip_prefix("namespace=")) else {
        return (uri.to_owned(), None);
    };
    let namespace = percent_encoding::percent_decode_str(namespace).decode_utf8_lossy().into_owned();
    let uri = if others.is_empty() { before.to_owned() } else { format!("{before}?{}", others.join("&")) };
    (uri, Some(namespace).filter(|namespace| !namespace.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, want: bool) {
        let allowed = [
            "http://localhost:8250/oidc/callback",
            "https://x.y/ui/vault/auth/oidc/oidc/callback",
            "http://127.0.0.1/cb",
            "http://[::1]/cb?a=b",
        ];
        assert_eq!(is_allowed(uri, &allowed.map(str::to_owned)), want, "{uri}");
    }

    #[test]
    fn uris_are_compared_letter_by_letter_but_for_loopback_ports() {
        for good in [
            "http://localhost:8250/oidc/callback",
            "http://localhost:1/oidc/callback",
            "http://localhost/oidc/callback",
            "HTTP://localhost:8250/oidc/callback",
            "http://127.0.0.1:99/cb",
            "http://[::1]:5/cb?a=b",
            "https://x.y/ui/vault/auth/oidc/oidc/callback",
        ] {
            check(good, true);
        }
        for bad in [
            "",
            "http://evil",
            "http://localhost:8250/oidc/callback/",
            "http://localhost:8250/oidc/callback?x",
            "http://localhost:8250/oidc/callback#x",
            "https://localhost:8250/oidc/callback",
            "http://localhost:8250@evil/oidc/callback",
            "http://u@localhost:8250/oidc/callback",
            "http://localhost.evil:8250/oidc/callback",
            "http://localhost:8250:1/oidc/callback",
            "http://localhost:99999/oidc/callback",
            "http://localhost:evil/oidc/callback",
            "http://localhost\\@evil/oidc/callback",
            "http://localhost /oidc/callback",
            "http://127.0.0.2:99/cb",
            "http://127.0.0.1:99/cb/../x",
            "http://[::1]:5/cb",
            "https://x.y:443/ui/vault/auth/oidc/oidc/callback",
            "https://x.y/ui/vault/auth/oidc/oidc/callback/..",
            "https://X.y/ui/vault/auth/oidc/oidc/callback",
            "javascript://localhost/oidc/callback",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn the_namespace_is_taken_out_of_the_query() {
        let check = |uri: &str, want: (&str, Option<&str>)| {
            assert_eq!(without_namespace(uri), (want.0.to_owned(), want.1.map(str::to_owned)), "{uri}");
        };
        check("http://h/cb", ("http://h/cb", None));
        check("http://h/cb?a=b", ("http://h/cb?a=b", None));
        check("http://h/cb?namespace=n%2Fm", ("http://h/cb", Some("n/m")));
        check("http://h/cb?a=b&namespace=n&c=d", ("http://h/cb?a=b&c=d", Some("n")));
        check("http://h/cb?namespace=", ("http://h/cb", None));
    }
}
