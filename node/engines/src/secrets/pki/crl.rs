//! Lists of revoked certificates, complete and delta, one of each for all issuers that share a name and key.
//!
//! The entries of a list lie in parts to which they are only added; a signed list says how much of each part it covers
//! and keeps what stands before and behind them. So a revocation writes one part, signing reads the parts one after the
//! other, and a delta is what was added behind the complete list. **Invariant:** a part that a signed list covers is not
//! changed within what it covers; who removes entries writes new parts and signs anew in the same request.
//! Read next: [`super::revoke`] for what adds, [`super::tidy`] for what removes.

use arca_engine_api::{Ctx, EngineError, Page, Response, StorageError, StorageExt as _, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::base64;
use super::call::Call;
use super::crl_config::{self, CrlConfig};
use super::issuers::{self, Issuer};
use super::revoke;
use super::x509::extension::{self, Extension};
use super::x509::{oid, time};
use crate::crypto::der;

const LAYOUT: u8 = 1;
/// Bytes of a part after which a new one begins.
const PART_LEN_MAX: usize = 32 << 10;
/// Parts of one list: some seven million entries.
const PARTS_MAX: usize = 8_192;
/// Parts that are tidied at once: what is written and removed for them fits one entry of the log.
const SWEEP_MAX: usize = 4;
/// Lists signed in one tick.
const BUILDS_MAX: usize = 4;

/// So many bytes of a part, from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slice(u64, usize, usize);

/// A signed list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedList {
    number: u64,
    this_update: UnixMillis,
    next_update: UnixMillis,
    /// What stands before the entries, and behind them.
    #[serde(with = "base64")]
    head: Vec<u8>,
    #[serde(with = "base64")]
    tail: Vec<u8>,
    slices: Vec<Slice>,
}

/// The lists of issuers that share a name and key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lists {
    layout: u8,
    /// The number of the list signed last.
    number: u64,
    next_part: u64,
    /// The parts, with their lengths.
    parts: Vec<(u64, usize)>,
    complete: Option<SignedList>,
    delta: Option<SignedList>,
}

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Complete,
    Delta,
}

fn lists_key(set: &str) -> String {
    format!("crl/{set}")
}

fn part_key(set: &str, part: u64) -> String {
    format!("crl-part/{set}/{part}")
}

fn load(ctx: &Ctx<'_>, set: &str) -> Result<Lists, EngineError> {
    let key = lists_key(set);
    let lists = ctx.storage.get_record::<Lists>(&key)?;
    match lists {
        None => Ok(Lists { layout: LAYOUT, ..Lists::default() }),
        Some(lists) if lists.layout == LAYOUT => Ok(lists),
        Some(_) => Err(StorageError::Damaged { key, reason: "an unknown layout".to_owned() }.into()),
    }
}

fn part(ctx: &Ctx<'_>, set: &str, id: u64) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let key = part_key(set, id);
    match ctx.storage.get(&key)? {
        Some(bytes) if bytes.first() == Some(&LAYOUT) => {
            Ok(Zeroizing::new(bytes.get(1..).unwrap_or_default().to_vec()))
        }
        _ => {
            Err(StorageError::Damaged { key, reason: "not there, or of an unknown layout".to_owned() }.into())
        }
    }
}

fn put_part(ctx: &Ctx<'_>, set: &str, id: u64, entries: &[u8]) -> Result<(), EngineError> {
    let mut value = Zeroizing::new(Vec::with_capacity(entries.len() + 1));
    value.push(LAYOUT);
    value.extend_from_slice(entries);
    Ok(ctx.storage.put(&part_key(set, id), value)?)
}

/// An entry of a list.
fn entry(serial: &[u8], at: UnixMillis) -> Vec<u8> {
    der::write(der::SEQUENCE, &[&der::write_unsigned(serial), &time::encode(at)]).to_vec()
}

/// Adds a serial number to the list of a set. Nothing is signed yet.
pub(super) fn add(ctx: &Ctx<'_>, set: &str, serial: &[u8], at: UnixMillis) -> Result<(), EngineError> {
    let mut lists = load(ctx, set)?;
    let entry = entry(serial, at);
    let fits = |(_, len): &&mut (u64, usize)| *len + entry.len() <= PART_LEN_MAX;
    if let Some((id, len)) = lists.parts.last_mut().filter(fits) {
        let mut entries = part(ctx, set, *id)?.to_vec();
        entries.extend_from_slice(&entry);
        *len = entries.len();
        put_part(ctx, set, *id, &entries)?;
    } else {
        if lists.parts.len() >= PARTS_MAX {
            return Err(EngineError::invalid(
                "the list of revoked certificates is full; tidy expired ones away",
            ));
        }
        append_part(ctx, set, &mut lists, &entry)?;
    }
    Ok(ctx.storage.put_record(&lists_key(set), &lists)?)
}

/// Whether the list of a set takes no more serial numbers.
pub(super) fn is_full(ctx: &Ctx<'_>, set: &str) -> Result<bool, EngineError> {
    Ok(load(ctx, set)?.parts.len() >= PARTS_MAX)
}

/// Where tidying the list of a set ends: parts made from now on are not looked at.
pub(super) fn sweep_end(ctx: &Ctx<'_>, set: &str) -> Result<u64, EngineError> {
    Ok(load(ctx, set)?.next_part)
}

/// Takes out of some parts of a list, from `from` on and before `end`, what `is_to_go` says; its argument is a serial
/// number without zeros before it. Signs the list anew if anything went: what is served refers to the parts as they
/// were, so a list that nobody can sign stays as it is. Answers where to go on, or nothing at the end.
pub(super) fn sweep(
    call: &Call<'_>,
    set: &str,
    from: u64,
    end: u64,
    is_to_go: &mut dyn FnMut(&[u8]) -> Result<bool, EngineError>,
) -> Result<Option<u64>, EngineError> {
    if signing_issuer(call.ctx, set)?.is_none() {
        // Nobody could sign the list anew, and without it what is revoked would be nowhere.
        return Ok(None);
    }
    let mut lists = load(call.ctx, set)?;
    let range: Vec<u64> =
        lists.parts.iter().map(|(id, _)| *id).filter(|id| (from..end).contains(id)).collect();
    let (ids, rest) = range.split_at_checked(SWEEP_MAX).unwrap_or((&range, &[]));
    let mut kept = Vec::new();
    for id in ids {
        let bytes = part(call.ctx, set, *id)?;
        let (entries, has_dropped) = without(&bytes, is_to_go)?;
        if has_dropped {
            call.ctx.storage.delete(&part_key(set, *id))?;
            lists.parts.retain(|(other, _)| other != id);
            kept.push(entries);
        }
    }
    if !kept.is_empty() {
        let mut room: Vec<u8> = Vec::new();
        for entry in kept.concat() {
            if room.len() + entry.len() > PART_LEN_MAX {
                append_part(call.ctx, set, &mut lists, &std::mem::take(&mut room))?;
            }
            room.extend_from_slice(&entry);
        }
        if !room.is_empty() {
            append_part(call.ctx, set, &mut lists, &room)?;
        }
        // The lists that are out refer to what is gone.
        lists.complete = None;
        lists.delta = None;
        call.ctx.storage.put_record(&lists_key(set), &lists)?;
        build(call, set, Kind::Complete)?;
    }
    Ok(rest.first().copied())
}

fn append_part(ctx: &Ctx<'_>, set: &str, lists: &mut Lists, entries: &[u8]) -> Result<(), EngineError> {
    put_part(ctx, set, lists.next_part, entries)?;
    lists.parts.push((lists.next_part, entries.len()));
    lists.next_part += 1;
    Ok(())
}

/// The entries that stay, and whether others went.
fn without(
    entries: &[u8],
    is_to_go: &mut dyn FnMut(&[u8]) -> Result<bool, EngineError>,
) -> Result<(Vec<Vec<u8>>, bool), EngineError> {
    let malformed = || EngineError::Bug("a part of a list of revoked certificates is malformed".to_owned());
    let (mut kept, mut has_dropped) = (Vec::new(), false);
    let mut reader = der::Reader::new(entries);
    while !reader.is_empty() {
        let whole = reader.element(der::SEQUENCE).ok_or_else(malformed)?;
        let serial = der::Reader::new(whole).enter(der::SEQUENCE).and_then(|mut entry| entry.unsigned());
        if is_to_go(serial.ok_or_else(malformed)?)? {
            has_dropped = true;
        } else {
            kept.push(whole.to_vec());
        }
    }
    Ok((kept, has_dropped))
}

impl Lists {
    /// What a list of that kind has to cover.
    fn slices(&self, kind: Kind, config: &CrlConfig) -> Vec<Slice> {
        if config.disable {
            return Vec::new();
        }
        let covered = |id: u64| {
            let complete = self.complete.as_ref().filter(|_| kind == Kind::Delta)?;
            complete.slices.iter().find(|slice| slice.0 == id).map(|slice| slice.2)
        };
        self.parts
            .iter()
            .map(|(id, len)| Slice(*id, covered(*id).unwrap_or_default(), *len))
            .filter(|slice| slice.1 < slice.2)
            .collect()
    }

    /// Whether the complete list lacks what it should have: nobody could sign it when that was added. Lists that are
    /// made by themselves wait for their time.
    fn is_behind(&self, config: &CrlConfig) -> bool {
        self.complete.as_ref().is_none_or(|complete| {
            !config.auto_rebuild && complete.slices != self.slices(Kind::Complete, config)
        })
    }
}

/// Who signs the lists of a set: the first of its issuers that may and can.
fn signing_issuer(ctx: &Ctx<'_>, set: &str) -> Result<Option<std::sync::Arc<Issuer>>, EngineError> {
    Ok(issuers::all(ctx)?.into_iter().find(|issuer| {
        issuer.set == set && issuer.may(issuers::SIGN_CRL) && !issuer.record.key_id.is_empty()
    }))
}

/// Whether anybody signs the lists of a set.
pub(super) fn is_signed(ctx: &Ctx<'_>, set: &str) -> Result<bool, EngineError> {
    Ok(signing_issuer(ctx, set)?.is_some())
}

/// What stands in a list besides its entries.
pub(super) fn extensions(issuer: &Issuer, number: u64, base: Option<u64>) -> Vec<Extension> {
    let integer = |value: u64| der::write_unsigned(&value.to_be_bytes()).to_vec();
    let mut out: Vec<Extension> = extension::authority_key_id(&issuer.key_id).into_iter().collect();
    out.push(Extension { oid: oid::CRL_NUMBER.to_vec(), is_critical: false, value: integer(number) });
    out.extend(base.map(|base| Extension {
        oid: oid::DELTA_CRL_INDICATOR.to_vec(),
        is_critical: true,
        value: integer(base),
    }));
    out
}

/// Where the delta is, for whoever has only the complete list. A URL that cannot be filled in yet is left out: a list
/// without it is better than none.
fn freshest(ctx: &Ctx<'_>, issuer: &Issuer) -> Result<Option<Extension>, EngineError> {
    let urls = issuer.urls_if_known(ctx)?;
    Ok(urls.and_then(|urls| extension::freshest_crl(&urls.delta_crl_distribution_points)))
}

/// The number of a list that is signed now: above the last one, also where the clock was set back, and not below the
/// seconds since 1970. Verifiers keep what they have of a number, and a delta counts for any list of the number it names;
/// where the record of the last number was lost or restored from an older snapshot, counting on from it would give
/// numbers again that other lists are known by.
fn next_number(last: u64, now: UnixMillis) -> u64 {
    last.saturating_add(1).max(now.0 / 1_000)
}

/// Signs a list of a set. Nobody who may sign it is no error: its certificates can only be checked elsewhere.
pub(super) fn build(call: &Call<'_>, set: &str, kind: Kind) -> Result<(), EngineError> {
    let ctx = call.ctx;
    let mut lists = load(ctx, set)?;
    let Some(issuer) = signing_issuer(ctx, set)? else { return Ok(()) };
    let config = crl_config::of(ctx)?;
    let base = match (kind, &lists.complete) {
        (Kind::Complete, _) => None,
        (Kind::Delta, Some(complete)) => Some(complete.number),
        (Kind::Delta, None) => return Ok(()),
    };
    lists.number = next_number(lists.number, call.now());
    let signer = issuers::signer(call, &issuer)?;
    let algorithm = issuer.revocation_algorithm();
    let slices = lists.slices(kind, &config);
    let entries_len: usize = slices.iter().map(|slice| slice.2 - slice.1).sum();
    let (this_update, next_update) =
        (time::whole(call.now()), call.now().after(std::time::Duration::from_secs(config.expiry.as_secs())));
    let mut front = [
        der::write_unsigned(&[1]).to_vec(),
        algorithm.encode(),
        issuer.subject.clone(),
        time::encode(this_update),
        time::encode(next_update),
    ]
    .concat();
    if entries_len > 0 {
        front.extend(der::header(der::SEQUENCE, entries_len));
    }
    let mut extensions = extensions(&issuer, lists.number, base);
    if kind == Kind::Complete {
        extensions.extend(freshest(ctx, &issuer)?);
    }
    let back = der::write(der::EXPLICIT_0, &[&extension::encode(&extensions)]);
    let body_len = front.len() + entries_len + back.len();
    let front = [der::header(der::SEQUENCE, body_len), front].concat();
    let pieces = std::iter::once(Ok(Zeroizing::new(front.clone())))
        .chain(slices.iter().map(|slice| covered(ctx, set, *slice)))
        .chain(std::iter::once(Ok(Zeroizing::new(back.to_vec()))));
    let signature = signer.sign_parts(algorithm, pieces, ctx.entropy)?;
    let tail = [back.to_vec(), algorithm.encode(), der::write_bits(&signature).to_vec()].concat();
    let head = [der::header(der::SEQUENCE, front.len() + entries_len + tail.len()), front].concat();
    let signed = SignedList { number: lists.number, this_update, next_update, head, tail, slices };
    match kind {
        Kind::Complete => {
            lists.complete = Some(signed);
            lists.delta = None;
        }
        Kind::Delta => lists.delta = Some(signed),
    }
    ctx.storage.put_record(&lists_key(set), &lists)?;
    // There is always a delta: an empty one where none is wanted, as clients expect to read one.
    if kind == Kind::Complete { build(call, set, Kind::Delta) } else { Ok(()) }
}

fn covered(ctx: &Ctx<'_>, set: &str, slice: Slice) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let bytes = part(ctx, set, slice.0)?;
    let covered = bytes.get(slice.1..slice.2);
    covered
        .map(|covered| Zeroizing::new(covered.to_vec()))
        .ok_or_else(|| EngineError::Bug("a part of a list of revoked certificates is cut".to_owned()))
}

/// A signed list of a set, in DER.
pub(super) fn read(ctx: &Ctx<'_>, set: &str, kind: Kind) -> Result<Option<Vec<u8>>, EngineError> {
    let lists = load(ctx, set)?;
    let signed = match kind {
        Kind::Complete => lists.complete,
        Kind::Delta => lists.delta,
    };
    let Some(signed) = signed else { return Ok(None) };
    let mut out = signed.head;
    for slice in signed.slices {
        out.extend_from_slice(&covered(ctx, set, slice)?);
    }
    out.extend_from_slice(&signed.tail);
    Ok(Some(out))
}

fn sets(ctx: &Ctx<'_>) -> Result<Vec<String>, EngineError> {
    let mut sets: Vec<String> = issuers::all(ctx)?.iter().map(|issuer| issuer.set.clone()).collect();
    sets.sort();
    sets.dedup();
    Ok(sets)
}

/// Signs the lists of issuers that have none yet, or that could not sign theirs when it was due.
pub(super) fn build_missing(call: &Call<'_>) -> Result<(), EngineError> {
    revoke::catch_up(call)?;
    let config = crl_config::of(call.ctx)?;
    for set in sets(call.ctx)? {
        if load(call.ctx, &set)?.is_behind(&config) {
            build(call, &set, Kind::Complete)?;
        }
    }
    Ok(())
}

/// Signs every list anew.
pub(super) fn build_all(call: &Call<'_>) -> Result<(), EngineError> {
    revoke::catch_up(call)?;
    sets(call.ctx)?.iter().try_for_each(|set| build(call, set, Kind::Complete))
}

/// `crl/rotate`.
pub(super) fn rotate(call: &Call<'_>) -> Result<Response, EngineError> {
    build_all(call)?;
    let mut response = Response::data(json!({ "success": true }));
    for ids in unsigned(call.ctx)? {
        response = response.with_warning(format!(
            "no issuer with this name and key may sign lists of revoked certificates (usage crl-signing), so \
             their list was not signed anew: {ids}"
        ));
    }
    Ok(response)
}

/// The ids of issuers whose lists nobody may sign though there is a key for it, a text a set.
fn unsigned(ctx: &Ctx<'_>) -> Result<Vec<String>, EngineError> {
    let (all, mut out) = (issuers::all(ctx)?, Vec::new());
    for set in sets(ctx)? {
        let members: Vec<_> = all.iter().filter(|issuer| issuer.set == set).collect();
        let has_key = members.iter().any(|issuer| !issuer.record.key_id.is_empty());
        if has_key && !is_signed(ctx, &set)? {
            let ids: Vec<&str> = members.iter().map(|issuer| issuer.record.id.as_str()).collect();
            out.push(ids.join(", "));
        }
    }
    Ok(out)
}

/// `crl/rotate-delta`.
pub(super) fn rotate_delta(call: &Call<'_>) -> Result<Response, EngineError> {
    let response = Response::data(json!({ "success": true }));
    if !crl_config::of(call.ctx)?.enable_delta {
        return Ok(response
            .with_warning("requested rebuild of delta CRL when delta CRL is not enabled; this is a no-op"));
    }
    for set in sets(call.ctx)? {
        build(call, &set, Kind::Delta)?;
    }
    Ok(response)
}

/// Signs what is due: lists about to expire, deltas that something was added since, and lists that a revoked issuer is put
/// on because another cluster revoked it. Only so many at once.
pub(super) fn tick(call: &Call<'_>) -> Result<(), EngineError> {
    revoke::catch_up(call)?;
    let config = crl_config::of(call.ctx)?;
    let now = call.now();
    // Without automatic rebuilding a list that nothing is added to would expire; it is renewed as well.
    let grace_seconds = config.auto_rebuild_grace_period.as_secs().min(config.expiry.as_secs() / 2);
    let due = now.after(std::time::Duration::from_secs(grace_seconds));
    let mut built = 0;
    for set in sets(call.ctx)? {
        if built >= BUILDS_MAX {
            break;
        }
        if signing_issuer(call.ctx, &set)?.is_none() {
            continue;
        }
        let lists = load(call.ctx, &set)?;
        let is_ending = lists.complete.as_ref().is_some_and(|complete| complete.next_update <= due);
        if is_ending || lists.is_behind(&config) {
            build(call, &set, Kind::Complete)?;
            built += 1;
        } else if config.enable_delta && is_delta_due(&lists, &config, now) {
            build(call, &set, Kind::Delta)?;
            built += 1;
        }
    }
    Ok(())
}

fn is_delta_due(lists: &Lists, config: &CrlConfig, now: UnixMillis) -> bool {
    let Some(delta) = &lists.delta else { return true };
    let age_seconds = now.since(delta.this_update).as_secs();
    let has_more = delta.slices != lists.slices(Kind::Delta, config);
    (has_more && age_seconds >= config.delta_rebuild_interval.as_secs())
        || age_seconds >= config.expiry.as_secs() / 2
}

/// Forgets the lists of a set that no issuer belongs to and that has no entries.
pub(super) fn forget_unused(ctx: &Ctx<'_>) -> Result<(), EngineError> {
    let used = sets(ctx)?;
    for set in ctx.storage.list("crl/", &Page::default())? {
        if !used.contains(&set) && load(ctx, &set)?.parts.is_empty() {
            ctx.storage.delete(&lists_key(&set))?;
        }
    }
    Ok(())
}

/// A list in PEM.
pub(super) fn pem(list: &[u8]) -> String {
    der::pem("X509 CRL", list).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_only_grow() {
        let check = |last, now_ms, expected| {
            assert_eq!(next_number(last, UnixMillis(now_ms)), expected, "{last} {now_ms}");
        };
        check(0, 1_800_000_000_999, 1_800_000_000);
        // One made before numbers followed the clock.
        check(17, 1_800_000_000_000, 1_800_000_000);
        check(1_800_000_000, 1_800_000_000_000, 1_800_000_001);
        // More than one a second, and a clock that was set back.
        check(1_800_000_500, 1_800_000_001_000, 1_800_000_501);
        check(1_800_000_000, 5_000, 1_800_000_001);
        check(0, 0, 1);
    }
}
