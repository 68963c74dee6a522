//! PostgreSQL.
//!
//! Everything happens in one transaction under an advisory lock by the user's name: what the database refuses before its
//! `COMMIT` has changed nothing. Whether the transaction is still the one that was begun is looked at behind each statement
//! of an operator's, for one that ends it makes everything before it count.

use std::sync::Arc;

use arca_engine_api::EngineError;
use async_trait::async_trait;
use rustls_pki_types::ServerName;
use sha2::{Digest as _, Sha256};
use tokio::task::AbortHandle;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use zeroize::Zeroizing;

use super::adapter::{
    Begun, CONNECT_PATIENCE, Database, Failure, Kind, LOCK_SECONDS, NewPassword, NewUser, OldUser, Renewal,
    STATEMENT_SECONDS, Settings, already_there, bounded,
};
use super::pool::{Connector, Held, Pool};
use super::postgresql_tls::Tls;
use super::postgresql_url::{self, Target};
use super::statements::{self, Dialect, Values, are_blank};
use super::tls::client_config;

/// The type of this file.
pub(super) const KINDS: &[Kind] = &[Kind {
    name: "postgresql-database-plugin",
    username_template: r#"{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}"#,
    username_max: 63,
    open,
    redact: postgresql_url::redact,
    has_password: postgresql_url::has_password,
    login: postgresql_url::login,
    servers: postgresql_url::servers,
    hosts: |_, _| None,
}];

/// Times one thing is tried when others get in its way.
const ATTEMPTS_MAX: usize = 10;
/// How [`words`] end when others got in the way: the catalogue has no code of its own for it.
const CONFLICTS: [&str; 3] =
    ["tuple concurrently updated (SQLSTATE XX000)", "(SQLSTATE 40001)", "(SQLSTATE 40P01)"];
const DIALECT: Dialect = Dialect { has_backslashes: false, is_postgres: true };
const CHANGE_PASSWORD: &str = r#"ALTER ROLE "{{username}}" WITH PASSWORD '{{password}}'"#;
const RENEW: &str = r#"ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'"#;
/// What takes away, one by one, what a role was granted in this database and by the whole server, by the catalogue of what
/// depends on roles. Names in it are quoted by the server.
const GRANTS_OF: &str = "SELECT DISTINCT CASE WHEN a.oid IS NULL THEN \
        format('REVOKE ALL PRIVILEGES ON %s %s FROM %I', CASE o.type \
            WHEN 'view' THEN 'TABLE' WHEN 'materialized view' THEN 'TABLE' WHEN 'foreign table' THEN 'TABLE' \
            WHEN 'aggregate' THEN 'FUNCTION' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' \
            WHEN 'server' THEN 'FOREIGN SERVER' WHEN 'parameter ACL' THEN 'PARAMETER' \
            ELSE upper(o.type) END, o.identity, r.rolname) \
        ELSE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE ALL PRIVILEGES ON %s FROM %I', \
            pg_get_userbyid(a.defaclrole), \
            (SELECT format(' IN SCHEMA %I', n.nspname) FROM pg_namespace n WHERE n.oid = a.defaclnamespace), \
            CASE a.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' \
                WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END, r.rolname) END \
    FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid \
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) o \
    LEFT JOIN pg_default_acl a ON d.classid = 'pg_default_acl'::regclass AND a.oid = d.objid \
    WHERE r.rolname = $1 AND d.refclassid = 'pg_authid'::regclass AND d.deptype = 'a' AND o.identity IS NOT NULL \
    AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))";
/// So many grants are taken away at once; one by one if one of them cannot be.
const GRANTS_AT_ONCE: usize = 64;

#[derive(Debug)]
struct PostgreSql {
    logins: Logins,
    pool: Pool<Session>,
    hashes_passwords: bool,
}

/// Where to log in: one for each password to try.
#[derive(Debug)]
struct Logins(Vec<(Config, Tls)>);

/// A connection, and the task that moves its bytes.
#[derive(Debug)]
struct Session {
    client: Client,
    task: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn open(settings: &Settings) -> Result<Arc<dyn Database>, EngineError> {
    let targets = postgresql_url::targets(settings)?.into_iter().map(|Target { config, check }| {
        let tls = client_config(&settings.tls_ca, &settings.tls_certificate_key.0, check)?;
        let server_name = &settings.tls_server_name;
        let name =
            if server_name.is_empty() { None } else { Some(ServerName::try_from(server_name.clone())) };
        let name =
            name.transpose().map_err(|_| EngineError::invalid("tls_server_name is no name of a host"))?;
        Ok((config, Tls::new(tls, name)))
    });
    let logins = Logins(targets.collect::<Result<_, EngineError>>()?);
    let hashes_passwords = settings.hashes_passwords;
    Ok(Arc::new(PostgreSql { logins, pool: Pool::new(settings.limits), hashes_passwords }))
}

impl Connector<Session> for Logins {
    async fn is_good(&self, session: &mut Session) -> bool {
        let check = session.client.check_connection();
        !session.client.is_closed()
            && matches!(tokio::time::timeout(CONNECT_PATIENCE / 2, check).await, Ok(Ok(())))
    }

    /// Logs in by the first password that is good.
    async fn connect(&self) -> Result<Session, Failure> {
        let mut refused = Failure::Unreachable("there is nothing to log in with".to_owned());
        for (config, tls) in &self.0 {
            match tokio::time::timeout(CONNECT_PATIENCE, connect(config, tls)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(err)) => {
                    let is_login = matches!(
                        err.code(),
                        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
                    );
                    refused = Failure::Unreachable(words(&err));
                    if !is_login {
                        return Err(refused);
                    }
                }
                Err(_) => return Err(Failure::Unreachable("the database does not answer".to_owned())),
            }
        }
        Err(refused)
    }
}

impl PostgreSql {
    async fn take(&self) -> Result<Held<'_, Session>, Failure> {
        self.pool.take(&self.logins).await
    }

    /// Runs statements in one transaction, again if another's got in its way.
    async fn run(&self, username: &str, queries: &[Zeroizing<String>]) -> Result<(), Failure> {
        again(|| self.run_once(username, queries)).await
    }

    async fn run_once(&self, username: &str, queries: &[Zeroizing<String>]) -> Result<(), Failure> {
        let held = self.take().await?;
        let client = &held.connection.client;
        begin(client, username).await?;
        let ours = transaction(client).await.map_err(failure)?;
        for query in queries {
            run_in(client, &ours, query).await?;
        }
        commit(client).await?;
        give_back(held).await;
        Ok(())
    }

    /// Makes a user whom there is not yet, under the user's lock.
    async fn make_once(
        &self,
        user: &NewUser<'_>,
        queries: &[Zeroizing<String>],
        begun: &Begun,
    ) -> Result<(), Failure> {
        let username = user.username;
        begun.set(false);
        let held = self.take().await?;
        let client = &held.connection.client;
        begin(client, username).await?;
        let before = look(client, "SAVEPOINT making", username).await.map_err(failure)?;
        if before.is_there == Some(true) {
            commit(client).await.map_err(|_| already_there(username))?;
            held.keep();
            return Err(already_there(username));
        }
        begun.set(true);
        for (at, query) in queries.iter().enumerate() {
            match run_in(client, &before.transaction, query).await {
                Ok(()) => {}
                Err(Failure::Refused(why)) => {
                    let ran = queries.get(..=at).unwrap_or(queries);
                    return Err(refused(client, user, &before, ran, why).await);
                }
                Err(failure) => return Err(failure),
            }
        }
        commit(client).await?;
        give_back(held).await;
        Ok(())
    }

    fn password<'a>(&self, password: &'a str) -> std::borrow::Cow<'a, str> {
        if self.hashes_passwords {
            postgres_protocol::password::scram_sha_256(password.as_bytes()).into()
        } else {
            password.into()
        }
    }

    /// Takes everything from the user that it was granted, and the user away.
    async fn drop_user(&self, username: &str) -> Result<(), Failure> {
        again(|| self.drop_user_once(username)).await
    }

    async fn drop_user_once(&self, username: &str) -> Result<(), Failure> {
        let held = self.take().await?;
        let client = &held.connection.client;
        begin(client, username).await?;
        if !exists(client, username).await? {
            commit(client).await?;
            held.keep();
            return Ok(());
        }
        // First of all, and whatever comes of the rest, it is let in no more.
        let user = quoted(username);
        client.batch_execute(&format!("ALTER ROLE {user} NOLOGIN")).await.map_err(failure)?;
        end_sessions(client, username).await?;
        commit(client).await?;

        begin(client, username).await?;
        take_grants(client, username).await?;
        client.batch_execute("SAVEPOINT dropping").await.map_err(failure)?;
        let dropped = client.batch_execute(&format!("DROP ROLE IF EXISTS {user}")).await.map_err(failure);
        if matches!(dropped, Err(Failure::Refused(_))) {
            // What was taken away stays so: the rest is tried again.
            client.batch_execute("ROLLBACK TO SAVEPOINT dropping").await.map_err(failure)?;
        }
        commit(client).await?;
        held.keep();
        dropped
    }

    /// Runs the operator's statements. They fail when the user is not there, which is what they are for.
    async fn revoke_by(&self, username: &str, queries: &[Zeroizing<String>]) -> Result<(), Failure> {
        let outcome = self.run(username, queries).await;
        if !matches!(outcome, Err(Failure::Refused(_) | Failure::Unknown(_))) {
            return outcome;
        }
        // What was said stands, unless the user is not there for certain.
        match self.is_there(username).await {
            Ok(false) => Ok(()),
            _ => outcome,
        }
    }

    async fn is_there(&self, username: &str) -> Result<bool, Failure> {
        let held = self.take().await?;
        let is_there = exists(&held.connection.client, username).await?;
        held.keep();
        Ok(is_there)
    }
}

#[async_trait]
impl Database for PostgreSql {
    async fn verify(&self) -> Result<(), Failure> {
        bounded(async {
            let held = self.take().await?;
            held.connection.client.batch_execute("SELECT 1").await.map_err(failure)?;
            held.keep();
            Ok(())
        })
        .await
    }

    async fn create_user(&self, user: &NewUser<'_>) -> Result<(), Failure> {
        let password = self.password(user.password);
        let values: &Values<'_> = &[
            ("name", user.username),
            ("username", user.username),
            ("password", &password),
            ("expiration", user.expiration),
        ];
        let queries = statements::prepare(DIALECT, user.statements, values)?;
        if queries.is_empty() {
            return Err(EngineError::invalid("empty creation statements").into());
        }
        let begun = Begun::default();
        let making = again(|| self.make_once(user, &queries, &begun));
        bounded(making).await.map_err(|failure| match begun.judge(failure) {
            Failure::Refused(why) if says_conflict(&why) && may_leave_more(user, &queries) => {
                Failure::Unknown(why)
            }
            failure => failure,
        })
    }

    async fn change_password(&self, change: &NewPassword<'_>) -> Result<(), Failure> {
        let password = self.password(change.password);
        let values: &Values<'_> =
            &[("name", change.username), ("username", change.username), ("password", &password)];
        let queries = statements::prepare(DIALECT, &or(change.statements, CHANGE_PASSWORD), values)?;
        bounded(self.run(change.username, &queries)).await
    }

    async fn lets_in(&self, username: &str, password: &str) -> Result<bool, Failure> {
        bounded(async {
            let nowhere = || Failure::Unreachable("there is nothing to log in with".to_owned());
            let (config, tls) = self.logins.0.first().ok_or_else(nowhere)?;
            let mut config = config.clone();
            config.user(username).password(password);
            match tokio::time::timeout(CONNECT_PATIENCE, connect(&config, tls)).await {
                Ok(Ok(_)) => Ok(true),
                Ok(Err(err)) if err.code() == Some(&SqlState::INVALID_PASSWORD) => Ok(false),
                Ok(Err(err)) => Err(Failure::Unreachable(words(&err))),
                Err(_) => Err(Failure::Unreachable("the database does not answer".to_owned())),
            }
        })
        .await
    }

    async fn renew_user(&self, renewal: &Renewal<'_>) -> Result<(), Failure> {
        let values: &Values<'_> =
            &[("name", renewal.username), ("username", renewal.username), ("expiration", renewal.expiration)];
        let queries = statements::prepare(DIALECT, &or(renewal.statements, RENEW), values)?;
        bounded(self.run(renewal.username, &queries)).await
    }

    async fn revoke_user(&self, user: &OldUser<'_>) -> Result<(), Failure> {
        let OldUser { username, statements, .. } = *user;
        let values: &Values<'_> = &[("name", username), ("username", username)];
        let queries = statements::prepare(DIALECT, statements, values)?;
        if queries.is_empty() {
            bounded(self.drop_user(username)).await
        } else {
            bounded(self.revoke_by(username, &queries)).await
        }
    }

    fn sweep(&self) {
        self.pool.sweep();
    }
}

/// Repeats what failed because two transactions changed the same rows of the catalogue: a `GRANT` on what others are
/// granted at the same moment. Nothing was changed then.
async fn again<F>(work: impl Fn() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    for _ in 1..ATTEMPTS_MAX {
        match work().await {
            Err(failure) if is_conflict(&failure) => {}
            other => return other,
        }
    }
    work().await
}

fn is_conflict(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(said) if says_conflict(said))
}

fn says_conflict(said: &str) -> bool {
    CONFLICTS.iter().any(|sign| said.contains(sign))
}

/// The statements, or the usual one.
fn or(statements: &[String], usual: &str) -> Vec<String> {
    if are_blank(DIALECT, statements) { vec![usual.to_owned()] } else { statements.to_vec() }
}

async fn connect(config: &Config, tls: &Tls) -> Result<Session, tokio_postgres::Error> {
    if config.get_ssl_mode() == tokio_postgres::config::SslMode::Disable {
        let (client, connection) = config.connect(NoTls).await?;
        return Ok(Session { client, task: tokio::spawn(connection).abort_handle() });
    }
    let (client, connection) = config.connect(tls.clone()).await?;
    Ok(Session { client, task: tokio::spawn(connection).abort_handle() })
}

/// Begins a transaction with an end on the server's side, in which text means what [`statements`] takes it for, and waits
/// for whatever else is under way about this user. What is looked at behind that is seen as it is then, and not as it was
/// when the wait began.
async fn begin(client: &Client, username: &str) -> Result<(), Failure> {
    let lock = Sha256::digest(format!("arca user {username}"));
    let lock = lock.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes));
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; \
         SET LOCAL idle_in_transaction_session_timeout = '{STATEMENT_SECONDS}s'; SET LOCAL timezone = 'UTC'; \
         SET LOCAL standard_conforming_strings = on; SELECT pg_advisory_xact_lock({lock})"
    );
    client.batch_execute(&begin).await.map_err(failure)
}

async fn commit(client: &Client) -> Result<(), Failure> {
    client.batch_execute("COMMIT").await.map_err(|err| Failure::Unknown(words(&err)))
}

/// The transaction one is in: another one if it was ended.
async fn transaction(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let answers = client.simple_query("SELECT pg_catalog.txid_current()").await?;
    Ok(answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// Runs a statement of an operator's in the transaction that is `ours`.
async fn run_in(client: &Client, ours: &Option<String>, query: &str) -> Result<(), Failure> {
    client.batch_execute(query).await.map_err(halfway)?;
    let now = transaction(client).await.map_err(|err| Failure::Unknown(words(&err)))?;
    if now == *ours {
        return Ok(());
    }
    Err(Failure::Unknown(
        "a statement ended the transaction that all of them run in; what it changed stays".to_owned(),
    ))
}

/// What is seen from within a transaction.
struct Look {
    transaction: Option<String>,
    /// None if one may not look.
    is_there: Option<bool>,
}

/// Sets the savepoint `making` or goes back to it, as `to` says, and looks whether the user is there.
async fn look(client: &Client, to: &str, username: &str) -> Result<Look, tokio_postgres::Error> {
    let name = username.replace('\'', "''");
    let ask = format!(
        "{to}; SELECT pg_catalog.txid_current(), \
         EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = '{name}')"
    );
    match client.simple_query(&ask).await {
        Ok(answers) => {
            let row = answers.iter().find_map(|answer| match answer {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let column = |at| row.and_then(|row| row.get(at));
            Ok(Look {
                transaction: column(0).map(str::to_owned),
                is_there: column(1).map(|is_there| is_there == "t"),
            })
        }
        Err(err) if err.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            client.batch_execute("ROLLBACK TO SAVEPOINT making").await?;
            Ok(Look { transaction: transaction(client).await?, is_there: None })
        }
        Err(err) => Err(err),
    }
}

/// What it means that the last of the statements that `ran` was refused. Still under the user's lock, which the way back
/// to the savepoint leaves held: a user who was not there before and is there now was made by them, outside of the
/// transaction.
async fn refused(
    client: &Client,
    user: &NewUser<'_>,
    before: &Look,
    ran: &[Zeroizing<String>],
    why: String,
) -> Failure {
    match look(client, "ROLLBACK TO SAVEPOINT making", user.username).await {
        Ok(now) if now.transaction == before.transaction => match now.is_there {
            Some(true) => Failure::Unknown(why),
            // To be tried again; what it means in the end is judged by whoever gives up.
            Some(false) if says_conflict(&why) || !may_leave_more(user, ran) => Failure::Refused(why),
            None if !may_outlast_a_failure(ran) => Failure::Refused(why),
            _ => Failure::Unknown(why),
        },
        // The transaction is not the one any more, or there is no looking at it.
        _ => Failure::Unknown(why),
    }
}

/// Whether something besides the user may be left for the operator's own statements to undo.
fn may_leave_more(user: &NewUser<'_>, ran: &[Zeroizing<String>]) -> bool {
    !are_blank(DIALECT, user.revocation) && may_outlast_a_failure(ran)
}

/// Whether some of these statements may end the transaction they run in, or run others that do: what they did then stays
/// when they fail.
fn may_outlast_a_failure(queries: &[Zeroizing<String>]) -> bool {
    const WORDS: [&str; 6] = ["call", "commit", "do", "end", "execute", "prepare"];
    queries.iter().any(|query| {
        let mut words = query.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.any(|word| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
    })
}

/// Keeps the connection, without what statements have set in its session: the next one is somebody else's.
async fn give_back(held: Held<'_, Session>) {
    let discard = held.connection.client.batch_execute("DISCARD ALL");
    if matches!(tokio::time::timeout(CONNECT_PATIENCE / 2, discard).await, Ok(Ok(()))) {
        held.keep();
    }
}

/// Takes from the user what it was granted. What cannot be taken, as its owner has not allowed it, is left, and the next
/// one tried.
async fn take_grants(client: &Client, username: &str) -> Result<(), Failure> {
    let rows = client.query(GRANTS_OF, &[&username]).await.map_err(failure)?;
    let revokes: Vec<String> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failure)?;
    for some in revokes.chunks(GRANTS_AT_ONCE) {
        if is_done(client, &some.join("; ")).await? {
            continue;
        }
        for one in some {
            is_done(client, one).await?;
        }
    }
    Ok(())
}

/// Runs statements in a transaction that outlives their failure. False if they failed and are taken back.
async fn is_done(client: &Client, statements: &str) -> Result<bool, Failure> {
    let run = format!("SAVEPOINT taking; {statements}; RELEASE SAVEPOINT taking");
    let Err(failed) = client.batch_execute(&run).await.map_err(failure) else { return Ok(true) };
    if !matches!(failed, Failure::Refused(_)) || is_conflict(&failed) {
        return Err(failed);
    }
    client.batch_execute("ROLLBACK TO SAVEPOINT taking").await.map_err(failure)?;
    Ok(false)
}

async fn exists(client: &Client, username: &str) -> Result<bool, Failure> {
    let row =
        client.query_one("SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)", &[&username]).await;
    row.and_then(|row| row.try_get(0)).map_err(failure)
}

/// Ends the user's sessions, where one is allowed to: without, they end by themselves, as they find nothing allowed any
/// more.
async fn end_sessions(client: &Client, username: &str) -> Result<(), Failure> {
    client.batch_execute("SAVEPOINT sessions").await.map_err(failure)?;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE usename = $1 AND pid <> pg_backend_pid()";
    match client.query(end, &[&username]).await {
        Ok(_) => Ok(()),
        Err(err) if err.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            client.batch_execute("ROLLBACK TO SAVEPOINT sessions").await.map_err(failure)
        }
        Err(err) => Err(failure(err)),
    }
}

/// A name as PostgreSQL quotes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Before `COMMIT` is sent a failure of any sort leaves nothing behind.
#[allow(clippy::needless_pass_by_value)] // As `map_err` wants it.
fn failure(err: tokio_postgres::Error) -> Failure {
    if err.as_db_error().is_some() {
        Failure::Refused(words(&err))
    } else {
        Failure::Unreachable(words(&err))
    }
}

/// What an operator's statement came to. One that says no has changed nothing; if the session ends, it may have ended the
/// transaction first.
#[allow(clippy::needless_pass_by_value)] // As `map_err` wants it.
fn halfway(err: tokio_postgres::Error) -> Failure {
    match err.as_db_error().and_then(DbError::parsed_severity) {
        Some(Severity::Error) => Failure::Refused(words(&err)),
        _ => Failure::Unknown(words(&err)),
    }
}

fn words(err: &tokio_postgres::Error) -> String {
    match err.as_db_error() {
        // Its message quotes from where the text could not be read, which may be in the midst of a password.
        Some(said) if *said.code() == SqlState::SYNTAX_ERROR => {
            format!("{}: syntax error (SQLSTATE {})", said.severity(), said.code().code())
        }
        Some(said) => format!("{}: {} (SQLSTATE {})", said.severity(), said.message(), said.code().code()),
        None => err.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_what_may_outlast_a_failure() {
        for (text, want) in [
            ("make", false),
            ("make_do the end_user", false),
            ("Commit", true),
            ("CALL make()", true),
            ("DO $$ x $$", true),
        ] {
            let queries = ["make".to_owned(), text.to_owned()].map(Zeroizing::new);
            assert_eq!(may_outlast_a_failure(&queries), want, "{text}");
        }
    }
}
