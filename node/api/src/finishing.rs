//! A request that runs to its end, whatever becomes of whoever waits for it.
//!
//! It runs in its connection's own task, as most requests end with their connection still there: a task for each would
//! cost an allocation, and two trips through the scheduler. Only what is left when nobody waits any more gets one.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The request panicked. The panic's message has gone where all do; the caller learns nothing of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// See the file's header.
pub(crate) struct Finishing<F: Future + Send + 'static>
where
    F::Output: Send,
{
    rest: Option<Pin<Box<F>>>,
    /// Counts it from its beginning, whichever task it runs in.
    counted: Option<TaskTrackerToken>,
}

impl<F: Future + Send + 'static> Finishing<F>
where
    F::Output: Send,
{
    pub(crate) fn new(all: &TaskTracker, request: F) -> Self {
        Self { rest: Some(Box::pin(request)), counted: Some(all.token()) }
    }
}

impl<F: Future + Send + 'static> Future for Finishing<F>
where
    F::Output: Send,
{
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(rest) = self.rest.as_mut() else { return Poll::Ready(Err(Panicked)) };
        // What a request shares with others is behind locks that a panic does not leave half changed.
        let polled = catch_unwind(AssertUnwindSafe(|| rest.as_mut().poll(cx)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(_) => Err(Panicked),
        };
        self.rest = None;
        Poll::Ready(ended)
    }
}

impl<F: Future + Send + 'static> Drop for Finishing<F>
where
    F::Output: Send,
{
    fn drop(&mut self) {
        let (rest, counted) = (self.rest.take(), self.counted.take());
        // Without a runtime the process is on its way out.
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _counted = counted;
                rest.await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_is_left_when_nobody_waits_is_still_done() {
        let all = TaskTracker::new();
        all.close();
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (gone, finished) = (Arc::clone(&go), Arc::clone(&done));
        let mut request = Box::pin(Finishing::new(&all, async move {
            gone.notified().await;
            finished.notify_one();
        }));
        assert!(futures::poll!(request.as_mut()).is_pending());
        drop(request);
        assert!(!all.is_empty(), "it counts as under way");
        go.notify_one();
        done.notified().await;
        all.wait().await;
    }

    #[tokio::test]
    async fn a_panic_ends_the_request_alone() {
        let all = TaskTracker::new();
        all.close();
        let request = Finishing::new(&all, async { std::panic::panic_any("as planned") });
        let ended: Result<(), Panicked> = request.await;
        assert_eq!(ended, Err(Panicked));
        all.wait().await;
    }
}
