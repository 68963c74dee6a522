//! `arca debug`: the server's state in one archive, for those who help. Values that may be secret are left out.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_client::{Client, Request, duration};
use clap::{Args, ValueEnum};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::{AtFile, CliError, Outcome};

/// Collects the server's state into an archive.
#[derive(Args, Debug)]
#[command(
    after_help = "What the token may not read is left out and named in index.json. Profiles and log lines are not \
collected.\n\n\
Example: arca debug -output=debug.tar.gz -duration=2m -interval=30s"
)]
pub struct Debug {
    /// The archive or folder; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long to collect; 0s takes one sample.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    duration: Duration,
    /// Time between samples.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    interval: Duration,
    /// Time between samples of metrics.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    metrics_interval: Duration,
    /// Pack everything into one archive; -compress=false makes a folder.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    compress: bool,
    /// What to collect; all if not given. May be given several times.
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    target: Vec<Target>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    Config,
    Host,
    Metrics,
    Raft,
    ReplicationStatus,
    Requests,
    ServerStatus,
}

/// Samples are numbered by three digits.
const SAMPLES_MAX: usize = 999;

/// What is asked, and under which name it is kept.
const SOURCES: [(Target, &str, &str); 11] = [
    (Target::ServerStatus, "seal_status", "sys/seal-status"),
    (Target::ServerStatus, "leader", "sys/leader"),
    (Target::ServerStatus, "ha_status", "sys/ha-status"),
    (Target::ServerStatus, "key_status", "sys/key-status"),
    (Target::Requests, "in_flight_requests", "sys/in-flight-req"),
    (Target::Config, "config", "sys/config/state/sanitized"),
    (Target::Host, "host_info", "sys/host-info"),
    (Target::Metrics, "metrics", "sys/metrics"),
    (Target::Raft, "raft_configuration", "sys/storage/raft/configuration"),
    (Target::Raft, "raft_autopilot", "sys/storage/raft/autopilot/state"),
    (Target::ReplicationStatus, "replication_status", "sys/replication/status"),
];

/// What a sample takes: the state of the server, its metrics, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    state: bool,
    metrics: bool,
}

/// What is due when, in seconds from the beginning.
fn schedule(total: Duration, interval: Duration, metrics_interval: Duration) -> BTreeMap<u64, Due> {
    let seconds = |step: Duration| {
        let step = usize::try_from(step.as_secs().max(1)).unwrap_or(usize::MAX);
        // One more than may be taken is enough to see that there are too many.
        (0..=total.as_secs()).step_by(step).take(SAMPLES_MAX + 1)
    };
    let mut due: BTreeMap<u64, Due> = BTreeMap::new();
    seconds(interval).for_each(|second| due.entry(second).or_default().state = true);
    seconds(metrics_interval).for_each(|second| due.entry(second).or_default().metrics = true);
    due
}

impl Debug {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let samples = schedule(self.duration, self.interval, self.metrics_interval);
        if samples.len() > SAMPLES_MAX {
            let message = "these are too many samples; lengthen -interval and -metrics-interval";
            return Err(CliError::Usage(message.into()));
        }
        let client = context.client()?;
        let output = self.output_path(&client).await;
        let mut bundle = Bundle::create(&output, self.compress).at_file(&output)?;
        let mut index = Map::new();
        let mut now = 0;
        for (number, (second, due)) in samples.into_iter().enumerate() {
            tokio::time::sleep(Duration::from_secs(second - now)).await;
            now = second;
            for (name, result) in self.sample(&client, due).await {
                let note = match result {
                    Ok(value) => {
                        let text = crate::output::json::pretty(&value);
                        bundle.add(&format!("{number:03}/{name}.json"), &text).at_file(&output)?;
                        Value::from("collected")
                    }
                    Err(err) => Value::from(err.to_string()),
                };
                index.insert(format!("{number:03}/{name}"), note);
            }
        }
        let address = client.address().map(ToString::to_string);
        let about = json!({"version": env!("CARGO_PKG_VERSION"), "address": address, "samples": index});
        bundle.add("index.json", &crate::output::json::pretty(&about)).at_file(&output)?;
        bundle.finish().at_file(&output)?;
        let missed = index.values().filter(|note| *note != "collected").count();
        if missed > 0 {
            context
                .console
                .note(&format!("Parts that could not be collected: {missed} (index.json says why)."));
        }
        context.success(&format!("Everything is in: {}", output.display()))
    }

    /// The archive's name; without one, it is named after the server's clock.
    async fn output_path(&self, client: &Client) -> PathBuf {
        let end = if self.compress { ".tar.gz" } else { "" };
        match &self.output {
            Some(path) => path.clone(),
            None => match client.sys().health().await {
                Ok(health) => format!("arca-debug-{}{end}", health.server_time_utc).into(),
                Err(_) => format!("arca-debug{end}").into(),
            },
        }
    }

    async fn sample(
        &self,
        client: &Client,
        due: Due,
    ) -> Vec<(&'static str, Result<Value, arca_client::Error>)> {
        let is_wanted = |target: Target| {
            let is_due = if target == Target::Metrics { due.metrics } else { due.state };
            is_due && (self.target.is_empty() || self.target.contains(&target))
        };
        let mut parts = Vec::new();
        if is_wanted(Target::ServerStatus) {
            parts.push(("health", client.sys().health().await.map(|health| json!(health))));
        }
        for (target, name, path) in SOURCES {
            if is_wanted(target) {
                let answer =
                    client.send(Request::get(path)).await.and_then(|response| response.json::<Value>());
                parts.push((name, answer.map(redacted)));
            }
        }
        parts
    }
}

/// Where the parts go. Only its owner may read it.
enum Bundle {
    Archive(Box<tar::Builder<GzEncoder<File>>>),
    Folder(PathBuf),
}

impl Bundle {
    fn create(output: &Path, is_archive: bool) -> io::Result<Self> {
        if !is_archive {
            DirBuilder::new().mode(0o700).create(output)?;
            return Ok(Self::Folder(output.to_owned()));
        }
        let gzip = GzEncoder::new(own_file(output)?, Compression::default());
        Ok(Self::Archive(Box::new(tar::Builder::new(gzip))))
    }

    fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        match self {
            Self::Archive(archive) => {
                let mut header = tar::Header::new_gnu();
                header.set_size(text.len() as u64);
                header.set_mode(0o600);
                header.set_cksum();
                archive.append_data(&mut header, format!("arca-debug/{name}"), text.as_bytes())
            }
            Self::Folder(folder) => {
                let path = folder.join(name);
                DirBuilder::new().mode(0o700).recursive(true).create(path.parent().unwrap_or(folder))?;
                own_file(&path)?.write_all(text.as_bytes())
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Archive(archive) => archive.into_inner().and_then(GzEncoder::finish).map(drop),
            Self::Folder(_) => Ok(()),
        }
    }
}

/// A new file that only its owner may read.
fn own_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Leaves out what may be secret, by its name: the archive goes to strangers.
fn redacted(value: Value) -> Value {
    const SECRET: [&str; 8] =
        ["token", "secret", "password", "passphrase", "credential", "private", "_key", "pin"];
    let is_secret = |key: &str| {
        let key = key.to_ascii_lowercase();
        key == "key"
            || SECRET.iter().any(|word| if *word == "pin" { key == "pin" } else { key.contains(word) })
    };
    match value {
        Value::Object(map) => {
            let clean = |(key, value): (String, Value)| {
                let hide = is_secret(&key) && (value.is_string() || value.is_array());
                let value = if hide { Value::from("(left out)") } else { redacted(value) };
                (key, value)
            };
            Value::Object(map.into_iter().map(clean).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(redacted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_a_rhythm_of_their_own() {
        let seconds = |total, interval, metrics| {
            let due = schedule(
                Duration::from_secs(total),
                Duration::from_secs(interval),
                Duration::from_secs(metrics),
            );
            due.into_iter().map(|(second, due)| (second, due.state, due.metrics)).collect::<Vec<_>>()
        };
        assert_eq!(seconds(0, 30, 10), [(0, true, true)]);
        assert_eq!(seconds(5, 5, 2), [(0, true, true), (2, false, true), (4, false, true), (5, true, false)]);
        assert_eq!(seconds(u64::MAX, 0, 0).len(), SAMPLES_MAX + 1);
    }

    #[test]
    fn a_folder_holds_what_an_archive_would() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("debug");
        let mut bundle = Bundle::create(&folder, false).unwrap();
        bundle.add("000/health.json", "{}").unwrap();
        bundle.add("index.json", "[]").unwrap();
        bundle.finish().unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("000/health.json")).unwrap(), "{}");
        assert!(Bundle::create(&folder, false).is_err(), "it exists already");
    }

    #[test]
    fn secrets_are_left_out_by_name() {
        let config = json!({
            "seals": [{"type": "transit", "config": {"token": "hvs.x", "key_name": "k", "address": "a"}}],
            "listeners": [{"tls_key_file": "/etc/k.pem"}], "Password": "p", "pin": "1", "spinning": 3, "term_keys": 2
        });
        let clean = redacted(config).to_string();
        assert!(!clean.contains("hvs.x") && !clean.contains("\"p\"") && !clean.contains("\"1\""), "{clean}");
        assert!(
            clean.contains("transit") && clean.contains("\"spinning\":3") && clean.contains("term_keys"),
            "{clean}"
        );
    }
}
