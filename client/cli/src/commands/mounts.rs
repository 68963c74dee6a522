//! `arca secrets` and `arca auth`: the two mount tables. They differ in their words and in a flag or two.

use std::time::Duration;

use arca_client::Client;
use arca_client::mounts::{Mount, NewMount, Table, Tuning};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::mounts_tune::{AuthShape, Lockout, Shape};
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::output::table::short_duration;

/// A move is asked about this often, and given up on after so many times; it goes on in the server.
const MOVE_POLL: Duration = Duration::from_millis(200);
const MOVE_POLLS_MAX: u32 = 3_000;

/// Manages secrets engines.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  arca secrets enable -path=secret kv-v2\n  arca secrets list -detailed\n  \
arca secrets tune -default-lease-ttl=1h database"
)]
pub enum Secrets {
    /// Enable a secrets engine
    Enable(Box<EnableSecrets>),
    /// Disable a secrets engine and remove all that is in it
    Disable(Path),
    /// List secrets engines
    List(List),
    /// Change the settings of a secrets engine
    Tune(Box<TuneSecrets>),
    /// Move a secrets engine to another path
    Move(Move),
}

/// Manages auth methods.
#[derive(Debug, Subcommand)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  arca auth enable userpass\n  arca auth list -detailed\n  \
arca auth tune -token-type=batch approle"
)]
pub enum Auth {
    /// Enable an auth method
    Enable(Box<EnableAuth>),
    /// Disable an auth method and end all tokens it made
    Disable(Path),
    /// List auth methods
    List(List),
    /// Change the settings of an auth method
    Tune(Box<TuneAuth>),
    /// Move an auth method to another path
    Move(Move),
    /// Explain how to log in by an auth method
    Help(AuthHelp),
}

/// Flags of a new mount.
#[derive(Args, Debug)]
pub(super) struct Enable {
    /// Where to mount it; its type if not given.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Keep it out of replication.
    #[arg(long)]
    local: bool,
    /// Wrap its storage by the seal.
    #[arg(long)]
    seal_wrap: bool,
    /// Draw entropy from outside.
    #[arg(long)]
    external_entropy_access: bool,
    /// What to mount, where TYPE is the word plugin.
    #[arg(long, value_name = "NAME", hide = true)]
    plugin_name: Option<String>,
    #[command(flatten)]
    shape: Shape,
    /// What to mount.
    #[arg(value_name = "TYPE")]
    kind: String,
}

/// Enables a secrets engine.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca secrets enable -path=secret -version=2 kv")]
pub struct EnableSecrets {
    /// Keep nothing of it in caches.
    #[arg(long)]
    force_no_cache: bool,
    #[command(flatten)]
    enable: Enable,
}

/// Enables an auth method.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca auth enable -path=people userpass")]
pub struct EnableAuth {
    #[command(flatten)]
    auth: AuthShape,
    #[command(flatten)]
    enable: Enable,
}

/// Changes the settings of a secrets engine.
#[derive(Args, Debug)]
pub struct TuneSecrets {
    #[command(flatten)]
    shape: Shape,
    /// Where it is mounted.
    path: String,
}

/// Changes the settings of an auth method.
#[derive(Args, Debug)]
pub struct TuneAuth {
    #[command(flatten)]
    auth: AuthShape,
    #[command(flatten)]
    lockout: Lockout,
    #[command(flatten)]
    shape: Shape,
    /// Where it is mounted.
    path: String,
}

/// Names a mount.
#[derive(Args, Debug)]
pub struct Path {
    /// Where it is mounted.
    path: String,
}

/// Lists mounts.
#[derive(Args, Debug)]
pub struct List {
    /// Show their settings, too.
    #[arg(long)]
    detailed: bool,
}

/// Moves a mount.
#[derive(Args, Debug)]
#[command(after_help = "Leases and tokens of the old path end; policies must be changed by hand.")]
pub struct Move {
    /// Where it is mounted.
    source: String,
    /// Where it shall be.
    destination: String,
}

/// Explains how to log in by an auth method.
#[derive(Args, Debug)]
pub struct AuthHelp {
    /// The method, or where it is mounted.
    method: String,
}

impl Secrets {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let table = Table::Secrets;
        match self {
            Self::Enable(command) => {
                let mut config = command.enable.shape.tuning();
                config.force_no_cache = command.force_no_cache.then_some(true);
                command.enable.run(context, table, config).await
            }
            Self::Disable(command) => command.disable(context, table).await,
            Self::List(command) => command.run(context, table).await,
            Self::Tune(command) => {
                tune(context, table, &command.path, &command.shape, command.shape.tuning()).await
            }
            Self::Move(command) => command.run(context, table).await,
        }
    }
}

impl Auth {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let table = Table::Auth;
        match self {
            Self::Enable(command) => {
                let mut config = command.enable.shape.tuning();
                command.auth.apply(&mut config);
                command.enable.run(context, table, config).await
            }
            Self::Disable(command) => command.disable(context, table).await,
            Self::List(command) => command.run(context, table).await,
            Self::Tune(command) => {
                let mut config = command.shape.tuning();
                command.auth.apply(&mut config);
                command.lockout.apply(&mut config);
                tune(context, table, &command.path, &command.shape, config).await
            }
            Self::Move(command) => command.run(context, table).await,
            Self::Help(command) => command.run(context).await,
        }
    }
}

fn noun(table: Table) -> &'static str {
    match table {
        Table::Secrets => "secrets engine",
        Table::Auth => "auth method",
    }
}

/// A mount path as people see it. `auth/` in front of a method is understood and dropped.
fn tidy(table: Table, path: &str) -> String {
    let path = path.trim_matches('/');
    let path = if table == Table::Auth { path.strip_prefix("auth/").unwrap_or(path) } else { path };
    format!("{path}/")
}

impl Enable {
    async fn run(self, context: &mut Context<'_>, table: Table, config: Tuning) -> Outcome {
        let kind = match &self.plugin_name {
            Some(name) if self.kind == "plugin" => name,
            _ => &self.kind,
        };
        let path = tidy(table, self.path.as_deref().unwrap_or(kind));
        let new = NewMount {
            kind: kind.clone(),
            description: self.shape.description.clone().unwrap_or_default(),
            config,
            local: self.local,
            seal_wrap: self.seal_wrap,
            external_entropy_access: self.external_entropy_access,
            options: self.shape.options()?,
        };
        let client = context.client()?;
        client
            .sys()
            .mount(table, &path, &new)
            .await
            .doing(|| format!("enable the {} {path}", noun(table)))?;
        context.success(&format!("Enabled the {kind} {} at: {path}", noun(table)))
    }
}

async fn tune(
    context: &mut Context<'_>,
    table: Table,
    path: &str,
    shape: &Shape,
    mut config: Tuning,
) -> Outcome {
    let path = tidy(table, path);
    config.description.clone_from(&shape.description);
    config.options = Some(shape.options()?).filter(|options| !options.is_empty());
    let client = context.client()?;
    client.sys().tune(table, &path, &config).await.doing(|| format!("tune the {} {path}", noun(table)))?;
    context.success(&format!("Tuned the {} at: {path}", noun(table)))
}

impl Path {
    async fn disable(self, context: &mut Context<'_>, table: Table) -> Outcome {
        let path = tidy(table, &self.path);
        let client = context.client()?;
        client.sys().unmount(table, &path).await.doing(|| format!("disable the {} {path}", noun(table)))?;
        context.success(&format!("Disabled the {}, if it was there: {path}", noun(table)))
    }
}

impl List {
    async fn run(self, context: &mut Context<'_>, table: Table) -> Outcome {
        let client = context.client()?;
        if context.is_for_programs() {
            // As the server says it, with whatever newer fields it has.
            let path = if table == Table::Auth { "sys/auth" } else { "sys/mounts" };
            let answer = client.send_secret(arca_client::Request::get(path)).await;
            let answer = answer.doing(|| format!("list {}s", noun(table)))?;
            return context.structured(&answer.data);
        }
        let mounts = client.sys().mounts(table).await.doing(|| format!("list {}s", noun(table)))?;
        if self.detailed {
            let rows = mounts.into_iter().map(|(path, mount)| detailed_row(table, path, mount));
            let mut headings = vec!["Path", "Plugin", "Accessor", "Default TTL", "Max TTL"];
            headings.push(if table == Table::Auth { "Token Type" } else { "Force No Cache" });
            headings.extend([
                "Replication",
                "Seal Wrap",
                "External Entropy Access",
                "Options",
                "Description",
            ]);
            headings.extend(["UUID", "Version", "Running Version", "Running SHA256", "Deprecation Status"]);
            return context.table(&headings, rows);
        }
        let mut headings = vec!["Path", "Type", "Accessor", "Description"];
        if table == Table::Auth {
            headings.push("Version");
        }
        let row = |(path, mount): (String, Mount)| {
            let mut row = vec![path, mount.kind, mount.accessor, mount.description];
            row.extend((table == Table::Auth).then_some(mount.plugin_version));
            row
        };
        context.table(&headings, mounts.into_iter().map(row))
    }
}

fn detailed_row(table: Table, path: String, mount: Mount) -> Vec<String> {
    let ttl = |name: &str| match mount.config.get(name).and_then(Value::as_u64) {
        _ if matches!(mount.kind.as_str(), "system" | "cubbyhole") => "n/a".to_owned(),
        None | Some(0) => "system".to_owned(),
        Some(seconds) => short_duration(seconds),
    };
    let text = |name: &str| mount.config.get(name).map(crate::output::table::plain).unwrap_or_default();
    let options: Vec<_> =
        mount.options.iter().flatten().map(|(key, value)| format!("{key}:{value}")).collect();
    let kind = if table == Table::Auth { text("token_type") } else { text("force_no_cache") };
    vec![
        path,
        mount.kind.clone(),
        mount.accessor.clone(),
        ttl("default_lease_ttl"),
        ttl("max_lease_ttl"),
        kind,
        if mount.local { "local" } else { "replicated" }.to_owned(),
        mount.seal_wrap.to_string(),
        mount.external_entropy_access.to_string(),
        format!("map[{}]", options.join(" ")),
        mount.description,
        mount.uuid,
        mount.plugin_version,
        mount.running_plugin_version,
        mount.running_sha256,
        mount.deprecation_status,
    ]
}

impl Move {
    async fn run(self, context: &mut Context<'_>, table: Table) -> Outcome {
        let (from, to) = (tidy(table, &self.source), tidy(table, &self.destination));
        let prefix = if table == Table::Auth { "auth/" } else { "" };
        let client = context.client()?;
        let (source, target) = (format!("{prefix}{from}"), format!("{prefix}{to}"));
        let id = client.sys().remount(&source, &target).await.doing(|| format!("move {from} to {to}"))?;
        if !context.is_for_programs() {
            context.console.note(&format!("Moving {from} to {to} (migration {id})"));
        }
        wait_for_move(&client, &id).await?;
        context.success(&format!("Moved the {} from {from} to: {to}", noun(table)))
    }
}

async fn wait_for_move(client: &Client, id: &str) -> Result<(), CliError> {
    for _ in 0..MOVE_POLLS_MAX {
        let migration =
            client.sys().remount_status(id).await.doing(|| format!("ask about migration {id}"))?;
        match migration.status.as_str() {
            "success" => return Ok(()),
            "failure" => {
                let message = format!("the move failed; the server's log says why (migration {id})");
                return Err(CliError::Server(message));
            }
            _ => tokio::time::sleep(MOVE_POLL).await,
        }
    }
    let message = format!("the move is still under way; ask with `arca read sys/remount/status/{id}`");
    Err(CliError::Server(message))
}

impl AuthHelp {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let given = self.method.trim_matches('/');
        let text = match login_help(given) {
            Some(text) => text,
            None => {
                let mounts = context.client()?.sys().mounts(Table::Auth).await;
                let mounts = mounts.doing(|| "list auth methods".to_owned())?;
                let mount = mounts.get(&tidy(Table::Auth, given));
                let kind = mount.map(|mount| mount.kind.as_str());
                kind.and_then(login_help).ok_or_else(|| {
                    let path = format!("auth/{given}/login");
                    CliError::Server(format!("no help for {given}; `arca path-help {path}` may explain it"))
                })?
            }
        };
        context.console.say(text);
        Ok(0)
    }
}

fn login_help(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "token" => {
            "Log in with a token you already have:\n\n    arca login TOKEN\n    arca login -           (reads it from \
             standard input)\n    arca login             (asks for it)"
        }
        "userpass" | "ldap" | "radius" | "okta" => {
            "Log in with a name and a password; the password is asked for if it is not given:\n\n    \
             arca login -method=userpass username=NAME [password=@FILE]\n\nldap, radius and okta work alike."
        }
        "approle" => {
            "Log in with a role id and a secret id:\n\n    arca login -method=approle role_id=ID secret_id=@FILE"
        }
        "jwt" | "kubernetes" => {
            "Log in with a signed token of your platform:\n\n    arca login -method=jwt role=ROLE jwt=@FILE\n\n\
             kubernetes works alike."
        }
        "cert" => {
            "Log in with a client certificate:\n\n    arca login -method=cert -client-cert=FILE -client-key=FILE \
             [name=CERT_ROLE]"
        }
        _ => return None,
    })
}
