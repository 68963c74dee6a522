//! MySQL and MariaDB.
//!
//! Accounts are not transactional here: each statement counts as soon as it ran. Everything happens under a lock of the
//! session's by the user's name, which the server holds until it knows that the session is over, so whatever comes next
//! for that user waits until nothing of what came before is under way.

use std::sync::Arc;

use arca_engine_api::{EngineError, Secretive};
use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;
use mysql_async::{ChangeUserOpts, ClientIdentity, Conn, DriverError, Error, Opts, OptsBuilder, SslOpts};
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::adapter::{
    Begun, CONNECT_PATIENCE, Database, Failure, Kind, LOCK_SECONDS, Login, NewPassword, NewUser, OldUser,
    Renewal, STATEMENT_SECONDS, Settings, already_there, bounded,
};
use super::mysql_accounts;
use super::mysql_dsn::{self, Dsn, Host, TlsMode};
use super::pool::{Connector, Held, Pool};
use super::statements::{self, Dialect, Values, are_blank};
use super::tls::{certificates, identity};

const USERNAMES: &str = r#"{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 10) (.RoleName | truncate 10) (random 20) (unix_time) | truncate 32 }}"#;
const SHORT_USERNAMES: &str = r#"{{ printf "v-%s-%s" (.RoleName | truncate 4) (random 20) | truncate 16 }}"#;

const fn kind(name: &'static str, username_template: &'static str) -> Kind {
    Kind {
        name,
        username_template,
        username_max: 80,
        open,
        redact: mysql_dsn::redact,
        has_password: mysql_dsn::has_password,
        login,
        servers,
        hosts: hosts_said,
    }
}

/// The types of this file: they differ in how long the names of users are.
pub(super) const KINDS: &[Kind] = &[
    kind("mysql-aurora-database-plugin", SHORT_USERNAMES),
    kind("mysql-database-plugin", USERNAMES),
    kind("mysql-legacy-database-plugin", SHORT_USERNAMES),
    kind("mysql-rds-database-plugin", SHORT_USERNAMES),
];

/// For whether there is anything to run; the session's own is taken to run it.
const DIALECT: Dialect = Dialect { has_backslashes: true, is_postgres: false };
const CHANGE_PASSWORD: &str = "ALTER USER '{{username}}'@'%' IDENTIFIED BY '{{password}}'";
/// There is no such user, or there is one already.
const NO_USER: u16 = 1396;
/// Not allowed to look at a table, a column, a database; or there is none to look at, as its view is broken.
const NOT_SHOWN: [u16; 7] = [1142, 1143, 1044, 1049, 1146, 1356, 1449];
/// A statement was ended from outside, who knows how far it had come: interrupted, over time, its connection killed.
const ENDED: [u16; 4] = [1317, 1969, 3024, 1927];
/// What could not be read. The text behind it quotes from there on, which may be in the midst of a password.
const SYNTAX: u16 = 1064;
/// Login refused: by name and password, to the database, by the host or the plugin.
const LOGIN_REFUSED: [u16; 2] = [PASSWORD_REFUSED, 1698];
const PASSWORD_REFUSED: u16 = 1045;
/// What the server says to the end of a session that is not there, or not ours to end.
const SESSION_NOT_OURS: [u16; 3] = [1094, 1095, 1227];

#[derive(Debug)]
struct MySql {
    logins: Logins,
    pool: Pool<Session>,
}

/// Where to log in: for each password all hosts.
#[derive(Debug)]
struct Logins(Vec<Vec<Place>>);

/// Where to log in, and as whom.
#[derive(Clone, Debug)]
struct Place {
    options: Opts,
    /// What to do where there is no TLS.
    plain: Option<Opts>,
}

impl Place {
    async fn login(&self) -> Result<Conn, Error> {
        match (Conn::new(self.options.clone()).await, &self.plain) {
            (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plain)) => {
                Conn::new(plain.clone()).await
            }
            (outcome, _) => outcome,
        }
    }

    /// As somebody else, who is let in and no more.
    fn of(&self, username: &str, password: &str) -> Self {
        let change = |options: &Opts| -> Opts {
            let options = OptsBuilder::from_opts(options.clone());
            options.user(Some(username)).pass(Some(password)).setup(Vec::<String>::new()).into()
        };
        Self { options: change(&self.options), plain: self.plain.as_ref().map(change) }
    }
}

#[derive(Debug)]
struct Session {
    conn: Conn,
    dialect: Dialect,
    /// The role it acts as, in MariaDB.
    role: Option<String>,
}

fn open(settings: &Settings) -> Result<Arc<dyn Database>, EngineError> {
    Ok(Arc::new(MySql { logins: logins(settings)?, pool: Pool::new(settings.limits) }))
}

fn logins(settings: &Settings) -> Result<Logins, EngineError> {
    let dsn = Dsn::parse(&settings.url)?;
    let none = [Secretive::from("")];
    let passwords = if settings.passwords.is_empty() { &none[..] } else { &settings.passwords };
    let username = dsn.username.replace("{{username}}", &settings.username);
    let tls = tls(settings, dsn.tls)?;
    let target = |password: &Secretive| {
        let password = Zeroizing::new(dsn.password.replace("{{password}}", &password.0));
        let options = |host: &Host, tls: Option<SslOpts>| -> Opts {
            let base = OptsBuilder::default()
                .user(Some(username.clone()))
                .pass(Some(password.as_str()).filter(|password| !password.is_empty()))
                .db_name(Some(dsn.database).filter(|name| !name.is_empty()))
                .enable_cleartext_plugin(dsn.allows_cleartext)
                .prefer_socket(false)
                .setup(dsn.variables.clone())
                .ssl_opts(tls);
            match host {
                Host::Socket(path) => base.socket(Some(path.clone())).prefer_socket(true),
                Host::Tcp(host, port) => base.ip_or_hostname(host.clone()).tcp_port(*port),
            }
            .into()
        };
        dsn.hosts
            .iter()
            .map(|host| Place {
                options: options(host, tls.clone()),
                plain: (dsn.tls == Some(TlsMode::Preferred)).then(|| options(host, None)),
            })
            .collect()
    };
    Ok(Logins(passwords.iter().map(target).collect()))
}

/// As whom the URL logs in.
fn login(settings: &Settings) -> Option<Login> {
    let dsn = Dsn::parse(&settings.url).ok()?;
    let username = dsn.username.replace("{{username}}", &settings.username);
    let takes_password = dsn.password == "{{password}}";
    (!username.is_empty()).then_some(Login { username, takes_password })
}

/// The servers one connects to.
fn servers(settings: &Settings) -> Vec<String> {
    let hosts = Dsn::parse(&settings.url).map(|dsn| dsn.hosts).unwrap_or_default();
    let named = hosts.into_iter().map(|host| match host {
        Host::Socket(path) => format!("mysql {path}"),
        Host::Tcp(host, port) => format!("mysql {}:{port}", host.to_ascii_lowercase()),
    });
    named.collect()
}

/// The hosts for which creation statements make a user, if they say so plainly.
fn hosts_said(statements: &[String], username: &str) -> Option<Vec<String>> {
    mysql_accounts::hosts(&without_password(DIALECT, statements, username).ok()?, username)
}

fn tls(settings: &Settings, said: Option<TlsMode>) -> Result<Option<SslOpts>, EngineError> {
    let (ca, own) = (&settings.tls_ca, &settings.tls_certificate_key.0);
    // Who says how TLS is to be wants it.
    let has_more = !(ca.is_empty() && own.is_empty() && settings.tls_server_name.is_empty());
    if has_more && matches!(said, Some(TlsMode::Off | TlsMode::Preferred)) {
        return Err(EngineError::invalid(
            "tls=false and tls=preferred contradict tls_ca, tls_certificate_key and tls_server_name: leave one or \
             the other out",
        ));
    }
    let is_wanted = said.unwrap_or(if has_more { TlsMode::On } else { TlsMode::Off });
    if is_wanted == TlsMode::Off {
        return Ok(None);
    }
    let mut options = SslOpts::default();
    if !ca.is_empty() {
        certificates(ca, "tls_ca")?;
        options =
            options.with_root_certs(vec![ca.clone().into_bytes().into()]).with_disable_built_in_roots(true);
    }
    if !own.is_empty() {
        let (chain, key) = identity(own)?;
        let chain: Vec<u8> = chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
            PrivateKeyDer::Pkcs1(key) => key.secret_pkcs1_der().to_vec(),
            _ => return Err(EngineError::invalid("tls_certificate_key: the key is in PKCS#8 or PKCS#1")),
        };
        options = options.with_client_identity(Some(ClientIdentity::new(chain.into(), key.into())));
    }
    if !settings.tls_server_name.is_empty() {
        options = options.with_danger_tls_hostname_override(Some(settings.tls_server_name.clone()));
    }
    if settings.tls_skips_verification || matches!(is_wanted, TlsMode::OnUnverified | TlsMode::Preferred) {
        options = options.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
    }
    Ok(Some(options))
}

impl Connector<Session> for Logins {
    async fn is_good(&self, session: &mut Session) -> bool {
        matches!(tokio::time::timeout(CONNECT_PATIENCE / 2, session.conn.ping()).await, Ok(Ok(())))
    }

    /// Logs in by the first password that is good, at the first host that answers.
    async fn connect(&self) -> Result<Session, Failure> {
        let mut refused = Failure::Unreachable("there is nothing to log in with".to_owned());
        for hosts in &self.0 {
            for host in hosts {
                match tokio::time::timeout(CONNECT_PATIENCE, connect(host)).await {
                    Ok(Ok(session)) => return Ok(session),
                    Ok(Err(err)) => {
                        let is_login = LOGIN_REFUSED.iter().any(|code| Some(*code) == code_of(&err));
                        refused = Failure::Unreachable(words(&err));
                        if is_login {
                            break;
                        }
                    }
                    Err(_) => refused = Failure::Unreachable("the database does not answer".to_owned()),
                }
            }
        }
        Err(refused)
    }
}

impl MySql {
    async fn take(&self) -> Result<Held<'_, Session>, Failure> {
        self.pool.take(&self.logins).await
    }

    /// Runs statements, which are made for the dialect the session has, under the user's lock.
    async fn run(&self, username: &str, statements: &[String], values: &Values<'_>) -> Result<(), Failure> {
        let mut held = self.take().await?;
        let queries = statements::prepare(held.connection.dialect, statements, values)?;
        let conn = &mut held.connection.conn;
        lock(conn, username).await?;
        for (at, query) in queries.iter().enumerate() {
            if let Err(err) = conn.query_drop(query.as_str()).await {
                let is_no = code_of(&err).is_some_and(|code| !ENDED.contains(&code));
                let is_certain = at == 0 && is_no;
                return Err(if is_certain {
                    Failure::Refused(words(&err))
                } else {
                    Failure::Unknown(words(&err))
                });
            }
        }
        unlock(conn, username).await?;
        give_back(held).await;
        Ok(())
    }

    /// Makes a user whom there is not yet, under the user's lock.
    async fn make(&self, user: &NewUser<'_>, values: &Values<'_>, begun: &Begun) -> Result<(), Failure> {
        let mut held = self.take().await?;
        let dialect = held.connection.dialect;
        let queries = statements::prepare(dialect, user.statements, values)?;
        let conn = &mut held.connection.conn;
        lock(conn, user.username).await?;
        if hosts_of(conn, dialect, user.username).await?.is_some_and(|hosts| !hosts.is_empty()) {
            unlock(conn, user.username).await.map_err(|_| already_there(user.username))?;
            held.keep();
            return Err(already_there(user.username));
        }
        begun.set(true);
        for (at, query) in queries.iter().enumerate() {
            if let Err(err) = conn.query_drop(query.as_str()).await {
                return Err(refused(conn, dialect, user, at, err).await);
            }
        }
        unlock(conn, user.username).await?;
        give_back(held).await;
        Ok(())
    }

    async fn drop_user(&self, username: &str, known: Option<&[String]>) -> Result<(), Failure> {
        let mut held = self.take().await?;
        let dialect = held.connection.dialect;
        let conn = &mut held.connection.conn;
        lock(conn, username).await?;
        let seen = hosts_of(conn, dialect, username).await?;
        match seen.as_deref().or(known) {
            Some(hosts) => {
                for host in hosts {
                    let (user, host) = (quoted(dialect, username), quoted(dialect, host));
                    conn.query_drop(format!("DROP USER IF EXISTS {user}@{host}")).await.map_err(failure)?;
                }
            }
            // It is the user as it is usually made, or nobody knows which: then it may still be there.
            None => {
                let user = quoted(dialect, username);
                conn.query_drop(format!("DROP USER {user}@'%'")).await.map_err(unseen)?;
            }
        }
        end_sessions(conn, dialect, username).await?;
        unlock(conn, username).await?;
        held.keep();
        Ok(())
    }

    /// Runs the operator's statements. They fail when the user is not there, which is what they are for.
    async fn revoke_by(&self, username: &str, statements: &[String]) -> Result<(), Failure> {
        let values: &Values<'_> = &[("name", username), ("username", username)];
        let outcome = self.run(username, statements, values).await;
        if !matches!(outcome, Err(Failure::Refused(_) | Failure::Unknown(_))) {
            return outcome;
        }
        // What was said stands, unless the user is not there for certain.
        match self.is_there(username).await {
            Ok(Some(false)) => Ok(()),
            _ => outcome,
        }
    }

    /// Whether there is a user of that name for any host. None if one may not look.
    async fn is_there(&self, username: &str) -> Result<Option<bool>, Failure> {
        let mut held = self.take().await?;
        let dialect = held.connection.dialect;
        let conn = &mut held.connection.conn;
        lock(conn, username).await?;
        let hosts = hosts_of(conn, dialect, username).await?;
        unlock(conn, username).await?;
        held.keep();
        Ok(hosts.map(|hosts| !hosts.is_empty()))
    }
}

#[async_trait]
impl Database for MySql {
    async fn verify(&self) -> Result<(), Failure> {
        bounded(async {
            let mut held = self.take().await?;
            held.connection.conn.ping().await.map_err(failure)?;
            held.keep();
            Ok(())
        })
        .await
    }

    async fn create_user(&self, user: &NewUser<'_>) -> Result<(), Failure> {
        if are_blank(DIALECT, user.statements) {
            return Err(EngineError::invalid("empty creation statements").into());
        }
        let values: &Values<'_> = &[
            ("name", user.username),
            ("username", user.username),
            ("password", user.password),
            ("expiration", user.expiration),
        ];
        let begun = Begun::default();
        let making = bounded(self.make(user, values, &begun)).await;
        let outcome = making.map_err(|failure| begun.judge(failure));
        if matches!(outcome, Err(Failure::Unknown(_))) && !are_blank(DIALECT, user.rollback) {
            // Best effort: the lease undoes what is left.
            let undone =
                bounded(self.run(user.username, user.rollback, values.get(..2).unwrap_or_default())).await;
            if let Err(failed) = undone {
                let reason = failed.into_error(&[user.password]);
                tracing::warn!(error = %reason, "rollback_statements failed");
            }
        }
        outcome
    }

    async fn change_password(&self, change: &NewPassword<'_>) -> Result<(), Failure> {
        let values: &Values<'_> =
            &[("name", change.username), ("username", change.username), ("password", change.password)];
        let usual = [CHANGE_PASSWORD.to_owned()];
        let statements = if are_blank(DIALECT, change.statements) { &usual } else { change.statements };
        bounded(self.run(change.username, statements, values)).await
    }

    async fn lets_in(&self, username: &str, password: &str) -> Result<bool, Failure> {
        bounded(async {
            let mut refused = Failure::Unreachable("there is nothing to log in with".to_owned());
            for host in self.logins.0.first().into_iter().flatten() {
                match tokio::time::timeout(CONNECT_PATIENCE, host.of(username, password).login()).await {
                    Ok(Ok(_)) => return Ok(true),
                    Ok(Err(err)) if code_of(&err) == Some(PASSWORD_REFUSED) => return Ok(false),
                    Ok(Err(err)) => refused = Failure::Unreachable(words(&err)),
                    Err(_) => refused = Failure::Unreachable("the database does not answer".to_owned()),
                }
            }
            Err(refused)
        })
        .await
    }

    /// Users do not expire here: without statements there is nothing to do.
    async fn renew_user(&self, renewal: &Renewal<'_>) -> Result<(), Failure> {
        if are_blank(DIALECT, renewal.statements) {
            return Ok(());
        }
        let values: &Values<'_> =
            &[("name", renewal.username), ("username", renewal.username), ("expiration", renewal.expiration)];
        bounded(self.run(renewal.username, renewal.statements, values)).await
    }

    async fn revoke_user(&self, user: &OldUser<'_>) -> Result<(), Failure> {
        if are_blank(DIALECT, user.statements) {
            bounded(self.drop_user(user.username, user.hosts)).await
        } else {
            bounded(self.revoke_by(user.username, user.statements)).await
        }
    }

    fn sweep(&self) {
        self.pool.sweep();
    }
}

async fn connect(place: &Place) -> Result<Session, Error> {
    prepared(place.login().await?).await
}

/// The session as it is used: what its server takes quoted text for, and with an end to what a statement may take.
async fn prepared(mut conn: Conn) -> Result<Session, Error> {
    let row: Option<(String, String)> = conn.query_first("SELECT @@sql_mode, VERSION()").await?;
    let (mode, version) = row.unwrap_or_default();
    let is_maria = version.contains("MariaDB");
    let limit = if is_maria {
        format!(", max_statement_time = {STATEMENT_SECONDS}")
    } else {
        format!(", max_execution_time = {}", STATEMENT_SECONDS * 1_000)
    };
    conn.query_drop(format!("SET SESSION lock_wait_timeout = {LOCK_SECONDS}{limit}")).await?;
    let has_backslashes = !mode.contains("NO_BACKSLASH_ESCAPES");
    let role =
        if is_maria { conn.query_first::<Option<String>, _>("SELECT CURRENT_ROLE()").await? } else { None };
    Ok(Session { conn, dialect: Dialect { has_backslashes, is_postgres: false }, role: role.flatten() })
}

/// Keeps the connection, without what statements have set in its session: the next one is somebody else's.
async fn give_back(held: Held<'_, Session>) {
    let role = held.connection.role.clone();
    let anew = held.exchange(|mut session| async move {
        session.conn.change_user(ChangeUserOpts::default()).await?;
        prepared(session.conn).await
    });
    // MariaDB leaves the role as it was set: that session ends.
    if let Ok(Ok(held)) = tokio::time::timeout(CONNECT_PATIENCE / 2, anew).await
        && held.connection.role == role
    {
        held.keep();
    }
}

fn lock_name(username: &str) -> String {
    let hash = Sha256::digest(username);
    format!("arca-{}", hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>())
}

async fn lock(conn: &mut Conn, username: &str) -> Result<(), Failure> {
    let ask = format!("SELECT GET_LOCK('{}', {LOCK_SECONDS})", lock_name(username));
    match conn.query_first::<Option<i64>, _>(ask).await.map_err(failure)?.flatten() {
        Some(1) => Ok(()),
        _ => Err(Failure::Unreachable("another change of the same user is still under way".to_owned())),
    }
}

async fn unlock(conn: &mut Conn, username: &str) -> Result<(), Failure> {
    let ask = format!("DO RELEASE_LOCK('{}')", lock_name(username));
    conn.query_drop(ask).await.map_err(|err| Failure::Unknown(words(&err)))
}

/// What it means that a statement failed. Still under the user's lock: a user who was not there before and is there now was
/// made by these statements, of which each counts by itself, and some count in part or run others.
async fn refused(conn: &mut Conn, dialect: Dialect, user: &NewUser<'_>, at: usize, err: Error) -> Failure {
    let why = words(&err);
    let Some(code) = code_of(&err) else { return Failure::Unknown(why) };
    let Ok(said) = without_password(dialect, user.statements, user.username) else {
        return Failure::Unknown(why);
    };
    let ran = said.get(..=at).unwrap_or(&said);
    // Something besides the user may be left for the operator's own statements to undo, of what succeeded above all.
    let has_undoing = !(are_blank(DIALECT, user.rollback) && are_blank(DIALECT, user.revocation));
    let says_nobody = !ENDED.contains(&code)
        && mysql_accounts::have_made_nobody(ran, user.username)
        && !(at > 0 && has_undoing);
    let is_certain = match hosts_of(conn, dialect, user.username).await {
        Ok(Some(hosts)) => hosts.is_empty() && (says_nobody || !has_undoing),
        Ok(None) => says_nobody,
        Err(_) => false,
    };
    if is_certain { Failure::Refused(why) } else { Failure::Unknown(why) }
}

/// The single statements as they are looked at: a password may look like anything.
fn without_password(
    dialect: Dialect,
    statements: &[String],
    username: &str,
) -> Result<Vec<Zeroizing<String>>, EngineError> {
    statements::prepare(dialect, statements, &[("name", username), ("username", username)])
}

/// The condition that a column holds this very text: the server's own comparing leaves out letters' cases in some places,
/// and blanks at the end in all.
fn is_exactly(dialect: Dialect, column: &str, text: &str) -> String {
    let bytes = |what: &str| format!("CAST(CONVERT({what} USING utf8mb4) AS BINARY)");
    format!("{} = {}", bytes(column), bytes(&quoted(dialect, text)))
}

/// The hosts for which there is a user of that name. None if one may not look.
async fn hosts_of(conn: &mut Conn, dialect: Dialect, username: &str) -> Result<Option<Vec<String>>, Failure> {
    let ask = format!("SELECT host FROM mysql.user WHERE {}", is_exactly(dialect, "`user`", username));
    match conn.query(ask).await {
        Ok(hosts) => Ok(Some(hosts)),
        Err(err) if code_of(&err).is_some_and(|code| NOT_SHOWN.contains(&code)) => Ok(None),
        Err(err) => Err(failure(err)),
    }
}

/// Ends the user's sessions, where one is allowed to.
async fn end_sessions(conn: &mut Conn, dialect: Dialect, username: &str) -> Result<(), Failure> {
    let whose = is_exactly(dialect, "`user`", username);
    let ask = format!("SELECT id FROM information_schema.processlist WHERE {whose}");
    let sessions: Vec<u64> = conn.query(ask).await.map_err(failure)?;
    for session in sessions {
        match conn.query_drop(format!("KILL CONNECTION {session}")).await {
            Ok(()) => {}
            Err(err) if SESSION_NOT_OURS.iter().any(|code| Some(*code) == code_of(&err)) => {}
            Err(err) => return Err(failure(err)),
        }
    }
    Ok(())
}

/// Text as it stands in single quotes.
fn quoted(dialect: Dialect, name: &str) -> String {
    let name = name.replace('\'', "''");
    format!("'{}'", if dialect.has_backslashes { name.replace('\\', "\\\\") } else { name })
}

fn code_of(err: &Error) -> Option<u16> {
    match err {
        Error::Server(said) => Some(said.code),
        _ => None,
    }
}

#[allow(clippy::needless_pass_by_value)] // As `map_err` wants it.
fn failure(err: Error) -> Failure {
    match &err {
        Error::Server(_) => Failure::Refused(words(&err)),
        _ => Failure::Unreachable(words(&err)),
    }
}

/// What became of dropping a user that one may not look for.
#[allow(clippy::needless_pass_by_value)] // As `map_err` wants it.
fn unseen(err: Error) -> Failure {
    if code_of(&err) != Some(NO_USER) {
        return failure(err);
    }
    Failure::Refused(format!(
        "{}; the connection may not read mysql.user, so it is not known for which hosts the user was made",
        words(&err)
    ))
}

fn words(err: &Error) -> String {
    match err {
        Error::Server(said) if said.code == SYNTAX => {
            format!("Error {} ({}): syntax error", said.code, said.state)
        }
        Error::Server(said) => format!("Error {} ({}): {}", said.code, said.state, said.message),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::database::tests::settings;

    #[test]
    fn the_login_is_what_the_driver_makes_of_the_url() {
        for (url, want) in [
            ("{{username}}:{{password}}@tcp(h)/", Some(("u", true))),
            ("{{username}}:canary@tcp(h)/", Some(("u", false))),
            ("other:{{password}}@tcp(h)/", Some(("other", true))),
            ("tcp(h)/", None),
        ] {
            let want = want.map(|(name, takes_password)| Login { username: name.to_owned(), takes_password });
            assert_eq!(login(&settings(url, "u", "p")), want, "{url}");
        }
    }

    #[test]
    fn servers_are_what_the_url_names() {
        for (url, want) in [
            ("u@tcp(Host,b:33)/", &["mysql host:3306", "mysql b:33"][..]),
            ("u@unix(/run/a)/", &["mysql /run/a"]),
            ("nonsense", &[]),
        ] {
            assert_eq!(servers(&settings(url, "u", "p")), want, "{url}");
        }
    }

    #[test]
    fn what_is_said_of_tls_is_never_ignored() {
        let changes: [fn(&mut Settings); 2] = [
            |settings| {
                settings.tls_ca = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned()
            },
            |settings| settings.tls_server_name = "x".to_owned(),
        ];
        for change in changes {
            let mut settings = settings("u@tcp(h)/", "u", "p");
            change(&mut settings);
            assert!(matches!(tls(&settings, None), Ok(Some(_))));
            for mode in [TlsMode::Off, TlsMode::Preferred] {
                assert!(matches!(tls(&settings, Some(mode)), Err(EngineError::Invalid(_))));
            }
        }
        assert!(matches!(tls(&settings("u@tcp(h)/", "u", "p"), None), Ok(None)));
    }

    #[test]
    fn only_who_prefers_tls_goes_on_without_it() {
        for (mode, want) in [("false", false), ("skip-verify", false), ("true", false), ("preferred", true)] {
            let places =
                logins(&settings(&format!("u@tcp(a,b)/?tls={mode}&autocommit=1"), "u", "p")).unwrap();
            for place in places.0.iter().flatten() {
                assert_eq!(place.plain.is_some(), want, "{mode}");
                assert_eq!(place.options.ssl_opts().is_some(), mode != "false", "{mode}");
                assert_eq!(place.options.setup(), ["SET SESSION autocommit = 1"]);
                // Who is only let in may not be allowed to set it.
                assert!(place.of("x", "y").options.setup().is_empty());
            }
        }
    }

    #[test]
    fn names_are_quoted_by_the_rules_of_the_session() {
        for (has_backslashes, want) in [(true, "'a''b\\\\c'"), (false, "'a''b\\c'")] {
            assert_eq!(quoted(Dialect { has_backslashes, is_postgres: false }, "a'b\\c"), want);
        }
    }

    #[test]
    fn a_syntax_error_quotes_nothing() {
        let said = mysql_async::ServerError {
            code: 1064,
            message: "near 'nary''".to_owned(),
            state: "42000".to_owned(),
        };
        assert_eq!(words(&Error::Server(said)), "Error 1064 (42000): syntax error");
    }
}
