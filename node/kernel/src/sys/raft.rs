//! `sys/storage/raft/*`, `sys/step-down`, `sys/seal`, `sys/ha-status`: the cluster's operations, carried out by the
//! node behind [`crate::ports::ClusterPort`].

use std::sync::Arc;

use arca_engine_api::{
    Access, Effect, Field, FieldKind, Map, Method, Operation, Request, Response, Route, RouteTable,
};
use arca_raft_storage::MemberKind;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::KernelError;
use crate::answer::Shape;
use crate::autopilot::AutopilotSettings;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::kernel::Kernel;

const fn route(
    id: &'static str,
    pattern: &'static str,
    access: Access,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access, methods, fields, takes_any_field: false, summary }
}

/// The token may come in a field there, as Vault's own commands send it.
const DR_OPERATION_TOKEN: Field =
    Field::new("dr_operation_token", FieldKind::String, "Only on disaster-recovery secondaries.");

const SERVER_ID: &[Field] =
    &[Field::new("server_id", FieldKind::String, "node_id of the member."), DR_OPERATION_TOKEN];

static ROUTES: &[Route] = &[
    route(
        "step-down",
        "step-down",
        Access::Sudo,
        &[Method::new(Operation::Update, "Hand leadership to another node.")],
        &[DR_OPERATION_TOKEN],
        "Makes the active node a standby.",
    ),
    route(
        "seal",
        "seal",
        Access::Sudo,
        &[Method::with_effect(Operation::Update, Effect::ThisNode, "Seal this node.")],
        &[],
        "Seals the node that is asked.",
    ),
    route(
        "ha-status",
        "ha-status",
        Access::Token,
        &[Method::new(Operation::Read, "List the cluster's nodes.")],
        &[],
        "The nodes of the cluster that can be reached.",
    ),
    route(
        "configuration",
        "storage/raft/configuration",
        Access::Token,
        &[
            Method::new(Operation::Read, "List the members."),
            Method::with_effect(Operation::Update, Effect::Reads, "The same, with a token in the body."),
        ],
        &[DR_OPERATION_TOKEN],
        "The members of the Raft cluster.",
    ),
    route(
        "remove-peer",
        "storage/raft/remove-peer",
        Access::Token,
        &[Method::new(Operation::Update, "Remove a member.")],
        SERVER_ID,
        "Removes a member for good. To come back it joins anew with an empty data directory.",
    ),
    route(
        "promote",
        "storage/raft/promote",
        Access::Token,
        &[Method::new(Operation::Update, "Make a non-voter vote.")],
        SERVER_ID,
        "Makes a non-voter a voter.",
    ),
    route(
        "demote",
        "storage/raft/demote",
        Access::Token,
        &[Method::new(Operation::Update, "Make a voter a non-voter.")],
        SERVER_ID,
        "Makes a voter a non-voter.",
    ),
    route(
        "snapshot",
        "storage/raft/snapshot",
        Access::Token,
        &[
            Method::new(Operation::Read, "Download a backup."),
            Method::new(Operation::Update, "Restore a backup made under these keys."),
        ],
        &[],
        "Backup and restore of the whole state. Any node makes a backup; a restore is redirected to the active one.",
    ),
    route(
        "snapshot-force",
        "storage/raft/snapshot-force",
        Access::Token,
        &[Method::new(Operation::Update, "Restore a backup, whichever keys it was made under.")],
        &[],
        "As `snapshot`, without the check of the keys.",
    ),
    route(
        "autopilot-state",
        "storage/raft/autopilot/state",
        Access::Token,
        &[Method::with_effect(Operation::Read, Effect::Writes, "Show the members' health.")],
        &[DR_OPERATION_TOKEN],
        "The health of the cluster as the active node sees it.",
    ),
    route(
        "autopilot-configuration",
        "storage/raft/autopilot/configuration",
        Access::Token,
        &[
            Method::new(Operation::Read, "Show the settings."),
            Method::new(Operation::Update, "Change the settings."),
        ],
        &[
            Field::new(
                "cleanup_dead_servers",
                FieldKind::Bool,
                "Remove members that are silent for too long.",
            ),
            Field::new(
                "last_contact_threshold",
                FieldKind::Duration,
                "Silence after which a member is unhealthy.",
            ),
            Field::new(
                "dead_server_last_contact_threshold",
                FieldKind::Duration,
                "Silence after which a member is dead; at least a minute.",
            ),
            Field::new("max_trailing_logs", FieldKind::Int, "Entries a healthy member may lag."),
            Field::new("min_quorum", FieldKind::Int, "Voters that no clean-up goes below; at least three."),
            Field::new("server_stabilization_time", FieldKind::Duration, "Kept for clients; has no effect."),
        ],
        "Settings of the health report and of the removal of dead members.",
    ),
];

/// These paths.
pub(crate) struct RaftPaths {
    table: RouteTable,
}

impl RaftPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

fn server_id(request: &Request) -> Result<String, KernelError> {
    Ok(request.fields().required_string("server_id")?)
}

fn data(map: Map) -> BuiltinAnswer {
    Response { data: Some(map), ..Response::default() }.into()
}

#[async_trait]
impl Builtin for RaftPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let cluster = &ctx.kernel.cluster;
        match request.route.id {
            "step-down" => Ok(BuiltinAnswer::after(|kernel| Box::pin(step_down(kernel)))),
            "seal" => Ok(BuiltinAnswer::after(|kernel| {
                Box::pin(async move { kernel.cluster.seal().await.map(|()| Response::empty()) })
            })),
            "ha-status" => ha_status(ctx).await,
            "configuration" => Ok(data(cluster.raft_configuration().await?)),
            "autopilot-state" => Ok(BuiltinAnswer {
                response: Response { data: Some(cluster.autopilot_state().await?), ..Response::default() },
                shape: Shape::EnvelopeAndTop,
                ..BuiltinAnswer::default()
            }),
            "autopilot-configuration" => autopilot(ctx, request),
            "snapshot" | "snapshot-force" => snapshot(ctx, request).await,
            id => members(id, server_id(request)?),
        }
    }
}

/// A node alone gives the lead up and takes it again; nobody would see the difference.
async fn step_down(kernel: &Kernel) -> Result<Response, KernelError> {
    let (replica, is_voter) = (kernel.store.replica(), |kind: MemberKind| kind == MemberKind::Voter);
    let (me, members) = (replica.status().id, replica.membership().members);
    if members.iter().any(|(id, (_, kind))| *id != me && is_voter(*kind)) {
        kernel.cluster.step_down().await?;
    }
    Ok(Response::empty())
}

/// Changes of membership happen once the request's own record is committed, and are not repeated with it.
fn members(id: &'static str, name: String) -> Result<BuiltinAnswer, KernelError> {
    Ok(BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            let cluster = Arc::clone(&kernel.cluster);
            match id {
                "remove-peer" => cluster.remove_peer(&name).await?,
                "promote" => cluster.promote(&name).await?,
                "demote" => cluster.demote(&name).await?,
                other => return Err(KernelError::Bug(format!("no such raft path: {other}"))),
            }
            Ok(Response::empty())
        })
    }))
}

async fn ha_status(ctx: &BuiltinCtx<'_>) -> Result<BuiltinAnswer, KernelError> {
    let nodes: Vec<Value> = ctx
        .kernel
        .cluster
        .ha_status()
        .await?
        .into_iter()
        .map(|node| {
            json!({
                "hostname": node.hostname,
                "api_address": node.api_address,
                "cluster_address": node.cluster_address,
                "active_node": node.is_active,
                "version": node.version,
                "last_echo": node.last_echo,
                "echo_duration_ms": 0,
                "clock_skew_ms": 0,
            })
        })
        .collect();
    Ok(BuiltinAnswer::at_both_levels(Response::data(json!({ "nodes": nodes }))))
}

async fn snapshot(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    if request.operation == Operation::Read {
        let stream = ctx.kernel.cluster.snapshot().await?;
        return Ok(BuiltinAnswer {
            stream: Some(("application/gzip".to_owned(), stream)),
            ..BuiltinAnswer::default()
        });
    }
    let missing = || KernelError::invalid("the request carries no snapshot");
    let body = Arc::clone(ctx.incoming_body);
    if body.lock().is_none() {
        return Err(missing());
    }
    let is_forced = request.route.id == "snapshot-force";
    // Taken out only once the request's own record is committed: a conflict runs all this again.
    Ok(BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            kernel.standing().check_writes()?;
            let body = body.lock().take().ok_or_else(missing)?;
            kernel.cluster.restore(body, is_forced).await.map(|()| Response::empty())
        })
    }))
}

fn autopilot(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let mut settings = AutopilotSettings::load(ctx.tx)?;
    if request.operation == Operation::Read {
        return Ok(data(settings.shown()));
    }
    settings.take(&request.fields())?;
    settings.check()?;
    settings.save(ctx.tx)?;
    Ok(Response::empty().into())
}

#[cfg(test)]
#[path = "raft_tests.rs"]
mod tests;
