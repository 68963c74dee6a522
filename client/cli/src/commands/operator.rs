//! `arca operator`: what those who run the cluster do.

use arca_client::sys::HaNode;
use clap::{Args, Subcommand};

use super::generate_root::GenerateRoot;
use super::init::{Init, Unseal};
use super::raft::Raft;
use super::rekey::Rekey;
use super::replication::Replication;
use crate::context::Context;
use crate::error::{Doing, Outcome};
use crate::output::table;

/// Runs the cluster.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  arca operator init\n  arca operator unseal\n  arca operator raft list-peers\n  \
arca operator raft snapshot save backup.snap"
)]
pub enum Operator {
    /// Initialize a cluster
    Init(Init),
    /// Give a key share to a sealed server
    Unseal(Unseal),
    /// Seal a server
    Seal(Nothing),
    /// Make the active server stand down
    StepDown(Nothing),
    /// Add a barrier key and write with it from now on
    Rotate(Nothing),
    /// Show the barrier key in use
    KeyStatus(Nothing),
    /// List the servers of the cluster
    Members(Nothing),
    /// Make a new root token with key shares
    GenerateRoot(GenerateRoot),
    /// Replace the key shares by new ones
    #[command(visible_alias = "rekey")]
    RotateKeys(Rekey),
    /// Work with the cluster's members and snapshots
    #[command(subcommand)]
    Raft(Raft),
    /// Work with clusters that follow each other
    #[command(subcommand)]
    Replication(Replication),
}

/// A command without flags of its own.
#[derive(Args, Debug)]
pub struct Nothing {}

impl Operator {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Init(command) => command.run(context).await,
            Self::Unseal(command) => command.run(context).await,
            Self::Seal(_) => {
                context.client()?.sys().seal().await.doing(|| "seal".to_owned())?;
                context.success("The server is sealed.")
            }
            Self::StepDown(_) => {
                let client = context.client()?;
                // Whoever was asked may have passed it on.
                let was_active = client.live().sys().leader().await.map(|leader| leader.leader_address);
                client.sys().step_down().await.doing(|| "make the active server stand down".to_owned())?;
                let was_active = was_active.ok().filter(|address| !address.is_empty());
                context
                    .success(&format!("Stood down: {}", was_active.as_deref().unwrap_or("the active server")))
            }
            Self::Rotate(_) => rotate(context).await,
            Self::KeyStatus(_) => key_status(context).await,
            Self::Members(_) => members(context).await,
            Self::GenerateRoot(command) => command.run(context).await,
            Self::RotateKeys(command) => command.run(context).await,
            Self::Raft(command) => command.run(context).await,
            Self::Replication(command) => command.run(context).await,
        }
    }
}

async fn rotate(context: &mut Context<'_>) -> Outcome {
    context.client()?.sys().rotate().await.doing(|| "rotate the barrier key".to_owned())?;
    if !context.is_for_programs() {
        context.success("The barrier has a new key.\n")?;
    }
    key_status(context).await
}

async fn key_status(context: &mut Context<'_>) -> Outcome {
    let status = context.client()?.sys().key_status().await.doing(|| "ask for the barrier key".to_owned())?;
    if context.is_for_programs() {
        return context.structured(&status);
    }
    let rows = [
        vec!["Key Term".to_owned(), status.term.to_string()],
        vec!["Install Time".to_owned(), status.install_time],
        vec!["Encryption Count".to_owned(), status.encryptions.to_string()],
    ];
    context.console.print(table::columns(&rows).as_bytes());
    Ok(0)
}

async fn members(context: &mut Context<'_>) -> Outcome {
    let nodes = context.client()?.sys().ha_status().await.doing(|| "list the servers".to_owned())?;
    if context.is_for_programs() {
        return context.structured(&serde_json::json!({"Nodes": nodes}));
    }
    let row = |node: HaNode| {
        vec![
            node.hostname,
            node.api_address,
            node.cluster_address,
            node.active_node.to_string(),
            node.version,
            node.upgrade_version,
            node.last_echo.unwrap_or_default(),
        ]
    };
    let headings = [
        "Host Name",
        "API Address",
        "Cluster Address",
        "Active Node",
        "Version",
        "Upgrade Version",
        "Last Echo",
    ];
    context.table(&headings, nodes.into_iter().map(row))
}
