//! `arca`: the server (`arca server`), and the command line for everything else.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use arca_api::TlsOptions;
use arca_cli::External;
use arca_node::config::{self, Config, DevMode};
use arca_node::{audit_verify, dev, logging, recover, server};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commands that this binary carries out itself.
const OWN: &[External] = &[
    External { path: &["server"], about: "Run a server" },
    External { path: &["audit", "verify"], about: "Check the hash chain of an audit file" },
];

/// Run a server until it is told to stop (SIGTERM, SIGINT). SIGHUP reads certificates again and reopens audit files.
#[derive(Parser)]
#[command(name = "arca server", after_help = EXAMPLES)]
struct ServerArgs {
    /// Configuration file, HCL or JSON. May be given more than once only if all but one are empty.
    #[arg(long, value_name = "FILE", required_unless_present = "dev")]
    config: Option<PathBuf>,
    /// Overrides `log_level`: trace, debug, info, warn, error.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Overrides `log_format`: standard or json.
    #[arg(long, value_name = "FORMAT", value_parser = ["standard", "json"])]
    log_format: Option<String>,
    /// Overrides `log_file`.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// After a quorum is lost for good: make this stopped node the only member of its cluster, and exit. The value is
    /// this node's node_id, as a confirmation.
    #[arg(long, value_name = "NODE_ID", conflicts_with = "dev")]
    recover_lost_quorum: Option<String>,
    /// One node in memory, initialized and unsealed: for trying things out, never for production.
    #[arg(long)]
    dev: bool,
    /// Root token of the dev server; random when absent.
    #[arg(long, value_name = "TOKEN", env = "ARCA_DEV_ROOT_TOKEN_ID")]
    dev_root_token_id: Option<String>,
    /// Address of the dev server.
    #[arg(long, value_name = "HOST:PORT", env = "ARCA_DEV_LISTEN_ADDRESS", default_value = "127.0.0.1:8200")]
    dev_listen_address: String,
    /// Do not mount KV version 2 at secret/.
    #[arg(long)]
    dev_no_kv: bool,
    /// Do not store the root token in the command line's token file.
    #[arg(long)]
    dev_no_store_token: bool,
    /// Serve the dev server by TLS with this certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "dev_tls_key_file")]
    dev_tls_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "dev_tls_cert_file")]
    dev_tls_key_file: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  arca server -config=/etc/arca/arca.hcl
  arca server -dev -dev-root-token-id=root";

/// Check the hash chain of an audit file: that no line was changed, removed, added or moved.
#[derive(Parser)]
#[command(name = "arca audit verify")]
struct VerifyArgs {
    /// The file.
    file: PathBuf,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let word = |at: usize| args.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    match (word(1), word(2)) {
        ("server", _) => serve(&ServerArgs::parse_from(long_flags(args.iter().skip(1)))),
        ("audit", "verify") => {
            let VerifyArgs { file } = VerifyArgs::parse_from(long_flags(args.iter().skip(2)));
            audit_verify::run(&file)
        }
        _ => arca_cli::run(args, OWN),
    }
}

/// `-flag` is taken as `--flag`, as everywhere in this command line.
fn long_flags<'a>(args: impl Iterator<Item = &'a OsString>) -> Vec<OsString> {
    args.map(|arg| match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => {
            format!("-{text}").into()
        }
        _ => arg.clone(),
    })
    .collect()
}

fn serve(args: &ServerArgs) -> ExitCode {
    let (config, warnings) = match settings(args) {
        Ok(found) => found,
        Err(text) => {
            eprintln!("arca server: {text}");
            return ExitCode::from(1);
        }
    };
    if let Err(text) = logging::start(&config) {
        eprintln!("arca server: {text}");
        return ExitCode::from(1);
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            eprintln!("arca server: cannot start the runtime: {err}");
            return ExitCode::from(1);
        }
    };
    if let Some(confirmed) = &args.recover_lost_quorum {
        return match runtime.block_on(recover::alone(&config, confirmed)) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(err) => {
                eprintln!("arca server: {err}");
                ExitCode::from(1)
            }
        };
    }
    match runtime.block_on(server::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            tracing::error!("{text}");
            eprintln!("arca server: {text}");
            ExitCode::from(1)
        }
    }
}

fn settings(args: &ServerArgs) -> Result<(Config, Vec<String>), String> {
    let (mut config, warnings) = if args.dev {
        let mode = DevMode {
            root_token: args.dev_root_token_id.clone(),
            no_kv: args.dev_no_kv,
            no_store_token: args.dev_no_store_token,
        };
        let files = args.dev_tls_cert_file.clone().zip(args.dev_tls_key_file.clone());
        let tls =
            files.map(|(cert_file, key_file)| TlsOptions { cert_file, key_file, ..TlsOptions::default() });
        (dev::config(&args.dev_listen_address, mode, tls), Vec::new())
    } else {
        let path = args.config.as_ref().ok_or("-config is missing")?;
        config::load(path).map_err(|err| err.to_string())?
    };
    if let Some(level) = &args.log_level {
        config.log_level.clone_from(level);
    }
    if let Some(format) = &args.log_format {
        config.is_log_json = format == "json";
    }
    if let Some(file) = &args.log_file {
        config.log_file = Some(file.clone());
    }
    Ok((config, warnings))
}
