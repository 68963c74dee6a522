//! `arca operator raft snapshot`: the cluster's state in one file. A file that was saved has been checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use arca_client::raft::Restore;
use clap::{Args, Subcommand};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::error::{AtFile, CliError, Doing, Outcome};
use crate::output::table;

/// Saves, restores and inspects snapshots.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arca operator raft snapshot save backup.snap\n  \
arca operator raft snapshot inspect backup.snap\n  arca operator raft snapshot restore backup.snap")]
pub enum Snapshot {
    /// Save a snapshot into a file
    Save(Save),
    /// Bring the cluster back to a snapshot
    Restore(RestoreFile),
    /// Check a snapshot and show what is in it
    Inspect(Inspect),
}

/// Saves a snapshot.
#[derive(Args, Debug)]
#[command(after_help = "The file appears under its name only when it is complete and checked.")]
pub struct Save {
    /// Where to save it.
    file: PathBuf,
}

/// Brings the cluster back to a snapshot.
#[derive(Args, Debug)]
#[command(after_help = "All that came after it is lost.")]
pub struct RestoreFile {
    /// Take a snapshot of another cluster, too; its shares unseal then.
    #[arg(long)]
    force: bool,
    /// The snapshot.
    file: PathBuf,
}

/// Checks a snapshot and shows what is in it.
#[derive(Args, Debug)]
#[command(after_help = "No server is asked.")]
pub struct Inspect {
    /// The snapshot.
    file: PathBuf,
}

impl Snapshot {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Save(Save { file }) => save(context, &file).await,
            Self::Restore(RestoreFile { force, file }) => {
                // Half a file would be found out by the server only after it was sent.
                check(&file)?;
                let restore = if force { Restore::Forced } else { Restore::Checked };
                let client = context.client()?;
                let restored = client.sys().raft_restore(&file, restore).await;
                restored.doing(|| format!("restore {}", file.display()))?;
                context.success(&format!("The cluster is back at: {}", file.display()))
            }
            Self::Inspect(Inspect { file }) => inspect(context, &file),
        }
    }
}

async fn save(context: &mut Context<'_>, file: &Path) -> Outcome {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A temporary file is readable by its owner only; the snapshot holds everything, if sealed.
    let partial = tempfile::NamedTempFile::new_in(folder).at_file(folder)?;
    let client = context.client()?;
    let mut out = tokio::fs::File::from_std(partial.reopen().at_file(file)?);
    let bytes = client.sys().raft_snapshot(&mut out).await.doing(|| "take a snapshot".to_owned())?;
    out.sync_all().await.at_file(file)?;
    drop(out);
    check(partial.path())?;
    partial.persist(file).map_err(|err| err.error).at_file(file)?;
    context.success(&format!("{bytes} bytes are saved in: {}", file.display()))
}

/// What is in a snapshot.
struct Contents {
    meta: Value,
    /// Sizes by name.
    files: BTreeMap<String, u64>,
}

fn check(file: &Path) -> Result<Contents, CliError> {
    read(file).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            CliError::File { path: file.into(), source: err }
        }
        _ => CliError::Server(format!("{} is not a whole snapshot: {err}", file.display())),
    })
}

/// Reads the archive through and compares every checksum it lists.
fn read(file: &Path) -> io::Result<Contents> {
    const META_BYTES_MAX: u64 = 16 << 20;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(file)?)));
    let (mut meta, mut sums) = (Value::Null, String::new());
    let (mut files, mut digests) = (BTreeMap::new(), BTreeMap::new());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut hasher = Hashing { inner: &mut entry, hasher: Sha256::new() };
        match name.as_str() {
            "meta.json" => {
                let mut text = Vec::new();
                hasher.by_ref().take(META_BYTES_MAX).read_to_end(&mut text)?;
                meta = serde_json::from_slice(&text)?;
            }
            "SHA256SUMS" => drop(hasher.by_ref().take(META_BYTES_MAX).read_to_string(&mut sums)?),
            _ => drop(io::copy(&mut hasher, &mut io::sink())?),
        }
        digests.insert(name.clone(), hex::encode(hasher.hasher.finalize()));
        files.insert(name, entry.size());
    }
    let broken = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    if sums.is_empty() {
        return Err(broken("SHA256SUMS is missing".into()));
    }
    for line in sums.lines().filter(|line| !line.trim().is_empty()) {
        let (sum, name) =
            line.split_once(char::is_whitespace).ok_or_else(|| broken("SHA256SUMS is damaged".into()))?;
        let name = name.trim().trim_start_matches('*');
        match digests.get(name) {
            None => return Err(broken(format!("{name} is missing"))),
            Some(found) if found != sum => return Err(broken(format!("the checksum of {name} is wrong"))),
            Some(_) => {}
        }
    }
    Ok(Contents { meta, files })
}

/// Hashes what passes through.
struct Hashing<'a, R> {
    inner: &'a mut R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.update(buf.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn inspect(context: &mut Context<'_>, file: &Path) -> Outcome {
    let contents = check(file)?;
    let mut rows = Vec::new();
    for (key, value) in contents.meta.as_object().into_iter().flatten() {
        rows.push((key.clone(), table::plain(value)));
    }
    for (name, size) in &contents.files {
        rows.push((name.clone(), format!("{size} bytes")));
    }
    context.pairs(&json!({"meta": contents.meta, "files": contents.files}), rows)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn snapshot(sums: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gzip = flate2::write::GzEncoder::new(file.reopen().unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, text) in [("meta.json", r#"{"Index":7}"#), ("state.bin", "state"), ("SHA256SUMS", sums)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
        file
    }

    fn sum(text: &str) -> String {
        hex::encode(Sha256::digest(text))
    }

    #[track_caller]
    fn check_says(sums: &str, want: &str) {
        let got =
            read(snapshot(sums).path()).map_or_else(|err| err.to_string(), |found| found.meta.to_string());
        assert_eq!(got, want);
    }

    #[test]
    fn checksums_decide() {
        let good = format!("{}  meta.json\n{}  state.bin\n", sum(r#"{"Index":7}"#), sum("state"));
        check_says(&good, r#"{"Index":7}"#);
        check_says(&format!("{}  state.bin\n", sum("other")), "the checksum of state.bin is wrong");
        check_says(&format!("{}  gone.bin\n", sum("other")), "gone.bin is missing");
        check_says("", "SHA256SUMS is missing");
    }

    #[test]
    fn half_a_file_is_refused() {
        let whole = snapshot(&format!("{}  state.bin\n", sum("state")));
        let bytes = std::fs::read(whole.path()).unwrap();
        std::fs::write(whole.path(), &bytes[..bytes.len() / 2]).unwrap();
        assert!(read(whole.path()).is_err());
    }
}
