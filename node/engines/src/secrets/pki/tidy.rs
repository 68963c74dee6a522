//! Tidying: what ended long enough ago goes, a bounded number of entries at a time.
//!
//! A run is a record of what is asked, how far it has come and what it did. The request that starts it takes the first
//! step, each tick another, and more follow behind the tick; so a run goes on after a failover, and a step is one entry of
//! the log.

use std::collections::BTreeSet;
use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, Operation, Page, Response, StorageExt as _, UnixMillis, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Call;
use super::issuer_paths::short_duration;
use super::x509::{certificate, time};
use super::{config, crl, issuers, names, output, revoke, store};

const RUN: &str = "tidy/run";
const AUTO: &str = "config/auto-tidy";
const LAYOUT: u8 = 1;
/// Entries looked at in one step, whatever `page_size` says.
const PAGE_MAX: usize = 2_000;
const NOTHING_ASKED: &str = "Enable at least one tidy operation to be run (tidy_cert_store / \
                             tidy_revoked_certs / tidy_invalid_certs / \
                             tidy_revoked_cert_issuer_associations / tidy_expired_issuers / \
                             tidy_move_legacy_ca_bundle / tidy_acme).";

/// What a run does. Spans are seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // They are the API's fields.
struct Settings {
    acme_account_safety_buffer: u64,
    issuer_safety_buffer: u64,
    page_size: u64,
    pause_duration: u64,
    revoked_safety_buffer: u64,
    safety_buffer: u64,
    tidy_acme: bool,
    tidy_cert_store: bool,
    tidy_expired_issuers: bool,
    tidy_invalid_certs: bool,
    tidy_move_legacy_ca_bundle: bool,
    tidy_revoked_cert_issuer_associations: bool,
    tidy_revoked_certs: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            acme_account_safety_buffer: 30 * 86_400,
            issuer_safety_buffer: 365 * 86_400,
            page_size: 1_000,
            pause_duration: 0,
            revoked_safety_buffer: 72 * 3_600,
            safety_buffer: 72 * 3_600,
            tidy_acme: false,
            tidy_cert_store: false,
            tidy_expired_issuers: false,
            tidy_invalid_certs: false,
            tidy_move_legacy_ca_bundle: false,
            tidy_revoked_cert_issuer_associations: false,
            tidy_revoked_certs: false,
        }
    }
}

impl Settings {
    fn take(&mut self, call: &Call<'_>) -> Result<(), EngineError> {
        let fields = call.fields();
        for (field, slot) in [
            ("tidy_acme", &mut self.tidy_acme),
            ("tidy_cert_store", &mut self.tidy_cert_store),
            ("tidy_expired_issuers", &mut self.tidy_expired_issuers),
            ("tidy_invalid_certs", &mut self.tidy_invalid_certs),
            ("tidy_move_legacy_ca_bundle", &mut self.tidy_move_legacy_ca_bundle),
            ("tidy_revoked_cert_issuer_associations", &mut self.tidy_revoked_cert_issuer_associations),
            ("tidy_revoked_certs", &mut self.tidy_revoked_certs),
        ] {
            if let Some(value) = fields.boolean(field)? {
                *slot = value;
            }
        }
        if fields.boolean("tidy_revocation_list")? == Some(true) {
            self.tidy_revoked_certs = true;
        }
        for (field, slot) in [
            ("acme_account_safety_buffer", &mut self.acme_account_safety_buffer),
            ("issuer_safety_buffer", &mut self.issuer_safety_buffer),
            ("revoked_safety_buffer", &mut self.revoked_safety_buffer),
            ("safety_buffer", &mut self.safety_buffer),
        ] {
            if let Some(value) = fields.duration(field)? {
                if value.as_secs() < 1 {
                    return Err(EngineError::Invalid(format!("{field} must be greater than zero")));
                }
                *slot = value.as_secs();
            }
        }
        if fields.has("safety_buffer") && !fields.has("revoked_safety_buffer") {
            self.revoked_safety_buffer = self.safety_buffer;
        }
        if let Some(span) = fields.duration("pause_duration")? {
            self.pause_duration = span.as_secs();
        }
        if let Some(size) = fields.integer("page_size")? {
            self.page_size = u64::try_from(size)
                .ok()
                .filter(|size| *size > 0)
                .ok_or_else(|| EngineError::invalid("page_size must be greater than zero"))?;
        }
        Ok(())
    }

    fn does_something(&self) -> bool {
        self.tidy_acme
            || self.tidy_cert_store
            || self.tidy_expired_issuers
            || self.tidy_invalid_certs
            || self.tidy_move_legacy_ca_bundle
            || self.tidy_revoked_cert_issuer_associations
            || self.tidy_revoked_certs
    }

    fn page(&self) -> usize {
        usize::try_from(self.page_size).unwrap_or(PAGE_MAX).min(PAGE_MAX)
    }
}

/// What a run is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Certificates, behind this serial number.
    #[default]
    Certificates,
    /// Revocations without an issuer.
    Orphans,
    /// The lists of a set, from one part to another. `None` before the first set.
    Lists(Option<(String, u64, u64)>),
    Issuers,
    Done,
}

/// A run, under way or over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    layout: u8,
    settings: Settings,
    state: String,
    phase: Phase,
    after: Option<String>,
    certificates_deleted: u64,
    revocations_deleted: u64,
    without_issuer: u64,
    started_at: UnixMillis,
    finished_at: Option<UnixMillis>,
    is_automatic: bool,
}

const RUNNING: &str = "Running";
const FINISHED: &str = "Finished";
const CANCELLED: &str = "Cancelled";

fn load(ctx: &Ctx<'_>) -> Result<Option<Run>, EngineError> {
    let run = ctx.storage.get_record::<Run>(RUN)?;
    if run.as_ref().is_some_and(|run| run.layout != LAYOUT) {
        return Err(EngineError::Bug("a record of tidying has an unknown layout".to_owned()));
    }
    Ok(run)
}

/// A warning with the status of work that goes on.
fn accepted(warning: &str) -> Response {
    let body = json!({
        "request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": null, "wrap_info": null, "warnings": [warning], "auth": null,
    });
    output::raw(202, "application/json", body.to_string().into_bytes())
}

/// `tidy`.
pub(super) fn start(call: &Call<'_>) -> Result<Response, EngineError> {
    if load(call.ctx)?.is_some_and(|run| run.state == RUNNING) {
        return Ok(accepted("Tidy operation already in progress."));
    }
    let mut settings = Settings::default();
    settings.take(call)?;
    if !settings.does_something() {
        return Ok(accepted(&format!(
            "Manual tidy requested but no tidy operations were set. {NOTHING_ASKED}"
        )));
    }
    begin(call, settings, false)?;
    Ok(accepted("Tidy operation successfully started. tidy-status shows how far it is."))
}

/// Begins a run with its first step, in which nothing shared is written: at a performance secondary the request would
/// run at the primary, and tidy there what each cluster has of its own.
fn begin(call: &Call<'_>, settings: Settings, is_automatic: bool) -> Result<(), EngineError> {
    let run = Run {
        layout: LAYOUT,
        settings,
        state: RUNNING.to_owned(),
        phase: Phase::default(),
        after: None,
        certificates_deleted: 0,
        revocations_deleted: 0,
        without_issuer: 0,
        started_at: call.now(),
        finished_at: None,
        is_automatic,
    };
    step(call, run, |phase| *phase != Phase::Issuers).map(drop)
}

/// `tidy-cancel`.
pub(super) fn cancel(call: &Call<'_>) -> Result<Response, EngineError> {
    let Some(mut run) = load(call.ctx)?.filter(|run| run.state == RUNNING) else {
        return Ok(Response::empty()
            .with_warning("Tidy operation cannot be cancelled as none is currently running."));
    };
    CANCELLED.clone_into(&mut run.state);
    run.finished_at = Some(call.now());
    call.ctx.storage.put_record(RUN, &run)?;
    status(call)
}

/// `tidy-status`.
pub(super) fn status(call: &Call<'_>) -> Result<Response, EngineError> {
    let run = load(call.ctx)?;
    let of = |value: &dyn Fn(&Run) -> Value| run.as_ref().map_or(Value::Null, value);
    let at = |moment: UnixMillis| json!(rfc3339::format(moment));
    let data = json!({
        "acme_account_deleted_count": of(&|_| json!(0)),
        "acme_account_revoked_count": of(&|_| json!(0)),
        "acme_orders_deleted_count": of(&|_| json!(0)),
        "total_acme_account_count": of(&|_| json!(0)),
        "cert_store_deleted_count": of(&|run| json!(run.certificates_deleted)),
        "current_cert_store_count": null,
        "current_revoked_cert_count": null,
        "error": null,
        "internal_backend_uuid": call.ctx.mount.uuid,
        "message": of(&|run| if run.state == RUNNING { json!(message(&run.phase)) } else { Value::Null }),
        "missing_issuer_cert_count": of(&|run| json!(run.without_issuer)),
        "revoked_cert_deleted_count": of(&|run| json!(run.revocations_deleted)),
        "state": run.as_ref().map_or("Inactive", |run| run.state.as_str()),
        "time_started": of(&|run| at(run.started_at)),
        "time_finished": of(&|run| run.finished_at.map_or(Value::Null, at)),
    });
    let settings = shown(&run.as_ref().map(|run| run.settings.clone()).unwrap_or_default());
    let mut data = output::object(data);
    for (name, value) in settings {
        data.insert(name, of(&|_| value.clone()));
    }
    let automatic = run.as_ref().filter(|run| run.is_automatic).and_then(|run| run.finished_at);
    output::put(&mut data, "last_auto_tidy_finished", automatic.map_or(Value::Null, at));
    Ok(output::answer(data, Vec::new()))
}

fn message(phase: &Phase) -> &'static str {
    match phase {
        Phase::Certificates => "Tidying certificate store",
        Phase::Orphans => "Tidying revoked certificates without an issuer",
        Phase::Lists(_) => "Tidying revoked certificates",
        Phase::Issuers => "Tidying expired issuers",
        Phase::Done => "Done",
    }
}

fn shown(settings: &Settings) -> arca_engine_api::Map {
    let mut shown = output::object(serde_json::to_value(settings).unwrap_or_default());
    output::put(&mut shown, "pause_duration", short_duration(settings.pause_duration));
    shown
}

/// What is tidied by itself, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Auto {
    enabled: bool,
    /// Seconds.
    interval_duration: u64,
    maintain_stored_certificate_counts: bool,
    publish_stored_certificate_count_metrics: bool,
    settings: Settings,
}

impl Default for Auto {
    fn default() -> Self {
        Self {
            enabled: false,
            interval_duration: 12 * 3_600,
            maintain_stored_certificate_counts: false,
            publish_stored_certificate_count_metrics: false,
            settings: Settings::default(),
        }
    }
}

/// `config/auto-tidy`.
pub(super) fn serve_auto(call: &Call<'_>) -> Result<Response, EngineError> {
    let mut auto = call.ctx.storage.get_record::<Auto>(AUTO)?.unwrap_or_default();
    if call.request.operation != Operation::Read {
        let fields = call.fields();
        for (field, slot) in [
            ("enabled", &mut auto.enabled),
            ("maintain_stored_certificate_counts", &mut auto.maintain_stored_certificate_counts),
            ("publish_stored_certificate_count_metrics", &mut auto.publish_stored_certificate_count_metrics),
        ] {
            if let Some(value) = fields.boolean(field)? {
                *slot = value;
            }
        }
        if let Some(span) = fields.duration("interval_duration")? {
            if span.as_secs() < 1 {
                return Err(EngineError::invalid("interval_duration must be greater than zero"));
            }
            auto.interval_duration = span.as_secs();
        }
        if auto.publish_stored_certificate_count_metrics && !auto.maintain_stored_certificate_counts {
            return Err(EngineError::invalid(
                "publish_stored_certificate_count_metrics needs maintain_stored_certificate_counts: what is not \
                 counted cannot be published",
            ));
        }
        auto.settings.take(call)?;
        if auto.enabled && !auto.settings.does_something() {
            return Err(EngineError::Invalid(format!(
                "Auto-tidy enabled but no tidy operations were requested. {NOTHING_ASKED}"
            )));
        }
        call.ctx.storage.put_record(AUTO, &auto)?;
    }
    let mut data = shown(&auto.settings);
    output::put(&mut data, "enabled", auto.enabled);
    output::put(&mut data, "interval_duration", auto.interval_duration);
    output::put(&mut data, "maintain_stored_certificate_counts", auto.maintain_stored_certificate_counts);
    output::put(
        &mut data,
        "publish_stored_certificate_count_metrics",
        auto.publish_stored_certificate_count_metrics,
    );
    Ok(output::answer(data, Vec::new()))
}

/// Goes on with a run, or begins one when it is time.
pub(super) fn tick(call: &Call<'_>) -> Result<(), EngineError> {
    let run = load(call.ctx)?;
    if let Some(run) = run.clone().filter(|run| run.state == RUNNING) {
        return step(call, run, |_| true).map(drop);
    }
    let auto = call.ctx.storage.get_record::<Auto>(AUTO)?.unwrap_or_default();
    let interval = Duration::from_secs(auto.interval_duration);
    let is_due = run.is_none_or(|run| call.now() >= run.started_at.after(interval));
    if auto.enabled && is_due { begin(call, auto.settings, true) } else { Ok(()) }
}

/// Takes another step of a run that is under way, and answers how long it is to rest then. Nothing if there is none, or if
/// that was the last.
pub(super) fn go_on(call: &Call<'_>) -> Result<Option<Duration>, EngineError> {
    let Some(run) = load(call.ctx)?.filter(|run| run.state == RUNNING) else { return Ok(None) };
    let pause = Duration::from_secs(run.settings.pause_duration);
    Ok(step(call, run, |_| true)?.then_some(pause))
}

/// One step of a run, stored with what it did; says whether there is more to do. Phases with nothing to do take no step. A
/// phase that `may_run` does not let run is left to the next step.
fn step(call: &Call<'_>, mut run: Run, may_run: fn(&Phase) -> bool) -> Result<bool, EngineError> {
    loop {
        if run.phase == Phase::Issuers && !run.settings.tidy_expired_issuers {
            run.phase = Phase::Done;
        }
        if !may_run(&run.phase) {
            break;
        }
        let has_worked = match run.phase.clone() {
            Phase::Certificates => certificates(call, &mut run)?,
            Phase::Orphans => orphans(call, &mut run)?,
            Phase::Lists(at) => lists(call, &mut run, at)?,
            Phase::Issuers => expired_issuers(call, &mut run)?,
            Phase::Done => {
                if run.settings.tidy_expired_issuers {
                    crl::forget_unused(call.ctx)?;
                }
                FINISHED.clone_into(&mut run.state);
                run.finished_at = Some(call.now());
                break;
            }
        };
        if has_worked {
            break;
        }
    }
    call.ctx.storage.put_record(RUN, &run)?;
    Ok(run.state == RUNNING)
}

fn is_over(call: &Call<'_>, not_after: UnixMillis, buffer_seconds: u64) -> bool {
    not_after.after(Duration::from_secs(buffer_seconds)) < call.now()
}

/// The next serial numbers of a folder; moves on to `next` behind the last.
fn page(call: &Call<'_>, run: &mut Run, folder: &str, next: Phase) -> Result<Vec<Vec<u8>>, EngineError> {
    let limit = run.settings.page();
    let names = call.ctx.storage.list(folder, &Page { after: run.after.take(), limit: Some(limit) })?;
    if names.len() < limit {
        run.phase = next;
    } else {
        run.after = names.last().cloned();
    }
    Ok(names.iter().filter_map(|name| names::from_hex(name)).collect())
}

fn certificates(call: &Call<'_>, run: &mut Run) -> Result<bool, EngineError> {
    if !run.settings.tidy_cert_store && !run.settings.tidy_invalid_certs {
        run.phase = Phase::Orphans;
        return Ok(false);
    }
    let serials = page(call, run, store::CERTIFICATES, Phase::Orphans)?;
    for serial in &serials {
        let Some(der) = store::find(call.ctx, serial)? else { continue };
        let is_to_go = match certificate::parse(&der) {
            Ok(parsed) => {
                let not_after = time::moment(&parsed.tbs_certificate.validity.not_after);
                run.settings.tidy_cert_store && is_over(call, not_after, run.settings.safety_buffer)
            }
            Err(_) => run.settings.tidy_invalid_certs,
        };
        // A revoked one stays as long as its revocation, which is tidied by its own rule.
        if is_to_go && store::revocation_of(call.ctx, serial, &der)?.is_none() {
            store::delete(call.ctx, serial)?;
            run.certificates_deleted += 1;
        }
    }
    // A small store is no step of its own.
    Ok(serials.len() * 2 > run.settings.page())
}

fn orphans(call: &Call<'_>, run: &mut Run) -> Result<bool, EngineError> {
    if !run.settings.tidy_revoked_certs && !run.settings.tidy_revoked_cert_issuer_associations {
        run.phase = Phase::Lists(None);
        return Ok(false);
    }
    let serials = page(call, run, store::ORPHANS, Phase::Lists(None))?;
    // Signed once behind all of them: a list may be long.
    let mut added = BTreeSet::new();
    for serial in &serials {
        let Some(revocation) = store::revocation(call.ctx, "", serial)? else { continue };
        let is_to_go = run.settings.tidy_revoked_certs
            && is_over(call, revocation.not_after, run.settings.revoked_safety_buffer);
        if is_to_go {
            forget(call, run, "", serial)?;
            continue;
        }
        let set = if run.settings.tidy_revoked_cert_issuer_associations {
            revoke::associate(call, serial, &revocation)?
        } else {
            None
        };
        match set {
            Some(set) => drop(added.insert(set)),
            None => run.without_issuer += 1,
        }
    }
    revoke::sign_lists(call, &added)?;
    Ok(!serials.is_empty())
}

/// Removes a revocation, and the certificate with it unless that is another of the same serial number.
fn forget(call: &Call<'_>, run: &mut Run, set: &str, serial: &[u8]) -> Result<(), EngineError> {
    let revocation = store::revocation(call.ctx, set, serial)?;
    let stored = store::find(call.ctx, serial)?;
    let is_its = |der: &[u8]| revocation.is_some_and(|found| found.certificate == issuers::digest(&[der]));
    if stored.is_some_and(|der| is_its(&der)) {
        store::delete(call.ctx, serial)?;
    }
    store::delete_revocation(call.ctx, set, serial)?;
    run.revocations_deleted += 1;
    Ok(())
}

/// CVE-2021-29653: only what ended, and by the buffer, leaves a list; everything else is signed again.
fn lists(call: &Call<'_>, run: &mut Run, at: Option<(String, u64, u64)>) -> Result<bool, EngineError> {
    if !run.settings.tidy_revoked_certs {
        run.phase = Phase::Issuers;
        return Ok(false);
    }
    let (set, from, end) = match at {
        Some(at) => at,
        None => match next_set(call, None)? {
            Some(at) => at,
            None => {
                run.phase = Phase::Issuers;
                return Ok(false);
            }
        },
    };
    let buffer = run.settings.revoked_safety_buffer;
    let mut gone = Vec::new();
    let next = crl::sweep(call, &set, from, end, &mut |serial| {
        let is_to_go = match store::revocation(call.ctx, &set, serial)? {
            Some(revocation) => is_over(call, revocation.not_after, buffer),
            None => false,
        };
        if is_to_go {
            gone.push(serial.to_vec());
        }
        Ok(is_to_go)
    })?;
    for serial in &gone {
        forget(call, run, &set, serial)?;
    }
    let has_more = next.is_some();
    run.phase = match next {
        Some(next) => Phase::Lists(Some((set, next, end))),
        None => match next_set(call, Some(set))? {
            Some(at) => Phase::Lists(Some(at)),
            None => Phase::Issuers,
        },
    };
    // Small lists are no steps of their own.
    Ok(has_more || gone.len() > 500)
}

fn next_set(call: &Call<'_>, after: Option<String>) -> Result<Option<(String, u64, u64)>, EngineError> {
    let sets = call.ctx.storage.list("crl/", &Page { after, limit: Some(1) })?;
    let Some(set) = sets.into_iter().next() else { return Ok(None) };
    let end = crl::sweep_end(call.ctx, &set)?;
    Ok(Some((set, 0, end)))
}

/// Issuers are shared, unlike all else that is tidied. At a performance secondary what this removes is not kept, but the
/// rest of the step is: so nothing local may follow from it in the same step.
fn expired_issuers(call: &Call<'_>, run: &mut Run) -> Result<bool, EngineError> {
    run.phase = Phase::Done;
    let default = config::default_issuer(call.ctx)?;
    let mut has_removed = false;
    for issuer in issuers::all(call.ctx)? {
        let is_default = issuer.record.id == default;
        if !is_default && is_over(call, issuer.not_after, run.settings.issuer_safety_buffer) {
            issuers::remove(call.ctx, &issuer)?;
            has_removed = true;
        }
    }
    if has_removed {
        issuers::rebuild_chains(call.ctx)?;
    }
    Ok(has_removed)
}
