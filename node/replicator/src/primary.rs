//! What secondaries are answered, on every member of a cluster that is a primary, or was one and may still be followed to
//! its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_barrier::Class;
use arca_danger::Bug;
use arca_engine_api::Page;
use arca_kernel::KernelError;
use arca_kernel::replication::{Fence, Kind, Mode, RoleRecord};
use arca_raft_storage::Replica as _;
use arca_replication::{
    Call, Epoch, Follower, Greeting, GreetingNode, Heard, History, PayloadStream, Pinned, Primary,
    PrimarySide, Refusal, Replicated, Sieves as _, Unserved, Welcome, copy,
};
use async_trait::async_trait;
use bytes::Bytes;

use super::activation::authority_of;
use super::filtered::until_changed;
use super::records::{SECONDARIES_MAX, SecondaryRecord, TailRecord, tail_path};
use super::{Replicator, Served, active_role, shipped, sieve};

/// Longest wait for the active node's answer to what a secondary asked a standby.
const CARRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most nodes of secondaries that are remembered.
const MET_MAX: usize = 1024;

/// The same, for what a performance secondary has this cluster do: less than it waits itself.
const CARRY_ASKED_TIMEOUT: Duration = Duration::from_secs(55);

/// What is served now, so that it is not begun anew without need.
#[derive(Default)]
pub(super) struct Serving {
    /// By kind, replication id and certificate of the CA.
    doors: BTreeMap<Kind, (String, String)>,
    /// By kind, secondaries by name, with the activation that counts.
    secondaries: BTreeMap<Kind, Secondaries>,
    /// The term whose generation was begun, and the epochs in which.
    begun: Option<(u64, Vec<u64>)>,
}

/// Secondaries of one kind by name, with the activation that counts.
pub(super) type Secondaries = BTreeMap<String, SecondaryRecord>;

/// A secondary's node, as it said who it is.
#[derive(Clone, Debug)]
pub(super) struct MetNode {
    pub(super) greeting: Greeting,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// By kind, secondary and node.
pub(super) type Met = BTreeMap<(Kind, String, String), MetNode>;

/// One kind of replication, for the cluster port.
struct Side {
    replicator: Weak<Replicator>,
    kind: Kind,
}

fn gone() -> Refusal {
    Refusal::Busy("this node is sealed".to_owned())
}

pub(super) fn busy(err: impl std::fmt::Display) -> Refusal {
    Refusal::Busy(err.to_string())
}

#[async_trait]
impl PrimarySide for Side {
    async fn activate(&self, request: Bytes) -> Result<Bytes, Unserved> {
        let replicator = self.replicator.upgrade().ok_or_else(gone)?;
        if replicator.active().is_err() {
            return replicator.carry(self.kind, None, request).await;
        }
        replicator.activated(self.kind, &request).await
    }

    async fn admit(&self, follower: &Follower) -> Result<(), Unserved> {
        let replicator = self.replicator.upgrade().ok_or_else(gone)?;
        if replicator.knows(self.kind, follower) {
            return Ok(());
        }
        // It may have been activated a moment ago; and a member that was deposed, and does not know it yet, may never have heard
        // of that. To be told that it was revoked ends what a secondary does until an operator comes.
        if replicator.active().is_err() || replicator.replica.read_barrier().await.is_err() {
            return Err(Unserved::NotActive);
        }
        replicator.serve_secondaries();
        if replicator.knows(self.kind, follower) {
            return Ok(());
        }
        Err(if replicator.active().is_ok() { Refusal::Revoked.into() } else { Unserved::NotActive })
    }

    async fn call(&self, follower: &Follower, call: Call, payload: Bytes) -> Result<Bytes, Unserved> {
        let replicator = self.replicator.upgrade().ok_or_else(gone)?;
        replicator.hear(self.kind, follower);
        // What has to be written down, or is shown in the status, is told to the node that does so.
        let is_for_active = matches!(call, Call::Acknowledge | Call::Announce | Call::Ask | Call::Present);
        if is_for_active && replicator.active().is_err() {
            return replicator.carry(self.kind, Some((follower.clone(), call)), payload).await;
        }
        match call {
            Call::Ask => replicator.answer(self.kind, &follower.secondary_id, payload).await,
            Call::Announce => replicator.announced(self.kind, &follower.secondary_id, payload).await,
            Call::Compare => Ok(replicator.compare(&follower.secondary_id, self.kind, payload).await?),
            _ => {
                let sieve = sieve(&replicator.barrier, self.kind).map_err(busy)?;
                Ok(replicator.source.serve(&follower.secondary_id, &sieve, call, payload).await?)
            }
        }
    }

    async fn stream(
        &self,
        follower: &Follower,
        call: Call,
        payload: Bytes,
    ) -> Result<PayloadStream, Unserved> {
        let replicator = self.replicator.upgrade().ok_or_else(gone)?;
        let (kind, secondary_id) = (self.kind, follower.secondary_id.as_str());
        replicator.hear(kind, follower);
        match call {
            Call::Copy => {
                // In this order: a filter that is set in between ends the copy, instead of coming too late for it unnoticed.
                let began_at = replicator.changed_at(kind, secondary_id)?;
                let pinned = replicator.pinned(secondary_id, kind).await?;
                tracing::info!(secondary = secondary_id, kind = kind.name(), "a secondary copies the state");
                let copy = copy::stream(pinned, Arc::clone(&replicator.pace));
                Ok(until_changed(&replicator, kind, secondary_id, (began_at, copy)))
            }
            Call::Follow => {
                let sieves = Arc::new(replicator.sieves(kind, secondary_id));
                Ok(replicator.source.follow(secondary_id, shipped(kind), sieves, payload).await?)
            }
            _ => {
                let sieve = sieve(&replicator.barrier, kind).map_err(busy)?;
                Ok(replicator.source.stream(secondary_id, &sieve, call, payload).await?)
            }
        }
    }

    fn greet(&self, follower: &Follower, greeting: Greeting) -> Welcome {
        let Some(replicator) = self.replicator.upgrade() else { return Welcome::default() };
        replicator.pass_on(self.kind, follower);
        replicator.welcome(self.kind, follower, greeting)
    }
}

impl Replicator {
    /// A DR secondary has asked something, and so it is there ([`arca_kernel::replication::contact`]).
    fn hear(&self, kind: Kind, follower: &Follower) {
        if let Ok(kernel) = self.kernel()
            && kind == Kind::Dr
            && self.knows(kind, follower)
        {
            kernel.contact().hear();
        }
    }

    /// The same, told to the active node as well where that matters.
    fn pass_on(self: &Arc<Self>, kind: Kind, follower: &Follower) {
        self.hear(kind, follower);
        let is_bounded = self.role(kind).is_ok_and(|role| role.fence_after().is_some());
        if !is_bounded || self.active().is_ok() {
            return;
        }
        let (this, follower) = (Arc::clone(self), follower.clone());
        drop(self.spawn(async move {
            if let Err(err) = this.carry(kind, Some((follower, Call::Present)), Bytes::new()).await {
                tracing::debug!(error = ?err, "the active node was not told that a secondary is there");
            }
        }));
    }

    /// Has the active node answer what a secondary asked this one: all that it reaches may be a load balancer.
    async fn carry(
        &self,
        kind: Kind,
        asked: Option<(Follower, Call)>,
        payload: Bytes,
    ) -> Result<Bytes, Unserved> {
        let leader = self.replica.status().leader.filter(|leader| leader.id != self.me.id);
        let Some(leader) = leader else { return Err(Unserved::NotActive) };
        let replication_id = self.role(kind).map_err(busy)?.replication_id;
        let is_asked = matches!(&asked, Some((_, Call::Ask)));
        let limit = if is_asked { CARRY_ASKED_TIMEOUT } else { CARRY_TIMEOUT };
        let question = Replicated { replication_id, asked, payload };
        self.surroundings.carry(&leader, question, limit).await
    }

    /// Answers what a standby carried here.
    pub async fn carried(self: &Arc<Self>, question: Replicated) -> Result<Bytes, Unserved> {
        self.active().map_err(|_| Unserved::NotActive)?;
        let standing = self.kernel().map_err(busy)?.standing();
        let is_of = |kind: &Kind| standing.role(*kind).replication_id == question.replication_id;
        let Some(kind) = Kind::ALL.into_iter().find(is_of) else { return Err(Refusal::NotPrimary.into()) };
        let side = Side { replicator: Arc::downgrade(self), kind };
        match question.asked {
            None => side.activate(question.payload).await,
            Some((follower, call)) => {
                side.admit(&follower).await?;
                side.call(&follower, call, question.payload).await
            }
        }
    }

    /// Whether this activation is the one that counts, and was not revoked, as far as it was looked.
    fn knows(&self, kind: Kind, follower: &Follower) -> bool {
        let served = self.served.lock();
        let of_kind = served.secondaries.get(&kind);
        of_kind
            .and_then(|secondaries| secondaries.get(&follower.secondary_id))
            .is_some_and(|record| !record.is_revoked && record.activation == follower.activation)
    }

    /// The state as it is now, for a secondary that copies or compares it.
    pub(super) async fn pinned(&self, secondary_id: &str, kind: Kind) -> Result<Pinned, Refusal> {
        self.source.admit(secondary_id, shipped(kind))?;
        self.replica.read_barrier().await.map_err(busy)?;
        self.pinned_now(secondary_id, kind)
    }

    /// The same, of what is applied here.
    pub(super) fn pinned_now(&self, secondary_id: &str, kind: Kind) -> Result<Pinned, Refusal> {
        let epoch = self.source.admit(secondary_id, shipped(kind))?;
        let view = self.replica.view();
        let sieve = self.sieves(kind, secondary_id).of(&view).map_err(busy)?.sieve;
        let generation = History::at(self.replica.as_ref(), view.as_ref())?;
        Ok(Pinned { view, sieve, epoch, generation })
    }

    fn welcome(&self, kind: Kind, follower: &Follower, greeting: Greeting) -> Welcome {
        let now = self.now();
        let key = (kind, follower.secondary_id.clone(), greeting.node_name.clone());
        let met_node = MetNode { greeting, at_ms: now.0 };
        {
            let mut met = self.met.lock();
            if met.len() < MET_MAX || met.contains_key(&key) {
                met.insert(key, met_node);
            }
        }
        let role = self.role(kind).unwrap_or_default();
        let leader = self.replica.status().leader.map(|leader| leader.id);
        let members = self.replica.membership().members.into_values();
        let mut nodes: Vec<_> = members
            .map(|(member, _)| GreetingNode {
                is_active: Some(member.id) == leader,
                node_name: member.name,
                cluster_addr: member.cluster_addr,
                api_addr: member.api_addr,
            })
            .collect();
        if !role.primary_cluster_addr.is_empty() {
            // The nodes' own addresses mean nothing where the secondary is.
            for node in &mut nodes {
                node.cluster_addr.clone_from(&role.primary_cluster_addr);
            }
        }
        Welcome {
            nodes,
            mode: role.mode.name().to_owned(),
            epoch: role.epoch,
            is_fenced: role.fence.is_some(),
            version: self.version.to_owned(),
            cluster_id: self.cluster_id.clone(),
            clock_ms: now.0,
            has_leader: leader.is_some(),
        }
    }

    /// On every member: opens or closes the door, and says to whom.
    pub(super) fn serve_secondaries(self: &Arc<Self>) {
        let Ok(kernel) = self.kernel() else { return };
        let standing = kernel.standing();
        let roles = Kind::ALL.map(|kind| (kind, active_role(&standing, kind)));
        let mut served = self.served.lock();
        let (mut doors, mut sides) = (BTreeMap::new(), Vec::new());
        for (kind, role) in &roles {
            let secondaries = match self.load_secondaries(*kind) {
                Ok(secondaries) => secondaries,
                Err(err) => {
                    tracing::error!(error = %err, "the secondaries of this cluster cannot be read");
                    return;
                }
            };
            self.admit_secondaries(*kind, role, secondaries, &mut served);
            // One that was demoted is still followed to its end.
            if let Some(authority) = authority_of(role) {
                let certificate = hex::encode(&authority.certificate);
                doors.insert(*kind, (role.replication_id.clone(), certificate));
                let side = Arc::new(Side { replicator: Arc::downgrade(self), kind: *kind });
                sides.push(Served { authority, side });
            }
        }
        if served.doors == doors {
            return;
        }
        match self.surroundings.serve(sides) {
            Ok(()) => served.doors = doors,
            Err(err) => tracing::error!(error = %err, "secondaries cannot be served"),
        }
    }

    /// Says who is served of a kind, and ends what is open of others.
    fn admit_secondaries(
        &self,
        kind: Kind,
        role: &RoleRecord,
        secondaries: Secondaries,
        served: &mut Serving,
    ) {
        let is_admitted =
            |(id, record): (&String, &SecondaryRecord)| (!record.is_revoked).then(|| id.clone());
        let known: BTreeSet<String> = secondaries.iter().filter_map(is_admitted).collect();
        for (id, before) in served.secondaries.get(&kind).into_iter().flatten() {
            let is_over = secondaries.get(id).is_none_or(|now| {
                now.is_revoked && !before.is_revoked || now.activation != before.activation
            });
            if is_over {
                self.surroundings.end(&role.replication_id, id);
                self.met.lock().retain(|(of_kind, of, _), _| (of_kind, of) != (&kind, id));
            }
        }
        served.secondaries.insert(kind, secondaries);
        let is_primary = role.authority.is_some();
        let fence = role.fence.as_ref().map(|fence| Epoch(fence.epoch));
        let primary = is_primary.then_some(Primary { epoch: Epoch(role.epoch), secondaries: known, fence });
        self.source.set_primary(shipped(kind), primary);
    }

    pub(super) fn load_secondaries(&self, kind: Kind) -> Result<Secondaries, KernelError> {
        let tx = self.kernel()?.read_tx();
        let page = Page { limit: Some(SECONDARIES_MAX), ..Page::default() };
        let mut found = BTreeMap::new();
        for id in tx.list(Class::Node, &SecondaryRecord::folder(kind), &page)? {
            if let Some(record) = SecondaryRecord::load(&tx, kind, &id)? {
                found.insert(id, record);
            }
        }
        Ok(found)
    }

    /// On the active member: begins the generation of its term where the cluster is followed, of whatever kind, since one
    /// history serves both, and stores fences that were heard of. One that was demoted is followed to its end, and hears of
    /// who came after it: nothing of a term without a generation is told, and its end may come in a later term.
    pub(super) async fn lead(self: &Arc<Self>, roles: &[(Kind, RoleRecord)]) {
        let followed: Vec<_> = roles.iter().filter(|(_, role)| role.authority.is_some()).collect();
        for (kind, role) in &followed {
            self.heed(*kind, role).await;
        }
        if followed.is_empty() {
            return;
        }
        let now = Some((self.replica.status().term, followed.iter().map(|(_, role)| role.epoch).collect()));
        let is_begun = self.served.lock().begun == now;
        if !is_begun {
            match self.begin_generation().await {
                Ok(()) => self.served.lock().begun = now,
                // Looked at again in a moment.
                Err(err) => tracing::warn!(error = %err, "secondaries cannot be served yet"),
            }
        }
    }

    /// Stores a fence if a newer primary was heard of.
    async fn heed(&self, kind: Kind, role: &RoleRecord) {
        let heard = self.source.heard().borrow().get(&shipped(kind)).cloned();
        let Some(heard) = heard.filter(|heard| heard.epoch.0 > role.epoch) else { return };
        let is_news = role.fence.as_ref().is_none_or(|fence| {
            fence.epoch < heard.epoch.0 || fence.primary_addresses.is_empty() && !heard.addresses.is_empty()
        });
        if is_news && let Err(err) = self.fence(kind, &heard).await {
            tracing::error!(error = %err, "a newer primary was heard of, but this could not be written down");
        }
    }

    pub(super) async fn begin_generation(&self) -> Result<(), KernelError> {
        let mut name = [0; 16];
        self.entropy.fill(&mut name)?;
        let replica = Arc::clone(&self.replica) as Arc<dyn arca_raft_storage::Changes>;
        let begun = History::begin(&replica, name).await;
        begun.map(drop).map_err(|err| KernelError::Invalid(format!("beginning a generation: {err}")))
    }

    /// Writes down that another cluster is the primary: this one takes no writes from then on, and one that was demoted is
    /// not promoted by mistake. When this returns well, that stands written, or this cluster follows another already.
    pub(super) async fn fence(&self, kind: Kind, heard: &Heard) -> Result<(), KernelError> {
        if arca_danger::is(Bug::FenceNotWrittenDown) {
            return Ok(());
        }
        let heard_at = self.now().0;
        let said = heard.followed.filter(|cursor| !cursor.is_unknown()).map(|cursor| cursor.index);
        let followed = said.unwrap_or_else(|| self.acknowledged_most(kind));
        let mut fenced = None;
        self.commit(|tx| {
            fenced = None;
            let mut role = RoleRecord::load(tx, kind)?;
            if role.authority.is_none() || role.epoch >= heard.epoch.0 {
                return Ok(Vec::new());
            }
            let known_fence = role.fence.take();
            let known = known_fence.clone().unwrap_or_default();
            if known.epoch > heard.epoch.0 {
                return Ok(Vec::new());
            }
            let heard_at = if known.heard_at == 0 { heard_at } else { known.heard_at };
            let is_same = known.epoch == heard.epoch.0;
            let primary_addresses = if is_same && heard.addresses.is_empty() {
                known.primary_addresses
            } else {
                heard.addresses.clone()
            };
            let fence = Fence { epoch: heard.epoch.0, primary_addresses, heard_at };
            let path = tail_path(kind);
            let tail = tx.get_record::<TailRecord>(Class::Node, &path)?;
            let is_tail_news = tail.is_none_or(|tail| said.is_some() && !tail.is_certain);
            if known_fence.as_ref() == Some(&fence) && !is_tail_news {
                return Ok(Vec::new());
            }
            role.fence = Some(fence);
            role.store(tx, kind)?;
            if is_tail_news {
                let tail = TailRecord { after: followed, epoch: heard.epoch.0, is_certain: said.is_some() };
                tx.put_record(Class::Node, &path, &tail)?;
            }
            fenced = Some(role.mode);
            Ok(Vec::new())
        })
        .await?;
        let (epoch, addresses) = (heard.epoch.0, &heard.addresses);
        match fenced {
            Some(Mode::Primary) => tracing::error!(
                epoch,
                ?addresses,
                "another cluster is the primary now: this one takes no writes any more, and keeps what was never shipped"
            ),
            Some(_) => tracing::warn!(
                epoch,
                ?addresses,
                "another cluster took over from this one, which was demoted"
            ),
            None => {}
        }
        Ok(())
    }

    /// The newest entry that a secondary is known to have, here.
    fn acknowledged_most(&self, kind: Kind) -> u64 {
        let secondaries = self.source.secondaries(shipped(kind));
        secondaries
            .iter()
            .filter_map(|status| status.acknowledged)
            .map(|cursor| cursor.index)
            .max()
            .unwrap_or(0)
    }
}
