//! Connections: which database, where, and as whom.
//!
//! **Invariant:** no answer holds the password, the one being set, or a key.

use arca_engine_api::{
    Ctx, EngineError, Entropy, Fields, Map, Page, Request, Response, Secretive, Storage, StorageError,
    StorageExt as _, UnixMillis, fields::parse_duration,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::adapter::{Failure, Kind, Settings, kind_named};
use super::connections::Connections;
use super::due::{Due, Work};
use super::fields::{check_name, is_glob_match, page, statements};
use super::lockouts;
use super::pending::{Pending, check_at_rest};
use super::pool::Limits;
use super::template::Template;

/// Where connections lie.
const CONFIGS: &str = "config/";
/// Most connections that may be open to one database.
const OPEN_MAX: i64 = 256;
const OPEN_DEFAULT: i64 = 4;
/// What is kept as `connection_details`.
const DETAILS: &[&str] = &[
    "connection_url",
    "disable_escaping",
    "max_connection_lifetime",
    "max_idle_connections",
    "max_open_connections",
    "password_authentication",
    "tls_ca",
    "tls_certificate_key",
    "tls_server_name",
    "tls_skip_verify",
    "username",
    "username_template",
];
/// Details that are never shown.
const HIDDEN: &[&str] = &["tls_certificate_key"];

/// A connection's record.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    layout: u8,
    /// Another at each change: what was opened before is not used again.
    pub(super) generation: u64,
    pub(super) plugin_name: String,
    /// As the operator sent them, without the password.
    details: Map,
    pub(super) password: String,
    /// The password being set, until it is known to be.
    pub(super) next: Option<Pending>,
    /// When setting it is tried again.
    pub(super) retry_due: UnixMillis,
    pub(super) allowed_roles: Vec<String>,
    pub(super) root_rotation_statements: Vec<String>,
    pub(super) password_policy: String,
}

impl Config {
    const LAYOUT: u8 = 1;

    pub(super) fn find(storage: &dyn Storage, name: &str) -> Result<Option<Self>, StorageError> {
        storage.get_record(&at(name))
    }

    /// The connection, or what to say if there is none.
    pub(super) fn require(storage: &dyn Storage, name: &str) -> Result<Self, EngineError> {
        Self::find(storage, name)?.ok_or_else(|| {
            EngineError::Invalid(format!("failed to find entry for connection with name: {name:?}"))
        })
    }

    /// Stages the record as another than before.
    pub(super) fn store(
        &mut self,
        storage: &dyn Storage,
        entropy: &dyn Entropy,
        name: &str,
    ) -> Result<(), EngineError> {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes)?;
        self.generation = self.generation.wrapping_add(1) ^ (u64::from_be_bytes(bytes) << 16);
        Ok(storage.put_record(&at(name), self)?)
    }

    fn detail(&self, name: &str) -> Result<String, EngineError> {
        Ok(Fields::new(&self.details).string(name)?.unwrap_or_default())
    }

    pub(super) fn username(&self) -> Result<String, EngineError> {
        self.detail("username")
    }

    pub(super) fn username_template(&self) -> Result<String, EngineError> {
        self.detail("username_template")
    }

    /// Refuses roles that may not use this connection.
    pub(super) fn check_role(&self, role: &str) -> Result<(), EngineError> {
        if self.allowed_roles.iter().any(|pattern| is_glob_match(pattern, role)) {
            return Ok(());
        }
        Err(EngineError::Invalid(format!("{role:?} is not an allowed role")))
    }

    /// Every secret of the connection, for masking.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let next = self.next.as_ref().map(|next| next.password.as_str());
        std::iter::once(self.password.as_str()).chain(next).collect()
    }

    /// Where the database is and how to log in.
    pub(super) fn settings(&self) -> Result<Settings, EngineError> {
        let fields = Fields::new(&self.details);
        // What is empty says nothing.
        let number = |name: &str| {
            if self.detail(name)?.is_empty() { Ok(None) } else { fields.integer(name) }
        };
        let open_max = number("max_open_connections")?.filter(|count| *count > 0);
        let open_max = open_max.unwrap_or(OPEN_DEFAULT).min(OPEN_MAX);
        // Below zero none is kept; zero stands for the default.
        let idle_max = match number("max_idle_connections")? {
            None | Some(0) => open_max,
            Some(count) => count.clamp(0, open_max),
        };
        // Below zero there is no end, as with zero.
        let lifetime = self.detail("max_connection_lifetime")?;
        let is_endless = lifetime.strip_prefix('-').is_some_and(|rest| parse_duration(rest).is_some());
        let lifetime_max =
            if is_endless { None } else { fields.duration("max_connection_lifetime")? }.unwrap_or_default();
        let count = |count: i64| usize::try_from(count).unwrap_or_default();
        Ok(Settings {
            url: self.detail("connection_url")?,
            username: self.username()?,
            passwords: self.secrets().into_iter().map(Secretive::from).collect(),
            escapes: !fields.boolean("disable_escaping")?.unwrap_or_default(),
            limits: Limits { open_max: count(open_max), idle_max: count(idle_max), lifetime_max },
            tls_ca: self.detail("tls_ca")?,
            tls_certificate_key: Secretive::from(self.detail("tls_certificate_key")?),
            tls_server_name: self.detail("tls_server_name")?,
            tls_skips_verification: fields.boolean("tls_skip_verify")?.unwrap_or_default(),
            hashes_passwords: match self.detail("password_authentication")?.as_str() {
                "" | "password" => false,
                "scram-sha-256" => true,
                _ => {
                    return Err(EngineError::invalid("password_authentication is password or scram-sha-256"));
                }
            },
        })
    }

    fn show(&self, kind: Option<&Kind>) -> Response {
        let mut details = self.details.clone();
        for hidden in HIDDEN {
            details.remove(*hidden);
        }
        let url = details.get("connection_url").and_then(Value::as_str);
        if let (Some(url), Some(kind)) = (url, kind) {
            let url = (kind.redact)(url);
            details.insert("connection_url".to_owned(), url.into());
        }
        Response::data(json!({
            "allowed_roles": self.allowed_roles,
            "connection_details": details,
            "password_policy": self.password_policy,
            "plugin_name": self.plugin_name,
            "plugin_version": "",
            "root_credentials_rotate_statements": self.root_rotation_statements,
        }))
    }
}

fn at(name: &str) -> String {
    format!("{CONFIGS}{name}")
}

/// Whether there is a connection of that name.
pub(super) fn exists(storage: &dyn Storage, name: &str) -> Result<bool, StorageError> {
    Ok(storage.get(&at(name))?.is_some())
}

pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(Response::list(ctx.storage.list(CONFIGS, &page(request)?)?))
}

/// The names of all connections.
pub(super) fn names(storage: &dyn Storage) -> Result<Vec<String>, StorageError> {
    storage.list(CONFIGS, &Page::default())
}

pub(super) fn read(ctx: &Ctx<'_>, connections: &Connections, name: &str) -> Result<Response, EngineError> {
    let config = Config::find(ctx.storage, name)?;
    let show = |config: Config| config.show(kind_named(connections.kinds, &config.plugin_name));
    Ok(config.map_or_else(Response::empty, show))
}

pub(super) fn delete(ctx: &Ctx<'_>, connections: &Connections, name: &str) -> Result<Response, EngineError> {
    if let Some(config) = Config::find(ctx.storage, name)? {
        check_at_rest(config.next.as_ref(), ctx.clock.now())?;
        Due::new(name, config.retry_due, Work::Root, name).remove(ctx.storage)?;
        ctx.storage.delete(&at(name))?;
    }
    connections.forget(name);
    Ok(Response::empty())
}

/// Makes or changes a connection, and has a look whether the database lets it in.
pub(super) async fn write(
    ctx: &Ctx<'_>,
    connections: &Connections,
    request: &Request,
) -> Result<Response, EngineError> {
    let (name, fields) = (request.param("name"), request.fields());
    check_name(name)?;
    let before = Config::find(ctx.storage, name)?;
    if let Some(before) = &before {
        check_login_stays(before, fields)?;
    }
    let mut config = changed(before.unwrap_or_else(empty), request)?;
    if config.plugin_name.is_empty() {
        return Err(EngineError::invalid("empty plugin name"));
    }
    let kind = kind_named(connections.kinds, &config.plugin_name).ok_or_else(|| {
        EngineError::invalid("error creating database object: plugin not found in the catalog")
    })?;
    let refused = |err: EngineError| match err {
        EngineError::Invalid(text) | EngineError::Upstream(text) => {
            EngineError::Invalid(format!("error creating database object: {text}"))
        }
        other => other,
    };
    let settings = config.settings().and_then(|settings| checked(settings, &config)).map_err(refused)?;
    lockouts::check_connection(ctx, connections, name, &config)?;
    let database = (kind.open)(&settings).map_err(refused)?;
    if fields.boolean("verify_connection")?.unwrap_or(true) {
        database
            .verify()
            .await
            .map_err(|failure: Failure| refused(verifying(failure.into_error(&config.secrets()))))?;
    }
    config.store(ctx.storage, ctx.entropy, name)?;
    connections.forget(name);
    let mut response = Response::empty();
    if (kind.has_password)(&settings.url) {
        response = response.with_warning(
            "Password found in connection_url, use a templated url to enable root rotation and prevent read \
             access to password information.",
        );
    }
    if fields.string("plugin_version")?.is_some_and(|version| !version.is_empty()) {
        response =
            response.with_warning("plugin_version has no effect: databases are built in, in one version");
    }
    Ok(response)
}

/// Says of a database's refusal what was asked of it.
pub(super) fn verifying(err: EngineError) -> EngineError {
    match err {
        EngineError::Upstream(text) => EngineError::Upstream(format!("error verifying connection: {text}")),
        other => other,
    }
}

/// Refuses another login while the password is being changed. The operator's might hold now and no more in a moment, and
/// with the next one forgotten nobody would know the one that holds then.
fn check_login_stays(config: &Config, fields: Fields<'_>) -> Result<(), EngineError> {
    let username = fields.string("username")?;
    let is_other = match username {
        Some(username) => username != config.username()?,
        None => false,
    };
    if config.next.is_none() || !(is_other || fields.has("password")) {
        return Ok(());
    }
    Err(EngineError::invalid(
        "the connection's own password is being changed, and it is not known yet which one holds: leave out username \
         and password, or see the change through first (rotate-root); to give the new password up, delete the \
         connection and write it anew",
    ))
}

fn empty() -> Config {
    Config {
        layout: Config::LAYOUT,
        generation: 0,
        plugin_name: String::new(),
        details: Map::new(),
        password: String::new(),
        next: None,
        retry_due: UnixMillis::default(),
        allowed_roles: Vec::new(),
        root_rotation_statements: Vec::new(),
        password_policy: String::new(),
    }
}

fn changed(mut config: Config, request: &Request) -> Result<Config, EngineError> {
    let fields = request.fields();
    if let Some(name) = fields.string("plugin_name")? {
        config.plugin_name = name;
    }
    if let Some(roles) = fields.list("allowed_roles")? {
        config.allowed_roles = roles;
    }
    if let Some(found) = statements(fields, "root_rotation_statements")? {
        config.root_rotation_statements = found;
    }
    if let Some(policy) = fields.string("password_policy")? {
        config.password_policy = policy;
    }
    if let Some(password) = fields.string("password")? {
        config.password = password;
    }
    let details =
        request.data.iter().filter(|(key, value)| DETAILS.contains(&key.as_str()) && !value.is_null());
    config.details.extend(details.map(|(key, value)| (key.clone(), value.clone())));
    Ok(config)
}

/// What the settings must be, whatever the database.
fn checked(settings: Settings, config: &Config) -> Result<Settings, EngineError> {
    if settings.url.is_empty() {
        return Err(EngineError::invalid("connection_url cannot be empty"));
    }
    let is_place = |text: &str| text.contains("{{username}}") || text.contains("{{password}}");
    if is_place(&settings.username) || config.secrets().into_iter().any(is_place) {
        return Err(EngineError::invalid("username and/or password cannot contain the template variables"));
    }
    if config.details.get("username_template").is_some_and(|template| !template.is_string()) {
        return Err(EngineError::invalid("username_template is no text"));
    }
    let template = config.username_template()?;
    if !template.is_empty() {
        Template::parse(&template).map_err(|err| match err {
            EngineError::Invalid(text) => {
                EngineError::Invalid(format!("unable to initialize username template: {text}"))
            }
            other => other,
        })?;
    }
    Ok(settings)
}
