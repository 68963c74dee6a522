//! What happened, as one hash: every message, every sync, every answer, with its simulated time. Two runs of one seed
//! that differ anywhere differ here.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The trace of a run. Clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Shared>);

struct Shared {
    began: Instant,
    kept: Mutex<Kept>,
}

struct Kept {
    hasher: blake3::Hasher,
    events: u64,
    copy: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl Trace {
    /// A trace that begins now. `copy` gets each event as a line, for finding where two runs part.
    #[must_use]
    pub fn new(copy: Option<Box<dyn Write + Send>>) -> Self {
        let kept = Kept { hasher: blake3::Hasher::new(), events: 0, copy };
        Self(Arc::new(Shared { began: Instant::now(), kept: Mutex::new(kept) }))
    }

    /// Notes an event. `data` is kept as its hash.
    pub fn note(&self, what: fmt::Arguments<'_>, data: &[u8]) {
        let nanos = self.0.began.elapsed().as_nanos();
        let digest = blake3::hash(data).to_hex();
        let line = format!("{nanos} {what} {}\n", digest.get(..16).unwrap_or_default());
        let mut kept = self.0.kept.lock();
        kept.hasher.update(line.as_bytes());
        kept.events += 1;
        if let Some(copy) = &mut kept.copy
            && copy.write_all(line.as_bytes()).is_err()
        {
            // The hash is what counts; whoever wants the lines sees that they end.
            kept.copy = None;
        }
    }

    /// How many events there were, and the hash over all of them.
    #[must_use]
    pub fn hash(&self) -> (u64, String) {
        let mut kept = self.0.kept.lock();
        if kept.copy.as_mut().is_some_and(|copy| copy.flush().is_err()) {
            kept.copy = None;
        }
        (kept.events, kept.hasher.finalize().to_hex().to_string())
    }

    /// Simulated time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.began.elapsed()
    }
}
