//! What a performance secondary asks its primary for, and how far it has followed: the kernel's way there, and the other end.

use std::sync::Arc;
use std::time::Duration;

use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, Mode};
use arca_raft_storage::{ProposeError, Replica as _};
use arca_replication::codec::Reader;
use arca_replication::{
    ASK_BYTES_MAX, Answer, Call, Cursor, LinkError, PrimaryLink, Refusal, Unserved, load_cursor,
};
use bytes::Bytes;

use super::follower::NO_PRIMARY;
use super::{Replicator, active_role, shipped};

/// How long a primary that has no active node is asked again: an election takes less.
const ELECTION_PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two tries.
const ELECTION_PAUSE: Duration = Duration::from_millis(100);

/// A failure that nothing came of.
fn no_primary(reason: impl std::fmt::Display) -> KernelError {
    KernelError::NoPrimary { reason: reason.to_string() }
}

impl Replicator {
    fn primary_link(&self) -> Result<Arc<dyn PrimaryLink>, KernelError> {
        let role = active_role(&self.active()?.standing(), Kind::Performance);
        if role.mode != Mode::Secondary || role.upstream.is_none() {
            return Err(no_primary(NO_PRIMARY));
        }
        // Who asks here now knows another state, and would write into the primary's.
        if self.bootstrap_record(Kind::Performance)?.is_some() {
            return Err(no_primary("the first copy of its state has not come to its end"));
        }
        match self.told(Kind::Performance) {
            Some(told) => Ok(Arc::clone(&told.link)),
            None => self.link_to(&role),
        }
    }

    /// Has the primary answer a question of the kernel's, once.
    pub(super) async fn asked_of_primary(&self, question: Bytes) -> Result<Bytes, KernelError> {
        let link = self.primary_link()?;
        let deadline = tokio::time::Instant::now() + ELECTION_PATIENCE;
        loop {
            match link.call(Call::Ask, question.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(LinkError::Refused(Refusal::Unanswered(reason))) => {
                    tracing::warn!(
                        reason,
                        "it is unknown what became of something that the primary was to do"
                    );
                    return Err(KernelError::Propose(ProposeError::OutcomeUnknown));
                }
                Err(LinkError::Refused(Refusal::Malformed(text))) => return Err(KernelError::Invalid(text)),
                // Nothing was done.
                Err(LinkError::Refused(Refusal::Busy(_))) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(ELECTION_PAUSE).await;
                }
                Err(err) => return Err(no_primary(err)),
            }
        }
    }

    /// Answers such a question, on the active member of a primary.
    pub(super) async fn answer(
        &self,
        kind: Kind,
        secondary_id: &str,
        question: Bytes,
    ) -> Result<Bytes, Unserved> {
        if kind != Kind::Performance {
            return Err(Refusal::Malformed("a DR secondary has nothing done".to_owned()).into());
        }
        if question.len() > ASK_BYTES_MAX {
            return Err(Refusal::Malformed("the request is too large for the primary".to_owned()).into());
        }
        // Neither for one that was revoked a moment ago, nor in an epoch that is over.
        self.source.admit(secondary_id, shipped(kind))?;
        let kernel = self.active().map_err(|_| Unserved::NotActive)?;
        match kernel.answer_secondary(secondary_id, question).await {
            Ok(answer) => Ok(answer),
            Err(KernelError::NeedsActive | KernelError::Sealed) => Err(Unserved::NotActive),
            // Whatever else it is, something may have come of it.
            Err(err) => Err(Refusal::Unanswered(err.public_text()).into()),
        }
    }

    fn cursor_of_primary(&self) -> Option<Cursor> {
        let found = load_cursor(self.replica.view().as_ref(), shipped(Kind::Performance));
        found.ok().map(|(cursor, _)| cursor)
    }

    /// The newest entry of the primary that is applied here, at the least.
    pub(super) fn applied_of_primary(&self) -> Option<u64> {
        self.cursor_of_primary().map(|cursor| cursor.index).filter(|index| *index > 0)
    }

    /// Whether what the primary writes comes here as it is written, and is not found by a comparison in a while.
    pub(super) fn is_current(&self) -> bool {
        self.cursor_of_primary().is_some_and(|cursor| !cursor.is_unknown())
    }

    /// Waits until that entry of the primary is applied here; whether it came in time, or is none of its log.
    pub(super) async fn awaited_primary(&self, index: u64, patience: Duration) -> Result<bool, KernelError> {
        let has = || self.applied_of_primary().is_some_and(|at| at >= index);
        if has() {
            return Ok(true);
        }
        let told = self.told(Kind::Performance);
        if let Some(told) = &told {
            told.sink.want(index);
        }
        let mut status = self.replica.watch();
        let there = async {
            loop {
                status.borrow_and_update();
                if has() {
                    return Ok(true);
                }
                status.changed().await.map_err(|_| KernelError::Sealed)?;
            }
        };
        let of_another = async {
            let is_ahead =
                told.as_ref().is_some_and(|told| told.sink.status().borrow().primary_index < index);
            if !(is_ahead && self.is_of_another_log(index).await) {
                std::future::pending::<()>().await;
            }
            Ok(true)
        };
        let either = async {
            tokio::select! {
                biased;
                there = there => there,
                of_another = of_another => of_another,
            }
        };
        tokio::time::timeout(patience, either).await.unwrap_or(Ok(false))
    }

    /// Whether the primary, asked now, is not as far as `index`, which a client has seen before: then it was seen of a log
    /// that this cluster followed before, or its primary did. What of that is left is here since the states were compared.
    async fn is_of_another_log(&self, index: u64) -> bool {
        let Ok(link) = self.primary_link() else { return false };
        // Its answer says how far it is at the moment; and a state that is being compared may lack anything.
        let Ok(said) = link.call(Call::Present, Bytes::new()).await else { return false };
        let said = Answer::decode(&mut Reader::new(said));
        said.is_ok_and(|answer| answer.applied < index) && self.is_current()
    }
}
