//! One `arca server` process: started in a network namespace, signalled, waited for.
//! It is killed when it is dropped, paused or not.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use arca_harness::Signal;
use rustix::process::{Pid, kill_process};

use crate::netns::NetNs;

/// How often a process that is about to end is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The binary.
    pub program: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its log goes on.
    pub log: PathBuf,
    /// Variables set for it.
    pub environment: Vec<(String, PathBuf)>,
}

/// See the module's header.
#[derive(Debug)]
pub struct Process {
    child: Child,
    is_paused: bool,
}

impl Process {
    /// Starts one inside a namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(launch: &Launch, inside: &NetNs) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(&launch.log)?;
        let environment = launch.environment.iter().map(|(name, value)| (name.as_str(), value.as_path()));
        let child = inside.run(|| {
            Command::new(&launch.program)
                .arg("server")
                .arg(config_argument(&launch.config))
                .envs(environment)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
        })?;
        Ok(Self { child, is_paused: false })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is stopped by a signal of ours.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the process is gone");
        if self.ended().is_some() {
            return Err(gone());
        }
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        kill_process(id, signal)?;
        match signal {
            Signal::STOP => self.is_paused = true,
            Signal::CONT => self.is_paused = false,
            _ => {}
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn end(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let text = format!("the process still runs after {} s", limit.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The argument that names a configuration file; leftovers are recognised by it.
#[must_use]
pub fn config_argument(config: &Path) -> String {
    format!("-config={}", config.display())
}

/// How a process ended, in words.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
