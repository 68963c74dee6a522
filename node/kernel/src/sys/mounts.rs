//! `sys/mounts`: secrets engines enabled, listed, tuned and disabled. `sys/auth` is the same for auth methods and
//! shares all of it.

use arca_engine_api::{
    Access, EngineKind, Field, FieldKind, Fields, Map, Method, Operation, Request, Response, Route,
    RouteTable,
};
use async_trait::async_trait;
use serde_json::Value;

use super::mount_info::{self, Tuning, shown, shown_tune, tune_from};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::lockout::LockoutTuning;
use crate::mounts::{
    MountState, NewMount, TOKEN_TYPE, UNTUNABLE, canonical_path, refuse_protected, refuse_wrong_table,
};
use crate::removal::{Finished, end_migration};
use crate::router::Mount;
use crate::tx::EngineStorage;

pub(super) const TABLE_METHODS: &[Method] = &[Method::new(Operation::Read, "List what is enabled.")];
pub(super) const MOUNT_METHODS: &[Method] = &[
    Method::new(Operation::Read, "Show a mount, or its settings at …/tune."),
    Method::new(Operation::Update, "Enable a mount, or change its settings at …/tune."),
    Method::new(Operation::Delete, "Disable a mount and remove its data."),
];

pub(super) const MOUNT_FIELDS: &[Field] = &[
    Field::new("type", FieldKind::String, "Type of the engine."),
    Field::new("description", FieldKind::String, "For people."),
    Field::new("config", FieldKind::Map, "Settings, at enable."),
    Field::new("options", FieldKind::Map, "Settings of the engine's own."),
    Field::new("local", FieldKind::Bool, "Never shipped to performance secondaries."),
    Field::new("seal_wrap", FieldKind::Bool, "Kept for clients: everything is sealed."),
    Field::new("external_entropy_access", FieldKind::Bool, "Kept for clients."),
    Field::new("plugin_name", FieldKind::String, "Kept for clients."),
    Field::new("plugin_version", FieldKind::String, "Kept for clients."),
    Field::new("default_lease_ttl", FieldKind::Duration, "Default lifetime of leases and tokens."),
    Field::new("max_lease_ttl", FieldKind::Duration, "Longest lifetime of leases and tokens."),
    Field::new("force_no_cache", FieldKind::Bool, "Kept for clients."),
    Field::new("audit_non_hmac_request_keys", FieldKind::List, "Request fields logged in clear."),
    Field::new("audit_non_hmac_response_keys", FieldKind::List, "Response fields logged in clear."),
    Field::new("listing_visibility", FieldKind::String, "unauth or hidden."),
    Field::new("passthrough_request_headers", FieldKind::List, "Request headers the engine sees."),
    Field::new("allowed_response_headers", FieldKind::List, "Response headers the engine may set."),
    Field::new("token_type", FieldKind::String, "Kind of token an auth method makes."),
    Field::new("user_lockout_config", FieldKind::Map, "When failed logins lock a name."),
];

static ROUTES: &[Route] = &[
    Route {
        id: "table",
        pattern: "mounts",
        access: Access::Token,
        methods: TABLE_METHODS,
        fields: &[],
        takes_any_field: false,
        summary: "The secrets engines enabled here.",
    },
    Route {
        id: "mount",
        pattern: "mounts/{path...}",
        access: Access::Token,
        methods: MOUNT_METHODS,
        fields: MOUNT_FIELDS,
        takes_any_field: false,
        summary: "A secrets engine; its settings are at the path with /tune behind.",
    },
];

/// These paths.
pub(crate) struct MountPaths {
    table: RouteTable,
}

impl MountPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for MountPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        serve(ctx, request, EngineKind::Secrets).await
    }
}

/// The path of the mount that a request of [`serve`] is about, as its record has it; none where it is about no one mount,
/// or makes no sense.
pub(crate) fn path_of(request: &Request, kind: EngineKind) -> Option<String> {
    let path = request.param("path");
    canonical_path(kind, path.strip_suffix("/tune").unwrap_or(path)).ok()
}

/// Serves both tables.
pub(super) async fn serve(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    kind: EngineKind,
) -> Result<BuiltinAnswer, KernelError> {
    if request.route.id == "table" {
        return table(ctx, kind);
    }
    let path = request.param("path");
    if path.is_empty() {
        return Err(KernelError::NotFound("unsupported path".to_owned()));
    }
    match (path.strip_suffix("/tune"), request.operation) {
        (Some(path), Operation::Read) => read_tune(ctx, kind, path),
        (Some(path), Operation::Create | Operation::Update) => tune(ctx, request, kind, path),
        (Some(_), _) => Err(KernelError::Unsupported),
        (None, Operation::Read) => read(ctx, kind, path),
        (None, Operation::Delete) => disable(ctx, kind, path),
        (None, _) => enable(ctx, request, kind, path).await,
    }
}

/// The path as people write it: without `auth/`.
pub(super) fn shown_path(mount: &Mount) -> &str {
    let path = &mount.record.path;
    path.strip_prefix("auth/").unwrap_or(path)
}

fn table(ctx: &BuiltinCtx<'_>, kind: EngineKind) -> Result<BuiltinAnswer, KernelError> {
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    let data: Map = router
        .mounts_of(&ctx.namespace.id)
        .filter(|mount| mount.record.kind() == kind)
        .map(|mount| (shown_path(mount).to_owned(), Value::Object(shown(ctx.kernel, mount))))
        .collect();
    Ok(both(data))
}

fn both(data: Map) -> BuiltinAnswer {
    BuiltinAnswer::at_both_levels(Response { data: Some(data), ..Response::default() })
}

/// The mount at a path as people write it.
fn find(
    ctx: &BuiltinCtx<'_>,
    kind: EngineKind,
    path: &str,
) -> Result<Option<std::sync::Arc<Mount>>, KernelError> {
    let path = format!("{}{}", ctx.namespace.path, canonical_path(kind, path)?);
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    Ok(router.at(&path).filter(|mount| mount.namespace.id == ctx.namespace.id).cloned())
}

fn read(ctx: &BuiltinCtx<'_>, kind: EngineKind, path: &str) -> Result<BuiltinAnswer, KernelError> {
    let noun = if kind == EngineKind::Auth { "auth" } else { "secret" };
    let found = find(ctx, kind, path)?;
    let mount = found.ok_or_else(|| {
        KernelError::invalid(format!("No {noun} engine mount at {}/", path.trim_matches('/')))
    })?;
    Ok(both(shown(ctx.kernel, &mount)))
}

fn no_sysview(kind: EngineKind, path: &str) -> KernelError {
    let prefix = if kind == EngineKind::Auth { "auth/" } else { "" };
    KernelError::invalid(format!("cannot fetch sysview for path \"{prefix}{}/\"", path.trim_matches('/')))
}

fn read_tune(ctx: &BuiltinCtx<'_>, kind: EngineKind, path: &str) -> Result<BuiltinAnswer, KernelError> {
    let mount = find(ctx, kind, path)?.ok_or_else(|| no_sysview(kind, path))?;
    Ok(both(shown_tune(&mount)))
}

/// # Errors
/// When a field would change a mount of the kernel's own.
fn refuse_fixed(path: &str, fields: Fields<'_>) -> Result<(), KernelError> {
    if !UNTUNABLE.contains(&path) {
        return Ok(());
    }
    let names =
        MOUNT_FIELDS.iter().map(|field| field.name).filter(|name| !name.starts_with("audit_non_hmac"));
    match names.into_iter().find(|name| fields.has(name)) {
        Some(name) => Err(KernelError::invalid(format!("cannot tune parameter {name} of {path}"))),
        None => Ok(()),
    }
}

fn tune(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    kind: EngineKind,
    path: &str,
) -> Result<BuiltinAnswer, KernelError> {
    let mounts = &ctx.kernel.mounts;
    let mount = find(ctx, kind, path)?.ok_or_else(|| no_sysview(kind, path))?;
    let mut record = mounts.reread(ctx.tx, &ctx.namespace.id, &mount.record)?;
    let fields = request.fields();
    refuse_fixed(&record.path, fields)?;
    if record.engine == TOKEN_TYPE && fields.has("token_type") {
        // What is asked for at creation decides there, so the setting would promise what is not kept.
        return Err(KernelError::invalid("'token_type' cannot be set for 'token' or 'ns_token' auth mounts"));
    }
    if fields.has("user_lockout_config") {
        mount_info::refuse_lockout(&record, mount.engine().ok().map(AsRef::as_ref))?;
    }
    tune_from(fields, kind, ctx.kernel.config.max_lease_ttl, Tuning::Change, &mut record.config)?;
    if let Some(description) = fields.string("description")? {
        record.description = description;
    }
    if let Some(options) = fields.string_map("options")? {
        let is_downgrade = |name: &str, wanted: &str| {
            let current = record.options.get(name).and_then(|text| text.parse::<u32>().ok());
            name == "version" && current > wanted.parse().ok()
        };
        if options.iter().any(|(name, wanted)| is_downgrade(name, wanted)) {
            return Err(KernelError::invalid("cannot downgrade mount"));
        }
        record.options.extend(options.into_iter().filter(|(_, value)| !value.is_empty()));
        // An engine that does not take these options says so now, not when somebody needs it.
        if let Some(engine) = mounts.engine(kind, &record.engine) {
            (engine.make)(&mounts.view_of(&record))?;
        }
    }
    mounts.write(ctx.tx, &ctx.namespace.id, &record)?;
    Ok(Response::empty().into())
}

async fn enable(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    kind: EngineKind,
    path: &str,
) -> Result<BuiltinAnswer, KernelError> {
    let kernel = ctx.kernel;
    let fields = request.fields();
    let nothing = Map::new();
    let config_fields = Fields::new(fields.object("config")?.unwrap_or(&nothing));
    let mut new = NewMount {
        path: path.to_owned(),
        engine: fields.string("type")?.unwrap_or_default(),
        description: fields.string("description")?.unwrap_or_default(),
        options: fields.string_map("options")?.unwrap_or_default(),
        is_local: fields.boolean("local")?.unwrap_or_default(),
        seal_wrap: fields.boolean("seal_wrap")?.unwrap_or_default(),
        external_entropy_access: fields.boolean("external_entropy_access")?.unwrap_or_default(),
        ..NewMount::default()
    };
    if let Some(options) = config_fields.string_map("options")? {
        new.options.extend(options);
    }
    mount_info::tune_from(config_fields, kind, kernel.config.max_lease_ttl, Tuning::New, &mut new.config)?;
    let router = kernel.mounts.router(&kernel.store)?;
    let entropy = kernel.entropy.as_ref();
    let record = kernel.mounts.enable(ctx.tx, &router, ctx.namespace, kind, new, entropy)?;
    initialize(ctx, &record).await?;
    Ok(Response::empty().into())
}

/// Lets the engine of a new mount write its first records, in the entry that records the mount.
async fn initialize(ctx: &BuiltinCtx<'_>, record: &crate::mounts::MountRecord) -> Result<(), KernelError> {
    let kernel = ctx.kernel;
    let Some(kind) = kernel.mounts.engine(record.kind(), &record.engine) else { return Ok(()) };
    let view = kernel.mounts.view_of(record);
    let engine = (kind.make)(&view)?;
    if record.config.user_lockout_config != LockoutTuning::default() {
        mount_info::refuse_lockout(record, Some(engine.as_ref()))?;
    }
    let prefix = format!("{}/logical/{}/", ctx.namespace.id, record.uuid);
    let storage = EngineStorage::new(ctx.tx, prefix, record.class(), engine.local_prefixes());
    let called = kernel.calling(ctx.tx, engine.as_ref(), &view, storage, &ctx.namespace.id);
    let ctx = called.ctx();
    Ok(engine.initialize(&ctx).await?)
}

fn disable(ctx: &BuiltinCtx<'_>, kind: EngineKind, path: &str) -> Result<BuiltinAnswer, KernelError> {
    let full = canonical_path(kind, path)?;
    refuse_wrong_table(kind, &full, "unmount")?;
    if full == "auth/token/" {
        return Err(KernelError::invalid("token credential backend cannot be disabled"));
    }
    refuse_protected(&full, "unmount")?;
    let Some(mount) = find(ctx, kind, path)? else { return Ok(Response::empty().into()) };
    let mut record = ctx.kernel.mounts.reread(ctx.tx, &ctx.namespace.id, &mount.record)?;
    if record.state != MountState::Disabling {
        if let MountState::Moving { to, migration } = &record.state {
            end_migration(ctx.tx, record.class(), migration, (&record.path, to), "failure")?;
        }
        record.state = MountState::Disabling;
        ctx.kernel.mounts.write(ctx.tx, &ctx.namespace.id, &record)?;
    }
    let uuid = record.uuid;
    Ok(BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            match kernel.finish_change(&uuid).await {
                Ok(Finished::Done) => return Ok(Response::empty()),
                Ok(Finished::NotYet) => {}
                Err(err) => tracing::warn!(error = %err, "removing a disabled mount goes on later"),
            }
            let text = "the mount is disabled; removing its leases and data goes on in the background";
            Ok(Response::empty().with_warning(text))
        })
    }))
}
