//! The state machine: what is applied, in log order, to the ordered store, and the views that readers get of it.
//!
//! **Invariants.** Applying is a function of the state and the entry alone, so that every replica ends up with the
//! same bytes. The applied log id and the membership are written in the batch of the entry that moved them. Nothing
//! is visible before every observer was told of it. This module knows neither openraft nor what a value means.
//! Read next: `apply.rs` for one entry, [`export`] and [`install`] for whole states. Formats: `docs/formats/state.md`.

mod apply;
pub mod compose;
pub mod export;
mod frame;
pub mod import;
pub mod install;
mod load;
mod marks;
mod meta;
pub mod node_store;
mod versions;
mod view;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use arca_danger::Bug;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::command::CommandError;
use crate::kv::{Kv, KvError, KvHome};
use crate::watch;
use crate::{ApplyObserver, ReadView};

pub use apply::{Apply, Outcome, Payload, SetOutcome};
pub use compose::Composer;
pub use export::{Exporter, Scope};
pub use import::Uploader;
pub use install::{Receiver, Staged};
pub(crate) use marks::{KEPT as MARKS_KEPT, Mark};
pub use meta::{Header, Meta};
pub use node_store::NodeStore;
use versions::Versions;
pub use view::View;

/// The state machine cannot go on, or a stream of state is not what it says.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An entry this build cannot apply. The node must stop.
    #[error("entry {index} cannot be applied: {source}")]
    Command {
        /// Log index.
        index: u64,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// A stream of state is damaged. Nothing of it is visible.
    #[error("state stream is damaged: {0}")]
    Damaged(String),
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A stream of state was written by a newer build.
    #[error("state stream has format {found}, this build knows up to {known}")]
    NewerFormat {
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// Entries were handed over in the wrong order.
    #[error("entry {index} cannot follow entry {applied}")]
    OutOfOrder {
        /// Log index.
        index: u64,
        /// Last index applied.
        applied: u64,
    },
    /// An earlier failure left the store in an unknown state.
    #[error("the state machine stopped: {0}")]
    Stopped(String),
}

/// When [`State::maybe_flush`] flushes: what a restart must at most replay.
#[derive(Clone, Copy, Debug)]
pub struct FlushPolicy {
    /// After this many bytes of keys and values written.
    pub bytes: u64,
    /// After this long, if anything was written.
    pub interval: Duration,
}

impl Default for FlushPolicy {
    fn default() -> Self {
        Self { bytes: 8 << 20, interval: Duration::from_secs(30) }
    }
}

/// The state machine of one member. All methods may be called from any thread; entries are applied one call at a
/// time.
pub struct State {
    home: Arc<dyn KvHome>,
    writer: Mutex<Writer>,
    /// The newest view. Replaced after every apply, so that a reader takes one without asking the store.
    published: ArcSwap<View>,
    applied: watch::Sender<u64>,
    observers: RwLock<Vec<Arc<dyn ApplyObserver>>>,
    /// Locked last, and never while anything is done.
    flushed: Mutex<Flushed>,
    unflushed_bytes: AtomicU64,
}

/// What only the one who applies may touch.
struct Writer {
    kv: Arc<dyn Kv>,
    meta: Meta,
    versions: Versions,
    /// Why nothing more may be applied.
    failure: Option<String>,
}

struct Flushed {
    index: u64,
    at: Instant,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("applied", &self.published.load().index()).finish_non_exhaustive()
    }
}

impl State {
    /// Opens the current store of `home`. What it shows is durable from here on.
    ///
    /// # Errors
    /// When it is damaged, of a newer format, or fails.
    pub fn open(home: Arc<dyn KvHome>) -> Result<Self, StateError> {
        let kv = home.open()?;
        kv.flush()?;
        let meta = Meta::read(kv.as_ref())?;
        let view = View::new(meta.clone(), kv.snapshot());
        Ok(Self {
            home,
            published: ArcSwap::from_pointee(view),
            applied: watch::Sender::new(meta.index),
            observers: RwLock::default(),
            flushed: Mutex::new(Flushed { index: meta.index, at: Instant::now() }),
            unflushed_bytes: AtomicU64::new(0),
            writer: Mutex::new(Writer { kv, meta, versions: Versions::default(), failure: None }),
        })
    }

    /// See [`KvHome::write_time`].
    #[must_use]
    pub fn write_time(&self) -> Duration {
        self.home.write_time()
    }

    /// The newest view. Costs a reference count.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.published.load_full()
    }

    /// The applied index, as a stream of changes.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Adds an observer, which is told of everything applied from now on.
    pub fn observe(&self, observer: Arc<dyn ApplyObserver>) {
        // With the writer held, so that it sees whole entries.
        let _writer = self.writer.lock();
        self.observers.write().push(observer);
    }

    /// Highest index known to be durable. The log must keep every entry after it.
    #[must_use]
    pub fn flushed_index(&self) -> u64 {
        self.flushed.lock().index
    }

    /// Makes everything applied so far durable, and answers up to which index. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// When the store fails; nothing more is then applied.
    pub fn flush(&self) -> Result<u64, StateError> {
        let (kv, index) = {
            let writer = self.writer.lock();
            writer.check()?;
            (writer.kv.clone(), writer.meta.index)
        };
        self.unflushed_bytes.store(0, Ordering::Release);
        if let Err(err) = kv.flush() {
            self.writer.lock().failure = Some(err.to_string());
            return Err(err.into());
        }
        Ok(self.record_flush(index))
    }

    fn record_flush(&self, index: u64) -> u64 {
        let mut flushed = self.flushed.lock();
        flushed.index = flushed.index.max(index);
        flushed.at = Instant::now();
        flushed.index
    }

    /// Flushes if `policy` says that it is time, and answers up to which index everything is durable.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn maybe_flush(&self, policy: &FlushPolicy) -> Result<u64, StateError> {
        let bytes = self.unflushed_bytes.load(Ordering::Acquire);
        let (index, age) = {
            let flushed = self.flushed.lock();
            (flushed.index, flushed.at.elapsed())
        };
        let is_due = bytes >= policy.bytes || (age >= policy.interval && index < self.view().index());
        if is_due { self.flush() } else { Ok(index) }
    }

    /// The whole state as it is now, as frames.
    #[must_use]
    pub fn export(&self, scope: Scope, cluster: &[u8]) -> Exporter {
        Exporter::new(self.view(), scope, cluster)
    }

    /// Takes in a state beside the visible one. It becomes visible by [`Self::install`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn receive(&self) -> Result<Receiver, StateError> {
        let draft = self.home.draft()?;
        if arca_danger::is(Bug::SnapshotOverOldState) {
            load::copy(self.view().snapshot(), draft.kv().as_ref())?;
        }
        Ok(Receiver::new(draft))
    }

    /// Replaces the state by one that was received whole and verified. Answers false, and drops it, when it is not
    /// ahead of what is applied.
    ///
    /// # Errors
    /// When the store fails; nothing more is then applied.
    pub fn install(&self, staged: Staged) -> Result<bool, StateError> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let meta = staged.meta().clone();
        if !meta.is_after(&writer.meta) {
            return Ok(false);
        }
        let kv = staged.promote();
        let kv = writer.guard(kv)?;
        self.replace(&mut writer, kv, meta);
        Ok(true)
    }

    /// BLAKE3 over the applied index and every entry, for comparing replicas. Reads everything.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state_hash(&self) -> Result<[u8; 32], KvError> {
        self.view().hash()
    }

    /// Makes a promoted store the one that is applied to and read. It was flushed before it was promoted.
    fn replace(&self, writer: &mut Writer, kv: Arc<dyn Kv>, meta: Meta) {
        writer.kv = kv;
        writer.meta = meta;
        writer.versions.forget_everything();
        self.record_flush(writer.meta.index);
        let view = Arc::new(View::new(writer.meta.clone(), writer.kv.snapshot()));
        for observer in self.observers.read().iter().filter(|_| !arca_danger::is(Bug::SnapshotKeepsCaches)) {
            observer.replaced(writer.meta.index, view.as_ref());
        }
        self.publish_view(view);
    }

    fn publish(&self, writer: &Writer) {
        self.publish_view(Arc::new(View::new(writer.meta.clone(), writer.kv.snapshot())));
    }

    fn publish_view(&self, view: Arc<View>) {
        let index = view.index();
        self.published.store(view);
        self.applied.send_replace(index);
    }
}

impl Writer {
    fn check(&self) -> Result<(), StateError> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(StateError::Stopped(failure.clone())))
    }

    /// Remembers a failure: what the store holds is then unknown.
    fn guard<T, E: Into<StateError>>(&mut self, result: Result<T, E>) -> Result<T, StateError> {
        result.map_err(|err| {
            let err = err.into();
            self.failure = Some(err.to_string());
            err
        })
    }
}

#[cfg(test)]
mod tests;
