//! The plain verbs on any path: read, write, patch, delete, list, scan, unwrap, path-help.

use std::collections::BTreeSet;

use arca_client::{Request, Secret, Token};
use clap::Args;
use serde_json::{Map, Value};

use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;
use crate::output::table;

/// A path of the API, without the slashes and blanks that people leave around it.
fn api_path(text: &str) -> Result<String, String> {
    match text.trim().trim_matches('/') {
        "" => Err("the path is empty".to_owned()),
        path => Ok(path.to_owned()),
    }
}

/// Reads what is at a path.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca read auth/token/lookup-self")]
pub struct Read {
    /// Where to read.
    #[arg(value_parser = api_path)]
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

/// Writes data to a path.
#[derive(Args, Debug)]
#[command(
    after_help = "Data is key=value, key=@file, key=- for standard input, or a JSON object as - or @file.\n\n\
Examples:\n  \
arca write auth/userpass/users/bob password=@password.txt policies=default\n  \
echo '{\"ttl\": \"1h\"}' | arca write auth/token/create -"
)]
pub struct Write {
    /// Write although there is no data.
    #[arg(short, long)]
    force: bool,
    /// Where to write.
    #[arg(value_parser = api_path)]
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

/// Merges data into what is at a path.
#[derive(Args, Debug)]
#[command(
    after_help = "Data is key=value, key=@file, key=- for standard input, or a JSON object as - or @file.\n\n\
Example: arca patch secret/data/app data=@fields.json"
)]
pub struct Patch {
    /// Patch although there is no data.
    #[arg(short, long)]
    force: bool,
    /// Where to patch.
    #[arg(value_parser = api_path)]
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

/// Deletes what is at a path.
#[derive(Args, Debug)]
#[command(after_help = "What is not there counts as deleted.\n\n\
Example: arca delete auth/userpass/users/bob")]
pub struct Delete {
    /// Where to delete.
    #[arg(value_parser = api_path)]
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

/// Lists the names below a path.
#[derive(Args, Debug)]
#[command(after_help = "Names that end in / hold more.\n\n\
Example: arca list sys/policies/acl")]
pub struct List {
    #[command(flatten)]
    listing: Listing,
}

/// Lists everything below a path, however deep, where the path supports it.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca scan secret/metadata")]
pub struct Scan {
    #[command(flatten)]
    listing: Listing,
}

/// What to list, and how much of it.
#[derive(Args, Debug)]
struct Listing {
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
    #[arg(value_parser = api_path)]
    path: String,
}

impl List {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = Request::list(&self.listing.path);
        self.listing.run(context, request).await
    }
}

impl Scan {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = Request::scan(&self.listing.path);
        self.listing.run(context, request).await
    }
}

impl Listing {
    async fn run(self, context: &mut Context<'_>, mut request: Request) -> Outcome {
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
    match answer.filter(|_| detailed) {
        Some(answer) if context.format != Format::Table => context.secret(answer),
        Some(answer) => show_details(context, &keys, answer),
        None => context.keys(&keys),
    }
}

/// Prints names with a column for each thing the server tells about one of them.
fn show_details(context: &mut Context<'_>, keys: &[String], answer: &Secret) -> Outcome {
    let empty = Map::new();
    let info = answer.field("key_info").and_then(Value::as_object).unwrap_or(&empty);
    let about = |key: &String| info.get(key).and_then(Value::as_object);
    let columns: BTreeSet<&str> =
        keys.iter().filter_map(about).flat_map(Map::keys).map(String::as_str).collect();
    let mut names = keys.to_vec();
    names.sort();
    let headings: Vec<&str> = std::iter::once("Keys").chain(columns.iter().copied()).collect();
    let row = |key: &String| {
        let cell = |column: &&str| about(key)?.get(*column).map(|value| table::field(column, value));
        let cells = columns.iter().map(|column| cell(column).unwrap_or_default());
        std::iter::once(key.clone()).chain(cells).collect()
    };
    context.table(&headings, names.iter().map(row))
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

/// Opens a wrapped answer.
#[derive(Args, Debug)]
#[command(after_help = "Without a token, the token in use is taken for the wrapping token.\n\n\
Example: arca unwrap hvs.CAESI…")]
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
#[derive(Args, Debug)]
#[command(after_help = "Example: arca path-help sys/mounts")]
pub struct PathHelp {
    /// The path to explain.
    #[arg(value_parser = api_path)]
    path: String,
}

impl PathHelp {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = Request::get(&self.path).query("help", "1");
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
