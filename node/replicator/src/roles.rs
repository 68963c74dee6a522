//! What an operator orders: each changes records in one commit, and what runs follows ([`Replicator::reconcile`]).
//!
//! The kernel has authorized and audited, and checked that the order makes sense in the mode that the cluster is in; what
//! is checked here again is what could have changed since.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Barrier, Class, Keyring, RootKey, boot_key};
use arca_danger::Bug;
use arca_engine_api::{Map, Page};
use arca_kernel::KernelError;
use arca_kernel::ids::uuid;
use arca_kernel::key_keeper::ROOT_KEY_PATH;
use arca_kernel::replication::{
    ActivationToken, Kind, Mode, Promotion, ReplicationPort, RoleRecord, SecondaryToken, SecondaryUpdate,
    UpstreamRecord,
};
use arca_kernel::tx::Tx;
use arca_raft_storage::{Replica as _, Version, Write};
use arca_replication::{
    Cursor, Epoch, ForgetError, LinkError, PrimaryLink, Refusal, Welcome, cursor_key, forget_cursor,
    load_cursor,
};
use async_trait::async_trait;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::activation::Activated;
use super::follower::{NO_PRIMARY, Told};
use super::records::{
    AnnouncementRecord, BootstrapRecord, SecondaryRecord, TokenRecord, announcement_path, bootstrap_path,
    check_id, order_path, tail_path, token_key_path,
};
use super::token::{public_key_from_text, public_key_to_text};
use super::{Replicator, beside, sealed_box, shipped};

/// How long a planned promotion waits for the rest of what the old primary wrote: less than who ordered it waits for an answer.
const DRAIN_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two looks.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

fn expect(kind: Kind, role: &RoleRecord, mode: Mode) -> Result<(), KernelError> {
    if role.mode == mode {
        return Ok(());
    }
    let (is, wanted, kind) = (role.mode.name(), mode.name(), kind.name());
    Err(KernelError::Invalid(format!(
        "this cluster's mode in {kind} replication is {is:?}, and this takes {wanted:?}"
    )))
}

/// Removes every record below a folder.
fn clear(tx: &Tx, folder: &str) -> Result<(), KernelError> {
    for name in tx.list(Class::Node, folder, &Page::default())? {
        tx.delete(Class::Node, &format!("{folder}{name}"))?;
    }
    Ok(())
}

/// Nothing is opened for it: what cannot be read any more must not be in the way of a promotion.
fn clear_if_there(tx: &Tx, path: &str) -> Result<(), KernelError> {
    let version = tx.version(Class::Node, path)?;
    tx.guard(&tx.physical_key(Class::Node, path)?, version);
    if version != Version::ABSENT {
        tx.delete(Class::Node, path)?;
    }
    Ok(())
}

fn put_cursor(kind: Kind, cursor: &Cursor) -> Write {
    Write::Put(cursor_key(shipped(kind)), cursor.encode())
}

impl Replicator {
    async fn primary_token(
        &self,
        kind: Kind,
        wanted: SecondaryToken,
    ) -> Result<ActivationToken, KernelError> {
        let role = self.active()?.role(kind);
        expect(kind, &role, Mode::Primary)?;
        check_id(&wanted.id)?;
        let public_key = match &wanted.public_key {
            Some(text) => Some(public_key_from_text(text).ok_or_else(|| {
                KernelError::invalid("secondary_public_key is none that generate-public-key made")
            })?),
            None => None,
        };
        let token = self.make_token(kind, &role, &wanted.id, wanted.ttl).await?;
        let entropy = &self.entropy;
        let text = token.to_text(public_key.as_deref(), entropy.as_ref());
        let text = text.map_err(|err| KernelError::Invalid(format!("the activation token: {err}")))?;
        tracing::warn!(secondary = wanted.id, accessor = token.accessor, "an activation token was made");
        Ok(ActivationToken { token: text, accessor: token.accessor })
    }

    /// Writes down that this cluster is to become a secondary. Of two such orders, given to two members that both took
    /// themselves for the active one, only the later one is carried out: the primary takes whoever activated last for the
    /// secondary.
    async fn note_order(&self, kind: Kind) -> Result<Version, KernelError> {
        let order = uuid(self.entropy.as_ref())?;
        let index = self.commit(|tx| {
            expect(kind, &RoleRecord::load(tx, kind)?, Mode::Disabled)?;
            tx.put_record(Class::Node, &order_path(kind), &order)?;
            Ok(Vec::new())
        });
        Ok(Version(index.await?))
    }

    /// Stores a token's outcome as the role of this cluster, and what is to be copied.
    async fn become_copy(
        &self,
        (kind, order): (Kind, Version),
        token_id: &str,
        upstream: UpstreamRecord,
        activated: Activated,
    ) -> Result<(), KernelError> {
        let bootstrap = BootstrapRecord { upstream: upstream.clone(), root_key: activated.root_key.clone() };
        let role = RoleRecord {
            mode: Mode::Secondary,
            replication_id: token_id.to_owned(),
            epoch: activated.epoch,
            upstream: Some(upstream),
            ..RoleRecord::default()
        };
        self.commit(|tx| {
            for any in Kind::ALL {
                // Who follows this cluster would follow another state all of a sudden.
                expect(any, &RoleRecord::load(tx, any)?, Mode::Disabled)?;
            }
            if tx.version(Class::Node, &order_path(kind))? != order {
                return Err(KernelError::invalid(
                    "another order to become a secondary was given meanwhile: see sys/replication/status",
                ));
            }
            tx.guard(&tx.physical_key(Class::Node, &order_path(kind))?, order);
            tx.delete(Class::Node, &order_path(kind))?;
            role.store(tx, kind)?;
            tx.put_secret_record(Class::Node, &bootstrap_path(kind), &bootstrap)?;
            Ok(vec![Write::Delete(cursor_key(shipped(kind)))])
        })
        .await
        .map(drop)
    }

    /// What the primary says of itself, or why it does not.
    async fn welcome_of_primary(&self, kind: Kind, role: &RoleRecord) -> Result<Welcome, LinkError> {
        let link: Arc<dyn PrimaryLink> = match self.told(kind) {
            Some(told) => Arc::clone(&told.link),
            None => self.link_to(role).map_err(|err| LinkError::Unreachable(err.to_string()))?,
        };
        link.greet(&self.greeting(role)).await
    }

    /// Refuses to take over from a primary that is well; waits for the last of one that was demoted. Answers the epoch that
    /// it said, zero if it said nothing.
    async fn check_primary_is_over(
        &self,
        kind: Kind,
        role: &RoleRecord,
        promotion: Promotion,
    ) -> Result<u64, KernelError> {
        let is_planned = promotion == Promotion::Planned;
        let welcome = match self.welcome_of_primary(kind, role).await {
            Ok(welcome) => welcome,
            Err(LinkError::Refused(Refusal::Revoked)) => {
                return Err(KernelError::invalid(
                    "the primary answers, and says that it has revoked this secondary: it is well, and would not be told \
                     of the promotion. If it is to be replaced all the same, demote it there, and give force=true",
                ));
            }
            Err(err) if is_planned => {
                return Err(KernelError::Invalid(format!(
                    "the old primary does not answer ({err}): nobody knows whether everything that it wrote is here. Try \
                     again; or promote without planned, if it is lost"
                )));
            }
            Err(_) => return Ok(0),
        };
        if welcome.mode == Mode::Primary.name() && !welcome.is_fenced && welcome.has_leader {
            return Err(KernelError::Invalid(format!(
                "the primary answers and is well (epoch {}): demote it first, so that nothing is lost; or give \
                 force=true, and it will be fenced, with what it had not shipped by then",
                welcome.epoch
            )));
        }
        if arca_danger::is(Bug::DrainSkipped) {
            return Ok(welcome.epoch);
        }
        // A node that is without a leader says what it last knew: the cluster may have been demoted since, or not.
        if !welcome.has_leader && !welcome.is_fenced {
            return Err(KernelError::invalid(
                "a node of the old primary answers, and knows of no active node right now: what the old primary wrote last \
                 may not be here. Try again; or give force=true to go on without",
            ));
        }
        if welcome.mode == Mode::Secondary.name() {
            self.drain(kind, welcome.epoch).await?;
        } else if is_planned {
            return Err(KernelError::invalid("the old primary was not demoted: that comes first"));
        }
        Ok(welcome.epoch)
    }

    /// Waits until everything that the primary has, which was demoted in this epoch, is here.
    async fn drain(&self, kind: Kind, epoch: u64) -> Result<(), KernelError> {
        let heard_at = |told: &Told| told.sink.status().borrow().heard_at_ms;
        let heard_before = self.told(kind).and_then(|told| heard_at(&told));
        let deadline = tokio::time::Instant::now() + DRAIN_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let is_complete = self.told(kind).is_some_and(|told| {
                let now = told.sink.status().borrow().clone();
                // Heard after it was known that nothing more is written there, and of a member that knows it too: one that
                // still applies what came before counts what it has as all there is.
                now.lag_entries() == 0
                    && now.primary_epoch.0 >= epoch
                    && now.heard_at_ms != heard_before
                    && now.ended.is_none()
            });
            if is_complete {
                tracing::info!("everything that the demoted primary wrote is here");
                return Ok(());
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
        Err(KernelError::Invalid(format!(
            "the old primary was demoted and answers, but what it wrote last did not arrive here in time: see \
             sys/replication/{}/status, and try again; or give force=true to go on without",
            kind.name()
        )))
    }

    async fn promoted(
        &self,
        kind: Kind,
        cluster_addr: String,
        promotion: Promotion,
    ) -> Result<u64, KernelError> {
        let is_forced = promotion == Promotion::Forced;
        let role = self.active()?.role(kind);
        expect(kind, &role, Mode::Secondary)?;
        if self.bootstrap_record(kind)?.is_some() {
            return Err(KernelError::invalid(
                "the first copy of the primary's state has not come to its end: there is nothing to promote",
            ));
        }
        let (cursor, _) = self.cursor(kind)?;
        if cursor.is_unknown() && role.upstream.is_some() && !is_forced {
            return Err(KernelError::invalid(
                "the comparison with the primary has not come to its end, so the state may be of two times at once; \
                 give force=true to promote it all the same",
            ));
        }
        let mut heard =
            self.told(kind).and_then(|told| told.heard.lock().welcome.as_ref().map(|said| said.epoch));
        if !is_forced {
            heard = heard.max(Some(self.check_is_free(kind, &role, promotion).await?));
        }
        // Nothing of the old primary's is applied from here on.
        let _paused = self.pause().await;
        let authority = self.new_authority(&role.replication_id)?;
        let mut epoch = 0;
        let committed = self.commit(|tx| {
            let mut role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Secondary)?;
            let (cursor, version) = self.cursor(kind)?;
            let fence = role.fence.as_ref().map_or(0, |fence| fence.epoch);
            let newest = role.epoch.max(cursor.epoch.0).max(fence).max(heard.unwrap_or_default());
            epoch = newest.saturating_add(u64::from(!arca_danger::is(Bug::EpochNotRaised)));
            tx.guard(&cursor_key(shipped(kind)), version);
            role.mode = Mode::Primary;
            role.epoch = epoch;
            role.fence_after_s = 0;
            role.authority = Some(authority.clone());
            role.fence = None;
            role.primary_cluster_addr.clone_from(&cluster_addr);
            if role.upstream.is_some() {
                let news = AnnouncementRecord { epoch, cursor: hex::encode(cursor.encode()) };
                tx.put_record(Class::Node, &announcement_path(kind), &news)?;
            }
            role.store(tx, kind)?;
            clear_if_there(tx, &tail_path(kind))?;
            let mut writes = match kind {
                Kind::Dr => beside::go_on(tx, self.cursor(Kind::Performance)?.1)?,
                Kind::Performance => Vec::new(),
            };
            writes.push(Write::Delete(cursor_key(shipped(kind))));
            Ok(writes)
        });
        committed.await?;
        Ok(epoch)
    }

    /// Refuses a promotion while another cluster is the primary, as far as this one knows or can ask. Answers the newest
    /// epoch that was said.
    async fn check_is_free(
        &self,
        kind: Kind,
        role: &RoleRecord,
        promotion: Promotion,
    ) -> Result<u64, KernelError> {
        if role.upstream.is_some() {
            return self.check_primary_is_over(kind, role, promotion).await;
        }
        let Some(fence) = &role.fence else { return Ok(0) };
        Err(KernelError::Invalid(format!(
            "another cluster has taken over from this one and is the primary since epoch {} (at {}): have this one follow \
             it by update-primary; or give force=true, and there are two primaries until the other one is demoted",
            fence.epoch,
            fence.primary_addresses.join(", ")
        )))
    }

    /// Refuses to let a copy go on by itself while its primary may be at work: what the copy knows of leases is of the
    /// past soon, and what it ended would be credentials that the primary vouches for.
    async fn check_may_be_disabled(&self, kind: Kind, role: &RoleRecord) -> Result<(), KernelError> {
        // Its tokens and leases are its own; what it holds before the first copy is there is its own altogether.
        if kind == Kind::Performance || self.bootstrap_record(kind)?.is_some() {
            return Ok(());
        }
        let said = match &role.upstream {
            Some(_) => match self.welcome_of_primary(kind, role).await {
                Err(LinkError::Refused(Refusal::NotPrimary)) => return Ok(()),
                Ok(welcome) if welcome.is_fenced || welcome.mode == Mode::Secondary.name() => return Ok(()),
                Ok(_) => "its primary answers and is at work",
                Err(LinkError::Refused(Refusal::Revoked)) => "its primary answers, and has only revoked it",
                Err(_) => "its primary does not answer, and may be at work all the same",
            },
            None if role.fence.is_some() => "another cluster has taken over from it",
            None => "it knows no primary, and nobody can be asked",
        };
        Err(KernelError::Invalid(format!(
            "this cluster is a copy, and would serve as if it were the only one: it would end leases as they were when it was \
             copied, at databases and clouds too, and honour tokens that were revoked since. And {said}. To take over, \
             promote it; to retire it, stop it; or give force=true"
        )))
    }

    /// The cursor, and a version of it that refuses a commit if a newer one is there by then.
    fn cursor(&self, kind: Kind) -> Result<(Cursor, Version), KernelError> {
        let found = load_cursor(self.replica.view().as_ref(), shipped(kind));
        found.map_err(|err| KernelError::Replica(err.into()))
    }

    /// A comparison takes over what is shared, and its keys: so these must be of the state that this one is a copy of. What
    /// is this cluster's own beside a performance primary's, tokens and leases, stays as it is: so it must open under them.
    fn check_keys(&self, kind: Kind, activated: &Activated) -> Result<(), KernelError> {
        let damaged = |_| KernelError::invalid("the primary's answer makes no sense to this version");
        let root = Zeroizing::new(hex::decode(&activated.root_key).map_err(damaged)?);
        let keyring = Zeroizing::new(hex::decode(&activated.keyring).map_err(damaged)?);
        let keyring = Keyring::open(&RootKey::from_slice(&root)?, &keyring)?;
        let next = Barrier::new(keyring, Arc::clone(&self.sealing));
        let name = self.barrier.seal_name(Class::Local, ROOT_KEY_PATH)?;
        if next.open_name(&name).is_err() {
            return Err(KernelError::invalid(
                "this activation token is of a cluster with another state: this one is no copy of it, and never was. Nothing \
                 was changed here. To give up what this cluster holds, disable its replication and enable it with a new token \
                 of that cluster",
            ));
        }
        let sealed = self.barrier.seal_value(&name, b"of today")?;
        if kind == Kind::Dr || next.open_value(&name, &sealed).is_ok() {
            return Ok(());
        }
        Err(KernelError::invalid(
            "the keys of that primary do not open what is this cluster's own (tokens and leases): it holds another state, \
             or never got the key that was made last. Nothing was changed. Disable replication here and enable it with a \
             new activation token: everything is copied then, and tokens and leases of this cluster are gone",
        ))
    }

    async fn follow_token(&self, kind: Kind, text: &str) -> Result<(), KernelError> {
        let token = self.read_token(kind, text)?;
        let (upstream, activated) = self.activate(&token).await?;
        self.check_keys(kind, &activated)?;
        let _paused = self.pause().await;
        let announced = self.adopted(&activated)?;
        self.commit(|tx| {
            let mut role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Secondary)?;
            role.replication_id.clone_from(&token.replication_id);
            role.epoch = role.epoch.max(activated.epoch);
            role.upstream = Some(upstream.clone());
            // What followed this cluster when it was a primary has to be told another one.
            role.authority = None;
            role.fence = None;
            role.primary_cluster_addr.clear();
            role.store(tx, kind)?;
            clear(tx, &SecondaryRecord::folder(kind))?;
            clear(tx, &TokenRecord::folder(kind))?;
            clear_if_there(tx, &announcement_path(kind))?;
            let unknown = Cursor { epoch: Epoch(activated.epoch), ..Cursor::default() };
            Ok([put_cursor(kind, &unknown)].into_iter().chain(announced.clone()).collect())
        })
        .await?;
        tracing::warn!(secondary_id = token.secondary_id, "this cluster follows another primary now");
        Ok(())
    }

    async fn set_upstream(
        &self,
        kind: Kind,
        change: impl Fn(&mut RoleRecord) -> Result<(), KernelError> + Send + Sync,
    ) -> Result<(), KernelError> {
        self.commit(|tx| {
            let mut role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Secondary)?;
            change(&mut role)?;
            role.store(tx, kind)?;
            Ok(Vec::new())
        })
        .await
        .map(drop)
    }

    async fn updated(&self, kind: Kind, update: SecondaryUpdate) -> Result<(), KernelError> {
        match update {
            SecondaryUpdate::Token(token) => self.follow_token(kind, &token).await,
            SecondaryUpdate::Addresses(addresses) => {
                let _paused = self.pause().await;
                self.set_upstream(kind, |role| {
                    let upstream = role.upstream.as_mut().ok_or_else(|| KernelError::invalid(NO_PRIMARY))?;
                    upstream.addresses.clone_from(&addresses);
                    upstream.given.clone_from(&addresses);
                    Ok(())
                })
                .await
            }
            SecondaryUpdate::Forget => {
                let _paused = self.pause().await;
                self.set_upstream(kind, |role| {
                    role.upstream = None;
                    Ok(())
                })
                .await
            }
        }
    }

    /// A primary that stops without a DR secondary would stop for good.
    fn check_is_not_last(&self, kind: Kind, role: &RoleRecord, id: &str) -> Result<(), KernelError> {
        let secondaries = self.load_secondaries(kind)?;
        let Some(limit) = role.fence_after().filter(|_| secondaries.contains_key(id)) else { return Ok(()) };
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let since = self.now().0.saturating_sub(limit_ms);
        let heard = self.source.secondaries(shipped(kind));
        let is_heard = |other: &str| {
            heard.iter().any(|status| status.id == other && status.heard_at_ms.is_some_and(|at| at >= since))
        };
        let is_another = |(other, record): (&String, &SecondaryRecord)| {
            other != id && !record.is_revoked && is_heard(other)
        };
        if secondaries.iter().any(is_another) {
            return Ok(());
        }
        Err(KernelError::invalid(
            "this is the only DR secondary that is heard, and the cluster is configured to take no writes without one: set fence_after to 0 \
             at sys/replication/dr/primary/config first",
        ))
    }

    fn me(&self) -> Result<Arc<Self>, KernelError> {
        self.this.upgrade().ok_or(KernelError::Sealed)
    }
}

#[async_trait]
impl ReplicationPort for Replicator {
    fn status(&self, kind: Kind) -> Result<Map, KernelError> {
        self.status_of(kind)
    }

    async fn enable_primary(&self, kind: Kind, cluster_addr: String) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        self.active()?;
        let replication_id = uuid(self.entropy.as_ref())?;
        let authority = self.new_authority(&replication_id)?;
        self.commit(|tx| {
            let role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Disabled)?;
            let enabled = RoleRecord {
                mode: Mode::Primary,
                replication_id: replication_id.clone(),
                epoch: role.epoch + 1,
                primary_cluster_addr: cluster_addr.clone(),
                authority: Some(authority.clone()),
                ..RoleRecord::default()
            };
            enabled.store(tx, kind)?;
            Ok(Vec::new())
        })
        .await?;
        self.begin_generation().await?;
        self.me()?.reconcile().await;
        tracing::warn!(replication_id, kind = kind.name(), "this cluster is a primary now");
        Ok(())
    }

    async fn configure_primary(&self, kind: Kind, fence_after: Duration) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        if !fence_after.is_zero() && !self.active()?.contact().is_within(fence_after) {
            return Err(KernelError::Invalid(format!(
                "no DR secondary has been heard for {} seconds: this cluster would take no writes at once. Wait until one \
                 follows it (see sys/replication/dr/status)",
                fence_after.as_secs()
            )));
        }
        self.commit(|tx| {
            let mut role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Primary)?;
            role.fence_after_s = fence_after.as_secs();
            role.store(tx, kind)?;
            Ok(Vec::new())
        })
        .await?;
        tracing::warn!(?fence_after, "how long writes are taken without hearing a DR secondary was set");
        Ok(())
    }

    async fn demote_primary(&self, kind: Kind) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        self.active()?;
        self.commit(|tx| {
            let mut role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Primary)?;
            role.mode = Mode::Secondary;
            role.epoch = role.epoch.max(role.fence.as_ref().map_or(0, |fence| fence.epoch)) + 1;
            role.upstream = None;
            // Whom it was told of is still the primary.
            role.store(tx, kind)?;
            clear_if_there(tx, &announcement_path(kind))?;
            Ok(Vec::new())
        })
        .await?;
        self.me()?.reconcile().await;
        tracing::warn!(
            kind = kind.name(),
            "this cluster was demoted: it is a secondary that knows no primary"
        );
        Ok(())
    }

    async fn disable_primary(&self, kind: Kind) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        self.active()?;
        self.commit(|tx| {
            let role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Primary)?;
            if let Some(fence) = &role.fence {
                return Err(KernelError::Invalid(format!(
                    "another cluster is the primary since epoch {}: without replication this one would write again beside \
                     it, and end leases whose credentials that one vouches for. Demote it (primary/demote) and have it follow \
                     the new primary (secondary/update-primary)",
                    fence.epoch
                )));
            }
            disable(tx, kind, &role)
        })
        .await?;
        self.me()?.reconcile().await;
        tracing::warn!(
            kind = kind.name(),
            "this cluster is no primary any more: its secondaries have nobody to follow"
        );
        Ok(())
    }

    async fn secondary_token(
        &self,
        kind: Kind,
        wanted: SecondaryToken,
    ) -> Result<ActivationToken, KernelError> {
        let _order = self.orders.lock().await;
        self.primary_token(kind, wanted).await
    }

    async fn revoke_secondary(&self, kind: Kind, id: &str) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        let role = self.active()?.role(kind);
        expect(kind, &role, Mode::Primary)?;
        check_id(id)?;
        self.check_is_not_last(kind, &role, id)?;
        let mut is_known = false;
        self.commit(|tx| {
            // Tokens of that name that nobody has used yet are good for nothing either.
            for accessor in tx.list(Class::Node, &TokenRecord::folder(kind), &Page::default())? {
                let path = TokenRecord::path(kind, &accessor);
                let of_it = tx.get_record::<TokenRecord>(Class::Node, &path)?;
                if of_it.is_some_and(|token| token.secondary_id == id) {
                    tx.delete(Class::Node, &path)?;
                    is_known = true;
                }
            }
            if let Some(record) = SecondaryRecord::load(tx, kind, id)? {
                let revoked = SecondaryRecord { is_revoked: true, ..record };
                tx.put_record(Class::Node, &SecondaryRecord::path(kind, id), &revoked)?;
                is_known = true;
            }
            Ok(Vec::new())
        })
        .await?;
        if !is_known {
            return Err(KernelError::Invalid(format!("no secondary of the id {id:?} is known")));
        }
        self.me()?.reconcile().await;
        self.surroundings.end(&role.replication_id, id);
        tracing::warn!(secondary = id, "a secondary was revoked");
        Ok(())
    }

    async fn generate_public_key(&self, kind: Kind) -> Result<String, KernelError> {
        let _order = self.orders.lock().await;
        self.active()?;
        let made = sealed_box::key_pair(self.entropy.as_ref());
        let (private, public) = made.map_err(|err| KernelError::Bug(format!("making a key pair: {err}")))?;
        self.commit(|tx| {
            tx.put(Class::Node, &token_key_path(kind), private.clone())?;
            Ok(Vec::new())
        })
        .await?;
        Ok(public_key_to_text(&public))
    }

    async fn enable_secondary(&self, kind: Kind, token: Zeroizing<String>) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        expect(kind, &self.active()?.role(kind), Mode::Disabled)?;
        let token = self.read_token(kind, &token)?;
        let order = self.note_order(kind).await?;
        let (upstream, activated) = self.activate(&token).await?;
        self.become_copy((kind, order), &token.replication_id, upstream, activated).await?;
        self.me()?.reconcile().await;
        tracing::warn!(secondary_id = token.secondary_id, "this cluster becomes a copy of its primary");
        Ok(())
    }

    async fn promote_secondary(
        &self,
        kind: Kind,
        cluster_addr: String,
        promotion: Promotion,
    ) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        let promoted = self.promoted(kind, cluster_addr, promotion).await;
        let me = self.me()?;
        // What is done is done: a generation that could not be begun is begun in a moment.
        if promoted.is_ok()
            && let Err(err) = self.begin_generation().await
        {
            tracing::warn!(error = %err, "secondaries cannot be served yet");
        }
        // If it was refused, the primary is followed on.
        me.reconcile().await;
        let epoch = promoted?;
        tracing::warn!(epoch, kind = kind.name(), "this cluster is the primary now");
        Ok(())
    }

    async fn disable_secondary(&self, kind: Kind, is_forced: bool) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        let role = self.active()?.role(kind);
        expect(kind, &role, Mode::Secondary)?;
        if !is_forced {
            self.check_may_be_disabled(kind, &role).await?;
        }
        let paused = self.pause().await;
        let disabled = self.commit(|tx| {
            let role = RoleRecord::load(tx, kind)?;
            expect(kind, &role, Mode::Secondary)?;
            let is_cancelled = tx.version(Class::Node, &bootstrap_path(kind))? != Version::ABSENT;
            let mut writes = disable(tx, kind, &role)?;
            if is_cancelled {
                // Who has the key shares of this cluster has no business with the primary's root key. But if the copy was
                // taken in after all, members need it to change over.
                let keyring = boot_key("keyring");
                let found =
                    self.replica.view().get(&keyring).map_err(|err| KernelError::Replica(err.into()))?;
                tx.guard(&keyring, found.map_or(Version::ABSENT, |found| found.version));
                writes.push(self.keys.no_successor_entry());
            }
            Ok(writes)
        });
        disabled.await?;
        drop(paused);
        self.me()?.reconcile().await;
        tracing::warn!("this cluster follows nobody any more; it keeps what it holds");
        Ok(())
    }

    async fn update_primary(&self, kind: Kind, update: SecondaryUpdate) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        expect(kind, &self.active()?.role(kind), Mode::Secondary)?;
        if self.bootstrap_record(kind)?.is_some() {
            return Err(KernelError::invalid(
                "the first copy of the primary's state has not come to its end: disable this secondary and enable it \
                 again with a token of the other primary",
            ));
        }
        let updated = self.updated(kind, update).await;
        // If it was refused, the primary of before is followed on.
        self.me()?.reconcile().await;
        updated
    }

    async fn reindex(&self, kind: Kind) -> Result<(), KernelError> {
        let _order = self.orders.lock().await;
        let role = self.active()?.role(kind);
        if role.mode != Mode::Secondary {
            // Nothing is derived from the state that could be wrong: secondaries compare the state itself.
            return Ok(());
        }
        if role.upstream.is_none() {
            return Err(KernelError::invalid(NO_PRIMARY));
        }
        if self.bootstrap_record(kind)?.is_some() {
            return Ok(());
        }
        let paused = self.pause().await;
        // Its epoch stays: the role's may be newer than anything that the primary ever says.
        let forgotten = forget_cursor(self.replica.as_ref(), shipped(kind)).await;
        drop(paused);
        self.me()?.reconcile().await;
        forgotten.map_err(|err| match err {
            ForgetError::Kv(err) => KernelError::Replica(err.into()),
            ForgetError::Propose(err) => err.into(),
        })
    }

    async fn merkle_check(&self) -> Result<Map, KernelError> {
        self.checked_state().await
    }

    async fn tail(&self, kind: Kind, after: Option<String>, limit: usize) -> Result<Map, KernelError> {
        self.tail_of(kind, after, limit).await
    }

    async fn await_secondaries(
        &self,
        kind: Kind,
        index: u64,
        patience: Duration,
    ) -> Result<usize, KernelError> {
        self.active()?;
        self.until_applied_by_secondaries(kind, index, patience).await
    }

    async fn ask_primary(&self, question: Bytes) -> Result<Bytes, KernelError> {
        self.asked_of_primary(question).await
    }

    async fn await_primary(&self, index: u64, patience: Duration) -> Result<bool, KernelError> {
        self.awaited_primary(index, patience).await
    }

    fn primary_index(&self) -> Option<u64> {
        self.applied_of_primary()
    }

    fn is_current(&self) -> bool {
        Self::is_current(self)
    }
}

/// Makes the cluster nothing to any other. The epoch stays: it never goes back.
fn disable(tx: &Tx, kind: Kind, role: &RoleRecord) -> Result<Vec<Write>, KernelError> {
    RoleRecord { epoch: role.epoch + 1, ..RoleRecord::default() }.store(tx, kind)?;
    clear(tx, &SecondaryRecord::folder(kind))?;
    clear(tx, &TokenRecord::folder(kind))?;
    for path in [announcement_path(kind), tail_path(kind), bootstrap_path(kind)] {
        clear_if_there(tx, &path)?;
    }
    Ok(vec![Write::Delete(cursor_key(shipped(kind)))])
}
