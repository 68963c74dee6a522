//! A replication port that notes what it was asked and changes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arca_engine_api::Map;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use zeroize::Zeroizing;

use crate::KernelError;
use crate::replication::{
    ActivationToken, Kind, Promotion, ReplicationPort, SecondaryToken, SecondaryUpdate,
};

/// See the file's header.
#[derive(Debug, Default)]
pub struct NotingReplication {
    notes: Mutex<Vec<String>>,
    refuses: AtomicBool,
}

impl NotingReplication {
    /// What was asked since the last call.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock())
    }

    /// Whether every order is refused from now on.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    fn note(&self, text: String) -> Result<(), KernelError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(KernelError::invalid("refused by the node"));
        }
        self.notes.lock().push(text);
        Ok(())
    }
}

fn object(value: serde_json::Value) -> Map {
    if let serde_json::Value::Object(map) = value { map } else { Map::new() }
}

#[async_trait]
impl ReplicationPort for NotingReplication {
    fn status(&self, _kind: Kind) -> Result<Map, KernelError> {
        Ok(object(json!({"state": "running", "last_wal": 7})))
    }

    async fn enable_primary(&self, kind: Kind, cluster_addr: String) -> Result<(), KernelError> {
        self.note(format!("enable {} primary at {cluster_addr:?}", kind.name()))
    }

    async fn configure_primary(&self, kind: Kind, fence_after: Duration) -> Result<(), KernelError> {
        self.note(format!("fence {} primary after {} s", kind.name(), fence_after.as_secs()))
    }

    async fn demote_primary(&self, kind: Kind) -> Result<(), KernelError> {
        self.note(format!("demote {} primary", kind.name()))
    }

    async fn disable_primary(&self, kind: Kind) -> Result<(), KernelError> {
        self.note(format!("disable {} primary", kind.name()))
    }

    async fn secondary_token(
        &self,
        kind: Kind,
        wanted: SecondaryToken,
    ) -> Result<ActivationToken, KernelError> {
        let SecondaryToken { id, ttl, public_key } = wanted;
        let (kind, ttl) = (kind.name(), ttl.as_secs());
        self.note(format!("{kind} token for {id:?}, {ttl} s, public key {public_key:?}"))?;
        Ok(ActivationToken { token: Zeroizing::new("the.token".to_owned()), accessor: "handle".to_owned() })
    }

    async fn revoke_secondary(&self, kind: Kind, id: &str) -> Result<(), KernelError> {
        self.note(format!("revoke {} secondary {id:?}", kind.name()))
    }

    async fn generate_public_key(&self, kind: Kind) -> Result<String, KernelError> {
        self.note(format!("{} public key", kind.name()))?;
        Ok("a-key".to_owned())
    }

    async fn enable_secondary(&self, kind: Kind, token: Zeroizing<String>) -> Result<(), KernelError> {
        self.note(format!("enable {} secondary with {} characters", kind.name(), token.len()))
    }

    async fn promote_secondary(
        &self,
        kind: Kind,
        cluster_addr: String,
        promotion: Promotion,
    ) -> Result<(), KernelError> {
        self.note(format!("promote {} secondary at {cluster_addr:?}, {promotion:?}", kind.name()))
    }

    async fn disable_secondary(&self, kind: Kind, is_forced: bool) -> Result<(), KernelError> {
        self.note(format!("disable {} secondary, forced {is_forced}", kind.name()))
    }

    async fn update_primary(&self, kind: Kind, update: SecondaryUpdate) -> Result<(), KernelError> {
        let update = match update {
            SecondaryUpdate::Token(token) => format!("a token of {} characters", token.len()),
            SecondaryUpdate::Addresses(addresses) => addresses.join(" "),
            SecondaryUpdate::Forget => "none".to_owned(),
        };
        self.note(format!("{} primary is {update}", kind.name()))
    }

    async fn reindex(&self, kind: Kind) -> Result<(), KernelError> {
        self.note(format!("reindex {}", kind.name()))
    }

    async fn merkle_check(&self) -> Result<Map, KernelError> {
        self.note("merkle-check".to_owned())?;
        Ok(object(json!({"corrupted_root": false})))
    }

    async fn tail(&self, kind: Kind, after: Option<String>, limit: usize) -> Result<Map, KernelError> {
        self.note(format!("{} tail after {after:?}, {limit}", kind.name()))?;
        Ok(object(json!({"writes": []})))
    }
    async fn await_secondaries(
        &self,
        _kind: Kind,
        _index: u64,
        _patience: Duration,
    ) -> Result<usize, KernelError> {
        Ok(0)
    }

    async fn ask_primary(&self, _question: Bytes) -> Result<Bytes, KernelError> {
        Err(KernelError::NoPrimary { reason: "this node follows nobody".to_owned() })
    }

    async fn await_primary(&self, _index: u64, _patience: Duration) -> Result<bool, KernelError> {
        Ok(false)
    }

    fn primary_index(&self) -> Option<u64> {
        None
    }

    fn is_current(&self) -> bool {
        true
    }
}
