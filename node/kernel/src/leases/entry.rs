//! What is known of a lease: enough to renew and to undo what it granted.

use std::time::Duration;

use arca_engine_api::{LeaseRecord, Map, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::tokens::TokenRef;
use crate::tokens::lifetime::{millis, seconds};

/// How far a lease is from its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Undoing it failed too often; only a forced revocation takes it away.
    Irrevocable,
    /// Good until its deadline.
    #[default]
    Live,
    /// What it granted is to be undone.
    Revoking,
}

/// A lease's record. Stored at `<namespace id>/lease/id/<lease id>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// Path of the request, and random characters.
    pub id: String,
    /// Id of the namespace of the request.
    pub namespace_id: String,
    /// Path of the request, without the namespace.
    pub path: String,
    /// Id of the mount that granted it.
    pub mount_uuid: String,
    /// The token it ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenRef>,
    /// When it was granted.
    pub issued: UnixMillis,
    /// When it ends.
    pub expires: UnixMillis,
    /// When it was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renewed: Option<UnixMillis>,
    /// Lifetime at issue.
    #[serde(with = "millis")]
    pub ttl: Duration,
    /// Longest lifetime the engine allows; zero for the mount's.
    #[serde(with = "millis")]
    pub max_ttl: Duration,
    /// The moment no renewal can pass: the end of the batch token it was granted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_after: Option<UnixMillis>,
    /// Whether it can be renewed.
    #[serde(default)]
    pub is_renewable: bool,
    /// For the engine's eyes only.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub internal: Map,
    /// How far from its end.
    #[serde(default)]
    pub state: LeaseState,
    /// Drop it even if undoing fails.
    #[serde(default)]
    pub is_forced: bool,
    /// How often undoing failed.
    #[serde(default)]
    pub attempts: u32,
    /// What was granted is still being made, and nothing of that is under way any more after this moment; none once
    /// it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<UnixMillis>,
    /// When undoing is to be tried; its place in the time index then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<UnixMillis>,
    /// What undoing said last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
}

impl LeaseEntry {
    /// Where it stands in the time index; an irrevocable lease stands nowhere.
    #[must_use]
    pub(super) fn due(&self) -> Option<UnixMillis> {
        let ends = self.settled_by.unwrap_or(self.expires);
        (self.state != LeaseState::Irrevocable).then(|| self.queued.unwrap_or(ends))
    }

    /// When its present lifetime began.
    #[must_use]
    pub fn renewed_or_issued(&self) -> UnixMillis {
        self.last_renewed.unwrap_or(self.issued)
    }

    /// The lifetime it was given when it was granted or last renewed, in seconds as clients are shown them.
    #[must_use]
    pub fn granted_seconds(&self) -> u64 {
        seconds(self.expires.since(self.renewed_or_issued()))
    }

    /// Whether it may be used and renewed.
    #[must_use]
    pub fn is_good(&self, now: UnixMillis) -> bool {
        self.state == LeaseState::Live && self.expires > now
    }

    /// As engines get it back.
    #[must_use]
    pub fn to_record(&self, increment: Duration) -> LeaseRecord {
        LeaseRecord { id: self.id.clone(), internal: self.internal.clone(), increment, ttl: self.ttl }
    }
}
