//! Reads a command line: single-dash flags become double-dash ones, `-flag=true` becomes a switch, then clap parses.
//! Nothing here runs a command.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::External;
use crate::commands::Command;
use crate::console::Console;

const HTTP: &str = "HTTP options";
const OUTPUT: &str = "Output options";

/// A whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "arca",
    about = "Keep secrets: read and write them, and run the servers that hold them.",
    long_about = None,
    disable_version_flag = true,
    arg_required_else_help = true,
    subcommand_required = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = "Flags may be written with one dash or two. Settings come from flags, then from ARCA_ADDR, \
ARCA_TOKEN, ARCA_NAMESPACE, ARCA_CACERT and so on, then from the same names with VAULT_.\n\n\
Examples:\n  arca status\n  arca login\n  arca kv put -mount=secret app/db user=app password=@password.txt\n  \
arca kv get -mount=secret -field=password app/db\n  arca operator raft list-peers"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
}

/// Flags that every command takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Address of a server, or several separated by commas [env: ARCA_ADDR, VAULT_ADDR]
    #[arg(long, global = true, value_name = "URL", help_heading = HTTP, hide_short_help = true)]
    pub address: Option<String>,
    /// Address of an agent, which goes before that of a server [env: ARCA_AGENT_ADDR]
    #[arg(long, global = true, value_name = "URL", help_heading = HTTP, hide_short_help = true)]
    pub agent_address: Option<String>,
    /// PEM file of the authorities to trust [env: ARCA_CACERT]
    #[arg(long, global = true, value_name = "FILE", help_heading = HTTP, hide_short_help = true)]
    pub ca_cert: Option<PathBuf>,
    /// Folder of such files [env: ARCA_CAPATH]
    #[arg(long, global = true, value_name = "DIR", help_heading = HTTP, hide_short_help = true)]
    pub ca_path: Option<PathBuf>,
    /// PEM file of the certificate to show to the server [env: ARCA_CLIENT_CERT]
    #[arg(long, global = true, value_name = "FILE", help_heading = HTTP, hide_short_help = true)]
    pub client_cert: Option<PathBuf>,
    /// PEM file of the key to it [env: ARCA_CLIENT_KEY]
    #[arg(long, global = true, value_name = "FILE", help_heading = HTTP, hide_short_help = true)]
    pub client_key: Option<PathBuf>,
    /// Name the server's certificate is for [env: ARCA_TLS_SERVER_NAME]
    #[arg(long, global = true, value_name = "NAME", help_heading = HTTP, hide_short_help = true)]
    pub tls_server_name: Option<String>,
    /// Trust any certificate: whoever sits in between reads everything [env: ARCA_SKIP_VERIFY]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = HTTP, hide_short_help = true)]
    pub tls_skip_verify: Option<bool>,
    /// Namespace that paths are in [env: ARCA_NAMESPACE]
    #[arg(long, global = true, visible_alias = "ns", value_name = "NAME", help_heading = HTTP, hide_short_help = true)]
    pub namespace: Option<String>,
    /// Wrap the answer in a single-use token that lives this long [env: ARCA_WRAP_TTL]
    #[arg(long, global = true, value_name = "TTL", help_heading = HTTP, hide_short_help = true)]
    pub wrap_ttl: Option<String>,
    /// Header to send along; may be given several times
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = HTTP, hide_short_help = true)]
    pub header: Vec<String>,
    /// Second factor, METHOD or METHOD:PASSCODE; may be given several times [env: ARCA_MFA]
    #[arg(long, global = true, value_name = "FACTOR", help_heading = HTTP, hide_short_help = true)]
    pub mfa: Vec<String>,
    /// Override a policy of the server that may be overridden
    #[arg(long, global = true, help_heading = HTTP, hide_short_help = true)]
    pub policy_override: bool,
    /// Do not follow the server's redirect [env: ARCA_DISABLE_REDIRECTS]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = HTTP, hide_short_help = true)]
    pub disable_redirects: Option<bool>,
    /// Print the curl command of the request and send nothing
    #[arg(long, global = true, help_heading = HTTP, hide_short_help = true)]
    pub output_curl_string: bool,
    /// Print the policy the request needs and send nothing
    #[arg(long, global = true, help_heading = HTTP, hide_short_help = true)]
    pub output_policy: bool,
    /// Never ask at the terminal
    #[arg(long, global = true, help_heading = HTTP, hide_short_help = true)]
    pub non_interactive: bool,
    /// How to print the answer [env: ARCA_FORMAT, VAULT_FORMAT] [default: table]
    #[arg(long, global = true, value_name = "FORMAT", ignore_case = true, help_heading = OUTPUT)]
    pub format: Option<Format>,
    /// Print this field alone, without a newline when piped
    #[arg(long, global = true, value_name = "NAME", help_heading = OUTPUT)]
    pub field: Option<String>,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// JSON too; some scripts ask for it by this name.
    #[value(hide = true)]
    Pretty,
    /// YAML.
    #[value(alias = "yml")]
    Yaml,
    /// The body as the server sent it; only for `read`.
    Raw,
}

/// A command line that is not run: a mistake, or a call for help.
#[derive(Debug)]
pub struct Refusal {
    error: clap::Error,
    /// The command that was probably meant.
    nearest: Option<String>,
}

impl Refusal {
    /// Prints it; answers the exit code.
    pub fn show(&self, console: &mut Console) -> u8 {
        let text = self.error.render();
        match self.error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let text =
                    if console.is_output_terminal { text.ansi().to_string() } else { text.to_string() };
                console.print(text.as_bytes());
                0
            }
            _ => {
                console.note(text.to_string().trim_end());
                if let Some(nearest) = &self.nearest {
                    console.note(&format!("\nDid you mean `{nearest}`?"));
                }
                1
            }
        }
    }
}

/// Parses a command line; `args[0]` is the program.
pub fn parse(args: Vec<OsString>, external: &[External]) -> Result<Cli, Refusal> {
    let mut command = command(external);
    command.build();
    let args = normalize(args, &Flags::of(&command));
    let matches = command.clone().try_get_matches_from(&args).map_err(|error| {
        let is_named_already = error.get(ContextKind::SuggestedSubcommand).is_some();
        let is_unknown = error.kind() == ErrorKind::InvalidSubcommand && !is_named_already;
        let nearest = if is_unknown { nearest(&command, &args) } else { None };
        Refusal { error, nearest }
    })?;
    Cli::from_arg_matches(&matches).map_err(|error| Refusal { error, nearest: None })
}

/// The command whose name is closest to the first unknown word, if one is close.
fn nearest(command: &clap::Command, args: &[OsString]) -> Option<String> {
    const EDITS_MAX: usize = 2;
    let (mut at, mut path) = (command, vec!["arca"]);
    let words = args.iter().skip(1).filter_map(|arg| arg.to_str()).filter(|word| !word.starts_with('-'));
    for word in words {
        if let Some(next) = at.find_subcommand(word) {
            path.push(next.get_name());
            at = next;
            continue;
        }
        let names = at.get_subcommands().map(clap::Command::get_name);
        let (edits, name) = names.map(|name| (distance(word, name), name)).min()?;
        path.push(name);
        return (edits <= EDITS_MAX && edits < word.len()).then(|| path.join(" "));
    }
    None
}

/// How many letters must be added, dropped, changed or swapped to turn one word into another.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
    for (row, letter) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let change = at(&above, column) + usize::from(letter != other);
            let mut best = change.min(at(&above, column + 1) + 1).min(at(&current, column) + 1);
            let swaps =
                |row: usize, column: usize| from.get(row) == Some(other) && to.get(column) == Some(letter);
            if row > 0 && column > 0 && swaps(row - 1, column - 1) {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    at(&above, to.len())
}

/// The whole tree of commands, with those the caller handles itself.
pub fn command(external: &[External]) -> clap::Command {
    external.iter().fold(Cli::command(), |command, extra| graft(command, extra.path, extra.about))
}

fn graft(command: clap::Command, path: &'static [&'static str], about: &'static str) -> clap::Command {
    match path {
        [] => command,
        [name] => command.subcommand(clap::Command::new(*name).about(about)),
        [name, rest @ ..] => command.mut_subcommand(*name, |inner| graft(inner, rest, about)),
    }
}

/// The names of the flags that Go would call boolean.
#[derive(Debug, Default)]
struct Flags {
    /// Those that take no value here.
    switches: BTreeSet<String>,
    /// Those that take true or false.
    booleans: BTreeSet<String>,
}

impl Flags {
    fn of(command: &clap::Command) -> Self {
        let mut flags = Self::default();
        flags.collect(command);
        flags
    }

    fn collect(&mut self, command: &clap::Command) {
        for arg in command.get_arguments() {
            let values = arg.get_possible_values();
            let names = match arg.get_action() {
                ArgAction::SetTrue => &mut self.switches,
                _ if values.iter().map(PossibleValue::get_name).eq(["true", "false"]) => &mut self.booleans,
                _ => continue,
            };
            names.extend(arg.get_long().map(str::to_owned));
            names.extend(arg.get_short().map(String::from));
        }
        command.get_subcommands().for_each(|inner| self.collect(inner));
    }
}

/// Turns Go's way of writing flags into clap's. Everything after `--` stays as it is.
fn normalize(args: Vec<OsString>, flags: &Flags) -> Vec<OsString> {
    let mut out = Vec::with_capacity(args.len());
    let mut is_data = false;
    for (index, arg) in args.into_iter().enumerate() {
        let Some(text) = arg.to_str().filter(|_| !is_data && index > 0) else {
            out.push(arg);
            continue;
        };
        if index == 1 && matches!(text, "-v" | "-version" | "--version") {
            out.push("version".into());
            continue;
        }
        if text == "--" {
            is_data = true;
        }
        out.extend(flag(text, flags).map(OsString::from));
    }
    out
}

/// One argument, rewritten; `None` for a switch that is turned off.
fn flag(text: &str, flags: &Flags) -> Option<String> {
    let body = text.trim_start_matches('-');
    let dashes = text.len() - body.len();
    let is_flag = (1..=2).contains(&dashes) && body.starts_with(|first: char| first.is_ascii_alphabetic());
    if !is_flag {
        return Some(text.to_owned());
    }
    let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
    let dashes = if name.len() == 1 { "-" } else { "--" };
    match value.and_then(truth) {
        Some(true) if flags.switches.contains(name) => Some(format!("{dashes}{name}")),
        Some(false) if flags.switches.contains(name) => None,
        Some(truth) if flags.booleans.contains(name) => Some(format!("{dashes}{name}={truth}")),
        _ => Some(format!("{dashes}{body}")),
    }
}

/// The words Go takes for true and false.
fn truth(value: &str) -> Option<bool> {
    match value {
        "true" | "t" | "1" | "T" | "TRUE" | "True" => Some(true),
        "false" | "f" | "0" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: &str) {
        let args = line.split(' ').map(OsString::from).collect();
        let flags = Flags {
            switches: ["detailed", "f", "force"].map(str::to_owned).into(),
            booleans: ["renewable"].map(str::to_owned).into(),
        };
        let got: Vec<_> = normalize(args, &flags).into_iter().map(|arg| arg.into_string().unwrap()).collect();
        assert_eq!(got.join(" "), want, "input {line:?}");
    }

    #[test]
    fn one_dash_or_two() {
        check("arca kv get -mount=secret foo", "arca kv get --mount=secret foo");
        check("arca kv get --mount secret foo", "arca kv get --mount secret foo");
        check("arca write -f sys/rotate", "arca write -f sys/rotate");
        check("arca kv put -mount=secret a -", "arca kv put --mount=secret a -");
        check("arca kv put a b=-x -cas -1", "arca kv put a b=-x --cas -1");
        check("arca status -h", "arca status -h");
        check("arca status -help", "arca status --help");
    }

    #[test]
    fn switches_take_values_as_in_go() {
        check("arca secrets list -detailed=true", "arca secrets list --detailed");
        check("arca secrets list -detailed=false", "arca secrets list");
        check("arca write -f=true x", "arca write -f x");
        check("arca read -field=true x", "arca read --field=true x");
        check("arca token create -renewable=F", "arca token create --renewable=false");
        check("arca token create -renewable", "arca token create --renewable");
    }

    #[test]
    fn data_after_two_dashes_stays() {
        check("arca write a -- -force=x -b", "arca write a -- -force=x -b");
    }

    #[test]
    fn versions_at_the_top_only() {
        check("arca -version", "arca version");
        check("arca -v", "arca version");
        check("arca kv get -version=3 a", "arca kv get --version=3 a");
    }

    #[test]
    fn the_nearest_command_is_named() {
        let of =
            |line: &str| nearest(&command(&[]), &line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of("arca kv gte").as_deref(), Some("arca kv get"));
        assert_eq!(
            of("arca --format=json operator raft list-pers").as_deref(),
            Some("arca operator raft list-peers")
        );
        assert_eq!(of("arca stauts").as_deref(), Some("arca status"));
        assert_eq!(of("arca xylophone"), None);
    }

    #[test]
    fn the_tree_is_sound() {
        command(&[
            External { path: &["server"], about: "x" },
            External { path: &["audit", "verify"], about: "y" },
        ])
        .debug_assert();
    }
}
