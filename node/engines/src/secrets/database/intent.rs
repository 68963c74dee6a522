//! What this engine intends to do in a database, as it goes through the kernel.

use arca_engine_api::{EngineError, Map};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::creds::Creation;

/// What is to be done. Rotations name what is recorded in storage.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Intent {
    /// Make a user.
    Create(Creation),
    /// Set the password of a connection's own user.
    RotateRoot {
        /// The connection.
        name: String,
        /// Which attempt it is.
        attempt: u64,
    },
    /// Set the password of a static role's user.
    RotateStatic {
        /// The role.
        name: String,
        /// Which attempt it is.
        attempt: u64,
        /// Whether the role is made by it, and is to go if nothing comes of it.
        is_creation: bool,
    },
}

/// What came of a rotation: what kernel and engine pass from one to the other.
#[derive(Serialize, Deserialize)]
pub(super) struct Rotated {
    /// The password that was set.
    pub(super) password: String,
    /// Why not, and whether it is certain that nothing was changed.
    pub(super) failed: Option<(String, bool)>,
}

/// A value as the kernel carries it.
pub(super) fn to_map(value: &impl Serialize) -> Result<Map, EngineError> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(EngineError::Bug("what is intended is no object".to_owned())),
    }
}

/// The value back.
pub(super) fn from_map<T: DeserializeOwned>(map: &Map) -> Result<T, EngineError> {
    serde_json::from_value(Value::Object(map.clone()))
        .map_err(|_| EngineError::Bug("what was intended does not read back".to_owned()))
}
