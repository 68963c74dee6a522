//! The `arca` command line: every command but `server`, which lives in the node.
//!
//! Flags work as `-flag` and as `--flag`; output is a table, JSON or YAML; exit codes are 0 for success, 1 for a
//! mistake on this side, 2 for an error of the server. Settings come from flags, then `ARCA_*`, then `VAULT_*`.
//! The token is kept where Vault's own CLI keeps it, in `~/.vault-token`, so that the two share it.
//! Read next: [`args`] for how a command line is read, [`commands`] for what each command does.

pub mod args;
pub mod commands;
pub mod console;
pub mod context;
pub mod error;
mod hints;
pub mod input;
pub mod output;
mod token_file;

use std::ffi::OsString;
use std::process::ExitCode;

pub use console::Console;

/// A command that the caller handles itself, named here so that help, completion and suggestions know it.
#[derive(Clone, Copy, Debug)]
pub struct External {
    /// Where it stands, such as `["server"]` or `["audit", "verify"]`.
    pub path: &'static [&'static str],
    /// One line for the help.
    pub about: &'static str,
}

/// Runs a command line (`args[0]` is the program) against the real terminal, environment and network.
pub fn run(args: impl IntoIterator<Item = OsString>, external: &[External]) -> ExitCode {
    ExitCode::from(run_in(&mut Console::real(), args, external))
}

/// Stores `token` where the command line looks for it. A dev server does so for its user.
///
/// # Errors
/// When the file cannot be written.
pub fn remember_token(token: &str) -> std::io::Result<()> {
    token_file::store(&Console::real(), &arca_client::Token::new(token))
}

/// Runs a command line against a console of your own making. Answers the exit code.
pub fn run_in(console: &mut Console, args: impl IntoIterator<Item = OsString>, external: &[External]) -> u8 {
    let code = match args::parse(args.into_iter().collect(), external) {
        Ok(cli) => commands::run(console, cli, external),
        Err(refusal) => refusal.show(console),
    };
    console.flush();
    code
}
