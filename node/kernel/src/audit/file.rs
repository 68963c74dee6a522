//! Lines into a file, appended; also standard output, and nowhere.
//!
//! Not synced: a power loss may take the last lines, as with Vault. Before each batch the path is looked at, so a
//! file that was removed or moved away is opened anew. A batch that arrived in part is cut off again.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::chain::{Chain, LINE_MAX, Start};
use super::device::{Sink, Torn};

/// Takes everything.
pub(super) struct Discard;

impl Sink for Discard {
    fn prepare(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn resume(&mut self) -> Result<Chain, Start> {
        Err(Start::New)
    }

    fn write(&mut self, _lines: &str) -> Result<(), Torn> {
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output.
pub(super) struct Stdout;

impl Sink for Stdout {
    fn prepare(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn resume(&mut self) -> Result<Chain, Start> {
        Err(Start::New)
    }

    fn write(&mut self, lines: &str) -> Result<(), Torn> {
        let mut out = io::stdout().lock();
        out.write_all(lines.as_bytes()).and_then(|()| out.flush()).map_err(Torn::Maybe)
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file.
pub(super) struct FileSink {
    path: PathBuf,
    mode: Option<u32>,
    open: Option<Open>,
}

struct Open {
    file: File,
    identity: (u64, u64),
    /// Nobody else who asks for the lock writes here: only then may a failed batch be cut off, or a chain go on.
    is_ours_alone: bool,
    is_regular: bool,
    /// The end is no line feed, or not known.
    needs_line_feed: bool,
}

impl FileSink {
    /// A file to be opened by [`Sink::prepare`], and made if need be.
    pub(super) fn new(path: &Path, mode: Option<u32>) -> Self {
        Self { path: path.to_owned(), mode, open: None }
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn open(path: &Path, mode: Option<u32>) -> io::Result<Open> {
    if let Ok(found) = std::fs::metadata(path) {
        check(&found)?;
    }
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(mode.unwrap_or(0o600)).open(path)?;
    let found = file.metadata()?;
    check(&found)?;
    let is_regular = found.is_file();
    // A new file too: the umask may have taken bits off.
    if is_regular && let Some(mode) = mode.filter(|mode| found.permissions().mode() & 0o7777 != *mode) {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    let is_ours_alone = is_regular && file.try_lock().is_ok();
    let needs_line_feed = is_regular && !ends_in_line_feed(&file, found.len())?;
    Ok(Open { file, identity: identity(&found), is_ours_alone, is_regular, needs_line_feed })
}

/// Pipes would block, folders cannot be written, and a program must not get lines appended (CVE-2025-6000).
fn check(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::other("the audit file is not a regular file"));
    }
    if kind.is_file() && found.permissions().mode() & 0o7111 != 0 {
        return Err(io::Error::other("the audit file can be executed"));
    }
    Ok(())
}

fn ends_in_line_feed(mut file: &File, len: u64) -> io::Result<bool> {
    let Some(last) = len.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

/// The last whole line, if the file ends in one.
fn last_line(mut file: &File) -> io::Result<Option<String>> {
    let len = file.metadata()?.len();
    let mut span: u64 = 64 << 10;
    loop {
        let start = len.saturating_sub(span);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(len - start).read_to_end(&mut tail)?;
        let Some(text) = tail.strip_suffix(b"\n") else { return Ok(None) };
        let before = text.iter().rposition(|byte| *byte == b'\n');
        if before.is_some() || start == 0 {
            let line = text.get(before.map_or(0, |at| at + 1)..).unwrap_or_default();
            return Ok(String::from_utf8(line.to_vec()).ok());
        }
        if span > LINE_MAX as u64 {
            return Ok(None);
        }
        span *= 8;
    }
}

impl Sink for FileSink {
    fn prepare(&mut self) -> io::Result<bool> {
        let there = std::fs::metadata(&self.path).ok().map(|found| identity(&found));
        let is_moved = self.open.as_ref().is_none_or(|open| Some(open.identity) != there);
        if is_moved {
            self.open = None;
            self.open = Some(open(&self.path, self.mode)?);
        }
        Ok(is_moved)
    }

    fn resume(&mut self) -> Result<Chain, Start> {
        let Some(open) = &self.open else { return Err(Start::Error) };
        if open.is_regular && !open.is_ours_alone {
            return Err(Start::Shared);
        }
        if !open.is_regular || open.file.metadata().is_ok_and(|found| found.len() == 0) {
            return Err(Start::New);
        }
        let line = last_line(&open.file).ok().flatten();
        line.as_deref().and_then(Chain::resume).ok_or(Start::Torn)
    }

    fn write(&mut self, lines: &str) -> Result<(), Torn> {
        let Some(open) = &mut self.open else { return Err(Torn::No(io::ErrorKind::NotConnected.into())) };
        let len = if open.is_ours_alone { open.file.metadata().map_err(Torn::No)?.len() } else { 0 };
        let line_feed = if open.needs_line_feed { "\n" } else { "" };
        let outcome = if line_feed.is_empty() {
            open.file.write_all(lines.as_bytes())
        } else {
            open.file.write_all(format!("{line_feed}{lines}").as_bytes())
        };
        let Err(err) = outcome else {
            open.needs_line_feed = false;
            return Ok(());
        };
        if open.is_ours_alone && open.file.set_len(len).is_ok() {
            return Err(Torn::No(err));
        }
        open.needs_line_feed = open.is_regular;
        Err(Torn::Maybe(err))
    }

    fn reopen(&mut self) -> io::Result<()> {
        // Dropped, so that the lock is free if the path still leads to the same file.
        self.open = None;
        Ok(())
    }
}

impl std::fmt::Debug for FileSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileSink({})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_the_mode_asked_for_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o640, 0o666] {
            let path = dir.path().join(format!("{mode:o}"));
            FileSink::new(&path, Some(mode)).prepare().unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
    }
}
