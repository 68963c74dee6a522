//! A third cluster, of one member, that follows whoever is the primary as a performance secondary with a filter does: by
//! source, sink and comparison alone, without a kernel. What crosses the line to it is what is checked ([`super::ways`]).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Barrier, Class};
use arca_engine_api::Clock as _;
use arca_jepsen::dice::Dice;
use arca_kernel::key_keeper::ROOT_KEY_PATH;
use arca_raft_storage::kv::ModelHome;
use arca_raft_storage::raft::Threads;
use arca_raft_storage::testing::{ModelNet, ModelVfs};
use arca_raft_storage::{MemberId, RaftConfig, RaftParts, RaftReplica, Replica, Write, WriteSet};
use arca_replication::{
    Call, Comparing, Comparisons, Ended, Epoch, Follower, Greeting, Kind, Link, Pace, PayloadStream, Pinned,
    Primary, PrimarySide, Refusal, Rules, Sieve, Sink, SinkSettings, Source, SourceSettings, Unserved,
    Welcome, forget_cursor,
};
use arca_replicator::{Authority, Served};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::around::own_prefixes;
use super::road::{Ends, Road};
use super::ways::Ways;
use crate::cluster::{Shared, member};
use crate::machine::Machine;
use crate::run::Failure;

/// Its name, as a region and as a secondary.
pub(super) const NAME: &str = "north";
/// Stands for the id of a primary and for its CA.
const LINK: &str = "filtered";
/// Pause before another primary is looked for.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a host answers filtered secondaries.
fn address(host: &str) -> String {
    format!("{host}:9000")
}

/// What a filtered secondary gets, in the names of a state.
fn sieve(barrier: &Barrier, withheld: Vec<Vec<u8>>) -> Result<Sieve, Failure> {
    let always = vec![barrier.seal_name(Class::Local, ROOT_KEY_PATH).map_err(Failure::setup)?];
    let rules: Rules = withheld.into_iter().map(|prefix| (prefix, false)).collect();
    Ok(Sieve { own: own_prefixes(barrier)?, always, rules, ..Sieve::new(Kind::Performance) })
}

/// A member of a primary, for filtered secondaries.
struct Side {
    replica: std::sync::Weak<RaftReplica>,
    barrier: Arc<Barrier>,
    source: Arc<Source>,
    comparisons: Comparisons,
    ways: Ways,
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Side")
    }
}

fn busy(err: impl fmt::Display) -> Refusal {
    Refusal::Busy(err.to_string())
}

impl Side {
    fn sieve(&self) -> Result<Sieve, Refusal> {
        let withheld = self.ways.withheld();
        if withheld.is_empty() {
            return Err(busy("nobody has said yet what is withheld"));
        }
        sieve(&self.barrier, withheld).map_err(busy)
    }
}

#[async_trait]
impl PrimarySide for Side {
    async fn activate(&self, _: Bytes) -> Result<Bytes, Unserved> {
        Err(Refusal::Malformed("there are no tokens for this".to_owned()).into())
    }

    async fn admit(&self, _: &Follower) -> Result<(), Unserved> {
        Ok(())
    }

    async fn call(&self, _: &Follower, call: Call, payload: Bytes) -> Result<Bytes, Unserved> {
        let sieve = self.sieve()?;
        if call != Call::Compare {
            return Ok(self.source.serve(NAME, &sieve, call, payload).await?);
        }
        let replica = self.replica.upgrade().ok_or_else(|| busy("it is gone"))?;
        replica.read_barrier().await.map_err(busy)?;
        let pin = || {
            let epoch = self.source.admit(NAME, Kind::Performance)?;
            Pinned::now(replica.as_ref(), sieve.clone(), epoch)
        };
        Ok(self.comparisons.serve(Kind::Performance, NAME, &pin, payload).await?)
    }

    async fn stream(&self, _: &Follower, call: Call, payload: Bytes) -> Result<PayloadStream, Unserved> {
        Ok(self.source.stream(NAME, &self.sieve()?, call, payload).await?)
    }

    fn greet(&self, _: &Follower, _: Greeting) -> Welcome {
        Welcome::default()
    }
}

/// Has a member that was started answer the filtered secondary, until its `death`.
///
/// # Errors
/// When there is no randomness to be had.
pub(crate) fn serve(
    machine: &Machine,
    shared: &Shared,
    (replica, barrier): (&Arc<RaftReplica>, &Arc<Barrier>),
    death: &CancellationToken,
) -> Result<(), Failure> {
    let Some(region) = &shared.region else { return Ok(()) };
    let clock = Arc::clone(&machine.clock);
    let wall = Arc::new(move || clock.now().0);
    let source = Source::new(Arc::clone(replica) as Arc<_>, SourceSettings::default(), wall);
    // What epochs do is checked where there are roles.
    let secondaries = BTreeSet::from([NAME.to_owned()]);
    source.set_primary(Kind::Performance, Some(Primary { epoch: Epoch(1), secondaries, fence: None }));
    let mut seed = [0; 32];
    arca_engine_api::Entropy::fill(machine.entropy().as_ref(), &mut seed).map_err(Failure::setup)?;
    let side = Side {
        replica: Arc::downgrade(replica),
        barrier: Arc::clone(barrier),
        source,
        comparisons: Comparisons::new(seed),
        ways: region.ways.clone(),
    };
    let authority = Authority {
        replication_id: LINK.to_owned(),
        certificate: LINK.as_bytes().to_vec(),
        key: Zeroizing::default(),
    };
    let served = Served { authority, side: Arc::new(side) };
    region.ways.serve(&address(&machine.host), vec![served], death);
    Ok(())
}

/// See the file's header.
pub(super) struct Filtered {
    replica: Arc<RaftReplica>,
    following: JoinHandle<()>,
}

impl Filtered {
    /// A cluster that holds nothing, and follows whichever of the clusters with these hosts is the one in `primary`.
    pub(super) async fn make(
        seed: u64,
        ways: &Ways,
        barrier: &Barrier,
        (hosts, primary): ([Vec<String>; 2], watch::Receiver<usize>),
    ) -> Result<Self, Failure> {
        let mut dice = Dice::for_purpose(seed, NAME);
        let id = MemberId(1);
        let mut config = RaftConfig::new(id, NAME);
        config.threads = Threads::None;
        config.seed = Some(dice.number());
        let net = ModelNet::seeded(dice.number());
        let parts = RaftParts {
            vfs: Arc::new(ModelVfs::new(dice.number())),
            log_dir: "/data/log".into(),
            node_dir: "/data".into(),
            home: Arc::new(ModelHome::new()),
            transport: net.transport(id),
        };
        let replica = RaftReplica::open(config, parts).await.map_err(Failure::setup)?;
        net.join(id, replica.inbound());
        // Something of its own.
        let first = WriteSet { reads: Vec::new(), writes: vec![Write::Put(vec![3, 1], Vec::new())] };
        replica.bootstrap(member(id, NAME), first).await.map_err(Failure::setup)?;
        let sieve = sieve(barrier, ways.withheld())?;
        let following = tokio::spawn(follow(Arc::clone(&replica), ways.clone(), sieve, (hosts, primary)));
        Ok(Self { replica, following })
    }

    /// How many entries it has.
    pub(super) fn entries(&self) -> u64 {
        self.replica.status().applied_index
    }
}

impl Drop for Filtered {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn follow(
    replica: Arc<RaftReplica>,
    ways: Ways,
    sieve: Sieve,
    (hosts, mut primary): ([Vec<String>; 2], watch::Receiver<usize>),
) {
    let began = tokio::time::Instant::now();
    let clock = Arc::new(move || u64::try_from(began.elapsed().as_millis()).unwrap_or_default());
    let follower = Follower { secondary_id: NAME.to_owned(), activation: NAME.to_owned() };
    loop {
        let now = *primary.borrow_and_update();
        let addresses: Vec<String> = hosts.get(now).into_iter().flatten().map(|host| address(host)).collect();
        let ends = Ends {
            region: NAME.to_owned(),
            replication_id: LINK.to_owned(),
            ca: LINK.as_bytes().to_vec(),
            follower: follower.clone(),
            kind: Kind::Performance,
        };
        let link: Arc<dyn Link> = Arc::new(Road::new(ways.clone(), ends, addresses));
        let taker = Arc::clone(&replica) as Arc<dyn Replica>;
        let comparing = Comparing::new(Arc::clone(&taker), sieve.clone(), Arc::new(Pace::new(0)));
        let sink =
            Sink::new(taker, sieve.clone(), Arc::new(comparing), SinkSettings::default(), clock.clone());
        // Nothing changes any more once nobody can say so.
        let changed = async { drop(primary.changed().await) };
        if sink.run(link, changed).await != Ended::NotLeader {
            // Another primary, or one whose history is another: it is followed from a comparison on.
            let forgotten = forget_cursor(replica.as_ref(), Kind::Performance).await;
            if forgotten.is_err() {
                return;
            }
        }
        sleep(PAUSE).await;
    }
}
