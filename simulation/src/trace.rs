//! What happened, as one hash: every message, every sync, every answer, with its simulated time. Two runs of one seed
//! that differ anywhere differ here.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write;
use std::sync::Arc;

use foldhash::fast::{FixedState, FoldHasher};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The trace of a run. Clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Shared>);

struct Shared {
    began: Instant,
    /// Whether what is worth telling is told.
    tells: bool,
    kept: Mutex<Kept>,
}

struct Kept {
    /// The same in every process. Nobody chooses events so that they look alike: a fast hash will do.
    hasher: FoldHasher<'static>,
    events: u64,
    copy: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl Trace {
    /// A trace that begins now. `copy` gets each event as a line, for finding where two runs part. One that `tells` prints
    /// what is done to the cluster as it is done.
    #[must_use]
    pub fn new(copy: Option<Box<dyn Write + Send>>, tells: bool) -> Self {
        let kept = Kept { hasher: FixedState::with_seed(0).build_hasher(), events: 0, copy };
        Self(Arc::new(Shared { began: Instant::now(), tells, kept: Mutex::new(kept) }))
    }

    /// Notes an event: what it is, its numbers, and bytes it is about.
    pub fn note(&self, what: &'static str, numbers: &[u64], data: &[u8]) {
        let nanos = self.0.began.elapsed().as_nanos();
        let mut kept = self.0.kept.lock();
        let Kept { hasher, events, copy } = &mut *kept;
        hasher.write_u128(nanos);
        // Lengths first: no two events may look alike.
        for length in [what.len(), numbers.len(), data.len()] {
            hasher.write_usize(length);
        }
        hasher.write(what.as_bytes());
        numbers.iter().for_each(|number| hasher.write_u64(*number));
        hasher.write(data);
        *events += 1;
        if let Some(out) = copy {
            let digest = blake3::hash(data).to_hex();
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            let digest = digest.get(..16).unwrap_or_default();
            if writeln!(out, "{nanos} {what} {} {} {digest}", numbers.join(" "), data.len()).is_err() {
                // The hash is what counts; whoever wants the lines sees that they end.
                *copy = None;
            }
        }
    }

    /// Tells a person who follows the run, and only then.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        if self.0.tells {
            println!("{:9.3} s  {what}", self.elapsed().as_secs_f64());
        }
    }

    /// How many events there were, and the hash over all of them.
    #[must_use]
    pub fn hash(&self) -> (u64, String) {
        let mut kept = self.0.kept.lock();
        if kept.copy.as_mut().is_some_and(|copy| copy.flush().is_err()) {
            kept.copy = None;
        }
        (kept.events, format!("{:016x}", kept.hasher.finish()))
    }

    /// When the simulation began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.0.began
    }

    /// Simulated time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.began.elapsed()
    }
}
