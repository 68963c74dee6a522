//! A replica in memory: every version of every key, conflict checks as `apply` makes them, several members over one
//! state, one of them leading.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::replica::VersionedVisitor;
use arca_raft_storage::watch;
use arca_raft_storage::{
    ApplyObserver, Change, Committed, KvError, Member, MemberId, MemberKind, Membership, ProposeError,
    ReadView, Replica, ReplicaError, ReplicaStatus, Role, SnapshotStream, Version, Versioned, Visit, Write,
    WriteSet,
};
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};

/// Every value a key ever had, oldest first; `None` for a removal.
type History = Vec<(u64, Option<Vec<u8>>)>;

#[derive(Default)]
struct State {
    index: u64,
    keys: BTreeMap<Vec<u8>, History>,
}

#[derive(Default)]
struct Shared {
    state: RwLock<State>,
    members: RwLock<Vec<Arc<Inner>>>,
    proposing: Mutex<()>,
}

struct Inner {
    id: MemberId,
    shared: Arc<Shared>,
    observers: RwLock<Vec<Arc<dyn ApplyObserver>>>,
    status: watch::Sender<ReplicaStatus>,
    /// Sets refused so far, and how many of the next ones to refuse whatever they read.
    conflicts: Mutex<(u64, u64)>,
    node_values: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// One member. Clones are the same member.
#[derive(Clone)]
pub struct LocalReplica(Arc<Inner>);

impl Default for LocalReplica {
    /// A cluster of one, leading.
    fn default() -> Self {
        let shared = Arc::new(Shared::default());
        Self::member(&shared, Role::Leader)
    }
}

impl LocalReplica {
    fn member(shared: &Arc<Shared>, role: Role) -> Self {
        let id = MemberId(shared.members.read().len() as u64 + 1);
        let status = ReplicaStatus { id, role, term: 1, ..ReplicaStatus::default() };
        let inner = Arc::new(Inner {
            id,
            shared: Arc::clone(shared),
            observers: RwLock::default(),
            status: watch::Sender::new(status),
            conflicts: Mutex::default(),
            node_values: Mutex::default(),
        });
        shared.members.write().push(Arc::clone(&inner));
        Self(inner)
    }

    /// Another member of the same cluster, following.
    #[must_use]
    pub fn follower(&self) -> Self {
        Self::member(&self.0.shared, Role::Follower)
    }

    /// Gives this member the lead and takes it from the others.
    pub fn lead(&self) {
        for member in self.0.shared.members.read().iter() {
            let role = if member.id == self.0.id { Role::Leader } else { Role::Follower };
            member.status.send_modify(|status| status.role = role);
        }
    }

    /// Takes the lead away without giving it to another.
    pub fn stop_leading(&self) {
        self.0.status.send_modify(|status| status.role = Role::Follower);
    }

    /// Has this member know of a leader.
    pub fn hear_of_leader(&self, id: MemberId) {
        self.0.status.send_modify(|status| status.leader = Some(Member { id, ..Member::default() }));
    }

    /// Refuses the next `count` sets proposed here as if they had conflicted.
    pub fn refuse_next(&self, count: u64) {
        self.0.conflicts.lock().1 = count;
    }

    /// How many sets were refused here for a conflict.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.0.conflicts.lock().0
    }

    /// Every physical key present, for tests that look for leftovers.
    #[must_use]
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let state = self.0.shared.state.read();
        let is_present = |history: &History| history.last().is_some_and(|(_, value)| value.is_some());
        state.keys.iter().filter(|(_, history)| is_present(history)).map(|(key, _)| key.clone()).collect()
    }

    /// Tells every member's observers that a backup has put the state as it is now in the place of the one before.
    pub fn say_replaced(&self) {
        let index = self.0.shared.state.read().index;
        for member in self.0.shared.members.read().iter() {
            for observer in member.observers.read().iter() {
                observer.applied(index, Change::Everything);
            }
        }
    }

    fn is_leader(&self) -> bool {
        self.0.status.borrow().role == Role::Leader
    }

    fn apply(&self, set: &WriteSet) -> Result<Committed, ProposeError> {
        let shared = &self.0.shared;
        let _guard = shared.proposing.lock();
        let index = {
            let state = shared.state.read();
            let moved = set.reads.iter().any(|(key, version)| state.version(key) != *version);
            let mut conflicts = self.0.conflicts.lock();
            let is_forced = conflicts.1 > 0;
            if moved || is_forced {
                conflicts.1 = conflicts.1.saturating_sub(1);
                conflicts.0 += 1;
                return Err(ProposeError::Conflict);
            }
            state.index + 1
        };
        // As the contract says: observers hear of a change before the new index can be seen.
        for member in shared.members.read().iter() {
            for observer in member.observers.read().iter() {
                for write in &set.writes {
                    observer.applied(index, Change::Write(write));
                }
            }
        }
        let mut state = shared.state.write();
        for write in &set.writes {
            let (key, value) = match write {
                Write::Put(key, value) => (key, Some(value.clone())),
                Write::Delete(key) => (key, None),
            };
            state.keys.entry(key.clone()).or_default().push((index, value));
        }
        state.index = index;
        drop(state);
        for member in shared.members.read().iter() {
            member.status.send_modify(|status| {
                status.applied_index = index;
                status.committed_index = index;
            });
        }
        Ok(Committed { index })
    }
}

impl State {
    fn version(&self, key: &[u8]) -> Version {
        let last = self.keys.get(key).and_then(|history| history.last());
        last.filter(|(_, value)| value.is_some()).map_or(Version::ABSENT, |(index, _)| Version(*index))
    }
}

/// The value a key had at `index`.
fn value_at(history: &History, index: u64) -> Option<(Version, &Vec<u8>)> {
    let (written, value) = history.iter().rev().find(|(written, _)| *written <= index)?;
    value.as_ref().map(|value| (Version(*written), value))
}

struct View {
    index: u64,
    shared: Arc<Shared>,
}

impl ReadView for View {
    fn index(&self) -> u64 {
        self.index
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, KvError> {
        let state = self.shared.state.read();
        let found = state.keys.get(key).and_then(|history| value_at(history, self.index));
        Ok(found.map(|(version, value)| Versioned { value: value.clone(), version }))
    }

    fn visit(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut VersionedVisitor<'_>,
    ) -> Result<(), KvError> {
        let mut from = Bound::Included(start.to_vec());
        loop {
            let next = {
                let state = self.shared.state.read();
                let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
                let mut found = state.keys.range::<[u8], _>(range).filter_map(|(key, history)| {
                    value_at(history, self.index)
                        .map(|(version, value)| (key.clone(), value.clone(), version))
                });
                found.next().filter(|(key, _, _)| end.is_none_or(|end| key.as_slice() < end))
            };
            let Some((key, value, version)) = next else { return Ok(()) };
            match visitor(&key, &value, version) {
                Visit::Seek(to) if to > key => from = Bound::Included(to),
                Visit::Next | Visit::Seek(_) => from = Bound::Excluded(key),
                Visit::Stop => return Ok(()),
            }
        }
    }
}

impl fmt::Debug for LocalReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalReplica").field("id", &self.0.id).finish_non_exhaustive()
    }
}

fn unsupported() -> ReplicaError {
    ReplicaError::Membership("not in this test replica".to_owned())
}

#[async_trait]
impl Replica for LocalReplica {
    fn view(&self) -> Arc<dyn ReadView> {
        let index = self.0.shared.state.read().index;
        Arc::new(View { index, shared: Arc::clone(&self.0.shared) })
    }

    async fn read_barrier(&self) -> Result<u64, ReplicaError> {
        Ok(self.0.shared.state.read().index)
    }

    async fn await_applied(&self, index: u64, _timeout: Duration) -> Result<(), ReplicaError> {
        if self.0.shared.state.read().index >= index {
            Ok(())
        } else {
            Err(ReplicaError::Timeout("an index"))
        }
    }

    async fn propose(&self, set: WriteSet) -> Result<Committed, ProposeError> {
        // Lets other requests in between, as a real commit does.
        tokio::task::yield_now().await;
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let applied = self.apply(&set);
        // Whoever asked may be gone before it hears of it.
        tokio::task::yield_now().await;
        applied
    }

    fn status(&self) -> ReplicaStatus {
        self.0.status.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<ReplicaStatus> {
        self.0.status.subscribe()
    }

    fn observe(&self, observer: Arc<dyn ApplyObserver>) {
        self.0.observers.write().push(observer);
    }

    fn membership(&self) -> Membership {
        let members = self.0.shared.members.read();
        let voter = |id: MemberId| (id, (Member { id, ..Member::default() }, MemberKind::Voter));
        Membership { index: 1, members: members.iter().map(|member| voter(member.id)).collect() }
    }

    async fn reserve_member_id(&self) -> Result<MemberId, ReplicaError> {
        Err(unsupported())
    }

    async fn add_learner(&self, _member: Member) -> Result<(), ReplicaError> {
        Err(unsupported())
    }

    async fn promote(&self, _id: MemberId) -> Result<(), ReplicaError> {
        Err(unsupported())
    }

    async fn demote(&self, _id: MemberId) -> Result<(), ReplicaError> {
        Err(unsupported())
    }

    async fn remove(&self, _id: MemberId) -> Result<(), ReplicaError> {
        Err(unsupported())
    }

    async fn transfer_leadership(&self, _to: Option<MemberId>) -> Result<(), ReplicaError> {
        Err(unsupported())
    }

    async fn export(&self) -> Result<SnapshotStream, ReplicaError> {
        Err(unsupported())
    }

    async fn import(&self, _stream: SnapshotStream) -> Result<(), ReplicaError> {
        Err(unsupported())
    }

    fn node_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.0.node_values.lock().get(key).cloned())
    }

    fn node_put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.0.node_values.lock().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    async fn shutdown(&self) {}
}
