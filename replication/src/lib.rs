//! What committed entries changed, shipped from one cluster to another and applied there exactly once.
//!
//! A *source* is a member of the cluster that is followed, a *sink* the active member of the one that follows. Everything
//! here is ciphertext: this crate cannot open a value, and never imports the barrier. Whatever carries its messages
//! ([`Link`]) has verified who is at the other end.
//! Read next: [`cursor`] for where a secondary is, [`sieve`] for what leaves a cluster, [`source`] and [`sink`] for the two
//! ends, `docs/adr/0023` for why, `docs/formats/replication.md` for the bytes.

pub mod catchup;
pub mod codec;
pub mod compare;
pub mod copy;
pub mod crossing;
pub mod cursor;
mod follow;
mod following;
pub mod history;
mod known;
pub mod link;
pub mod message;
#[cfg(test)]
mod models;
mod moments;
pub mod pace;
pub mod pinned;
pub mod progress;
pub mod record;
mod retention;
pub mod segment;
pub mod side;
pub mod sieve;
pub mod sink;
pub mod source;
pub mod status;
#[cfg(test)]
mod tests;

pub use catchup::Comparing;
pub use compare::{CompareError, Comparison, Comparisons, OwnRecords, Root};
pub use copy::{CopyError, Incoming};
pub use cursor::{Cursor, Epoch, Generation};
pub use history::{BeginError, History};
pub use link::{ASK_BYTES_MAX, Call, Link, LinkError, PayloadStream, Refusal};
pub use message::{Announcement, Answer, CursorMessage};
pub use pace::Pace;
pub use pinned::{Pinned, Position};
pub use progress::{Figures, Progress};
pub use record::{ForgetError, HISTORY_KEY, RECORDS, cursor_key, forget_cursor, load_cursor};
pub use segment::Segment;
pub use side::{Follower, Greeting, GreetingNode, PrimaryLink, PrimarySide, Replicated, Unserved, Welcome};
pub use sieve::{Kind, Rules, Sieve, Sieved, Sieves};
pub use sink::{Catchup, CatchupError, Ended, Sink, SinkSettings};
pub use source::{Clock, Heard, Primary, SecondaryStatus, Source, SourceSettings};
pub use status::{CatchupProgress, Connection, SinkStatus, State, Tell};
