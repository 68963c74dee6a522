//! Paths the kernel serves itself, below `sys/` and `auth/token/`: groups of routes with a handler, routed,
//! authorized and audited exactly like an engine's.

use std::sync::Arc;

use arca_engine_api::{Request, Response, RouteTable};
use arca_raft_storage::SnapshotStream;
use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::answer::{Shape, WrapInfo};
use crate::kernel::Kernel;
use crate::leases::LeaseEntry;
use crate::namespaces::Namespace;
use crate::policy::Acl;
use crate::replication::EntityKnown;
use crate::tokens::{NewToken, TokenEntry};
use crate::tx::Tx;
use crate::{Incoming, KernelError};

/// A group of built-in paths.
#[async_trait]
pub(crate) trait Builtin: Send + Sync {
    /// Patterns relative to the mount (`policies/acl/{name}`, `create/{role}`).
    fn routes(&self) -> &RouteTable;

    /// Serves one request whose route matched. Runs again when the commit conflicts: what acts on the world outside
    /// the transaction goes into [`BuiltinAnswer::after`].
    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError>;

    /// Whether something is already at the request's path; `None` when the path knows no difference.
    fn exists(&self, _ctx: &BuiltinCtx<'_>, _request: &Request) -> Result<Option<bool>, KernelError> {
        Ok(None)
    }
}

/// What a built-in may touch while it handles one request.
pub(crate) struct BuiltinCtx<'a> {
    /// Everything.
    pub(crate) kernel: &'a Kernel,
    /// The request's transaction.
    pub(crate) tx: &'a Tx,
    /// The namespace the request is in.
    pub(crate) namespace: &'a Namespace,
    /// The caller's token, unless the route takes anybody.
    pub(crate) token: Option<&'a TokenEntry>,
    /// What the caller's policies amount to.
    pub(crate) acl: Option<&'a Acl>,
    /// The request as it arrived, without its body.
    pub(crate) incoming: &'a Incoming,
    /// The performance secondary that it runs for, if it does.
    pub(crate) secondary_id: Option<&'a str>,
    /// On a performance secondary, what the primary said about the entity that the request is to do with.
    pub(crate) entity: &'a Mutex<EntityKnown>,
    /// A streamed body: whoever reads it takes it out, after the commit.
    pub(crate) incoming_body: &'a Arc<Mutex<Option<SnapshotStream>>>,
}

/// What was done once the transaction was committed.
#[derive(Default)]
pub(crate) struct Done {
    /// In place of the response given before.
    pub(crate) response: Response,
    /// A token that is shown as a wrapping token.
    pub(crate) wrap_info: Option<WrapInfo>,
}

impl From<Response> for Done {
    fn from(response: Response) -> Self {
        Self { response, ..Self::default() }
    }
}

/// Something to do once the transaction is committed.
pub(crate) type After =
    Box<dyn for<'k> FnOnce(&'k Kernel) -> BoxFuture<'k, Result<Done, KernelError>> + Send>;

/// What a built-in answers.
#[derive(Default)]
pub(crate) struct BuiltinAnswer {
    /// As an engine's. A `lease` or `login` in it is ignored.
    pub(crate) response: Response,
    /// Where data appears.
    pub(crate) shape: Shape,
    /// A token made for the caller.
    pub(crate) auth: Option<NewToken>,
    /// A lease that was renewed, to be shown.
    pub(crate) lease: Option<LeaseEntry>,
    /// A wrapping token in place of data.
    pub(crate) wrap_info: Option<WrapInfo>,
    /// A body that is streamed: content type and chunks.
    pub(crate) stream: Option<(String, SnapshotStream)>,
    /// To do after the commit.
    pub(crate) after: Option<After>,
}

impl From<Response> for BuiltinAnswer {
    fn from(response: Response) -> Self {
        Self { response, ..Self::default() }
    }
}

impl BuiltinAnswer {
    /// Data in the envelope and at top level.
    pub(crate) fn at_both_levels(response: Response) -> Self {
        Self { response, shape: Shape::EnvelopeAndTop, ..Self::default() }
    }

    /// Nothing but something to do after the commit.
    pub(crate) fn after<F>(act: F) -> Self
    where
        F: for<'k> FnOnce(&'k Kernel) -> BoxFuture<'k, Result<Response, KernelError>> + Send + 'static,
    {
        Self::done_after(move |kernel| Box::pin(async move { act(kernel).await.map(Done::from) }))
    }

    /// As [`Self::after`], for what answers more than a response.
    pub(crate) fn done_after<F>(act: F) -> Self
    where
        F: for<'k> FnOnce(&'k Kernel) -> BoxFuture<'k, Result<Done, KernelError>> + Send + 'static,
    {
        Self { after: Some(Box::new(act)), ..Self::default() }
    }
}
