//! Connection strings of MySQL, as the driver of Go has them: `user:password@tcp(host:port,…)/database?option=value`.
//! Username and password are filled in after the text is taken apart, so nothing in them can mean anything.

use arca_engine_api::EngineError;
use percent_encoding::percent_decode_str;

/// The port unless one is said.
const PORT: u16 = 3_306;
/// Most hosts of one connection string.
const HOSTS_MAX: usize = 16;
/// Options of Go's driver that say nothing to ours, or nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "allowAllFiles",
    "allowFallbackToPlaintext",
    "allowNativePasswords",
    "allowOldPasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "compress",
    "connectionAttributes",
    "interpolateParams",
    "loc",
    "maxAllowedPacket",
    "multiStatements",
    "parseTime",
    "readTimeout",
    "rejectReadOnly",
    "timeout",
    "writeTimeout",
];

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Socket(String),
    Tcp(String, u16),
}

/// What `tls=` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsMode {
    Off,
    On,
    OnUnverified,
    /// Unverified, and without it if it cannot be.
    Preferred,
}

/// A connection string, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dsn<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    /// Tried one after the other.
    pub(super) hosts: Vec<Host>,
    pub(super) database: &'a str,
    /// None when nothing is said.
    pub(super) tls: Option<TlsMode>,
    pub(super) allows_cleartext: bool,
    /// Statements that set the server's variables in each session.
    pub(super) variables: Vec<String>,
}

impl<'a> Dsn<'a> {
    /// Takes a connection string apart.
    pub(super) fn parse(text: &'a str) -> Result<Self, EngineError> {
        let bad =
            |why: &str| EngineError::Invalid(format!("unable to parse connectionURL: invalid DSN: {why}"));
        let (head, tail) =
            text.rsplit_once('/').ok_or_else(|| bad("missing the slash separating the database name"))?;
        let (database, options) = tail.split_once('?').unwrap_or((tail, ""));
        let (login, address) = head.rsplit_once('@').unwrap_or(("", head));
        let (username, password) = login.split_once(':').unwrap_or((login, ""));
        let (network, address) = match address.split_once('(') {
            Some((network, rest)) => {
                (network, rest.strip_suffix(')').ok_or_else(|| bad("the address has no closing bracket"))?)
            }
            None => (address, ""),
        };
        let hosts = match network {
            "" | "tcp" => tcp_hosts(address).ok_or_else(|| bad("bad address"))?,
            "unix" if !address.is_empty() => vec![Host::Socket(address.to_owned())],
            _ => return Err(bad("the network is tcp or unix")),
        };
        let mut dsn = Self {
            username,
            password,
            hosts,
            database,
            tls: None,
            allows_cleartext: false,
            variables: Vec::new(),
        };
        for pair in options.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (key, value) {
                ("tls", "true") => dsn.tls = Some(TlsMode::On),
                ("tls", "false") => dsn.tls = Some(TlsMode::Off),
                ("tls", "skip-verify") => dsn.tls = Some(TlsMode::OnUnverified),
                ("tls", "preferred") => dsn.tls = Some(TlsMode::Preferred),
                ("tls", _) => {
                    return Err(bad(
                        "tls is true, false, skip-verify or preferred; give authorities by tls_ca",
                    ));
                }
                ("allowCleartextPasswords", _) => dsn.allows_cleartext = value == "true",
                _ if WITHOUT_EFFECT.contains(&key) => {}
                _ => dsn.variables.push(variable(key, value).ok_or_else(|| bad("an option is malformed"))?),
            }
        }
        Ok(dsn)
    }
}

/// The statement that sets a variable to a word, a number or quoted text. None if it is something else, or more.
fn variable(name: &str, value: &str) -> Option<String> {
    let value = percent_decode_str(value).decode_utf8().ok()?;
    let quoted = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let is_good = match quoted {
        Some(inner) => !inner.contains(['\'', '\\']) && !inner.contains(char::is_control),
        None => {
            !value.is_empty() && value.chars().all(|letter| is_word(letter) || matches!(letter, '-' | ','))
        }
    };
    (is_good && !name.is_empty() && name.chars().all(is_word))
        .then(|| format!("SET SESSION {name} = {value}"))
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.')
}

fn tcp_hosts(address: &str) -> Option<Vec<Host>> {
    if address.is_empty() {
        return Some(vec![Host::Tcp("127.0.0.1".to_owned(), PORT)]);
    }
    let hosts: Vec<Host> = address.split(',').map(|host| tcp_host(host.trim())).collect::<Option<_>>()?;
    (hosts.len() <= HOSTS_MAX).then_some(hosts)
}

fn tcp_host(text: &str) -> Option<Host> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(PORT), str::parse).ok()?;
    (!host.is_empty()).then(|| Host::Tcp(host.to_owned(), port))
}

/// The connection string without a password.
pub(super) fn redact(text: &str) -> String {
    match password_of(text) {
        Some((from, to)) => {
            format!("{}xxxxx{}", text.get(..from).unwrap_or_default(), text.get(to..).unwrap_or_default())
        }
        None => text.to_owned(),
    }
}

/// Whether there is a password in it.
pub(super) fn has_password(text: &str) -> bool {
    password_of(text).is_some()
}

/// Where the password stands, unless it is a place for one. Nothing else stands before the last `@`.
fn password_of(text: &str) -> Option<(usize, usize)> {
    let end = text.rfind('@')?;
    let start = text.get(..end)?.find(':')? + 1;
    let password = text.get(start..end)?;
    (!password.is_empty() && password != "{{password}}").then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, username: &str, password: &str, hosts: &[(&str, u16)], tls: Option<TlsMode>) {
        let hosts = hosts.iter().map(|(host, port)| Host::Tcp((*host).to_owned(), *port)).collect();
        let want = Dsn {
            username,
            password,
            hosts,
            database: "db",
            tls,
            allows_cleartext: false,
            variables: Vec::new(),
        };
        assert_eq!(Dsn::parse(text).map_err(|err| err.to_string()), Ok(want), "{text}");
    }

    #[test]
    fn connection_strings_are_taken_apart() {
        let (user, word) = ("{{username}}", "{{password}}");
        check("{{username}}:{{password}}@tcp(h:33)/db", user, word, &[("h", 33)], None);
        check("u:p:w@/x@tcp(h)/db?tls=true", "u", "p:w@/x", &[("h", 3306)], Some(TlsMode::On));
        check(
            "tcp(a,[::1]:7)/db?tls=skip-verify&charset=utf8",
            "",
            "",
            &[("a", 3306), ("::1", 7)],
            Some(TlsMode::OnUnverified),
        );
        check("u@tcp(h)/db?tls=preferred", "u", "", &[("h", 3306)], Some(TlsMode::Preferred));
        check("u@/db", "u", "", &[("127.0.0.1", 3306)], None);
        assert_eq!(Dsn::parse("u@unix(/run/s)/").unwrap().hosts, [Host::Socket("/run/s".to_owned())]);
    }

    #[test]
    fn what_is_malformed_is_refused_without_a_word_of_it() {
        for text in [
            "canary",
            "u:canary@tcp(h/db",
            "u:canary@udp(h)/db",
            "u:canary@tcp(h:canary)/db",
            "u:canary@tcp(h)/db?canary",
            "u:canary@tcp(h)/db?can;ary=1",
            "u:canary@tcp(h)/db?sql_mode='canary'';'",
            "u:canary@tcp(h)/db?autocommit=1;canary",
            "u:canary@tcp(h)/db?tls=canary",
        ] {
            let refused = Dsn::parse(text).unwrap_err().to_string();
            assert!(!refused.contains("canary"), "{refused}");
        }
    }

    #[test]
    fn other_options_are_variables_of_the_server() {
        for (options, want) in [
            ("autocommit=1", "SET SESSION autocommit = 1"),
            ("sql_mode=ANSI", "SET SESSION sql_mode = ANSI"),
            ("time_zone=%27Europe%2FBerlin%27", "SET SESSION time_zone = 'Europe/Berlin'"),
            ("sql_mode='ANSI,NO_BACKSLASH_ESCAPES'", "SET SESSION sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'"),
        ] {
            assert_eq!(Dsn::parse(&format!("u@tcp(h)/db?{options}")).unwrap().variables, [want]);
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (text, want) in [
            ("u:canary@tcp(h)/db", "u:xxxxx@tcp(h)/db"),
            ("u:can@ary/x@tcp(h)/db", "u:xxxxx@tcp(h)/db"),
            ("{{username}}:{{password}}@tcp(h)/", "{{username}}:{{password}}@tcp(h)/"),
            ("u@tcp(h:1)/", "u@tcp(h:1)/"),
        ] {
            assert_eq!(redact(text), want);
            assert_eq!(has_password(text), text != want);
        }
    }
}
