//! What a primary does for its performance secondaries: it runs the requests that write what is shared, and brings
//! identities up to date for their logins.
//!
//! **What is trusted.** The link says which secondary asks. What that says about its callers (their policies, entity,
//! metadata, whether they are root) is believed: it holds the root key, so it could read and write everything of the
//! state that it has, and sign whatever it wants; to doubt its word would protect nothing. What a policy lets a caller do,
//! and whether its entity is disabled, is decided by the state here, as for callers of this cluster, and audited.
//! **Invariant:** nothing is run for a secondary but what writes something shared. Whatever else it asks for, of tokens,
//! leases, local mounts, seals, members, is refused before it runs, or comes to nothing.
//! Read next: [`super::ask`] for the secondary's side, [`crate::pipeline`] for the road that requests take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::{EngineKind, Login};
use bytes::Bytes;
use parking_lot::Mutex;

use super::filter;
use super::question::{
    AskingToken, DoneReply, EntityQuestion, LoginReply, Question, RawReply, Reply, RequestQuestion,
    operation_of,
};
use super::record::{Kind, Mode};
use crate::admission::{Admitted, Asked};
use crate::answer::{Answer, AnswerBody, Shape};
use crate::builtin::BuiltinAnswer;
use crate::identity::AliasOf;
use crate::kernel::Kernel;
use crate::pipeline::{Ran, answer_of};
use crate::tokens::TokenEntry;
use crate::tokens::entry::TokenType;
use crate::tx::{Mode as TxMode, Tx};
use crate::{Body, Incoming, KernelError};

/// Times an identity is tried to be written on conflicts.
const ATTEMPTS_MAX: usize = 32;

/// The secondary that a request is run for.
pub(crate) struct Behalf {
    /// Its name.
    pub(crate) secondary_id: String,
    /// Its token, as the secondary knows it.
    pub(crate) caller: Option<Arc<TokenEntry>>,
    /// What the last run leaves for the secondary to do.
    handed: Mutex<Option<Handed>>,
    /// Entry by which everything was written.
    written_by: AtomicU64,
}

impl Behalf {
    /// Notes that everything up to `index` is written.
    pub(crate) fn note_written(&self, index: u64) {
        self.written_by.fetch_max(index, Ordering::AcqRel);
    }
}

/// What a request leaves for the secondary to do.
pub(crate) struct Handed {
    login: Option<Login>,
    entity_id: String,
    shape: Shape,
}

impl Kernel {
    /// Answers what the performance secondary `secondary_id` asks, which the link has authenticated. What speaks against
    /// the question is in the answer.
    ///
    /// # Errors
    /// [`KernelError::NeedsActive`] on a standby, and [`KernelError::Sealed`]: nothing was done.
    pub async fn answer_secondary(&self, secondary_id: &str, question: Bytes) -> Result<Bytes, KernelError> {
        let _inside = self.enter()?;
        if !self.is_active() {
            return Err(KernelError::NeedsActive);
        }
        match self.answer(secondary_id, &question).await {
            Ok(reply) => reply.encode(),
            Err(err @ (KernelError::NeedsActive | KernelError::Sealed)) => Err(err),
            Err(err) => Reply::refused(&err).encode(),
        }
    }

    async fn answer(&self, secondary_id: &str, question: &[u8]) -> Result<Reply, KernelError> {
        let standing = self.standing();
        standing.check_writes()?;
        if standing.role(Kind::Performance).mode != Mode::Primary {
            return Err(KernelError::invalid("this cluster is not the primary of performance secondaries"));
        }
        self.store.read_barrier().await?;
        match Question::decode(question)? {
            Question::Entity(question) => self.bring_up_to_date(secondary_id, &question).await,
            Question::Request(question) => Box::pin(self.run_for(secondary_id, *question)).await,
        }
    }

    async fn run_for(&self, secondary_id: &str, question: RequestQuestion) -> Result<Reply, KernelError> {
        let mut asked = asked(secondary_id, question)?;
        let _shown = self.in_flight.enter(&asked.incoming, self.clock.now());
        let answer = match self.serve_asked(&mut asked).await {
            Ok(answer) => answer,
            Err(KernelError::NothingShared) => {
                return Ok(Reply::NothingShared { index: self.applied_index() });
            }
            Err(err) => return Err(err),
        };
        let Some(behalf) = asked.behalf else {
            return Err(KernelError::Bug("a request for a secondary without one".to_owned()));
        };
        let index = behalf.written_by.into_inner();
        let handed = behalf.handed.into_inner();
        let handed = handed.ok_or_else(|| KernelError::Bug("nothing is handed over".to_owned()))?;
        Ok(Reply::Done(Box::new(done(*answer, handed, index))))
    }

    /// In place of what is granted to callers of this cluster.
    pub(crate) fn hand_over(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
        mut given: BuiltinAnswer,
    ) -> Result<Ran, KernelError> {
        let Some(behalf) = &asked.behalf else {
            return Err(KernelError::Bug("nobody to hand over to".to_owned()));
        };
        if given.response.lease.take().is_some() {
            return Err(no_lease(tx));
        }
        if given.auth.is_some()
            || given.lease.is_some()
            || given.wrap_info.is_some()
            || given.stream.is_some()
        {
            return Err(KernelError::NothingShared);
        }
        let (login, shape) = (given.response.login.take(), given.shape);
        let entity_id = match (&login, &admitted.mount) {
            (Some(login), Some(mount)) => {
                self.entity_of_login(tx, asked, &admitted.namespace, mount, login)?
            }
            _ => String::new(),
        };
        let (answer, after) = answer_of(asked, admitted, given);
        *behalf.handed.lock() = Some(Handed { login, entity_id, shape });
        Ok(Ran::answered(answer, after))
    }

    async fn bring_up_to_date(
        &self,
        secondary_id: &str,
        question: &EntityQuestion,
    ) -> Result<Reply, KernelError> {
        for _ in 0..ATTEMPTS_MAX {
            let tx = self.store.begin(TxMode::ReadWrite);
            let id = self.stage_entity(&tx, secondary_id, question)?;
            let seen = tx.index();
            match self.store.commit(tx).await {
                Ok(committed) => {
                    return Ok(Reply::Entity {
                        id,
                        index: committed.map_or(seen, |committed| committed.index),
                    });
                }
                Err(err) if err.is_conflict() => {}
                Err(err) => return Err(err),
            }
        }
        Err(KernelError::Contention)
    }

    fn stage_entity(
        &self,
        tx: &Tx,
        secondary_id: &str,
        question: &EntityQuestion,
    ) -> Result<String, KernelError> {
        let router = self.mounts.router(&self.store)?;
        if !router.namespaces().iter().any(|namespace| namespace.id == question.namespace_id) {
            return Err(KernelError::NotFound("namespace not found".to_owned()));
        }
        let book = self.book(tx, &question.namespace_id);
        let (accessor, groups) = (question.mount_accessor.as_str(), &question.group_aliases);
        let mount = router.by_accessor(&question.namespace_id, accessor);
        // Whatever the secondary calls it: who is who at a method that is kept from it is not for it to say.
        if let Some(mount) = mount
            && filter::withholds(tx, secondary_id, mount)?
        {
            return Err(KernelError::invalid(filter::METHOD_KEPT));
        }
        if !question.is_local && !question.alias_name.is_empty() {
            let mount = mount.filter(|mount| {
                mount.is_active() && !mount.record.is_local && mount.record.kind() == EngineKind::Auth
            });
            let mount = mount.ok_or_else(|| KernelError::invalid("the primary has no such auth method"))?;
            tx.guard(&mount.guard.0, mount.guard.1);
            let alias = AliasOf { mount_accessor: accessor, is_local: false, name: &question.alias_name };
            return Ok(book.log_in(alias, &question.alias_metadata, groups)?.id);
        }
        let mut entity = match question.entity_id.as_str() {
            "" => book.new_entity("")?,
            known => book.entity_of_token(known)?.ok_or(KernelError::Denied)?,
        };
        if entity.is_disabled {
            return Err(KernelError::Denied);
        }
        book.refresh_groups(&mut entity, accessor, groups)?;
        book.save_entity(&entity)?;
        Ok(entity.id)
    }
}

/// Why a request that grants a lease does nothing for a secondary. The lease would be the secondary's, and what it is on
/// written here: should the answer be lost on the way, nobody would ever take it back.
pub(crate) fn no_lease(tx: &Tx) -> KernelError {
    if tx.writes_shared() {
        return KernelError::invalid(
            "what this issues is stored at the primary: ask there, a performance secondary cannot lease it",
        );
    }
    KernelError::NothingShared
}

fn asked(secondary_id: &str, question: RequestQuestion) -> Result<Asked, KernelError> {
    let certificates: Result<Vec<Vec<u8>>, _> =
        question.client_certificates.iter().map(hex::decode).collect();
    let certificates =
        certificates.map_err(|_| KernelError::Bug("a certificate in no hexadecimal".to_owned()))?;
    let incoming = Incoming {
        operation: operation_of(&question.operation)?,
        id: question.id,
        namespace: question.namespace,
        path: question.path,
        body: Body::Fields(question.data),
        headers: question.headers,
        token: None,
        remote_addr: question.remote_addr,
        remote_port: question.remote_port,
        client_certificates: certificates.into(),
        wrap_ttl: question.wrap_ttl_ms.map(Duration::from_millis),
        wants_jwt_wrapping: false,
        required_index: Vec::new(),
        forwarded_from: Some(format!("performance secondary {secondary_id}")),
        forwards_when_behind: false,
        allows_stale: false,
    };
    let caller = question.caller.map(|token| Arc::new(entry(token)));
    let behalf = Behalf {
        secondary_id: secondary_id.to_owned(),
        caller,
        handed: Mutex::default(),
        written_by: AtomicU64::default(),
    };
    Ok(Asked { behalf: Some(behalf), ..Asked::new(incoming) })
}

/// The token as if it were of this cluster, and found good. Its uses are counted at the secondary.
fn entry(token: AskingToken) -> TokenEntry {
    TokenEntry {
        key: token.key,
        accessor: token.accessor,
        display_name: token.display_name,
        policies: token.policies,
        no_identity_policies: token.no_identity_policies,
        metadata: token.metadata,
        entity_id: token.entity_id,
        entity_namespace_id: token.entity_namespace_id,
        namespace_id: token.namespace_id,
        namespace_path: token.namespace_path,
        kind: if token.is_batch { TokenType::Batch } else { TokenType::Service },
        created: token.created,
        ttl: Duration::from_millis(token.ttl_ms),
        ..TokenEntry::default()
    }
}

fn done(answer: Answer, handed: Handed, index: u64) -> DoneReply {
    let Handed { login, entity_id, shape } = handed;
    let raw = if let AnswerBody::Raw(raw) = &answer.body { Some(RawReply::of(raw)) } else { None };
    DoneReply {
        index,
        data: answer.data,
        warnings: answer.warnings,
        accessor: answer.accessor,
        raw,
        is_missing: answer.is_missing,
        status: answer.status,
        lease_seconds: answer.lease_duration,
        shape,
        login: login.map(LoginReply::from),
        entity_id,
    }
}
