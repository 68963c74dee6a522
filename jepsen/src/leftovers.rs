//! What a run that was killed leaves behind: node processes, mounts, a database. The next run finds them by its entry in
//! `/run/arca-jepsen` and removes them first. Entries of runs that go on are locked, and left alone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arca_harness::{HarnessError, Signal};
use nix::mount::{MntFlags, umount2};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, kill_process};

use crate::process::config_argument;

const REGISTRY: &str = "/run/arca-jepsen";

/// This run's entry; gone when it is dropped.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    _lock: File,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes what dead runs left, and enters this one, whose files are below `dir`. Answers what was removed, in words.
///
/// # Errors
/// When the registry cannot be read or written.
pub fn enter(dir: &Path) -> Result<(Entry, Vec<String>), HarnessError> {
    let registry = Path::new(REGISTRY);
    let failed = |err: io::Error| HarnessError::new(REGISTRY, err);
    fs::create_dir_all(registry).map_err(failed)?;
    let mut removed = Vec::new();
    for entry in fs::read_dir(registry).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let run = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        removed.extend(run.map(crate::postgres::remove_left).unwrap_or_default());
        let left = PathBuf::from(fs::read_to_string(&path).unwrap_or_default());
        if left.is_absolute() {
            removed.extend(kill_nodes(&left));
            removed.extend(unmount(&left));
        }
        fs::remove_file(&path).map_err(failed)?;
    }
    let path = registry.join(std::process::id().to_string());
    let lock = File::create(&path).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|err| failed(err.into()))?;
    fs::write(&path, dir.as_os_str().as_encoded_bytes()).map_err(failed)?;
    Ok((Entry { path, _lock: lock }, removed))
}

/// Kills the processes whose configuration is below `dir`.
fn kill_nodes(dir: &Path) -> Vec<String> {
    let marker = format!("{}/", config_argument(dir));
    let mut killed = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id =
            process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).and_then(Pid::from_raw);
        let Some(id) = id else { continue };
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_ours = line.split(|byte| *byte == 0).any(|argument| argument.starts_with(marker.as_bytes()));
        if is_ours && kill_process(id, Signal::KILL).is_ok() {
            killed.push(format!("process {}", id.as_raw_nonzero()));
        }
    }
    killed
}

/// Unmounts what is mounted below `dir`, whatever state it is in.
fn unmount(dir: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect();
    found.retain(|mount| mount.starts_with(dir));
    // What is mounted last goes first.
    found.reverse();
    found.retain(|mount| umount2(mount, MntFlags::MNT_DETACH).is_ok());
    found.iter().map(|mount| format!("mount {}", mount.display())).collect()
}
