//! `sys/replication/*`: the roles of this cluster, shown and changed. The node carries out, behind
//! [`crate::replication::ReplicationPort`]; here is decided who may, in which mode, with which input.
//!
//! What changes something runs after the request's own commit and is not repeated with it. Only in the root namespace.
//! Read next: [`crate::replication::door`] for who may on a DR secondary, [`super::root_tokens`] for how shares make an
//! operation token.

mod fields;
mod filters;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arca_engine_api::{Map, Operation, Request, Response, RouteTable};
use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::pace::Pace;
use super::root_keys::{Family, refuse_wrapping};
use super::root_tokens;
use crate::KernelError;
use crate::answer::{Shape, WrapInfo};
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx, Done};
use crate::kernel::Kernel;
use crate::replication::{Kind, Mode, Promotion, ReplicationPort, Standing, filter};
use crate::root_keys::Purpose;
use crate::tokens::lifetime::seconds;

const COPYING: &str = "this cluster becomes a copy of its primary: what it holds is replaced once the copy is whole, and it \
                       then opens with the primary's key shares; see sys/replication/dr/status for how far it is";
const COPYING_SHARED: &str = "this cluster becomes a performance secondary: what it holds, tokens and audit devices with it, is \
                              replaced by what its primary shares, once that is whole. It then opens with the primary's key \
                              shares: log in by an auth method of the primary, or make a root token out of shares, and \
                              enable an audit device; see sys/replication/performance/status for how far it is";
const NO_EFFECT: &str = "primary_api_addr, ca_file and ca_path have no effect: the token says where the primary is and what its CA is";
const DISABLED: &str = "this cluster serves what it holds, as if it had never followed another: tokens and leases are the \
                        primary's as they were, and what is due by them ends now, at databases and clouds too. If the primary \
                        is still at work, stop this cluster";
const FILTERED: &str = "a path filter keeps a part of the primary's state from this cluster, and it knows no other cluster's filter: \
                        as the primary it would have lost that part, and send others what was kept from them. Promote a \
                        DR secondary of the primary, or a performance secondary without a filter; or give force, and set \
                        the filters anew before any other cluster follows this one";
const NO_INDEX: &str = "nothing was done: a primary keeps no index that could be wrong. A secondary that is told to reindex compares its \
                        state with the one here";
const COMPARING: &str =
    "the comparison goes on in the background; see sys/replication/status for how far it is";

/// These paths.
pub(crate) struct ReplicationPaths {
    table: RouteTable,
    pace: Pace,
}

impl ReplicationPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(routes::ROUTES), pace: Pace::default() }
    }
}

impl Kernel {
    fn replication(&self) -> Result<Arc<dyn ReplicationPort>, KernelError> {
        let missing =
            || KernelError::invalid("this node has no cluster port: nobody can follow it, and it nobody");
        self.cluster.replication().ok_or_else(missing)
    }
}

fn kind(request: &Request) -> Result<Kind, KernelError> {
    if request.route.id == "performance-promote" {
        return Ok(Kind::Performance);
    }
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == request.param("kind"));
    found.ok_or_else(|| KernelError::NotFound("unsupported path".to_owned()))
}

fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Dr => "DR",
        Kind::Performance => "performance",
    }
}

/// Refuses what cannot be asked of a cluster in another mode, in words.
fn require(standing: &Standing, kind: Kind, wanted: Mode) -> Result<(), KernelError> {
    let (mode, name) = (standing.role(kind).mode, label(kind));
    let text = match (wanted, mode) {
        (Mode::Disabled, Mode::Disabled)
        | (Mode::Primary, Mode::Primary)
        | (Mode::Secondary, Mode::Secondary) => return Ok(()),
        (Mode::Disabled, Mode::Primary) => format!("this cluster is a {name} primary already"),
        (Mode::Disabled, Mode::Secondary) => {
            format!("this cluster is a {name} secondary: promote it, or disable its replication first")
        }
        (_, Mode::Disabled) => format!("{name} replication is not enabled on this cluster"),
        (_, Mode::Primary) => format!("this cluster is a {name} primary, not a secondary"),
        (_, Mode::Secondary) => format!("this cluster is a {name} secondary, not a primary"),
    };
    Err(KernelError::invalid(text))
}

/// Runs after the commit, on the active node, with what the node offers.
fn act<F>(act: F) -> BuiltinAnswer
where
    F: FnOnce(Arc<dyn ReplicationPort>) -> BoxFuture<'static, Result<Response, KernelError>> + Send + 'static,
{
    BuiltinAnswer::after(move |kernel| {
        let port = kernel.replication();
        Box::pin(async move { act(port?).await })
    })
}

fn warned(text: &str) -> Response {
    Response { warnings: vec![text.to_owned()], ..Response::default() }
}

#[async_trait]
impl Builtin for ReplicationPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        if !ctx.namespace.is_root() {
            return Err(KernelError::NotFound("unsupported path".to_owned()));
        }
        let standing = ctx.kernel.standing();
        match request.route.id {
            "status" => return status(ctx.kernel, &standing),
            "status-of" => return Ok(shown(status_of(ctx.kernel, &standing, kind(request)?)?)),
            _ => refuse_wrapping(request)?,
        }
        match request.route.id {
            "attempt" | "update" => self.operation_token(ctx, request, &standing),
            "delete-operation-token" => {
                standing.check_is_dr_secondary()?;
                Ok(BuiltinAnswer::after(|kernel| {
                    Box::pin(async move { kernel.forget_operation_token().await.map(|()| Response::empty()) })
                }))
            }
            "filter" => filters::paths_filter(ctx, request, &standing),
            "dynamic-filter" => filters::dynamic_filter(ctx, request, &standing),
            "merkle-check" => Ok(act(|port| {
                Box::pin(async move {
                    let report = port.merkle_check().await?;
                    Ok(Response::data(json!({ "merkle_corruption_report": report })))
                })
            })),
            "recover" | "reindex" => reindex_all(&standing, request.route.id == "recover"),
            id if id.starts_with("primary-") => as_primary(request, &standing),
            "revoke-secondary" | "secondary-token" => as_primary(request, &standing),
            "tail" => tail(request),
            _ => as_secondary(ctx, request, &standing),
        }
    }
}

impl ReplicationPaths {
    /// The making of an operation token is open to anybody on a DR secondary: on the day it is needed there may be nobody
    /// left who could give a token out.
    fn operation_token(
        &self,
        ctx: &BuiltinCtx<'_>,
        request: &Request,
        standing: &Standing,
    ) -> Result<BuiltinAnswer, KernelError> {
        self.pace.step(ctx.incoming.remote_addr, ctx.kernel.clock.monotonic())?;
        standing.check_is_dr_secondary()?;
        let (family, purpose) = (Family::Open, Purpose::OperationToken);
        match (request.route.id, request.operation) {
            ("attempt", Operation::Read) => Ok(root_tokens::show(family, purpose)),
            ("attempt", Operation::Delete) => Ok(root_tokens::cancel(purpose)),
            ("attempt", _) => root_tokens::begin(ctx, request, family, purpose),
            _ => root_tokens::update(request, family, purpose),
        }
    }
}

/// Data where every reader of this family looks for it.
fn shown(data: Map) -> BuiltinAnswer {
    let response = Response { data: Some(data), ..Response::default() };
    BuiltinAnswer { response, shape: Shape::EnvelopeAndTop, ..BuiltinAnswer::default() }
}

fn status(kernel: &Kernel, standing: &Standing) -> Result<BuiltinAnswer, KernelError> {
    let mut both = Map::new();
    for kind in Kind::ALL {
        both.insert(kind.name().to_owned(), Value::Object(status_of(kernel, standing, kind)?));
    }
    Ok(shown(both))
}

/// The mode is the kernel's to say; the figures are the node's.
fn status_of(kernel: &Kernel, standing: &Standing, kind: Kind) -> Result<Map, KernelError> {
    let mode = standing.role(kind).mode;
    let mut status = match kernel.cluster.replication() {
        Some(port) if mode != Mode::Disabled => port.status(kind)?,
        _ => Map::new(),
    };
    status.entry("mode").or_insert_with(|| json!(mode.name()));
    Ok(status)
}

fn as_primary(request: &Request, standing: &Standing) -> Result<BuiltinAnswer, KernelError> {
    let kind = kind(request)?;
    if request.route.id == "primary-enable" {
        require(standing, kind, Mode::Disabled)?;
        let addr = fields::cluster_addr(request)?;
        return Ok(act(move |port| {
            Box::pin(async move { port.enable_primary(kind, addr).await.map(|()| Response::empty()) })
        }));
    }
    require(standing, kind, Mode::Primary)?;
    match request.route.id {
        "primary-config" => configure(request, standing, kind),
        "primary-demote" => Ok(act(move |port| {
            Box::pin(async move { port.demote_primary(kind).await.map(|()| Response::empty()) })
        })),
        "primary-disable" => Ok(act(move |port| {
            Box::pin(async move { port.disable_primary(kind).await.map(|()| Response::empty()) })
        })),
        "revoke-secondary" => {
            let id = fields::id(request)?;
            Ok(act(move |port| {
                Box::pin(async move { port.revoke_secondary(kind, &id).await.map(|()| Response::empty()) })
            }))
        }
        _ => secondary_token(request, standing, kind),
    }
}

/// Performance secondaries are never promoted in place of a primary that may still be at work: nothing to fence there.
fn configure(request: &Request, standing: &Standing, kind: Kind) -> Result<BuiltinAnswer, KernelError> {
    if kind != Kind::Dr {
        return Err(KernelError::invalid("only a DR primary has something to configure: fence_after"));
    }
    if request.operation == Operation::Read {
        let seconds = standing.role(kind).fence_after_s;
        return Ok(Response::data(json!({ "fence_after": seconds })).into());
    }
    let fence_after = fields::fence_after(request)?;
    Ok(act(move |port| {
        Box::pin(async move { port.configure_primary(kind, fence_after).await.map(|()| Response::empty()) })
    }))
}

/// The token is shown as a wrapping token would be, and nothing else with it.
fn secondary_token(request: &Request, standing: &Standing, kind: Kind) -> Result<BuiltinAnswer, KernelError> {
    if standing.is_fenced() {
        standing.check_local_writes()?; // Whoever came now would follow a primary of the past.
    }
    let wanted = fields::wanted_token(request)?;
    let path = format!("sys/{}", request.path);
    Ok(BuiltinAnswer::done_after(move |kernel| {
        Box::pin(async move {
            let ttl = wanted.ttl;
            let made = kernel.replication()?.secondary_token(kind, wanted).await?;
            let wrap_info = WrapInfo {
                token: Arc::new(made.token),
                accessor: made.accessor,
                ttl: seconds(ttl),
                creation_time: kernel.clock.now(),
                creation_path: path,
                wrapped_accessor: None,
            };
            Ok(Done { response: Response::empty(), wrap_info: Some(wrap_info) })
        })
    }))
}

fn as_secondary(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    standing: &Standing,
) -> Result<BuiltinAnswer, KernelError> {
    let kind = kind(request)?;
    match request.route.id {
        "secondary-enable" => return enable_secondary(request, standing, kind),
        "generate-public-key" => {
            if standing.role(kind).mode == Mode::Primary {
                require(standing, kind, Mode::Secondary)?;
            }
            return Ok(act(move |port| {
                Box::pin(async move {
                    let key = port.generate_public_key(kind).await?;
                    Ok(Response::data(json!({ "secondary_public_key": key })))
                })
            }));
        }
        _ => require(standing, kind, Mode::Secondary)?,
    }
    match request.route.id {
        "secondary-promote" | "performance-promote" => promote(ctx, request, kind),
        "secondary-disable" => disable_secondary(request, kind),
        "update-primary" => {
            let update = fields::update(request)?;
            Ok(act(move |port| {
                Box::pin(async move { port.update_primary(kind, update).await.map(|()| warned(COMPARING)) })
            }))
        }
        "secondary-reindex" => {
            Ok(act(move |port| Box::pin(async move { port.reindex(kind).await.map(|()| warned(COMPARING)) })))
        }
        other => Err(KernelError::Bug(format!("no such replication path: {other}"))),
    }
}

fn enable_secondary(
    request: &Request,
    standing: &Standing,
    kind: Kind,
) -> Result<BuiltinAnswer, KernelError> {
    require(standing, kind, Mode::Disabled)?;
    for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
        require(standing, other, Mode::Disabled)?; // A copy that waits is nothing else.
    }
    let token = fields::token(request)?;
    let has_extras = ["primary_api_addr", "ca_file", "ca_path"].iter().any(|name| {
        request.fields().string(name).is_ok_and(|text| text.is_some_and(|text| !text.is_empty()))
    });
    Ok(act(move |port| {
        Box::pin(async move {
            port.enable_secondary(kind, token).await?;
            let mut answer = warned(if kind == Kind::Dr { COPYING } else { COPYING_SHARED });
            answer.warnings.extend(has_extras.then(|| NO_EFFECT.to_owned()));
            Ok(answer)
        })
    }))
}

fn promote(ctx: &BuiltinCtx<'_>, request: &Request, kind: Kind) -> Result<BuiltinAnswer, KernelError> {
    let addr = fields::cluster_addr(request)?;
    let is_set = |name| request.fields().boolean(name).map(Option::unwrap_or_default);
    let promotion = match (is_set("force")?, is_set("planned")?) {
        (true, true) => return Err(KernelError::invalid("force and planned are opposites")),
        (true, false) => Promotion::Forced,
        (false, true) => Promotion::Planned,
        (false, false) => Promotion::Ordinary,
    };
    // A DR secondary has everything, whatever filters there are.
    if kind == Kind::Performance && promotion != Promotion::Forced && filter::is_part(ctx.tx)? {
        return Err(KernelError::invalid(FILTERED));
    }
    Ok(last_act(&[], move |kernel| {
        Box::pin(async move { kernel.replication()?.promote_secondary(kind, addr, promotion).await })
    }))
}

fn disable_secondary(request: &Request, kind: Kind) -> Result<BuiltinAnswer, KernelError> {
    let is_forced = request.fields().boolean("force")?.unwrap_or_default();
    let warnings: &[&str] = if kind == Kind::Dr { &[DISABLED] } else { &[] };
    Ok(last_act(warnings, move |kernel| {
        Box::pin(async move { kernel.replication()?.disable_secondary(kind, is_forced).await })
    }))
}

/// What ends the life as a secondary, and with it that of the operation token.
fn last_act<F>(warnings: &'static [&'static str], act: F) -> BuiltinAnswer
where
    F: for<'k> FnOnce(&'k Kernel) -> BoxFuture<'k, Result<(), KernelError>> + Send + 'static,
{
    BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            act(kernel).await?;
            let mut answer = Response::empty();
            answer.warnings.extend(warnings.iter().map(|text| (*text).to_owned()));
            // What was asked for is done. The token is good for nothing here until this is a DR secondary again.
            if let Err(err) = kernel.forget_operation_token().await {
                tracing::warn!(error = %err, "the operation token could not be deleted");
                answer.warnings.push(
                    "done, but the operation token could not be deleted: should this cluster become a DR secondary again, \
                     delete it then"
                        .to_owned(),
                );
            }
            Ok(answer)
        })
    })
}

fn reindex_all(standing: &Standing, is_recovery: bool) -> Result<BuiltinAnswer, KernelError> {
    let is = |mode: Mode| Kind::ALL.into_iter().filter(move |kind| standing.role(*kind).mode == mode);
    let kinds: Vec<Kind> = is(Mode::Secondary).collect();
    if kinds.is_empty() && is_recovery {
        return Ok(warned("this cluster follows no other: there is nothing to recover").into());
    }
    if kinds.is_empty() && is(Mode::Primary).next().is_some() {
        return Ok(warned(NO_INDEX).into());
    }
    if kinds.is_empty() {
        return Err(KernelError::invalid("replication is not enabled on this cluster"));
    }
    Ok(act(move |port| {
        Box::pin(async move {
            for kind in kinds {
                port.reindex(kind).await?;
            }
            Ok(warned(COMPARING))
        })
    }))
}

fn tail(request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let kind = kind(request)?;
    let (after, limit) = fields::tail(request)?;
    Ok(act(move |port| {
        Box::pin(async move {
            let tail = port.tail(kind, after, limit).await?;
            Ok(Response { data: Some(tail), ..Response::default() })
        })
    }))
}
