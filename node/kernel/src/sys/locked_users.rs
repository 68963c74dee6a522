//! `sys/locked-users`: names that too many failed logins locked, and their unlocking.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use arca_barrier::Class;
use arca_engine_api::{
    Field, FieldKind, Method, Operation, Page, Request, Response, Route, RouteTable, fold_name,
};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::lockout::{self, FOLDER, Rules};
use crate::namespaces::Namespace;
use crate::router::Router;
use crate::tx::Tx;

static ROUTES: &[Route] = &[
    Route::new(
        "list",
        "locked-users",
        &[Method::new(Operation::Read, "Names that are locked, by namespace and mount.")],
        &[Field::new("mount_accessor", FieldKind::String, "Only of this mount.")],
        "Names that too many failed logins locked.",
    ),
    Route::new(
        "unlock",
        "locked-users/{mount_accessor}/unlock/{alias_identifier...}",
        &[Method::new(Operation::Update, "Forget the failed logins of a name.")],
        &[],
        "The end of a lock before its time.",
    ),
];

/// These paths.
pub(crate) struct LockedUserPaths {
    table: RouteTable,
}

impl LockedUserPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for LockedUserPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        if request.route.id == "unlock" {
            let (accessor, name) = (request.param("mount_accessor"), request.param("alias_identifier"));
            // Methods whose names fold are locked by the folded one.
            for name in BTreeSet::from([name.to_owned(), fold_name(name)]) {
                ctx.kernel.unlock(ctx.tx, ctx.namespace, accessor, &name)?;
            }
            return Ok(Response::empty().into());
        }
        // Counted behind the answers' backs: what was answered before this request is in what it shows.
        ctx.kernel.lockout.written().await;
        let wanted = request.fields().string("mount_accessor")?.unwrap_or_default();
        listed(ctx, &wanted).map(BuiltinAnswer::from)
    }
}

/// Locked names of a namespace by accessor.
type Locked = BTreeMap<String, Vec<String>>;

fn locked(
    ctx: &BuiltinCtx<'_>,
    tx: &Tx,
    router: &Router,
    namespace: &Namespace,
    accessor: &str,
) -> Result<Vec<String>, KernelError> {
    let Some(mount) = lockout::mount_of(router, accessor) else { return Ok(Vec::new()) };
    let (rules, now) = (Rules::of(&mount.record, &ctx.kernel.config.lockout), ctx.kernel.clock.now());
    let folder = lockout::folder(namespace, accessor);
    let mut names = Vec::new();
    for key in tx.list(Class::Local, &folder, &Page::default())? {
        let record = lockout::read(tx, &format!("{folder}{key}"))?;
        names.extend(record.filter(|record| record.tried.is_locked(rules, now)).map(|record| record.name));
    }
    names.sort_unstable();
    Ok(names)
}

fn listed(ctx: &BuiltinCtx<'_>, wanted: &str) -> Result<Response, KernelError> {
    let (tx, router) = (ctx.kernel.read_tx(), ctx.kernel.mounts.router(&ctx.kernel.store)?);
    let mut namespaces = Vec::new();
    for namespace in router.namespaces().iter().filter(|one| one.path.starts_with(&ctx.namespace.path)) {
        if !wanted.is_empty() && namespace.id != ctx.namespace.id {
            continue;
        }
        let mut by_accessor = Locked::new();
        let folders = tx.list(Class::Local, &namespace.storage_path(FOLDER), &Page::default())?;
        for accessor in folders.iter().map(|folder| folder.trim_end_matches('/')) {
            let names = locked(ctx, &tx, &router, namespace, accessor)?;
            if (wanted.is_empty() || wanted == accessor) && !names.is_empty() {
                by_accessor.insert(accessor.to_owned(), names);
            }
        }
        namespaces.push((namespace.clone(), by_accessor));
    }
    let count = |locked: &Locked| locked.values().map(Vec::len).sum::<usize>();
    namespaces.sort_by_key(|(_, locked)| Reverse(count(locked)));
    let total: usize = namespaces.iter().map(|(_, locked)| count(locked)).sum();
    let by_namespace: Vec<Value> = namespaces
        .iter()
        .map(|(namespace, locked)| {
            json!({
                "counts": count(locked),
                "mount_accessors": shown(locked),
                "namespace_id": namespace.id,
                "namespace_path": namespace.path,
            })
        })
        .collect();
    Ok(Response::data(json!({"by_namespace": by_namespace, "total": total})))
}

fn shown(locked: &Locked) -> Vec<Value> {
    let mut mounts: Vec<_> = locked.iter().collect();
    mounts.sort_by_key(|(_, names)| Reverse(names.len()));
    let show = |(accessor, names): (&String, &Vec<String>)| json!({"alias_identifiers": names, "counts": names.len(), "mount_accessor": accessor});
    mounts.into_iter().map(show).collect()
}
