//! Threads for what engines compute: password hashes, keys, signatures.
//!
//! Whoever reaches a node can have it hash passwords. So what is computed for strangers has threads and a line of its
//! own, and lines are bounded: when they are full, what came last from the address that has most waiting is dropped, and
//! its request refused. Addresses take turns. A flood of logins thus delays nobody who has a token, costs little memory,
//! and holds up logins from other addresses by little. Those who share an address with it (a proxy's, where the listener
//! is not told to look behind it) share its line.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arca_engine_api::{Asker, Workers};
use parking_lot::Mutex;

/// Most that strangers have waiting, for each thread: at ten to eighty milliseconds a hash the last one waits for five
/// seconds at most.
const STRANGERS_EACH: usize = 64;
/// Most that those with a token have waiting. Each is a request that lies in memory, of some 30 kB. How long they wait is
/// up to them: a large key takes seconds.
const KNOWN_MAX: usize = 2_048;

type Work = Box<dyn FnOnce() + Send>;
/// Whose turns are counted together.
type Source = Option<IpAddr>;

/// As many computations at a time as there are processors: more would only take time from requests. Twice that while
/// strangers and others both have some.
#[derive(Debug)]
pub(super) struct Threads {
    known: Arc<Pool>,
    strangers: Arc<Pool>,
}

impl Default for Threads {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }
}

impl Threads {
    fn new(count: usize) -> Self {
        let strangers_max = count.saturating_mul(STRANGERS_EACH);
        Self { known: Pool::new(count, KNOWN_MAX), strangers: Pool::new(count, strangers_max) }
    }
}

impl Workers for Threads {
    fn run(&self, asker: Asker, work: Work) {
        match asker {
            Asker::Anybody(source) => self.strangers.run(source, work),
            Asker::Known => self.known.run(None, work),
        }
    }
}

/// Some threads, and what waits for them.
struct Pool(Mutex<Lines>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    fn new(threads: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Lines { idle: threads, lines: VecDeque::new(), waiting: 0, waiting_max })))
    }

    fn run(self: &Arc<Self>, source: Source, work: Work) {
        let mut lines = self.0.lock();
        if lines.idle == 0 {
            let refused = lines.add(source, work);
            drop(lines);
            // Wakes whoever waits for it.
            drop(refused);
            return;
        }
        lines.idle -= 1;
        drop(lines);
        let pool = Arc::clone(self);
        // It ends by itself. Without a runtime to run it the process is on its way out.
        drop(tokio::task::spawn_blocking(move || pool.work_on(work)));
    }

    /// Runs `work`, then whatever waits.
    fn work_on(&self, work: Work) {
        let mut next = Some(work);
        while let Some(work) = next {
            // A panic is told of by whoever waits for the result; it must not cost the pool a thread.
            drop(catch_unwind(AssertUnwindSafe(work)));
            let mut lines = self.0.lock();
            next = lines.next();
            lines.idle += usize::from(next.is_none());
        }
    }
}

/// What waits, a line for each source.
struct Lines {
    /// Threads that have nothing to do. While there are any, nothing waits.
    idle: usize,
    /// Whose turn is next stands first. None of them is empty.
    lines: VecDeque<(Source, VecDeque<Work>)>,
    /// In all lines. Never more than the most that may wait.
    waiting: usize,
    waiting_max: usize,
}

impl Lines {
    /// Appends to the line of its source. Answers what has to go for it: the last of the longest line.
    fn add(&mut self, source: Source, work: Work) -> Option<Work> {
        match self.lines.iter_mut().find(|(of, _)| *of == source) {
            Some((_, line)) => line.push_back(work),
            None => self.lines.push_back((source, VecDeque::from([work]))),
        }
        if self.waiting < self.waiting_max {
            self.waiting += 1;
            return None;
        }
        let (at, _) = self.lines.iter().enumerate().max_by_key(|(_, (_, line))| line.len())?;
        let (_, line) = self.lines.get_mut(at)?;
        let refused = line.pop_back();
        if line.is_empty() {
            self.lines.remove(at);
        }
        refused
    }

    /// The first of the source whose turn it is, which then is the last to have a turn again.
    fn next(&mut self) -> Option<Work> {
        let (source, mut line) = self.lines.pop_front()?;
        let work = line.pop_front();
        self.waiting -= usize::from(work.is_some());
        if !line.is_empty() {
            self.lines.push_back((source, line));
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    fn from(address: &str) -> Asker {
        Asker::Anybody(address.parse().ok())
    }

    /// Keeps the one thread for `asker` busy until what is answered is dropped.
    fn hold(threads: &Threads, asker: Asker) -> mpsc::Sender<()> {
        let (held, until) = mpsc::channel::<()>();
        threads.run(
            asker,
            Box::new(move || {
                let _ = until.recv();
            }),
        );
        held
    }

    /// Something to compute: whether it was, and if not, that it was dropped.
    fn ask(threads: &Threads, asker: Asker) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        threads.run(
            asker,
            Box::new(move || {
                let _ = sender.send(());
            }),
        );
        receiver
    }

    fn was_refused(asked: &mut oneshot::Receiver<()>) -> bool {
        asked.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[tokio::test]
    async fn a_panic_ends_only_one() {
        let threads = Threads::new(1);
        threads.run(Asker::Known, Box::new(|| std::panic::panic_any("as planned")));
        ask(&threads, Asker::Known).await.unwrap();
        ask(&threads, Asker::Known).await.unwrap();
    }

    /// Anybody could keep the node computing, for as long and in as much memory as they liked, by sending logins and
    /// waiting for none.
    #[tokio::test]
    async fn a_flood_of_logins_is_bounded_and_delays_nobody_with_a_token() {
        let threads = Threads::new(1);
        let held = hold(&threads, from("10.0.0.1"));
        let mut flood: Vec<_> = (0..20 * STRANGERS_EACH).map(|_| ask(&threads, from("10.0.0.1"))).collect();
        flood.retain_mut(|asked| !was_refused(asked));
        assert_eq!(flood.len(), STRANGERS_EACH, "those over the limit are refused at once");
        ask(&threads, Asker::Known).await.unwrap();
        // A login from elsewhere gets a place, and the second turn.
        let (order, seen) = mpsc::channel();
        let note = |what: &'static str| {
            let order = order.clone();
            Box::new(move || order.send(what).unwrap())
        };
        threads.run(from("10.0.0.2"), note("right"));
        threads.run(from("10.0.0.3"), note("another"));
        flood.retain_mut(|asked| !was_refused(asked));
        assert_eq!(flood.len(), STRANGERS_EACH - 2);
        drop(held);
        assert_eq!((seen.recv(), seen.recv()), (Ok("right"), Ok("another")));
        for asked in flood {
            asked.await.unwrap();
        }
        ask(&threads, from("10.0.0.1")).await.unwrap();
    }

    #[test]
    fn sources_take_turns_and_the_longest_line_is_cut() {
        let (order, seen) = mpsc::channel();
        let mut lines = Lines { idle: 0, lines: VecDeque::new(), waiting: 0, waiting_max: 5 };
        let mut add = |source: u8, what: &'static str| {
            let order = order.clone();
            let refused = lines
                .add(Some(IpAddr::from([10, 0, 0, source])), Box::new(move || order.send(what).unwrap()));
            refused.map(|work| {
                work();
                seen.recv().unwrap()
            })
        };
        for what in ["a1", "a2", "a3", "a4"] {
            assert_eq!(add(1, what), None);
        }
        assert_eq!(add(2, "b1"), None);
        assert_eq!(add(1, "a5"), Some("a5"), "who has most is refused");
        assert_eq!(add(2, "b2"), Some("a4"), "or makes room");
        assert_eq!(add(3, "c1"), Some("a3"));
        assert_eq!(add(4, "d1"), Some("b2"), "of two as long, that of who came later");
        assert_eq!(add(5, "e1"), Some("a2"));
        assert_eq!(add(6, "f1"), Some("f1"));
        while let Some(work) = lines.next() {
            work();
        }
        drop(order);
        assert_eq!(seen.iter().collect::<Vec<_>>(), ["a1", "b1", "c1", "d1", "e1"]);
        assert_eq!((lines.waiting, lines.lines.len()), (0, 0));
    }

    #[tokio::test]
    async fn those_with_a_token_are_bounded_too() {
        let threads = Threads::new(1);
        let held = hold(&threads, Asker::Known);
        let mut asked: Vec<_> = (0..=KNOWN_MAX).map(|_| ask(&threads, Asker::Known)).collect();
        asked.retain_mut(|asked| !was_refused(asked));
        assert_eq!(asked.len(), KNOWN_MAX);
        drop(held);
        ask(&threads, Asker::Anybody(None)).await.unwrap();
    }
}
