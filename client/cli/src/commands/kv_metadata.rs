//! `arca kv metadata`: what is known about a key of a version 2 mount, and its settings.

use arca_client::{Request, duration};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::kv::{Key, print_map, print_path};
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;

/// Works with what is known about a key.
#[derive(Debug, Subcommand)]
pub enum Metadata {
    /// Show a key's settings and versions
    #[command(after_help = "Example: arca kv metadata get -mount=secret app/db")]
    Get(MetadataKey),
    /// Replace a key's settings
    Put(Settings),
    /// Change some of a key's settings
    Patch(PatchSettings),
    /// Remove a key and all its versions for ever
    #[command(after_help = "Example: arca kv metadata delete -mount=secret app/db")]
    Delete(MetadataKey),
}

/// Names a key.
#[derive(Args, Debug)]
pub struct MetadataKey {
    #[command(flatten)]
    key: Key,
}

/// The settings of a key.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: arca kv metadata put -mount=secret -max-versions=5 -custom-metadata=owner=me app/db"
)]
pub struct Settings {
    #[command(flatten)]
    key: Key,
    /// Whether every write must say which version it replaces.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cas_required: Option<bool>,
    /// How many versions to keep; 0 for what the mount says.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_versions: Option<i64>,
    /// When versions delete themselves, such as 24h; 0s for never.
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true, value_parser = delete_after)]
    delete_version_after: Option<String>,
    /// A note on the key; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    custom_metadata: Vec<String>,
}

/// Changes to the settings of a key.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca kv metadata patch -mount=secret -remove-custom-metadata=owner app/db")]
pub struct PatchSettings {
    #[command(flatten)]
    settings: Settings,
    /// A note to remove; may be given several times.
    #[arg(long, value_name = "KEY")]
    remove_custom_metadata: Vec<String>,
}

/// A duration as the server spells it. A negative one says nothing, as in Vault's CLI, and stays as it is.
fn delete_after(text: &str) -> Result<String, String> {
    if text.starts_with('-') {
        return Ok(text.to_owned());
    }
    duration::parse(text).map(duration::format)
}

impl Settings {
    fn body(&self) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        if let Some(required) = self.cas_required {
            body.insert("cas_required".into(), required.into());
        }
        if let Some(versions) = self.max_versions.filter(|versions| *versions >= 0) {
            body.insert("max_versions".into(), versions.into());
        }
        if let Some(after) = self.delete_version_after.as_ref().filter(|after| !after.starts_with('-')) {
            body.insert("delete_version_after".into(), after.as_str().into());
        }
        if !self.custom_metadata.is_empty() {
            let pairs: Vec<(String, String)> = input::pairs("-custom-metadata", &self.custom_metadata)?;
            let notes: Map<String, Value> =
                pairs.into_iter().map(|(key, value)| (key, value.into())).collect();
            body.insert("custom_metadata".into(), notes.into());
        }
        Ok(body)
    }
}

impl Metadata {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let key = match &self {
            Self::Get(command) | Self::Delete(command) => &command.key,
            Self::Put(settings) => &settings.key,
            Self::Patch(patch) => &patch.settings.key,
        };
        let at = key.locate(&client).await?;
        at.needs_v2("kv metadata", CliError::Usage)?;
        let path = at.path("metadata");
        let (answer, done) = match self {
            Self::Get(_) => {
                let answer =
                    client.read_request(Request::get(&path)).await.doing(|| format!("read {path}"))?;
                return show(context, &path, &answer.ok_or(CliError::NotFound(path.clone()))?);
            }
            Self::Delete(_) => (client.delete(&path).await, "Removed for ever, if it was there"),
            Self::Put(settings) => (client.write(&path, &settings.body()?).await, "Data is written to"),
            Self::Patch(patch) => {
                let mut body = patch.settings.body()?;
                let notes = body.entry("custom_metadata").or_insert_with(|| Map::new().into());
                if let Some(notes) = notes.as_object_mut() {
                    notes.extend(patch.remove_custom_metadata.into_iter().map(|key| (key, Value::Null)));
                }
                body.retain(|_, value| !value.as_object().is_some_and(Map::is_empty));
                (client.patch(&path, &body).await, "Data is merged into")
            }
        };
        let answer = answer.doing(|| format!("change {path}"))?;
        context.secret_or_success(answer.as_ref(), &format!("{done}: {path}"))
    }
}

fn show(context: &mut Context<'_>, path: &str, answer: &arca_client::Secret) -> Outcome {
    if context.is_for_programs() || answer.wrap_info.is_some() {
        return context.secret(answer);
    }
    context.warnings(answer);
    let mut metadata = answer.data.clone().unwrap_or_default();
    let versions = metadata.remove("versions");
    print_path(context, "Metadata Path", path);
    print_map(context, "Metadata", &metadata);
    let mut versions: Vec<_> = versions.as_ref().and_then(Value::as_object).into_iter().flatten().collect();
    versions.sort_by_key(|(number, _)| number.parse::<u64>().unwrap_or(u64::MAX));
    for (number, version) in versions {
        context.console.print(b"\n");
        print_map(context, &format!("Version {number}"), version.as_object().unwrap_or(&Map::new()));
    }
    Ok(0)
}
