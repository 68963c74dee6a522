//! Proposals into entries: whatever waits together becomes one entry, and a few entries are on their way at once.
//!
//! Each caller gets its own result. **Invariant:** `NotLeader`, `DiskFull`, `TooLarge` and `Conflict` mean that
//! nothing was written; in every other doubt the outcome is unknown.

use std::collections::VecDeque;
use std::sync::Arc;

use arca_danger::Bug;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::config::Limits;
use super::shared::Shared;
use crate::command::{Command, CommandError};
use crate::state::{Outcome, SetOutcome};
use crate::{Committed, ProposeError, WriteSet};

type Reply = oneshot::Sender<Result<Committed, ProposeError>>;

/// One caller's write set.
#[derive(Debug)]
struct Proposal {
    set: Vec<u8>,
    reply: Reply,
}

/// Where callers leave theirs.
#[derive(Debug)]
pub(super) struct Proposer(mpsc::Sender<Proposal>);

impl Proposer {
    pub(super) fn new(limits: &Limits) -> (Self, Batcher) {
        let (tx, rx) = mpsc::channel(limits.queue);
        (Self(tx), Batcher { rx, backlog: VecDeque::new() })
    }

    pub(super) async fn propose(&self, shared: &Shared, set: &WriteSet) -> Result<Committed, ProposeError> {
        let gate = &shared.gate;
        if gate.is_disk_full.get() {
            return Err(ProposeError::DiskFull);
        }
        if gate.is_stalled.get() || gate.is_closed.get() {
            return Err(ProposeError::NotLeader {
                leader: shared.leader().filter(|leader| leader.id != shared.me()),
            });
        }
        let set = encode(set, shared.config.limits.set_bytes)?;
        let (reply, result) = oneshot::channel();
        let asked = async {
            // It never got into the queue: nothing was written.
            self.0
                .send(Proposal { set, reply })
                .await
                .map_err(|_| ProposeError::NotLeader { leader: None })?;
            result.await.unwrap_or(Err(ProposeError::OutcomeUnknown))
        };
        let known = timeout(shared.config.timings.propose, asked).await;
        match known.unwrap_or(Err(ProposeError::OutcomeUnknown)) {
            Err(ProposeError::OutcomeUnknown) if arca_danger::is(Bug::UnknownTakenForRefused) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            known => known,
        }
    }
}

/// Encoded by the caller, so that this costs no time in the one task that all share.
fn encode(set: &WriteSet, limit: usize) -> Result<Vec<u8>, ProposeError> {
    let size = set.encoded_len();
    if size > limit {
        return Err(ProposeError::TooLarge { size, limit });
    }
    let mut out = Vec::new();
    set.encode_into(&mut out).map_err(|err| match err {
        CommandError::TooLarge { size, limit, .. } => ProposeError::TooLarge { size, limit },
        err @ (CommandError::Malformed(_) | CommandError::Unknown { .. }) => {
            ProposeError::Invalid(err.to_string())
        }
    })?;
    Ok(out)
}

/// Makes entries of what waits.
pub(super) struct Batcher {
    rx: mpsc::Receiver<Proposal>,
    /// Taken from the queue, not yet in an entry.
    backlog: VecDeque<Proposal>,
}

impl Batcher {
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let limits = shared.config.limits;
        let mut in_flight = FuturesUnordered::new();
        let mut drained = Vec::new();
        loop {
            let has_room = in_flight.len() < limits.entries_in_flight;
            if has_room && !self.backlog.is_empty() {
                in_flight.push(write(shared.clone(), self.next_entry(&limits)));
                continue;
            }
            // In this order what was written is answered before more is taken on. Neither starves the next: only so many
            // entries are on their way, and while there is no room for more nothing is taken.
            tokio::select! {
                biased;
                Some(()) = in_flight.next() => {}
                count = self.rx.recv_many(&mut drained, limits.entry_sets), if has_room => {
                    if count == 0 {
                        break;
                    }
                    self.backlog.extend(drained.drain(..));
                }
                () = sleep(shared.config.timings.lease()), if !has_room => {
                    if shared.is_cut_off() {
                        self.refuse();
                    }
                }
            }
        }
        while in_flight.next().await.is_some() {}
    }

    /// Answers those whose sets are in no entry yet. Without a quorum the entries on their way may take for ever.
    fn refuse(&mut self) {
        while let Ok(proposal) = self.rx.try_recv() {
            self.backlog.push_back(proposal);
        }
        for proposal in self.backlog.drain(..) {
            // The caller may have given up.
            let _ = proposal.reply.send(Err(ProposeError::NotLeader { leader: None }));
        }
    }

    /// Cuts the next entry off the backlog: at least one set, then as many as fit.
    fn next_entry(&mut self, limits: &Limits) -> Vec<Proposal> {
        let mut entry = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.backlog.front() {
            let is_full = entry.len() >= limits.entry_sets || bytes + next.set.len() > limits.entry_bytes;
            if is_full && !entry.is_empty() {
                break;
            }
            bytes += next.set.len();
            entry.extend(self.backlog.pop_front());
        }
        entry
    }
}

async fn write(shared: Arc<Shared>, proposals: Vec<Proposal>) {
    let (sets, replies): (Vec<_>, Vec<_>) =
        proposals.into_iter().map(|proposal| (proposal.set, proposal.reply)).unzip();
    let result = match Command::batch_of(&sets) {
        Ok(command) => shared.write(command).await,
        Err(err) => Err(ProposeError::Invalid(err.to_string())),
    };
    let mut outcomes = match &result {
        Ok((_, Outcome::Sets(outcomes))) => outcomes.as_slice(),
        _ => &[],
    }
    .iter();
    for reply in replies {
        let result = match (&result, outcomes.next()) {
            (Ok((index, _)), Some(SetOutcome::Applied)) => Ok(Committed { index: *index }),
            (Ok((index, _)), Some(_)) if arca_danger::is(Bug::ConflictAnsweredAsWritten) => {
                Ok(Committed { index: *index })
            }
            (Ok(_), Some(SetOutcome::Conflict)) => Err(ProposeError::Conflict),
            (Ok(_), None) => Err(ProposeError::OutcomeUnknown),
            (Err(err), _) => Err(err.clone()),
        };
        // The caller may have given up; what is committed is committed.
        let _ = reply.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sizes: &[usize], expected: &[usize]) {
        let limits = Limits { entry_sets: 3, entry_bytes: 10, ..Limits::default() };
        let (_proposer, mut batcher) = Proposer::new(&limits);
        for size in sizes {
            batcher.backlog.push_back(Proposal { set: vec![0; *size], reply: oneshot::channel().0 });
        }
        let mut entries = Vec::new();
        while !batcher.backlog.is_empty() {
            entries.push(batcher.next_entry(&limits).len());
        }
        assert_eq!(entries, expected, "sizes {sizes:?}");
    }

    #[test]
    fn entries_are_cut_by_count_and_bytes() {
        check(&[], &[]);
        check(&[1, 1, 1, 1], &[3, 1]);
        check(&[4, 6, 1], &[2, 1]);
        check(&[4, 7], &[1, 1]);
        check(&[99, 1, 99], &[1, 1, 1]);
    }
}
