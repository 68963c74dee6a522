//! Damaged, foreign and missing files: refused by name, or a clean end, and never wrong data.

use super::*;
use crate::testing::CrashPolicy;
use crate::vfs::Vfs as _;

/// Three sealed segments and an open one, everything acknowledged; every state it went
/// through.
fn image(vfs: &ModelVfs) -> Vec<Reference> {
    let mut driver = Driver::new(open(vfs).unwrap(), Reference::default());
    driver.run(&Op::Vote(7)).unwrap();
    for _ in 0..5 {
        driver.run(&Op::Append(vec![300, 0, 410, 90])).unwrap();
        driver.run(&Op::Flush).unwrap();
    }
    driver.run(&Op::Purge(20)).unwrap();
    driver.run(&Op::Commit).unwrap();
    driver.run(&Op::Flush).unwrap();
    driver.run(&Op::Append(vec![33, 70])).unwrap();
    driver.run(&Op::Flush).unwrap();
    let segments = driver.log.segments();
    assert!(segments.len() >= 3 && segments[0].seal.is_some(), "{segments:?}");
    driver.states
}

fn files(vfs: &ModelVfs) -> Vec<PathBuf> {
    vfs.list(Path::new(DIR)).unwrap()
}

#[test]
fn every_flipped_bit_is_refused_by_name() {
    let vfs = ModelVfs::new(3);
    let whole = image(&vfs).pop().unwrap();
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
    let whole = image(&vfs).pop().unwrap();
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
    let states = image(&vfs);
    let last = files(&vfs).pop().unwrap();
    let content = vfs.contents(&last).unwrap();
    let mut seen = 0;
    for len in 0..content.len() {
        let cut = ModelVfs::new(1);
        cut.create_dir_all(Path::new(DIR)).unwrap();
        files(&vfs).iter().for_each(|path| cut.plant(path, &vfs.contents(path).unwrap()));
        cut.plant(&last, &content[..len]);
        if let Ok((log, _writer)) = open(&cut) {
            assert!(states.contains(&Reference::read(&log).unwrap()), "cut at {len}");
            seen += 1;
        }
    }
    assert!(seen > 100, "the last batch may go missing bytewise");
}

/// A sector that reads as zeros is a torn write only at the end; before it, it is a write that got lost.
#[test]
fn a_lost_sector_before_the_last_batch_is_refused() {
    let vfs = ModelVfs::new(3);
    let options = Options::new(DIR, CLUSTER);
    let open = || SegmentLog::open(Arc::new(vfs.clone()), options.clone());
    let mut driver = Driver::new(open().unwrap(), Reference::default());
    for _ in 0..4 {
        driver.run(&Op::Append(vec![700, 300])).unwrap();
        driver.run(&Op::Flush).unwrap();
    }
    let last_batch_at = driver.log.segments()[0].bytes as usize - (1000 + 2 * FRAME_BYTES);
    let before = driver.states[driver.states.len() - 2].clone();
    vfs.crash(CrashPolicy::LosePending);
    let content = vfs.contents(&segment(1)).unwrap();
    for sector in (0..content.len()).step_by(512) {
        let mut lost = content.clone();
        let end = content.len().min(sector + 512);
        // A torn write leaves alone what shares its first sector.
        let start = if end > last_batch_at { sector.max(last_batch_at) } else { sector };
        lost[start..end].fill(0);
        vfs.plant(&segment(1), &lost);
        match open() {
            Ok((log, _writer)) => {
                assert!(end > last_batch_at, "sector at {sector}");
                assert_eq!(Reference::read(&log).unwrap(), before);
            }
            Err(error) => assert!(end <= last_batch_at, "sector at {sector}: {error}"),
        }
    }
}

/// What a power loss tears excuses nothing before it: the batch before was acknowledged, and must not go with the torn one.
#[test]
fn damage_before_a_torn_batch_is_refused() {
    let vfs = ModelVfs::new(3);
    let open = || SegmentLog::open(Arc::new(vfs.clone()), Options::new(DIR, CLUSTER));
    let mut driver = Driver::new(open().unwrap(), Reference::default());
    let mut ends = Vec::new();
    for size in [300, 700, 2_000] {
        driver.run(&Op::Append(vec![size])).unwrap();
        driver.run(&Op::Flush).unwrap();
        ends.push(driver.log.segments()[0].bytes as usize);
    }
    vfs.crash(CrashPolicy::LosePending);
    let mut content = vfs.contents(&segment(1)).unwrap();
    // Of the last batch only its last sectors reached the disk.
    content[ends[1]..ends[1] + 1_500].fill(0);
    let torn = |content: &[u8]| {
        vfs.plant(&segment(1), content);
        open().map(|(log, _)| Reference::read(&log).unwrap())
    };
    assert_eq!(torn(&content).unwrap().entries.len(), 2);
    for offset in ends[0]..ends[1] {
        content[offset] ^= 1 << (offset % 8);
        assert!(torn(&content).is_err(), "offset {offset}");
        content[offset] ^= 1 << (offset % 8);
    }
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

/// Every checksum holds, but the content is not what was sealed.
#[test]
fn a_seal_of_other_content_is_refused() {
    let header = format::Header { number: 1, cluster: CLUSTER, previous: [0; 32] }.encode();
    let sealed = |seen: &[u8]| {
        let start = format::Place { segment: 1, offset: HEADER_BYTES as u64 };
        let mut batch = format::BatchWriter::new(start, 1, Vec::new());
        batch.push(format::Record::vote(Bytes::from_static(b"vote")));
        let mut hasher = blake3::Hasher::new();
        hasher.update(seen);
        let vfs = ModelVfs::new(1);
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.plant(&segment(1), &[header.clone(), batch.finish_sealed(None, hasher).0].concat());
        open(&vfs).map(|(log, _)| log.state().vote)
    };
    assert_eq!(sealed(&header).unwrap(), Some(Bytes::from_static(b"vote")));
    let error = sealed(b"another header").unwrap_err().to_string();
    assert!(error.contains("record 1: the seal does not match the segment's content"), "{error}");
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
        let states = image(&vfs);
        let ever: BTreeMap<_, _> = states.iter().flat_map(|state| state.entries.clone()).collect();
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
            // Records of this very file may be cut off (a purge too), never changed or added.
            for (index, entry) in &read.entries {
                prop_assert_eq!(Some(entry), ever.get(index));
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
