//! One contract, two stores: what the model answers, RocksDB answers. And what only files can do to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn rocks(dir: &Path) -> RocksHome {
    // A small memtable, so that tables are written and compacted too.
    let options = RocksOptions { memtable_bytes: 64 << 10, ..RocksOptions::default() };
    RocksHome::new(dir.join("state"), options)
}

fn put(key: &str, value: &str) -> Batch {
    Batch { changes: vec![(key.into(), Some(value.into()))] }
}

fn entries(snapshot: &dyn KvSnapshot) -> Entries {
    let mut found = Entries::new();
    let mut visitor = |key: &[u8], value: &[u8]| {
        found.insert(key.to_vec(), value.to_vec());
        Visit::Next
    };
    snapshot.visit(&[], None, &mut visitor).unwrap();
    found
}

#[derive(Clone, Debug)]
enum Op {
    /// Reopens after losing what was not flushed. The seed is the model's.
    Crash(u64),
    /// Fills a draft, then promotes or drops it.
    Draft(Batch, bool),
    Flush,
    Get(Vec<u8>),
    Snapshot,
    /// Scans a range; at each key whose last byte is below the number, seeks past it.
    Visit(Vec<u8>, Option<Vec<u8>>, u8),
    Write(Batch),
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0u8..3, 0..5)
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..300));
    proptest::collection::vec((any_key(), value), 0..8).prop_map(|changes| Batch { changes })
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => any::<u64>().prop_map(Op::Crash),
        1 => (any_batch(), any::<bool>()).prop_map(|(batch, is_promoted)| Op::Draft(batch, is_promoted)),
        1 => Just(Op::Flush),
        4 => any_key().prop_map(Op::Get),
        1 => Just(Op::Snapshot),
        3 => (any_key(), proptest::option::of(any_key()), 0u8..3).prop_map(|(a, b, c)| Op::Visit(a, b, c)),
        6 => any_batch().prop_map(Op::Write),
    ]
}

fn visited(snapshot: &dyn KvSnapshot, start: &[u8], end: Option<&[u8]>, skip: u8) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut visitor = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        match key.last() {
            Some(last) if *last < skip => Visit::Seek([key, &[1]].concat()),
            Some(last) if *last == skip => Visit::Seek(vec![]),
            _ if keys.len() > 20 => Visit::Stop,
            _ => Visit::Next,
        }
    };
    snapshot.visit(start, end, &mut visitor).unwrap();
    keys
}

/// Both stores under the same script. A crash of RocksDB, which may have flushed by itself, must leave some prefix of
/// the batches since the last flush; the model is then made to hold that prefix.
struct Pair {
    rocks_home: RocksHome,
    rocks: Arc<dyn Kv>,
    model_home: ModelHome,
    model: Arc<dyn Kv>,
    snapshots: Vec<(Arc<dyn KvSnapshot>, Arc<dyn KvSnapshot>)>,
    /// States since the last flush, that one included.
    states: Vec<Entries>,
}

impl Pair {
    fn new(dir: &Path) -> Self {
        let (rocks_home, model_home) = (rocks(dir), ModelHome::new());
        let (rocks, model) = (rocks_home.open().unwrap(), model_home.open().unwrap());
        Self { rocks_home, rocks, model_home, model, snapshots: vec![], states: vec![Entries::new()] }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Crash(seed) => self.crash(seed),
            Op::Draft(batch, is_promoted) => self.draft(&batch, is_promoted),
            Op::Flush => {
                self.rocks.flush().unwrap();
                self.model.flush().unwrap();
                self.states = vec![entries(self.model.snapshot().as_ref())];
            }
            Op::Get(key) => {
                assert_eq!(self.rocks.get(&key).unwrap(), self.model.get(&key).unwrap());
                for (rocks, model) in &self.snapshots {
                    assert_eq!(rocks.get(&key).unwrap(), model.get(&key).unwrap());
                }
            }
            Op::Snapshot => self.snapshots.push((self.rocks.snapshot(), self.model.snapshot())),
            Op::Visit(start, end, skip) => {
                let now = (self.rocks.snapshot(), self.model.snapshot());
                for (rocks, model) in self.snapshots.iter().chain([&now]) {
                    let rocks = visited(rocks.as_ref(), &start, end.as_deref(), skip);
                    assert_eq!(rocks, visited(model.as_ref(), &start, end.as_deref(), skip));
                }
            }
            Op::Write(batch) => {
                self.rocks.write(batch.clone()).unwrap();
                self.model.write(batch).unwrap();
                self.states.push(entries(self.model.snapshot().as_ref()));
            }
        }
    }

    fn draft(&mut self, batch: &Batch, is_promoted: bool) {
        let (rocks, model) = (self.rocks_home.draft().unwrap(), self.model_home.draft().unwrap());
        rocks.kv().write(batch.clone()).unwrap();
        model.kv().write(batch.clone()).unwrap();
        if is_promoted {
            self.rocks = rocks.promote().unwrap();
            self.model = model.promote().unwrap();
            self.states = vec![entries(self.model.snapshot().as_ref())];
        }
    }

    fn crash(&mut self, seed: u64) {
        self.snapshots.clear();
        // RocksDB keeps its lock until the last handle is gone.
        self.rocks = Arc::new(ModelKv::new());
        self.rocks = self.rocks_home.open().unwrap();
        let survived = entries(self.rocks.snapshot().as_ref());
        assert!(self.states.contains(&survived), "RocksDB kept something else than a prefix");

        self.model_home.crash(seed);
        self.model = self.model_home.open().unwrap();
        let modelled = entries(self.model.snapshot().as_ref());
        assert!(self.states.contains(&modelled), "the model kept something else than a prefix");

        let mut changes: Vec<_> = modelled.into_keys().map(|key| (key, None)).collect();
        changes.extend(survived.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        self.model.write(Batch { changes }).unwrap();
        self.model.flush().unwrap();
        self.states = vec![survived];
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn model_and_rocksdb_agree(ops in proptest::collection::vec(any_op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(dir.path());
        for op in ops {
            pair.run(op);
        }
    }
}

#[test]
fn a_crash_of_rocksdb_loses_what_was_not_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let home = rocks(dir.path());
    let kv = home.open().unwrap();
    kv.write(put("kept", "1")).unwrap();
    kv.flush().unwrap();
    kv.write(put("lost", "1")).unwrap();
    drop(kv);
    let kv = home.open().unwrap();
    assert_eq!(kv.get(b"kept").unwrap(), Some(b"1".to_vec()));
    assert_eq!(kv.get(b"lost").unwrap(), None);
}

#[test]
fn every_prefix_survives_some_crash_of_the_model() {
    let kv = ModelKv::new();
    kv.write(put("a", "0")).unwrap();
    kv.flush().unwrap();
    for batch in 1..4 {
        kv.write(put("a", &batch.to_string())).unwrap();
    }
    let mut left: Vec<_> = (0..64).filter_map(|seed| kv.crashed(seed).get(b"a").unwrap()).collect();
    left.sort();
    left.dedup();
    assert_eq!(left, [b"0", b"1", b"2", b"3"]);
}

#[test]
fn the_model_drops_versions_nobody_sees() {
    let kv = ModelKv::new();
    let snapshot = kv.snapshot();
    for round in 0..10 {
        kv.write(put("a", &round.to_string())).unwrap();
    }
    kv.write(Batch { changes: vec![(b"a".to_vec(), None)] }).unwrap();
    assert_eq!(snapshot.get(b"a").unwrap(), None);
    drop(snapshot);
    kv.write(Batch::default()).unwrap();
    assert_eq!(format!("{kv:?}"), "ModelKv { keys: 0, .. }");
}

#[test]
fn a_full_model_refuses() {
    let kv = ModelKv::new();
    kv.set_full(true);
    assert!(matches!(kv.write(put("a", "1")), Err(KvError::Full)));
    assert!(matches!(kv.flush(), Err(KvError::Full)));
    kv.set_full(false);
    kv.write(put("a", "1")).unwrap();
}

#[test]
fn nobody_else_may_read_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let kv = rocks(dir.path()).open().unwrap();
    kv.write(put("a", "1")).unwrap();
    kv.flush().unwrap();
    let mut seen = 0;
    for path in files(dir.path().join("state").as_path()) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        seen += 1;
    }
    assert!(seen > 5);
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Opens what is in `dir`, and reads all of it.
fn reopened(dir: &Path) -> Result<Entries, KvError> {
    let kv = rocks(dir).open()?;
    let mut found = Entries::new();
    let mut visitor = |key: &[u8], value: &[u8]| {
        found.insert(key.to_vec(), value.to_vec());
        Visit::Next
    };
    kv.snapshot().visit(&[], None, &mut visitor)?;
    Ok(found)
}

fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        if path.is_dir() {
            fs::create_dir_all(target).unwrap()
        } else {
            fs::copy(path, target).map(drop).unwrap()
        }
    }
}

/// One flipped bit in each file: named and refused, or without meaning; never a wrong answer.
#[test]
fn a_flipped_bit_is_found() {
    let original = tempfile::tempdir().unwrap();
    let kv = rocks(original.path()).open().unwrap();
    for number in 0..400 {
        kv.write(put(&format!("key-{number}"), &"v".repeat(100))).unwrap();
    }
    kv.flush().unwrap();
    let expected = entries(kv.snapshot().as_ref());
    drop(kv);
    let mut refused = std::collections::BTreeSet::new();
    for path in files(original.path()).into_iter().filter(|path| path.is_file()) {
        let relative = path.strip_prefix(original.path()).unwrap();
        let name = relative.file_name().unwrap().to_str().unwrap().to_owned();
        let size = fs::metadata(&path).unwrap().len();
        for step in 0..4 {
            let Some(at) = (size * step).checked_div(4).filter(|at| *at < size) else { continue };
            let dir = tempfile::tempdir().unwrap();
            copy(original.path(), dir.path());
            let damaged = dir.path().join(relative);
            let mut bytes = fs::read(&damaged).unwrap();
            bytes[usize::try_from(at).unwrap()] ^= 1;
            fs::write(&damaged, bytes).unwrap();
            match reopened(dir.path()) {
                Ok(found) => assert_eq!(found, expected, "{name} at {at}"),
                Err(KvError::Corrupt(message) | KvError::Io(message)) => {
                    assert!(message.contains(dir.path().to_str().unwrap()), "{name} at {at}: {message}");
                    refused.insert(name.split(['-', '.']).next_back().unwrap().to_owned());
                }
                Err(err) => panic!("{name} at {at}: {err}"),
            }
        }
    }
    // Tables, the manifest and the two pointers matter; the rest is informational.
    assert!(["sst", "CURRENT", "live"].iter().all(|kind| refused.contains(*kind)), "only {refused:?}");
    assert!(refused.len() >= 4, "only {refused:?}");
}

#[track_caller]
fn refuses(break_it: impl FnOnce(&Path), expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let kv = rocks(dir.path()).open().unwrap();
    kv.write(put("a", "1")).unwrap();
    kv.flush().unwrap();
    drop(kv);
    break_it(&dir.path().join("state"));
    let got =
        reopened(dir.path()).map_err(|err| err.to_string().replace(dir.path().to_str().unwrap(), "DIR"));
    assert_eq!(got, Err(expected.to_owned()));
}

#[test]
fn refuses_a_home_it_does_not_understand() {
    refuses(
        |state| fs::remove_file(state.join("live")).unwrap(),
        "state machine store is damaged: DIR/state/live is missing, but DIR/state/generation-00000001 holds data",
    );
    refuses(
        |state| fs::remove_dir_all(state.join("generation-00000001")).unwrap(),
        "state machine store is damaged: DIR/state/generation-00000001/CURRENT is missing",
    );
    refuses(
        |state| fs::write(state.join("live"), "x").unwrap(),
        "state machine store is damaged: DIR/state/live does not parse",
    );
    refuses(
        |state| fs::write(state.join("live"), rocks_home::marker_line(2, 1)).unwrap(),
        "DIR/state/live has format 2, this build knows up to 1: run the newer version that wrote it",
    );
}

#[test]
fn a_home_is_used_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let _kv = rocks(dir.path()).open().unwrap();
    let second = rocks(dir.path()).open().map(drop).unwrap_err().to_string();
    assert!(second.contains("lock"), "{second}");
}

/// Whatever point the switch to another store is cut off at, the old or the new one is there, and only that.
#[test]
fn a_switch_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = rocks(dir.path());
    let old = home.open().unwrap();
    old.write(put("a", "old")).unwrap();
    old.flush().unwrap();
    let state = dir.path().join("state");
    let before = fs::read(state.join("live")).unwrap();

    let draft = home.draft().unwrap();
    draft.kv().write(put("a", "new")).unwrap();
    let view = old.snapshot();
    let new = draft.promote().unwrap();
    assert_eq!(new.get(b"a").unwrap(), Some(b"new".to_vec()));
    drop(old);
    // A reader of the old state goes on reading it.
    assert_eq!(view.get(b"a").unwrap(), Some(b"old".to_vec()));

    let cut_off = tempfile::tempdir().unwrap();
    copy(dir.path(), cut_off.path());
    fs::write(cut_off.path().join("state/live"), before).unwrap();
    assert_eq!(reopened(cut_off.path()).unwrap()[&b"a"[..]], b"old");
    assert!(!cut_off.path().join("state/generation-00000002").exists());

    drop(view);
    assert!(!state.join("generation-00000001").exists());
    drop(new);
    assert_eq!(reopened(dir.path()).unwrap()[&b"a"[..]], b"new");
}

#[test]
fn a_first_start_that_was_cut_off_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(rocks(dir.path()).open().unwrap());
    fs::remove_file(dir.path().join("state/live")).unwrap();
    assert_eq!(reopened(dir.path()).unwrap(), Entries::new());
}

#[test]
fn a_store_is_in_use_until_its_last_reader_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let home = rocks(dir.path());
    assert!(!home.is_in_use());
    let kv = home.open().unwrap();
    let snapshot = kv.snapshot();
    drop(kv);
    assert!(home.is_in_use() && home.open().is_err());
    drop(snapshot);
    assert!(!home.is_in_use());
    let draft = home.draft().unwrap();
    assert!(!home.is_in_use(), "a draft is no current store");
    let kv = draft.promote().unwrap();
    assert!(home.is_in_use());
    drop(kv);
    drop(home.open().unwrap());
}
