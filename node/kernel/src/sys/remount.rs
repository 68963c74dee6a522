//! `sys/remount`: a mount gets another path. Its leases are revoked first, its data stays where it is, because its
//! storage hangs off its id.

use arca_barrier::Class;
use arca_engine_api::{
    Access, EngineKind, Field, FieldKind, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::mounts::{MountState, canonical_path, refuse_protected};
use crate::{KernelError, ids};

static ROUTES: &[Route] = &[
    Route {
        id: "remount",
        pattern: "remount",
        access: Access::Sudo,
        methods: &[Method::new(Operation::Update, "Move a mount.")],
        fields: &[
            Field { name: "from", kind: FieldKind::String, summary: "Path it has." },
            Field { name: "to", kind: FieldKind::String, summary: "Path it gets." },
        ],
        takes_any_field: false,
        summary: "Moves a mount to another path.",
    },
    Route {
        id: "status",
        pattern: "remount/status/{id}",
        access: Access::Token,
        methods: &[Method::new(Operation::Read, "Show how far a move is.")],
        fields: &[],
        takes_any_field: false,
        summary: "The status of a move.",
    },
];

/// How far a move is. Stored at `root/core/remount/<migration id>`, in the class of the mount that is moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Migration {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) status: String,
}

/// Where a move's status is kept.
pub(crate) fn migration_path(id: &str) -> String {
    format!("root/core/remount/{id}")
}

/// These paths.
pub(crate) struct RemountPaths {
    table: RouteTable,
}

impl RemountPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for RemountPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        if request.route.id == "status" { status(ctx, request.param("id")) } else { remount(ctx, request) }
    }
}

fn status(ctx: &BuiltinCtx<'_>, id: &str) -> Result<BuiltinAnswer, KernelError> {
    let found: Option<Migration> = match ctx.tx.get_record(Class::Local, &migration_path(id))? {
        None => ctx.tx.get_record(Class::Replicated, &migration_path(id))?,
        found => found,
    };
    let Some(found) = found else { return Err(KernelError::NotFound(String::new())) };
    let info = json!({"source_mount": found.from, "target_mount": found.to, "status": found.status});
    Ok(BuiltinAnswer::at_both_levels(Response::data(json!({"migration_id": id, "migration_info": info}))))
}

/// Secrets engine or auth method, by the path.
fn parse(path: &str) -> Result<(EngineKind, String), KernelError> {
    let trimmed = path.trim_matches('/');
    match trimmed.strip_prefix("auth/") {
        Some(rest) => Ok((EngineKind::Auth, canonical_path(EngineKind::Auth, rest)?)),
        None => Ok((EngineKind::Secrets, canonical_path(EngineKind::Secrets, trimmed)?)),
    }
}

/// The paths that a move is about, as records have them; those that make no sense left out.
pub(crate) fn paths_of(request: &Request) -> Vec<String> {
    let fields = request.fields();
    let given = ["from", "to"].into_iter().filter_map(|name| fields.string(name).ok().flatten());
    given.filter_map(|path| parse(&path).ok()).map(|(_, path)| path).collect()
}

fn remount(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let (kernel, fields) = (ctx.kernel, request.fields());
    let (from_kind, from) = parse(&fields.required_string("from")?)?;
    let (to_kind, to) = parse(&fields.required_string("to")?)?;
    refuse_protected(&from, "remount")?;
    if from_kind != to_kind {
        let (one, other) =
            if from_kind == EngineKind::Auth { ("auth", "non-auth") } else { ("non-auth", "auth") };
        return Err(KernelError::invalid(format!("cannot remount {one} mount to {other} mount \"{to}\"")));
    }
    refuse_protected(&to, "remount to")?;
    let router = kernel.mounts.router(&kernel.store)?;
    let full = format!("{}{from}", ctx.namespace.path);
    let mount = router
        .at(&full)
        .filter(|mount| mount.namespace.id == ctx.namespace.id && mount.is_active())
        .ok_or_else(|| KernelError::invalid(format!("no matching mount at \"{from}\"")))?;
    let target = format!("{}{to}", ctx.namespace.path);
    if router.overlapping(&target, Some(&mount.record.uuid)).is_some() || from == to {
        return Err(KernelError::invalid(format!("path already in use at \"{to}\"")));
    }
    let mut record = kernel.mounts.reread(ctx.tx, &ctx.namespace.id, &mount.record)?;
    if record.state != MountState::Active {
        return Err(KernelError::invalid(format!("no matching mount at \"{from}\"")));
    }
    let id = ids::uuid(kernel.entropy.as_ref())?;
    record.state = MountState::Moving { to: to.clone(), migration: id.clone() };
    kernel.mounts.write(ctx.tx, &ctx.namespace.id, &record)?;
    let migration = Migration { from, to, status: "in-progress".to_owned() };
    ctx.tx.put_record(record.class(), &migration_path(&id), &migration)?;
    let response = Response::data(json!({"migration_id": id})).with_warning(
        "Mount move has been queued. Progress is shown by sys/remount/status with the migration_id",
    );
    let uuid = record.uuid;
    let after = BuiltinAnswer::after(move |kernel| {
        kernel.finish_change_in_background(uuid);
        Box::pin(async { Ok(Response::empty()) })
    });
    Ok(BuiltinAnswer { after: after.after, ..BuiltinAnswer::at_both_levels(response) })
}
