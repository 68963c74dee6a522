//! Walks over many entries that hold up nobody else: what is more than a moment's work leaves the runtime's workers to
//! others, and so many such walks at once leave them a core. A walk goes on in slices, so that a long one lets short
//! ones pass.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::Duration;

use arca_raft_storage::replica::VersionedVisitor;
use arca_raft_storage::{KvError, ReadView, Visit};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Entries looked at on the spot.
const MOMENT: usize = 256;
/// Entries looked at in one turn.
const SLICE: usize = 4096;
/// Longest wait for a turn: whoever waits may hold a lock that others need.
const PATIENCE: Duration = Duration::from_millis(50);
/// Most walks that wait, each on a thread of its own. The runtime has 512 to give, and others need some.
const WAITING_MAX: usize = 32;

static TURNS: LazyLock<Turns> =
    LazyLock::new(|| Turns::new(available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1)));

/// As [`ReadView::visit`] of `start..end`.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub(crate) fn walk(
    view: &dyn ReadView,
    start: &[u8],
    end: &[u8],
    visitor: &mut VersionedVisitor<'_>,
) -> Result<(), KvError> {
    let mut next = part(view, start, end, MOMENT, visitor)?;
    while let Some(start) = next {
        next = aside(|| part(view, &start, end, SLICE, visitor))?;
    }
    Ok(())
}

/// Looks at up to `most` entries, and answers at which key it goes on.
fn part(
    view: &dyn ReadView,
    start: &[u8],
    end: &[u8],
    most: usize,
    visitor: &mut VersionedVisitor<'_>,
) -> Result<Option<Vec<u8>>, KvError> {
    let (mut count, mut next) = (0, None);
    view.visit(start, Some(end), &mut |key, value, version| {
        if count == most {
            next = Some(key.to_vec());
            return Visit::Stop;
        }
        count += 1;
        visitor(key, value, version)
    })?;
    Ok(next)
}

/// Does `work` when there is a turn, with another thread in place of this one meanwhile. A runtime of one thread has
/// none to spare, and does it at once.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if !matches!(flavor, Ok(RuntimeFlavor::MultiThread)) || !TURNS.has_room() {
        return work();
    }
    tokio::task::block_in_place(|| {
        let _turn = TURNS.take();
        work()
    })
}

/// So many at once; others wait a little, on threads of their own.
struct Turns {
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    free: usize,
    waiting: usize,
}

impl Turns {
    fn new(most: usize) -> Self {
        Self { state: Mutex::new(State { free: most, waiting: 0 }), freed: Condvar::new() }
    }

    fn has_room(&self) -> bool {
        self.state.lock().waiting < WAITING_MAX
    }

    /// `None`: waited long enough.
    fn take(&self) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.freed.wait_while_for(&mut state, |state| state.free == 0, PATIENCE);
        state.waiting -= 1;
        state.free = state.free.checked_sub(1)?;
        Some(Turn(self))
    }
}

/// Ends when dropped.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().free += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use arca_raft_storage::{Version, Versioned};

    use super::*;

    /// Keys 0, 1, 2 and so on, as numbers.
    struct Numbers(u32);

    impl ReadView for Numbers {
        fn index(&self) -> u64 {
            1
        }

        fn get(&self, _key: &[u8]) -> Result<Option<Versioned>, KvError> {
            Ok(None)
        }

        fn visit(
            &self,
            start: &[u8],
            end: Option<&[u8]>,
            visitor: &mut VersionedVisitor<'_>,
        ) -> Result<(), KvError> {
            let mut from = Bound::Included(start.to_vec());
            for number in 0..self.0 {
                let key = number.to_be_bytes();
                let is_ahead = match &from {
                    Bound::Included(from) => key.as_slice() >= from.as_slice(),
                    _ => true,
                };
                if !is_ahead || end.is_some_and(|end| key.as_slice() >= end) {
                    continue;
                }
                match visitor(&key, &[], Version(1)) {
                    Visit::Next => {}
                    Visit::Seek(key) => from = Bound::Included(key),
                    Visit::Stop => return Ok(()),
                }
            }
            Ok(())
        }
    }

    #[track_caller]
    fn check(count: u32, step: u32, stop: u32) {
        let mut seen = Vec::new();
        walk(&Numbers(count), &[], &[0xff], &mut |key, _, _| {
            let number = u32::from_be_bytes(key.try_into().unwrap());
            seen.push(number);
            match number {
                _ if number >= stop => Visit::Stop,
                _ if step == 1 => Visit::Next,
                _ => Visit::Seek((number + step).to_be_bytes().to_vec()),
            }
        })
        .unwrap();
        let all = (0..count).step_by(step as usize);
        let want: Vec<u32> = all.take_while(|number| *number < stop + step).collect();
        assert_eq!(seen, want, "{count} keys in steps of {step} up to {stop}");
    }

    #[test]
    fn every_entry_is_looked_at_once() {
        let (moment, slice) = (MOMENT as u32, SLICE as u32);
        for count in [0, 1, moment, moment + 1, moment + slice, moment + slice + 1, 3 * slice] {
            check(count, 1, u32::MAX - 1);
            check(count, 3, u32::MAX - 3);
            check(count, 1, moment - 1);
            check(count, 1, moment);
        }
    }

    /// Walks on every worker, and more: those without a turn wait, and the rest of the runtime goes on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn walks_leave_the_workers_to_others() {
        let held = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Arc::new(Mutex::new(held.1));
        let walks: Vec<_> = (0..8)
            .map(|_| {
                let gate = std::sync::Arc::clone(&gate);
                tokio::spawn(async move {
                    let mut seen = 0;
                    walk(&Numbers(1_000), &[], &[0xff], &mut |_, _, _| {
                        seen += 1;
                        if seen == MOMENT + 1 {
                            // Until the sender is gone.
                            let _ = gate.lock().recv();
                        }
                        Visit::Next
                    })
                    .unwrap();
                    seen
                })
            })
            .collect();
        // Whoever needs a worker gets one, though no walk can end yet.
        for _ in 0..100 {
            tokio::spawn(tokio::task::yield_now()).await.unwrap();
        }
        assert!(walks.iter().all(|walk| !walk.is_finished()));
        drop(held.0);
        for walk in walks {
            assert_eq!(walk.await.unwrap(), 1_000);
        }
    }
}
