//! One node with known content, whose files a test damages, removes or exchanges between two starts: does the node
//! refuse, serve everything, or answer wrongly?

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arca_client::{Client, Token};
use serde_json::{Value, json};

use crate::{Cluster, ClusterOptions, HarnessError};

type Result<T> = std::result::Result<T, HarnessError>;

/// Entries whose state is in tables.
const ENTRIES_FLUSHED: usize = 120;
/// Entries after these, which only the log holds.
const ENTRIES_IN_LOG: usize = 40;
/// Bytes of an entry, so that tables have many blocks.
const ENTRY_SIZE: usize = 400;
/// A node that is neither up nor gone after this hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Mount of the entries.
const MOUNT: &str = "plain";

/// How a node took what was done to its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It did not start, or did not serve: what it said, in answers and in its log.
    Refused(String),
    /// Every entry is there and right.
    Right,
    /// It answered as if all was well, and it was not. Never acceptable.
    Wrong(String),
}

/// See the module's header.
#[derive(Debug)]
pub struct Trial {
    /// One node; it runs only inside [`Self::start`].
    pub cluster: Cluster,
    pristine: PathBuf,
    entries: BTreeMap<String, String>,
}

impl Trial {
    /// Makes the node below `dir`, fills it and stops it: first in order, then, after more writes, by SIGKILL.
    ///
    /// # Errors
    /// When any step fails.
    pub async fn prepare(binary: &str, dir: &Path) -> Result<Self> {
        let options = ClusterOptions {
            nodes: 1,
            shares: 1,
            threshold: 1,
            is_tls: false,
            ..ClusterOptions::new(binary, dir)
        };
        let mut cluster = Cluster::start(options)?;
        cluster.bring_up().await?;
        let client = cluster.client(0)?;
        let mounted = client.write(&format!("sys/mounts/{MOUNT}"), &json!({"type": "kv"})).await;
        mounted.map_err(|err| HarnessError::new("mounting", err))?;
        let mut trial = Self { cluster, pristine: dir.join("pristine"), entries: BTreeMap::new() };
        trial.fill(&client, ENTRIES_FLUSHED).await?;
        trial.cluster.terminate(0).await?;
        trial.cluster.launch(0)?;
        trial.cluster.unseal(0).await?;
        trial.cluster.active().await?;
        trial.fill(&trial.cluster.client(0)?, ENTRIES_IN_LOG).await?;
        trial.cluster.kill(0)?;
        copy(&trial.data(), &trial.pristine)?;
        Ok(trial)
    }

    async fn fill(&mut self, client: &Client, count: usize) -> Result<()> {
        for _ in 0..count {
            let number = self.entries.len();
            let (name, value) = (format!("entry-{number:04}"), format!("{number}-").repeat(ENTRY_SIZE / 4));
            let written = client.write(&format!("{MOUNT}/{name}"), &json!({ "value": value })).await;
            written.map_err(|err| HarnessError::new("filling", err))?;
            self.entries.insert(name, value);
        }
        Ok(())
    }

    /// The node's data directory, to be damaged.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.cluster.nodes.first().map(|node| node.data.clone()).unwrap_or_default()
    }

    /// The data directory as it was after the last stop; not to be touched.
    #[must_use]
    pub fn pristine(&self) -> &Path {
        &self.pristine
    }

    /// Puts the data directory back as it was.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn restore(&self) -> Result<()> {
        replace(&self.pristine, &self.data())
    }

    /// Starts the node, unseals it, reads everything, and stops it again.
    ///
    /// # Errors
    /// When it hangs, or the system refuses.
    pub async fn start(&mut self) -> Result<Seen> {
        let before = self.log_text().len();
        self.cluster.launch(0)?;
        let seen = self.look().await;
        self.cluster.nodes.iter_mut().for_each(crate::Node::abandon);
        let seen = seen?;
        let log = self.log_text().split_off(before);
        Ok(match seen {
            Seen::Refused(said) => Seen::Refused(format!("{said}\n{log}")),
            Seen::Right => Seen::Right,
            Seen::Wrong(how) => Seen::Wrong(format!("{how}\n{log}")),
        })
    }

    fn log_text(&self) -> String {
        self.cluster.nodes.first().map(crate::Node::log_text).unwrap_or_default()
    }

    async fn look(&mut self) -> Result<Seen> {
        let client = self.cluster.client(0)?;
        let sys = client.sys();
        let listens = self.until("listen", async || sys.seal_status().await.ok()).await?;
        let Some(status) = listens else { return Ok(Seen::Refused("the process ended".to_owned())) };
        if !status.initialized {
            return Ok(Seen::Wrong("the node takes itself for a new one".to_owned()));
        }
        let share = Token::new(self.cluster.shares.first().cloned().unwrap_or_default());
        if let Err(err) = sys.unseal(&share, false).await {
            return Ok(Seen::Refused(format!("unsealing: {err}")));
        }
        let leads =
            self.until("lead", async || sys.leader().await.ok().filter(|leader| leader.is_self)).await?;
        if leads.is_none() {
            return Ok(Seen::Refused("the process ended".to_owned()));
        }
        Ok(self.read_all(&client).await)
    }

    async fn read_all(&self, client: &Client) -> Seen {
        let mut refused = None;
        for (name, value) in &self.entries {
            match client.read(&format!("{MOUNT}/{name}")).await {
                Ok(Some(secret)) if secret.field("value").and_then(Value::as_str) == Some(value) => {}
                Ok(Some(_)) => return Seen::Wrong(format!("{name} has another value")),
                Ok(None) => return Seen::Wrong(format!("{name} is gone")),
                Err(err) => refused = Some(format!("reading {name}: {err}")),
            }
        }
        match client.list(&format!("{MOUNT}/")).await {
            Ok(names) if names.as_ref().is_some_and(|names| names.iter().eq(self.entries.keys())) => {}
            Ok(names) => return Seen::Wrong(format!("the list is {names:?}")),
            Err(err) => refused = Some(format!("listing: {err}")),
        }
        refused.map_or(Seen::Right, Seen::Refused)
    }

    /// Waits until `check` answers; `None` once the process has ended.
    async fn until<T>(&mut self, what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> Result<Option<T>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check().await {
                return Ok(Some(found));
            }
            if !self.cluster.is_running(0) {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                let log = self.log_text();
                return Err(HarnessError(format!("the node hangs: waited in vain for it to {what}\n{log}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Removes what is at `to`, and copies `from` there: a file or a whole directory.
///
/// # Errors
/// When the system refuses.
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    let removed = if to.is_dir() { fs::remove_dir_all(to) } else { fs::remove_file(to) };
    removed.map_err(|err| HarnessError::new(&format!("removing {}", to.display()), err))?;
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |err: std::io::Error| HarnessError::new(&format!("copying {}", from.display()), err);
    if !from.is_dir() {
        return fs::copy(from, to).map(drop).map_err(failed);
    }
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
