//! Request bodies that are still coming, oldest first: as many as a listener allows. One more, and the oldest is given
//! up. So clients that announce bodies and send none cannot keep others from sending theirs, which take a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All of a listener's. Heads, and the small bodies that need no [`crate::body_room`], take memory meanwhile: no more
/// than so many of them.
#[derive(Clone)]
pub(crate) struct ComingBodies {
    most: usize,
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    next: u64,
    /// By when they began to come.
    waiting: BTreeMap<u64, CancellationToken>,
}

impl ComingBodies {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), line: Arc::default() }
    }

    /// One more body, until the result is dropped.
    pub(crate) fn begin(&self) -> Coming {
        let mut line = self.line.lock();
        if line.waiting.len() >= self.most
            && let Some((_, oldest)) = line.waiting.pop_first()
        {
            oldest.cancel();
        }
        let (number, given_up) = (line.next, CancellationToken::new());
        line.next += 1;
        line.waiting.insert(number, given_up.clone());
        Coming { number, given_up, line: Arc::clone(&self.line) }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.line.lock().waiting.len()
    }
}

/// One body's place in the line.
pub(crate) struct Coming {
    number: u64,
    given_up: CancellationToken,
    line: Arc<Mutex<Line>>,
}

impl Coming {
    /// Ends when others need the place.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.line.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_given_up() {
        let bodies = ComingBodies::new(2);
        let (first, second) = (bodies.begin(), bodies.begin());
        assert!(!first.given_up.is_cancelled());
        let third = bodies.begin();
        assert!(first.given_up.is_cancelled() && !second.given_up.is_cancelled());
        drop(third);
        let _fourth = bodies.begin();
        assert!(!second.given_up.is_cancelled());
        let _fifth = bodies.begin();
        assert!(second.given_up.is_cancelled());
        assert_eq!(bodies.count(), 2);
    }
}
