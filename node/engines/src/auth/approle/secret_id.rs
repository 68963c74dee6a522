//! Secret ids: made, looked up, listed, destroyed. The id itself is shown once and stored nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{
    Ctx, EngineError, Fields, Map, Page, Request, Response, StorageExt as _, UnixMillis, rfc3339,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::keys::{self, Keys};
use super::owners;
use super::role::{self, Role, blocks, uses};
use crate::auth::names;

/// Longest secret id somebody may choose, bytes.
const SECRET_ID_MAX: usize = 4096;
/// What stands for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A secret id as stored, below its role's uid and its own keyed hash. Holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SecretId {
    /// Public handle.
    pub(super) accessor: String,
    created: UnixMillis,
    updated: UnixMillis,
    /// When it stops being good, whether it was taken away by then or not.
    expires: Option<UnixMillis>,
    ttl_s: u64,
    /// Uses left; zero for no limit. It goes with its last use.
    pub(super) uses: u32,
    /// Ranges a login may come from; empty for anywhere.
    pub(super) cidr_list: Vec<String>,
    /// Ranges its tokens may be used from, instead of the role's.
    pub(super) token_bound_cidrs: Vec<String>,
    /// Put into the token's.
    pub(super) metadata: BTreeMap<String, String>,
}

/// What an accessor leads to.
#[derive(Serialize, Deserialize)]
struct Handle {
    hash: String,
}

impl SecretId {
    /// Whether it is still good: asked at every use, since what ended may not have been taken away yet
    /// (CVE-2026-115362).
    pub(super) fn is_good(&self, now: UnixMillis) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    fn show(&self) -> Value {
        json!({
            "cidr_list": self.cidr_list,
            "creation_time": rfc3339::format(self.created),
            "expiration_time": self.expires.map_or_else(|| NEVER.to_owned(), rfc3339::format),
            "last_updated_time": rfc3339::format(self.updated),
            "metadata": self.metadata,
            "secret_id_accessor": self.accessor,
            "secret_id_num_uses": self.uses,
            "secret_id_ttl": self.ttl_s,
            "token_bound_cidrs": self.token_bound_cidrs,
        })
    }
}

/// The secret id of a role with this keyed hash.
pub(super) fn find(ctx: &Ctx<'_>, role: &Role, hash: &str) -> Result<Option<Arc<SecretId>>, EngineError> {
    Ok(ctx.storage.get_shared(&keys::secret(role.prefix(), &role.uid, hash))?)
}

/// Removes a secret id with all that leads to it.
pub(super) fn remove(
    ctx: &Ctx<'_>,
    prefix: &str,
    uid: &str,
    hash: &str,
    secret: &SecretId,
) -> Result<(), EngineError> {
    ctx.storage.delete(&keys::secret(prefix, uid, hash))?;
    ctx.storage.delete(&keys::accessor(prefix, uid, &secret.accessor))?;
    if let Some(expires) = secret.expires {
        ctx.storage.delete(&keys::due_note(prefix, expires, uid, hash))?;
    }
    Ok(())
}

/// Takes one of its uses, in the transaction of the login that uses it.
pub(super) fn take_use(ctx: &Ctx<'_>, role: &Role, hash: &str, secret: &SecretId) -> Result<(), EngineError> {
    match secret.uses {
        0 => Ok(()),
        1 => remove(ctx, role.prefix(), &role.uid, hash, secret),
        left => {
            let secret = SecretId { uses: left - 1, updated: ctx.clock.now(), ..secret.clone() };
            Ok(ctx.storage.put_record(&keys::secret(role.prefix(), &role.uid, hash), &secret)?)
        }
    }
}

/// Makes a secret id: a random one, or the one a request brings.
pub(super) fn generate(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let role = role::of_path(ctx, request)?;
    if !role.bind_secret_id {
        return Err(EngineError::invalid("bind_secret_id is not set on the role"));
    }
    let fields = request.fields();
    let secret_id = if request.route.id == "custom-secret-id" {
        chosen(fields)?
    } else {
        Zeroizing::new(names::uuid(ctx.entropy)?)
    };
    let secret = wanted(ctx, &role, fields)?;
    let hash = Keys::of(ctx)?.secret(&role, &secret_id);
    let found = find(ctx, &role, &hash)?;
    if let Some(old) = found {
        if old.is_good(ctx.clock.now()) {
            return Err(EngineError::invalid("the secret_id is already registered"));
        }
        remove(ctx, role.prefix(), &role.uid, &hash, &old)?;
    }
    if role.local_secret_ids {
        owners::note(ctx, &role)?;
    }
    ctx.storage.put_record(&keys::secret(role.prefix(), &role.uid, &hash), &secret)?;
    let handle = Handle { hash: hash.clone() };
    ctx.storage.put_record(&keys::accessor(role.prefix(), &role.uid, &secret.accessor), &handle)?;
    if let Some(expires) = secret.expires {
        let note = keys::due_note(role.prefix(), expires, &role.uid, &hash);
        ctx.storage.put(&note, Zeroizing::new(Vec::new()))?;
    }
    let accessor = Some(secret.accessor.clone());
    let response = Response::data(json!({
        "secret_id": secret_id.as_str(),
        "secret_id_accessor": secret.accessor,
        "secret_id_num_uses": secret.uses,
        "secret_id_ttl": secret.ttl_s,
    }));
    Ok(Response { accessor, ..response })
}

fn chosen(fields: Fields<'_>) -> Result<Zeroizing<String>, EngineError> {
    let text = Zeroizing::new(fields.string("secret_id")?.unwrap_or_default());
    let text = Zeroizing::new(text.trim().to_owned());
    if text.is_empty() {
        return Err(EngineError::invalid("missing secret_id"));
    }
    if text.len() > SECRET_ID_MAX {
        return Err(EngineError::Invalid(format!("a secret_id has at most {SECRET_ID_MAX} bytes")));
    }
    Ok(text)
}

/// A new secret id as a request wants it, within what its role allows.
fn wanted(ctx: &Ctx<'_>, role: &Role, fields: Fields<'_>) -> Result<SecretId, EngineError> {
    let exceeds = |wanted: u64, limit: u64| limit > 0 && (wanted == 0 || wanted > limit);
    let uses = match fields.integer("num_uses")? {
        None => role.secret_id_num_uses,
        Some(count) => {
            let count = uses(count, "num_uses")?;
            if exceeds(u64::from(count), u64::from(role.secret_id_num_uses)) {
                let text = "num_uses cannot be higher than the role's secret_id_num_uses";
                return Err(EngineError::invalid(text));
            }
            count
        }
    };
    let ttl = match fields.duration("ttl")? {
        None => Duration::from_secs(role.secret_id_ttl_s),
        Some(ttl) if exceeds(ttl.as_secs(), role.secret_id_ttl_s) => {
            return Err(EngineError::invalid("ttl cannot be longer than the role's secret_id_ttl"));
        }
        Some(ttl) => ttl,
    };
    let ttl = role::capped_ttl(ctx, ttl);
    let cidr_list = fields.bounds("cidr_list")?.unwrap_or_default();
    check_subset(&cidr_list, &role.secret_id_bound_cidrs)?;
    let token_bound_cidrs = fields.bounds("token_bound_cidrs")?.unwrap_or_default();
    let of_role: Vec<String> = role.token.bound_cidrs.iter().map(|range| range.to_block()).collect();
    check_subset(&token_bound_cidrs, &of_role)?;
    let now = ctx.clock.now();
    Ok(SecretId {
        accessor: names::uuid(ctx.entropy)?,
        created: now,
        updated: now,
        expires: (!ttl.is_zero()).then(|| now.after(ttl)),
        ttl_s: ttl.as_secs(),
        uses,
        cidr_list,
        token_bound_cidrs,
        metadata: metadata(fields)?,
    })
}

/// # Errors
/// When what the secret id allows is not all within what the role allows.
pub(super) fn check_subset(of_secret: &[String], of_role: &[String]) -> Result<(), EngineError> {
    let (inner, outer) = (blocks(of_secret)?, blocks(of_role)?);
    let is_within = outer.is_empty() || inner.iter().all(|one| outer.iter().any(|range| range.covers(one)));
    if is_within {
        return Ok(());
    }
    Err(EngineError::invalid(
        "failed to verify subset relationship between CIDR blocks on the role and CIDR blocks on the secret ID",
    ))
}

/// Metadata as JSON in a text (also in Base64), as `name=value` texts, or as an object.
fn metadata(fields: Fields<'_>) -> Result<BTreeMap<String, String>, EngineError> {
    let wrong = || {
        EngineError::invalid(
            "failed to parse metadata: it must be a JSON object of strings, or key=value pairs",
        )
    };
    let Some(Value::String(text)) = fields.raw("metadata") else {
        return Ok(fields.string_map("metadata")?.unwrap_or_default());
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    for json in [Some(text), decoded.as_deref()].into_iter().flatten() {
        if let Ok(map) = serde_json::from_str(json) {
            return Ok(map);
        }
    }
    let pair = |item: &str| {
        let (name, value) = item.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        (!name.is_empty() && !value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    text.split(',').map(pair).collect::<Option<_>>().ok_or_else(wrong)
}

/// Accessors of a role's secret ids.
pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let role = find_role(ctx, request)?;
    let page: Page = names::page(request.fields())?;
    Ok(Response::list(ctx.storage.list(&keys::accessors(role.prefix(), &role.uid), &page)?))
}

fn find_role(ctx: &Ctx<'_>, request: &Request) -> Result<Arc<Role>, EngineError> {
    let found = role::find(ctx, request.param("role_name"))?;
    found.ok_or_else(|| EngineError::Invalid(role::is_missing(request)))
}

/// A secret id's keyed hash and record, by itself.
fn by_secret(
    ctx: &Ctx<'_>,
    role: &Role,
    fields: Fields<'_>,
) -> Result<Option<(String, Arc<SecretId>)>, EngineError> {
    let text = Zeroizing::new(fields.string("secret_id")?.unwrap_or_default());
    let text = text.trim();
    if text.is_empty() {
        return Err(EngineError::invalid("missing secret_id"));
    }
    let hash = Keys::of(ctx)?.secret(role, text);
    Ok(find(ctx, role, &hash)?.map(|secret| (hash, secret)))
}

/// A secret id's keyed hash and record, by its accessor. Another role's is none.
fn by_accessor(
    ctx: &Ctx<'_>,
    role: &Role,
    fields: Fields<'_>,
) -> Result<(String, Arc<SecretId>), EngineError> {
    let accessor = fields.string("secret_id_accessor")?.unwrap_or_default();
    if accessor.is_empty() {
        return Err(EngineError::invalid("missing secret_id_accessor"));
    }
    let is_one = accessor.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if !is_one {
        return Err(EngineError::NotFound);
    }
    let key = keys::accessor(role.prefix(), &role.uid, &accessor);
    let handle: Handle = ctx.storage.get_record(&key)?.ok_or(EngineError::NotFound)?;
    let secret = find(ctx, role, &handle.hash)?.ok_or(EngineError::NotFound)?;
    Ok((handle.hash, secret))
}

/// Looks a secret id up, by itself or by its accessor. One that ended is none.
pub(super) fn lookup(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (role, fields, now) = (find_role(ctx, request)?, request.fields(), ctx.clock.now());
    if request.route.id == "lookup-accessor" {
        let (_, secret) = by_accessor(ctx, &role, fields)?;
        return if secret.is_good(now) {
            Ok(Response::data(secret.show()))
        } else {
            Err(EngineError::NotFound)
        };
    }
    let found = by_secret(ctx, &role, fields)?.filter(|(_, secret)| secret.is_good(now));
    Ok(found.map_or_else(Response::empty, |(_, secret)| Response::data(secret.show())))
}

/// Destroys a secret id, by itself or by its accessor.
pub(super) fn destroy(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (role, fields) = (find_role(ctx, request)?, request.fields());
    let found = if request.route.id == "destroy-accessor" {
        Some(by_accessor(ctx, &role, fields)?)
    } else {
        by_secret(ctx, &role, fields)?
    };
    if let Some((hash, secret)) = found {
        remove(ctx, role.prefix(), &role.uid, &hash, &secret)?;
    }
    Ok(Response::empty())
}

/// A secret id by its keyed hash, for taking away.
pub(super) fn stored(ctx: &Ctx<'_>, key: &str) -> Result<Option<SecretId>, EngineError> {
    Ok(ctx.storage.get_record(key)?)
}

/// Metadata of a login: the secret id's, and the role's name over all.
pub(super) fn login_metadata(role: &Role, secret: Option<&SecretId>) -> BTreeMap<String, String> {
    let mut metadata = secret.map(|secret| secret.metadata.clone()).unwrap_or_default();
    metadata.insert("role_name".to_owned(), role.name.clone());
    metadata
}

/// What the kernel keeps for a renewal.
pub(super) fn internal(role: &Role) -> Map {
    let internal = json!({"role_name": role.name, "role_uid": role.uid});
    internal.as_object().cloned().unwrap_or_default()
}
