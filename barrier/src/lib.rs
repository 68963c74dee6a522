//! Values and names sealed and opened; the keyring; Shamir shares; the `Seal` trait.
//!
//! Everything that is stored or replicated passes through [`Barrier`] first. What it defends against: a stolen disk,
//! log, snapshot or backup, and anybody who can change stored bytes without holding the keyring. It does no I/O and
//! knows no clock. The byte formats are in `docs/formats/barrier.md`.
//! Read next: [`Barrier`], `names.rs` for keys, `keyring.rs` for terms and rotation, `seal.rs` for unsealing.

mod barrier;
mod class;
mod entropy;
mod envelope;
mod error;
mod keyring;
mod names;
mod reader;
mod recent;
mod root_key;
mod seal;
mod shamir;
mod suite;
mod timed;
mod unseal;

pub use barrier::{Barrier, KeyStatus};
pub use class::{Class, boot_key};
pub use entropy::{Entropy, EntropyError, OsEntropy};
pub use error::BarrierError;
pub use keyring::{Keyring, RotationConfig};
pub use names::{Child, PATH_SIZE_MAX, SEGMENT_SIZE_MAX, SEGMENTS_MAX};
pub use root_key::RootKey;
pub use seal::{Seal, SealConfig, ShamirSeal};
pub use shamir::{SHARES_MAX, Share, combine, split};
pub use suite::Suite;
pub use timed::TimedIndex;
pub use unseal::{Offer, UnsealProgress};
