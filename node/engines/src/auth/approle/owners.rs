//! Roles whose secret ids belong to this cluster alone. Other clusters delete roles without knowing of them, so each cluster
//! keeps a note of its own for each such role, looks from time to time whether the role is still there, and takes its secret
//! ids away when it has been gone for long.
//!
//! **Invariant:** that a role cannot be found once is no reason to take anything away: a cluster that is catching up with
//! another may lack it for a while.

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, StorageExt as _, UnixMillis};
use serde::{Deserialize, Serialize};

use super::keys;
use super::role::{self, Role};

/// How long a role must be gone. Its secret ids open nothing meanwhile.
const GONE_FOR: Duration = Duration::from_secs(24 * 3_600);

#[derive(Serialize, Deserialize)]
struct Owner {
    /// Name of the role.
    role: String,
    /// It was deleted in this cluster.
    is_deleted: bool,
    /// When it was first missed.
    gone_since: Option<UnixMillis>,
}

fn key(uid: &str) -> String {
    format!("{}{uid}", keys::OWNERS)
}

/// Notes that a role has secret ids in this cluster.
pub(super) fn note(ctx: &Ctx<'_>, role: &Role) -> Result<(), EngineError> {
    if ctx.storage.get(&key(&role.uid))?.is_some() {
        return Ok(());
    }
    let owner = Owner { role: role.name.clone(), is_deleted: false, gone_since: None };
    Ok(ctx.storage.put_record(&key(&role.uid), &owner)?)
}

/// A role is deleted in this cluster, so there is nothing to wait for.
pub(super) fn role_is_deleted(ctx: &Ctx<'_>, role: &Role) -> Result<(), EngineError> {
    let owner = Owner { role: role.name.clone(), is_deleted: true, gone_since: None };
    Ok(ctx.storage.put_record(&key(&role.uid), &owner)?)
}

/// Whether a role has been gone for long. Takes note of when it was first missed.
pub(super) fn is_gone(ctx: &Ctx<'_>, uid: &str) -> Result<bool, EngineError> {
    let Some(mut owner) = ctx.storage.get_record::<Owner>(&key(uid))? else { return Ok(false) };
    if owner.is_deleted {
        return Ok(true);
    }
    let is_there = role::find(ctx, &owner.role)?.is_some_and(|role| role.uid == uid);
    let now = ctx.clock.now();
    let gone_since = if is_there { None } else { owner.gone_since.or(Some(now)) };
    if gone_since != owner.gone_since {
        owner.gone_since = gone_since;
        ctx.storage.put_record(&key(uid), &owner)?;
    }
    Ok(gone_since.is_some_and(|since| now.since(since) >= GONE_FOR))
}

/// Ends the note.
pub(super) fn forget(ctx: &Ctx<'_>, uid: &str) -> Result<(), EngineError> {
    Ok(ctx.storage.delete(&key(uid))?)
}
