//! `arca server -dev`: one node in memory, initialized, unsealed, with KV version 2 at `secret/`. For trying things
//! out: nothing outlives the process, and the root token is printed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arca_api::{InitRequest, ListenerOptions, SystemError, TlsOptions};
use arca_client::{Address, Client, Config as ClientConfig, Token};
use arca_engine_api::Map;
use arca_raft_storage::Replica as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::config::{Config, DevMode, ListenerConfig, RaftSettings, Storage, Telemetry};
use crate::node::Node;

/// How long the node may take to lead its cluster of one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The settings of a dev server on `address`.
#[must_use]
pub fn config(address: &str, dev: DevMode, tls: Option<TlsOptions>) -> Config {
    let scheme = if tls.is_some() { "https" } else { "http" };
    Config {
        node_name: "dev".to_owned(),
        storage: Storage::InMemory,
        listeners: vec![ListenerConfig {
            address: address.to_owned(),
            tls,
            options: ListenerOptions::default(),
            unauthenticated_metrics: false,
        }],
        api_addr: format!("{scheme}://{address}"),
        cluster_addr: String::new(),
        cluster_listen: String::new(),
        cluster_name: None,
        default_lease_ttl: crate::config::LEASE_TTL,
        max_lease_ttl: crate::config::LEASE_TTL,
        disable_mlock: true,
        log_level: "info".to_owned(),
        is_log_json: false,
        log_file: None,
        ui: false,
        pid_file: None::<PathBuf>,
        telemetry: Telemetry { prometheus_retention: Duration::from_secs(24 * 3600), disable_hostname: true },
        raft: RaftSettings::default(),
        sanitized: Map::new(),
        dev: Some(dev),
    }
}

/// Initializes, unseals and mounts, then says how to use it.
///
/// # Errors
/// A text for the operator.
pub async fn prepare(node: &Arc<Node>, config: &Config) -> Result<(), String> {
    let Some(dev) = &config.dev else { return Ok(()) };
    let request = InitRequest { secret_shares: Some(1), secret_threshold: Some(1), ..InitRequest::default() };
    let made = node.init(request).await.map_err(|err| err.to_string())?;
    let share = made.shares.first().ok_or("no unseal key was made")?;
    let key = STANDARD.encode(share.as_slice());
    node.unseal(&key).await.map_err(|err| SystemError::from(err).to_string())?;
    let active = async {
        while !node.is_active() {
            let Some(mut changes) = node.unsealed.load().as_ref().map(|unsealed| unsealed.replica.watch())
            else {
                return;
            };
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
        }
    };
    tokio::time::timeout(PATIENCE, active)
        .await
        .map_err(|_| "the dev server did not become active".to_owned())?;
    let token = made.root_token.to_string();
    if !dev.no_kv {
        mount_kv(config, &token).await?;
    }
    println!("arca dev server: everything is in memory and gone when it stops. Not for production.\n");
    println!("  export ARCA_ADDR='{}'", config.api_addr);
    println!("  export ARCA_TOKEN='{token}'\n");
    println!("Unseal key: {key}\nRoot token: {token}\n");
    if !dev.no_store_token {
        arca_cli::remember_token(&token).map_err(|err| format!("the token could not be stored: {err}"))?;
    }
    Ok(())
}

async fn mount_kv(config: &Config, token: &str) -> Result<(), String> {
    let address: Address = config.api_addr.parse().map_err(|err| format!("{err}"))?;
    let mut settings = ClientConfig::new(address);
    settings.token = Some(Token::new(token));
    settings.tls.danger_skip_verify = true; // The dev server talks to itself.
    let client = Client::new(settings).map_err(|err| err.to_string())?;
    let body = json!({"type": "kv", "options": {"version": "2"}, "description": "key/value secret storage"});
    client.write("sys/mounts/secret", &body).await.map(drop).map_err(|err| format!("mounting secret/: {err}"))
}
