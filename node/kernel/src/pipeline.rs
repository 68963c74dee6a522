//! The road every request takes: who asks, where it goes, whether it may, what it did.
//!
//! **Invariant:** no other file calls an engine's `handle`, so nothing runs unchecked or unaudited; a request makes
//! at most one Raft entry. A conflict runs the request again on fresh state, decisions included; the audit log hears
//! of it once.
//! Futures on the road of a request are pinned where they are awaited: by value they are moved twice, and they are large.
//! Read next: [`crate::admission`] for the decisions, [`crate::grants`] for tokens, leases and wrapping,
//! `replication/ask.rs` for what a performance secondary has done at its primary.

use std::pin::pin;
use std::time::Duration;

use arca_danger::Bug;
use arca_engine_api::{EngineError, Fault, Operation, Response, StorageError};
use arca_raft_storage::Committed;
use tracing::Instrument as _;

use crate::admission::{Admitted, Asked};
use crate::answer::{Answer, AnswerBody, Shape};
use crate::builtin::{After, BuiltinAnswer, Done};
use crate::contention::Turn;
use crate::help;
use crate::index_header::Stated;
use crate::intents::Errand;
use crate::kernel::Kernel;
use crate::leases::LeaseEntry;
use crate::tokens::lifetime::seconds;
use crate::tx::{Mode, Tx};
use crate::{Incoming, KernelError};

/// Times one request is run before giving up on conflicts.
const ATTEMPTS_MAX: u32 = 32;
/// Attempts after which a short, random pause is made before the next.
const ATTEMPTS_AT_ONCE: u32 = 4;
/// Longest wait for a state the client has seen.
const STATE_PATIENCE: Duration = Duration::from_secs(2);

/// What running a request gave, before it is committed.
///
/// Boxes, as it goes from hand to hand: what is held across an await is moved with the request's future.
pub(crate) struct Ran {
    pub(crate) answer: Box<Answer>,
    pub(crate) after: Option<After>,
    /// What its engine intends to do outside, once this is committed; the answer is made then.
    pub(crate) errand: Option<Box<Errand>>,
}

impl Ran {
    /// An answer as it is.
    pub(crate) fn answered(answer: Answer, after: Option<After>) -> Self {
        Self { answer: Box::new(answer), after, errand: None }
    }
}

/// A request that ran, with what it staged committed.
struct Attempted {
    ran: Ran,
    committed: Option<Committed>,
}

impl Kernel {
    /// Serves one request.
    ///
    /// # Errors
    /// [`KernelError::fault`] says what the caller can do. `NeedsActive` comes before anything was done or audited,
    /// except when leadership was lost on the way, and then nothing was written.
    pub async fn handle(&self, incoming: Incoming) -> Result<Box<Answer>, KernelError> {
        let span = tracing::info_span!("request", request_id = %incoming.id);
        // Pinned first: what is wrapped in a span is moved, and this is large.
        let serving = pin!(self.serve(incoming));
        serving.instrument(span).await
    }

    async fn serve(&self, incoming: Incoming) -> Result<Box<Answer>, KernelError> {
        let _inside = self.enter()?;
        self.check_door(&incoming)?;
        let _shown = self.in_flight.enter(&incoming, self.clock.now());
        let mut asked = Asked::new(incoming);
        if !asked.incoming.allows_stale {
            self.store.read_barrier().await?;
        }
        self.await_stated(&asked.incoming).await?;
        pin!(self.serve_asked(&mut asked)).await
    }

    /// Decides and runs, until nothing gets in between.
    pub(crate) async fn serve_asked(&self, asked: &mut Asked) -> Result<Box<Answer>, KernelError> {
        let mut turn = None;
        for attempt in 0..ATTEMPTS_MAX {
            let tx = self.store.begin(Mode::ReadOnly);
            self.audit.refresh(&tx, self.watches.changed_at(crate::watch::Topic::Audit))?;
            let mut admitted = self.admit(&tx, asked)?;
            if !self.is_active() && self.is_for_active(asked, &admitted) {
                return Err(KernelError::NeedsActive);
            }
            if attempt == 0 {
                pin!(self.audit_request(asked, &admitted)).await?;
            }
            let attempted = pin!(self.attempt(tx, asked, &mut admitted)).await;
            let result = match attempted {
                Err(err) if err.is_conflict() => {
                    metrics::counter!("vault.core.conflicts").increment(1);
                    asked.data = std::mem::take(&mut admitted.request.data);
                    turn = self.before_another(attempt, turn, &err).await;
                    continue;
                }
                Err(
                    err @ (KernelError::NeedsEntity(_) | KernelError::NeedsPrimary | KernelError::Doubtful),
                ) => {
                    drop(turn.take());
                    match Box::pin(self.turn_to_primary(asked, &mut admitted, err)).await {
                        Ok(None) => continue,
                        Ok(Some(answer)) => Ok(answer),
                        Err(err) => Err(err),
                    }
                }
                attempted => {
                    drop(turn); // What it was for is committed: nobody waits for what happens outside.
                    match attempted {
                        Ok(attempted) => self.complete(asked, &admitted, attempted).await,
                        Err(err) => Err(err),
                    }
                }
            };
            pin!(self.audit_response(asked, &admitted, &result)).await?;
            return result;
        }
        Box::pin(self.give_up(asked)).await
    }

    /// Has the primary of a performance secondary do its part. `None` when the request is to be run again after that.
    async fn turn_to_primary(
        &self,
        asked: &mut Asked,
        admitted: &mut Admitted,
        needs: KernelError,
    ) -> Result<Option<Box<Answer>>, KernelError> {
        let is_doubtful = matches!(needs, KernelError::Doubtful);
        if let KernelError::NeedsEntity(question) = needs {
            self.learn_entity(asked, *question).await?;
        } else {
            match self.run_at_primary(asked, admitted).await {
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) => {}
                // What the state here says is all that can be said.
                Err(KernelError::NoPrimary { .. }) if is_doubtful => {}
                Err(err) => return Err(err),
            }
            asked.is_ours = true;
        }
        asked.data = std::mem::take(&mut admitted.request.data);
        Ok(None)
    }

    /// Waits after a conflict until another attempt is worth making.
    async fn before_another<'a>(
        &'a self,
        attempt: u32,
        turn: Option<Turn<'a>>,
        conflict: &KernelError,
    ) -> Option<Turn<'a>> {
        if turn.is_none() {
            pause(self, attempt).await;
        }
        let KernelError::Conflict { changed: Some(changed) } = conflict else { return turn };
        self.contention.next_turn(turn, changed).await
    }

    /// A standby passes on what writes; one that answers from what it has also passes on every refusal, since it
    /// may not have heard of the token or the policy yet.
    fn is_for_active(&self, asked: &Asked, admitted: &Admitted) -> bool {
        admitted.needs_active(asked)
            || (admitted.asks_active() && self.can_ask_active())
            || (asked.incoming.allows_stale && admitted.refusal.is_some())
    }

    async fn give_up(&self, asked: &mut Asked) -> Result<Box<Answer>, KernelError> {
        let tx = self.store.begin(Mode::ReadOnly);
        let admitted = self.admit(&tx, asked)?;
        let result = Err(KernelError::Contention);
        self.audit_response(asked, &admitted, &result).await?;
        result
    }

    /// Waits for the states the client has seen.
    async fn await_stated(&self, incoming: &Incoming) -> Result<(), KernelError> {
        if incoming.required_index.is_empty() {
            return Ok(());
        }
        let Some(header) = self.index_header()? else { return Err(self.behind(incoming)) };
        for value in &incoming.required_index {
            let (local, shared) = match header.read(value)? {
                Stated::Ours { local, shared } => (Some(local), Some(shared)),
                Stated::Others { shared } => (None, Some(shared)),
                Stated::Foreign => (None, None),
            };
            if let Some(index) = local {
                let waiting = self.store.replica().await_applied(index, STATE_PATIENCE);
                waiting.await.map_err(|_| self.behind(incoming))?;
            }
            if let Some(index) = shared.filter(|_| self.is_performance_secondary()) {
                self.await_shared(incoming, index).await?;
            }
        }
        Ok(())
    }

    /// Waits for a state of the primary.
    async fn await_shared(&self, incoming: &Incoming, index: u64) -> Result<(), KernelError> {
        let port = self.cluster.replication().ok_or(KernelError::Sealed)?;
        let arrived = port.await_primary(index, STATE_PATIENCE).await?;
        if arrived { Ok(()) } else { Err(self.behind(incoming)) }
    }

    /// `X-Vault-Index` for a state: of this cluster, and of its primary if it has one.
    pub(crate) fn stated(&self, local: u64, shared: Option<u64>) -> Result<Option<String>, KernelError> {
        let of_primary = || self.cluster.replication().and_then(|port| port.primary_index());
        let shared = match shared {
            Some(shared) => shared,
            None if self.is_performance_secondary() => of_primary().unwrap_or_default(),
            None => local,
        };
        Ok(self.index_header()?.and_then(|header| header.write(local, shared)))
    }

    /// A state the client has seen is not here in time.
    fn behind(&self, incoming: &Incoming) -> KernelError {
        if incoming.forwards_when_behind && !self.is_active() {
            KernelError::NeedsActive
        } else {
            KernelError::NotYet
        }
    }

    /// Runs an admitted request once and commits what it staged.
    async fn attempt(
        &self,
        tx: Tx,
        asked: &Asked,
        admitted: &mut Admitted,
    ) -> Result<Attempted, KernelError> {
        if let Some(refusal) = admitted.refusal.take() {
            self.spend_refused(&tx, admitted).await?;
            return Err(refusal);
        }
        let may_only_read = !admitted.writes() && asked.incoming.wrap_ttl.is_none() && asked.behalf.is_none();
        if may_only_read && !self.takes_use(admitted) {
            match pin!(self.run(&tx, asked, admitted)).await {
                Err(err) if is_read_only(&err) && self.is_active() => {}
                Err(err) if is_read_only(&err) => return Err(KernelError::NeedsActive),
                other => return other.map(|ran| Attempted { ran, committed: None }),
            }
        }
        // Boxed, or reads would carry its room about.
        Box::pin(self.write(tx.writing(), asked, admitted)).await
    }

    /// Runs an admitted request with leave to write.
    async fn write(&self, tx: Tx, asked: &Asked, admitted: &Admitted) -> Result<Attempted, KernelError> {
        if let Some(mount) = &admitted.mount {
            let (key, version) = &mount.guard;
            tx.guard(key, *version);
        }
        self.hold_existence(&tx, asked, admitted)?;
        self.spend(&tx, admitted)?;
        let changes = tx.changes();
        let ran = self.run(&tx, asked, admitted).await;
        if let Some(needs) = self.is_for_primary(&tx, asked, admitted, &ran, changes) {
            return Err(needs);
        }
        let mut ran = match ran {
            Ok(_) if asked.behalf.is_some() && !tx.writes_shared() => return Err(KernelError::NothingShared),
            Ok(ran) => ran,
            Err(err @ KernelError::NeedsEntity(_)) => return Err(err),
            Err(err) => {
                self.spend_refused(&tx, admitted).await?;
                return Err(err);
            }
        };
        if arca_danger::is(Bug::AnswerBeforeCommit) {
            let store = self.store.clone();
            tokio::spawn(async move { store.commit(tx).await });
            return Ok(Attempted { ran, committed: None });
        }
        if let (Some(errand), Some(mount)) = (&mut ran.errand, admitted.mount.as_deref())
            && arca_danger::is(Bug::EffectBeforeIntent)
        {
            errand.acted = Some(self.carry_out(mount, &errand.intent).await);
        }
        let committed = self.store.commit(tx).await?;
        Ok(Attempted { ran, committed })
    }

    /// What follows the commit. Nothing of it runs the request again.
    async fn complete(
        &self,
        asked: &Asked,
        admitted: &Admitted,
        attempted: Attempted,
    ) -> Result<Box<Answer>, KernelError> {
        let Attempted { ran, committed } = attempted;
        match ran {
            Ran { answer, after: None, errand: None } if committed.is_none() => Ok(answer),
            Ran { errand: Some(errand), .. } => {
                // Boxed, or all others would carry its room about.
                let (ran, concluded) = Box::pin(self.run_errand(asked, admitted, *errand)).await?;
                self.finish(asked, ran, concluded.or(committed)).await
            }
            ran => self.finish(asked, ran, committed).await,
        }
    }

    /// Does what had to wait for the commit, and names the state the client has seen.
    async fn finish(
        &self,
        asked: &Asked,
        ran: Ran,
        committed: Option<Committed>,
    ) -> Result<Box<Answer>, KernelError> {
        let Ran { mut answer, after, errand: _ } = ran;
        let written_by = if after.is_some() { None } else { committed };
        if let Some(after) = after {
            let Done { response, wrap_info } = after(self).await?;
            answer.data = response.data.or(answer.data);
            answer.warnings.extend(response.warnings);
            answer.wrap_info = wrap_info.or(answer.wrap_info);
        }
        if let Some(committed) = committed {
            answer.index = self.stated(committed.index, None)?;
        }
        if let Some(behalf) = &asked.behalf {
            behalf.note_written(written_by.map_or_else(|| self.applied_index(), |committed| committed.index));
        }
        Ok(answer)
    }

    /// Calls the engine or the built-in path, then adds what the kernel owes its answer.
    async fn run(&self, tx: &Tx, asked: &Asked, admitted: &Admitted) -> Result<Ran, KernelError> {
        let bug = || KernelError::Bug("an admitted request has no route".to_owned());
        let mount = admitted.mount.as_ref().ok_or_else(bug)?;
        if admitted.request.operation == Operation::Help {
            let tables = self.tables(mount)?;
            let answer = help::answer(mount, &tables, admitted.found.as_ref(), &admitted.request)?;
            return Ok(Ran::answered(answer, None));
        }
        let found = admitted.found.ok_or_else(bug)?;
        let mut answer = match found.group.and_then(|at| self.groups(mount).get(at)) {
            Some(group) => group.handle(&self.builtin_ctx(tx, asked, admitted), &admitted.request).await?,
            None => {
                let response = pin!(self.call_engine(tx, asked, admitted)).await?;
                if response.intent.is_some() {
                    return self.intend(tx, asked, admitted, response);
                }
                response.into()
            }
        };
        warn_of_fields(&mut answer, admitted);
        self.grant(tx, asked, admitted, answer)
    }

    async fn call_engine(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
    ) -> Result<Response, KernelError> {
        let Some(mount) = &admitted.mount else {
            return Err(KernelError::Bug("an engine is called without a mount".to_owned()));
        };
        let called = self.call(tx, mount)?;
        let ctx = called.ctx();
        // A login for a secondary was watched there.
        let watched = asked.behalf.is_none();
        let tried = if watched { pin!(self.watch_login(tx, admitted, called.engine())).await? } else { None };
        let answered = called.engine().handle(&ctx, &admitted.request).await;
        if let Some(tried) = tried {
            self.settle_login(tx, &tried, &answered)?;
        }
        Ok(answered?)
    }
}

/// After several conflicts in a row, a random wait that grows with their number.
async fn pause(kernel: &Kernel, attempt: u32) -> Option<()> {
    let steps = u64::from(attempt.checked_sub(ATTEMPTS_AT_ONCE)?);
    let mut byte = [0_u8];
    kernel.entropy.fill(&mut byte).ok()?;
    let [byte] = byte;
    tokio::time::sleep(Duration::from_micros(200 + u64::from(byte) * 20 * (steps + 1))).await;
    Some(())
}

fn is_read_only(err: &KernelError) -> bool {
    err.fault() == Fault::NeedsActive
        && matches!(
            err,
            KernelError::Storage(StorageError::ReadOnly)
                | KernelError::Engine(EngineError::Storage(StorageError::ReadOnly))
                | KernelError::NeedsActive
        )
}

/// Tells of fields that count for nothing: unknown ones, and those whose place is taken by what the path says. An answer
/// that has nothing else to say stays without.
pub(crate) fn warn_of_fields(answer: &mut BuiltinAnswer, admitted: &Admitted) {
    let Some(found) = admitted.found else { return };
    let BuiltinAnswer { response, auth, lease, wrap_info, .. } = answer;
    let is_lease = lease.is_some() || response.lease.is_some();
    let says_something = response.data.is_some()
        || !response.warnings.is_empty()
        || response.login.is_some()
        || (auth.is_some() || is_lease || wrap_info.is_some());
    if found.route.takes_any_field || !says_something {
        return;
    }
    let is_list = matches!(admitted.request.operation, Operation::List | Operation::Scan);
    let is_known = |name: &str| {
        found.route.fields.iter().any(|field| field.name == name)
            || (is_list && matches!(name, "after" | "limit"))
    };
    let (mut unknown, mut replaced) = (Vec::new(), Vec::new());
    for (name, value) in &admitted.request.data {
        if in_pattern(found.route.pattern, name) {
            let is_replaced = !admitted.request.param(name).is_empty() && !value.is_null();
            replaced.extend(is_replaced.then_some(name.as_str()));
        } else if !is_known(name) {
            unknown.push(name.as_str());
        }
    }
    if !unknown.is_empty() {
        let text = format!("Endpoint ignored these unrecognized parameters: [{}]", unknown.join(" "));
        response.warnings.push(text);
    }
    if !replaced.is_empty() {
        response.warnings.push(format!(
            "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [{}]",
            replaced.join(" ")
        ));
    }
}

/// Whether a pattern captures something of that name.
fn in_pattern(pattern: &str, name: &str) -> bool {
    pattern.split('/').any(|segment| {
        let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        inner.is_some_and(|inner| inner.trim_end_matches(['.', '%', '?']) == name)
    })
}

/// The answer as far as the response alone decides it.
pub(crate) fn answer_of(
    asked: &Asked,
    admitted: &Admitted,
    answer: BuiltinAnswer,
) -> (Answer, Option<After>) {
    let BuiltinAnswer { response, shape, auth: _, lease, wrap_info, stream, after } = answer;
    let body = match (stream, response.raw) {
        (Some((content_type, stream)), _) => AnswerBody::Stream(content_type, stream.into()),
        (None, Some(raw)) => AnswerBody::Raw(raw),
        (None, None) => AnswerBody::Json,
    };
    let shown = lease.as_ref().map(LeaseEntry::granted_seconds);
    let answer = Answer {
        request_id: asked.incoming.id.clone(),
        lease_id: lease.as_ref().map(|lease| lease.id.clone()).unwrap_or_default(),
        is_renewable: lease.as_ref().is_some_and(|lease| lease.is_renewable),
        lease_duration: shown.or(response.lease_duration_hint.map(seconds)).unwrap_or_default(),
        data: response.data,
        accessor: response.accessor,
        warnings: response.warnings,
        mount_type: admitted.mount.as_ref().map_or_else(String::new, |mount| mount.record.engine.clone()),
        shape: if matches!(body, AnswerBody::Json) { shape } else { Shape::Envelope },
        is_missing: response.is_missing,
        status: response.status,
        wrap_info,
        body,
        ..Answer::default()
    };
    (answer, after)
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
