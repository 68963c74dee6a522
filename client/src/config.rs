//! What a client is told: where the servers are, who it is, whom it trusts, how long it waits.
//! Read from `ARCA_*` variables first and `VAULT_*` second, so that an environment made for Vault works as it is.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::address::Address;
use crate::duration;
use crate::error::Error;
use crate::retry::RetryPolicy;
use crate::token::Token;

/// Used when no address is given.
pub const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";

/// Everything a [`crate::Client`] needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers, tried in order when one cannot be reached. Not empty.
    pub addresses: Vec<Address>,
    /// Who the client is.
    pub token: Option<Token>,
    /// The namespace its paths are in.
    pub namespace: Option<String>,
    /// Whom it trusts and what it shows.
    pub tls: TlsConfig,
    /// The limit on one attempt, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// The limit on connecting alone.
    pub connect_timeout: Duration,
    /// What is tried again.
    pub retry: RetryPolicy,
    /// Asks for every answer to be wrapped; seconds or a duration such as `5m`.
    pub wrap_ttl: Option<String>,
    /// Headers on every request.
    pub headers: HeaderMap,
    /// Whether one redirect of the server is followed.
    pub follows_redirects: bool,
    /// No answer larger than this is taken into memory.
    pub response_bytes_max: usize,
    /// Plan requests and send none: every call fails with [`Error::DryRun`].
    pub dry_run: bool,
}

/// The TLS part of a [`Config`].
#[derive(Clone, Default)]
pub struct TlsConfig {
    /// A file of PEM certificates to trust instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// A directory of such files, used if there is no `ca_cert` and no `ca_pem`.
    pub ca_path: Option<PathBuf>,
    /// PEM certificates themselves; goes before `ca_cert`.
    pub ca_pem: Option<String>,
    /// The certificate chain the client shows.
    pub client_cert: Option<PathBuf>,
    /// The key to it.
    pub client_key: Option<PathBuf>,
    /// The name the server's certificate must be for, when it is not the address's host.
    pub server_name: Option<String>,
    /// Accept any certificate. Whoever sits in between then reads everything.
    pub danger_skip_verify: bool,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig")
            .field("ca_cert", &self.ca_cert)
            .field("ca_path", &self.ca_path)
            .field("client_cert", &self.client_cert)
            .field("server_name", &self.server_name)
            .field("danger_skip_verify", &self.danger_skip_verify)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Defaults for one server.
    pub fn new(address: Address) -> Self {
        Self {
            addresses: vec![address],
            token: None,
            namespace: None,
            tls: TlsConfig::default(),
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            retry: RetryPolicy::default(),
            wrap_ttl: None,
            headers: HeaderMap::new(),
            follows_redirects: true,
            response_bytes_max: 256 << 20,
            dry_run: false,
        }
    }

    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads an environment through `lookup`. Each setting `X` is `ARCA_X`, or else `VAULT_X`; empty is not set. The
    /// address of an agent (`AGENT_ADDR`) goes before that of a server (`ADDR`).
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let find = |name: &str| find(&lookup, name);
        let path = |name: &str| find(name).map(|(_, value)| PathBuf::from(value));
        let text = |name: &str| find(name).map(|(_, value)| value);

        let mut config = Self::new(DEFAULT_ADDRESS.parse()?);
        if let Some((name, value)) = find("AGENT_ADDR").or_else(|| find("ADDR")) {
            config.addresses = Address::parse_list(&value)?;
            if config.addresses.is_empty() {
                return Err(Error::Config { name, reason: "it names no address".into() });
            }
        }
        config.token = text("TOKEN").map(|token| Token::new(token.trim()));
        config.namespace = text("NAMESPACE");
        config.wrap_ttl = text("WRAP_TTL");
        config.tls = TlsConfig {
            ca_cert: path("CACERT"),
            ca_path: path("CAPATH"),
            ca_pem: text("CACERT_BYTES"),
            client_cert: path("CLIENT_CERT"),
            client_key: path("CLIENT_KEY"),
            server_name: text("TLS_SERVER_NAME"),
            danger_skip_verify: flag(find("SKIP_VERIFY"))?,
        };
        config.follows_redirects = !flag(find("DISABLE_REDIRECTS"))?;
        if let Some((name, value)) = find("CLIENT_TIMEOUT") {
            config.timeout = duration::parse(&value).map_err(|reason| Error::Config { name, reason })?;
        }
        if let Some((name, value)) = find("MAX_RETRIES") {
            let bad = |_| Error::Config { name, reason: format!("{value:?} is not a whole number") };
            config.retry.retries = value.parse().map_err(bad)?;
        }
        if let Some((name, value)) = find("MFA") {
            config
                .add_header("x-vault-mfa", &value)
                .map_err(|_| Error::Config { name, reason: "its value cannot be sent as a header".into() })?;
        }
        Ok(config)
    }

    /// Sends `name: value` with every request.
    pub fn add_header(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let bad = |reason: String| Error::Config { name: format!("header {name:?}"), reason };
        let header: HeaderName = name.parse().map_err(|_| bad("it is not a header name".into()))?;
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| bad("its value holds characters a header cannot carry".into()))?;
        value.set_sensitive(true);
        self.headers.append(header, value);
        Ok(())
    }
}

/// Finds setting `name`; answers the variable it came from, too.
pub fn find(lookup: &impl Fn(&str) -> Option<String>, name: &str) -> Option<(String, String)> {
    ["ARCA", "VAULT"].into_iter().find_map(|prefix| {
        let variable = format!("{prefix}_{name}");
        lookup(&variable).filter(|value| !value.is_empty()).map(|value| (variable, value))
    })
}

fn flag(found: Option<(String, String)>) -> Result<bool, Error> {
    let Some((name, value)) = found else { return Ok(false) };
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(Error::Config { name, reason: format!("{value:?} is neither true nor false") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(env: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_lookup(|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn arca_goes_before_vault_and_empty_is_unset() {
        let got = config(&[
            ("VAULT_ADDR", "http://vault:1"),
            ("ARCA_ADDR", "http://a:1,http://b:2"),
            ("ARCA_TOKEN", ""),
            ("VAULT_TOKEN", " tok\n"),
            ("VAULT_SKIP_VERIFY", "true"),
            ("VAULT_CLIENT_TIMEOUT", "5s"),
            ("VAULT_MAX_RETRIES", "7"),
            ("ARCA_WRAP_TTL", "5m"),
        ])
        .unwrap();
        assert_eq!(
            got.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["http://a:1", "http://b:2"]
        );
        assert_eq!(got.token.unwrap().expose(), "tok");
        assert!(got.tls.danger_skip_verify);
        assert_eq!((got.timeout, got.retry.retries), (Duration::from_secs(5), 7));
        assert_eq!(got.wrap_ttl.as_deref(), Some("5m"));
    }

    #[test]
    fn an_agent_goes_before_the_server() {
        let got =
            config(&[("ARCA_ADDR", "http://server:1"), ("VAULT_AGENT_ADDR", "http://agent:1")]).unwrap();
        assert_eq!(got.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://agent:1"]);
    }

    #[test]
    fn bad_values_name_their_variable() {
        for (name, value) in
            [("ARCA_SKIP_VERIFY", "maybe"), ("VAULT_CLIENT_TIMEOUT", "soon"), ("VAULT_MAX_RETRIES", "-1")]
        {
            let message = config(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let config = config(&[("VAULT_TOKEN", "hvs.secret"), ("VAULT_MFA", "id:123456")]).unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains("hvs.secret") && !shown.contains("123456"), "{shown}");
    }
}
