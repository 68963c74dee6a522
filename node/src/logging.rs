//! The server's log: one line an event, on standard error or in a file, as text or JSON. Never a secret: spans and
//! fields name ids, paths, indexes and counts.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::Config;

/// Starts logging.
///
/// # Errors
/// When the log file cannot be opened, or logging was started before.
pub fn start(config: &Config) -> Result<(), String> {
    // The libraries below speak up only when something is wrong.
    let level = &config.log_level;
    let filter = EnvFilter::new(format!("warn,arca={level},{}", own_crates(level)));
    let writer = match &config.log_file {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)
                .map_err(|err| format!("log_file {}: {err}", path.display()))?;
            BoxMakeWriter::new(Mutex::new(file))
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let started = if config.is_log_json { builder.json().try_init() } else { builder.try_init() };
    started.map_err(|err| err.to_string())
}

fn own_crates(level: &str) -> String {
    ["arca_api", "arca_engines", "arca_kernel", "arca_node", "arca_raft_storage", "arca_rpc"]
        .map(|name| format!("{name}={level}"))
        .join(",")
}
