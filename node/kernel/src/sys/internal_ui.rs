//! `sys/internal/ui`: what command lines and user interfaces ask before they act. Open paths: what they say depends
//! on who asks, and a stranger learns only what mounts chose to show.

use arca_engine_api::{Access, EngineKind, Map, Method, Operation, Request, Response, Route, RouteTable};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::mount_info::shown;
use super::mounts::shown_path;
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::router::Mount;

const READ: &[Method] = &[Method::new(Operation::Read, "Show.")];

const fn route(id: &'static str, pattern: &'static str, access: Access, summary: &'static str) -> Route {
    Route { id, pattern, access, methods: READ, fields: &[], takes_any_field: false, summary }
}

static ROUTES: &[Route] = &[
    route("mounts", "internal/ui/mounts", Access::Unauthenticated, "Mounts the caller may see."),
    route("mount", "internal/ui/mounts/{path...}", Access::Unauthenticated, "The mount a path lies in."),
    route("namespaces", "internal/ui/namespaces", Access::Unauthenticated, "Namespaces below this one."),
    route(
        "resultant-acl",
        "internal/ui/resultant-acl",
        Access::Token,
        "What the caller's policies amount to.",
    ),
    Route {
        id: "children",
        pattern: "namespaces",
        access: Access::Token,
        methods: &[Method::new(Operation::List, "List.")],
        fields: &[],
        takes_any_field: false,
        summary: "Namespaces below this one.",
    },
];

/// These paths.
pub(crate) struct UiPaths {
    table: RouteTable,
}

impl UiPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for UiPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        match request.route.id {
            "mounts" => mounts(ctx),
            "mount" => mount(ctx, request.param("path")),
            "namespaces" => namespaces(ctx),
            "children" => Ok(Response::list(children(ctx)?).into()),
            _ => {
                let data = ctx.acl.map(crate::policy::Acl::resultant);
                Ok(Response { data, ..Response::default() }.into())
            }
        }
    }
}

fn mounts(ctx: &BuiltinCtx<'_>) -> Result<BuiltinAnswer, KernelError> {
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    let (mut auth, mut secret) = (Map::new(), Map::new());
    for mount in router.mounts_of(&ctx.namespace.id).filter(|mount| mount.is_active()) {
        let is_seen = ctx.acl.is_some_and(|acl| acl.sees_mount(&mount.full_path));
        let info = if is_seen {
            shown(ctx.kernel, mount)
        } else if mount.record.config.listing_visibility == "unauth" {
            shown_to_strangers(mount)
        } else {
            continue;
        };
        let table = if mount.record.kind() == EngineKind::Auth { &mut auth } else { &mut secret };
        table.insert(shown_path(mount).to_owned(), Value::Object(info));
    }
    Ok(Response::data(json!({"auth": auth, "secret": secret})).into())
}

fn shown_to_strangers(mount: &Mount) -> Map {
    let mut info = Map::new();
    info.insert("description".to_owned(), mount.record.description.as_str().into());
    info.insert("options".to_owned(), json!(mount.record.options));
    info.insert("type".to_owned(), mount.record.engine.as_str().into());
    info
}

/// CVE-2020-25594: without a right to a mount the answer is the same whether there is one or not.
fn mount(ctx: &BuiltinCtx<'_>, path: &str) -> Result<BuiltinAnswer, KernelError> {
    let acl = ctx.acl.ok_or(KernelError::Denied)?;
    let full = format!("{}{}/", ctx.namespace.path, path.trim_matches('/'));
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    let found = router
        .find(&full)
        .map(|(mount, _)| mount)
        .filter(|mount| mount.namespace.id == ctx.namespace.id && mount.is_active())
        .filter(|mount| acl.sees_mount(&mount.full_path));
    let Some(mount) = found else {
        return Err(KernelError::Preflight { path: format!("{}/", path.trim_matches('/')) });
    };
    let mut info = shown(ctx.kernel, mount);
    info.insert("path".to_owned(), mount.record.path.as_str().into());
    Ok(Response { data: Some(info), ..Response::default() }.into())
}

/// Paths of namespaces right below this one, relative to it.
fn children(ctx: &BuiltinCtx<'_>) -> Result<Vec<String>, KernelError> {
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    let below =
        router.namespaces().iter().filter(|one| one.parent.as_deref() == Some(ctx.namespace.id.as_str()));
    Ok(below.filter_map(|one| one.path.strip_prefix(&ctx.namespace.path)).map(str::to_owned).collect())
}

fn namespaces(ctx: &BuiltinCtx<'_>) -> Result<BuiltinAnswer, KernelError> {
    if ctx.token.is_none() {
        return Err(KernelError::Denied);
    }
    let keys = children(ctx)?;
    let data = if keys.is_empty() { json!({}) } else { json!({"keys": keys}) };
    Ok(Response::data(data).into())
}
