//! What an engine does to the outside world, between two commits: the first records what is about to be done, the
//! second what came of it.
//!
//! **Invariant:** whatever was begun outside is known here before it begins. A lease granted with an intent stands in
//! the time index for the moment by which acting has ended for certain; a crash before the second commit leaves it
//! there, to be revoked, and a revocation in between waits for that moment, so that nothing is made after it was undone.

use std::time::Duration;

use arca_engine_api::{EngineError, Map, Response, StorageError};
use arca_raft_storage::{Committed, ProposeError};
use futures::StreamExt as _;

use crate::KernelError;
use crate::admission::{Admitted, Asked};
use crate::answer::Answer;
use crate::builtin::BuiltinAnswer;
use crate::calling::{Acted, CARRY_OUT_PATIENCE};
use crate::kernel::Kernel;
use crate::leases::LeaseEntry;
use crate::pipeline::{Ran, warn_of_fields};
use crate::replication::{EntityKnown, no_lease};
use crate::router::Mount;
use crate::tx::{Mode, Tx};

/// From an intent's commit to the moment by which nothing of it is under way any more: the time engines have, and as
/// much again for the system behind them to notice.
pub(crate) const SETTLED_AFTER: Duration = CARRY_OUT_PATIENCE.saturating_mul(2);
/// Times a conclusion is repeated on conflicts.
const ATTEMPTS_MAX: usize = 32;
/// Intents of one tick carried out at the same time.
const AT_ONCE: usize = 16;

/// What is to be done once the first commit is through.
pub(crate) struct Errand {
    pub(crate) intent: Map,
    pub(crate) warnings: Vec<String>,
    pub(crate) lease: Option<LeaseEntry>,
    /// What came of it, if it is done already: never before the commit, but for a planted fault.
    pub(crate) acted: Option<Acted>,
}

impl Kernel {
    /// Stages what an intent must not begin without: its lease, not confirmed yet.
    pub(crate) fn intend(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
        response: Response,
    ) -> Result<Ran, KernelError> {
        let Response { intent, lease, mut warnings, .. } = response;
        let (Some(intent), Some(mount)) = (intent, admitted.mount.as_deref()) else {
            return Err(KernelError::Bug("no intent, or no mount".to_owned()));
        };
        if tx.mode() == Mode::ReadOnly {
            return Err(StorageError::ReadOnly.into());
        }
        if asked.behalf.is_some() && lease.is_some() {
            return Err(no_lease(tx));
        }
        let lease = match lease {
            Some(grant) => {
                let (lease, capped) = self.stage_lease(tx, admitted, mount, &grant)?;
                warnings.extend(capped);
                Some(self.leases.intend(tx, lease, self.clock.now().after(SETTLED_AFTER))?)
            }
            None => None,
        };
        let errand = Errand { intent, warnings, lease, acted: None };
        Ok(Ran { errand: Some(Box::new(errand)), ..Ran::answered(Answer::default(), None) })
    }

    /// Acts as intended and records what came of it, with the answer.
    pub(crate) async fn run_errand(
        &self,
        asked: &Asked,
        admitted: &Admitted,
        mut errand: Errand,
    ) -> Result<(Ran, Option<Committed>), KernelError> {
        let Some(mount) = admitted.mount.as_deref() else {
            return Err(KernelError::Bug("an errand without a mount".to_owned()));
        };
        let acted = match errand.acted.take() {
            Some(acted) => acted,
            None => self.carry_out(mount, &errand.intent).await,
        };
        for _ in 0..ATTEMPTS_MAX {
            let tx = self.store.begin(Mode::ReadWrite);
            let concluded = match self.conclude(&tx, asked, admitted, mount, &errand, &acted) {
                Err(KernelError::NeedsEntity(question)) => {
                    if let Err(err) = self.learn_entity(asked, *question).await {
                        *asked.entity.lock() = EntityKnown::Failed(err);
                    }
                    continue;
                }
                concluded => concluded,
            };
            match self.store.commit(tx).await {
                Ok(committed) => return concluded.map(|ran| (ran, committed)),
                Err(err) if err.is_conflict() => {}
                // What was intended has been done: it must not be done again elsewhere.
                Err(KernelError::NeedsActive) => {
                    return Err(KernelError::Propose(ProposeError::OutcomeUnknown));
                }
                Err(err) => return Err(err),
            }
        }
        Err(KernelError::Contention)
    }

    /// Stages what came of an intent. What the engine stages counts, whatever it answers.
    fn conclude(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
        mount: &Mount,
        errand: &Errand,
        acted: &Acted,
    ) -> Result<Ran, KernelError> {
        let called = self.call(tx, mount)?;
        let outcome = acted.outcome.clone();
        let mut response = match called.engine().conclude(&called.ctx(), &errand.intent, outcome) {
            Ok(response) => response,
            Err(err) => {
                let (err, was_something_done) = match err {
                    // Of what has not ended nobody can say so.
                    EngineError::NothingDone(err) => (*err, !acted.has_ended),
                    err => (err, true),
                };
                match &errand.lease {
                    Some(lease) if was_something_done => self.leases.abandon(tx, lease, acted.has_ended)?,
                    Some(lease) => self.leases.take_back(tx, lease)?,
                    None => {}
                }
                return Err(err.into());
            }
        };
        response.warnings.splice(0..0, errand.warnings.iter().cloned());
        let mut answer = BuiltinAnswer::from(response);
        let Some(lease) = &errand.lease else {
            warn_of_fields(&mut answer, admitted);
            return self.grant(tx, asked, admitted, answer);
        };
        answer.lease = Some(self.leases.confirm(tx, lease, acted.has_ended)?);
        warn_of_fields(&mut answer, admitted);
        let granted = self.grant(tx, asked, admitted, answer);
        if granted.is_err() {
            self.leases.abandon(tx, lease, acted.has_ended)?;
        }
        granted
    }

    /// Carries out what a tick intends.
    pub(crate) async fn run_intents(&self, mount: &Mount, intents: Vec<Map>) {
        let running = futures::stream::iter(intents).map(|intent| async move {
            let Acted { outcome, .. } = self.carry_out(mount, &intent).await;
            let concluded = self
                .commit_staged(|tx| {
                    let called = self.call(tx, mount)?;
                    Ok(called.engine().conclude(&called.ctx(), &intent, outcome.clone()))
                })
                .await;
            if let Err(err) = concluded.and_then(|concluded| Ok(concluded.map(drop)?)) {
                tracing::warn!(mount = mount.record.uuid, error = %err, "what an engine intended failed");
            }
        });
        running.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

#[cfg(test)]
#[path = "intents_tests.rs"]
mod tests;
