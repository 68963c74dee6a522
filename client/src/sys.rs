//! The `sys/` calls an operator makes: init, unseal, seal, health, keys, policies, audit devices, wrapping.
//! Mounts are in [`crate::mounts`], leases in [`crate::leases`], raft in [`crate::raft`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::Error;
use crate::request::Request;
use crate::secret::Secret;
use crate::token::Token;

/// Calls on `sys/`, from [`Client::sys`].
#[derive(Clone, Copy, Debug)]
pub struct Sys<'a> {
    pub(crate) client: &'a Client,
}

impl Client {
    /// The system backend.
    pub fn sys(&self) -> Sys<'_> {
        Sys { client: self }
    }
}

/// How a cluster shall be initialized. With Shamir seals the `secret_*` fields count, with others `recovery_*`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InitRequest {
    /// Shares the unseal key is split into.
    pub secret_shares: u16,
    /// Shares that unseal.
    pub secret_threshold: u16,
    /// PGP keys that encrypt the shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pgp_keys: Vec<String>,
    /// Shares the recovery key is split into.
    pub recovery_shares: u16,
    /// Shares that recover.
    pub recovery_threshold: u16,
    /// PGP keys that encrypt the recovery shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recovery_pgp_keys: Vec<String>,
    /// The PGP key that encrypts the root token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root_token_pgp_key: String,
}

/// The shares and the first root token. Shown once; nobody can ask for them again.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct InitResponse {
    /// Unseal shares in hex.
    pub keys: Vec<Token>,
    /// The same in base64.
    pub keys_base64: Vec<Token>,
    /// Recovery shares in hex.
    pub recovery_keys: Option<Vec<Token>>,
    /// The same in base64.
    pub recovery_keys_base64: Option<Vec<Token>>,
    /// The first root token.
    pub root_token: Token,
}

impl fmt::Debug for InitResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InitResponse({} shares, redacted)", self.keys.len())
    }
}

/// Whether a server is sealed, and how far unsealing is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct SealStatus {
    /// `shamir`, `transit`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the cluster has been initialized.
    pub initialized: bool,
    /// Whether this server is sealed.
    pub sealed: bool,
    /// Shares that unseal.
    pub t: u32,
    /// Shares there are.
    pub n: u32,
    /// Shares given so far.
    pub progress: u32,
    /// The id of the unsealing under way.
    pub nonce: String,
    /// The server's version.
    pub version: String,
    /// When the server was built.
    pub build_date: String,
    /// When the source it was built from was committed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub commit_date: String,
    /// Whether the seal is being migrated.
    pub migration: bool,
    /// The cluster's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The cluster's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    /// Whether the shares are recovery shares.
    pub recovery_seal: bool,
    /// `raft`, `inmem`, ….
    #[serde(skip_serializing_if = "String::is_empty")]
    pub storage_type: String,
    /// Whether the cluster has put this node out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed_from_cluster: bool,
    /// What the server wants noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// Who leads, as one server sees it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Leader {
    /// Whether the storage supports several servers.
    pub ha_enabled: bool,
    /// Whether the asked server leads.
    pub is_self: bool,
    /// Since when it leads, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub active_time: String,
    /// The leader's address for clients.
    pub leader_address: String,
    /// The leader's address for servers.
    pub leader_cluster_address: String,
    /// Whether this standby answers reads by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub performance_standby: bool,
    /// The last index known to be committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_committed_index: Option<u64>,
    /// The last index applied here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_applied_index: Option<u64>,
}

/// The health of a server. Asked in a way that every state answers it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Health {
    /// Whether the cluster has been initialized.
    pub initialized: bool,
    /// Whether the server is sealed.
    pub sealed: bool,
    /// Whether it is not the active one.
    pub standby: bool,
    /// Whether it is a standby that answers reads.
    pub performance_standby: bool,
    /// `disabled`, `primary`, `secondary`.
    pub replication_performance_mode: String,
    /// `disabled`, `primary`, `secondary`.
    pub replication_dr_mode: String,
    /// The server's clock, in seconds since 1970.
    pub server_time_utc: i64,
    /// Its version.
    pub version: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's id.
    pub cluster_id: String,
}

/// The barrier key in use.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct KeyStatus {
    /// Its term.
    pub term: u64,
    /// When it was installed, RFC 3339.
    pub install_time: String,
    /// About how often it was used.
    pub encryptions: u64,
}

/// A server of the cluster, as the active one sees it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HaNode {
    /// Its host name.
    pub hostname: String,
    /// Its address for clients.
    pub api_address: String,
    /// Its address for servers.
    pub cluster_address: String,
    /// Whether it is the active one.
    pub active_node: bool,
    /// When it was last heard.
    pub last_echo: Option<String>,
    /// Its version.
    pub version: String,
    /// The version it counts as during upgrades.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upgrade_version: String,
}

/// An audit device.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct AuditDevice {
    /// `file`, `syslog`, `socket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For humans.
    pub description: String,
    /// Its settings.
    pub options: Option<BTreeMap<String, String>>,
    /// Whether it stays in this cluster.
    pub local: bool,
    /// Where it is mounted; the server fills it in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl Sys<'_> {
    /// Whether the cluster has been initialized.
    pub async fn init_status(&self) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Answer {
            initialized: bool,
        }
        let answer: Answer = self.client.send(Request::get("sys/init").anonymous()).await?.json()?;
        Ok(answer.initialized)
    }

    /// Initializes the cluster. **The answer holds everything that opens it.**
    pub async fn init(&self, request: &InitRequest) -> Result<InitResponse, Error> {
        self.client.send(Request::put("sys/init").json(request)?.anonymous()).await?.json()
    }

    /// Whether the server is sealed, and how far unsealing is.
    pub async fn seal_status(&self) -> Result<SealStatus, Error> {
        self.client.send(Request::get("sys/seal-status").anonymous()).await?.json()
    }

    /// Gives a share.
    pub async fn unseal(&self, share: &Token, migrate: bool) -> Result<SealStatus, Error> {
        // The share is the request.
        let body = json!({"key": share.expose(), "migrate": migrate});
        self.client.send(Request::put("sys/unseal").json(&body)?.anonymous()).await?.json()
    }

    /// Forgets the shares given so far.
    pub async fn unseal_reset(&self) -> Result<SealStatus, Error> {
        self.client.send(Request::put("sys/unseal").json(&json!({"reset": true}))?.anonymous()).await?.json()
    }

    /// Seals the server.
    pub async fn seal(&self) -> Result<(), Error> {
        self.client.send(Request::put("sys/seal")).await.map(drop)
    }

    /// The server's health, whatever its state.
    pub async fn health(&self) -> Result<Health, Error> {
        let codes = ["activecode", "standbycode", "drsecondarycode", "performancestandbycode", "sealedcode"];
        let mut request = Request::get("sys/health").anonymous();
        for code in codes.into_iter().chain(["uninitcode", "haunhealthycode", "removedcode"]) {
            request = request.query(code, "299");
        }
        self.client.send(request).await?.json()
    }

    /// Who leads.
    pub async fn leader(&self) -> Result<Leader, Error> {
        self.client.send(Request::get("sys/leader").anonymous()).await?.json()
    }

    /// The servers of the cluster.
    pub async fn ha_status(&self) -> Result<Vec<HaNode>, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Answer {
            nodes: Vec<HaNode>,
        }
        Ok(self.client.send(Request::get("sys/ha-status")).await?.data::<Answer>()?.nodes)
    }

    /// Makes the active server stand down.
    pub async fn step_down(&self) -> Result<(), Error> {
        self.client.send(Request::put("sys/step-down")).await.map(drop)
    }

    /// The barrier key in use.
    pub async fn key_status(&self) -> Result<KeyStatus, Error> {
        self.client.send(Request::get("sys/key-status")).await?.data()
    }

    /// Adds a barrier key and writes with it from now on.
    pub async fn rotate(&self) -> Result<(), Error> {
        self.client.send(Request::post("sys/rotate")).await.map(drop)
    }

    /// What machine the server runs on.
    pub async fn host_info(&self) -> Result<Secret, Error> {
        self.client.send_secret(Request::get("sys/host-info")).await
    }

    /// The names of all policies.
    pub async fn policies(&self) -> Result<Vec<String>, Error> {
        Ok(self.client.list("sys/policies/acl").await?.unwrap_or_default())
    }

    /// The text of a policy.
    pub async fn policy(&self, name: &str) -> Result<Option<String>, Error> {
        let secret = self.client.read(&format!("sys/policies/acl/{name}")).await?;
        Ok(secret.and_then(|secret| Some(secret.field("policy")?.as_str()?.to_owned())))
    }

    /// Writes a policy, HCL or JSON.
    pub async fn write_policy(&self, name: &str, text: &str) -> Result<Option<Secret>, Error> {
        self.client.write(&format!("sys/policies/acl/{name}"), &json!({"policy": text})).await
    }

    /// Deletes a policy.
    pub async fn delete_policy(&self, name: &str) -> Result<(), Error> {
        self.client.delete(&format!("sys/policies/acl/{name}")).await.map(drop)
    }

    /// What `token` may do on `path`; `None` asks for the client's own.
    pub async fn capabilities(&self, token: Option<&Token>, path: &str) -> Result<Vec<String>, Error> {
        let (call, body) = match token {
            // As in a lookup, the body is where another token goes.
            Some(token) => ("sys/capabilities", json!({"token": token.expose(), "path": path})),
            None => ("sys/capabilities-self", json!({"path": path})),
        };
        self.capabilities_by(call, body, path).await
    }

    /// What the token behind `accessor` may do on `path`.
    pub async fn capabilities_by_accessor(&self, accessor: &str, path: &str) -> Result<Vec<String>, Error> {
        self.capabilities_by("sys/capabilities-accessor", json!({"accessor": accessor, "path": path}), path)
            .await
    }

    async fn capabilities_by(&self, call: &str, body: Value, path: &str) -> Result<Vec<String>, Error> {
        let secret = self.client.send_secret(Request::post(call).json(&body)?).await?;
        let list = secret.field(path).or_else(|| secret.field("capabilities")).and_then(Value::as_array);
        Ok(list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Every audit device, by path.
    pub async fn audit_devices(&self) -> Result<BTreeMap<String, AuditDevice>, Error> {
        self.client.send(Request::get("sys/audit")).await?.data()
    }

    /// Enables an audit device.
    pub async fn enable_audit(&self, path: &str, device: &AuditDevice) -> Result<(), Error> {
        self.client.send(Request::put(format!("sys/audit/{path}")).json(device)?).await.map(drop)
    }

    /// Disables an audit device.
    pub async fn disable_audit(&self, path: &str) -> Result<(), Error> {
        self.client.delete(&format!("sys/audit/{path}")).await.map(drop)
    }

    /// Opens a wrapped answer; `None` takes the client's own token for the wrapping token.
    pub async fn unwrap(&self, token: Option<&Token>) -> Result<Option<Secret>, Error> {
        let request = Request::put("sys/wrapping/unwrap");
        let request = match (token, &self.client.config().token) {
            // Without a token of its own, the client uses the wrapping token as one.
            (Some(token), None) => {
                let client = self.client.with_token(Some(token.clone())).with_wrap_ttl(None);
                return client.send(request).await?.secret();
            }
            (Some(token), Some(_)) => request.json(&json!({"token": token.expose()}))?,
            (None, _) => request,
        };
        self.client.send(request).await?.secret()
    }
}
