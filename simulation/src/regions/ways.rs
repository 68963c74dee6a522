//! The lines between regions: how long they take, when they are cut, who answers at their ends, and what went over them.
//!
//! What is carried is whole messages, as between members. A line that is cut loses what is under way; whoever waits notices
//! after as long as a node's own connections need for it. Nothing arrives twice or out of order: connections see to that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_jepsen::dice::Dice;
use arca_replication::codec::Reader;
use arca_replication::crossing;
use arca_replication::{Call, Cursor, CursorMessage, Generation, Kind};
use arca_replicator::Served;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::trace::Trace;

/// How long a message takes from one region to the other: at least, at most.
const LATENCY: (Duration, Duration) = (Duration::from_millis(38), Duration::from_millis(45));
/// One in so many messages meets a connection that breaks, in millionths.
const BREAKS_PPM: u64 = 300;
/// First bytes of physical keys (`docs/formats/barrier.md`).
const LOCAL: u8 = 2;
const NODE: u8 = 3;

/// A secondary's connections that are open somewhere.
struct Open {
    replication_id: String,
    secondary_id: String,
    ended: CancellationToken,
}

/// What a node answers other regions with.
struct Door {
    served: Vec<Arc<Served>>,
    /// Cancelled when the node dies.
    death: CancellationToken,
    open: Vec<Open>,
}

struct State {
    /// Directed: from a region, to a region.
    cut: BTreeSet<(String, String)>,
    dice: Dice,
    /// Nothing is cut while an operator changes over in order.
    is_held: bool,
    /// By cluster address.
    doors: BTreeMap<String, Door>,
    /// By region: prefixes of keys that are its own.
    own: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Prefixes that the filtered secondary must not get.
    withheld: Vec<Vec<u8>>,
    /// The newest entry that a region acknowledged to its primary, by the primary's generation.
    acknowledged: BTreeMap<(String, Generation), Cursor>,
    /// What should not have left.
    leaked: Option<(&'static str, String)>,
}

/// See the file's header. Clones are the same lines.
#[derive(Clone)]
pub struct Ways {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ways")
    }
}

/// What answers at the end of a way.
pub(super) struct Answerer {
    pub(super) served: Arc<Served>,
    /// Cancelled when the node dies, or ends this secondary's connections.
    pub(super) ended: CancellationToken,
}

/// The region of a host or an address of it.
#[must_use]
pub fn region_of(address: &str) -> &str {
    address.split('-').next().unwrap_or_default()
}

impl Ways {
    /// Lines that are whole.
    #[must_use]
    pub fn new(seed: u64, trace: &Trace) -> Self {
        let state = State {
            cut: BTreeSet::new(),
            dice: Dice::for_purpose(seed, "lines between regions"),
            is_held: false,
            doors: BTreeMap::new(),
            own: BTreeMap::new(),
            withheld: Vec::new(),
            acknowledged: BTreeMap::new(),
            leaked: None,
        };
        Self { state: Arc::new(Mutex::new(state)), trace: trace.clone() }
    }

    /// Nothing passes from one region to the other any more.
    pub fn cut(&self, from: &str, to: &str) {
        let mut state = self.state.lock();
        if !state.is_held {
            state.cut.insert((from.to_owned(), to.to_owned()));
        }
    }

    /// Everything passes, and goes on to until this is taken back.
    pub fn hold(&self, is_held: bool) {
        let mut state = self.state.lock();
        state.is_held = is_held;
        state.cut.clear();
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.state.lock().cut.clear();
    }

    /// Whether a line is cut, either way.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.state.lock().cut.is_empty()
    }

    pub(super) fn passes(&self, from: &str, to: &str) -> bool {
        !self.state.lock().cut.contains(&(from.to_owned(), to.to_owned()))
    }

    pub(super) fn delay(&self) -> Duration {
        self.state.lock().dice.span(LATENCY.0, LATENCY.1)
    }

    /// Takes a message from one region to the other; whether it arrives.
    pub(super) async fn travel(&self, from: &str, to: &str) -> bool {
        sleep(self.delay()).await;
        self.passes(from, to) && self.state.lock().dice.within(0..1_000_000) >= BREAKS_PPM
    }

    /// Has the node at `address` serve these from now on, until `death`. What is open of others ends.
    pub(super) fn serve(&self, address: &str, served: Vec<Served>, death: &CancellationToken) {
        let mut state = self.state.lock();
        let before = state.doors.remove(address);
        let mut open = before.map(|door| door.open).unwrap_or_default();
        open.retain(|open| {
            let goes_on = served.iter().any(|served| served.authority.replication_id == open.replication_id);
            if !goes_on {
                open.ended.cancel();
            }
            goes_on && !open.ended.is_cancelled()
        });
        let served = served.into_iter().map(Arc::new).collect();
        state.doors.insert(address.to_owned(), Door { served, death: death.clone(), open });
    }

    /// Nobody answers on `host` any more. What answered is let go: a replica that is held here would go on as a ghost, and
    /// lead.
    pub fn leave(&self, host: &str) {
        let is_there = |address: &str| address.strip_prefix(host).is_some_and(|rest| rest.starts_with(':'));
        self.state.lock().doors.retain(|address, _| !is_there(address));
    }

    /// Ends what is open of a secondary at `address`.
    pub(super) fn end(&self, address: &str, replication_id: &str, secondary_id: &str) {
        let mut state = self.state.lock();
        let Some(door) = state.doors.get_mut(address) else { return };
        door.open.retain(|open| {
            let is_it = open.replication_id == replication_id && open.secondary_id == secondary_id;
            if is_it {
                open.ended.cancel();
            }
            !is_it
        });
    }

    /// Who answers at `address` for a primary with this CA, if somebody does.
    pub(super) fn answerer(
        &self,
        address: &str,
        (replication_id, ca): (&str, &[u8]),
        secondary_id: &str,
    ) -> Option<Answerer> {
        let mut state = self.state.lock();
        let door = state.doors.get_mut(address).filter(|door| !door.death.is_cancelled())?;
        let is_it = |served: &&Arc<Served>| {
            served.authority.replication_id == replication_id && served.authority.certificate == ca
        };
        let served = Arc::clone(door.served.iter().find(is_it)?);
        let ended = door.death.child_token();
        door.open.retain(|open| !open.ended.is_cancelled());
        door.open.push(Open {
            replication_id: replication_id.to_owned(),
            secondary_id: secondary_id.to_owned(),
            ended: ended.clone(),
        });
        Some(Answerer { served, ended })
    }

    /// These prefixes are a region's own, too.
    pub(super) fn own(&self, region: &str, prefixes: Vec<Vec<u8>>) {
        self.state.lock().own.entry(region.to_owned()).or_default().extend(prefixes);
    }

    /// The filtered secondary must not get what begins with these.
    pub fn withhold(&self, prefixes: Vec<Vec<u8>>) {
        self.state.lock().withheld = prefixes;
    }

    pub(super) fn withheld(&self) -> Vec<Vec<u8>> {
        self.state.lock().withheld.clone()
    }

    /// A message of a primary leaves its region for a secondary of `kind`.
    pub fn leaves(&self, region: &str, kind: Kind, call: Call, payload: &Bytes) {
        self.trace.note("leaves", &[u64::from(kind.tag()), call as u64], payload);
        // What makes no sense is for the other end to refuse.
        let keys = crossing::keys(call, payload).unwrap_or_default();
        let mut state = self.state.lock();
        let found = keys.iter().find_map(|key| state.leak(region, kind, key));
        if state.leaked.is_none() {
            state.leaked = found;
        }
    }

    /// A secondary's acknowledgement was taken by its primary.
    pub(super) fn acknowledged(&self, region: &str, payload: Bytes) {
        let Ok(CursorMessage(cursor)) = CursorMessage::decode(&mut Reader::new(payload)) else { return };
        let mut state = self.state.lock();
        let newest = state.acknowledged.entry((region.to_owned(), cursor.generation)).or_insert(cursor);
        if newest.index < cursor.index {
            *newest = cursor;
        }
    }

    /// The newest entry of `generation` that a region said it has for good.
    #[must_use]
    pub fn acknowledged_by(&self, region: &str, generation: Generation) -> Option<u64> {
        let state = self.state.lock();
        state.acknowledged.get(&(region.to_owned(), generation)).map(|cursor| cursor.index)
    }

    /// Says what left a region and should not have.
    ///
    /// # Errors
    /// The invariant that it breaks, and what it was.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.state.lock().leaked.clone().map_or(Ok(()), Err)
    }
}

/// Its own data stays in a cluster, and what is local does where a secondary has its own.
pub const LOCAL_STAYS: &str = "local data stays local";
/// What a filter withholds is never sent.
pub const FILTERED_STAYS: &str = "filtered data never ships";

impl State {
    /// Judged by the key alone, and not by the sieve: that is what is checked.
    fn leak(&self, region: &str, kind: Kind, key: &[u8]) -> Option<(&'static str, String)> {
        let begins = |prefix: &Vec<u8>| key.starts_with(prefix);
        let shown = || format!("{region} sent the key {} to a {kind:?} secondary", hex::encode(key));
        let class = key.first().copied().unwrap_or(u8::MAX);
        let is_own = self.own.get(region).is_some_and(|own| own.iter().any(begins));
        // Of what is local only the root key goes to a performance secondary, and only with what it opens.
        let is_local = class == LOCAL && kind == Kind::Performance && !self.is_root_key(region, key);
        if class >= NODE || is_own || is_local {
            return Some((LOCAL_STAYS, shown()));
        }
        let is_withheld = kind == Kind::Performance && self.withheld.iter().any(begins);
        is_withheld.then(|| (FILTERED_STAYS, shown()))
    }

    fn is_root_key(&self, region: &str, key: &[u8]) -> bool {
        self.own.get(&format!("{region}/root-key")).is_some_and(|keys| keys.contains(key))
    }
}
