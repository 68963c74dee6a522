//! Deaths in the middle: the process that issues a credential, or revokes one, loses its power at the k-th await of doing
//! so, or as its request to the system outside is about to leave, has arrived there, or was answered. Which of these were
//! reached is counted, so that a run shows what was tried.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arca_api::RawRequest;
use arca_raft_storage::MemberId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::cluster::Listening;
use crate::system::collected;

/// How far a request to the system outside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is answered; the engine has not seen that.
    Answered,
    /// It has arrived, and was done; nobody knows.
    Arrived,
    /// It is about to be sent.
    Begun,
}

/// Where a process is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At this await of a request that issues a credential.
    Issuing(u64),
    /// At this stage of a request to the system outside, whatever it is for.
    Outside {
        /// Whether it is one that removes an account.
        is_removal: bool,
        /// How far it is.
        stage: Stage,
    },
    /// At this await of a request that revokes a credential.
    Revoking(u64),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuing(step) => write!(f, "issuing, await {step:02}"),
            Self::Revoking(step) => write!(f, "revoking, await {step:02}"),
            Self::Outside { is_removal, stage } => {
                let what = if *is_removal { "removal" } else { "making" };
                let stage = match stage {
                    Stage::Answered => "answered",
                    Stage::Arrived => "arrived",
                    Stage::Begun => "about to be sent",
                };
                write!(f, "{what} {stage}")
            }
        }
    }
}

#[derive(Default)]
struct State {
    /// A stage at which whoever reaches it dies.
    armed: Option<Moment>,
    is_over: bool,
    /// Members that are to lose their power now.
    fallen: Vec<MemberId>,
    reached: BTreeMap<String, u64>,
}

/// See the file's header. Clones share it.
#[derive(Clone, Default)]
pub struct Midway {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl fmt::Debug for Midway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Midway({:?})", self.state.lock().armed)
    }
}

impl Midway {
    /// Whoever reaches this stage next dies there.
    pub fn arm(&self, moment: Moment) {
        self.state.lock().armed = Some(moment);
    }

    /// Nobody dies any more.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.armed = None;
        state.is_over = true;
    }

    /// Waits until somebody is to die, at most so long.
    pub async fn wait(&self, limit: Duration) {
        // Either way it is looked at next.
        let _ = timeout(limit, self.changed.notified()).await;
    }

    /// Who is to lose its power now.
    #[must_use]
    pub fn take_fallen(&self) -> Vec<MemberId> {
        std::mem::take(&mut self.state.lock().fallen)
    }

    /// How often each moment was reached.
    #[must_use]
    pub fn reached(&self) -> BTreeMap<String, u64> {
        self.state.lock().reached.clone()
    }

    /// Whether `member` dies at this stage.
    pub fn pass(&self, member: MemberId, stage: Stage, is_removal: bool) -> bool {
        let moment = Moment::Outside { is_removal, stage };
        let is_it = self.state.lock().armed == Some(moment);
        is_it && self.fall(member, moment.to_string())
    }

    /// `member` dies, unless nobody does any more.
    fn fall(&self, member: MemberId, moment: String) -> bool {
        let mut state = self.state.lock();
        if state.is_over {
            return false;
        }
        state.armed = None;
        state.fallen.push(member);
        *state.reached.entry(moment).or_default() += 1;
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Has `request` served by `member`, which dies at a moment of that. What it is answered goes to `answered`, if it
    /// comes to that; the member dies then as well, with the answer on its way.
    pub fn serve(
        &self,
        member: MemberId,
        at: &Listening,
        request: RawRequest,
        moment: Moment,
        answered: impl FnOnce(u16, &[u8]) + Send + 'static,
    ) {
        let (Moment::Issuing(steps) | Moment::Revoking(steps)) = moment else { return };
        let midway = self.clone();
        let (api, death) = (Arc::clone(&at.api), at.death.clone());
        tokio::spawn(async move {
            let work = Steps { work: Box::pin(collected(api, request)), left: steps };
            let done = death.run_until_cancelled(work).await;
            match done {
                // Dead already, by another fault.
                None => {}
                Some(Step::Reached) => {
                    midway.fall(member, moment.to_string());
                }
                Some(Step::Ended(answer)) => {
                    if let Some(answer) = answer {
                        answered(answer.status, &answer.body);
                    }
                    let what = if matches!(moment, Moment::Issuing(_)) { "issuing" } else { "revoking" };
                    midway.fall(member, format!("{what}, after the answer"));
                }
            }
        });
    }
}

/// How far some work has got.
enum Step<T> {
    Ended(T),
    Reached,
}

/// Work that goes on for so many steps, each from one await that waits to the next.
struct Steps<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    left: u64,
}

impl<T> Future for Steps<T> {
    type Output = Step<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step<T>> {
        if let Poll::Ready(done) = self.work.as_mut().poll(cx) {
            return Poll::Ready(Step::Ended(done));
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 { Poll::Ready(Step::Reached) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_stops_at_its_step() {
        let work = |steps| Steps {
            work: Box::pin(async {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }),
            left: steps,
        };
        assert!(matches!(work(1).await, Step::Reached));
        assert!(matches!(work(2).await, Step::Reached));
        assert!(matches!(work(3).await, Step::Ended(())));
    }

    #[test]
    fn the_next_to_reach_a_stage_dies_there_and_nobody_after_the_end() {
        let midway = Midway::default();
        let moment = Moment::Outside { is_removal: true, stage: Stage::Arrived };
        midway.arm(moment);
        assert!(!midway.pass(MemberId(1), Stage::Begun, true));
        assert!(midway.pass(MemberId(2), Stage::Arrived, true));
        assert!(!midway.pass(MemberId(3), Stage::Arrived, true));
        assert_eq!(midway.take_fallen(), [MemberId(2)]);
        assert_eq!(midway.reached(), BTreeMap::from([("removal arrived".to_owned(), 1)]));
        midway.arm(moment);
        midway.end();
        assert!(!midway.pass(MemberId(3), Stage::Arrived, true));
    }
}
