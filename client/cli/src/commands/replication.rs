//! `arca operator replication`: what a cluster is to others, shown and changed.

use std::time::Duration;

use arca_client::{Request, Secret, duration};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::generate_root::GenerateRoot;
use super::replication_filter::Filter;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;
use crate::output::table;

/// How often -watch looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Works with clusters that follow each other.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arca operator replication enable\n  \
arca operator replication secondary-token west\n  arca operator replication enable -token=TOKEN\n  \
arca operator replication status -watch\n  arca operator replication promote -dr-token=TOKEN")]
pub enum Replication {
    /// Show roles, connections and how far behind a secondary is
    Status(Status),
    /// Make the cluster a primary, or with -token a secondary
    Enable(Enable),
    /// End replication on this cluster
    Disable(Disable),
    /// Make an activation token for a secondary
    SecondaryToken(SecondaryToken),
    /// Cut a secondary off for good
    Revoke(Revoke),
    /// Say which mounts and namespaces a performance secondary gets
    Filter(Filter),
    /// Make a secondary the primary
    Promote(Promote),
    /// Make the primary a secondary
    Demote(OfKind),
    /// Say when a DR primary stops taking writes by itself
    Configure(Configure),
    /// Have a secondary follow another primary
    UpdatePrimary(UpdatePrimary),
    /// Make the key that an activation token can be encrypted to
    GeneratePublicKey(OperatedKind),
    /// Make an operation token for a DR secondary with key shares
    GenerateOperationToken(Box<GenerateRoot>),
    /// Have a secondary compare its state with the primary's
    Reindex(OperatedKind),
    /// Hash the state, on a secondary against the primary's
    MerkleCheck(OperatedKind),
    /// List what a fenced primary took and its successor never got
    Tail(Tail),
}

/// Which replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Disaster recovery: a complete copy that waits.
    #[default]
    Dr,
    /// Performance: a copy that serves.
    Performance,
}

/// Which replication it is about.
#[derive(Args, Clone, Copy, Debug)]
pub struct OfKind {
    /// dr or performance.
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    kind: Kind,
}

impl OfKind {
    const fn name(self) -> &'static str {
        match self.kind {
            Kind::Dr => "dr",
            Kind::Performance => "performance",
        }
    }

    fn path(self, rest: &str) -> String {
        format!("sys/replication/{}/{rest}", self.name())
    }
}

/// The same, with what a DR secondary takes orders for.
#[derive(Args, Clone, Debug)]
pub struct OperatedKind {
    #[command(flatten)]
    of: OfKind,
    /// Operation token, on a DR secondary; see generate-operation-token.
    #[arg(long, value_name = "TOKEN")]
    dr_token: Option<String>,
}

impl OperatedKind {
    fn body(&self) -> Map<String, Value> {
        let token =
            self.dr_token.clone().map(|token| ("dr_operation_token".to_owned(), Value::String(token)));
        token.into_iter().collect()
    }
}

/// Shows roles, connections and lag.
#[derive(Args, Debug)]
#[command(after_help = "Needs no token.")]
pub struct Status {
    /// Show it again every second, until interrupted.
    #[arg(long)]
    watch: bool,
    /// dr or performance; both otherwise.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
}

/// Makes the cluster a primary, or a secondary.
#[derive(Args, Debug)]
#[command(
    after_help = "With -token everything that the cluster holds is replaced by a copy of the primary's state, once that \
is whole. Its key shares, tokens and policies are those of the primary then."
)]
pub struct Enable {
    #[command(flatten)]
    of: OfKind,
    /// What secondaries are told, as HOST:PORT, in place of the nodes' own cluster addresses.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "token")]
    primary_cluster_addr: Option<String>,
    /// Activation token of the primary to follow; - reads it from standard input.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

/// Ends replication on this cluster.
#[derive(Args, Debug)]
#[command(
    after_help = "A primary's secondaries have nobody to follow then. A secondary keeps what it holds, and serves it: a DR secondary also \
ends the leases that it holds when they are due, so it is refused while its primary may be at work, unless forced."
)]
pub struct Disable {
    #[command(flatten)]
    operated: OperatedKind,
    /// A DR secondary, although its primary may be at work.
    #[arg(long)]
    force: bool,
}

/// Makes an activation token for a secondary.
#[derive(Args, Debug)]
#[command(
    after_help = "Whoever uses it first gets a copy of everything: keep it as you would a root token.\n\n\
Example: arca operator replication secondary-token -ttl=10m west"
)]
pub struct SecondaryToken {
    #[command(flatten)]
    of: OfKind,
    /// How long the token may be used [default: 30m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// What generate-public-key printed on the secondary: the token can then be read there alone.
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
    /// A name for the secondary.
    id: String,
}

/// Cuts a secondary off for good.
#[derive(Args, Debug)]
pub struct Revoke {
    #[command(flatten)]
    of: OfKind,
    /// The name of the secondary.
    id: String,
}

/// Makes a secondary the primary.
#[derive(Args, Debug)]
#[command(
    after_help = "For a planned change demote the primary first, and give -planned: then what it wrote last is waited for, and \
without it nothing is promoted. When the primary is gone, promote alone; should it come back it is told, and takes no writes any \
more.\n\nExamples:\n  arca operator replication promote -dr-token=TOKEN\n  \
arca operator replication promote -planned -dr-token=TOKEN"
)]
pub struct Promote {
    #[command(flatten)]
    operated: OperatedKind,
    /// What secondaries are told, as HOST:PORT, in place of the nodes' own cluster addresses.
    #[arg(long, value_name = "ADDRESS")]
    primary_cluster_addr: Option<String>,
    /// Although the primary is well, or the state here is not whole.
    #[arg(long, conflicts_with = "planned")]
    force: bool,
    /// Only if the primary was demoted, and everything that it wrote is here.
    #[arg(long)]
    planned: bool,
}

/// Says when a DR primary stops taking writes by itself.
#[derive(Args, Debug)]
#[command(
    after_help = "A primary that is cut off from all its DR secondaries for this long takes no writes until it hears one again: \
whoever promotes one of them that long after none of them reached it knows that nothing more is written here. The price is that writes \
stop when the secondaries, or the lines to them, are lost.\n\n\
Example: arca operator replication configure -fence-after=30s"
)]
pub struct Configure {
    /// Silence of all DR secondaries after which no writes are taken; 0 for none.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    fence_after: Duration,
}

/// Has a secondary follow another primary.
#[derive(Args, Debug)]
#[command(
    after_help = "Nothing is wiped: both states are compared, and what differs is taken over from the primary.\n\n\
Example: arca operator replication update-primary -dr-token=TOKEN -token=-"
)]
pub struct UpdatePrimary {
    #[command(flatten)]
    operated: OperatedKind,
    /// Activation token that the primary made; - reads it from standard input.
    #[arg(long, value_name = "TOKEN", group = "what")]
    token: Option<String>,
    /// The same primary as before, at another cluster address; may be given several times.
    #[arg(long, value_name = "HOST:PORT", group = "what")]
    address: Vec<String>,
    /// Follow nobody until told.
    #[arg(long, group = "what")]
    forget: bool,
}

/// Lists what was never shipped.
#[derive(Args, Debug)]
#[command(
    after_help = "Values are not shown. What is to be kept has to be written at the new primary by hand."
)]
pub struct Tail {
    #[command(flatten)]
    of: OfKind,
    /// Most writes to show; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: usize,
}

impl Replication {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Status(command) => command.run(context).await,
            Self::Enable(command) => command.run(context).await,
            Self::Disable(command) => command.run(context).await,
            Self::SecondaryToken(command) => command.run(context).await,
            Self::Revoke(Revoke { of, id }) => {
                write(
                    context,
                    &of.path("primary/revoke-secondary"),
                    json!({ "id": id }),
                    "revoke the secondary",
                )
                .await?;
                context.success(&format!("Revoked: {id}"))
            }
            Self::Filter(command) => command.run(context).await,
            Self::Promote(command) => command.run(context).await,
            Self::Configure(command) => command.run(context).await,
            Self::Demote(of) => {
                let said =
                    write(context, &of.path("primary/demote"), json!({}), "demote the primary").await?;
                let message = match of.kind {
                    Kind::Dr => {
                        "The cluster is a secondary now: it serves nobody until it is promoted again."
                    }
                    Kind::Performance => {
                        "The cluster is a secondary now: shared writes need a primary to follow (update-primary)."
                    }
                };
                context.secret_or_success(said.as_ref(), message)
            }
            Self::UpdatePrimary(command) => command.run(context).await,
            Self::GeneratePublicKey(operated) => {
                let path = operated.of.path("secondary/generate-public-key");
                let said = write(context, &path, operated.body().into(), "make a key").await?;
                context.secret_or_success(said.as_ref(), "The key is made.")
            }
            Self::GenerateOperationToken(command) => command.for_operations().run(context).await,
            Self::Reindex(operated) => reindex(context, &operated).await,
            Self::MerkleCheck(operated) => merkle_check(context, &operated).await,
            Self::Tail(command) => command.run(context).await,
        }
    }
}

async fn write(
    context: &Context<'_>,
    path: &str,
    body: Value,
    doing: &'static str,
) -> Result<Option<Secret>, CliError> {
    context.client()?.write(path, &body).await.doing(|| doing.to_owned())
}

/// What the cluster is now.
async fn status_of(context: &Context<'_>, of: OfKind) -> Result<Map<String, Value>, CliError> {
    let said = context.client()?.read(&of.path("status")).await.doing(|| "ask for the status".to_owned())?;
    Ok(said.and_then(|said| said.data).unwrap_or_default())
}

fn text<'a>(status: &'a Map<String, Value>, name: &str) -> &'a str {
    status.get(name).and_then(Value::as_str).unwrap_or_default()
}

impl Enable {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let Some(token) = self.token else {
            let body = json!({ "primary_cluster_addr": self.primary_cluster_addr.unwrap_or_default() });
            let said =
                write(context, &self.of.path("primary/enable"), body, "make the cluster a primary").await?;
            return context.secret_or_success(
                said.as_ref(),
                "The cluster is a primary now. Next: secondary-token makes what a secondary is enabled with.",
            );
        };
        let token = input::value(&token, &mut context.console.stdin)?;
        let body = json!({ "token": token.trim() });
        let said =
            write(context, &self.of.path("secondary/enable"), body, "make the cluster a secondary").await?;
        if let Some(said) = &said {
            context.warnings(said);
        }
        context.success("The copy has begun. Next: status -watch shows how far it is.")
    }
}

impl Disable {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let status = status_of(context, self.operated.of).await?;
        let side = match text(&status, "mode") {
            "primary" => "primary",
            "disabled" | "" => {
                return Err(CliError::Usage("replication is not enabled on this cluster".into()));
            }
            _ => "secondary",
        };
        let path = self.operated.of.path(&format!("{side}/disable"));
        let mut body = self.operated.body();
        if self.force {
            body.insert("force".to_owned(), true.into());
        }
        let said = write(context, &path, body.into(), "disable replication").await?;
        if let Some(said) = &said {
            context.warnings(said);
        }
        context.success("Replication is disabled on this cluster.")
    }
}

impl SecondaryToken {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let mut body = Map::new();
        body.insert("id".to_owned(), self.id.into());
        body.extend(self.ttl.map(|ttl| ("ttl".to_owned(), duration::format(ttl).into())));
        body.extend(self.public_key.map(|key| ("secondary_public_key".to_owned(), key.into())));
        let path = self.of.path("primary/secondary-token");
        let said = write(context, &path, body.into(), "make an activation token").await?;
        context.secret_or_success(said.as_ref(), "The token is made.")
    }
}

impl Promote {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let mut body = self.operated.body();
        body.extend(self.primary_cluster_addr.map(|addr| ("primary_cluster_addr".to_owned(), addr.into())));
        if self.force {
            body.insert("force".to_owned(), true.into());
        }
        if self.planned {
            body.insert("planned".to_owned(), true.into());
        }
        let path = self.operated.of.path("secondary/promote");
        let said = write(context, &path, body.into(), "promote the secondary").await?;
        context.secret_or_success(said.as_ref(), "The cluster is the primary now.")
    }
}

impl Configure {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let body = json!({ "fence_after": duration::format(self.fence_after) });
        let said = write(context, "sys/replication/dr/primary/config", body, "configure the primary").await?;
        let message = if self.fence_after.is_zero() {
            "The primary takes writes whether it hears a DR secondary or not.".to_owned()
        } else {
            let after = duration::format(self.fence_after);
            format!("The primary takes no writes once it has heard no DR secondary for {after}.")
        };
        context.secret_or_success(said.as_ref(), &message)
    }
}

impl UpdatePrimary {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let mut body = self.operated.body();
        match self.token {
            Some(token) => {
                let token = input::value(&token, &mut context.console.stdin)?;
                body.insert("token".to_owned(), token.trim().into());
            }
            None if self.forget => drop(body.insert("token".to_owned(), "".into())),
            None if self.address.is_empty() => {
                let text = "say which primary: -token, -address of the same one, or -forget";
                return Err(CliError::Usage(text.into()));
            }
            None => drop(body.insert("update_primary_addrs".to_owned(), self.address.into())),
        }
        let path = self.operated.of.path("secondary/update-primary");
        let said = write(context, &path, body.into(), "change the primary").await?;
        context
            .secret_or_success(said.as_ref(), "The secondary knows. Next: status -watch shows what it does.")
    }
}

async fn reindex(context: &mut Context<'_>, operated: &OperatedKind) -> Outcome {
    let mode = text(&status_of(context, operated.of).await?, "mode").to_owned();
    let path = if mode == "secondary" {
        operated.of.path("secondary/reindex")
    } else {
        "sys/replication/reindex".to_owned()
    };
    let said = write(context, &path, operated.body().into(), "order a comparison").await?;
    context.secret_or_success(
        said.as_ref(),
        "The comparison is ordered. Next: status -watch shows how far it is.",
    )
}

async fn merkle_check(context: &mut Context<'_>, operated: &OperatedKind) -> Outcome {
    let mode = text(&status_of(context, operated.of).await?, "mode").to_owned();
    let path = if mode == "secondary" && operated.of.kind == Kind::Dr {
        "sys/replication/dr/secondary/merkle-check"
    } else {
        "sys/replication/merkle-check"
    };
    let said = write(context, path, operated.body().into(), "check the state").await?;
    let report = said.as_ref().and_then(|said| said.field("merkle_corruption_report")).cloned();
    if context.is_for_programs() {
        return context.structured(&report);
    }
    let mut rows = Vec::new();
    flatten("", &report.unwrap_or_default(), &mut rows);
    context.pairs(&Value::Null, rows)
}

/// Nested objects as rows of dotted names.
fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let Value::Object(map) = value else {
        rows.push((prefix.to_owned(), table::plain(value)));
        return;
    };
    for (key, value) in map {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        flatten(&name, value, rows);
    }
}

impl Tail {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let (mut rows, mut after) = (Vec::new(), None::<String>);
        let mut last = loop {
            let mut request = Request::get(self.of.path("tail"));
            if let Some(after) = after.take() {
                request = request.query("after", after);
            }
            let said = client.read_request(request).await.doing(|| "list the tail".to_owned())?;
            let none = "this cluster has no tail: no newer primary was heard of while it was one";
            let mut data = said.ok_or_else(|| CliError::Server(none.into()))?.data.unwrap_or_default();
            if let Some(Value::Array(writes)) = data.remove("writes") {
                rows.extend(writes);
            }
            after = data.get("next").and_then(Value::as_str).map(str::to_owned);
            let is_enough = self.limit > 0 && rows.len() >= self.limit;
            if after.is_none() || is_enough {
                break data;
            }
        };
        if self.limit > 0 {
            rows.truncate(self.limit);
        }
        if context.is_for_programs() {
            last.insert("writes".to_owned(), rows.into());
            return context.structured(&last);
        }
        if rows.is_empty() {
            context.console.note("The tail is empty: the new primary has everything that was written here.");
        }
        let rows = rows.iter().map(|row| {
            let of = |name: &str| row.get(name).map(table::plain).unwrap_or_default();
            ["index", "operation", "class", "path", "sealed_bytes"].map(of).to_vec()
        });
        context.table(&["Entry", "Operation", "Class", "Path", "Sealed Bytes"], rows)
    }
}

impl Status {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        loop {
            let said = context.client()?.read("sys/replication/status").await;
            let said = said.doing(|| "ask for the status".to_owned())?;
            let data = said.and_then(|said| said.data).unwrap_or_default();
            let data = match self.kind {
                Some(kind) => data.get(OfKind { kind }.name()).cloned().unwrap_or_default(),
                None => Value::Object(data),
            };
            if context.format != Format::Table || context.global.field.is_some() {
                context.structured(&data)?;
            } else {
                if self.watch && context.console.is_output_terminal {
                    // Home, and everything below cleared.
                    context.console.print(b"\x1b[H\x1b[2J");
                }
                let text = match self.kind {
                    Some(kind) => section(OfKind { kind }.name(), &data),
                    None => ["dr", "performance"]
                        .iter()
                        .filter_map(|name| Some(section(name, data.get(name)?)))
                        .collect::<Vec<_>>()
                        .join("\n"),
                };
                context.console.print(text.as_bytes());
            }
            if !self.watch {
                return Ok(0);
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }
}

/// What a person reads first, of one kind.
fn section(name: &str, status: &Value) -> String {
    let Value::Object(status) = status else { return String::new() };
    let title = if name == "dr" { "DR" } else { "Performance" };
    let mut rows = vec![(format!("{title} Mode"), text(status, "mode").to_owned())];
    let shown = [
        ("State", "state"),
        ("Stopped", "stopped"),
        ("Problem", "problem"),
        ("Epoch", "epoch"),
        ("Replication Id", "cluster_id"),
        ("Secondary Id", "secondary_id"),
        ("Connection", "connection_state"),
        ("Primary", "primary_cluster_addr"),
        ("Entries Behind", "lag_entries"),
        ("Bytes Behind", "lag_bytes"),
        ("Seconds Behind", "lag_seconds"),
        ("Last Entry", "last_wal"),
        ("Last Entry Of Primary", "last_remote_wal"),
    ];
    let found = shown.into_iter().filter_map(|(title, key)| Some((title, status.get(key)?)));
    let found = found.filter(|(_, value)| !value.is_null() && value.as_str() != Some(""));
    rows.extend(found.map(|(title, value)| (title.to_owned(), table::plain(value))));
    if let Some(progress) = progress(status) {
        rows.push(("Progress".to_owned(), progress));
    }
    if let Some(fence) = status.get("fence").filter(|fence| !fence.is_null()) {
        let of = |name: &str| fence.get(name).map(table::plain).unwrap_or_default();
        rows.push(("Fenced By Epoch".to_owned(), of("epoch")));
        rows.push(("Fenced Since".to_owned(), of("heard_at")));
        rows.push(("New Primary".to_owned(), of("primary_cluster_addrs")));
    }
    let pending = status.get("pending").and_then(Value::as_array).into_iter().flatten();
    rows.extend(pending.map(|pending| ("Pending".to_owned(), table::plain(pending))));
    if let Some(after) = status.get("fence_after").and_then(Value::as_u64).filter(|after| *after > 0) {
        rows.push(("Fence After".to_owned(), table::short_duration(after)));
    }
    let mut out = table::pairs(rows);
    out.push_str(&peers(status, "secondaries", "Secondary"));
    out.push_str(&peers(status, "primaries", "Primary Node"));
    out
}

/// How far a copy or a comparison is.
fn progress(status: &Map<String, Value>) -> Option<String> {
    let of = |name: &str| status.get(name).and_then(Value::as_u64);
    let (bytes, total) = (of("sync_bytes")?, of("sync_total_bytes")?);
    let entries = format!("{} of {} entries", of("sync_progress")?, of("sync_total_keys")?);
    let left = of("sync_seconds_left").map(|left| format!(", about {} left", table::short_duration(left)));
    Some(format!("{entries}, {bytes} of {total} bytes{}", left.unwrap_or_default()))
}

fn peers(status: &Map<String, Value>, list: &str, title: &str) -> String {
    let rows: Vec<&Value> = status.get(list).and_then(Value::as_array).into_iter().flatten().collect();
    if rows.is_empty() {
        return String::new();
    }
    let is_secondary = list == "secondaries";
    let (headings, keys): (Vec<&str>, Vec<&str>) = if is_secondary {
        (
            vec![
                title,
                "Node",
                "Connection",
                "Entries Behind",
                "Bytes Behind",
                "Seconds Behind",
                "Last Heard",
            ],
            vec![
                "secondary_id",
                "node_id",
                "connection_status",
                "lag_entries",
                "lag_bytes",
                "lag_seconds",
                "last_heartbeat",
            ],
        )
    } else {
        (
            vec![
                title,
                "Cluster Address",
                "Active",
                "Connection",
                "Round Trip (ms)",
                "Clock Skew (ms)",
                "Last Heard",
            ],
            vec![
                "node_id",
                "cluster_address",
                "is_active",
                "connection_status",
                "last_heartbeat_duration_ms",
                "clock_skew_ms",
                "last_heartbeat",
            ],
        )
    };
    let cells = rows.into_iter().map(|row| {
        let of = |name: &&str| row.get(*name).map(table::plain).unwrap_or_default();
        keys.iter().map(of).collect::<Vec<_>>()
    });
    format!("\n{}", table::table(&headings, cells))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_secondary_shows_how_far_behind_it_is() {
        let status = json!({
            "mode": "secondary", "state": "stream-wals", "epoch": 3, "cluster_id": "r", "secondary_id": "west",
            "connection_state": "ready", "primary_cluster_addr": "https://a:8201", "lag_entries": 4,
            "lag_bytes": 900, "lag_seconds": 0.5, "last_remote_wal": 77,
            "primaries": [{"node_id": "e1", "cluster_address": "https://a:8201", "is_active": true,
                "connection_status": "connected", "last_heartbeat_duration_ms": "80", "clock_skew_ms": "0",
                "last_heartbeat": "2026-11-26T00:00:00Z"}],
        });
        expect![[r#"
            Key                      Value
            ---                      -----
            DR Mode                  secondary
            State                    stream-wals
            Epoch                    3
            Replication Id           r
            Secondary Id             west
            Connection               ready
            Primary                  https://a:8201
            Entries Behind           4
            Bytes Behind             900
            Seconds Behind           0.5
            Last Entry Of Primary    77

            Primary Node    Cluster Address    Active    Connection    Round Trip (ms)    Clock Skew (ms)    Last Heard
            ------------    ---------------    ------    ----------    ---------------    ---------------    ----------
            e1              https://a:8201     true      connected     80                 0                  2026-11-26T00:00:00Z
        "#]]
        .assert_eq(&section("dr", &status));
    }

    #[test]
    fn a_copy_shows_how_long_it_will_take() {
        let status = json!({
            "sync_progress": 5, "sync_total_keys": 10, "sync_bytes": 50, "sync_total_bytes": 100,
            "sync_seconds_left": 61,
        });
        let Value::Object(status) = status else { panic!("not an object") };
        expect!["5 of 10 entries, 50 of 100 bytes, about 1m1s left"].assert_eq(&progress(&status).unwrap());
        assert_eq!(progress(&Map::new()), None);
    }
}
