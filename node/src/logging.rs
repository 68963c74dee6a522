//! The server's log: one line an event, on standard error or in a file, as text or JSON. Never a secret: spans and
//! fields name ids, paths, indexes and counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::Config;

/// The log that was started.
#[derive(Clone, Debug, Default)]
pub struct Log {
    file: Option<Arc<LogFile>>,
}

impl Log {
    /// Opens the log file anew, after it was moved away. On an error the old one stays in use.
    pub fn reopen(&self) {
        let Some(file) = &self.file else { return };
        match file.reopen() {
            Ok(()) => tracing::info!("log file opened anew"),
            Err(err) => tracing::error!(error = %err, "the old log file stays in use"),
        }
    }
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    current: Mutex<File>,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let current = Mutex::new(Self::append_to(&path)?);
        Ok(Self { path, current })
    }

    fn append_to(path: &PathBuf) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)
    }

    fn reopen(&self) -> io::Result<()> {
        let file = Self::append_to(&self.path)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

/// One event's way into the file.
struct Line(Arc<LogFile>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An event is one write, so lines do not mix.
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// Starts logging.
///
/// # Errors
/// When the log file cannot be opened, or logging was started before.
pub fn start(config: &Config) -> Result<Log, String> {
    // The libraries below speak up only when something is wrong. openraft warns of every message to a member that is
    // gone; `arca_raft_storage` tells that once.
    let level = &config.log_level;
    let filter = EnvFilter::new(format!("warn,openraft=error,arca={level},{}", own_crates(level)));
    let mut log = Log::default();
    let writer = match &config.log_file {
        None => BoxMakeWriter::new(io::stderr),
        Some(path) => {
            let file =
                LogFile::open(path.clone()).map_err(|err| format!("log_file {}: {err}", path.display()))?;
            let file = Arc::new(file);
            log.file = Some(Arc::clone(&file));
            BoxMakeWriter::new(move || Line(Arc::clone(&file)))
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let started = if config.is_log_json { builder.json().try_init() } else { builder.try_init() };
    started.map(|()| log).map_err(|err| err.to_string())
}

fn own_crates(level: &str) -> String {
    ["arca_api", "arca_engines", "arca_kernel", "arca_node", "arca_raft_storage", "arca_rpc"]
        .map(|name| format!("{name}={level}"))
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_that_was_moved_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let file = Arc::new(LogFile::open(path.clone()).unwrap());
        let write = |text: &str| Line(Arc::clone(&file)).write_all(text.as_bytes()).unwrap();
        write("one\n");
        std::fs::rename(&path, &moved).unwrap();
        write("two\n");
        file.reopen().unwrap();
        write("three\n");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        std::fs::rename(dir.path(), dir.path().with_extension("gone")).unwrap();
        assert!(file.reopen().is_err());
        write("four\n");
        std::fs::rename(dir.path().with_extension("gone"), dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\nfour\n");
    }
}
