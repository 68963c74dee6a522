//! `arca operator raft`: members, autopilot. Snapshots are in [`super::raft_snapshot`].

use std::time::Duration;

use arca_client::raft::{AutopilotState, Join, Peer};
use arca_client::{Client, Secret, Token, duration};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::raft_snapshot::Snapshot;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;
use crate::output::table;

/// Works with the cluster's members and snapshots.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arca operator raft join https://first.example.com:8200\n  \
arca operator raft list-peers\n  arca operator raft remove-peer node-3")]
pub enum Raft {
    /// Make the server join a cluster
    Join(Box<JoinCluster>),
    /// List the members
    ListPeers(ListPeers),
    /// Put a member out
    RemovePeer(RemovePeer),
    /// Give a member a vote
    Promote(Member),
    /// Take a member's vote
    Demote(Member),
    /// Save, restore and inspect snapshots
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// See and set how the cluster looks after itself
    #[command(subcommand)]
    Autopilot(Autopilot),
}

/// Makes the server join a cluster.
#[derive(Args, Debug)]
#[command(after_help = "The server then needs that cluster's shares to unseal.\n\n\
Example: arca operator raft join -leader-ca-cert=@ca.pem https://first.example.com:8200")]
pub struct JoinCluster {
    /// PEM of the leader's CA; @file reads it.
    #[arg(long, value_name = "PEM")]
    leader_ca_cert: Option<String>,
    /// PEM of the certificate to show; @file reads it.
    #[arg(long, value_name = "PEM")]
    leader_client_cert: Option<String>,
    /// PEM of the key to it; @file reads it.
    #[arg(long, value_name = "PEM")]
    leader_client_key: Option<String>,
    /// Name the leader's certificate is for.
    #[arg(long, value_name = "NAME")]
    leader_tls_servername: Option<String>,
    /// http or https, for leaders that are discovered.
    #[arg(long, value_name = "SCHEME")]
    auto_join_scheme: Option<String>,
    /// Port of leaders that are discovered.
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    auto_join_port: u16,
    /// Try until it works.
    #[arg(long)]
    retry: bool,
    /// Follow without a vote.
    #[arg(long)]
    non_voter: bool,
    /// The leader's address, or how to discover it (provider=…).
    leader: Option<String>,
}

/// Who asks on a disaster-recovery secondary, where the primary's tokens do not count.
#[derive(Args, Debug)]
struct Operator {
    /// Operation token, on a disaster-recovery secondary.
    #[arg(long, value_name = "TOKEN")]
    dr_token: Option<String>,
}

impl Operator {
    fn client(self, context: &Context<'_>) -> Result<Client, CliError> {
        let client = context.client()?;
        Ok(match self.dr_token {
            Some(token) => client.with_token(Some(Token::new(token))),
            None => client,
        })
    }
}

/// Lists the members.
#[derive(Args, Debug)]
pub struct ListPeers {
    #[command(flatten)]
    operator: Operator,
}

/// Puts a member out.
#[derive(Args, Debug)]
#[command(after_help = "The id of the member is never used again.")]
pub struct RemovePeer {
    #[command(flatten)]
    operator: Operator,
    /// Id of the member.
    node_id: String,
}

/// Names a member.
#[derive(Args, Debug)]
pub struct Member {
    #[command(flatten)]
    operator: Operator,
    /// Id of the member.
    node_id: String,
}

/// How the cluster looks after itself.
#[derive(Debug, Subcommand)]
pub enum Autopilot {
    /// Show the health of the members
    State(State),
    /// Show the settings
    GetConfig(GetConfig),
    /// Change the settings
    SetConfig(SetConfig),
}

/// Shows the health of the members.
#[derive(Args, Debug)]
pub struct State {
    #[command(flatten)]
    operator: Operator,
}

/// Shows the settings.
#[derive(Args, Debug)]
pub struct GetConfig {
    #[command(flatten)]
    operator: Operator,
}

/// Changes the settings; what is not named stays.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: arca operator raft autopilot set-config -cleanup-dead-servers=true -min-quorum=3"
)]
pub struct SetConfig {
    #[command(flatten)]
    operator: Operator,
    /// Put members out that have been gone for long.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cleanup_dead_servers: Option<bool>,
    /// Silence after which a member is unhealthy.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    last_contact_threshold: Option<Duration>,
    /// Silence after which a member counts as gone.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    dead_server_last_contact_threshold: Option<Duration>,
    /// Health a member needs before it gets a vote.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    server_stabilization_time: Option<Duration>,
    /// Entries a member may be behind and still be healthy.
    #[arg(long, value_name = "N")]
    max_trailing_logs: Option<u64>,
    /// Voters that are never cleaned up below.
    #[arg(long, value_name = "N")]
    min_quorum: Option<u64>,
    /// Do not move votes to newer versions by itself.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_upgrade_migration: Option<bool>,
}

impl Raft {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Join(command) => command.run(context).await,
            Self::ListPeers(ListPeers { operator }) => list_peers(operator, context).await,
            Self::RemovePeer(RemovePeer { operator, node_id }) => {
                let client = operator.client(context)?;
                client.sys().raft_remove_peer(&node_id).await.doing(|| format!("put {node_id} out"))?;
                context.success(&format!("Out of the cluster: {node_id}"))
            }
            Self::Promote(Member { operator, node_id }) => {
                let client = operator.client(context)?;
                client.sys().raft_promote(&node_id).await.doing(|| format!("give {node_id} a vote"))?;
                context.success(&format!("Has a vote now: {node_id}"))
            }
            Self::Demote(Member { operator, node_id }) => {
                let client = operator.client(context)?;
                client.sys().raft_demote(&node_id).await.doing(|| format!("take the vote of {node_id}"))?;
                context.success(&format!("Has no vote now: {node_id}"))
            }
            Self::Snapshot(command) => command.run(context).await,
            Self::Autopilot(command) => command.run(context).await,
        }
    }
}

impl JoinCluster {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let mut pem = |text: Option<String>| match text {
            Some(text) => input::value(&text, &mut context.console.stdin),
            None => Ok(String::new()),
        };
        let leader = self.leader.unwrap_or_default();
        let is_discovery = leader.contains("provider=");
        let join = Join {
            leader_ca_cert: pem(self.leader_ca_cert)?,
            leader_client_cert: pem(self.leader_client_cert)?,
            leader_client_key: pem(self.leader_client_key)?,
            leader_tls_servername: self.leader_tls_servername.unwrap_or_default(),
            auto_join: if is_discovery { leader.clone() } else { String::new() },
            leader_api_addr: if is_discovery { String::new() } else { leader },
            auto_join_scheme: self.auto_join_scheme.unwrap_or_default(),
            auto_join_port: self.auto_join_port,
            retry: self.retry,
            non_voter: self.non_voter,
        };
        let joined =
            context.client()?.sys().raft_join(&join).await.doing(|| "join the cluster".to_owned())?;
        context.pairs(&json!({"joined": joined}), [("Joined", joined.to_string())])
    }
}

async fn list_peers(operator: Operator, context: &mut Context<'_>) -> Outcome {
    let client = operator.client(context)?;
    let answer = client.sys().raft_configuration().await.doing(|| "list the members".to_owned())?;
    if context.format != Format::Table || context.global.field.is_some() {
        return context.secret(&answer);
    }
    context.warnings(&answer);
    let rows = peers(&answer).into_iter().map(|peer| {
        let state = if peer.leader { "leader" } else { "follower" };
        vec![peer.node_id, peer.address, state.to_owned(), peer.voter.to_string()]
    });
    context.table(&["Node", "Address", "State", "Voter"], rows)
}

fn peers(answer: &Secret) -> Vec<Peer> {
    let servers = answer.field("config").and_then(|config| config.get("servers"));
    servers.and_then(|servers| serde_json::from_value(servers.clone()).ok()).unwrap_or_default()
}

impl Autopilot {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::State(State { operator }) => {
                let client = operator.client(context)?;
                let state =
                    client.sys().autopilot_state().await.doing(|| "ask how the members are".to_owned())?;
                if context.is_for_programs() {
                    return context.structured(&state_json(&state));
                }
                context.console.print(state_text(&state).as_bytes());
                Ok(0)
            }
            Self::GetConfig(GetConfig { operator }) => {
                let client = operator.client(context)?;
                let answer =
                    client.sys().autopilot_config().await.doing(|| "ask for the settings".to_owned())?;
                if context.is_for_programs() {
                    // The settings alone, as Vault's CLI prints them.
                    return context.structured(&answer.data);
                }
                let rows =
                    answer.data.iter().flatten().map(|(key, value)| (spelled(key), table::plain(value)));
                let rows: Vec<_> = rows.collect();
                context.pairs(&Value::Null, rows)
            }
            Self::SetConfig(command) => {
                let config = command.settings();
                if config.is_empty() {
                    return Err(CliError::Usage("nothing to set: give at least one setting".into()));
                }
                let client = command.operator.client(context)?;
                let set = client.sys().set_autopilot_config(&config).await;
                set.doing(|| "change the settings".to_owned())?;
                context.success("The settings are changed.")
            }
        }
    }
}

/// `cleanup_dead_servers` as `Cleanup Dead Servers`.
fn spelled(key: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_uppercase().chain(letters).collect::<String>())
            .unwrap_or_default()
    };
    key.split('_').map(capital).collect::<Vec<_>>().join(" ")
}

impl SetConfig {
    fn settings(&self) -> Map<String, Value> {
        let mut config = Map::new();
        let durations = [
            ("last_contact_threshold", self.last_contact_threshold),
            ("dead_server_last_contact_threshold", self.dead_server_last_contact_threshold),
            ("server_stabilization_time", self.server_stabilization_time),
        ];
        let given = durations.into_iter().filter_map(|(name, given)| Some((name.to_owned(), given?)));
        config.extend(given.map(|(name, given)| (name, duration::format(given).into())));
        let others = [
            ("cleanup_dead_servers", self.cleanup_dead_servers.map(Value::from)),
            ("disable_upgrade_migration", self.disable_upgrade_migration.map(Value::from)),
            ("max_trailing_logs", self.max_trailing_logs.map(Value::from)),
            ("min_quorum", self.min_quorum.map(Value::from)),
        ];
        config.extend(others.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        config
    }
}

/// The names scripts know, in Go's spelling.
fn state_json(state: &AutopilotState) -> Value {
    let servers = state.servers.iter().map(|(id, server)| {
        let server = json!({
            "ID": server.id, "Name": server.name, "Address": server.address, "NodeStatus": server.node_status,
            "LastContact": server.last_contact, "LastTerm": server.last_term, "LastIndex": server.last_index,
            "Healthy": server.healthy, "StableSince": server.stable_since, "Status": server.status,
            "Version": server.version, "UpgradeVersion": server.upgrade_version, "NodeType": server.node_type,
        });
        (id.clone(), server)
    });
    json!({
        "Healthy": state.healthy, "FailureTolerance": state.failure_tolerance, "Leader": state.leader,
        "Servers": servers.collect::<Map<_, _>>(), "Voters": state.voters, "NonVoters": state.non_voters,
        "OptimisticFailureTolerance": state.optimistic_failure_tolerance,
    })
}

/// The layout of Vault's CLI: names in columns, ids indented below their titles.
fn state_text(state: &AutopilotState) -> String {
    let mut text = String::new();
    let mut line = |indent: usize, width: usize, name: &str, value: &str| {
        let line = format!("{:indent$}{name:width$}{value}", "");
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(0, 33, "Healthy:", &state.healthy.to_string());
    line(0, 33, "Failure Tolerance:", &state.failure_tolerance.to_string());
    line(0, 33, "Leader:", &state.leader);
    for (title, ids) in [("Voters:", &state.voters), ("Non Voters:", &state.non_voters)] {
        let ids = ids.as_deref().unwrap_or_default();
        if !ids.is_empty() {
            line(0, 0, title, "");
        }
        ids.iter().for_each(|id| line(3, 0, id, ""));
    }
    line(0, 0, "Servers:", "");
    for (id, server) in &state.servers {
        line(3, 0, id, "");
        let (healthy, term, index) =
            (server.healthy.to_string(), server.last_term.to_string(), server.last_index.to_string());
        let fields = [
            ("Name:", &server.name),
            ("Address:", &server.address),
            ("Status:", &server.status),
            ("Node Status:", &server.node_status),
            ("Healthy:", &healthy),
            ("Last Contact:", &server.last_contact),
            ("Last Term:", &term),
            ("Last Index:", &index),
            ("Version:", &server.version),
            ("Node Type:", &server.node_type),
        ];
        fields.into_iter().for_each(|(name, value)| line(6, 19, name, value));
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_state_is_laid_out_as_vaults_is() {
        let state: AutopilotState = serde_json::from_str(
            r#"{"healthy":true,"failure_tolerance":1,"leader":"n1","voters":["n1","n2"],"non_voters":["n3"],
                "servers":{"n1":{"id":"n1","name":"n1","address":"a:1","node_status":"alive","last_contact":"0s",
                "last_term":3,"last_index":29,"healthy":true,"status":"leader","version":"1","node_type":"voter"}}}"#,
        )
        .unwrap();
        expect![[r#"
            Healthy:                         true
            Failure Tolerance:               1
            Leader:                          n1
            Voters:
               n1
               n2
            Non Voters:
               n3
            Servers:
               n1
                  Name:              n1
                  Address:           a:1
                  Status:            leader
                  Node Status:       alive
                  Healthy:           true
                  Last Contact:      0s
                  Last Term:         3
                  Last Index:        29
                  Version:           1
                  Node Type:         voter
        "#]]
        .assert_eq(&state_text(&state));
    }
}
