//! `arca debug`: the server's state in one archive, for those who help. Values that may be secret are left out.

use std::path::PathBuf;
use std::time::Duration;

use arca_client::{Client, Request, duration};
use clap::{Args, ValueEnum};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::{AtFile, CliError, Outcome};

/// Collects the server's state into an archive. What the token may not read is left out and named in index.json.
///
/// Example: arca debug -output=debug.tar.gz -duration=2m -interval=30s
#[derive(Args, Debug)]
pub struct Debug {
    /// The archive; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long to collect; 0s takes one sample.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    duration: String,
    /// Time between samples.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    interval: String,
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
    ServerStatus,
}

/// Samples are numbered by three digits.
const SAMPLES_MAX: u64 = 999;

/// What is asked, and under which name it is kept.
const SOURCES: [(Target, &str, &str); 11] = [
    (Target::ServerStatus, "seal_status", "sys/seal-status"),
    (Target::ServerStatus, "leader", "sys/leader"),
    (Target::ServerStatus, "ha_status", "sys/ha-status"),
    (Target::ServerStatus, "key_status", "sys/key-status"),
    (Target::ServerStatus, "in_flight_requests", "sys/in-flight-req"),
    (Target::Config, "config", "sys/config/state/sanitized"),
    (Target::Host, "host_info", "sys/host-info"),
    (Target::Metrics, "metrics", "sys/metrics"),
    (Target::Raft, "raft_configuration", "sys/storage/raft/configuration"),
    (Target::Raft, "raft_autopilot", "sys/storage/raft/autopilot/state"),
    (Target::ReplicationStatus, "replication_status", "sys/replication/status"),
];

impl Debug {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let parse = |text: &str| duration::parse(text).map_err(CliError::Usage);
        let (total, interval) = (parse(&self.duration)?, parse(&self.interval)?.max(Duration::from_secs(1)));
        let samples = 1 + total.as_secs() / interval.as_secs();
        if samples > SAMPLES_MAX {
            return Err(CliError::Usage(format!("{samples} samples are too many; lengthen -interval")));
        }
        let client = context.client()?;
        let output = self.output_path(&client).await;
        let file = std::fs::File::create_new(&output).at_file(&output)?;
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        let mut index = Map::new();
        for sample in 0..samples {
            if sample > 0 {
                tokio::time::sleep(interval).await;
            }
            for (name, result) in self.sample(&client).await {
                let note = match result {
                    Ok(value) => {
                        let text = crate::output::json::pretty(&value);
                        append(&mut archive, &format!("{sample:03}/{name}.json"), &text).at_file(&output)?;
                        Value::from("collected")
                    }
                    Err(err) => Value::from(err.to_string()),
                };
                index.insert(format!("{sample:03}/{name}"), note);
            }
        }
        let address = client.address().map(ToString::to_string);
        let about = json!({"version": env!("CARGO_PKG_VERSION"), "address": address, "samples": index});
        append(&mut archive, "index.json", &crate::output::json::pretty(&about)).at_file(&output)?;
        archive.into_inner().and_then(GzEncoder::finish).at_file(&output)?;
        let missed = index.values().filter(|note| *note != "collected").count();
        if missed > 0 {
            context
                .console
                .note(&format!("Parts that could not be collected: {missed} (index.json says why)."));
        }
        context.success(&format!("The archive is: {}", output.display()))
    }

    /// The archive's name; without one, it is named after the server's clock.
    async fn output_path(&self, client: &Client) -> PathBuf {
        match &self.output {
            Some(path) => path.clone(),
            None => match client.sys().health().await {
                Ok(health) => format!("arca-debug-{}.tar.gz", health.server_time_utc).into(),
                Err(_) => "arca-debug.tar.gz".into(),
            },
        }
    }

    async fn sample(&self, client: &Client) -> Vec<(&'static str, Result<Value, arca_client::Error>)> {
        let is_wanted = |target: Target| self.target.is_empty() || self.target.contains(&target);
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

fn append(archive: &mut tar::Builder<impl std::io::Write>, name: &str, text: &str) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    archive.append_data(&mut header, format!("arca-debug/{name}"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

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
