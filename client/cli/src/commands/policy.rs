//! `arca policy`: what tokens may do.

use clap::{Args, Subcommand};
use std::path::PathBuf;

use super::policy_format;
use crate::args::Format;
use crate::context::Context;
use crate::error::{AtFile, CliError, Doing, Outcome};
use crate::input;

/// Manages policies.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  arca policy write app app.hcl\n  arca policy read app\n  arca policy fmt app.hcl"
)]
pub enum Policy {
    /// List policies
    List(List),
    /// Show a policy
    Read(Name),
    /// Write a policy
    Write(Write),
    /// Delete a policy
    Delete(Name),
    /// Format a policy file
    Fmt(Fmt),
}

/// Lists policies.
#[derive(Args, Debug)]
pub struct List {}

/// Names a policy.
#[derive(Args, Debug)]
pub struct Name {
    /// The policy.
    name: String,
}

/// Writes a policy out of a file or standard input.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca policy write app app.hcl")]
pub struct Write {
    /// The policy.
    name: String,
    /// Its file; - for standard input.
    file: String,
}

/// Formats a policy file in place.
#[derive(Args, Debug)]
pub struct Fmt {
    /// The file.
    file: PathBuf,
}

impl Policy {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::List(_) => {
                let names = context.client()?.sys().policies().await.doing(|| "list policies".to_owned())?;
                if context.format != Format::Table {
                    return context.structured(&names);
                }
                names.iter().for_each(|name| context.console.say(name));
                Ok(0)
            }
            Self::Read(Name { name }) => {
                let client = context.client()?;
                let text = client.sys().policy(&name).await.doing(|| format!("read the policy {name}"))?;
                let text =
                    text.ok_or_else(|| CliError::Server(format!("There is no policy named {name}")))?;
                if context.is_for_programs() {
                    return context.structured(&serde_json::json!({"policy": text}));
                }
                context.console.say(text.trim());
                Ok(0)
            }
            Self::Write(Write { name, file }) => {
                let source = if file == "-" { file } else { format!("@{file}") };
                let text = input::value(&source, &mut context.console.stdin)?;
                let client = context.client()?;
                let answer = client.sys().write_policy(&name, &text).await;
                let answer = answer.doing(|| format!("write the policy {name}"))?;
                answer.iter().for_each(|answer| context.warnings(answer));
                context.success(&format!("Policy is written: {name}"))
            }
            Self::Delete(Name { name }) => {
                let client = context.client()?;
                client.sys().delete_policy(&name).await.doing(|| format!("delete the policy {name}"))?;
                context.success(&format!("Policy is gone: {name}"))
            }
            Self::Fmt(Fmt { file }) => {
                let text = std::fs::read_to_string(&file).at_file(&file)?;
                let formatted = policy_format::format(&text)
                    .map_err(|err| CliError::Usage(format!("{}: {err}", file.display())))?;
                if formatted != text {
                    std::fs::write(&file, formatted).at_file(&file)?;
                }
                context.success(&format!("Formatted: {}", file.display()))
            }
        }
    }
}
