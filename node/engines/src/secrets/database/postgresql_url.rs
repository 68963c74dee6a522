//! Connection strings of PostgreSQL, in both of libpq's shapes: `postgresql://…` and `key=value …`. What they say of TLS
//! is read here, for the driver knows less of it, and settings of the server's, of which it knows none; the rest is the
//! driver's.

use std::borrow::Cow;

use arca_engine_api::{EngineError, Secretive};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use zeroize::Zeroizing;

use super::adapter::{Login, Settings};
use super::tls::Check;

/// The port unless one is said.
const PORT: u16 = 5_432;
/// Kept as they are by percent-encoding: what no URL gives a meaning to.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Encoded in what is left of a query.
const QUERY: &AsciiSet = &CONTROLS.add(b'%').add(b'&').add(b' ').add(b'#').add(b'+').add(b'@');
/// Options that the driver reads.
const DRIVERS: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];
/// Options of other drivers that say nothing to ours, or nothing here: every session is in UTC and UTF-8.
const WITHOUT_EFFECT: &[&str] = &[
    "TimeZone",
    "binary_parameters",
    "client_encoding",
    "default_query_exec_mode",
    "description_cache_capacity",
    "fallback_application_name",
    "gssencmode",
    "krbspn",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "sslsni",
    "statement_cache_capacity",
    "timezone",
];
const USERNAME: &str = "{{username}}";
const PASSWORD: &str = "{{password}}";

/// Where to connect, and how TLS is begun there.
pub(super) struct Target {
    pub(super) config: tokio_postgres::Config,
    pub(super) check: Check,
}

/// One target for each password.
pub(super) fn targets(settings: &Settings) -> Result<Vec<Target>, EngineError> {
    let none = [Secretive::from("")];
    let passwords = if settings.passwords.is_empty() { &none[..] } else { &settings.passwords };
    passwords.iter().map(|password| target(settings, &password.0)).collect()
}

fn target(settings: &Settings, password: &str) -> Result<Target, EngineError> {
    let is_url = is_url(&settings.url);
    let write = |value: &str, place: &str, text: &str| -> Zeroizing<String> {
        let value = if !settings.escapes {
            Zeroizing::new(value.to_owned())
        } else if is_url {
            Zeroizing::new(utf8_percent_encode(value, PLAIN).to_string())
        } else {
            let inner = value.replace('\\', "\\\\").replace('\'', "\\'");
            let is_quoted = text.contains(&format!("'{place}'"));
            Zeroizing::new(if is_quoted { inner } else { format!("'{inner}'") })
        };
        Zeroizing::new(text.replace(place, &value))
    };
    let text = write(&settings.username, USERNAME, &settings.url);
    let text = write(password, PASSWORD, &text);
    let (text, more) = if is_url { split_url(&text)? } else { split_pairs(&text)? };
    // The driver's own words may repeat a part of the text.
    let mut config: tokio_postgres::Config = text.parse().map_err(|_| {
        EngineError::invalid(
            "cannot parse connection url: it is malformed, or has an option that is not known",
        )
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(EngineError::invalid("cannot parse connection url: there is no host"));
    }
    if config.get_application_name().is_none() {
        config.application_name("arca");
    }
    let has_more = !settings.tls_server_name.is_empty() || !settings.tls_certificate_key.0.is_empty();
    if more.wants_primary {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if !more.settings.is_empty() {
        let options = format!("{}{}", config.get_options().unwrap_or_default(), more.settings);
        config.options(options);
    }
    let (mode, check) = more.read(!settings.tls_ca.is_empty(), has_more)?;
    config.ssl_mode(mode);
    Ok(Target { config, check })
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

/// What a connection string says that is not for the driver.
#[derive(Debug, Default)]
struct More {
    /// How TLS is begun.
    mode: Option<String>,
    /// What the server sets in each session, as its command line has it.
    settings: String,
    /// Of several servers the one that is no standby; the driver has another word for it.
    wants_primary: bool,
}

impl More {
    /// Takes an option that is not the driver's. False for one that is.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, EngineError> {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "passfile" | "service" | "servicefile" | "sslcert" | "sslcrl" | "sslinline" | "sslkey"
            | "sslpassword" | "sslrootcert" => {
                return Err(EngineError::invalid(
                    "the connection url names files; give their content by tls_ca and tls_certificate_key",
                ));
            }
            "target_session_attrs" if value == "primary" => self.wants_primary = true,
            _ if WITHOUT_EFFECT.contains(&key) => {}
            _ if DRIVERS.contains(&key) => return Ok(false),
            _ => self.set(key, value)?,
        }
        Ok(true)
    }

    /// Takes a setting of the server's, which says itself what it knows.
    fn set(&mut self, name: &str, value: &str) -> Result<(), EngineError> {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.');
        if name.is_empty() || !name.chars().all(is_word) || value.contains(char::is_control) {
            return Err(EngineError::invalid("cannot parse connection url: it has a malformed option"));
        }
        self.settings.push_str(&format!(" -c {name}="));
        for letter in value.chars() {
            if letter == '\\' || letter.is_ascii_whitespace() {
                self.settings.push('\\');
            }
            self.settings.push(letter);
        }
        Ok(())
    }

    /// As libpq: `require` verifies the chain when there is an authority to verify it by. Who says more of TLS wants it,
    /// whole unless told otherwise, and a server in between must not be able to talk anybody out of it.
    fn read(&self, has_ca: bool, has_more: bool) -> Result<(SslMode, Check), EngineError> {
        let lax = if has_ca { Check::Chain } else { Check::Nothing };
        match self.mode.as_deref() {
            None if has_ca || has_more => Ok((SslMode::Require, Check::ChainAndName)),
            Some("disable" | "allow" | "prefer") if has_ca || has_more => Err(EngineError::invalid(
                "sslmode must be require, verify-ca or verify-full with tls_ca, tls_certificate_key or \
                 tls_server_name: others go on without TLS",
            )),
            Some("disable") => Ok((SslMode::Disable, Check::Nothing)),
            None | Some("allow" | "prefer") => Ok((SslMode::Prefer, Check::Nothing)),
            Some("require") => Ok((SslMode::Require, lax)),
            Some("verify-ca") => Ok((SslMode::Require, Check::Chain)),
            Some("verify-full") => Ok((SslMode::Require, Check::ChainAndName)),
            Some(_) => Err(EngineError::invalid(
                "sslmode is disable, allow, prefer, require, verify-ca or verify-full",
            )),
        }
    }
}

fn split_url(text: &str) -> Result<(Zeroizing<String>, More), EngineError> {
    let mut more = More::default();
    let Some((head, query)) = text.split_once('?') else {
        return Ok((Zeroizing::new(text.to_owned()), more));
    };
    let mut kept = Zeroizing::new(head.to_owned());
    let mut separator = '?';
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = parameter(pair);
        if !more.take(&key, &value)? {
            kept.push(separator);
            kept.push_str(&format!(
                "{}={}",
                utf8_percent_encode(&key, QUERY),
                utf8_percent_encode(&value, QUERY)
            ));
            separator = '&';
        }
    }
    Ok((kept, more))
}

/// A parameter of a URL's query, decoded.
fn parameter(pair: &str) -> (Cow<'_, str>, Cow<'_, str>) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let decode = |text| percent_decode_str(text).decode_utf8_lossy();
    (decode(key), decode(value))
}

fn split_pairs(text: &str) -> Result<(Zeroizing<String>, More), EngineError> {
    let (mut more, mut kept) = (More::default(), Zeroizing::new(String::with_capacity(text.len() * 2)));
    for (key, value) in pairs(text)? {
        if !more.take(key, &value)? {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            kept.push_str(&format!("{key}='{value}' "));
        }
    }
    Ok((kept, more))
}

/// The pairs of `key=value key='value with blanks'`.
fn pairs(text: &str) -> Result<Vec<(&str, Zeroizing<String>)>, EngineError> {
    let malformed = || EngineError::invalid("cannot parse connection url: invalid keyword/value");
    let (mut found, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=').ok_or_else(malformed)?;
        let mut value = Zeroizing::new(String::new());
        let tail = tail.trim_start();
        let (is_quoted, tail) = tail.strip_prefix('\'').map_or((false, tail), |tail| (true, tail));
        let mut letters = tail.char_indices();
        let end = loop {
            match letters.next() {
                None if is_quoted => return Err(malformed()),
                None => break tail.len(),
                Some((at, '\'')) if is_quoted => break at + 1,
                Some((at, letter)) if !is_quoted && letter.is_whitespace() => break at,
                Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
                Some((_, letter)) => value.push(letter),
            }
        };
        let key = key.trim();
        if key.is_empty() || !key.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(malformed());
        }
        found.push((key, value));
        rest = tail.get(end..).unwrap_or_default().trim_start();
    }
    Ok(found)
}

/// As whom one logs in.
pub(super) fn login(settings: &Settings) -> Option<Login> {
    // Seen again in what the driver makes of the URL, it stood where the driver looks for the password.
    const MARK: &str = "in the place of the password";
    let target = target(settings, MARK).ok()?;
    let takes_password = target.config.get_password() == Some(MARK.as_bytes());
    Some(Login { username: target.config.get_user()?.to_owned(), takes_password })
}

/// The servers one connects to.
pub(super) fn servers(settings: &Settings) -> Vec<String> {
    let Ok(target) = target(settings, "") else { return Vec::new() };
    let config = &target.config;
    let port = |at: usize| {
        let ports = config.get_ports();
        ports.get(at).or_else(|| ports.first()).copied().unwrap_or(PORT)
    };
    let named = config.get_hosts().iter().enumerate().map(|(at, host)| match host {
        Host::Tcp(host) => format!("postgresql {}:{}", host.to_ascii_lowercase(), port(at)),
        #[cfg(unix)]
        Host::Unix(path) => format!("postgresql {}:{}", path.display(), port(at)),
    });
    let numbered = config.get_hostaddrs().iter().enumerate();
    named.chain(numbered.map(|(at, address)| format!("postgresql {address}:{}", port(at)))).collect()
}

/// The URL without a password.
pub(super) fn redact(url: &str) -> String {
    shown(url).unwrap_or_else(|| url.to_owned())
}

/// Whether there is a password in it.
pub(super) fn has_password(url: &str) -> bool {
    shown(url).is_some()
}

/// Stands where a password stood.
const REDACTED: &str = "xxxxx";

/// The text without its passwords, read by the same rules as for connecting. None if there are none, a place for one being
/// none.
fn shown(text: &str) -> Option<String> {
    if is_url(text) { shown_url(text) } else { shown_pairs(text) }
}

fn is_secret(password: &str) -> bool {
    !password.is_empty() && password != PASSWORD
}

fn shown_url(text: &str) -> Option<String> {
    let (head, query) = text.split_once('?').map_or((text, None), |(head, query)| (head, Some(query)));
    let (scheme, rest) = head.split_once("://")?;
    // The last `@`: a password may hold one, if wrongly.
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    let mut found = false;
    let mut made = format!("{scheme}://");
    if let Some(login) = login {
        match login.split_once(':') {
            Some((username, password)) if is_secret(password) => {
                found = true;
                made.push_str(&format!("{username}:{REDACTED}@"));
            }
            _ => made.push_str(&format!("{login}@")),
        }
    }
    made.push_str(place);
    let mut separator = '?';
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        made.push(separator);
        separator = '&';
        let (key, value) = parameter(pair);
        if key == "password" && is_secret(&value) {
            found = true;
            made.push_str(&format!("password={REDACTED}"));
        } else {
            made.push_str(pair);
        }
    }
    found.then_some(made)
}

fn shown_pairs(text: &str) -> Option<String> {
    // What does not parse is not shown: nobody knows what of it is a password.
    let Ok(pairs) = pairs(text) else { return Some(REDACTED.to_owned()) };
    let mut found = false;
    let mut made = Vec::new();
    for (key, value) in pairs {
        if key == "password" && is_secret(&value) {
            found = true;
            made.push(format!("{key}={REDACTED}"));
        } else if value.is_empty()
            || value.contains(|letter: char| letter.is_whitespace() || "'\\".contains(letter))
        {
            made.push(format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")));
        } else {
            made.push(format!("{key}={}", value.as_str()));
        }
    }
    found.then(|| made.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::database::tests::settings;

    fn read(url: &str, username: &str, password: &str) -> Result<Target, EngineError> {
        let settings = settings(url, username, password);
        Ok(targets(&settings)?.remove(0))
    }

    #[test]
    fn servers_are_what_the_url_names() {
        for (url, want) in [
            ("postgres://u@Host,b/d", &["postgresql host:5432", "postgresql b:5432"][..]),
            ("postgres://u@a:1,b:2/d", &["postgresql a:1", "postgresql b:2"]),
            ("host=a hostaddr=10.0.0.1 port=7 user=u", &["postgresql a:7", "postgresql 10.0.0.1:7"]),
            ("host=/run/pg user=u", &["postgresql /run/pg:5432"]),
            ("nonsense", &[]),
        ] {
            assert_eq!(servers(&settings(url, "u", "p")), want, "{url}");
        }
    }

    #[track_caller]
    fn check(url: &str, want_mode: SslMode, want_check: Check) {
        let target = read(url, "us er", "p@:/'\\ ?").unwrap();
        assert_eq!(target.config.get_user(), Some("us er"), "{url}");
        assert_eq!(target.config.get_password(), Some(&b"p@:/'\\ ?"[..]), "{url}");
        assert_eq!(target.config.get_dbname(), Some("db"), "{url}");
        assert_eq!((target.config.get_ssl_mode(), target.check), (want_mode, want_check), "{url}");
    }

    #[test]
    fn both_shapes_are_read() {
        let url = "postgresql://{{username}}:{{password}}@localhost:5432/db";
        check(url, SslMode::Prefer, Check::Nothing);
        check(&format!("{url}?sslmode=disable"), SslMode::Disable, Check::Nothing);
        check(&format!("{url}?sslmode=verify-ca&connect_timeout=3"), SslMode::Require, Check::Chain);
        check(&format!("{url}?timezone=UTC&sslmode=verify-full"), SslMode::Require, Check::ChainAndName);
        let pairs = "host=localhost user={{username}} password='{{password}}' dbname = db";
        check(&format!("{pairs} sslmode=require"), SslMode::Require, Check::Nothing);
    }

    #[test]
    fn what_is_malformed_is_refused_without_a_word_of_it() {
        for url in [
            ":: nonsense canary {{password}}",
            "postgresql://u:canary@[::1/db",
            "postgresql://{{username}}:{{password}}@h/db?can%20ary=1",
            "postgresql://{{username}}:{{password}}@h/db?search_path=can%0Aary",
            "postgresql://{{username}}:{{password}}@h/db?passfile=/canary",
            "postgresql://h/db?sslmode=canary",
            "postgresql://h/db?sslrootcert=/canary",
            "host=h password='canary",
            "postgresql://",
        ] {
            let refused = read(url, "u", "canary").map(|_| ()).unwrap_err().to_string();
            assert!(!refused.contains("canary"), "{refused}");
        }
    }

    #[test]
    fn settings_of_the_server_are_passed_on() {
        let url = "postgresql://{{username}}:{{password}}@h/db";
        for (url, want) in [
            (
                format!("{url}?search_path=app,%20public&statement_timeout=5s"),
                Some(" -c search_path=app,\\ public -c statement_timeout=5s"),
            ),
            (format!("{url}?options=-c%20geqo%3Doff&my.name=a%5Cb"), Some("-c geqo=off -c my.name=a\\\\b")),
            ("host=h user={{username}} search_path = 'a b'".to_owned(), Some(" -c search_path=a\\ b")),
            (format!("{url}?default_query_exec_mode=simple_protocol&client_encoding=latin1"), None),
            (format!("{url}?connect_timeout=3&target_session_attrs=read-write&keepalives=1"), None),
        ] {
            assert_eq!(read(&url, "u", "p").unwrap().config.get_options(), want, "{url}");
        }
    }

    #[test]
    fn of_several_servers_the_primary_can_be_wanted() {
        let target = read("host=a,b user=u target_session_attrs=primary", "u", "p").unwrap();
        assert_eq!(target.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[track_caller]
    fn check_redacted(url: &str, want: &str) {
        assert_eq!(redact(url), want);
        assert_eq!(has_password(url), url != want, "{url}");
    }

    #[test]
    fn no_password_is_shown() {
        check_redacted("postgresql://u:canary@h/db", "postgresql://u:xxxxx@h/db");
        check_redacted("postgresql://u:c@n/ary@h/db", "postgresql://u:xxxxx@h/db");
        check_redacted(
            "postgresql://{{username}}:{{password}}@h/db",
            "postgresql://{{username}}:{{password}}@h/db",
        );
        check_redacted("postgresql://u@h/db", "postgresql://u@h/db");
        check_redacted("host=h password='can ary' user=u", "host=h password=xxxxx user=u");
        check_redacted("host=h password=canary", "host=h password=xxxxx");
    }

    /// A password is found wherever the driver finds it, however it is written.
    #[test]
    fn no_password_is_shown_wherever_it_stands() {
        for (url, want) in [
            (
                "postgresql://u@h/db?password=canary&sslmode=disable",
                "postgresql://u@h/db?password=xxxxx&sslmode=disable",
            ),
            ("postgresql://u@h/db?pass%77ord=c%61nary", "postgresql://u@h/db?password=xxxxx"),
            (
                "postgresql://{{username}}:{{password}}@h/db?connect_timeout=3&password=canary",
                "postgresql://{{username}}:{{password}}@h/db?connect_timeout=3&password=xxxxx",
            ),
            ("host=h password = 'can ary' user = u", "host=h password=xxxxx user=u"),
            ("host=h password =canary dbname='a b'", "host=h password=xxxxx dbname='a b'"),
            ("host=h password= canary\\ x user='it\\'s'", "host=h password=xxxxx user='it\\'s'"),
            ("password='' host=h password=canary{{password}}", "password='' host=h password=xxxxx"),
            ("host=h user=u password='{{password}}'", "host=h user=u password='{{password}}'"),
            ("postgresql://u@h/db?application_name=a@b:c", "postgresql://u@h/db?application_name=a@b:c"),
        ] {
            check_redacted(url, want);
            let target = read(url, "u", "word").unwrap();
            let is_own = target.config.get_password().is_some_and(|password| password != b"word");
            assert_eq!(is_own, url != want, "{url}");
        }
        check_redacted("host=h password='canary", "xxxxx");
    }

    #[test]
    fn the_login_is_what_the_driver_makes_of_the_url() {
        for (url, want) in [
            ("postgresql://{{username}}:{{password}}@h/db", Some(("u", true))),
            ("postgresql://{{username}}:canary@h/db", Some(("u", false))),
            ("postgresql://other:{{password}}@h/db", Some(("other", true))),
            ("postgresql://{{username}}:{{password}}@h/db?password=canary", Some(("u", false))),
            ("host=h user={{username}} password = '{{password}}'", Some(("u", true))),
            ("postgresql://h/{{password}}?user={{username}}", Some(("u", false))),
            ("postgresql://h/db", None),
            ("nonsense", None),
        ] {
            let login = login(&settings(url, "u", "p"));
            let want = want.map(|(name, takes_password)| Login { username: name.to_owned(), takes_password });
            assert_eq!(login, want, "{url}");
        }
    }

    /// Whoever gives an authority wants the server checked by it: without `sslmode` it was not.
    #[test]
    fn what_is_said_of_tls_is_never_ignored() {
        let url = "postgresql://{{username}}:{{password}}@h/db";
        let with = |change: fn(&mut Settings), url: &str| {
            let mut settings = settings(url, "u", "p");
            change(&mut settings);
            targets(&settings).map(|mut targets| targets.remove(0)).map_err(|err| err.to_string())
        };
        let changes: [fn(&mut Settings); 3] = [
            |settings| settings.tls_ca = "x".to_owned(),
            |settings| settings.tls_server_name = "x".to_owned(),
            |settings| settings.tls_certificate_key = Secretive::from("x"),
        ];
        for change in changes {
            let target = with(change, url).unwrap();
            assert_eq!((target.config.get_ssl_mode(), target.check), (SslMode::Require, Check::ChainAndName));
            for mode in ["disable", "allow", "prefer"] {
                let refused = with(change, &format!("{url}?sslmode={mode}")).map(|_| ()).unwrap_err();
                assert!(refused.contains("sslmode must be require"), "{mode}: {refused}");
            }
            for mode in ["require", "verify-ca", "verify-full"] {
                let target = with(change, &format!("{url}?sslmode={mode}")).unwrap();
                assert_eq!(target.config.get_ssl_mode(), SslMode::Require);
            }
        }
    }
}
