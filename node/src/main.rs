//! `arca`: the server (`arca server`), and the command line for everything else.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use arca_api::TlsOptions;
use arca_cli::External;
use arca_node::config::{self, Config, DevMode};
use arca_node::{audit_verify, dev, dev_certificates, logging, recover, server};
use clap::Parser;

const _: () = assert!(!arca_danger::PLANTED, "a server must not be built with faults that can be planted");

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commands that this binary carries out itself.
const OWN: &[External] = &[
    External { path: &["server"], about: "Run a server" },
    External { path: &["audit", "verify"], about: "Check the hash chain of an audit file" },
];

/// Run a server until it is told to stop (SIGTERM, SIGINT). SIGHUP reads certificates again and reopens log and audit
/// files.
#[derive(Parser)]
#[command(name = "arca server", bin_name = "arca server", after_help = EXAMPLES)]
struct ServerArgs {
    /// Configuration file, HCL or JSON, or a folder of .hcl and .json files. May be given more than once: of a setting
    /// in several files the last one counts. [env: ARCA_CONFIG_PATH, VAULT_CONFIG_PATH]
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Overrides `log_level`: trace, debug, info, warn, error. [env: ARCA_LOG_LEVEL, VAULT_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Overrides `log_format`: standard or json. [env: ARCA_LOG_FORMAT, VAULT_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Overrides `log_file`.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// After a quorum is lost for good: make this stopped node the only member of its cluster, and exit. The value is
    /// this node's node_id, as a confirmation.
    #[arg(long, value_name = "NODE_ID", conflicts_with = "dev")]
    recover_lost_quorum: Option<String>,
    #[command(flatten)]
    dev: DevArgs,
    /// Understood for other servers' sake; nothing is done differently.
    #[arg(long, hide = true)]
    exit_on_core_shutdown: bool,
}

// One node for trying things out. Any flag here but the address and the token means `-dev`.
#[derive(clap::Args)]
#[command(next_help_heading = "Dev options")]
struct DevArgs {
    /// One node in memory, initialized and unsealed: for trying things out, never for production. With -config, its
    /// listener comes before those of the file.
    #[arg(long)]
    dev: bool,
    /// Root token of the dev server; random when absent. [env: ARCA_DEV_ROOT_TOKEN_ID, VAULT_DEV_ROOT_TOKEN_ID]
    #[arg(long, value_name = "TOKEN")]
    dev_root_token_id: Option<String>,
    /// Address of the dev server: 127.0.0.1:8200. [env: ARCA_DEV_LISTEN_ADDRESS, VAULT_DEV_LISTEN_ADDRESS]
    #[arg(long, value_name = "HOST:PORT")]
    dev_listen_address: Option<String>,
    /// Mount nothing at secret/.
    #[arg(long)]
    dev_no_kv: bool,
    /// Mount KV version 1 at secret/, in place of version 2.
    #[arg(long)]
    dev_kv_v1: bool,
    /// Do not store the root token in the command line's token file.
    #[arg(long)]
    dev_no_store_token: bool,
    /// Serve the dev server by TLS, under a CA made for it.
    #[arg(long)]
    dev_tls: bool,
    /// Folder for the CA's certificate, the server's certificate and its key; a temporary one when absent.
    #[arg(long, value_name = "DIR")]
    dev_tls_cert_dir: Option<PathBuf>,
    /// Serve the dev server by TLS with this certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "dev_tls_key_file", conflicts_with = "dev_tls")]
    dev_tls_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "dev_tls_cert_file")]
    dev_tls_key_file: Option<PathBuf>,
    /// Understood for other servers' sake; nothing is done differently.
    #[arg(long, hide = true)]
    dev_ha: bool,
    /// Likewise: every storage here is transactional.
    #[arg(long, hide = true)]
    dev_transactional: bool,
}

impl DevArgs {
    fn is_wanted(&self) -> bool {
        self.dev
            || self.dev_no_kv
            || self.dev_kv_v1
            || self.dev_tls
            || self.dev_tls_cert_file.is_some()
            || self.dev_ha
            || self.dev_transactional
    }
}

const EXAMPLES: &str = "Examples:
  arca server -config=/etc/arca/arca.hcl
  arca server -dev -dev-root-token-id=root";

/// Check the hash chain of an audit file: that no line was changed, removed, added or moved.
#[derive(Parser)]
#[command(name = "arca audit verify", bin_name = "arca audit verify")]
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
    let failed = |text: &dyn std::fmt::Display| {
        eprintln!("arca server: {text}");
        ExitCode::from(1)
    };
    let (config, warnings) = match settings(args, &|name| std::env::var(name).ok()) {
        Ok(found) => found,
        Err(text) => return failed(&text),
    };
    let log = match logging::start(&config) {
        Ok(log) => log,
        Err(text) => return failed(&text),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => return failed(&format!("cannot start the runtime: {err}")),
    };
    if let Some(confirmed) = &args.recover_lost_quorum {
        return match runtime.block_on(recover::alone(&config, confirmed)) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(err) => failed(&err),
        };
    }
    match runtime.block_on(server::run(config, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            tracing::error!("{text}");
            failed(&text)
        }
    }
}

/// Flags first, then the environment (`ARCA_…` before `VAULT_…`), then the files.
fn settings(
    args: &ServerArgs,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<String>), String> {
    let from_env = |name: &str| arca_client::config::find(variable, name).map(|(_, value)| value);
    let mut paths = args.config.clone();
    if paths.is_empty() {
        paths.extend(from_env("CONFIG_PATH").map(PathBuf::from));
    }
    let (mut config, warnings) = if args.dev.is_wanted() {
        dev_settings(&args.dev, &paths, &from_env)?
    } else if paths.is_empty() {
        return Err("-config is missing: name a configuration file, or try -dev".to_owned());
    } else {
        config::load(&paths, None).map_err(|err| err.to_string())?
    };
    if let Some(level) = args.log_level.clone().or_else(|| from_env("LOG_LEVEL")) {
        config::log_level(&level)
            .map_err(|err| format!("-log-level: {err}"))?
            .clone_into(&mut config.log_level);
    }
    if let Some(format) = args.log_format.clone().or_else(|| from_env("LOG_FORMAT")) {
        config.is_log_json = match format.as_str() {
            "json" => true,
            "standard" => false,
            _ => return Err(format!("-log-format: expected standard or json, found {format:?}")),
        };
    }
    if let Some(file) = &args.log_file {
        config.log_file = Some(file.clone());
    }
    Ok((config, warnings))
}

fn dev_settings(
    args: &DevArgs,
    paths: &[PathBuf],
    from_env: &impl Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<String>), String> {
    let address = args.dev_listen_address.clone().or_else(|| from_env("DEV_LISTEN_ADDRESS"));
    let address = address.unwrap_or_else(|| "127.0.0.1:8200".to_owned());
    let mut ca = None;
    let tls = match (&args.dev_tls_cert_file, &args.dev_tls_key_file) {
        (Some(cert_file), Some(key_file)) => Some((cert_file.clone(), key_file.clone())),
        _ if args.dev_tls => {
            let made = dev_certificates::make(args.dev_tls_cert_dir.as_deref(), &address)?;
            ca = Some(made.ca);
            Some((made.certificate, made.key))
        }
        _ => None,
    };
    let tls = tls.map(|(cert_file, key_file)| TlsOptions { cert_file, key_file, ..TlsOptions::default() });
    let listener = dev::listener(&address, tls);
    let (mut config, warnings) = config::load(paths, Some(listener)).map_err(|err| err.to_string())?;
    let mode = DevMode {
        root_token: args.dev_root_token_id.clone().or_else(|| from_env("DEV_ROOT_TOKEN_ID")),
        kv: match (args.dev_no_kv, args.dev_kv_v1) {
            (true, _) => None,
            (false, true) => Some(1),
            (false, false) => Some(2),
        },
        no_store_token: args.dev_no_store_token,
        ca_file: ca,
    };
    dev::adapt(&mut config, mode);
    Ok((config, warnings))
}

#[cfg(test)]
mod tests {
    use arca_node::config::Storage;

    use super::*;

    fn read(words: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let args = ServerArgs::try_parse_from(long_flags(words.iter())).map_err(|err| err.to_string())?;
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        settings(&args, &variable).map(|(config, _)| config)
    }

    #[track_caller]
    fn check_error(words: &str, want: &str) {
        let got = read(words, &[]).map_or_else(|err| err, |_| "accepted".to_owned());
        assert!(got.contains(want), "{words}: {got}");
    }

    #[test]
    fn wrong_flags_say_what_was_expected() {
        check_error("server", "-config is missing");
        check_error("server -dev -log-level=loud", "-log-level: expected trace, debug, info, warn or error");
        check_error("server -dev -log-format=xml", "-log-format: expected standard or json");
        check_error("server -config=/nowhere.hcl", "/nowhere.hcl: cannot be read");
        check_error("server -dev -dev-tls-cert-file=a.pem", "--dev-tls-key-file");
        check_error("server -devv", "unexpected argument");
    }

    #[test]
    fn the_dev_server_is_set_by_flags_and_variables() {
        let config = read("server -dev", &[]).unwrap();
        assert!(matches!(config.storage, Storage::InMemory) && config.disable_mlock);
        assert_eq!((config.api_addr.as_str(), config.listeners.len()), ("http://127.0.0.1:8200", 1));
        let dev = config.dev.unwrap();
        assert_eq!((dev.root_token, dev.kv), (None, Some(2)));

        let vault = [
            ("VAULT_DEV_ROOT_TOKEN_ID", "root"),
            ("VAULT_DEV_LISTEN_ADDRESS", "127.0.0.1:9"),
            ("VAULT_LOG_LEVEL", "err"),
        ];
        let config = read("server -dev", &vault).unwrap();
        assert_eq!((config.api_addr.as_str(), config.log_level.as_str()), ("http://127.0.0.1:9", "error"));
        assert_eq!(config.dev.unwrap().root_token.as_deref(), Some("root"));

        let both = [vault[0], vault[1], ("ARCA_DEV_ROOT_TOKEN_ID", "mine")];
        let config = read("server -dev -dev-listen-address=127.0.0.1:8", &both).unwrap();
        assert_eq!(config.api_addr, "http://127.0.0.1:8");
        assert_eq!(config.dev.unwrap().root_token.as_deref(), Some("mine"));
    }

    #[test]
    fn some_flags_mean_a_dev_server() {
        for (flag, kv) in [
            ("-dev-no-kv", None),
            ("-dev-kv-v1", Some(1)),
            ("-dev-ha", Some(2)),
            ("-dev-transactional", Some(2)),
        ] {
            let config = read(&format!("server {flag}"), &[]).unwrap();
            assert_eq!(config.dev.unwrap().kv, kv, "{flag}");
        }
    }

    #[test]
    fn a_dev_server_makes_its_own_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let config = read(&format!("server -dev-tls -dev-tls-cert-dir={path}"), &[]).unwrap();
        assert_eq!(config.api_addr, "https://127.0.0.1:8200");
        let ca = config.dev.unwrap().ca_file.unwrap();
        assert!(ca.starts_with(dir.path()) && ca.is_file());
        let tls = config.listeners[0].tls.clone().unwrap();
        arca_api::CertificateStore::load(tls).unwrap();
    }

    #[test]
    fn a_dev_server_takes_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.hcl");
        std::fs::write(
            &file,
            "listener \"tcp\" {\n address = \"127.0.0.1:7\"\n tls_disable = true\n}\nlog_level = \"debug\"\n",
        )
        .unwrap();
        let config = read(&format!("server -dev -config={}", file.display()), &[]).unwrap();
        let addresses: Vec<_> = config.listeners.iter().map(|listener| listener.address.as_str()).collect();
        assert_eq!(addresses, ["127.0.0.1:8200", "127.0.0.1:7"]);
        assert_eq!(config.log_level, "debug");
        let from_env = [("VAULT_CONFIG_PATH", dir.path().to_str().unwrap())];
        assert_eq!(read("server -dev", &from_env).unwrap().listeners.len(), 2);
    }
}
