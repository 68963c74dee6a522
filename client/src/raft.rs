//! The cluster behind the servers: members, snapshots, autopilot.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWrite;

use crate::error::Error;
use crate::request::{Body, Request};
use crate::secret::Secret;
use crate::sys::Sys;

/// How a server joins a cluster.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Join {
    /// The leader's address for clients.
    pub leader_api_addr: String,
    /// PEM of the CA that signed the leader's certificate.
    pub leader_ca_cert: String,
    /// PEM of the certificate to show to the leader.
    pub leader_client_cert: String,
    /// PEM of the key to it.
    pub leader_client_key: String,
    /// The name the leader's certificate is for.
    pub leader_tls_servername: String,
    /// How to find the leader, in the words of go-discover.
    pub auto_join: String,
    /// `http` or `https`.
    pub auto_join_scheme: String,
    /// The port of servers so found.
    pub auto_join_port: u16,
    /// Try until it works.
    pub retry: bool,
    /// Follow without a vote.
    pub non_voter: bool,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Peer {
    /// Its id.
    pub node_id: String,
    /// Its address for servers.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes.
    pub voter: bool,
    /// The protocol it speaks.
    pub protocol_version: String,
}

/// How autopilot sees the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct AutopilotState {
    /// Whether every server is.
    pub healthy: bool,
    /// Voters that may fail.
    pub failure_tolerance: i64,
    /// Voters that may fail if those who do not vote yet take over in time.
    pub optimistic_failure_tolerance: i64,
    /// Every server, by id.
    pub servers: BTreeMap<String, AutopilotServer>,
    /// The id of the leader.
    pub leader: String,
    /// The ids of the voters.
    pub voters: Option<Vec<String>>,
    /// The ids of those who do not vote.
    pub non_voters: Option<Vec<String>>,
}

/// How autopilot sees a server.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct AutopilotServer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its address for servers.
    pub address: String,
    /// `alive`, `failed`, `left`.
    pub node_status: String,
    /// How long ago the leader heard it.
    pub last_contact: String,
    /// The term of its last entry.
    pub last_term: u64,
    /// Its last entry.
    pub last_index: u64,
    /// Whether it is healthy.
    pub healthy: bool,
    /// Since when its health is as it is.
    pub stable_since: String,
    /// `leader`, `voter`, `non-voter`.
    pub status: String,
    /// Its version.
    pub version: String,
    /// The version it counts as during upgrades.
    pub upgrade_version: String,
    /// `voter` or `non-voter`, as it was asked to be.
    pub node_type: String,
}

/// Whether a snapshot of another cluster is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// Only one whose keys match.
    Checked,
    /// Any; the cluster then needs the shares of the other.
    Forced,
}

impl Sys<'_> {
    /// Makes the asked server join a cluster.
    pub async fn raft_join(&self, join: &Join) -> Result<bool, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Answer {
            joined: bool,
        }
        let request = Request::post("sys/storage/raft/join").json(join)?.anonymous();
        Ok(self.client.send(request).await?.json::<Answer>()?.joined)
    }

    /// The members of the cluster, in the envelope.
    pub async fn raft_configuration(&self) -> Result<Secret, Error> {
        self.client.send_secret(Request::get("sys/storage/raft/configuration")).await
    }

    /// The members of the cluster.
    pub async fn raft_peers(&self) -> Result<Vec<Peer>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            config: Servers,
        }
        #[derive(Deserialize)]
        struct Servers {
            servers: Vec<Peer>,
        }
        let answer = self.client.send(Request::get("sys/storage/raft/configuration")).await?;
        Ok(answer.data::<Answer>()?.config.servers)
    }

    /// Puts a member out.
    pub async fn raft_remove_peer(&self, node_id: &str) -> Result<(), Error> {
        self.client.write("sys/storage/raft/remove-peer", &json!({"server_id": node_id})).await.map(drop)
    }

    /// Gives a member a vote.
    pub async fn raft_promote(&self, node_id: &str) -> Result<(), Error> {
        self.client.write("sys/storage/raft/promote", &json!({"server_id": node_id})).await.map(drop)
    }

    /// Takes a member's vote.
    pub async fn raft_demote(&self, node_id: &str) -> Result<(), Error> {
        self.client.write("sys/storage/raft/demote", &json!({"server_id": node_id})).await.map(drop)
    }

    /// Streams a snapshot into `out`; answers its length.
    pub async fn raft_snapshot(&self, out: &mut (impl AsyncWrite + Unpin)) -> Result<u64, Error> {
        self.client.download(Request::get("sys/storage/raft/snapshot"), out).await
    }

    /// Restores the snapshot in a file.
    pub async fn raft_restore(&self, file: &Path, restore: Restore) -> Result<(), Error> {
        let path = match restore {
            Restore::Checked => "sys/storage/raft/snapshot",
            Restore::Forced => "sys/storage/raft/snapshot-force",
        };
        self.client.send(Request::post(path).body(Body::File(file.to_owned()))).await.map(drop)
    }

    /// How autopilot sees the cluster.
    pub async fn autopilot_state(&self) -> Result<AutopilotState, Error> {
        self.client.send(Request::get("sys/storage/raft/autopilot/state")).await?.data()
    }

    /// How autopilot is set.
    pub async fn autopilot_config(&self) -> Result<Secret, Error> {
        self.client.send_secret(Request::get("sys/storage/raft/autopilot/configuration")).await
    }

    /// Sets autopilot; what is left out stays as it is.
    pub async fn set_autopilot_config(&self, config: &Map<String, Value>) -> Result<(), Error> {
        self.client.write("sys/storage/raft/autopilot/configuration", config).await.map(drop)
    }
}
