//! `arca status`: sealed or not, and who leads. The exit code alone tells scripts: 0 unsealed, 2 sealed, 1 unknown.

use arca_client::sys::{Leader, SealStatus};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};

/// Shows whether the server is sealed and who leads.
#[derive(Args, Debug)]
#[command(after_help = "Exits with 0 if unsealed, 2 if sealed, 1 if it cannot be told.\n\n\
Example: arca status -format=json")]
pub struct Status {}

impl Status {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let status = match client.sys().seal_status().await {
            Ok(status) => status,
            Err(source @ arca_client::Error::DryRun(_)) => return Err(source).doing(String::new),
            Err(source) => {
                let doing = "tell whether the server is sealed".to_owned();
                CliError::Client { doing, source: Box::new(source) }.show(context.console);
                return Ok(1);
            }
        };
        let leader = if status.sealed { None } else { client.sys().leader().await.ok() };
        show(context, &status, leader.as_ref())?;
        Ok(if status.sealed { 2 } else { 0 })
    }
}

/// Prints a seal status, as `status` and `operator unseal` do.
pub(super) fn show(context: &mut Context<'_>, status: &SealStatus, leader: Option<&Leader>) -> Outcome {
    let mut value = json!(status);
    if let Value::Object(fields) = &mut value {
        fields.insert("ha_enabled".into(), json!(has_ha(status, leader)));
        if let Some(Value::Object(more)) = leader.map(|leader| json!(leader)) {
            let is_told = |value: &Value| !matches!(value.as_str(), Some("")) && value != &Value::Bool(false);
            fields.extend(more.into_iter().filter(|(_, value)| is_told(value)));
        }
    }
    context.pairs(&value, rows(status, leader))
}

/// A sealed server tells nothing about its cluster; the storage does.
fn has_ha(status: &SealStatus, leader: Option<&Leader>) -> bool {
    leader.map_or(status.storage_type == "raft", |leader| leader.ha_enabled)
}

fn rows(status: &SealStatus, leader: Option<&Leader>) -> Vec<(&'static str, String)> {
    let shares = if status.recovery_seal { "Total Recovery Shares" } else { "Total Shares" };
    let mut rows = vec![("Seal Type", status.kind.clone())];
    if status.recovery_seal {
        rows.push(("Recovery Seal Type", "shamir".to_owned()));
    }
    rows.extend([
        ("Initialized", status.initialized.to_string()),
        ("Sealed", status.sealed.to_string()),
        (shares, status.n.to_string()),
        ("Threshold", status.t.to_string()),
    ]);
    if status.sealed {
        rows.push(("Unseal Progress", format!("{}/{}", status.progress, status.t)));
        rows.push(("Unseal Nonce", status.nonce.clone()));
    }
    if status.migration {
        rows.push(("Seal Migration in Progress", "true".to_owned()));
    }
    rows.push(("Version", status.version.clone()));
    for (name, date) in [("Build Date", &status.build_date), ("Commit Date", &status.commit_date)] {
        if !date.is_empty() {
            rows.push((name, date.clone()));
        }
    }
    rows.push(("Storage Type", status.storage_type.clone()));
    if !status.sealed {
        rows.push(("Cluster Name", status.cluster_name.clone()));
        rows.push(("Cluster ID", status.cluster_id.clone()));
    }
    if status.removed_from_cluster {
        rows.push(("Removed From Cluster", "true".to_owned()));
    }
    rows.push(("HA Enabled", has_ha(status, leader).to_string()));
    rows.extend(leader.filter(|leader| leader.ha_enabled).map(leader_rows).into_iter().flatten());
    rows
}

fn leader_rows(leader: &Leader) -> Vec<(&'static str, String)> {
    let mut rows = vec![("HA Cluster", leader.leader_cluster_address.clone())];
    if leader.is_self {
        rows.push(("HA Mode", "active".to_owned()));
        rows.push(("Active Since", leader.active_time.clone()));
    } else {
        let mode = if leader.performance_standby { "performance standby" } else { "standby" };
        rows.push(("HA Mode", mode.to_owned()));
        let is_led = !leader.leader_address.is_empty() || !leader.leader_cluster_address.is_empty();
        let address = if is_led { leader.leader_address.as_str() } else { "none: there is no quorum" };
        if !address.is_empty() {
            rows.push(("Active Node Address", address.to_owned()));
        }
    }
    let indexes = [
        ("Raft Committed Index", leader.raft_committed_index),
        ("Raft Applied Index", leader.raft_applied_index),
    ];
    rows.extend(indexes.into_iter().filter_map(|(name, index)| Some((name, index?.to_string()))));
    rows
}
