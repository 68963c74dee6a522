//! Values and names sealed and opened; the keyring; Shamir shares; the `Seal` trait.
//!
//! Everything that is stored or replicated passes through [`Barrier`] first. What it defends against: a stolen disk,
//! log, snapshot or backup, and anybody who can read or change stored bytes without holding the keyring.
//! Read next: [`aead`] for values, [`names`] for keys, [`keyring`] for terms and rotation, [`seal`] for unsealing.

