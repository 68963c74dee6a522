//! Every command, one file a group. Each is a clap type with a `run` that talks to the server and prints.

use clap::{Args, Subcommand};
use clap_complete::Shell;

use crate::External;
use crate::args::{Cli, Format};
use crate::console::Console;
use crate::context::Context;
use crate::error::{CliError, Outcome};

mod audit;
mod data;
mod debug;
mod generate_root;
mod init;
mod kv;
mod kv_metadata;
mod lease;
mod login;
mod mfa;
mod mounts;
mod mounts_tune;
mod operator;
mod policy;
mod policy_format;
mod raft;
mod raft_snapshot;
mod rekey;
mod replication;
mod replication_filter;
mod status;
mod token;

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read a path
    Read(data::Read),
    /// Write data to a path
    Write(data::Write),
    /// Merge data into what is at a path
    Patch(data::Patch),
    /// Delete a path
    Delete(data::Delete),
    /// List the names below a path
    List(data::List),
    /// List everything below a path, however deep
    Scan(data::Scan),
    /// Open a wrapped answer
    Unwrap(data::Unwrap),
    /// Explain a path of the API
    PathHelp(data::PathHelp),
    /// Log in and keep the token
    Login(login::Login),
    /// Show whether the server is sealed, and who leads
    Status(status::Status),
    /// Work with key-value secrets
    #[command(subcommand)]
    Kv(kv::Kv),
    /// Manage tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Manage policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Manage secrets engines
    #[command(subcommand)]
    Secrets(mounts::Secrets),
    /// Manage auth methods
    #[command(subcommand)]
    Auth(mounts::Auth),
    /// Manage leases
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Manage audit devices
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Run the cluster: init, unseal, raft, keys
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Collect the server's state into an archive for support
    Debug(debug::Debug),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion(Completion),
    /// Print what the program would use
    #[command(subcommand)]
    Print(Print),
}

/// Prints a completion script.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca completion bash > /etc/bash_completion.d/arca")]
pub struct Completion {
    /// The shell.
    shell: Shell,
}

/// Prints what the program would use.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Print {
    /// Print the token in use
    Token,
}

/// Runs a command; answers the exit code.
pub(crate) fn run(console: &mut Console, cli: Cli, external: &[External]) -> u8 {
    let mut context = match Context::new(console, cli.global) {
        Ok(context) => context,
        Err(err) => {
            err.show(console);
            return err.exit_code();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(&mut context, cli.command, external)),
        Err(err) => Err(CliError::Usage(format!("cannot start: {err}"))),
    };
    let outcome = match outcome {
        Err(CliError::Client { source, .. }) if matches!(*source, arca_client::Error::DryRun(_)) => {
            match *source {
                arca_client::Error::DryRun(planned) => context.planned(&planned),
                _ => Ok(0),
            }
        }
        other => other,
    };
    outcome.unwrap_or_else(|err| {
        err.show(context.console);
        err.exit_code()
    })
}

async fn dispatch(context: &mut Context<'_>, command: Command, external: &[External]) -> Outcome {
    // Said before anything is sent: a write that happened must not end in this complaint.
    if context.format == Format::Raw && !matches!(command, Command::Read(_)) {
        return Err(CliError::Usage("-format=raw is for `arca read` alone; use json".into()));
    }
    match command {
        Command::Read(command) => command.run(context).await,
        Command::Write(command) => command.run(context).await,
        Command::Patch(command) => command.run(context).await,
        Command::Delete(command) => command.run(context).await,
        Command::List(command) => command.run(context).await,
        Command::Scan(command) => command.run(context).await,
        Command::Unwrap(command) => command.run(context).await,
        Command::PathHelp(command) => command.run(context).await,
        Command::Login(command) => command.run(context).await,
        Command::Status(command) => command.run(context).await,
        Command::Kv(command) => command.run(context).await,
        Command::Token(command) => command.run(context).await,
        Command::Policy(command) => command.run(context).await,
        Command::Secrets(command) => command.run(context).await,
        Command::Auth(command) => command.run(context).await,
        Command::Lease(command) => command.run(context).await,
        Command::Audit(command) => command.run(context).await,
        Command::Operator(command) => command.run(context).await,
        Command::Debug(command) => command.run(context).await,
        Command::Version => {
            context.console.say(concat!("Arca v", env!("CARGO_PKG_VERSION")));
            Ok(0)
        }
        Command::Completion(completion) => {
            let mut script = Vec::new();
            clap_complete::generate(
                completion.shell,
                &mut crate::args::command(external),
                "arca",
                &mut script,
            );
            context.console.print(&script);
            Ok(0)
        }
        Command::Print(Print::Token) => print_token(context),
    }
}

fn print_token(context: &mut Context<'_>) -> Outcome {
    match &context.client()?.config().token {
        // Printing it is the command's purpose.
        Some(token) => context.console.say(token.expose()),
        None => return Err(CliError::Usage("no token is set; run `arca login` or set ARCA_TOKEN".into())),
    }
    Ok(0)
}
