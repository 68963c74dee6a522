//! `arca server -dev`: one node in memory, initialized, unsealed, with KV version 2 at `secret/`. For trying things
//! out: nothing outlives the process (unless a configuration file names other storage), and the root token is printed.

use std::sync::Arc;
use std::time::Duration;

use arca_api::{InitRequest, ListenerOptions, SystemError, TlsOptions};
use arca_client::{Address, Client, Config as ClientConfig, Token};
use arca_engine_api::Map;
use arca_raft_storage::Replica as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::config::{Config, DevMode, ListenerConfig, Storage};
use crate::node::Node;

/// How long the node may take to lead its cluster of one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The listener of a dev server.
#[must_use]
pub fn listener(address: &str, tls: Option<TlsOptions>) -> ListenerConfig {
    ListenerConfig {
        address: address.to_owned(),
        tls,
        options: ListenerOptions::default(),
        unauthenticated_metrics: false,
        as_written: Map::new(),
    }
}

/// Makes `config` one of a dev server.
pub fn adapt(config: &mut Config, mode: DevMode) {
    config.disable_mlock = true;
    if matches!(config.storage, Storage::InMemory) {
        "dev".clone_into(&mut config.node_name);
        config.cluster_addr.clear();
        config.cluster_listen.clear();
    }
    config.dev = Some(mode);
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
    if let Some(version) = dev.kv {
        mount_kv(config, &token, version).await?;
    }
    let what = if matches!(config.storage, Storage::InMemory) {
        "everything is in memory and gone when it stops"
    } else {
        "unsealed by itself, its keys are shown here"
    };
    println!("arca dev server: {what}. Not for production.\n");
    println!("  export ARCA_ADDR='{}'", config.api_addr);
    if let Some(ca) = &dev.ca_file {
        println!("  export ARCA_CACERT='{}'", ca.display());
    }
    println!("  export ARCA_TOKEN='{token}'\n");
    println!("Unseal key: {key}\nRoot token: {token}\n");
    if !dev.no_store_token {
        arca_cli::remember_token(&token).map_err(|err| format!("the token could not be stored: {err}"))?;
    }
    Ok(())
}

async fn mount_kv(config: &Config, token: &str, version: u8) -> Result<(), String> {
    let address: Address = config.api_addr.parse().map_err(|err| format!("{err}"))?;
    let mut settings = ClientConfig::new(address);
    settings.token = Some(Token::new(token));
    settings.tls.danger_skip_verify = true; // The dev server talks to itself.
    let client = Client::new(settings).map_err(|err| err.to_string())?;
    let body = json!({
        "type": "kv",
        "options": {"version": version.to_string()},
        "description": "key/value secret storage",
    });
    client.write("sys/mounts/secret", &body).await.map(drop).map_err(|err| format!("mounting secret/: {err}"))
}
