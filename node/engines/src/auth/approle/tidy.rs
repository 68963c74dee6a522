//! Taking away what has ended: secret ids past their time, and those of deleted roles. So many at a time, by notes of
//! what is due, so that the work depends on what has ended and not on what there is. Read next: [`owners`].

use std::sync::{Mutex, PoisonError};

use arca_engine_api::{Ctx, EngineError, Page, Response};

use super::keys;
use super::owners;
use super::secret_id;

/// Secret ids taken away in one go: about as many as fit one write.
const SWEPT_MAX: usize = 500;
/// Roles with secret ids of this cluster that one round looks for.
const OWNERS_PER_ROUND: usize = 100;

/// Where the last round ended. A cache: a new node begins at the beginning.
#[derive(Debug, Default)]
pub(super) struct Round(Mutex<String>);

impl Round {
    fn position(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_position(&self, uid: &str) {
        uid.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Takes away up to [`SWEPT_MAX`] secret ids that have ended.
pub(super) fn sweep(ctx: &Ctx<'_>, round: &Round) -> Result<(), EngineError> {
    let mut left = SWEPT_MAX;
    for prefix in keys::PREFIXES {
        sweep_due(ctx, prefix, &mut left)?;
    }
    sweep_orphans(ctx, &mut left)?;
    sweep_owners(ctx, round, &mut left)
}

fn first(limit: usize) -> Page {
    Page { limit: Some(limit), ..Page::default() }
}

fn sweep_due(ctx: &Ctx<'_>, prefix: &str, left: &mut usize) -> Result<(), EngineError> {
    let (this_hour, this_minute) = keys::hour_and_minute(ctx.clock.now());
    let due = keys::due(prefix);
    for hour in ctx.storage.list(&due, &Page::default())?.iter().filter(|hour| **hour <= this_hour) {
        let minutes = format!("{due}{hour}");
        for minute in ctx.storage.list(&minutes, &Page::default())?.iter().filter(|one| **one < this_minute) {
            let shards = format!("{minutes}{minute}");
            for shard in ctx.storage.list(&shards, &Page::default())? {
                let notes = format!("{shards}{shard}");
                for note in ctx.storage.scan(&notes, &first(*left))? {
                    if let Some((uid, hash)) = note.split_once('/') {
                        take_away(ctx, prefix, uid, hash)?;
                    }
                    ctx.storage.delete(&format!("{notes}{note}"))?;
                    *left = left.saturating_sub(1);
                }
                if *left == 0 {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn sweep_orphans(ctx: &Ctx<'_>, left: &mut usize) -> Result<(), EngineError> {
    for uid in ctx.storage.list(keys::ORPHANS, &first(*left))? {
        if !take_all_away(ctx, "", &uid, left)? {
            return Ok(());
        }
        ctx.storage.delete(&format!("{}{uid}", keys::ORPHANS))?;
        *left = left.saturating_sub(1);
    }
    Ok(())
}

/// Looks through roles with secret ids of this cluster, from where the last round ended.
fn sweep_owners(ctx: &Ctx<'_>, round: &Round, left: &mut usize) -> Result<(), EngineError> {
    let after = round.position();
    let page = Page { after: Some(after).filter(|after| !after.is_empty()), limit: Some(OWNERS_PER_ROUND) };
    let uids = ctx.storage.list(keys::OWNERS, &page)?;
    for uid in &uids {
        if *left == 0 {
            return Ok(());
        }
        if owners::is_gone(ctx, uid)? {
            if !take_all_away(ctx, keys::LOCAL, uid, left)? {
                return Ok(());
            }
            owners::forget(ctx, uid)?;
            *left = left.saturating_sub(1);
        }
        round.set_position(uid);
    }
    if uids.len() < OWNERS_PER_ROUND {
        round.set_position("");
    }
    Ok(())
}

/// Takes away the secret ids of a role that is no more; answers whether all are gone.
fn take_all_away(ctx: &Ctx<'_>, prefix: &str, uid: &str, left: &mut usize) -> Result<bool, EngineError> {
    let shards = keys::secrets(prefix, uid);
    for shard in ctx.storage.list(&shards, &Page::default())? {
        if *left == 0 {
            return Ok(false);
        }
        for hash in ctx.storage.list(&format!("{shards}{shard}"), &first(*left))? {
            take_away(ctx, prefix, uid, &hash)?;
            *left = left.saturating_sub(1);
        }
    }
    Ok(*left > 0)
}

fn take_away(ctx: &Ctx<'_>, prefix: &str, uid: &str, hash: &str) -> Result<(), EngineError> {
    match secret_id::stored(ctx, &keys::secret(prefix, uid, hash))? {
        Some(secret) => secret_id::remove(ctx, prefix, uid, hash, &secret),
        None => Ok(()),
    }
}

/// A round at once; the others follow by themselves, one a minute.
pub(super) fn tidy(ctx: &Ctx<'_>, round: &Round) -> Result<Response, EngineError> {
    sweep(ctx, round)?;
    let text = "Tidy operation successfully started. What has ended is taken away in rounds, one a minute.";
    Ok(Response { status: Some(202), ..Response::default() }.with_warning(text))
}
