//! Whole conversations with a mount.

mod cipher;
mod keys;

use crate::secrets::transit::make;
use crate::testing::Rig;

fn rig() -> Rig {
    Rig::new(make, "")
}
