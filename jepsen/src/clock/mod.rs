//! Wall clocks that are wrong, one for each node, to be set while the node runs.
//!
//! The server has no hook for it, and needs none: it asks libc for the time, and a small library loaded before it
//! (`offset.c`) answers with an offset that this process keeps in a file. The binary under test stays the one that is
//! shipped. A time namespace would not do: it moves the monotonic clock alone, and only for processes yet to start.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use arca_harness::HarnessError;

const SOURCE: &str = include_str!("offset.c");

/// The library, built for this run.
#[derive(Clone, Debug)]
pub struct ClockLibrary {
    path: PathBuf,
}

impl ClockLibrary {
    /// Builds it in `dir` with the system's C compiler (`CC`, or `cc`).
    ///
    /// # Errors
    /// When there is no compiler, or it fails.
    pub fn build(dir: &Path) -> Result<Self, HarnessError> {
        let failed = |err: &dyn std::fmt::Display| HarnessError::new("building the clock library", err);
        let (source, path) = (dir.join("offset.c"), dir.join("offset.so"));
        fs::write(&source, SOURCE).map_err(|err| failed(&err))?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(&compiler)
            .args(["-O2", "-fPIC", "-shared", "-Wall", "-o"])
            .args([&path, &source])
            .arg("-ldl")
            .output()
            .map_err(|err| failed(&format!("{}: {err}", compiler.display())))?;
        if !built.status.success() {
            return Err(failed(&String::from_utf8_lossy(&built.stderr)));
        }
        Ok(Self { path })
    }

    /// A clock that is right for now, kept in `file`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn clock(&self, file: PathBuf) -> io::Result<NodeClock> {
        let clock = NodeClock { library: Some(self.path.clone()), file };
        clock.set_offset_millis(0)?;
        Ok(clock)
    }
}

/// One node's wall clock.
#[derive(Clone, Debug)]
pub struct NodeClock {
    /// None: it is the system's, whatever it is set to.
    library: Option<PathBuf>,
    file: PathBuf,
}

impl NodeClock {
    /// The system's clock, which nothing sets wrong: `file` is not read by anybody.
    #[must_use]
    pub const fn right(file: PathBuf) -> Self {
        Self { library: None, file }
    }

    /// The variables its process is started with.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, PathBuf)> {
        let Some(library) = &self.library else { return Vec::new() };
        vec![("LD_PRELOAD".to_owned(), library.clone()), ("ARCA_JEPSEN_CLOCK".to_owned(), self.file.clone())]
    }

    /// Sets how far it is ahead of the system's clock (behind, if negative), from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_offset_millis(&self, millis: i64) -> io::Result<()> {
        // In place, in one write: the file is mapped by the process.
        let mut file = fs::File::options().create(true).truncate(false).write(true).open(&self.file)?;
        file.write_all(&millis.saturating_mul(1_000_000).to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_the_offset_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ClockLibrary::build(dir.path()).unwrap().clock(dir.path().join("clock")).unwrap();
        let seen = || {
            let output = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap().stdout;
            String::from_utf8(output).unwrap().trim().parse::<i64>().unwrap()
        };
        let before = seen();
        clock.set_offset_millis(-3_600_000).unwrap();
        let behind = seen();
        clock.set_offset_millis(86_400_000).unwrap();
        let ahead = seen();
        // The machine may pause for a while between the three; an hour it does not.
        assert!((-3_600..0).contains(&(behind - before)), "{before} {behind}");
        assert!((86_400..90_000).contains(&(ahead - before)), "{before} {ahead}");
    }
}
