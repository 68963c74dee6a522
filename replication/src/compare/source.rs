//! The side that is compared with. It pins a state for as long as the comparison takes, and answers questions about it.
//!
//! A question does at most a slice of a long piece of work and is then asked again, so nothing runs when nobody asks.
//! **Limits:** [`SESSIONS_MAX`] sessions, each with sums (8 MiB), a table (8 MiB), its marks and the leaves it covers
//! (less than 1 MiB). A session that nobody asks for [`IDLE`] is over, and so is one whose secondary begins another of
//! the same purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::KvError;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::message::{Answer, LeafPairs, Purpose, Question, SessionId, TABLE_PAIRS_MAX, Then};
use super::trie::{self, Hashes, Leaves, Sums, Total, Trie};
use super::{KEYS_BYTES_MAX, ROOT_CONTEXT, own_keys};
use crate::codec::Malformed;
use crate::copy::Entry;
use crate::link::Refusal;
use crate::pinned::Pinned;
use crate::sieve::Kind;

/// Most comparisons at once.
pub const SESSIONS_MAX: usize = 4;
/// A session that was not used for so long is over.
pub const IDLE: Duration = Duration::from_secs(300);
/// Bytes of state that are read for one answer.
const READ_BYTES: usize = 64 << 20;
/// An answer takes no more entries beyond this.
const ANSWER_BYTES: usize = 256 << 10;

/// Comparisons of secondaries with the state of this member.
pub struct Comparisons {
    seed: [u8; 32],
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    begun: u64,
    running: BTreeMap<SessionId, Arc<Session>>,
}

/// A secondary of one kind, and its name.
type Asker = (Kind, String);

struct Session {
    /// Whose it is: nobody else may ask it, since others may not see what it may.
    asker: Asker,
    purpose: Purpose,
    used: Mutex<Instant>,
    state: tokio::sync::Mutex<State>,
}

impl fmt::Debug for Comparisons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Comparisons").field("running", &self.sessions.lock().running.len()).finish()
    }
}

impl Comparisons {
    /// None so far. What names and hashes of sessions are made of follows from `seed`, which is random.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, sessions: Mutex::default() }
    }

    /// Answers a question of the secondary of this kind and name. `pin` gives the state as that secondary may see it.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when there are too many comparisons or the store fails, [`Refusal::Gone`] when the session is
    /// over: begin another. [`Refusal::Malformed`] for what makes no sense.
    pub async fn serve(
        &self,
        kind: Kind,
        name: &str,
        pin: &(dyn Fn() -> Result<Pinned, Refusal> + Send + Sync),
        question: Bytes,
    ) -> Result<Bytes, Refusal> {
        let asker = &(kind, name.to_owned());
        let answer = match Question::decode(question)? {
            Question::Begin(purpose) => self.begin(asker, purpose, pin()?)?,
            Question::End(session) => {
                self.find(asker, session)?;
                self.sessions.lock().running.remove(&session);
                Answer::Taken
            }
            Question::Shape(session) => self.find(asker, session)?.state.lock().await.shape().await?,
            Question::Keys(session, pairs) => self.find(asker, session)?.state.lock().await.keys(&pairs)?,
            Question::Children { session, level, nodes } => {
                self.find(asker, session)?.state.lock().await.children(level, &nodes)?
            }
            Question::Table { session, part, depth, leaves } => {
                self.find(asker, session)?.state.lock().await.table(part, depth, leaves)?
            }
            Question::Differences(session, from) => {
                self.find(asker, session)?.state.lock().await.differences(from).await?
            }
        };
        Ok(answer.encode())
    }

    /// Ends the sessions that nobody uses any more, which hold old states otherwise. Called now and then.
    pub fn sweep(&self) {
        self.sessions.lock().running.retain(|_, session| session.used.lock().elapsed() < IDLE);
    }

    /// Ends what a secondary has under way: what it may see has changed.
    pub fn end(&self, kind: Kind, name: &str) {
        let of = |session: &Session| session.asker.0 == kind && session.asker.1 == name;
        self.sessions.lock().running.retain(|_, session| !of(session));
    }

    fn begin(&self, asker: &Asker, purpose: Purpose, pinned: Pinned) -> Result<Answer, Refusal> {
        self.sweep();
        let mut sessions = self.sessions.lock();
        sessions.running.retain(|_, session| (&session.asker, session.purpose) != (asker, purpose));
        if sessions.running.len() >= SESSIONS_MAX {
            return Err(Refusal::Busy(format!("{SESSIONS_MAX} comparisons are under way")));
        }
        let (id, key) = self.draw(sessions.begun, purpose);
        sessions.begun += 1;
        let position = pinned.position();
        let state = tokio::sync::Mutex::new(State::new(pinned, Hashes(key)));
        let session = Session { asker: asker.clone(), purpose, used: Mutex::new(Instant::now()), state };
        sessions.running.insert(id, Arc::new(session));
        Ok(Answer::Begun { session: id, key, position })
    }

    /// Name and key of the next session. The name is hard to guess, the key nobody knows before.
    fn draw(&self, number: u64, purpose: Purpose) -> (SessionId, [u8; 32]) {
        let mut bytes = [0; 40];
        blake3::Hasher::new_keyed(&self.seed).update(&number.to_be_bytes()).finalize_xof().fill(&mut bytes);
        let (id, key) = bytes.split_at(8);
        let id = id.try_into().map_or(0, u64::from_be_bytes);
        match purpose {
            Purpose::Differences => (id, key.try_into().unwrap_or_default()),
            Purpose::Root => (id, blake3::derive_key(ROOT_CONTEXT, &[])),
        }
    }

    fn find(&self, asker: &Asker, session: SessionId) -> Result<Arc<Session>, Refusal> {
        self.sweep();
        let found = self.sessions.lock().running.get(&session).cloned();
        let found = found.filter(|session| session.asker == *asker).ok_or(Refusal::Gone)?;
        *found.used.lock() = Instant::now();
        Ok(found)
    }
}

/// A question that is not answered.
struct Unanswered(Refusal);

impl From<Unanswered> for Refusal {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.0
    }
}

impl From<KvError> for Unanswered {
    fn from(err: KvError) -> Self {
        Self(Refusal::Busy(format!("the state cannot be read: {err}")))
    }
}

impl From<Malformed> for Unanswered {
    fn from(problem: Malformed) -> Self {
        Self(problem.into())
    }
}

impl From<Malformed> for Refusal {
    fn from(problem: Malformed) -> Self {
        Self::Malformed(problem.0.to_owned())
    }
}

struct State {
    pinned: Pinned,
    hashes: Hashes,
    sums: Progress,
    table: Table,
}

enum Progress {
    /// Read up to this key.
    Reading(Box<Sums>, Vec<u8>),
    Done(Total, Trie),
}

/// What the sink has in the leaves that differ.
struct Table {
    depth: u32,
    leaves: Leaves,
    /// Where the next part begins: its number, and the first leaf that it may hold.
    part: u64,
    next_leaf: u32,
    /// Ids and marks, ascending.
    pairs: Vec<(u64, u64)>,
    /// Which of them are here as well, perhaps with another value.
    is_here: Vec<bool>,
}

impl Table {
    fn new(depth: u32) -> Self {
        let leaves = Leaves::new(depth, []);
        Self { depth, leaves, part: 0, next_leaf: 0, pairs: Vec::new(), is_here: Vec::new() }
    }

    fn add(&mut self, leaves: Vec<LeafPairs>) -> Result<(), Malformed> {
        for LeafPairs { leaf, pairs } in leaves {
            if leaf < self.next_leaf {
                return Err(Malformed("a table that does not ascend"));
            }
            if self.pairs.len() + pairs.len() > TABLE_PAIRS_MAX {
                return Err(Malformed("too large a table"));
            }
            self.next_leaf = leaf.saturating_add(1);
            self.leaves.insert(leaf);
            self.pairs.extend(pairs);
        }
        self.is_here.resize(self.pairs.len(), false);
        self.part += 1;
        Ok(())
    }

    /// Notes that a key is here, and answers whether the sink has it with this mark.
    fn has(&mut self, hash: u64, mark: u64) -> bool {
        let id = trie::id(hash, self.depth);
        let Ok(found) = self.pairs.binary_search_by_key(&id, |pair| pair.0) else { return false };
        if let Some(is_here) = self.is_here.get_mut(found) {
            *is_here = true;
        }
        self.pairs.get(found).is_some_and(|pair| pair.1 == mark)
    }

    fn removed(&self) -> Vec<u64> {
        let gone = self.is_here.iter().zip(0..).filter(|(is_here, _)| !**is_here);
        gone.map(|(_, number)| number).collect()
    }
}

impl State {
    fn new(pinned: Pinned, hashes: Hashes) -> Self {
        let sums = Progress::Reading(Box::new(Sums::new()), Vec::new());
        Self { pinned, hashes, sums, table: Table::new(0) }
    }

    async fn shape(&mut self) -> Result<Answer, Unanswered> {
        let Self { pinned, hashes, sums, .. } = self;
        let mut read = 0;
        while let Progress::Reading(found, start) = sums {
            if read >= READ_BYTES {
                return Ok(Answer::Counting(found.total.entries));
            }
            let slice = pinned.slice(start, &mut |key, value| {
                found.add(hashes, key, value);
                true
            })?;
            read += slice.read;
            match slice.next {
                Some(next) => *start = next,
                None => *sums = Progress::Done(found.total, found.finish(found.total.depth())),
            }
            // Others get a turn.
            tokio::task::yield_now().await;
        }
        let Progress::Done(total, trie) = sums else { return Err(Malformed("unreachable").into()) };
        Ok(Answer::Shape { depth: trie.depth, total: *total })
    }

    /// Few: they are compared one by one.
    fn keys(&self, pairs: &[(u64, u64)]) -> Result<Answer, Unanswered> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for (key, value) in own_keys(self.pinned.view.as_ref(), &self.pinned.sieve)? {
            let pair = (self.hashes.key(&key), trie::mark(self.hashes.entry(&key, &value)));
            if !pairs.contains(&pair) {
                bytes += key.len() + value.len();
                entries.push((key.into(), value.into()));
            }
        }
        if bytes > KEYS_BYTES_MAX {
            return Err(Unanswered(Refusal::Busy(
                "there are too many keys to open the state with".to_owned(),
            )));
        }
        Ok(Answer::Keys(entries))
    }

    fn children(&self, level: u32, nodes: &[u32]) -> Result<Answer, Unanswered> {
        let Progress::Done(_, trie) = &self.sums else {
            return Err(Malformed("a question about sums that are not made").into());
        };
        if level >= trie.depth {
            return Err(Malformed("a question about children of leaves").into());
        }
        let step = trie::step(level, trie.depth);
        let sums = nodes.iter().flat_map(|node| {
            (0..(1_u32 << step) - 1).map(move |child| trie.node(level + step, (node << step) | child))
        });
        Ok(Answer::Children(sums.collect()))
    }

    fn table(&mut self, part: u64, depth: u32, leaves: Vec<LeafPairs>) -> Result<Answer, Unanswered> {
        if part == 0 {
            self.table = Table::new(depth);
        } else if part + 1 == self.table.part {
            // Asked again: the answer was lost.
            return Ok(Answer::Taken);
        }
        if part != self.table.part || depth != self.table.depth {
            return Err(Malformed("a part of a table out of order").into());
        }
        self.table.add(leaves)?;
        Ok(Answer::Taken)
    }

    async fn differences(&mut self, from: Bytes) -> Result<Answer, Unanswered> {
        let Self { pinned, hashes, table, .. } = self;
        let (mut entries, mut size, mut read) = (Vec::<Entry>::new(), 0, 0);
        let mut next = Some(from.to_vec());
        while let Some(start) = next.take() {
            if size >= ANSWER_BYTES || read >= READ_BYTES {
                return Ok(Answer::Differences(entries, Then::From(start.into())));
            }
            let slice = pinned.slice(&start, &mut |key, value| {
                let hash = hashes.key(key);
                if table.leaves.holds(hash) && !table.has(hash, trie::mark(hashes.entry(key, value))) {
                    size += key.len() + value.len();
                    entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                }
                size < ANSWER_BYTES
            })?;
            read += slice.read;
            next = slice.next;
            tokio::task::yield_now().await;
        }
        Ok(Answer::Differences(entries, Then::Removed(table.removed())))
    }
}
