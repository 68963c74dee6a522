//! `arca kv`: key-value secrets, version 1 and 2. The mount tells which it is before anything is sent there.

use arca_client::{Client, Request, Secret};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::data::show_list;
use super::kv_metadata::Metadata;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;
use crate::output::table;

/// Works with key-value secrets.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arca kv put -mount=secret app/db user=app password=@password.txt\n  \
arca kv get -mount=secret app/db\n  arca kv get -mount=secret -version=1 -field=password app/db\n\n\
The mount may also stand in front of the key: arca kv get secret/app/db")]
pub enum Kv {
    /// Show a secret
    Get(Get),
    /// Write a secret, or a new version of it
    Put(Put),
    /// Change some fields of a secret
    Patch(Patch),
    /// Delete versions; they can be brought back
    Delete(Delete),
    /// Bring deleted versions back
    #[command(after_help = "Example: arca kv undelete -mount=secret -versions=1,2 app/db")]
    Undelete(Versions),
    /// Remove the data of versions for ever
    #[command(after_help = "Example: arca kv destroy -mount=secret -versions=1,2 app/db")]
    Destroy(Versions),
    /// List keys
    List(List),
    /// List keys, however deep
    #[command(after_help = "Example: arca kv scan -mount=secret app")]
    Scan(List),
    /// Work with what is known about a key
    #[command(subcommand)]
    Metadata(Metadata),
    /// Write an old version again as the newest
    Rollback(Rollback),
    /// Turn a version 1 mount into version 2
    EnableVersioning(EnableVersioning),
}

/// Which key, in which mount.
#[derive(Args, Clone, Debug)]
pub(super) struct Key {
    /// Where the engine is mounted; else the mount stands in front of the key.
    #[arg(long, value_name = "PATH")]
    pub(super) mount: Option<String>,
    /// The key.
    pub(super) key: String,
}

/// A key whose mount is known.
pub(super) struct Located {
    pub(super) mount: String,
    pub(super) key: String,
    pub(super) version: u8,
}

impl Located {
    /// The path of the API for `verb`; version 1 has no verbs.
    pub(super) fn path(&self, verb: &str) -> String {
        let parts = match self.version {
            2 => [self.mount.as_str(), verb, self.key.as_str()],
            _ => [self.mount.as_str(), "", self.key.as_str()],
        };
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// Refuses what version 1 has not. Some commands call that a mistake and some a refusal, as Vault's exit codes do.
    pub(super) fn needs_v2(&self, what: &str, refusal: fn(String) -> CliError) -> Result<(), CliError> {
        if self.version == 2 {
            return Ok(());
        }
        Err(refusal(format!(
            "{what} needs a kv version 2 mount, and {mount}/ is version 1; `arca kv enable-versioning {mount}` turns it \
             into version 2",
            mount = self.mount
        )))
    }
}

impl Key {
    /// Asks the server which mount the key is in.
    pub(super) async fn locate(&self, client: &Client) -> Result<Located, CliError> {
        let asked = self.mount.as_deref().unwrap_or(&self.key).trim_matches('/');
        let found = client.sys().preflight(asked).await;
        let found = found.doing(|| format!("find the mount of {asked}"))?;
        let version = found.kv_version();
        let mount = found.path.trim_matches('/').to_owned();
        let mount = if mount.is_empty() { asked.to_owned() } else { mount };
        let key = match &self.mount {
            Some(_) => self.key.as_str(),
            None => self.key.trim_start_matches('/').strip_prefix(mount.as_str()).unwrap_or_default(),
        };
        Ok(Located { mount, key: key.trim_matches('/').to_owned(), version })
    }
}

impl Kv {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Get(command) => command.run(context).await,
            Self::Put(command) => command.run(context).await,
            Self::Patch(command) => command.run(context).await,
            Self::Delete(command) => command.run(context).await,
            Self::Undelete(command) => command.run(context, "undelete").await,
            Self::Destroy(command) => command.run(context, "destroy").await,
            Self::List(command) => command.run(context, Request::list).await,
            Self::Scan(command) => command.run(context, Request::scan).await,
            Self::Metadata(command) => command.run(context).await,
            Self::Rollback(command) => command.run(context).await,
            Self::EnableVersioning(command) => command.run(context).await,
        }
    }
}

/// Shows a secret.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca kv get -mount=secret -field=password app/db")]
pub struct Get {
    #[command(flatten)]
    key: Key,
    /// The version to show; the newest if not given.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

impl Get {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let at = self.key.locate(&client).await?;
        let path = at.path("data");
        let mut request = Request::get(&path);
        if let Some(version) = self.version {
            at.needs_v2("-version", CliError::Usage)?;
            request = request.query("version", version.to_string());
        }
        let answer = client.read_request(request).await.doing(|| format!("read {path}"))?;
        let answer = answer.ok_or_else(|| CliError::NotFound(path.clone()))?;
        show(context, &at, &path, &answer)
    }
}

fn show(context: &mut Context<'_>, at: &Located, path: &str, answer: &Secret) -> Outcome {
    let is_wrapped = answer.wrap_info.is_some();
    if at.version == 2 && !is_wrapped {
        let data = answer.field("data").and_then(Value::as_object);
        if let Some(name) = context.global.field.clone() {
            if data.is_none() {
                return Err(CliError::Server(format!("No data found at {path}: that version is deleted")));
            }
            let value = data.and_then(|data| data.get(&name)).or_else(|| answer.field(&name));
            return context.field(value.ok_or(CliError::Field(name))?);
        }
        if context.format == Format::Table {
            context.warnings(answer);
            print_path(context, "Secret Path", path);
            if let Some(metadata) = answer.field("metadata").and_then(Value::as_object) {
                print_map(context, "Metadata", metadata);
            }
            context.console.print(b"\n");
            if let Some(data) = data {
                print_map(context, "Data", data);
            }
            return Ok(0);
        }
        return context.secret(answer);
    }
    if context.format == Format::Table && context.global.field.is_none() && !is_wrapped {
        context.warnings(answer);
        print_map(context, "Data", answer.data.as_ref().unwrap_or(&Map::new()));
        return Ok(0);
    }
    context.secret(answer)
}

/// Prints where something is.
pub(super) fn print_path(context: &mut Context<'_>, title: &str, path: &str) {
    let heading = table::heading(title, path.len());
    context.console.say(&format!("{heading}\n{path}\n"));
}

/// Prints a titled table of fields.
pub(super) fn print_map(context: &mut Context<'_>, title: &str, map: &Map<String, Value>) {
    let longest = map.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    context.console.say(&table::heading(title, longest + "    Value".len()));
    let shown = |key: &String, value: &Value| match (key.as_str(), value) {
        ("deletion_time", Value::String(time)) if time.is_empty() => "n/a".to_owned(),
        (_, value) => table::field(key, value),
    };
    let rows = map.iter().map(|(key, value)| (key.clone(), shown(key, value)));
    context.console.print(table::pairs(rows).as_bytes());
}

/// Prints what came of a write: the new version's metadata, or that it worked.
fn written(context: &mut Context<'_>, path: &str, answer: Option<&Secret>) -> Outcome {
    let data = answer.filter(|answer| answer.wrap_info.is_none()).and_then(|answer| answer.data.as_ref());
    match (data, answer) {
        (Some(data), Some(answer)) if !context.is_for_programs() => {
            context.warnings(answer);
            print_path(context, "Secret Path", path);
            print_map(context, "Metadata", data);
            Ok(0)
        }
        _ => context.secret_or_success(answer, &format!("Data is written to: {path}")),
    }
}

/// Writes a secret.
#[derive(Args, Debug)]
#[command(
    after_help = "Data is key=value, key=@file, key=- for standard input, or a JSON object as - or @file.\n\n\
Examples:\n  \
arca kv put -mount=secret app/db user=app password=@password.txt\n  \
arca kv put -mount=secret -cas=0 app/db @secret.json"
)]
pub struct Put {
    #[command(flatten)]
    key: Key,
    /// Write only if this is the current version; 0 if there is none yet.
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true)]
    cas: Option<i64>,
    /// What to write.
    data: Vec<String>,
}

/// The options of a version 2 write. A negative version is none, as in Vault's CLI.
fn cas_options(cas: Option<i64>) -> Value {
    match cas {
        Some(cas) if cas >= 0 => json!({"cas": cas}),
        _ => json!({}),
    }
}

impl Put {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        if self.data.is_empty() {
            return Err(CliError::Usage("nothing to write: give data as key=value, @file.json, or -".into()));
        }
        let data = input::parse(&self.data, &mut context.console.stdin)?;
        let client = context.client()?;
        let at = self.key.locate(&client).await?;
        let path = at.path("data");
        let body = match at.version {
            2 => json!({"data": data, "options": cas_options(self.cas)}),
            _ => Value::Object(data),
        };
        let answer = client.write(&path, &body).await.doing(|| format!("write to {path}"))?;
        written(context, &path, answer.as_ref())
    }
}

/// Changes some fields of a secret and keeps the others.
#[derive(Args, Debug)]
#[command(
    after_help = "Data is key=value, key=@file, key=- for standard input, or a JSON object as - or @file.\n\n\
Example: arca kv patch -mount=secret app/db password=@new.txt"
)]
pub struct Patch {
    #[command(flatten)]
    key: Key,
    /// Write only if this is the current version.
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true)]
    cas: Option<i64>,
    /// patch asks the server to merge; rw reads, merges here and writes. The default tries patch, then rw.
    #[arg(long, value_name = "HOW")]
    method: Option<PatchMethod>,
    /// Field to remove; may be given several times.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    remove_data: Vec<String>,
    /// What to change.
    data: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PatchMethod {
    Patch,
    Rw,
}

impl Patch {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        if self.data.is_empty() && self.remove_data.is_empty() {
            return Err(CliError::Usage("nothing to change: give data as key=value, or -remove-data".into()));
        }
        let mut data = input::parse(&self.data, &mut context.console.stdin)?;
        data.extend(self.remove_data.iter().map(|field| (field.clone(), Value::Null)));
        let client = context.client()?;
        let at = self.key.locate(&client).await?;
        at.needs_v2("kv patch", CliError::Server)?;
        let path = at.path("data");
        let answer = match self.method {
            Some(PatchMethod::Rw) => read_and_write(&client, &path, data, self.cas).await?,
            method => {
                let body = json!({"data": data, "options": cas_options(self.cas)});
                match client.patch(&path, &body).await {
                    // A server without the verb still has the others, and so has a token that may not use it.
                    Err(arca_client::Error::Api(err))
                        if method.is_none() && matches!(err.status.as_u16(), 403 | 405) =>
                    {
                        let answer = read_and_write(&client, &path, data, self.cas).await?;
                        note_fallback(context, &path, err.status.as_u16());
                        answer
                    }
                    other => other.doing(|| format!("patch {path}"))?,
                }
            }
        };
        written(context, &path, answer.as_ref())
    }
}

fn note_fallback(context: &mut Context<'_>, path: &str, status: u16) {
    if status == 403 {
        context.console.note(&format!(
            "Note: the token may not patch {path}, so it was read and written. The capability patch makes this one step."
        ));
    }
}

/// Merges here. The version that was read guards the write, so that nobody's change in between is lost.
async fn read_and_write(
    client: &Client,
    path: &str,
    changes: Map<String, Value>,
    cas: Option<i64>,
) -> Result<Option<Secret>, CliError> {
    let current = client.live().read(path).await.doing(|| format!("read {path}"))?;
    let current = current.ok_or_else(|| CliError::NotFound(path.to_owned()))?;
    let mut data = current.field("data").and_then(Value::as_object).cloned().ok_or_else(|| {
        CliError::Server(format!("the newest version at {path} is deleted; undelete it or write a new one"))
    })?;
    for (field, value) in changes {
        match value {
            Value::Null => drop(data.remove(&field)),
            value => drop(data.insert(field, value)),
        }
    }
    let version =
        current.field("metadata").and_then(|metadata| metadata.get("version")).and_then(Value::as_i64);
    let cas = cas.filter(|cas| *cas >= 0).or(version);
    let body = json!({"data": data, "options": cas_options(cas)});
    client.write(path, &body).await.doing(|| format!("write to {path}"))
}

/// Deletes the newest version, or those named; they can be brought back.
#[derive(Args, Debug)]
#[command(after_help = "Version 1 deletes for ever.\n\n\
Example: arca kv delete -mount=secret -versions=1,2 app/db")]
pub struct Delete {
    #[command(flatten)]
    key: Key,
    /// Versions, separated by commas.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    versions: Vec<u64>,
}

impl Delete {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let at = self.key.locate(&client).await?;
        let (path, answer) = if self.versions.is_empty() {
            let path = at.path("data");
            let answer = client.delete(&path).await;
            (path, answer)
        } else {
            at.needs_v2("-versions", CliError::Usage)?;
            let path = at.path("delete");
            let answer = client.write(&path, &json!({"versions": self.versions})).await;
            (path, answer)
        };
        let answer = answer.doing(|| format!("delete {path}"))?;
        context.secret_or_success(answer.as_ref(), &format!("Deleted, if it was there: {path}"))
    }
}

/// Names versions of a key.
#[derive(Args, Debug)]
pub struct Versions {
    #[command(flatten)]
    key: Key,
    /// Versions, separated by commas.
    #[arg(long, value_name = "N,…", value_delimiter = ',', required = true)]
    versions: Vec<u64>,
}

impl Versions {
    async fn run(self, context: &mut Context<'_>, verb: &str) -> Outcome {
        let client = context.client()?;
        let at = self.key.locate(&client).await?;
        at.needs_v2(&format!("kv {verb}"), CliError::Usage)?;
        let path = at.path(verb);
        let body = json!({"versions": self.versions});
        let answer = client.write(&path, &body).await.doing(|| format!("write to {path}"))?;
        context.secret_or_success(answer.as_ref(), &format!("Data is written to: {path}"))
    }
}

/// Lists keys.
#[derive(Args, Debug)]
#[command(after_help = "Names that end in / hold more.\n\n\
Example: arca kv list -mount=secret app")]
pub struct List {
    /// Where the engine is mounted; else the mount stands in front of the path.
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
    /// Where to list.
    path: Option<String>,
}

impl List {
    async fn run(self, context: &mut Context<'_>, ask: fn(String) -> Request) -> Outcome {
        if self.mount.is_none() && self.path.is_none() {
            return Err(CliError::Usage("say where to list: -mount=MOUNT, or MOUNT/PATH".into()));
        }
        let client = context.client()?;
        let key = Key { mount: self.mount, key: self.path.unwrap_or_default() };
        let path = key.locate(&client).await?.path("metadata");
        let answer = client.read_request(ask(path.clone())).await.doing(|| format!("list {path}"))?;
        show_list(context, answer.as_ref(), &path, false)
    }
}

/// Writes an old version again as the newest.
#[derive(Args, Debug)]
#[command(after_help = "Nothing is lost: the versions in between stay.\n\n\
Example: arca kv rollback -mount=secret -version=2 app/db")]
pub struct Rollback {
    #[command(flatten)]
    key: Key,
    /// The version to write again.
    #[arg(long, value_name = "N")]
    version: u64,
}

impl Rollback {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let at = self.key.locate(&client).await?;
        at.needs_v2("kv rollback", CliError::Server)?;
        let path = at.path("data");
        let doing = || format!("read {path}");
        let newest = client.live().read(&path).await.doing(doing)?;
        let newest = newest.ok_or_else(|| CliError::NotFound(path.clone()))?;
        let current =
            newest.field("metadata").and_then(|metadata| metadata.get("version")).and_then(Value::as_i64);
        let request = Request::get(&path).query("version", self.version.to_string());
        let old = client.live().read_request(request).await.doing(doing)?;
        let data =
            old.as_ref().and_then(|old| old.field("data")).filter(|data| data.is_object()).ok_or_else(
                || {
                    CliError::Server(format!(
                        "version {} at {path} has no data: it is deleted, destroyed or unknown",
                        self.version
                    ))
                },
            )?;
        let body = json!({"data": data, "options": cas_options(current)});
        let answer = client.write(&path, &body).await.doing(|| format!("write to {path}"))?;
        context.secret_or_success(answer.as_ref(), &format!("Data is written to: {path}"))
    }
}

/// Turns a version 1 mount into version 2.
#[derive(Args, Debug)]
#[command(after_help = "There is no way back.\n\n\
Example: arca kv enable-versioning secret")]
pub struct EnableVersioning {
    /// Where the engine is mounted.
    mount: String,
}

impl EnableVersioning {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let mount = self.mount.trim_matches('/');
        let client = context.client()?;
        let request =
            Request::post(format!("sys/mounts/{mount}/tune")).json(&json!({"options": {"version": "2"}}));
        let sent = client.send(request.doing(|| "send data".into())?).await;
        sent.doing(|| format!("turn {mount}/ into version 2"))?;
        context.success(&format!("Keys keep versions now at: {mount}/"))
    }
}
