//! Whole conversations with a mount.

mod certificates;
mod cipher;
mod deriving;
mod interop;
mod keys;
mod moving;
mod refusals;
mod signing;
mod tools;
mod whole;

use arca_engine_api::{Entropy, EntropyError, Operation};
use serde_json::{Map, Value};

use crate::secrets::transit::kind::Kind;
use crate::secrets::transit::make;
use crate::testing::Rig;

const HASHES: [&str; 9] =
    ["sha1", "sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512"];

fn rig() -> Rig {
    Rig::new(make, "")
}

/// What a request that has to go well answers.
#[track_caller]
fn data(rig: &Rig, operation: Operation, path: &str, data: &Value) -> Map<String, Value> {
    let answer = rig.call(operation, path, data).unwrap_or_else(|err| panic!("{path}: {err}"));
    answer.data.unwrap_or_default()
}

fn make_key(rig: &Rig, name: &str, settings: &Value) -> Map<String, Value> {
    data(rig, Operation::Update, &format!("keys/{name}"), settings)
}

fn kind(name: &str) -> Kind {
    Kind::named(name).unwrap()
}

/// As random as the rig's source.
#[derive(Debug)]
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(7);
        Ok(())
    }
}
