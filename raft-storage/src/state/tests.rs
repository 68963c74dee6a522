//! What the state machine promises, on the model and on RocksDB.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::command::{Command, Purpose};
use crate::kv::{ModelHome, RocksHome, RocksOptions, Visit};
use crate::{Change, Version, Versioned, Write, WriteSet};

fn rocks(dir: &Path) -> Arc<dyn KvHome> {
    let options = RocksOptions { memtable_bytes: 64 << 10, ..RocksOptions::default() };
    Arc::new(RocksHome::new(dir.join("state"), options))
}

fn model() -> State {
    State::open(Arc::new(ModelHome::new())).unwrap()
}

/// Keys of these tests: the first character is the class.
fn key(name: &str) -> Vec<u8> {
    let (class, rest) = name.split_at(1);
    [&[class.parse().unwrap()][..], rest.as_bytes()].concat()
}

fn put(name: &str, value: &str) -> Write {
    Write::Put(key(name), value.into())
}

fn delete(name: &str) -> Write {
    Write::Delete(key(name))
}

fn set(reads: &[(&str, u64)], writes: &[Write]) -> WriteSet {
    let reads = reads.iter().map(|(name, version)| (key(name), Version(*version))).collect();
    WriteSet { reads, writes: writes.to_vec() }
}

fn run(state: &State, commands: &[Command]) -> Vec<Outcome> {
    let first = state.view().index() + 1;
    let encoded: Vec<_> = commands.iter().map(|command| command.encode().unwrap()).collect();
    let log_ids: Vec<_> = (first..).take(commands.len()).map(|index| format!("log-{index}")).collect();
    let entries: Vec<_> = encoded
        .iter()
        .zip(&log_ids)
        .zip(first..)
        .map(|((bytes, log_id), index)| Apply {
            index,
            log_id: log_id.as_bytes(),
            payload: Payload::Command(bytes),
        })
        .collect();
    state.apply_many(&entries).unwrap()
}

fn batch(state: &State, sets: &[WriteSet]) -> Vec<SetOutcome> {
    match run(state, &[Command::Batch(sets.to_vec())]).remove(0) {
        Outcome::Sets(outcomes) => outcomes,
        other => panic!("{other:?}"),
    }
}

fn contents(state: &State) -> BTreeMap<Vec<u8>, (Vec<u8>, u64)> {
    let mut found = BTreeMap::new();
    let mut visitor = |key: &[u8], value: &[u8], version: Version| {
        found.insert(key.to_vec(), (value.to_vec(), version.0));
        Visit::Next
    };
    state.view().visit(&[], None, &mut visitor).unwrap();
    found
}

/// Applies `before` one by one, then checks what becomes of `sets` in one entry and what is left.
#[track_caller]
fn check(before: &[WriteSet], sets: &[WriteSet], expected: &str) {
    let state = model();
    for set in before {
        batch(&state, std::slice::from_ref(set));
    }
    let outcomes = batch(&state, sets);
    let left: Vec<_> = contents(&state)
        .into_iter()
        .map(|(key, (value, version))| {
            let name = String::from_utf8(key[1..].to_vec()).unwrap();
            format!("{name}={}@{version}", String::from_utf8(value).unwrap())
        })
        .collect();
    assert_eq!(format!("{outcomes:?} {}", left.join(" ")), expected);
}

#[test]
fn conflicts() {
    let one = || set(&[], &[put("1a", "x")]);
    let gone = || set(&[], &[delete("1a")]);
    // What was read has not moved.
    check(&[], &[set(&[("1a", 0)], &[put("1a", "y")])], "[Applied] a=y@1");
    check(&[one()], &[set(&[("1a", 1)], &[put("1a", "y")])], "[Applied] a=y@2");
    check(&[one()], &[set(&[("1a", 1)], &[delete("1a")])], "[Applied] ");
    check(&[one(), gone()], &[set(&[("1a", 0)], &[put("1a", "y")])], "[Applied] a=y@3");
    // It has.
    check(&[one()], &[set(&[("1a", 0)], &[put("1b", "y")])], "[Conflict] a=x@1");
    check(&[one(), one()], &[set(&[("1a", 1)], &[put("1b", "y")])], "[Conflict] a=x@2");
    check(&[one(), gone()], &[set(&[("1a", 1)], &[put("1b", "y")])], "[Conflict] ");
    check(&[one(), gone(), one()], &[set(&[("1a", 1)], &[put("1b", "y")])], "[Conflict] a=x@3");
    check(&[one()], &[set(&[("1a", 7)], &[put("1b", "y")])], "[Conflict] a=x@1");
    check(&[], &[set(&[("1a", 0), ("1b", 3)], &[put("1a", "y"), put("1b", "y")])], "[Conflict] ");
    // Sets of one entry see each other.
    let read_absent = || set(&[("1a", 0)], &[put("1a", "y")]);
    check(&[], &[read_absent(), read_absent()], "[Applied, Conflict] a=y@1");
    check(&[one()], &[gone(), read_absent()], "[Applied, Applied] a=y@2");
    check(&[one()], &[gone(), set(&[("1a", 1)], &[put("1b", "y")])], "[Applied, Conflict] ");
    check(
        &[one()],
        &[set(&[("1a", 0)], &[put("1b", "z")]), set(&[("1b", 0)], &[])],
        "[Conflict, Applied] a=x@1",
    );
    // A later change of a set wins.
    check(&[], &[set(&[], &[put("1a", "y"), delete("1a"), put("1a", "z")])], "[Applied] a=z@1");
    check(&[one()], &[set(&[], &[put("1a", "y"), delete("1a")])], "[Applied] ");
}

#[test]
fn entries_applied_together_see_each_other() {
    let state = model();
    let read_absent = Command::Batch(vec![set(&[("1a", 0)], &[put("1a", "y")])]);
    let expected = [Outcome::Sets(vec![SetOutcome::Applied]), Outcome::Sets(vec![SetOutcome::Conflict])];
    assert_eq!(run(&state, &[read_absent.clone(), read_absent]), expected);
    // More than one batch of the store holds.
    let large = |name: &str| Command::Batch(vec![set(&[], &[put(name, &"v".repeat(3 << 20))])]);
    let stale = Command::Batch(vec![set(&[("1a", 1)], &[put("1z", "")])]);
    let outcomes = run(&state, &[large("1a"), large("1b"), large("1c"), stale]);
    assert_eq!(outcomes[3], Outcome::Sets(vec![SetOutcome::Conflict]));
    assert_eq!(contents(&state).values().map(|(_, version)| *version).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn a_view_shows_one_index_and_no_key_of_its_own() {
    let state = model();
    batch(&state, &[set(&[], &[put("1a", "x")])]);
    let view = state.view();
    batch(&state, &[set(&[], &[put("1a", "y")])]);
    run(&state, &[Command::ImportBegin]);
    assert_eq!((view.index(), view.meta().log_id.as_slice()), (1, &b"log-1"[..]));
    let old = Versioned { value: b"x".to_vec(), version: Version(1) };
    assert_eq!(view.get(&key("1a")).unwrap(), Some(old));
    assert_eq!(state.view().index(), 3);
    assert_eq!(*state.applied().borrow(), 3);
    assert_eq!(contents(&state).len(), 1);
    assert_eq!(state.view().get(&[0xff, b'a']).unwrap(), None);
}

#[track_caller]
fn refuses(entry: Apply<'_>, expected: &str) {
    let state = model();
    batch(&state, &[set(&[], &[put("1a", "x")])]);
    let hash = state.state_hash().unwrap();
    assert_eq!(state.apply(entry).map_err(|err| err.to_string()), Err(expected.to_owned()));
    assert_eq!(state.state_hash().unwrap(), hash);
    let after = state.apply(Apply { index: 2, log_id: b"x", payload: Payload::Blank });
    assert_eq!(after.map_err(|err| err.to_string()), Err(format!("the state machine stopped: {expected}")));
}

#[test]
fn stops_at_what_it_cannot_apply() {
    let entry = |index, payload| Apply { index, log_id: b"x", payload };
    refuses(
        entry(2, Payload::Command(&[99, 1])),
        "entry 2 cannot be applied: command 99 version 1 is unknown: a newer build wrote it",
    );
    refuses(entry(2, Payload::Command(&[])), "entry 2 cannot be applied: malformed command: ends early");
    refuses(entry(3, Payload::Blank), "entry 3 cannot follow entry 1");
    refuses(entry(1, Payload::Blank), "entry 1 cannot follow entry 1");
}

#[test]
fn a_full_disk_is_told_apart() {
    let home = Arc::new(ModelHome::new());
    let state = State::open(home.clone()).unwrap();
    home.current().set_full(true);
    let got = state.apply(Apply { index: 1, log_id: b"x", payload: Payload::Blank });
    assert!(matches!(got, Err(StateError::Kv(KvError::Full))), "{got:?}");
}

#[test]
fn damaged_entries_are_named() {
    let home = Arc::new(ModelHome::new());
    let state = State::open(home.clone()).unwrap();
    let kv = home.current();
    kv.write(crate::Batch { changes: vec![(key("1a"), Some(vec![1, 2, 3]))] }).unwrap();
    state.apply(Apply { index: 1, log_id: b"x", payload: Payload::Blank }).unwrap();
    let expected = "state machine store is damaged: entry 0161: shorter than a version";
    assert_eq!(state.view().get(&key("1a")).unwrap_err().to_string(), expected);
    let visited = state.view().visit(&[], None, &mut |_, _, _| Visit::Next);
    assert_eq!(visited.unwrap_err().to_string(), expected);
}

/// Writes down what it is told, and whether readers could see it already.
#[derive(Default)]
struct Notes {
    state: Mutex<Option<Arc<State>>>,
    lines: Mutex<Vec<String>>,
}

impl ApplyObserver for Notes {
    fn applied(&self, index: u64, change: Change<'_>) {
        let state = self.state.lock().clone().unwrap();
        let (view, watched) = (state.view().index(), *state.applied().borrow());
        assert!(view < index && watched < index, "told of {index} when readers saw {view}, {watched}");
        let what = match change {
            Change::Everything => "everything".to_owned(),
            Change::Write(Write::Delete(key)) => format!("-{}", String::from_utf8_lossy(&key[1..])),
            Change::Write(Write::Put(key, _)) => format!("+{}", String::from_utf8_lossy(&key[1..])),
        };
        self.lines.lock().push(format!("{index} {what}"));
    }
}

#[test]
fn observers_hear_every_change_in_order_before_readers_see_it() {
    let state = Arc::new(model());
    let notes = Arc::new(Notes::default());
    *notes.state.lock() = Some(state.clone());
    state.observe(notes.clone());
    run(
        &state,
        &[
            Command::Batch(vec![
                set(&[], &[put("1b", ""), delete("1a")]),
                set(&[("1b", 9)], &[put("1c", "")]),
            ]),
            Command::Reserve(Purpose::MemberId),
            Command::Batch(vec![set(&[], &[put("1a", "")])]),
        ],
    );
    assert_eq!(*notes.lines.lock(), ["1 +b", "1 -a", "3 +a"]);

    let newer = model();
    run(&newer, &[(); 9].map(|()| Command::Reserve(Purpose::MemberId)));
    assert!(transfer(&newer, &state).unwrap());
    assert_eq!(notes.lines.lock().last().unwrap(), "9 everything");
    *notes.state.lock() = None;
}

/// Sends all of `from` to `to`, cut into odd pieces.
fn transfer(from: &State, to: &State) -> Result<bool, StateError> {
    let mut receiver = to.receive()?;
    for frame in from.export(Scope::Member, b"cluster") {
        for piece in frame?.chunks(70_001) {
            receiver.push(piece)?;
        }
    }
    to.install(receiver.finish()?)
}

/// A state with every kind of entry, larger than a frame, with a value larger than one.
fn filled() -> State {
    let state = model();
    state.apply(Apply { index: 0, log_id: b"log-0", payload: Payload::Membership(b"members") }).unwrap();
    let large: String = (0..200_000).map(|number| format!("{number:07}")).collect();
    batch(&state, &[set(&[], &[put("1large", &large), put("0boot", "plain"), put("3own", "stays")])]);
    let some: Vec<_> = (0..1500).map(|number| put(&format!("2key-{number}"), &"w".repeat(900))).collect();
    batch(&state, &[set(&[], &some)]);
    run(&state, &[Command::ImportBegin, Command::ImportChunk { import: 3, seq: 0, bytes: vec![7; 100] }]);
    state
}

#[test]
fn a_member_gets_the_same_state() {
    let from = filled();
    let dir = tempfile::tempdir().unwrap();
    let to = State::open(rocks(dir.path())).unwrap();
    batch(&to, &[set(&[], &[put("1old", "")])]);
    let before = to.view();
    assert!(transfer(&from, &to).unwrap());
    assert_eq!(to.state_hash().unwrap(), from.state_hash().unwrap());
    assert_eq!(to.view().meta(), from.view().meta());
    assert_eq!(to.flushed_index(), 4);
    // Who read before goes on reading what was.
    assert!(before.get(&key("1old")).unwrap().is_some());
    drop(before);
    // It is durable, and goes on where the other was.
    drop(to);
    let to = State::open(rocks(dir.path())).unwrap();
    assert_eq!(to.state_hash().unwrap(), from.state_hash().unwrap());
    let next = [set(&[("1large", 1)], &[delete("1large")])];
    assert_eq!(batch(&to, &next), batch(&from, &next));
    assert_eq!(to.state_hash().unwrap(), from.state_hash().unwrap());
    // An older one changes nothing.
    let older = model();
    batch(&older, &[set(&[], &[put("1old", "")])]);
    assert!(!transfer(&older, &to).unwrap());
}

#[test]
fn a_state_received_makes_the_versions_known_before_worthless() {
    let (from, to) = (filled(), model());
    batch(&to, &[set(&[], &[put("1large", "another")])]);
    assert_eq!(batch(&to, &[set(&[("1large", 1)], &[put("1gone", "")])]), [SetOutcome::Applied]);
    batch(&from, &[set(&[], &[put("1large", "newer")])]);
    assert!(transfer(&from, &to).unwrap());
    let next = [set(&[("1large", 1)], &[]), set(&[("1large", 5)], &[]), set(&[("1gone", 0)], &[])];
    let expected = [SetOutcome::Conflict, SetOutcome::Applied, SetOutcome::Applied];
    assert_eq!(batch(&to, &next), expected);
    assert_eq!(batch(&from, &next), expected);
}

#[tokio::test]
async fn a_stream_is_made_of_bounded_frames() {
    let frames: Vec<Bytes> =
        filled().export(Scope::Member, b"c").into_stream().map(|frame| frame.unwrap()).collect().await;
    assert!(frames.len() > 4 && frames.iter().all(|frame| frame.len() <= 1 << 20));
}

/// These bytes are in backups: they never change.
#[test]
fn golden_frames() {
    let state = model();
    state.apply(Apply { index: 0, log_id: b"l0", payload: Payload::Membership(b"m") }).unwrap();
    batch(&state, &[set(&[], &[put("1a", "x"), put("3b", "y")])]);
    let hex = |scope| -> Vec<String> {
        let frames = state.export(scope, b"c").map(Result::unwrap);
        frames.map(|frame| frame.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
    };
    assert_eq!(
        hex(Scope::Member),
        [
            "010000001841524341535441540000000101016301056c6f672d31016d325b62f3",
            "020000001a02016109000000000000000178020362090000000000000001796000c7d3",
            "030000002800000000000000021389248e40d8de48ad299ad55310bc76830fec3deb701e775999decc1edb2f386c53e8a5",
        ]
    );
    assert_eq!(
        hex(Scope::Backup),
        [
            "010000001841524341535441540000000102016301056c6f672d31016d61c91ea3",
            "020000000d0201610900000000000000017817a756ad",
            "030000002800000000000000013ce3022db72aef180d99a5d37f310baf137330da1f7076f4e194c8470c52b9351fa684db",
        ]
    );
}

#[test]
fn empty_states_travel_too() {
    let (from, to) = (model(), model());
    from.apply(Apply { index: 0, log_id: b"l", payload: Payload::Blank }).unwrap();
    assert!(transfer(&from, &to).unwrap());
    assert_eq!(to.state_hash().unwrap(), from.state_hash().unwrap());
}

/// Hands a damaged stream to a receiver and to an uploader: neither gets to its end, nothing visible changes.
fn refused(frames: &[Vec<u8>], scope: Scope) -> String {
    let state = model();
    batch(&state, &[set(&[], &[put("1a", "x")])]);
    let hash = state.state_hash().unwrap();
    let mut receiver = state.receive().unwrap();
    let mut uploader = Uploader::new(1);
    let result = match scope {
        Scope::Member => {
            let pushed = frames.iter().try_for_each(|frame| receiver.push(frame));
            pushed.and_then(|()| receiver.finish()).and_then(|staged| state.install(staged)).map(drop)
        }
        Scope::Backup => {
            let pushed = frames.iter().try_for_each(|frame| uploader.push(frame).map(drop));
            pushed.and_then(|()| uploader.finish()).map(drop)
        }
    };
    assert_eq!(state.state_hash().unwrap(), hash);
    assert_eq!(state.view().index(), 1);
    result.unwrap_err().to_string()
}

#[test]
fn a_flipped_bit_in_any_frame_is_refused() {
    for scope in [Scope::Member, Scope::Backup] {
        let frames: Vec<Vec<u8>> =
            filled().export(scope, b"cluster").map(|frame| frame.unwrap().to_vec()).collect();
        for number in 0..frames.len() {
            let size = frames[number].len();
            for at in [0, 1, 4, 5, size / 2, size - 5, size - 1] {
                let mut frames = frames.clone();
                frames[number][at] ^= 1 << (at % 8);
                let message = refused(&frames, scope);
                let expected = format!("state stream is damaged: frame {number}: ");
                assert!(message.starts_with(&expected), "{scope:?} frame {number} byte {at}: {message}");
            }
        }
        // Whole frames lost, doubled or swapped.
        for number in 0..frames.len() - 1 {
            let without = [&frames[..number], &frames[number + 1..]].concat();
            let twice = [&frames[..=number], &frames[number..]].concat();
            let mut swapped = frames.clone();
            swapped.swap(number, number + 1);
            for damaged in [without, twice, swapped] {
                assert!(refused(&damaged, scope).starts_with("state stream is damaged: "));
            }
        }
        let ends_early = refused(&frames[..frames.len() - 1], scope);
        assert!(ends_early.ends_with("the stream ends early"), "{ends_early}");
        let follows = [&frames[..], &[vec![0]]].concat();
        assert!(refused(&follows, scope).ends_with("bytes follow the trailer"));
    }
}

#[test]
fn the_wrong_kind_of_stream_is_refused() {
    let frames = |scope| -> Vec<Vec<u8>> {
        filled().export(scope, b"c").map(|frame| frame.unwrap().to_vec()).collect()
    };
    assert!(refused(&frames(Scope::Backup), Scope::Member).contains("this is a backup"));
    assert!(refused(&frames(Scope::Member), Scope::Backup).contains("not a backup"));
    let mut newer = frames(Scope::Backup);
    let header = &mut newer[0];
    header[16] = 2;
    let end = header.len() - 4;
    let checksum = crc32c::crc32c(&header[..end]).to_be_bytes();
    header[end..].copy_from_slice(&checksum);
    assert_eq!(refused(&newer, Scope::Backup), "state stream has format 2, this build knows up to 1");
}

/// Proposes a backup as the leader would, and answers what the commit did.
fn import(state: &State, frames: impl Iterator<Item = Bytes>, break_it: impl Fn(&mut Command)) -> Outcome {
    assert_eq!(run(state, &[Command::ImportBegin]), [Outcome::Import(Ok(()))]);
    let mut uploader = Uploader::new(state.view().index());
    for frame in frames {
        for mut command in uploader.push(&frame).unwrap() {
            break_it(&mut command);
            assert_eq!(run(state, &[command]), [Outcome::Import(Ok(()))]);
        }
    }
    let commit = uploader.finish().unwrap();
    run(state, &[commit]).remove(0)
}

fn backup() -> impl Iterator<Item = Bytes> {
    filled().export(Scope::Backup, b"other").map(Result::unwrap)
}

#[test]
fn an_import_replaces_everything_but_the_cluster_s_own() {
    let dir = tempfile::tempdir().unwrap();
    let (real, other) = (State::open(rocks(dir.path())).unwrap(), model());
    for state in [&real, &other] {
        state.apply(Apply { index: 0, log_id: b"log-0", payload: Payload::Membership(b"ours") }).unwrap();
        batch(state, &[set(&[], &[put("1old", ""), put("3own", "ours")])]);
        assert_eq!(import(state, backup(), |_| {}), Outcome::Import(Ok(())));
    }
    let index = real.view().index();
    let found = contents(&real);
    let mut expected = contents(&filled());
    expected.values_mut().for_each(|(_, version)| *version = index);
    expected.insert(key("3own"), (b"ours".to_vec(), 1));
    assert!(found == expected, "{} entries, not {}", found.len(), expected.len());
    assert_eq!(real.view().meta().membership, b"ours");
    assert_eq!(real.state_hash().unwrap(), other.state_hash().unwrap());
    assert_eq!(real.flushed_index(), index);
    // What was staged is gone, so a second import starts clean; a request that read the old state is refused.
    assert_eq!(batch(&real, &[set(&[("1old", 1)], &[put("1x", "")])]), [SetOutcome::Conflict]);
    assert_eq!(import(&real, backup(), |_| {}), Outcome::Import(Ok(())));
}

#[test]
fn an_import_that_does_not_add_up_changes_nothing() {
    let state = model();
    batch(&state, &[set(&[], &[put("1old", "")])]);
    let before = contents(&state);
    let outcome = import(&state, backup(), |command| {
        if let Command::ImportChunk { seq: 2, bytes, .. } = command {
            bytes[1000] ^= 1;
        }
    });
    let expected = Err("the hash over everything staged does not match".to_owned());
    assert_eq!(outcome, Outcome::Import(expected));
    assert_eq!(contents(&state), before);
}

#[track_caller]
fn import_steps(commands: &[Command], expected: Result<(), &str>) {
    let state = model();
    let outcomes = run(&state, commands);
    assert_eq!(outcomes.last(), Some(&Outcome::Import(expected.map_err(str::to_owned))));
    assert_eq!(contents(&state), BTreeMap::new());
}

#[test]
fn imports_out_of_order() {
    let begin = Command::ImportBegin;
    let chunk = |import, seq| Command::ImportChunk { import, seq, bytes: vec![] };
    let commit = |chunks| Command::ImportCommit { import: 1, chunks, digest: *blake3::hash(b"").as_bytes() };
    let abort = Command::ImportAbort { import: 1 };
    let over = Err("another import has begun, or this one is over");
    import_steps(&[chunk(1, 0)], over);
    import_steps(&[begin.clone(), chunk(2, 0)], over);
    import_steps(&[begin.clone(), begin.clone(), chunk(1, 0)], over);
    import_steps(&[begin.clone(), abort.clone(), chunk(1, 0)], over);
    import_steps(&[begin.clone(), abort.clone(), abort.clone()], over);
    import_steps(&[begin.clone(), chunk(1, 1)], Err("chunk 0 of the import is next, not 1"));
    import_steps(&[begin.clone(), chunk(1, 0), chunk(1, 0)], Err("chunk 1 of the import is next, not 0"));
    import_steps(&[begin.clone(), chunk(1, 0), commit(2)], Err("1 chunks of the import are staged, not 2"));
    import_steps(&[begin.clone(), commit(0)], Ok(()));
    import_steps(&[begin, commit(0), commit(0)], over);
}

fn any_set() -> impl Strategy<Value = WriteSet> {
    let name = || (0u8..6).prop_map(|number| vec![1, number]);
    let write = prop_oneof![
        1 => name().prop_map(Write::Delete),
        2 => (name(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(key, value)| Write::Put(key, value)),
    ];
    let read = (name(), 0u64..12).prop_map(|(key, version)| (key, Version(version)));
    (proptest::collection::vec(read, 0..2), proptest::collection::vec(write, 0..4))
        .prop_map(|(reads, writes)| WriteSet { reads, writes })
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => proptest::collection::vec(any_set(), 0..4).prop_map(Command::Batch),
        1 => Just(Command::Reserve(Purpose::MemberId)),
        1 => Just(Command::ImportBegin),
        1 => (0u64..12, 0u64..2)
            .prop_map(|(import, seq)| Command::ImportChunk { import, seq, bytes: vec![2, 1, 9, 9, 0, 0, 0, 0, 0, 0, 0, 5, 6] }),
        1 => (0u64..12, 0u64..2).prop_map(|(import, chunks)| {
            let bytes = [2, 1, 9, 9, 0, 0, 0, 0, 0, 0, 0, 5, 6].repeat(usize::try_from(chunks).unwrap());
            Command::ImportCommit { import, chunks, digest: *blake3::hash(&bytes).as_bytes() }
        }),
        1 => (0u64..12).prop_map(|import| Command::ImportAbort { import }),
    ]
}

/// The state after each command, applied without an incident.
fn hashes(commands: &[Command]) -> Vec<[u8; 32]> {
    let state = model();
    commands
        .iter()
        .map(|command| {
            run(&state, std::slice::from_ref(command));
            state.state_hash().unwrap()
        })
        .collect()
}

/// Applies `commands` in groups, flushing and crashing in between; after each crash, applies again what was lost.
fn replay(home: &Arc<dyn KvHome>, commands: &[Command], script: &[(usize, bool, bool)], crash: impl Fn()) {
    let expected = hashes(commands);
    let mut state = State::open(home.clone()).unwrap();
    for (group, is_flushed, is_crashed) in script {
        let applied = usize::try_from(state.view().index()).unwrap();
        let group = &commands[applied..commands.len().min(applied + group)];
        run(&state, group);
        if is_flushed & !group.is_empty() {
            assert_eq!(state.flush().unwrap(), state.view().index());
        }
        if *is_crashed {
            let flushed = state.flushed_index();
            drop(state);
            crash();
            state = State::open(home.clone()).unwrap();
            assert!(state.view().index() >= flushed);
        }
        if let Some(last) = usize::try_from(state.view().index()).unwrap().checked_sub(1) {
            assert_eq!(state.state_hash().unwrap(), expected[last]);
        }
    }
}

fn any_script() -> impl Strategy<Value = Vec<(usize, bool, bool)>> {
    proptest::collection::vec((1usize..5, any::<bool>(), any::<bool>()), 1..20)
}

proptest! {
    #[test]
    fn replaying_after_a_crash_gives_the_same_state(
        commands in proptest::collection::vec(any_command(), 1..40),
        script in any_script(),
        seed: u64,
    ) {
        let model = Arc::new(ModelHome::new());
        let home: Arc<dyn KvHome> = model.clone();
        replay(&home, &commands, &script, || model.crash(seed));
    }

    /// Any bytes are taken or refused without a panic, and never installed by accident.
    #[test]
    fn streams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut receiver = model().receive().unwrap();
        let pushed = receiver.push(&bytes);
        prop_assert!(pushed.and_then(|()| receiver.finish()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn replaying_after_a_crash_of_rocksdb_gives_the_same_state(
        commands in proptest::collection::vec(any_command(), 1..40),
        script in any_script(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        replay(&rocks(dir.path()), &commands, &script, || {});
    }
}

#[test]
fn flushes_when_it_is_time() {
    let state = model();
    let policy = FlushPolicy { bytes: 1000, interval: Duration::from_hours(1) };
    batch(&state, &[set(&[], &[put("1a", &"v".repeat(600))])]);
    assert_eq!(state.maybe_flush(&policy).unwrap(), 0);
    batch(&state, &[set(&[], &[put("1a", &"v".repeat(600))])]);
    assert_eq!(state.maybe_flush(&policy).unwrap(), 2);
    batch(&state, &[set(&[], &[put("1a", "")])]);
    assert_eq!(state.maybe_flush(&policy).unwrap(), 2);
    assert_eq!(state.maybe_flush(&FlushPolicy { interval: Duration::ZERO, ..policy }).unwrap(), 3);
    assert_eq!(state.flushed_index(), 3);
}
