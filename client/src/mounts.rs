//! Secrets engines and auth methods: where they are mounted and how they are tuned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::request::Request;
use crate::sys::Sys;

/// Which of the two mount tables is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Secrets engines, `sys/mounts`.
    Secrets,
    /// Auth methods, `sys/auth`.
    Auth,
}

impl Table {
    fn path(self) -> &'static str {
        match self {
            Self::Secrets => "sys/mounts",
            Self::Auth => "sys/auth",
        }
    }
}

/// A mount, as a listing shows it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Mount {
    /// Its id in the mount table.
    pub uuid: String,
    /// The engine or method.
    #[serde(rename = "type")]
    pub kind: String,
    /// For humans.
    pub description: String,
    /// Its accessor.
    pub accessor: String,
    /// How it is tuned.
    pub config: Map<String, Value>,
    /// Settings of the engine, such as kv's `version`.
    pub options: Option<BTreeMap<String, String>>,
    /// Whether replication leaves it out.
    pub local: bool,
    /// Whether its storage is wrapped by the seal.
    pub seal_wrap: bool,
    /// Whether it draws entropy from outside.
    pub external_entropy_access: bool,
    /// The chosen version.
    pub plugin_version: String,
    /// The version that runs.
    pub running_plugin_version: String,
    /// The checksum of what runs.
    pub running_sha256: String,
    /// `supported`, `deprecated`, ….
    pub deprecation_status: String,
}

/// A mount to be made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewMount {
    /// The engine or method.
    #[serde(rename = "type")]
    pub kind: String,
    /// For humans.
    pub description: String,
    /// How it is tuned.
    pub config: Tuning,
    /// Whether replication leaves it out.
    pub local: bool,
    /// Whether its storage is wrapped by the seal.
    pub seal_wrap: bool,
    /// Whether it draws entropy from outside.
    pub external_entropy_access: bool,
    /// Settings of the engine, such as kv's `version`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// How a mount is tuned. What is `None` stays as it is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tuning {
    /// The TTL of leases that ask for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_lease_ttl: Option<String>,
    /// The longest TTL of a lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lease_ttl: Option<String>,
    /// For humans; only when tuning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Keep nothing of this mount in caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_no_cache: Option<bool>,
    /// Request fields that audit logs show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_non_hmac_request_keys: Option<Vec<String>>,
    /// Response fields that audit logs show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_non_hmac_response_keys: Option<Vec<String>>,
    /// `unauth` shows the mount to everybody, `hidden` to nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listing_visibility: Option<String>,
    /// Headers the engine sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passthrough_request_headers: Option<Vec<String>>,
    /// Headers the engine may set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_response_headers: Option<Vec<String>>,
    /// What tokens an auth method makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<String>,
    /// The version to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_version: Option<String>,
    /// When failed logins lock a user out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_lockout_config: Option<BTreeMap<String, Value>>,
    /// Settings of the engine; only when tuning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<BTreeMap<String, String>>,
}

/// How far moving a mount is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Migration {
    /// `in-progress`, `success`, `failure`.
    pub status: String,
    /// Where it was.
    pub source_mount: String,
    /// Where it goes.
    pub target_mount: String,
}

/// What the `kv` commands need to know about a mount before they use it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Preflight {
    /// Where the mount is, with its final slash.
    pub path: String,
    /// The engine.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its settings; kv has `version`.
    pub options: Option<BTreeMap<String, String>>,
}

impl Preflight {
    /// The version of a kv mount.
    pub fn kv_version(&self) -> u8 {
        let version = self.options.as_ref().and_then(|options| options.get("version"));
        if version.is_some_and(|version| version == "2") { 2 } else { 1 }
    }
}

impl Sys<'_> {
    /// Every mount of a table, by path.
    pub async fn mounts(&self, table: Table) -> Result<BTreeMap<String, Mount>, Error> {
        self.client.send(Request::get(table.path())).await?.data()
    }

    /// Makes a mount.
    pub async fn mount(&self, table: Table, path: &str, new: &NewMount) -> Result<(), Error> {
        let request = Request::post(format!("{}/{}", table.path(), path.trim_matches('/')));
        self.client.send(request.json(new)?).await.map(drop)
    }

    /// Removes a mount and all that is in it.
    pub async fn unmount(&self, table: Table, path: &str) -> Result<(), Error> {
        self.client.delete(&format!("{}/{}", table.path(), path.trim_matches('/'))).await.map(drop)
    }

    /// Tunes a mount.
    pub async fn tune(&self, table: Table, path: &str, tuning: &Tuning) -> Result<(), Error> {
        // By this path auth methods are tuned without `sudo`, which `sys/auth/` would ask for.
        let prefix = if table == Table::Auth { "auth/" } else { "" };
        let request = Request::post(format!("sys/mounts/{prefix}{}/tune", path.trim_matches('/')));
        self.client.send(request.json(tuning)?).await.map(drop)
    }

    /// Begins to move a mount; auth methods are named with their `auth/`. Answers the id of the move.
    pub async fn remount(&self, from: &str, to: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            migration_id: String,
        }
        let request = Request::post("sys/remount").json(&json!({"from": from, "to": to}))?;
        Ok(self.client.send(request).await?.data::<Answer>()?.migration_id)
    }

    /// How far a move is.
    pub async fn remount_status(&self, id: &str) -> Result<Migration, Error> {
        #[derive(Deserialize)]
        struct Answer {
            migration_info: Migration,
        }
        let request = Request::get(format!("sys/remount/status/{id}"));
        Ok(self.client.send(request).await?.data::<Answer>()?.migration_info)
    }

    /// Which mount `path` is in.
    pub async fn preflight(&self, path: &str) -> Result<Preflight, Error> {
        // Wrapping this answer would hide it from the one who needs it.
        let client = self.client.live().with_wrap_ttl(None);
        client.send(Request::get(format!("sys/internal/ui/mounts/{}", path.trim_matches('/')))).await?.data()
    }
}
