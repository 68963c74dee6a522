//! Whole conversations with a mount.

mod cipher;
mod keys;
mod signing;
mod tools;

use crate::secrets::transit::make;
use crate::testing::Rig;

const HASHES: [&str; 9] =
    ["sha1", "sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512"];

fn rig() -> Rig {
    Rig::new(make, "")
}
