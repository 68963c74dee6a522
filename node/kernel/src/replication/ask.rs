//! What a performance secondary has done at its primary: requests that write what is shared, and what a login changes of
//! identities. Everything else, the tokens, leases and wrappings of those very requests too, is made here.
//!
//! A request is run here first, on a transaction. If it staged anything shared, nothing of that is committed, and the call
//! itself is made at the primary, where it is decided anew. Nothing outside is done before that: intents, and what waits
//! for a commit, come after it. What staged and says nothing, or failed, although it is declared to write, may only look so
//! because the state here is older than the primary's: the primary is asked as well, and says whether there is anything
//! shared to write. **Invariant:** nobody has to remember any of this for nothing shared to be written here:
//! [`super::Standing::admit`] refuses that.
//! Read next: [`super::question`] for what is said, [`super::answer`] for the primary's side.

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{Access, Fault, Response};
use arca_raft_storage::{Committed, ProposeError};

use super::port::ReplicationPort;
use super::question::{AskingToken, DoneReply, EntityQuestion, Question, Reply, RequestQuestion, fault_of};
use crate::KernelError;
use crate::admission::{Admitted, Asked};
use crate::answer::Answer;
use crate::builtin::BuiltinAnswer;
use crate::kernel::Kernel;
use crate::pipeline::Ran;
use crate::router::Serves as MountServes;
use crate::tokens::TokenEntry;
use crate::tx::{Mode, Tx};

/// Longest wait until what was written at the primary is here.
pub(crate) const ARRIVAL_PATIENCE: Duration = Duration::from_secs(2);
/// Times what follows here is repeated on conflicts.
const ATTEMPTS_MAX: usize = 32;

/// Paths below `sys/` of what is shared. Of all others a primary does nothing for a secondary.
const SHARED_SYSTEM_PATHS: &[&str] = &[
    "auth/",
    "config/auditing/request-headers/",
    "config/cors",
    "mounts/",
    "policies/",
    "policy/",
    "remount",
];

/// What is known of the identity of whoever logs in with a request.
#[derive(Debug, Default)]
pub(crate) enum EntityKnown {
    /// What the state here says.
    #[default]
    AsHere,
    /// The primary brought it up to date, and that is here.
    Is(String),
    /// The primary could not be asked, or refused.
    Failed(KernelError),
}

impl Admitted {
    /// Whether a performance secondary may have this run at its primary: what makes no sense there is left out, and what
    /// each cluster has of its own.
    pub(crate) fn is_of_what_is_shared(&self) -> bool {
        let Some(mount) = &self.mount else { return false };
        let path = self.request.path.as_str();
        match mount.serves {
            MountServes::Engine(_) => !mount.record.is_local,
            MountServes::Identity => true,
            MountServes::System => SHARED_SYSTEM_PATHS
                .iter()
                .any(|shared| if shared.ends_with('/') { path.starts_with(shared) } else { path == *shared }),
            MountServes::Token => path.starts_with("roles/"),
            MountServes::Unknown => false,
        }
    }
}

impl Kernel {
    /// Whether this cluster shares a primary's state, and writes what is shared there.
    pub(crate) fn is_performance_secondary(&self) -> bool {
        !self.store.serves_all() && self.standing().is_performance_secondary()
    }

    fn port(&self) -> Result<Arc<dyn ReplicationPort>, KernelError> {
        self.cluster.replication().ok_or(KernelError::Sealed)
    }

    /// Why a request that ran here is to be run at the primary instead, if it is. `changes` were staged before it ran.
    pub(crate) fn is_for_primary(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
        ran: &Result<Ran, KernelError>,
        changes: usize,
    ) -> Option<KernelError> {
        if !self.is_performance_secondary() {
            return None;
        }
        match ran {
            Ok(_) if tx.writes_shared() => Some(KernelError::NeedsPrimary),
            _ => {
                let is_so = self.may_be_older(asked, admitted) && is_doubtful(ran, tx.changes() == changes);
                is_so.then_some(KernelError::Doubtful)
            }
        }
    }

    /// Whether the primary may find something to write where nothing was found here. A use of a token is taken once, so
    /// for tokens that count them what is here decides.
    fn may_be_older(&self, asked: &Asked, admitted: &Admitted) -> bool {
        let is_open = admitted.found.is_none_or(|found| found.route.access == Access::Unauthenticated);
        !asked.is_ours
            && !is_open
            && admitted.writes()
            && admitted.is_of_what_is_shared()
            && !asked.incoming.wants_jwt_wrapping
            && !self.takes_use(admitted)
    }

    async fn ask(&self, question: &Question) -> Result<Reply, KernelError> {
        let reply = self.port()?.ask_primary(question.encode()?).await?;
        match Reply::decode(&reply)? {
            Reply::Refused { fault, messages } => Err(refused(fault_of(&fault), messages)),
            reply => Ok(reply),
        }
    }

    /// Waits until the primary's entry is applied here; false if it is not in time.
    async fn arrives(&self, index: u64) -> Result<bool, KernelError> {
        self.port()?.await_primary(index, ARRIVAL_PATIENCE).await
    }

    /// Has a request run at the primary and does what is left to do here. `None` when it writes nothing shared after all:
    /// it is to be run here, on a state as new as the primary's.
    pub(crate) async fn run_at_primary(
        &self,
        asked: &Asked,
        admitted: &Admitted,
    ) -> Result<Option<Box<Answer>>, KernelError> {
        if !admitted.is_of_what_is_shared() {
            return Err(KernelError::NeedsPrimary);
        }
        self.check_is_worth_asking(admitted)?;
        // In front of what it pays for: of two requests on the last use only one gets there.
        if self.takes_use(admitted) {
            self.commit_staged(|tx| self.spend(tx, admitted)).await?;
        }
        metrics::counter!("vault.replication.performance.forwarded").increment(1);
        match self.ask(&Question::Request(Box::new(question(asked, admitted)))).await? {
            Reply::Done(done) => self.receive(asked, admitted, &done).await.map(Some),
            Reply::NothingShared { index } => {
                self.arrives(index).await?;
                Ok(None)
            }
            Reply::Entity { .. } | Reply::Refused { .. } => {
                Err(KernelError::Bug("the primary answered another question".to_owned()))
            }
        }
    }

    /// Refuses what takes something that is counted and would come to nothing: a login is good for nothing until what it
    /// did at the primary is here.
    fn check_is_worth_asking(&self, admitted: &Admitted) -> Result<(), KernelError> {
        let is_login = admitted.found.is_some_and(|found| found.route.access == Access::Unauthenticated);
        if (is_login || self.takes_use(admitted)) && !self.port()?.is_current() {
            let reason =
                "this cluster is comparing its state with the primary's; nothing was done, try again"
                    .to_owned();
            return Err(KernelError::NoPrimary { reason });
        }
        Ok(())
    }

    /// Makes of a primary's answer what belongs to this cluster: a token, a wrapping, the answer.
    async fn receive(
        &self,
        asked: &Asked,
        admitted: &Admitted,
        done: &DoneReply,
    ) -> Result<Box<Answer>, KernelError> {
        let is_here = self.arrives(done.index).await?;
        if done.login.is_some() {
            if !is_here {
                return Err(KernelError::NotYet); // A token whose entity is not here yet would be refused.
            }
            *asked.entity.lock() = EntityKnown::Is(done.entity_id.clone());
        }
        for _ in 0..ATTEMPTS_MAX {
            let tx = self.store.begin(Mode::ReadWrite);
            if done.login.is_some() {
                self.hold_mount(&tx, admitted)?;
                self.forget_failures(&tx, admitted)?;
            }
            let Ran { mut answer, .. } = self.grant(&tx, asked, admitted, answered(done)?)?;
            match self.store.commit(tx).await {
                Ok(committed) => {
                    if !is_here {
                        answer.warnings.push(LATE.to_owned());
                    }
                    let local = committed.map_or_else(|| self.applied_index(), |Committed { index }| index);
                    answer.index = self.stated(local, Some(done.index))?;
                    return Ok(answer);
                }
                Err(err) if err.is_conflict() => {}
                // It was done at the primary, and must not be done again.
                Err(KernelError::NeedsActive) => {
                    return Err(KernelError::Propose(ProposeError::OutcomeUnknown));
                }
                Err(err) => return Err(err),
            }
        }
        Err(KernelError::Contention)
    }

    /// Takes back the failed logins of whoever logs in. It was staged once, with what the primary has now done instead.
    fn forget_failures(&self, tx: &Tx, admitted: &Admitted) -> Result<(), KernelError> {
        let Some(mount) = &admitted.mount else { return Ok(()) };
        let engine = mount.engine()?;
        match engine.login_name(&admitted.request).filter(|_| engine.locks_names()) {
            Some(name) => self.unlock(tx, &mount.namespace, &mount.record.accessor, &name),
            None => Ok(()),
        }
    }

    /// Makes the commit depend on the mount being there and active, as it is known now.
    fn hold_mount(&self, tx: &Tx, admitted: &Admitted) -> Result<(), KernelError> {
        let uuid = admitted.mount.as_ref().map_or("", |mount| mount.record.uuid.as_str());
        let router = self.mounts.router(&self.store)?;
        let mount = router.by_uuid(uuid).filter(|mount| mount.is_active());
        let (key, version) = &mount.ok_or_else(|| KernelError::NotFound(String::new()))?.guard;
        tx.guard(key, *version);
        Ok(())
    }

    /// Asks the primary for the identity of a login, and waits until that is here.
    ///
    /// # Errors
    /// When it cannot be asked, refuses, or what it wrote does not arrive in time.
    pub(crate) async fn learn_entity(
        &self,
        asked: &Asked,
        question: EntityQuestion,
    ) -> Result<(), KernelError> {
        if matches!(&*asked.entity.lock(), EntityKnown::Is(_)) {
            return Err(KernelError::NotYet); // It was asked, and still there is something to write.
        }
        if !self.port()?.is_current() {
            return Err(KernelError::NotYet);
        }
        let Reply::Entity { id, index } = self.ask(&Question::Entity(question)).await? else {
            return Err(KernelError::Bug("the primary answered another question".to_owned()));
        };
        if !self.arrives(index).await? {
            return Err(KernelError::NotYet);
        }
        *asked.entity.lock() = EntityKnown::Is(id);
        Ok(())
    }

    /// The newest entry that is applied here.
    pub(crate) fn applied_index(&self) -> u64 {
        self.store.replica().status().applied_index
    }
}

const LATE: &str = "the primary has written this, and it has not arrived at this performance secondary yet: what is read here \
                    may be older for a moment";

/// As the primary refused. That it takes no writes now is its own state, and would be understood as that of this cluster:
/// here it is as good as out of reach, for nothing was done.
fn refused(fault: Fault, messages: Vec<String>) -> KernelError {
    match fault {
        Fault::DrSecondary | Fault::Fenced => {
            KernelError::NoPrimary { reason: format!("it takes no writes: {}", messages.join("; ")) }
        }
        fault => KernelError::ToldByPrimary { fault, messages },
    }
}

/// Whether a newer state might have it otherwise: nothing was found to do, or what was asked for makes no sense.
fn is_doubtful(ran: &Result<Ran, KernelError>, staged_nothing: bool) -> bool {
    match ran {
        Ok(ran) => {
            let answer = &ran.answer;
            let says_nothing = answer.data.is_none() && answer.auth.is_none() && answer.lease_id.is_empty();
            staged_nothing && says_nothing && ran.after.is_none() && ran.errand.is_none()
        }
        Err(KernelError::NeedsEntity(_) | KernelError::NeedsActive) => false,
        Err(err) => matches!(err.fault(), Fault::Invalid | Fault::NotFound),
    }
}

fn question(asked: &Asked, admitted: &Admitted) -> RequestQuestion {
    use arca_engine_api::Operation::{Create, Update};
    let (incoming, request) = (&asked.incoming, &admitted.request);
    let operation = if request.operation == Create { Update } else { request.operation };
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    RequestQuestion {
        id: incoming.id.clone(),
        operation: operation.as_str().to_owned(),
        namespace: incoming.namespace.clone(),
        path: incoming.path.clone(),
        data: request.data.clone(),
        headers: request.headers.clone(),
        remote_addr: incoming.remote_addr,
        remote_port: incoming.remote_port,
        client_certificates: incoming.client_certificates.iter().map(hex::encode).collect(),
        wrap_ttl_ms: incoming.wrap_ttl.map(millis),
        caller: admitted.caller.as_ref().map(|caller| asking(&caller.entry)),
    }
}

/// A token that was found good here, as the primary needs to know it.
fn asking(entry: &TokenEntry) -> AskingToken {
    AskingToken {
        key: entry.key.clone(),
        accessor: entry.accessor.clone(),
        display_name: entry.display_name.clone(),
        policies: entry.policies.clone(),
        no_identity_policies: entry.no_identity_policies,
        metadata: entry.metadata.clone(),
        entity_id: entry.entity_id.clone(),
        entity_namespace_id: entry.entity_namespace_id.clone(),
        namespace_id: entry.namespace_id.clone(),
        namespace_path: entry.namespace_path.clone(),
        is_batch: entry.is_batch(),
        created: entry.created,
        ttl_ms: u64::try_from(entry.ttl.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What the engine answered at the primary, as if it had here.
fn answered(done: &DoneReply) -> Result<BuiltinAnswer, KernelError> {
    let response = Response {
        data: done.data.clone(),
        warnings: done.warnings.clone(),
        accessor: done.accessor.clone(),
        login: done.login.clone().map(Into::into),
        raw: done.raw.as_ref().map(|raw| raw.to_raw()).transpose()?,
        is_missing: done.is_missing,
        status: done.status,
        lease_duration_hint: (done.lease_seconds > 0).then(|| Duration::from_secs(done.lease_seconds)),
        ..Response::default()
    };
    Ok(BuiltinAnswer { shape: done.shape, ..response.into() })
}
