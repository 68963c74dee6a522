//! The plain verbs on any path: read, write, patch, delete, list, unwrap, path-help.

use arca_client::{Request, Secret, Token};
use clap::Args;
use serde_json::{Map, Value};

use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;
use crate::output::table;

/// Reads what is at a path.
///
/// Example: arca read auth/token/lookup-self
#[derive(Args, Debug)]
pub struct Read {
    /// Where to read.
    path: String,
    /// Parameters, as key=value.
    #[arg(value_name = "KEY=VALUE")]
    parameters: Vec<String>,
}

impl Read {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let request = with_query(Request::get(&self.path), context, &self.parameters)?;
        if context.format == Format::Raw {
            let response = client.send(request).await.doing(|| format!("read {}", self.path))?;
            context.console.print(response.body.trim_ascii_end());
            context.console.print(b"\n");
            return Ok(0);
        }
        let answer = client.read_request(request).await.doing(|| format!("read {}", self.path))?;
        context.secret(&answer.ok_or(CliError::NotFound(self.path))?)
    }
}

/// Writes data to a path. Data is key=value, key=@file, key=- for standard input, or a JSON object as - or @file.
///
/// Examples:
///   arca write auth/userpass/users/bob password=@password.txt policies=default
///   echo '{"ttl": "1h"}' | arca write auth/token/create -
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Write {
    /// Write although there is no data.
    #[arg(short, long)]
    force: bool,
    /// Where to write.
    path: String,
    /// What to write.
    data: Vec<String>,
}

impl Write {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if self.data.is_empty() && !self.force {
            let message = "nothing to write: give data as key=value, or -force if the path needs none";
            return Err(CliError::Usage(message.into()));
        }
        let data = input::parse(&self.data, &mut context.console.stdin)?;
        let request = Request::put(&self.path);
        let request =
            if self.data.is_empty() { request } else { request.json(&data).doing(|| "send data".into())? };
        let answer = context.client()?.send(request).await.and_then(|response| response.secret());
        let answer = answer.doing(|| format!("write to {}", self.path))?;
        context.secret_or_success(answer.as_ref(), &format!("Data is written to: {}", self.path))
    }
}

/// Merges data into what is at a path. Data as with write.
///
/// Example: arca patch secret/data/app data=@fields.json
#[derive(Args, Debug)]
pub struct Patch {
    /// Patch although there is no data.
    #[arg(short, long)]
    force: bool,
    /// Where to patch.
    path: String,
    /// What to merge.
    data: Vec<String>,
}

impl Patch {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if self.data.is_empty() && !self.force {
            return Err(CliError::Usage("nothing to merge: give data as key=value, or -force".into()));
        }
        let data = input::parse(&self.data, &mut context.console.stdin)?;
        let answer =
            context.client()?.patch(&self.path, &data).await.doing(|| format!("patch {}", self.path))?;
        context.secret_or_success(answer.as_ref(), &format!("Data is merged into: {}", self.path))
    }
}

/// Deletes what is at a path. What is not there counts as deleted.
///
/// Example: arca delete auth/userpass/users/bob
#[derive(Args, Debug)]
pub struct Delete {
    /// Where to delete.
    path: String,
    /// Parameters, as key=value.
    #[arg(value_name = "KEY=VALUE")]
    parameters: Vec<String>,
}

impl Delete {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = with_query(Request::delete(&self.path), context, &self.parameters)?;
        let answer = context.client()?.send(request).await.and_then(|response| response.secret());
        let answer = answer.doing(|| format!("delete {}", self.path))?;
        context.secret_or_success(answer.as_ref(), &format!("Nothing is left at: {}", self.path))
    }
}

/// Lists the names below a path. Names that end in / hold more.
///
/// Example: arca list sys/policies/acl
#[derive(Args, Debug)]
pub struct List {
    /// Begin after this name, where the path supports pages.
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// At most this many names, where the path supports pages.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    limit: Option<i64>,
    /// Show what the server tells about each name.
    #[arg(long)]
    detailed: bool,
    /// Where to list.
    path: String,
}

impl List {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let mut request = Request::list(self.path.trim_end_matches('/'));
        if let Some(after) = self.after {
            request = request.query("after", after);
        }
        if let Some(limit) = self.limit {
            request = request.query("limit", limit.to_string());
        }
        let answer = context.client()?.read_request(request).await.doing(|| format!("list {}", self.path))?;
        show_list(context, answer.as_ref(), &self.path, self.detailed)
    }
}

/// Prints the answer to a list; nothing is an error, as in Vault's CLI.
pub(super) fn show_list(
    context: &mut Context<'_>,
    answer: Option<&Secret>,
    path: &str,
    detailed: bool,
) -> Outcome {
    let keys = answer.map(Secret::keys).unwrap_or_default();
    if let Some(answer) = answer.filter(|answer| answer.wrap_info.is_some()) {
        return context.secret(answer);
    }
    if keys.is_empty() {
        if context.format != Format::Table {
            context.structured(&serde_json::json!({}))?;
            return Ok(2);
        }
        return Err(CliError::NotFound(path.to_owned()));
    }
    let info = answer.and_then(|answer| answer.field("key_info")).and_then(Value::as_object);
    match info {
        Some(info) if detailed => {
            if context.format != Format::Table {
                return context.structured(&answer.and_then(|answer| answer.data.as_ref()));
            }
            let about = |key: &String| info.get(key).map(table::plain).unwrap_or_default();
            let rows: Vec<_> = keys.iter().map(|key| vec![key.clone(), about(key)]).collect();
            context.table(&["Keys", "Info"], rows)
        }
        _ => context.keys(&keys),
    }
}

fn with_query(
    mut request: Request,
    context: &mut Context<'_>,
    arguments: &[String],
) -> Result<Request, CliError> {
    let data: Map<String, Value> = input::parse(arguments, &mut context.console.stdin)?;
    for (key, value) in data {
        match value {
            Value::Array(list) => {
                for value in list {
                    request = request.query(key.clone(), table::plain(&value));
                }
            }
            value => request = request.query(key, table::plain(&value)),
        }
    }
    Ok(request)
}

/// Opens a wrapped answer. Without a token, the token in use is taken for the wrapping token.
///
/// Example: arca unwrap hvs.CAESI…
#[derive(Args, Debug)]
pub struct Unwrap {
    /// The wrapping token.
    token: Option<String>,
}

impl Unwrap {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let token = self.token.map(Token::new);
        let answer = context.client()?.sys().unwrap(token.as_ref()).await.doing(|| "unwrap".to_owned())?;
        context.secret_or_success(answer.as_ref(), "The wrapped answer is empty.")
    }
}

/// Explains a path: its parameters, and what the verbs do there.
///
/// Example: arca path-help sys/mounts
#[derive(Args, Debug)]
pub struct PathHelp {
    /// The path to explain.
    path: String,
}

impl PathHelp {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = Request::get(self.path.trim_end_matches('/')).query("help", "1");
        let response = context.client()?.send(request).await.doing(|| format!("explain {}", self.path))?;
        let answer: Map<String, Value> = response.json().doing(|| format!("explain {}", self.path))?;
        let help = answer.get("help").or_else(|| answer.get("data")?.get("help")).and_then(Value::as_str);
        let help = help.ok_or_else(|| CliError::Server(format!("there is no help for {}", self.path)))?;
        if context.format != Format::Table {
            return context.structured(&answer);
        }
        let help = help.trim_end().to_owned();
        context.console.say(&help);
        Ok(0)
    }
}
