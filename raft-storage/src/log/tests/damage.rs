//! Damaged, foreign and missing files: refused by name, or a clean end, and never wrong data.

use super::*;
use crate::testing::CrashPolicy;
use crate::vfs::Vfs as _;

/// Three sealed segments and an open one, everything acknowledged; the states at the end and before the last batch.
fn image(vfs: &ModelVfs) -> (Reference, Reference) {
    let mut driver = Driver::new(open(vfs).unwrap(), Reference::default());
    driver.run(&Op::Vote(7)).unwrap();
    for _ in 0..5 {
        driver.run(&Op::Append(vec![300, 0, 410, 90])).unwrap();
        driver.run(&Op::Flush).unwrap();
    }
    driver.run(&Op::Purge(20)).unwrap();
    driver.run(&Op::Commit).unwrap();
    driver.run(&Op::Flush).unwrap();
    let before = driver.states.last().cloned().unwrap();
    driver.run(&Op::Append(vec![33, 70])).unwrap();
    driver.run(&Op::Flush).unwrap();
    let segments = driver.log.segments();
    assert!(segments.len() >= 3 && segments[0].seal.is_some(), "{segments:?}");
    (driver.states.last().cloned().unwrap(), before)
}

fn files(vfs: &ModelVfs) -> Vec<PathBuf> {
    vfs.list(Path::new(DIR)).unwrap()
}

#[test]
fn every_flipped_bit_is_refused_by_name() {
    let vfs = ModelVfs::new(3);
    let (whole, _) = image(&vfs);
    vfs.crash(CrashPolicy::LosePending);
    for path in files(&vfs) {
        let content = vfs.contents(&path).unwrap();
        for offset in 0..content.len() {
            let bit = (offset % 8) as u8;
            assert!(vfs.flip_bit(&path, offset as u64, bit));
            match open(&vfs) {
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains(path.to_str().unwrap()), "offset {offset}: {message}");
                }
                Ok((log, _)) => {
                    panic!("{} offset {offset}: opened as {:?}, not {whole:?}", path.display(), log.state())
                }
            }
            assert!(vfs.flip_bit(&path, offset as u64, bit));
        }
    }
    assert_eq!(Reference::read(&open(&vfs).unwrap().0).unwrap(), whole);
}

#[test]
fn a_bit_flipped_while_open_is_not_served() {
    let vfs = ModelVfs::new(3);
    let (whole, _) = image(&vfs);
    let (log, _writer) = open(&vfs).unwrap();
    for path in files(&vfs) {
        for offset in (0..vfs.contents(&path).unwrap().len()).step_by(3) {
            vfs.flip_bit(&path, offset as u64, 5);
            match Reference::read(&log) {
                Ok(read) => assert_eq!(read, whole),
                Err(LogError::EntryDamaged { file, .. }) => assert_eq!(file, path),
                Err(other) => panic!("{other}"),
            }
            vfs.flip_bit(&path, offset as u64, 5);
        }
    }
}

#[test]
fn a_cut_file_ends_at_a_batch_or_is_refused() {
    let vfs = ModelVfs::new(3);
    let (whole, before) = image(&vfs);
    let last = files(&vfs).pop().unwrap();
    let content = vfs.contents(&last).unwrap();
    let mut is_before_seen = false;
    for len in 0..content.len() {
        let cut = ModelVfs::new(1);
        cut.create_dir_all(Path::new(DIR)).unwrap();
        files(&vfs).iter().for_each(|path| cut.plant(path, &vfs.contents(path).unwrap()));
        cut.plant(&last, &content[..len]);
        if let Ok((log, _writer)) = open(&cut) {
            let read = Reference::read(&log).unwrap();
            assert!(
                whole
                    .entries
                    .iter()
                    .zip(&read.entries)
                    .all(|(whole, read)| whole.1.1 == read.1.1 || read.0 < whole.0)
            );
            is_before_seen |= read == before;
        }
    }
    assert!(is_before_seen);
}

/// Writes the file of a fresh log changed by `change`, and expects the error to say `want`.
fn check(change: impl FnOnce(&ModelVfs), want: &str) {
    let vfs = ModelVfs::new(3);
    image(&vfs);
    vfs.crash(CrashPolicy::LosePending);
    change(&vfs);
    let error = open(&vfs).expect_err("must not open").to_string();
    assert!(error.contains(want), "got {error:?}, want {want:?}");
}

#[test]
fn foreign_missing_and_newer_files_are_named() {
    let other = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
    check(
        |vfs| {
            let header = format::Header { number: 2, cluster: ClusterId([0xcd; 16]), previous: [0; 32] };
            vfs.plant(&segment(2), &header.encode());
        },
        &format!("/data/log/0000000002.seg belongs to cluster {other}"),
    );
    check(|vfs| vfs.remove(&segment(2)).unwrap(), "segment /data/log/0000000002.seg is missing");
    check(
        |vfs| files(vfs).iter().take(2).for_each(|path| vfs.remove(path).unwrap()),
        "segment /data/log/0000000002.seg is missing",
    );
    check(|vfs| vfs.plant(&Path::new(DIR).join("IDENTITY"), b"x"), "/data/log/IDENTITY is not a log segment");
    check(
        |vfs| vfs.plant(&segment(1), b"SQLite format 3\0"),
        "/data/log/0000000001.seg is not a log segment",
    );
    check(
        |vfs| {
            let mut bytes = vfs.contents(&segment(1)).unwrap();
            bytes[7] = 9;
            vfs.plant(&segment(1), &bytes);
        },
        "/data/log/0000000001.seg has format version 9, newer than 1",
    );
    check(
        |vfs| {
            let other = ModelVfs::new(9);
            image(&other);
            let mut driver = Driver::new(open(&other).unwrap(), Reference::default());
            driver.log.save_vote(Bytes::from_static(b"another history"), ignore()).unwrap();
            driver.writer.flush();
            let mut bytes = vfs.contents(&segment(2)).unwrap();
            bytes.truncate(100);
            vfs.plant(&segment(2), &bytes);
        },
        "/data/log/0000000002.seg is damaged at offset 96, record 0",
    );
}

#[test]
fn a_segment_of_another_history_breaks_the_chain() {
    let (vfs, other) = (ModelVfs::new(3), ModelVfs::new(4));
    image(&vfs);
    let mut driver = Driver::new(open(&other).unwrap(), Reference::default());
    for _ in 0..5 {
        driver.run(&Op::Append(vec![299, 0, 410, 91])).unwrap();
        driver.run(&Op::Flush).unwrap();
    }
    vfs.crash(CrashPolicy::LosePending);
    vfs.plant(&segment(2), &other.contents(&segment(2)).unwrap());
    let error = open(&vfs).unwrap_err().to_string();
    assert!(
        error.contains("0000000002.seg is damaged at offset 0, record 0: the hash chain is broken"),
        "{error}"
    );
}

fn piece() -> impl Strategy<Value = (usize, usize, usize)> {
    (any::<usize>(), any::<usize>(), 0..600_usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The parser's fuzz target on stable Rust: a real file with pieces copied over others, cut or drawn out.
    #[test]
    fn the_parser_takes_anything(pieces in prop::collection::vec(piece(), 1..6), noise in any::<Vec<u8>>(), cut in any::<usize>()) {
        let vfs = ModelVfs::new(3);
        let (whole, _) = image(&vfs);
        vfs.crash(CrashPolicy::LosePending);
        let last = files(&vfs).pop().unwrap();
        let mut bytes = vfs.contents(&last).unwrap();
        for (from, to, len) in pieces {
            let source = if from % 5 == 0 { noise.clone() } else { bytes.clone() };
            let from = from % (source.len() + 1);
            let piece = source[from..source.len().min(from + len)].to_vec();
            let at = to % (bytes.len() + 1);
            bytes.splice(at..bytes.len().min(at + piece.len()), piece);
        }
        bytes.truncate(bytes.len() - cut % 50);
        vfs.plant(&last, &bytes);
        if let Ok((log, _writer)) = open(&vfs) {
            let read = Reference::read(&log).unwrap();
            // Records of this very file may be cut off, never changed or added.
            for (index, entry) in &read.entries {
                prop_assert_eq!(Some(entry), whole.entries.get(index));
            }
        }
    }

    #[test]
    fn noise_is_no_segment(bytes in any::<Vec<u8>>()) {
        let vfs = ModelVfs::new(1);
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.plant(&segment(1), &bytes);
        prop_assert!(open(&vfs).is_err());
    }
}
