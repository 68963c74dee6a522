//! One node: its namespace, its disk, its clock, its process, and its files.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arca_harness::{HarnessError, Signal};
use parking_lot::Mutex;

use crate::clock::NodeClock;
use crate::disk::Disk;
use crate::netns::NetNs;
use crate::process::{Launch, Process, describe};

/// A killed process is gone within this, whatever its disk does.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// See the module's header.
#[derive(Debug)]
pub struct Node {
    /// `node_id`, and its folder.
    pub name: String,
    /// Where clients reach it, through a proxy.
    pub client_port: u16,
    /// Its network.
    pub inside: NetNs,
    /// Its disk.
    pub disk: Disk,
    /// Its wall clock.
    pub clock: NodeClock,
    /// Configuration file.
    pub config: PathBuf,
    /// Log file.
    pub log: PathBuf,
    /// How often it was started.
    pub starts: AtomicU32,
    pub(crate) binary: Mutex<PathBuf>,
    pub(crate) process: Mutex<Option<Process>>,
}

type Result<T> = std::result::Result<T, HarnessError>;

impl Node {
    fn failed(&self, doing: &str, err: &io::Error) -> HarnessError {
        HarnessError::new(&format!("{doing} {}", self.name), err)
    }

    /// URL of its API, for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client_port)
    }

    /// What it has logged so far, over all its starts.
    #[must_use]
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Starts its process, sealed. Nothing happens if it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<()> {
        let mut process = self.process.lock();
        if process.as_mut().is_some_and(|process| process.ended().is_none()) {
            return Ok(());
        }
        let launch = Launch {
            program: self.binary.lock().clone(),
            config: self.config.clone(),
            log: self.log.clone(),
            environment: self.clock.environment(),
        };
        let started = Process::start(&launch, &self.inside).map_err(|err| self.failed("starting", &err))?;
        *process = Some(started);
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether its process is there, paused or not.
    pub fn is_running(&self) -> bool {
        self.process.lock().as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// How its process ended, if it did so by itself.
    pub fn end(&self) -> Option<String> {
        self.process.lock().as_mut().and_then(Process::ended).map(describe)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut process = self.process.lock();
        let gone = io::Error::new(io::ErrorKind::NotFound, "it does not run");
        let process = process.as_mut().ok_or_else(|| self.failed("signalling", &gone))?;
        process.signal(signal).map_err(|err| self.failed("signalling", &err))
    }

    /// SIGKILL, and waits until it is gone. Already gone is fine.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn kill(&self) -> Result<()> {
        let Some(mut process) = self.process.lock().take() else { return Ok(()) };
        let _ = process.signal(Signal::KILL);
        process.end(KILL_LIMIT).await.map(drop).map_err(|err| self.failed("killing", &err))
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        let process = self.process.lock().take();
        let gone = io::Error::new(io::ErrorKind::NotFound, "it does not run");
        let mut process = process.ok_or_else(|| self.failed("ending", &gone))?;
        process.signal(Signal::TERM).map_err(|err| self.failed("ending", &err))?;
        process.end(limit).await.map_err(|err| self.failed("ending", &err))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What waits for the disk cannot die.
        self.disk.heal();
        drop(self.process.get_mut().take());
    }
}
