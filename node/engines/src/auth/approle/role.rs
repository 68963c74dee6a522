//! Roles: their record, and what reads, writes and removes them.

use arca_engine_api::{
    Cidr, Ctx, EngineError, Field, Fields, Map, Operation, Request, Response, StorageExt as _,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use super::keys::{self, Keys};
use super::owners;
use super::routes::{self, OLD_NAMES};
use crate::auth::names;
use crate::auth::token_params::{TokenParams, warn_of_max_ttl};

/// Longest role id, bytes.
const ROLE_ID_MAX: usize = 512;

/// A role as stored. Holds no secret, so that one decoded record serves many logins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    /// Random; a new role of an old name has another.
    pub(super) uid: String,
    /// In lower case.
    pub(super) name: String,
    /// What logins name it by.
    pub(super) role_id: String,
    /// Whether a login needs a secret id.
    pub(super) bind_secret_id: bool,
    /// Ranges a login may come from; empty for anywhere.
    pub(super) secret_id_bound_cidrs: Vec<String>,
    /// Uses of a new secret id; zero for no limit.
    pub(super) secret_id_num_uses: u32,
    /// Lifetime of a new secret id, seconds; zero for no end.
    pub(super) secret_id_ttl_s: u64,
    /// Secret ids stay in this cluster. Never changes.
    pub(super) local_secret_ids: bool,
    /// What its tokens are like.
    pub(super) token: TokenParams,
}

/// What a role id leads to.
#[derive(Serialize, Deserialize)]
struct Named {
    role: String,
}

/// A deleted role that has secret ids left, for all clusters.
#[derive(Serialize, Deserialize)]
struct Orphaned {}

impl Role {
    fn new(uid: String, name: String) -> Self {
        Self {
            uid,
            name,
            role_id: String::new(),
            bind_secret_id: true,
            secret_id_bound_cidrs: Vec::new(),
            secret_id_num_uses: 0,
            secret_id_ttl_s: 0,
            local_secret_ids: false,
            token: TokenParams::default(),
        }
    }

    /// Where its secret ids lie.
    pub(super) fn prefix(&self) -> &'static str {
        if self.local_secret_ids { keys::LOCAL } else { "" }
    }

    /// Takes what a request says of the role, its role id aside.
    fn update(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        self.token.update(fields, OLD_NAMES)?;
        if let Some(flag) = fields.boolean("bind_secret_id")? {
            self.bind_secret_id = flag;
        }
        for name in ["bound_cidr_list", "secret_id_bound_cidrs"] {
            if let Some(list) = fields.bounds(name)? {
                blocks(&list)?;
                self.secret_id_bound_cidrs = list;
            }
        }
        if let Some(count) = fields.integer("secret_id_num_uses")? {
            self.secret_id_num_uses = uses(count, "secret_id_num_uses")?;
        }
        if let Some(ttl) = fields.duration("secret_id_ttl")? {
            self.secret_id_ttl_s = ttl.as_secs();
        }
        self.check()
    }

    /// # Errors
    /// When anybody who knows the role id could log in from anywhere.
    fn check(&self) -> Result<(), EngineError> {
        let is_bound = self.bind_secret_id
            || !self.secret_id_bound_cidrs.is_empty()
            || !self.token.bound_cidrs.is_empty();
        if is_bound {
            return Ok(());
        }
        Err(EngineError::invalid("at least one constraint should be enabled on the role"))
    }

    fn show(&self) -> Map {
        let mut data = Map::new();
        self.token.show(&mut data);
        for name in [
            "bind_secret_id",
            "local_secret_ids",
            "secret_id_bound_cidrs",
            "secret_id_num_uses",
            "secret_id_ttl",
        ] {
            data.insert(name.to_owned(), self.shown(name));
        }
        data
    }

    fn shown(&self, name: &str) -> Value {
        match name {
            "bind_secret_id" => json!(self.bind_secret_id),
            "local_secret_ids" => json!(self.local_secret_ids),
            "role_id" => json!(self.role_id),
            "secret_id_bound_cidrs" if self.secret_id_bound_cidrs.is_empty() => Value::Null,
            "secret_id_bound_cidrs" => json!(self.secret_id_bound_cidrs),
            "secret_id_num_uses" => json!(self.secret_id_num_uses),
            "secret_id_ttl" => json!(self.secret_id_ttl_s),
            _ => Value::Null,
        }
    }

    fn reset(&mut self, name: &str) {
        match name {
            "bind_secret_id" => self.bind_secret_id = true,
            "secret_id_bound_cidrs" => self.secret_id_bound_cidrs.clear(),
            "secret_id_num_uses" => self.secret_id_num_uses = 0,
            "secret_id_ttl" => self.secret_id_ttl_s = 0,
            token_field => self.token.reset(token_field),
        }
    }
}

/// A count of uses; zero for no limit.
pub(super) fn uses(count: i64, name: &str) -> Result<u32, EngineError> {
    if count < 0 {
        return Err(EngineError::Invalid(format!("{name} cannot be negative")));
    }
    u32::try_from(count).map_err(|_| EngineError::Invalid(format!("{name} is too large")))
}

/// CIDR blocks: addresses with the length of a prefix.
pub(super) fn blocks(list: &[String]) -> Result<Vec<Cidr>, EngineError> {
    let parse = |text: &String| text.contains('/').then(|| text.parse().ok())?;
    let blocks: Option<Vec<Cidr>> = list.iter().map(parse).collect();
    blocks.ok_or_else(|| EngineError::invalid("failed to validate CIDR blocks: invalid CIDR address"))
}

/// The role of that name, in any spelling.
pub(super) fn find(ctx: &Ctx<'_>, name: &str) -> Result<Option<Arc<Role>>, EngineError> {
    let Some(name) = names::name(name) else { return Ok(None) };
    Ok(ctx.storage.get_shared(&keys::role(&name))?)
}

/// The role of that role id.
pub(super) fn find_by_id(
    ctx: &Ctx<'_>,
    keys: &Keys,
    role_id: &str,
) -> Result<Option<Arc<Role>>, EngineError> {
    let Some(named) = ctx.storage.get_shared::<Named>(&keys.role_id(role_id))? else { return Ok(None) };
    let role = ctx.storage.get_shared::<Role>(&keys::role(&named.role))?;
    Ok(role.filter(|role| role.role_id == role_id))
}

/// The role a path names.
pub(super) fn of_path(ctx: &Ctx<'_>, request: &Request) -> Result<Arc<Role>, EngineError> {
    find(ctx, request.param("role_name"))?.ok_or_else(|| EngineError::Missing(is_missing(request)))
}

/// Says that there is no role of the name in the path, if it can be one.
pub(super) fn is_missing(request: &Request) -> String {
    match names::name(request.param("role_name")) {
        Some(name) => format!("role {name:?} does not exist"),
        None => "the role does not exist".to_owned(),
    }
}

/// Whether there is a role of the name in the path.
pub(super) fn exists(ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
    Ok(Some(find(ctx, request.param("role_name"))?.is_some()))
}

/// Names of roles.
pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(Response::list(ctx.storage.list(keys::ROLES, &names::page(request.fields())?)?))
}

/// A role.
pub(super) fn read(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let found = find(ctx, request.param("role_name"))?;
    Ok(Response { data: found.map(|role| role.show()), ..Response::default() })
}

/// Makes a role or changes one.
pub(super) fn write(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let text = "invalid role_name: letters, digits and _, with - and . in between";
    let name = names::name(request.param("role_name")).ok_or_else(|| EngineError::invalid(text))?;
    let found: Option<Role> = ctx.storage.get_record(&keys::role(&name))?;
    let is_new = found.is_none();
    let mut role = match found {
        Some(role) => role,
        None => Role::new(names::uuid(ctx.entropy)?, name),
    };
    let fields = request.fields();
    if let Some(is_local) = fields.boolean("local_secret_ids")? {
        if !is_new && is_local != role.local_secret_ids {
            return Err(EngineError::invalid("local_secret_ids can only be modified during role creation"));
        }
        role.local_secret_ids = is_local;
    }
    role.update(fields)?;
    let warning = role.token.settle_kind();
    let wanted = fields.string("role_id")?.map(|id| id.trim().to_owned());
    if wanted.as_ref().is_some_and(String::is_empty) {
        return Err(EngineError::invalid("invalid role_id: it is empty"));
    }
    let role_id = match wanted {
        None if is_new => Some(names::uuid(ctx.entropy)?),
        wanted => wanted,
    };
    if let Some(role_id) = role_id {
        name_role(ctx, &mut role, role_id)?;
    }
    ctx.storage.put_record(&keys::role(&role.name), &role)?;
    let response = warn_of_max_ttl(ctx, &role.token, Response::empty());
    Ok(warning.into_iter().fold(response, Response::with_warning))
}

/// Gives a role its role id, and takes the old one away.
fn name_role(ctx: &Ctx<'_>, role: &mut Role, role_id: String) -> Result<(), EngineError> {
    if role_id.len() > ROLE_ID_MAX {
        return Err(EngineError::Invalid(format!("a role_id has at most {ROLE_ID_MAX} bytes")));
    }
    let keys = Keys::of(ctx)?;
    let taken = find_by_id(ctx, &keys, &role_id)?;
    if taken.is_some_and(|other| other.name != role.name) {
        return Err(EngineError::invalid("role_id already in use"));
    }
    if !role.role_id.is_empty() {
        ctx.storage.delete(&keys.role_id(&role.role_id))?;
    }
    ctx.storage.put_record(&keys.role_id(&role_id), &Named { role: role.name.clone() })?;
    role.role_id = role_id;
    Ok(())
}

/// Removes a role. Its secret ids open nothing any more, and are taken away piece by piece.
pub(super) fn delete(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let Some(role) = find(ctx, request.param("role_name"))? else { return Ok(Response::empty()) };
    ctx.storage.delete(&keys::role(&role.name))?;
    ctx.storage.delete(&Keys::of(ctx)?.role_id(&role.role_id))?;
    if role.local_secret_ids {
        owners::role_is_deleted(ctx, &role)?;
    } else {
        ctx.storage.put_record(&format!("{}{}", keys::ORPHANS, role.uid), &Orphaned {})?;
    }
    Ok(Response::empty())
}

/// Reads, changes or takes back one field of a role, by the path that is its name.
pub(super) fn part(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let fields = routes::fields_of(request.route.id);
    let name = fields.first().map_or("", |field| field.name);
    match request.operation {
        Operation::Read => {
            let found = find(ctx, request.param("role_name"))?;
            Ok(found.map_or_else(Response::empty, |role| read_part(&role, request.route.id, name)))
        }
        Operation::Delete => {
            let Some(role) = find(ctx, request.param("role_name"))? else { return Ok(Response::empty()) };
            let mut role = Role::clone(&role);
            role.reset(name);
            role.check()?;
            ctx.storage.put_record(&keys::role(&role.name), &role)?;
            Ok(Response::empty())
        }
        _ => {
            let mut role = Role::clone(&*of_path(ctx, request)?);
            change_part(ctx, request, &mut role, fields)?;
            ctx.storage.put_record(&keys::role(&role.name), &role)?;
            Ok(warn_of_max_ttl(ctx, &role.token, Response::empty()))
        }
    }
}

fn read_part(role: &Role, part: &str, name: &str) -> Response {
    if part == "bound-cidr-list" {
        let list = role.shown("secret_id_bound_cidrs");
        return Response::data(json!({"bound_cidr_list": list})).with_warning(
            "The \"bound_cidr_list\" field is deprecated and will be removed. Please use \"secret_id_bound_cidrs\" instead.",
        );
    }
    let mut data = role.show();
    data.insert("role_id".to_owned(), role.shown("role_id"));
    let old_name = name.strip_prefix("token_").filter(|old| OLD_NAMES.iter().any(|field| field.name == *old));
    data.retain(|shown, _| shown == name || old_name == Some(shown.as_str()));
    Response { data: Some(data), ..Response::default() }
}

fn change_part(
    ctx: &Ctx<'_>,
    request: &Request,
    role: &mut Role,
    fields: &[Field],
) -> Result<(), EngineError> {
    let sent = request.fields();
    let is_said = |name: &str| fields.iter().any(|field| field.name == name && sent.says(field));
    let mut data = request.data.clone();
    data.retain(|name, _| is_said(name));
    let name = fields.first().map_or("", |field| field.name);
    if data.is_empty() {
        return Err(EngineError::Invalid(format!(
            "missing {}",
            if name == "token_period" { "period" } else { name }
        )));
    }
    if name == "role_id" {
        let role_id = Fields::new(&data).required_string("role_id")?.trim().to_owned();
        if role_id.is_empty() {
            return Err(EngineError::invalid("missing role_id"));
        }
        return name_role(ctx, role, role_id);
    }
    role.update(Fields::new(&data))
}

/// The lifetime of a new secret id, no longer than the mount allows; zero for no end.
pub(super) fn capped_ttl(ctx: &Ctx<'_>, ttl: Duration) -> Duration {
    ttl.min(ctx.mount.max_lease_ttl)
}
