//! What the tests of this crate stand on: states in memory, and clusters of one member.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_raft_storage::kv::ModelHome;
use arca_raft_storage::raft::Threads;
use arca_raft_storage::replica::VersionedVisitor;
use arca_raft_storage::testing::ModelVfs;
use arca_raft_storage::{
    KvError, Member, MemberId, Nobody, RaftConfig, RaftParts, RaftReplica, ReadView, Replica as _, Version,
    Versioned, Visit, Write, WriteSet,
};

use crate::cursor::{Epoch, Generation};
use crate::pinned::Pinned;
use crate::sieve::Sieve;

/// A state.
pub(crate) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A state as a view.
pub(crate) struct MapView(pub(crate) u64, pub(crate) Map);

impl ReadView for MapView {
    fn index(&self) -> u64 {
        self.0
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, KvError> {
        Ok(self.1.get(key).map(|value| Versioned { value: value.clone(), version: Version(1) }))
    }

    fn visit(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut VersionedVisitor<'_>,
    ) -> Result<(), KvError> {
        for (key, value) in self.1.range(start.to_vec()..) {
            if end.is_some_and(|end| key.as_slice() >= end) {
                break;
            }
            match visitor(key, value, Version(1)) {
                Visit::Next => {}
                Visit::Stop => break,
                Visit::Seek(_) => panic!("nobody here seeks"),
            }
        }
        Ok(())
    }
}

/// `map` as a primary at index 77 would pin it.
pub(crate) fn pinned(map: &Map, sieve: &Sieve) -> Pinned {
    Pinned {
        view: Arc::new(MapView(77, map.clone())),
        sieve: sieve.clone(),
        epoch: Epoch(3),
        generation: Generation([7; 16]),
    }
}

/// A cluster of one member, that leads.
pub(crate) async fn cluster() -> Arc<RaftReplica> {
    let mut config = RaftConfig::new(MemberId(1), "test");
    config.threads = Threads::None;
    let parts = RaftParts {
        vfs: Arc::new(ModelVfs::new(1)),
        log_dir: "/data/log".into(),
        node_dir: "/data".into(),
        home: Arc::new(ModelHome::new()),
        transport: Arc::new(Nobody),
    };
    let replica = RaftReplica::open(config, parts).await.unwrap();
    let me = Member { id: MemberId(1), ..Member::default() };
    replica.bootstrap(me, WriteSet::default()).await.unwrap();
    replica
}

/// Writes `map` over what is there.
pub(crate) async fn fill(replica: &RaftReplica, map: &Map) {
    let all: Vec<_> = map.iter().collect();
    for some in all.chunks(500) {
        let writes = some.iter().map(|(key, value)| Write::Put((*key).clone(), (*value).clone())).collect();
        replica.propose(WriteSet { writes, ..WriteSet::default() }).await.unwrap();
    }
}

/// Everything in a view.
pub(crate) fn contents(view: &dyn ReadView) -> Map {
    let mut found = Map::new();
    let mut visitor = |key: &[u8], value: &[u8], _: Version| {
        found.insert(key.to_vec(), value.to_vec());
        Visit::Next
    };
    view.visit(&[], None, &mut visitor).unwrap();
    found
}

/// What of `map` passes.
pub(crate) fn sieved(map: &Map, sieve: &Sieve) -> Map {
    map.iter().filter(|(key, _)| sieve.passes(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What of `map` does not.
pub(crate) fn kept(map: &Map, sieve: &Sieve) -> Map {
    map.iter()
        .filter(|(key, _)| !sieve.passes(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
