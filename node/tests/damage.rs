//! Files of a node that were damaged or lost while it was down: it names the file and refuses, or it has everything
//! from elsewhere. It never answers wrongly. What belongs to somebody else is in `foreign_data.rs`.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::fs;
use std::path::{Path, PathBuf};

use arca_harness::trial::{Seen, Trial};

/// Where in a file.
#[derive(Clone, Copy, Debug)]
enum At {
    /// So many bytes after its first.
    Start(usize),
    /// So many thousandths of its size.
    Permille(usize),
    /// So many bytes before its end.
    End(usize),
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Append(&'static [u8]),
    Cut(usize),
    Flip(At),
    Remove,
}

/// What may be seen afterwards.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// A refusal that holds all of these.
    Refused(&'static [&'static str]),
    /// Everything is there.
    Right,
    /// A refusal that holds all of these, or everything is there: where the damage hits decides.
    Honest(&'static [&'static str]),
}

use At::{End, Permille, Start};
use Damage::{Append, Cut, Flip, Remove};
use Want::{Honest, Refused, Right};

/// The largest file or directory whose path holds `part`.
fn find(dir: &Path, part: &str) -> PathBuf {
    fn collect(dir: &Path, found: &mut Vec<(u64, PathBuf)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push((fs::metadata(&path).unwrap().len(), path.clone()));
            if path.is_dir() {
                collect(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    collect(dir, &mut found);
    found.retain(|(_, path)| {
        path.strip_prefix(dir).unwrap().to_str().unwrap().ends_with(part)
            || path.file_name().unwrap().to_str().unwrap().starts_with(part)
    });
    found.into_iter().max().unwrap_or_else(|| panic!("no file of {} is {part}", dir.display())).1
}

fn inflict(damage: Damage, path: &Path) {
    let mut bytes = if path.is_dir() { Vec::new() } else { fs::read(path).unwrap() };
    match damage {
        Append(more) => bytes.extend_from_slice(more),
        Cut(count) => bytes.truncate(bytes.len() - count),
        Flip(at) => {
            let at = match at {
                Start(at) => at,
                Permille(share) => bytes.len() * share / 1_000,
                End(before) => bytes.len() - before,
            };
            bytes[at] ^= 1;
        }
        Remove if path.is_dir() => return fs::remove_dir_all(path).unwrap(),
        Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

/// Damages, starts, looks, and puts everything back; answers what is wrong.
async fn check(trial: &mut Trial, part: &str, damage: Damage, want: Want) -> Option<String> {
    let path = find(&trial.data(), part);
    inflict(damage, &path);
    let seen = trial.start().await.unwrap();
    trial.restore().unwrap();
    let has_all = |text: &str, words: &[&str]| words.iter().all(|word| text.contains(word));
    let is_fine = match (want, &seen) {
        (Refused(words) | Honest(words), Seen::Refused(text)) => has_all(text, words),
        (Right | Honest(_), Seen::Right) => true,
        _ => false,
    };
    println!(
        "{part}, {damage:?}: {}",
        match &seen {
            Seen::Refused(_) => "refused",
            Seen::Right => "right",
            Seen::Wrong(_) => "WRONG",
        }
    );
    (!is_fine).then(|| format!("{part}, {damage:?}: wanted {want:?}, saw {seen:#?}"))
}

async fn check_all(cases: &[(&str, Damage, Want)]) {
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::prepare(env!("CARGO_BIN_EXE_arca"), dir.path()).await.unwrap();
    assert_eq!(trial.start().await.unwrap(), Seen::Right, "undamaged");
    trial.restore().unwrap();
    let mut wrong = Vec::new();
    for (part, damage, want) in cases {
        wrong.extend(check(&mut trial, part, *damage, *want).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A start of the log's own record, cut off: less than a record's frame.
const HALF_A_FRAME: &[u8] = &[1, 1, 1, 0, 40, 0, 0, 0, 77, 0, 0, 0];
/// Room that was made for a batch which never arrived.
const NOTHING: &[u8] = &[0; 2_048];

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_the_log_is_named() {
    check_all(&[
        (".seg", Flip(Start(0)), Refused(&["0000000001.seg", "is not a log segment"])),
        (".seg", Flip(Start(8)), Refused(&["0000000001.seg", "header's checksum"])),
        (".seg", Flip(Start(16)), Refused(&["0000000001.seg", "header's checksum"])),
        (".seg", Flip(Start(95)), Refused(&["0000000001.seg", "header's checksum"])),
        // The first record, its payload, and some in the middle: of entries, and maybe of the vote.
        (".seg", Flip(Start(96)), Refused(&["0000000001.seg", "offset 96, record 0"])),
        (".seg", Flip(Start(140)), Refused(&["0000000001.seg", "record"])),
        (".seg", Flip(Permille(250)), Refused(&["0000000001.seg", "record"])),
        (".seg", Flip(Permille(500)), Refused(&["0000000001.seg", "record"])),
        (".seg", Flip(Permille(750)), Refused(&["0000000001.seg", "record"])),
        (".seg", Flip(End(1)), Refused(&["0000000001.seg", "record"])),
        (".seg", Flip(End(44)), Refused(&["0000000001.seg", "record"])),
        (".seg", Remove, Refused(&["the log is new"])),
        ("raft/log", Remove, Refused(&["the log is new"])),
        // What a crash leaves behind the last acknowledged batch.
        (".seg", Append(HALF_A_FRAME), Right),
        (".seg", Append(NOTHING), Right),
        // Whole bytes of something else are no crash.
        (".seg", Append(&[7; 2_048]), Refused(&["0000000001.seg", "record"])),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_tables_is_named() {
    let mut cases = Vec::new();
    // Data blocks, then filter, index and properties.
    for share in (0..1_000).step_by(40) {
        cases.push((".sst", Flip(Permille(share)), Honest(&[".sst"] as &[&str])));
    }
    for before in [1, 20, 50] {
        cases.push((".sst", Flip(End(before)), Honest(&[".sst"])));
    }
    // Of a table's properties RocksDB may say that the file naming the table is damaged.
    for before in [100, 200, 400, 800] {
        cases.push((".sst", Flip(End(before)), Honest(&["generation-00000001"])));
    }
    cases.push((".sst", Cut(1), Refused(&[".sst"])));
    cases.push((".sst", Remove, Refused(&[".sst"])));
    check_all(&cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_the_bookkeeping_of_tables_is_named() {
    check_all(&[
        ("CURRENT", Flip(Start(0)), Refused(&["CURRENT"])),
        ("CURRENT", Flip(Start(14)), Refused(&["MANIFEST-"])),
        ("CURRENT", Remove, Refused(&["CURRENT", "is missing"])),
        ("MANIFEST-", Flip(Start(0)), Refused(&["MANIFEST-"])),
        ("MANIFEST-", Flip(Permille(200)), Refused(&["MANIFEST-"])),
        ("MANIFEST-", Flip(Permille(500)), Refused(&["MANIFEST-"])),
        // The newest record may pass for one cut short by a crash; the log then replays what it stood for.
        ("MANIFEST-", Flip(Permille(900)), Honest(&["MANIFEST-"])),
        ("MANIFEST-", Flip(End(1)), Honest(&["MANIFEST-"])),
        ("MANIFEST-", Cut(1), Honest(&["MANIFEST-"])),
        ("MANIFEST-", Remove, Refused(&["MANIFEST-"])),
        // Nothing depends on these.
        ("OPTIONS-", Flip(Permille(500)), Right),
        ("IDENTITY", Flip(Start(0)), Right),
        ("LOCK", Remove, Right),
        ("state/live", Flip(Start(0)), Refused(&["state/live"])),
        ("state/live", Flip(Start(24)), Refused(&["state/live"])),
        ("state/live", Flip(End(2)), Refused(&["state/live"])),
        ("state/live", Remove, Refused(&["state/live", "is missing"])),
        ("generation-00000001", Remove, Refused(&["generation-00000001"])),
        // The log has all of it.
        ("raft/state", Remove, Right),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_nodes_identity_is_named() {
    check_all(&[
        ("node.json", Flip(Start(0)), Refused(&["node.json", "is damaged"])),
        ("node.json", Flip(Start(20)), Refused(&["node.json", "is damaged"])),
        ("node.json", Flip(Permille(300)), Refused(&["node.json", "is damaged"])),
        ("node.json", Flip(Permille(600)), Refused(&["node.json", "is damaged"])),
        ("node.json", Flip(End(5)), Refused(&["node.json", "is damaged"])),
        ("node.json", Cut(100), Refused(&["node.json", "is damaged"])),
        ("node.json", Remove, Refused(&["node.json", "is missing"])),
        ("raft/node/node", Flip(Start(0)), Refused(&["raft/node/node", "checksum"])),
        ("raft/node/node", Flip(Permille(500)), Refused(&["raft/node/node", "checksum"])),
        ("raft/node/node", Flip(End(1)), Refused(&["raft/node/node", "checksum"])),
        ("raft/node/node", Cut(3), Refused(&["raft/node/node"])),
        // It repeats the id that node.json holds.
        ("raft/node/node", Remove, Right),
    ])
    .await;
}
