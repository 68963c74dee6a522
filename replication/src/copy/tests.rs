//! A state copied from one cluster to another, and what happens to copies that are not whole.

use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::Replica as _;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use super::*;
use crate::link::{LinkError, PayloadStream};
use crate::models::{Map, cluster, contents, fill, kept, pinned, sieved};
use crate::pace::Pace;
use crate::pinned::Pinned;
use crate::progress::{Progress, Stage};
use crate::sieve::{Kind, Sieve};
use crate::{Epoch, Generation};

fn sieve() -> Sieve {
    Sieve { own: vec![b"\0ca".to_vec(), vec![2, 200]], ..Sieve::new(Kind::Dr) }
}

fn state(mark: u8) -> Map {
    let mut map = Map::new();
    for key in [&b"\0ca"[..], b"\0keyring", b"\0root-key", &[2, 200, 1], &[3, 1], &[3, 2, mark]] {
        map.insert(key.to_vec(), vec![mark; 9]);
    }
    map.insert(vec![1, mark], vec![mark; 900_000]);
    for n in 0..900_u16 {
        map.insert([&[1 + u8::from(n > 400)], &n.to_be_bytes()[..]].concat(), vec![mark; usize::from(n)]);
    }
    map
}

fn unpaced() -> Arc<Pace> {
    Arc::new(Pace::new(0))
}

async fn payloads(pinned: Pinned) -> Vec<Bytes> {
    super::stream(pinned, unpaced()).map(Result::unwrap).collect().await
}

fn replayed(payloads: Vec<Bytes>) -> PayloadStream {
    stream::iter(payloads.into_iter().map(Ok)).boxed()
}

/// Copies `payloads` to a cluster, and answers what is there afterwards.
async fn copied(payloads: Vec<Bytes>, before: &Map) -> (Result<(), String>, Map) {
    let replica = cluster().await;
    fill(&replica, before).await;
    let own: Vec<_> =
        before.clone().into_iter().filter(|(key, _)| !sieve().passes(key) && key[0] < 3).collect();
    let result = async {
        let incoming =
            Incoming::begin(replayed(payloads), Arc::default()).await.map_err(|err| err.to_string())?;
        let import = incoming.into_import(sieve(), own, b"source").map_err(|err| err.to_string())?;
        replica.import(import).await.map_err(|err| err.to_string())
    };
    (result.await, contents(replica.view().as_ref()))
}

#[tokio::test(start_paused = true)]
async fn a_state_is_copied_and_the_secondary_keeps_its_own() {
    let primary = cluster().await;
    fill(&primary, &state(1)).await;
    let (epoch, generation) = (Epoch(2), Generation([9; 16]));
    let source = Pinned { view: primary.view(), sieve: sieve(), epoch, generation };
    let index = source.view.index();
    let sent = payloads(source).await;
    assert!(sent.iter().all(|payload| payload.len() < 2 << 20));
    let incoming = Incoming::begin(replayed(sent.clone()), Arc::default()).await.unwrap();
    assert_eq!(incoming.position(), Position { epoch, generation, index });
    let boot: Vec<_> = incoming.boot().iter().map(|(key, _)| key.as_ref()).collect();
    assert_eq!(boot, [&b"\0keyring"[..], b"\0root-key"]);

    let (result, found) = copied(sent, &state(2)).await;
    assert_eq!(result, Ok(()));
    assert!(sieved(&found, &sieve()) == sieved(&state(1), &sieve()));
    assert!(kept(&found, &sieve()) == kept(&state(2), &sieve()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_state_is_copied_too() {
    let (result, found) = copied(payloads(pinned(&Map::new(), &sieve())).await, &state(2)).await;
    assert_eq!(result, Ok(()));
    assert!(found == kept(&state(2), &sieve()));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_not_whole_changes_nothing() {
    let sent = payloads(pinned(&state(1), &sieve())).await;
    let check = async |payloads: Vec<Bytes>, want: &str| {
        let (result, found) = copied(payloads, &state(2)).await;
        assert!(result.as_ref().is_err_and(|err| err.contains(want)), "{result:?}, not {want}");
        assert!(found == state(2), "{want}");
    };
    let (first, last) = (2, sent.len() - 1);
    assert!(last > 4);
    for length in 0..sent.len() {
        check(sent[..length].to_vec(), if length == 0 { "empty" } else { "ends early" }).await;
    }
    let swapped = |one: usize, other: usize| {
        let mut payloads = sent.clone();
        payloads.swap(one, other);
        payloads
    };
    check(swapped(first, first + 1), "do not ascend").await;
    check(swapped(0, 1), "no beginning").await;
    check([&sent[..=first], &sent[first..]].concat(), "do not ascend").await;
    check([&sent[..first], &sent[first + 1..]].concat(), "do not match").await;
    check([&sent[..first], &[Message::Batch(vec![]).encode()], &sent[first..]].concat(), "empty batch").await;
    for at in [20, sent[first].len() / 2, sent[first].len() - 1] {
        let mut payloads = sent.clone();
        let mut bytes = payloads[first].to_vec();
        bytes[at] ^= 1;
        payloads[first] = bytes.into();
        check(payloads, "damaged").await;
    }
    let other_place = Message::decode(sent[0].clone()).unwrap();
    let Message::Head(position) = other_place else { panic!("{other_place:?}") };
    let moved = Message::Head(Position { index: position.index + 1, ..position }).encode();
    check([&[moved], &sent[1..]].concat(), "do not match").await;
}

#[tokio::test(start_paused = true)]
async fn what_the_sieve_holds_back_is_refused_from_either_side() {
    let everything = Sieve::new(Kind::Dr);
    let (result, found) = copied(payloads(pinned(&state(1), &everything)).await, &state(2)).await;
    assert!(result.unwrap_err().contains("holds what it should not"));
    assert!(found == state(2));

    let check = async |own: &[&[u8]], want: &str| {
        let sent = payloads(pinned(&state(1), &sieve())).await;
        let incoming = Incoming::begin(replayed(sent), Arc::default()).await.unwrap();
        let own = own.iter().map(|key| (key.to_vec(), vec![])).collect();
        let err = incoming.into_import(sieve(), own, b"c").err().unwrap().to_string();
        assert!(err.contains(want), "{err}");
    };
    check(&[b"\0keyring"], "has a say").await;
    check(&[&[3, 1]], "keeps it by itself").await;
    check(&[&[2, 200], b"\0ca"], "do not ascend").await;
    check(&[b"\0ca", b"\0ca"], "do not ascend").await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_and_bytes_without_sense_are_told_apart() {
    let broken = || Err(LinkError::Unreachable("gone".to_owned()));
    let head = payloads(pinned(&state(1), &sieve())).await.remove(0);
    let check = async |items: Vec<Result<Bytes, LinkError>>, want: &str| {
        let err = Incoming::begin(stream::iter(items).boxed(), Arc::default()).await.unwrap_err();
        assert!(err.to_string().contains(want), "{err}");
    };
    check(vec![broken()], "unreachable").await;
    check(vec![Ok(head.clone()), broken()], "unreachable").await;
    check(vec![Ok(Bytes::new())], "ends early").await;
    check(vec![Ok(Bytes::from_static(&[9, 1]))], "unknown version").await;
    check(vec![Ok(head.clone()), Ok(Bytes::from_static(&[1, 9]))], "unknown part").await;
    check(vec![Ok(head.clone()), Ok(head)], "begins twice").await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_keeps_to_its_rate_and_tells_how_long_it_takes() {
    let pace = Arc::new(Pace::new(100_000));
    let progress = Arc::new(Progress::default());
    let stream = super::stream(pinned(&state(1), &sieve()), pace);
    let before = Instant::now();
    let incoming = Incoming::begin(stream, Arc::clone(&progress)).await.unwrap();
    let mut import = incoming.into_import(sieve(), vec![], b"c").unwrap();
    let mut estimates = Vec::new();
    while let Some(frame) = import.next().await {
        frame.unwrap();
        estimates.extend(progress.figures().left.map(|left| before.elapsed() + left));
    }
    let (took, figures) = (before.elapsed(), progress.figures());
    let whole = sieved(&state(1), &sieve());
    let bytes: usize = whole.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!((figures.stage, figures.entries), (Stage::Idle, whole.len() as u64));
    assert_eq!((figures.bytes, figures.bytes_total), (bytes as u64, bytes as u64));
    assert!((took.as_secs_f64() - bytes as f64 / 100_000.0).abs() < 1.0, "{took:?} for {bytes}");
    assert!(
        estimates.iter().all(|estimate| estimate.abs_diff(took) < Duration::from_secs(6)),
        "{estimates:?}"
    );
}

/// These bytes are on the wire between versions.
#[test]
fn golden_messages() {
    let position = Position { epoch: Epoch(3), generation: Generation([7; 16]), index: 300 };
    let head = [&[1, 1, 3][..], &[7; 16], &[0xac, 2]].concat();
    let entry = (Bytes::from_static(&[1, 5]), Bytes::from_static(b"xyz"));
    let mut hash = EntriesHash::new(position);
    hash.add(&entry.0, &entry.1);
    for (message, golden) in [
        (Message::Head(position), head),
        (Message::Count { entries: 2, bytes: 300 }, vec![1, 2, 2, 0xac, 2]),
        (Message::Batch(vec![entry]), vec![1, 3, 2, 1, 5, 3, b'x', b'y', b'z']),
        (Message::End { entries: 1, hash: [9; 32] }, [&[1, 4, 1][..], &[9; 32]].concat()),
    ] {
        assert_eq!(message.encode(), golden);
        assert_eq!(Message::decode(golden.into()), Ok(message));
    }
    let Message::End { hash, .. } = hash.end() else { panic!() };
    let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "7acb81d28074bc41");
}
