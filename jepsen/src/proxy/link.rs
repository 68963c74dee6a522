//! One direction between two sites, and what happens to the bytes that go that way.
//!
//! Every connection between the two sites obeys it, whichever of them opened it. A link has no packets: what a network
//! does to packets shows here as it shows to TCP, as time ([`Rules::delay`], [`Loss::stall_percent`]) or as the end of
//! the connection ([`Loss::reset_per_mille`]). Bytes are never lost, doubled or reordered within a connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long a lost segment holds up what is behind it: the smallest time after which Linux sends it again.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// What a link does to what is sent over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How many faults block it. While any does, nothing passes: what was sent waits, as TCP would send it again, and
    /// new connections wait too.
    pub blocks: u32,
    /// Every chunk is this late.
    pub delay: Duration,
    /// And by up to this much more, drawn anew for each chunk. Order is kept.
    pub jitter: Duration,
    /// Each connection gets no more than this.
    pub bytes_per_second: Option<u64>,
    /// Chunks held up and connections reset.
    pub loss: Loss,
}

impl Rules {
    /// Whether nothing passes.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.blocks > 0
    }
}

/// Loss as TCP shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// How many of a hundred chunks are held up for [`RESEND_AFTER`], everything behind them included.
    pub stall_percent: u64,
    /// How many of a thousand chunks end their connection.
    pub reset_per_mille: u64,
}

impl Loss {
    pub(super) const STALL: Duration = RESEND_AFTER;
}

/// What went over a link, and what was done to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections opened over it.
    pub connections: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Chunks that found it blocked.
    pub held: u64,
    /// Chunks held up as if lost.
    pub stalls: u64,
    /// Connections reset, by loss or by a cut.
    pub resets: u64,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct Link {
    rules: watch::Sender<Rules>,
    cuts: watch::Sender<u64>,
    connections: AtomicU64,
    bytes: AtomicU64,
    held: AtomicU64,
    stalls: AtomicU64,
    resets: AtomicU64,
}

impl Link {
    /// What holds now.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules.borrow().clone()
    }

    /// Changes what holds, for old connections too.
    pub fn change(&self, change: impl FnOnce(&mut Rules)) {
        self.rules.send_modify(change);
    }

    /// Resets the connections there are. New ones may be made.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What went over it so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            connections: of(&self.connections),
            bytes: of(&self.bytes),
            held: of(&self.held),
            stalls: of(&self.stalls),
            resets: of(&self.resets),
        }
    }

    /// Waits until it passes bytes. Answers whether that took waiting.
    pub(super) async fn passable(&self) -> bool {
        let mut rules = self.rules.subscribe();
        if !rules.borrow_and_update().is_blocked() {
            return false;
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        // The sender is `self`: it cannot be gone.
        let _ = rules.wait_for(|rules| !rules.is_blocked()).await;
        true
    }

    /// To be asked for before a connection is made, so that no cut is missed.
    pub(super) fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn count_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }
}
