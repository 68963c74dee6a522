//! One node of a cluster: where its files are, how its configuration reads, and its process, whether it runs or not.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::HarnessError;

type Result<T> = std::result::Result<T, HarnessError>;

/// Ports are taken from this range: below the one from which the system takes ports for outgoing connections, so that
/// none of these can be lost to a client between two starts of a node.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// One node's place, whether it runs or not.
#[derive(Debug)]
pub struct Node {
    /// `node_id`.
    pub name: String,
    /// API port.
    pub port: u16,
    /// Cluster port.
    pub cluster_port: u16,
    /// Configuration file.
    pub config: PathBuf,
    /// Log file.
    pub log: PathBuf,
    /// Data directory.
    pub data: PathBuf,
    /// Whether its API speaks TLS.
    pub is_tls: bool,
    pub(crate) process: Option<Child>,
}

impl Node {
    /// A node whose files lie in `dir`, on free ports. Its configuration is the caller's to write.
    ///
    /// # Errors
    /// When the directory cannot be made, or no port is free.
    pub fn new(name: &str, dir: &Path, is_tls: bool) -> Result<Self> {
        let data = dir.join("data");
        std::fs::create_dir_all(&data)
            .map_err(|err| HarnessError::new("creating the data directory", err))?;
        Ok(Self {
            name: name.to_owned(),
            port: free_port()?,
            cluster_port: free_port()?,
            config: dir.join("arca.hcl"),
            log: dir.join("arca.log"),
            data,
            is_tls,
            process: None,
        })
    }

    /// URL of its API.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// What it has logged so far, over all its starts.
    #[must_use]
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Starts its process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, binary: &Path) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|err| HarnessError::new("opening the log", err))?;
        let process = Command::new(binary)
            .arg("server")
            .arg(format!("-config={}", self.config.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|err| HarnessError::new(&format!("starting {}", binary.display()), err))?;
        self.process = Some(process);
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or_else(|| HarnessError(format!("{} does not run", self.name)))?;
        kill_process(pid, signal).map_err(|err| HarnessError::new(&format!("signalling {}", self.name), err))
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let process =
                self.process.as_mut().ok_or_else(|| HarnessError(format!("{} does not run", self.name)))?;
            if let Some(status) =
                process.try_wait().map_err(|err| HarnessError::new("waiting for a node", err))?
            {
                self.process = None;
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(HarnessError(format!("{} still runs after {} s", self.name, limit.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills what still runs. Already gone is fine.
    pub fn abandon(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A port that is free now, and that this process gives out once.
///
/// # Errors
/// When none is free.
pub fn free_port() -> Result<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test programs that run side by side begin at different places.
    let first = u16::try_from(std::process::id().wrapping_mul(7_919) % u32::from(count)).unwrap_or_default();
    for _ in 0..count {
        let offset = (u32::from(first) + u32::from(GIVEN.fetch_add(1, Ordering::Relaxed))) % u32::from(count);
        let port = PORTS.start + u16::try_from(offset).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(HarnessError("no port is free".to_owned()))
}
