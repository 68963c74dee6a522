//! Where a server is: scheme, host, port and an optional base path, parsed once at the edge.
//! Several may be given, separated by commas; [`crate::Client`] moves to the next when one cannot be reached.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use crate::error::Error;

/// The address of a server, such as `https://vault.example.com:8200`.
///
/// Invariant: the scheme is `http` or `https`, the host is not empty, and there is no user name and no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    scheme: Scheme,
    authority: Authority,
    base: String,
}

impl Address {
    /// Parses a list such as `https://a:8200,https://b:8200`.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Error> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The full URI of an already encoded path and query below this address.
    pub(crate) fn uri(&self, path_and_query: &str) -> Result<Uri, Error> {
        let full = format!("{}{path_and_query}", self.base);
        let path: PathAndQuery = full.parse().map_err(|_| Error::BadRequest {
            reason: "the path holds characters that a URL cannot carry".into(),
        })?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|err| Error::BadRequest { reason: err.to_string() })
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::Address { value: without_userinfo(text), reason: reason.to_owned() };
        let uri: Uri = text.trim().parse().map_err(|_| bad("it is not a URL"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or_else(|| bad("it needs to begin with https:// or http://"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(bad("only https:// and http:// are spoken here"));
        }
        let authority = parts.authority.ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it carries a user name, which this API does not use"));
        }
        if authority.host().is_empty() {
            return Err(bad("it names no host"));
        }
        let path = parts.path_and_query.as_ref();
        if path.is_some_and(|path| path.query().is_some()) {
            return Err(bad("it carries a query"));
        }
        let base = path.map_or("", PathAndQuery::path).trim_end_matches('/').to_owned();
        Ok(Self { scheme, authority, base })
    }
}

/// An address that was refused is shown to the operator; a password in it is not.
fn without_userinfo(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            let (head, tail) = (text.get(..scheme + 3), text.get(at + 1..));
            format!("{}…@{}", head.unwrap_or_default(), tail.unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = text.parse::<Address>().map_or_else(|err| format!("error: {err}"), |ok| ok.to_string());
        assert_eq!(got, want, "input {text:?}");
    }

    #[test]
    fn reads_addresses() {
        check("https://127.0.0.1:8200", "https://127.0.0.1:8200");
        check(" http://[::1]:8200/ ", "http://[::1]:8200");
        check("https://proxy/vault/", "https://proxy/vault");
    }

    #[test]
    fn refuses_what_it_cannot_reach() {
        check(
            "127.0.0.1:8200",
            "error: address \"127.0.0.1:8200\": it needs to begin with https:// or http://",
        );
        check("ftp://x", "error: address \"ftp://x\": only https:// and http:// are spoken here");
        check(
            "https://u:p@x",
            "error: address \"https://…@x\": it carries a user name, which this API does not use",
        );
        check("https://x/?a=b", "error: address \"https://x/?a=b\": it carries a query");
    }

    #[test]
    fn a_list_skips_empty_parts() {
        assert_eq!(Address::parse_list("http://a:1, http://b:2,").unwrap().len(), 2);
    }
}
