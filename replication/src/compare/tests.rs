//! States that become equal, what that costs on the wire, and what comes of interruptions and of hostile answers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arca_raft_storage::{Changes, ProposeError, RaftReplica, Replica as _, Write, WriteSet};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::timeout;

use super::message::{Answer, LeafPairs, Purpose, Question, Then};
use super::root::{Verdict, check};
use super::source::{IDLE, SESSIONS_MAX};
use super::trie::Total;
use super::*;
use crate::link::{Call, Link, LinkError, PayloadStream, Refusal};
use crate::models::{Map, MapView, cluster, contents, fill, kept, pinned, sieved};
use crate::record::{cursor_key, load_cursor};
use crate::sieve::{Kind, Sieve};
use crate::{
    Catchup as _, Comparing, Cursor, Epoch, Generation, History, Pace, Pinned, Position, Progress, State,
    Tell,
};

/// Changes an answer, or loses it. Told the number of the question, the question and the answer.
type Meddler = Box<dyn FnMut(usize, Question, Bytes) -> Result<Bytes, LinkError> + Send>;

/// To a primary in this process.
struct Local {
    comparisons: Comparisons,
    pinned: Pinned,
    meddler: Mutex<Meddler>,
    calls: AtomicUsize,
    bytes: AtomicUsize,
    /// Takes over when differences are asked for.
    thief: Mutex<Option<Arc<RaftReplica>>>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local")
    }
}

impl Local {
    fn new(pinned: Pinned) -> Arc<Self> {
        Self::meddled(pinned, Box::new(|_, _, answer| Ok(answer)))
    }

    fn meddled(pinned: Pinned, meddler: Meddler) -> Arc<Self> {
        Arc::new(Self {
            comparisons: Comparisons::new([5; 32]),
            pinned,
            meddler: Mutex::new(meddler),
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            thief: Mutex::default(),
        })
    }

    fn meddle_no_more(&self) {
        *self.meddler.lock() = Box::new(|_, _, answer| Ok(answer));
    }
}

#[async_trait]
impl Link for Local {
    async fn call(&self, call: Call, payload: Bytes) -> Result<Bytes, LinkError> {
        assert_eq!(call, Call::Compare);
        let question = Question::decode(payload.clone()).unwrap();
        assert_eq!(question.encode(), payload);
        let pin = || Ok(self.pinned.clone());
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let thief = self.thief.lock().take_if(|_| is_differences(&question));
        if let Some(replica) = thief {
            // The claim of another comparison: it moves the version of the record.
            let writes = vec![Write::Put(cursor_key(Kind::Dr), Cursor::default().encode())];
            replica.propose(WriteSet { writes, ..WriteSet::default() }).await.unwrap();
        }
        let size = payload.len();
        let answer = self.comparisons.serve(Kind::Dr, "eu", &pin, payload).await?;
        assert_eq!(Answer::decode(answer.clone()).unwrap().encode(), answer);
        let answer = (self.meddler.lock())(number, question, answer)?;
        self.bytes.fetch_add(size + answer.len(), Ordering::Relaxed);
        Ok(answer)
    }

    async fn stream(&self, _call: Call, _payload: Bytes) -> Result<PayloadStream, LinkError> {
        Err(LinkError::Unreachable("nothing streams here".to_owned()))
    }
}

fn sieve() -> Sieve {
    Sieve { own: vec![b"\0ca".to_vec(), vec![2, 200]], always: vec![vec![2, 100]], ..Sieve::new(Kind::Dr) }
}

fn comparison(link: &Arc<Local>, replica: &Arc<RaftReplica>) -> Comparison {
    Comparison {
        link: Arc::clone(link) as Arc<dyn Link>,
        replica: Arc::clone(replica) as Arc<dyn arca_raft_storage::Replica>,
        sieve: sieve(),
        pace: Arc::new(Pace::new(0)),
        progress: Arc::new(Progress::default()),
        own: None,
    }
}

/// What is in the sink, but for its cursor.
fn found(replica: &RaftReplica) -> (Cursor, Map) {
    let view = replica.view();
    let (cursor, _) = load_cursor(view.as_ref(), Kind::Dr).unwrap();
    let mut map = contents(view.as_ref());
    map.remove(&cursor_key(Kind::Dr));
    (cursor, map)
}

fn wanted_cursor() -> Cursor {
    Cursor::after_copy(Epoch(3), Generation([7; 16]), 77)
}

#[track_caller]
fn assert_equal(replica: &RaftReplica, source: &Map, before: &Map) {
    let (cursor, after) = found(replica);
    assert_eq!(cursor, wanted_cursor());
    assert!(sieved(&after, &sieve()) == sieved(source, &sieve()));
    assert!(kept(&after, &sieve()) == kept(before, &sieve()));
}

/// Runs on time that is not real.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

fn any_map() -> impl Strategy<Value = Map> {
    let class = prop_oneof![1 => Just(0_u8), 6 => Just(1), 3 => Just(2), 1 => Just(3)];
    let key = prop_oneof![
        20 => (class, proptest::collection::vec(0_u8..6, 1..5)).prop_map(|(class, rest)| [&[class], &rest[..]].concat()),
        1 => Just(b"\0ca".to_vec()),
        1 => Just(vec![2, 200]),
        1 => Just(vec![2, 100]),
    ];
    let value = proptest::collection::vec(any::<u8>(), 0..40);
    proptest::collection::btree_map(key, value, 0..120)
}

/// Two states that share a part.
fn any_pair() -> impl Strategy<Value = (Map, Map)> {
    (any_map(), any_map(), any_map()).prop_map(|(mut common, mut source, sink)| {
        source.insert(b"\0keyring".to_vec(), vec![1]);
        source.extend(common.clone());
        common.extend(sink);
        (source, common)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_two_states_become_equal((source, before) in any_pair()) {
        run(async {
            let replica = cluster().await;
            fill(&replica, &before).await;
            let link = Local::new(pinned(&source, &sieve()));
            let cursor = comparison(&link, &replica).run().await.unwrap();
            assert_eq!(cursor, wanted_cursor());
            assert_equal(&replica, &source, &before);
            // There is nothing left to do.
            let asked = link.calls.load(Ordering::Relaxed);
            comparison(&link, &replica).run().await.unwrap();
            assert!(link.calls.load(Ordering::Relaxed) - asked <= 4);
            assert_equal(&replica, &source, &before);
        });
    }

    /// Whatever is lost, the cursor is unknown until all is equal, and another comparison makes it so.
    #[test]
    fn interrupted_comparisons_end_in_equality(
        (source, before) in any_pair(), lost in 0_usize..12, polls in 1_usize..60, is_dropped: bool,
    ) {
        run(async {
            let replica = cluster().await;
            fill(&replica, &before).await;
            let lose = move |number, _, answer| {
                if number == lost && !is_dropped {
                    return Err(LinkError::Unreachable("lost".to_owned()));
                }
                Ok(answer)
            };
            let link = Local::meddled(pinned(&source, &sieve()), Box::new(lose));
            let whole = if is_dropped {
                polled(polls, comparison(&link, &replica).run()).await
            } else {
                Some(comparison(&link, &replica).run().await.is_ok())
            };
            let (cursor, after) = found(&replica);
            assert!(kept(&after, &sieve()) == kept(&before, &sieve()));
            if cursor.is_unknown() {
                assert_ne!(whole, Some(true));
            } else {
                assert_equal(&replica, &source, &before);
            }
            link.meddle_no_more();
            // What the dropped one had proposed may still come in between, once.
            if let Err(err) = comparison(&link, &replica).run().await {
                assert!(matches!(err, CompareError::Propose(ProposeError::Conflict)) && is_dropped, "{err}");
                comparison(&link, &replica).run().await.unwrap();
            }
            assert_equal(&replica, &source, &before);
        });
    }

    /// Whatever is answered, nothing changes that does not pass the sieve, and no cursor is stored for another state.
    #[test]
    fn hostile_answers_change_nothing_outside(
        (source, before) in any_pair(), at in 0_usize..10, meddle in any_meddle(),
    ) {
        run(async {
            let replica = cluster().await;
            fill(&replica, &before).await;
            let mut first = None;
            let meddler = move |number, _, answer: Bytes| {
                let first: &mut Bytes = first.get_or_insert(answer.clone());
                Ok(if number == at { meddle.of(&answer, first) } else { answer })
            };
            let link = Local::meddled(pinned(&source, &sieve()), Box::new(meddler));
            let result = comparison(&link, &replica).run().await;
            let (cursor, after) = found(&replica);
            assert!(kept(&after, &sieve()) == kept(&before, &sieve()));
            if result.is_ok() {
                assert!(sieved(&after, &sieve()) == sieved(&source, &sieve()));
            } else {
                assert!(cursor.is_unknown());
            }
            link.meddle_no_more();
            // An epoch is taken at the other side's word, if everything else is right.
            if cursor.epoch <= Epoch(3) {
                comparison(&link, &replica).run().await.unwrap();
                assert_equal(&replica, &source, &before);
            }
        });
    }

    #[test]
    fn messages_never_panic(tag in 0_u8..10, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from([&[1, tag], &rest[..]].concat());
        let _ = Question::decode(bytes.clone());
        let _ = Answer::decode(bytes);
    }
}

/// Polls so often, then drops it.
async fn polled<T, E>(polls: usize, work: impl Future<Output = Result<T, E>>) -> Option<bool> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result.is_ok())),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[derive(Clone, Debug)]
enum Meddle {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Random(Vec<u8>),
    First,
    Extend(Vec<u8>),
}

impl Meddle {
    fn of(&self, answer: &Bytes, first: &Bytes) -> Bytes {
        let mut bytes = answer.to_vec();
        match self {
            Self::Flip(at, xor) => bytes[at.index(answer.len())] ^= xor,
            Self::Cut(at) => bytes.truncate(at.index(answer.len())),
            Self::Random(rest) => bytes = [&answer[..2], rest].concat(),
            Self::First => bytes = first.to_vec(),
            Self::Extend(rest) => bytes.extend(rest),
        }
        bytes.into()
    }
}

fn any_meddle() -> impl Strategy<Value = Meddle> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 1_u8..).prop_map(|(at, xor)| Meddle::Flip(at, xor)),
        1 => any::<prop::sample::Index>().prop_map(Meddle::Cut),
        2 => bytes().prop_map(Meddle::Random),
        1 => Just(Meddle::First),
        1 => bytes().prop_map(Meddle::Extend),
    ]
}

fn numbers(count: u32, mark: u8) -> Map {
    let numbers = (0..count).map(|n| ([&[1], &n.to_be_bytes()[..]].concat(), vec![mark; 9]));
    numbers.chain([(b"\0keyring".to_vec(), vec![9])]).collect()
}

/// A sink with a few entries, asked to compare with a primary whose answers go through `meddler`.
async fn refused(meddler: Meddler) -> (String, Arc<Local>) {
    let replica = cluster().await;
    let before: Map =
        numbers(50, 1).into_iter().chain([(vec![2, 200, 1], vec![1]), (vec![3, 5], vec![2])]).collect();
    fill(&replica, &before).await;
    let link = Local::meddled(pinned(&numbers(500, 2), &sieve()), meddler);
    let err = comparison(&link, &replica).run().await.unwrap_err();
    let (cursor, after) = found(&replica);
    assert!(cursor.is_unknown() && kept(&after, &sieve()) == kept(&before, &sieve()));
    (err.to_string(), link)
}

fn answering(tag: fn(&Question) -> bool, answer: impl Fn(&Question) -> Answer + Send + 'static) -> Meddler {
    Box::new(move |_, question, real| Ok(if tag(&question) { answer(&question).encode() } else { real }))
}

const fn is_differences(question: &Question) -> bool {
    matches!(question, Question::Differences(..))
}

#[tokio::test(start_paused = true)]
async fn endless_and_misplaced_answers_are_refused() {
    let check = async |meddler: Meddler, want: &str| {
        let (err, _) = refused(meddler).await;
        assert!(err.contains(want), "{err}, not {want}");
    };
    let entry = |key: &[u8]| (Bytes::copy_from_slice(key), Bytes::from_static(b"v"));
    let is_shape = |question: &Question| matches!(question, Question::Shape(_));
    let is_keys = |question: &Question| matches!(question, Question::Keys(..));
    // Lists and counts that never end.
    check(answering(is_shape, |_| Answer::Counting(1)), "without end").await;
    let next = |question: &Question| {
        let Question::Differences(_, from) = question else { panic!("{question:?}") };
        let number = from.last_chunk().map_or(1 << 56, |number| u64::from_be_bytes(*number) + 1);
        Then::From(number.to_be_bytes().to_vec().into())
    };
    check(
        answering(is_differences, move |question| Answer::Differences(vec![], next(question))),
        "without end",
    )
    .await;
    check(answering(is_differences, |_| Answer::Differences(vec![], Then::From(Bytes::new()))), "leads back")
        .await;
    // Keys that were not asked for: of others, of this cluster, of no key that opens anything.
    for key in [&[2, 200, 1][..], b"\0ca", &[3, 5], &[3, 0, 0, b'c', 1]] {
        let entries = vec![entry(key)];
        let all = entries.clone();
        let done = move |_: &Question| Answer::Differences(all.clone(), Then::Removed(vec![]));
        check(answering(is_differences, done), "not asked for").await;
        check(answering(is_keys, move |_| Answer::Keys(entries.clone())), "a key that is none").await;
    }
    check(
        answering(is_keys, move |_| Answer::Keys(vec![(Bytes::from_static(&[1, 1]), Bytes::new())])),
        "none",
    )
    .await;
    let twice = |_: &Question| {
        let entry = (Bytes::from([&[1], &7_u32.to_be_bytes()[..]].concat()), Bytes::new());
        Answer::Differences(vec![entry.clone(), entry], Then::Removed(vec![]))
    };
    check(answering(is_differences, twice), "do not ascend").await;
    // More gone than there was; nothing there at all; sizes that do not go together.
    let removed = |_: &Question| Answer::Differences(vec![], Then::Removed(vec![5_000]));
    check(answering(is_differences, removed), "never was").await;
    let shape = |depth, entries| {
        move |_: &Question| Answer::Shape { depth, total: Total { entries, bytes: 1, sum: 5 } }
    };
    check(answering(is_shape, shape(0, 0)), "holds nothing").await;
    check(answering(is_shape, shape(3, 1 << 60)), "go with its size").await;
    check(answering(is_shape, shape(20, u64::MAX)), "another question").await;
    check(answering(|_| true, |_| Answer::Taken), "another question").await;
}

#[tokio::test(start_paused = true)]
async fn sums_that_never_agree_are_told_after_a_few_tries() {
    // It keeps back what it was asked for.
    let nothing = |_: &Question| Answer::Differences(vec![], Then::Removed(vec![]));
    let (err, link) = refused(answering(is_differences, nothing)).await;
    assert!(err.contains("still differ"), "{err}");
    assert!(link.calls.load(Ordering::Relaxed) > 3 * 5);
}

#[tokio::test(start_paused = true)]
async fn two_comparisons_do_not_mix() {
    let replica = cluster().await;
    fill(&replica, &numbers(3_000, 1)).await;
    let source = numbers(3_000, 2);
    let link = Local::new(pinned(&source, &sieve()));
    *link.thief.lock() = Some(Arc::clone(&replica));
    let result = comparison(&link, &replica).run().await;
    assert!(matches!(result, Err(CompareError::Propose(ProposeError::Conflict))), "{result:?}");
    assert!(found(&replica).0.is_unknown());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_from_an_older_epoch() {
    let replica = cluster().await;
    let newer = Cursor { epoch: Epoch(4), ..Cursor::default() };
    let before = Map::from([(cursor_key(Kind::Dr), newer.encode()), (vec![1, 1], vec![5])]);
    fill(&replica, &before).await;
    let link = Local::new(pinned(&numbers(5, 1), &sieve()));
    let err = comparison(&link, &replica).run().await.unwrap_err();
    assert!(matches!(err, CompareError::Link(LinkError::Refused(Refusal::Fenced(Epoch(4))))), "{err}");
    assert!(contents(replica.view().as_ref()) == before);
}

#[tokio::test(start_paused = true)]
async fn the_keys_that_open_the_rest_come_first_and_together() {
    let replica = cluster().await;
    let before =
        Map::from([(b"\0ca".to_vec(), vec![1]), (b"\0keyring".to_vec(), vec![1]), (vec![2, 100], vec![1])]);
    fill(&replica, &before).await;
    let mut source = numbers(10, 1);
    source.extend([(b"\0root-key".to_vec(), vec![2]), (vec![2, 100], vec![2])]);
    let lost = |_, question: Question, answer| match question {
        Question::Shape(_) => Err(LinkError::Unreachable("lost".to_owned())),
        _ => Ok(answer),
    };
    let link = Local::meddled(pinned(&source, &sieve()), Box::new(lost));
    comparison(&link, &replica).run().await.unwrap_err();
    let view = replica.view();
    let version = |key: &[u8]| view.get(key).unwrap().unwrap().version;
    assert_eq!(version(b"\0keyring"), version(&[2, 100]));
    assert_eq!(version(b"\0keyring"), version(b"\0root-key"));
    assert_eq!(version(b"\0keyring").0, view.index());
}

async fn ask(comparisons: &Comparisons, name: &str, question: Question) -> Result<Answer, Refusal> {
    let pin = || Ok(pinned(&numbers(100, 1), &sieve()));
    let answer = comparisons.serve(Kind::Dr, name, &pin, question.encode()).await?;
    Ok(Answer::decode(answer).unwrap())
}

async fn begin(comparisons: &Comparisons, name: &str) -> Result<u64, Refusal> {
    match ask(comparisons, name, Question::Begin(Purpose::Differences)).await? {
        Answer::Begun { session, .. } => Ok(session),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_few_end_by_themselves_and_are_nobody_else_s() {
    let comparisons = Comparisons::new([1; 32]);
    let mut ids = Vec::new();
    for n in 0..SESSIONS_MAX {
        ids.push(begin(&comparisons, &n.to_string()).await.unwrap());
    }
    assert!(matches!(begin(&comparisons, "one more").await, Err(Refusal::Busy(_))));
    // Whoever has one may begin another instead of it.
    let again = begin(&comparisons, "0").await.unwrap();
    assert_eq!(ask(&comparisons, "0", Question::Shape(ids[0])).await, Err(Refusal::Gone));
    assert_eq!(ask(&comparisons, "1", Question::Shape(again)).await, Err(Refusal::Gone));
    assert!(ask(&comparisons, "0", Question::Shape(again)).await.is_ok());
    tokio::time::advance(IDLE / 2).await;
    assert!(ask(&comparisons, "1", Question::Shape(ids[1])).await.is_ok());
    tokio::time::advance(IDLE / 2).await;
    assert_eq!(ask(&comparisons, "0", Question::Shape(again)).await, Err(Refusal::Gone));
    assert!(ask(&comparisons, "1", Question::End(ids[1])).await.is_ok());
    assert_eq!(ask(&comparisons, "1", Question::Shape(ids[1])).await, Err(Refusal::Gone));
    assert!(begin(&comparisons, "one more").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn questions_without_sense_are_refused() {
    let comparisons = Comparisons::new([1; 32]);
    let session = begin(&comparisons, "eu").await.unwrap();
    let check = async |question: Question, want: &str| {
        let refusal = ask(&comparisons, "eu", question).await.unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Malformed(text) if text.contains(want)),
            "{refusal:?}, not {want}"
        );
    };
    let children = |level, nodes| Question::Children { session, level, nodes };
    check(children(0, vec![0]), "not made").await;
    assert!(ask(&comparisons, "eu", Question::Shape(session)).await.is_ok());
    check(children(5, vec![0]), "children of leaves").await;
    check(children(2, vec![4]), "out of range").await;
    check(children(15, (0..5_000).collect()), "too many").await;
    let table = |part, depth, leaf| Question::Table {
        session,
        part,
        depth,
        leaves: vec![LeafPairs { leaf, pairs: vec![] }],
    };
    check(table(1, 5, 0), "out of order").await;
    assert!(ask(&comparisons, "eu", table(0, 5, 7)).await.is_ok());
    // Asked again, since the answer was lost.
    assert!(ask(&comparisons, "eu", table(0, 5, 7)).await.is_ok());
    check(table(1, 5, 7), "does not ascend").await;
    check(table(1, 6, 8), "out of order").await;
    assert!(ask(&comparisons, "eu", table(1, 5, 8)).await.is_ok());
}

const VALUE_BYTES: usize = 1024;

/// A key as long as a sealed name of two segments, and a value.
fn entry(number: u64, version: u8) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = vec![0; 60 + VALUE_BYTES];
    blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut bytes[..60]);
    blake3::Hasher::new()
        .update(&number.to_be_bytes())
        .update(&[version])
        .finalize_xof()
        .fill(&mut bytes[60..]);
    let value = bytes.split_off(60);
    bytes[0] = 1 + u8::from(number.is_multiple_of(3));
    (bytes, value)
}

/// Compares 100,000 entries of which `per_kind` each were changed, added and deleted, and answers bytes on the wire,
/// and of entries that were changed or added.
async fn cost(per_kind: u64) -> (usize, usize) {
    let count = 100_000;
    let mut source: Map = (0..count).map(|number| entry(number, 1)).collect();
    let replica = cluster().await;
    fill(&replica, &source).await;
    let before = source.clone();
    let spread = count / per_kind;
    let mut sent = 0;
    for n in 0..per_kind {
        source.remove(&entry(n * spread, 1).0);
        for (key, value) in [entry(n * spread + 1, 2), entry(count + n, 1)] {
            sent += key.len() + value.len();
            source.insert(key, value);
        }
    }
    source.insert(b"\0keyring".to_vec(), vec![1; 300]);
    let link = Local::new(pinned(&source, &sieve()));
    comparison(&link, &replica).run().await.unwrap();
    assert_equal(&replica, &source, &before);
    (link.bytes.load(Ordering::Relaxed), sent)
}

/// Deleted entries count for nothing here, though what is told of them crosses the wire as well.
#[tokio::test(start_paused = true)]
async fn one_percent_of_differences_costs_little_more_than_itself() {
    let (wire, sent) = cost(333).await;
    println!("1 %: {wire} bytes on the wire for {sent}");
    assert!(wire * 10 <= sent * 12, "{wire} bytes on the wire for {sent}");
}

/// Going down to few leaves costs some hundred bytes for each, and a session some hundred more.
#[tokio::test(start_paused = true)]
async fn few_differences_cost_a_little_more() {
    let (wire, sent) = cost(3).await;
    println!("0.01 %: {wire} bytes on the wire for {sent}");
    assert!(wire <= sent + 5_000, "{wire} bytes on the wire for {sent}");
}

#[tokio::test(start_paused = true)]
async fn a_comparison_keeps_to_its_rate_and_tells_how_far_it_is() {
    let replica = cluster().await;
    fill(&replica, &numbers(2_000, 1)).await;
    let link = Local::new(pinned(&numbers(2_000, 2), &sieve()));
    let comparison = Comparison { pace: Arc::new(Pace::new(10_000)), ..comparison(&link, &replica) };
    let begun = tokio::time::Instant::now();
    comparison.run().await.unwrap();
    let (wire, took) = (link.bytes.load(Ordering::Relaxed) as f64, begun.elapsed().as_secs_f64());
    assert!((took - wire / 10_000.0).abs() < 0.5, "{took} s for {wire} bytes");
    let figures = comparison.progress.figures();
    assert_eq!((figures.entries, figures.bytes), (2_000, 2_000 * 14));
    assert!(figures.entries_total > 400);
}

#[tokio::test(start_paused = true)]
async fn roots_are_compared_while_both_sides_go_on() {
    let replica = cluster().await;
    let source = numbers(500, 1);
    fill(&replica, &source).await;
    let replica: Arc<dyn arca_raft_storage::Replica> = replica;
    let link: Arc<dyn Link> = Local::new(pinned(&source, &sieve()));
    let (sieve, pace) = (sieve(), Pace::new(0));
    let verdict = async || check(&link, &replica, &sieve, &pace).await.unwrap();
    let same = verdict().await;
    assert_eq!(same.verdict, Verdict::Same);
    assert_eq!(same.primary.to_string(), same.secondary.to_string());
    let direct = Root::of(&MapView(1, source.clone()), &sieve).await.unwrap();
    assert!(direct.is_same_state(&same.primary));
    assert_eq!(same.position, Position { epoch: Epoch(3), generation: Generation([7; 16]), index: 77 });

    let write = async |key: Vec<u8>, value: Vec<u8>| {
        let writes = vec![Write::Put(key, value)];
        replica.propose(WriteSet { writes, ..WriteSet::default() }).await.unwrap();
    };
    // What does not pass does not matter.
    write(vec![3, 1], vec![1]).await;
    assert_eq!(verdict().await.verdict, Verdict::Same);
    write(vec![1, 1], vec![1]).await;
    assert_eq!(verdict().await.verdict, Verdict::Elsewhere);
    write(cursor_key(Kind::Dr), wanted_cursor().encode()).await;
    let differ = verdict().await;
    assert_eq!((differ.verdict, differ.secondary.entries), (Verdict::Differ, 502));
}

/// Two whole clusters, and a secondary that tells how far it is.
#[tokio::test(start_paused = true)]
async fn a_secondary_catches_up_with_a_primary_that_goes_on() {
    let (primary, secondary) = (cluster().await, cluster().await);
    let (source, before) = (numbers(3_000, 1), numbers(2_000, 2));
    fill(&primary, &source).await;
    fill(&secondary, &before).await;
    let changes: Arc<dyn Changes> = primary.clone();
    let now = || Pinned::now(changes.as_ref(), sieve(), Epoch(1));
    assert!(matches!(now(), Err(Refusal::Busy(_))), "no generation has begun");
    History::begin(&changes, [4; 16]).await.unwrap();
    let pinned = now().unwrap();
    let position = pinned.position();
    fill(&primary, &numbers(10, 9)).await;

    let link: Arc<dyn Link> = Local::new(pinned);
    let tell = Tell::default();
    let replica: Arc<dyn arca_raft_storage::Replica> = secondary.clone();
    let comparing = Comparing::new(replica, sieve(), Arc::new(Pace::new(20_000)));
    let seen = async {
        let (mut status, mut states) = (tell.watch(), Vec::new());
        loop {
            let state = status.borrow_and_update().state;
            if states.last() != Some(&state) {
                states.push(state);
            }
            if timeout(Duration::from_secs(5), status.changed()).await.is_err() {
                return states;
            }
        }
    };
    let (cursor, states) = futures::join!(comparing.catch_up(&link, &tell), seen);
    assert_eq!(cursor.unwrap(), position.cursor());
    assert_eq!(states, [State::MerkleDiff, State::MerkleSync]);
    let catchup = tell.watch().borrow().catchup;
    assert_eq!((catchup.entries, catchup.bytes), (3_000, 3_000 * 14));
    let (stored, after) = found(&secondary);
    assert_eq!(stored, position.cursor());
    assert!(after == source);
    let history = History::load(primary.view().as_ref()).unwrap();
    let term = changes.term_at(stored.index).unwrap();
    assert_eq!(history.of_term(term), Some(stored.generation));
}

/// These bytes are on the wire between versions.
#[test]
fn golden_messages() {
    let session = 0x0102_0304_0506_0708;
    let id = [1, 2, 3, 4, 5, 6, 7, 8];
    let of = |tag: u8, rest: &[u8]| [&[1, tag][..], &id, rest].concat();
    // At depth 4, this id is of leaf 0xa, and the 48 bits behind it are its tag.
    let pairs = vec![(0xa123_4567_89ab_c000, 0x0605_0403_0201)];
    let pair = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 6, 5, 4, 3, 2, 1];
    let leaves = vec![LeafPairs { leaf: 3, pairs: vec![] }, LeafPairs { leaf: 10, pairs }];
    let questions = [
        (Question::Begin(Purpose::Differences), vec![1, 1, 1]),
        (Question::Begin(Purpose::Root), vec![1, 1, 2]),
        (Question::Shape(session), of(2, &[])),
        (Question::Keys(session, vec![(9, 7)]), of(3, &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 7])),
        (Question::Children { session, level: 9, nodes: vec![3, 4, 300] }, of(4, &[9, 3, 0, 0xa7, 2])),
        (
            Question::Table { session, part: 2, depth: 4, leaves },
            of(5, &[&[2, 4, 3, 0, 6, 1][..], &pair].concat()),
        ),
        (Question::Differences(session, Bytes::from_static(&[5, 6])), of(6, &[2, 5, 6])),
        (Question::End(session), of(7, &[])),
    ];
    for (question, golden) in questions {
        assert_eq!(question.encode(), golden, "{question:?}");
        assert_eq!(Question::decode(golden.into()), Ok(question));
    }
    let position = Position { epoch: Epoch(3), generation: Generation([7; 16]), index: 300 };
    let begun = [&[1, 1][..], &id, &[9; 32], &[3], &[7; 16], &[0xac, 2]].concat();
    let total = Total { entries: 5, bytes: 300, sum: 1 << 120 };
    let shape = [&[1, 3, 1, 5, 0xac, 2, 1][..], &[0; 15]].concat();
    let entries = || vec![(Bytes::from_static(&[1, 5]), Bytes::from_static(b"xyz"))];
    let sent = [2, 1, 5, 3, b'x', b'y', b'z'];
    let answers = [
        (Answer::Begun { session, key: [9; 32], position }, begun),
        (Answer::Counting(300), vec![1, 2, 0xac, 2]),
        (Answer::Shape { depth: 1, total }, shape),
        (Answer::Keys(entries()), [&[1, 4][..], &sent].concat()),
        (Answer::Children(vec![session, 1]), [&[1, 5][..], &id, &[0, 0, 0, 0, 0, 0, 0, 1]].concat()),
        (Answer::Taken, vec![1, 6]),
        (
            Answer::Differences(entries(), Then::From(Bytes::from_static(&[8]))),
            [&[1, 7, 1, 8][..], &sent].concat(),
        ),
        (Answer::Differences(entries(), Then::Removed(vec![2, 3])), [&[1, 8, 2, 2, 0][..], &sent].concat()),
    ];
    for (answer, golden) in answers {
        assert_eq!(answer.encode(), golden, "{answer:?}");
        assert_eq!(Answer::decode(golden.into()), Ok(answer));
    }
    let hashes = trie::Hashes([1; 32]);
    assert_eq!(hashes.key(b"key"), 5_518_347_727_933_197_937);
    assert_eq!(format!("{:032x}", hashes.entry(b"key", b"value")), "dcacc0a11502c902cdf916e9bf0aa6ef");
}

/// Writes one record along with the keys, in the place of what it finds.
#[derive(Debug)]
struct Along {
    /// Whether what it was made for is long gone.
    is_stale: bool,
    answer: Result<(), String>,
}

const OWN_RECORD: &[u8] = b"\x03own";

impl OwnRecords for Along {
    fn along_with(
        &self,
        view: &dyn ReadView,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<(Write, Version)>, String> {
        self.answer.clone()?;
        let found = view.get(OWN_RECORD).unwrap().map_or(Version::ABSENT, |found| found.version);
        let version = if self.is_stale { Version(found.0 + 1) } else { found };
        let value = keys.first().unwrap().1.to_vec();
        Ok(vec![(Write::Put(OWN_RECORD.to_vec(), value), version)])
    }
}

/// With the primary's keys, what was sealed under those that they replace.
#[test]
fn what_goes_along_with_keys_is_written_with_them_or_not_at_all() {
    run(async {
        let replica = cluster().await;
        let before = Map::from([(b"\0keyring".to_vec(), vec![1]), (OWN_RECORD.to_vec(), vec![1])]);
        let source = Map::from([(b"\0keyring".to_vec(), vec![2])]);
        fill(&replica, &before).await;
        let link = Local::new(pinned(&source, &sieve()));
        let with = |is_stale, answer| {
            let own = Some(Arc::new(Along { is_stale, answer }) as Arc<dyn OwnRecords>);
            Comparison { own, ..comparison(&link, &replica) }
        };
        let refused = with(false, Err("of another state".to_owned())).run().await;
        assert!(
            matches!(&refused, Err(CompareError::Keys(text)) if text == "of another state"),
            "{refused:?}"
        );
        let late = with(true, Ok(())).run().await;
        assert!(matches!(late, Err(CompareError::Propose(ProposeError::Conflict))), "{late:?}");
        assert_eq!(found(&replica).1, before, "no keys without it");
        with(false, Ok(())).run().await.unwrap();
        let after = found(&replica).1;
        assert_eq!((&after[&b"\0keyring".to_vec()], &after[OWN_RECORD]), (&vec![2], &vec![2]));
        // Where nothing comes nothing goes along.
        with(true, Ok(())).run().await.unwrap();
    });
}
