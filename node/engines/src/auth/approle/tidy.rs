//! Taking away what has ended: secret ids past their time, and those of deleted roles. So many at a time, by notes of
//! what is due, so that the work depends on what has ended and not on what there is.

use arca_engine_api::{Ctx, EngineError, Page, Response, StorageExt as _};

use super::keys;
use super::role::Orphaned;
use super::secret_id;

/// Secret ids taken away in one go: about as many as fit one write.
const SWEPT_MAX: usize = 500;

/// Takes away up to [`SWEPT_MAX`] secret ids that have ended.
pub(super) fn sweep(ctx: &Ctx<'_>) -> Result<(), EngineError> {
    let mut left = SWEPT_MAX;
    for prefix in keys::PREFIXES {
        sweep_due(ctx, prefix, &mut left)?;
    }
    sweep_orphans(ctx, &mut left)
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
        let marker = format!("{}{uid}", keys::ORPHANS);
        let Some(orphaned) = ctx.storage.get_record::<Orphaned>(&marker)? else { continue };
        let prefix = if orphaned.is_local { keys::LOCAL } else { "" };
        let shards = keys::secrets(prefix, &uid);
        for shard in ctx.storage.list(&shards, &Page::default())? {
            if *left == 0 {
                return Ok(());
            }
            for hash in ctx.storage.list(&format!("{shards}{shard}"), &first(*left))? {
                take_away(ctx, prefix, &uid, &hash)?;
                *left = left.saturating_sub(1);
            }
        }
        if *left == 0 {
            return Ok(());
        }
        ctx.storage.delete(&marker)?;
        *left = left.saturating_sub(1);
    }
    Ok(())
}

fn take_away(ctx: &Ctx<'_>, prefix: &str, uid: &str, hash: &str) -> Result<(), EngineError> {
    match secret_id::stored(ctx, &keys::secret(prefix, uid, hash))? {
        Some(secret) => secret_id::remove(ctx, prefix, uid, hash, &secret),
        None => Ok(()),
    }
}

/// A round at once; the others follow by themselves, one a minute.
pub(super) fn tidy(ctx: &Ctx<'_>) -> Result<Response, EngineError> {
    sweep(ctx)?;
    let text = "Tidy operation successfully started. What has ended is taken away in rounds, one a minute.";
    Ok(Response { status: Some(202), ..Response::default() }.with_warning(text))
}
