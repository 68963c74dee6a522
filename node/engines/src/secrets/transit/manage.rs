//! `keys` and what changes them: made, listed, set, rotated, trimmed, hidden, deleted.

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, Fields, Page, Request, Response};

use super::key::{HMAC_KEY_LEN, Key};
use super::keys::Keys;
use super::kind::Kind;
use super::{batch, generate, show};

/// Shortest age at which a key is rotated by itself.
const ROTATE_AFTER_MIN: Duration = Duration::from_secs(3_600);

/// Lists the names of keys.
pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let fields = request.fields();
    let limit =
        fields.integer("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let page = Page { after: fields.string("after")?.filter(|after| !after.is_empty()), limit };
    Ok(Response::list(Keys::of(ctx).list(&page)?))
}

/// Shows a key.
pub(super) fn read(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let Some(key) = keys.find(name)? else { return Ok(Response::empty()) };
    let context = batch::context(request.fields())?;
    show::key(&keys, name, &key, &context)
}

/// Makes a key, unless there is one.
pub(super) async fn create(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let mut key = wanted(request.fields())?;
    if let Some(key) = keys.find(name)? {
        let shown = show::key(&keys, name, &key, &[])?;
        return Ok(shown.with_warning(format!("key {name} already existed")));
    }
    key.check_flags()?;
    let material = generate::material(ctx, &key).await?;
    keys.add_version(name, &mut key, &material)?;
    show::key(&keys, name, &key, &[])
}

fn wanted(fields: Fields<'_>) -> Result<Key, EngineError> {
    let flag = |name| Ok::<_, EngineError>(fields.boolean(name)?.unwrap_or_default());
    let kind = match fields.string("type")?.as_deref() {
        None => Kind::DEFAULT,
        Some(kind) => Kind::named(kind).ok_or_else(|| EngineError::invalid("unknown key type"))?,
    };
    let key = Key {
        is_derived: flag("derived")?,
        is_convergent: flag("convergent_encryption")?,
        is_exportable: flag("exportable")?,
        allows_backup: flag("allow_plaintext_backup")?,
        rotate_after_seconds: rotate_after(fields)?.unwrap_or_default(),
        hmac_len: hmac_len(fields, kind)?,
        ..Key::new(kind)
    };
    if key.is_convergent && !key.is_derived {
        return Err(EngineError::invalid("convergent encryption requires derivation to be enabled"));
    }
    Ok(key)
}

fn hmac_len(fields: Fields<'_>, kind: Kind) -> Result<Option<u16>, EngineError> {
    let Some(len) = fields.integer("key_size")?.filter(|len| *len != 0) else { return Ok(None) };
    if kind != Kind::Hmac {
        return Err(EngineError::Invalid(format!("key_size is not valid for algorithm {}", kind.name())));
    }
    let valid = usize::try_from(len).ok().filter(|len| HMAC_KEY_LEN.contains(len));
    let valid = valid.and_then(|len| u16::try_from(len).ok());
    valid.map(Some).ok_or_else(|| EngineError::Invalid(format!("invalid key_size {len}")))
}

/// `auto_rotate_period`, here and when importing.
pub(super) fn rotate_after(fields: Fields<'_>) -> Result<Option<u64>, EngineError> {
    let Some(period) = fields.duration("auto_rotate_period")? else { return Ok(None) };
    if !period.is_zero() && period < ROTATE_AFTER_MIN {
        return Err(EngineError::invalid("auto rotate period must be 0 to disable or at least an hour"));
    }
    Ok(Some(period.as_secs()))
}

/// Deletes a key, if it may be.
pub(super) fn delete(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    let refused = |why: &str| EngineError::Invalid(format!("error deleting policy {name}: {why}"));
    let key = keys.find(name)?.ok_or_else(|| refused("could not delete key; not found"))?;
    if !key.allows_deletion {
        return Err(refused("deletion is not allowed for this key"));
    }
    keys.delete(name, &key)?;
    Ok(Response::empty())
}

/// Hides a key, or brings it back.
pub(super) fn hide(ctx: &Ctx<'_>, name: &str, hide: Hide) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    let Some(mut key) = keys.load(name)? else { return Ok(Response::empty()) };
    let is_hidden = hide == Hide::Hide;
    let warning =
        if is_hidden { "key was already marked as soft deleted" } else { "key was already restored" };
    let was = std::mem::replace(&mut key.is_hidden, is_hidden);
    keys.store(name, &key)?;
    let shown = show::key(&keys, name, &key, &[])?;
    Ok(if was == is_hidden { shown.with_warning(warning) } else { shown })
}

/// What [`hide`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hide {
    BringBack,
    Hide,
}

const FROM_ONE: &str = "since Vault 0.3, transit key numbering starts at 1; forcing minimum to 1";

/// Changes the settings of a key.
pub(super) fn configure(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, fields, name) = (Keys::of(ctx), request.fields(), request.param("name"));
    let missing = || EngineError::Invalid(format!("no existing key named {name} could be found"));
    let mut key = keys.load(name)?.ok_or_else(missing)?;
    let before = key.clone();
    let forces_one = set_minimums(&mut key, fields)?;
    if let Some(allowed) = fields.boolean("deletion_allowed")? {
        key.allows_deletion = allowed;
    }
    // What has been allowed once may have been used: it stays allowed.
    key.is_exportable |= fields.boolean("exportable")?.unwrap_or_default();
    key.allows_backup |= fields.boolean("allow_plaintext_backup")?.unwrap_or_default();
    if let Some(seconds) = rotate_after(fields)? {
        key.rotate_after_seconds = seconds;
    }
    if key != before {
        if key.min_available > key.min_encryption {
            return Err(EngineError::invalid(
                "min encryption version should not be less than min available version",
            ));
        }
        if key.min_available > key.min_decryption {
            return Err(EngineError::invalid(
                "min decryption version should not be less then min available version",
            ));
        }
        keys.store(name, &key)?;
    }
    let shown = show::key(&keys, name, &key, &[])?;
    Ok(if forces_one { shown.with_warning(FROM_ONE) } else { shown })
}

/// Whether a zero was taken for a one.
fn set_minimums(key: &mut Key, fields: Fields<'_>) -> Result<bool, EngineError> {
    let latest = key.latest();
    let minimum = |purpose: &str| {
        let Some(version) = fields.integer(&format!("min_{purpose}_version"))? else { return Ok(None) };
        if version < 0 {
            return Err(EngineError::Invalid(format!("min {purpose} version cannot be negative")));
        }
        let known = u32::try_from(version).ok().filter(|version| *version <= latest);
        known.map(Some).ok_or_else(|| {
            EngineError::Invalid(format!(
                "cannot set min {purpose} version of {version}, latest key version is {latest}"
            ))
        })
    };
    let decryption = minimum("decryption")?;
    key.min_decryption = decryption.map_or(key.min_decryption, |version| version.max(1));
    key.min_encryption = minimum("encryption")?.unwrap_or(key.min_encryption);
    if key.min_encryption > 0 && key.min_encryption < key.min_decryption {
        return Err(EngineError::Invalid(format!(
            "cannot set min encryption/decryption values; min encryption version of {} must be greater than or equal \
             to min decryption version of {}",
            key.min_encryption, key.min_decryption
        )));
    }
    Ok(decryption == Some(0))
}

/// Removes the oldest versions for good.
pub(super) fn trim(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let mut key = keys.load(name)?.ok_or_else(|| EngineError::invalid("invalid key name"))?;
    let Some(wanted) = request.fields().integer("min_available_version")? else {
        return Err(EngineError::invalid("missing min_available_version"));
    };
    let refused = |why: &str| Err(EngineError::Invalid(format!("minimum available version {why}")));
    let first = match u32::try_from(wanted) {
        _ if wanted < i64::from(key.min_available) => return refused("cannot be decremented"),
        _ if key.min_encryption == 0 => {
            return refused("cannot be set when minimum encryption version is not set");
        }
        Ok(0) => return refused("should be positive"),
        Ok(first) if first > key.min_encryption => {
            return refused("cannot be greater than minmum encryption version");
        }
        Ok(first) if first > key.min_decryption => {
            return refused("cannot be greater than minimum decryption version");
        }
        Ok(first) => first,
        Err(_) => return refused("cannot be greater than minmum encryption version"),
    };
    key.min_available = first;
    let kept = key.versions.split_off(&first);
    let dropped = std::mem::replace(&mut key.versions, kept);
    keys.drop_versions(name, dropped.into_keys())?;
    keys.store(name, &key)?;
    show::key(&keys, name, &key, &[])
}

/// Makes a new version.
pub(super) async fn rotate(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    let mut key = keys.load(name)?.ok_or_else(|| EngineError::invalid("key not found"))?;
    rotated(ctx, name, &mut key).await?;
    show::key(&keys, name, &key, &[])
}

async fn rotated(ctx: &Ctx<'_>, name: &str, key: &mut Key) -> Result<(), EngineError> {
    key.check_shown()?;
    if key.is_imported && !key.allows_rotation {
        return Err(EngineError::Invalid(format!(
            "imported key {name} does not allow rotation within Vault"
        )));
    }
    let material = generate::material(ctx, key).await?;
    key.is_imported = false;
    Keys::of(ctx).add_version(name, key, &material)
}

/// Keys rotated at once, at most: RSA keys take a while each.
const ROTATIONS_MAX: usize = 8;
/// Time after which the rest waits for the next tick.
const ROTATING_MAX: Duration = Duration::from_secs(1);
/// Keys looked at in one listing.
const NAMES_MAX: usize = 1_000;

/// Makes new versions of keys that are old enough. Says whether it made any.
pub(super) async fn rotate_old(ctx: &Ctx<'_>) -> Result<bool, EngineError> {
    let (keys, now, started) = (Keys::of(ctx), ctx.clock.now(), ctx.clock.monotonic());
    let (mut made, mut failed) = (0, None);
    let mut page = Page { after: None, limit: Some(NAMES_MAX) };
    loop {
        let names = keys.list(&page)?;
        for name in &names {
            let outcome = rotate_if_old(ctx, name, now).await;
            made += usize::from(matches!(outcome, Ok(true)));
            // A key that cannot be rotated is told of, but stands in no other's way.
            failed = failed.or(outcome.err());
            let spent = ctx.clock.monotonic().saturating_sub(started);
            if made == ROTATIONS_MAX || (made > 0 && spent > ROTATING_MAX) {
                return Ok(true);
            }
        }
        if names.len() < NAMES_MAX {
            break;
        }
        page.after = names.into_iter().last();
    }
    match failed {
        Some(err) if made == 0 => Err(err),
        _ => Ok(made > 0),
    }
}

async fn rotate_if_old(
    ctx: &Ctx<'_>,
    name: &str,
    now: arca_engine_api::UnixMillis,
) -> Result<bool, EngineError> {
    let Some(key) = Keys::of(ctx).find(name)? else { return Ok(false) };
    let period = Duration::from_secs(key.rotate_after_seconds);
    let may_rotate = !key.is_hidden && (!key.is_imported || key.allows_rotation);
    if period.is_zero() || !may_rotate || now <= key.latest_birth().after(period) {
        return Ok(false);
    }
    rotated(ctx, name, &mut std::sync::Arc::unwrap_or_clone(key)).await?;
    Ok(true)
}
