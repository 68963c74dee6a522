//! What people and tools ask about the server: machine, metrics, configuration, versions, catalog, counters.

use arca_engine_api::{
    Access, Effect, EngineKind, Field, FieldKind, Method, Operation, Raw, Request, Response, Route,
    RouteTable,
};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};

const READ: &[Method] = &[Method::new(Operation::Read, "Show.")];
const LIST: &[Method] = &[Method::new(Operation::List, "List."), Method::new(Operation::Read, "List.")];

const fn route(
    id: &'static str,
    pattern: &'static str,
    methods: &'static [Method],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access: Access::Token, methods, fields: &[], takes_any_field: false, summary }
}

static ROUTES: &[Route] = &[
    route("host-info", "host-info", READ, "The machine this node runs on."),
    Route {
        id: "metrics",
        pattern: "metrics",
        access: Access::Token,
        methods: READ,
        fields: &[Field {
            name: "format",
            kind: FieldKind::String,
            summary: "prometheus, or JSON when absent.",
        }],
        takes_any_field: false,
        summary: "This node's metrics.",
    },
    route("sanitized", "config/state/sanitized", READ, "The configuration, without its secrets."),
    route("version-history", "version-history", LIST, "Versions that have run."),
    route("in-flight", "in-flight-req", READ, "Requests under way on this node."),
    route("plugins", "plugins/catalog", READ, "Every type that can be mounted."),
    Route {
        access: Access::Sudo,
        ..route("plugins-of", "plugins/catalog/{kind}", LIST, "Types of one kind.")
    },
    route("counter-tokens", "internal/counters/tokens", READ, "How many service tokens there are."),
    route(
        "counter-requests",
        "internal/counters/requests",
        READ,
        "Requests served since this node was unsealed.",
    ),
    route(
        "leader",
        "leader",
        &[Method::with_effect(Operation::Read, Effect::Reads, "Show.")],
        "Which node is active.",
    ),
];

/// These paths.
pub(crate) struct InfoPaths {
    table: RouteTable,
}

impl InfoPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

fn data(value: Value) -> BuiltinAnswer {
    Response::data(value).into()
}

#[async_trait]
impl Builtin for InfoPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let cluster = &ctx.kernel.cluster;
        match request.route.id {
            "host-info" => Ok(data(Value::Object(cluster.host_info().await?))),
            "metrics" => metrics(ctx, request),
            "sanitized" => Ok(data(Value::Object(cluster.sanitized_config()))),
            "version-history" => Ok(version_history(ctx)),
            "in-flight" => {
                // Without the usual envelope, as clients know it.
                let body = Value::Object(ctx.kernel.in_flight.shown()).to_string().into_bytes();
                let raw = Raw { status: 200, content_type: "application/json".to_owned(), body };
                Ok(Response { raw: Some(raw), ..Response::default() }.into())
            }
            "plugins" => Ok(plugins(ctx)),
            "plugins-of" => plugins_of(ctx, request.param("kind")),
            "counter-tokens" => {
                let page = arca_engine_api::Page::default();
                let total = ctx.tx.list(arca_barrier::Class::Local, "root/token/accessor/", &page)?.len();
                Ok(data(json!({ "counters": { "service_tokens": { "total": total } } })))
            }
            "counter-requests" => Ok(data(json!({ "counters": [] }))),
            "leader" => {
                let info = cluster.info();
                Ok(BuiltinAnswer::at_both_levels(Response::data(json!({
                    "ha_enabled": info.storage_type == "raft",
                    "is_self": ctx.kernel.is_active(),
                    "leader_address": info.leader_api_addr.unwrap_or_default(),
                    "leader_cluster_address": info.leader_cluster_addr.unwrap_or_default(),
                }))))
            }
            other => Err(KernelError::Bug(format!("no such path: {other}"))),
        }
    }
}

fn metrics(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let format = request.fields().string("format")?.unwrap_or_default();
    let is_prometheus = match format.as_str() {
        "prometheus" => true,
        "" | "json" => false,
        _ => return Err(KernelError::invalid("metrics format must be \"prometheus\" or empty")),
    };
    let content_type = if is_prometheus { "text/plain; version=0.0.4" } else { "application/json" };
    let body = ctx.kernel.cluster.metrics(is_prometheus)?.into_bytes();
    let raw = Raw { status: 200, content_type: content_type.to_owned(), body };
    Ok(Response { raw: Some(raw), ..Response::default() }.into())
}

fn version_history(ctx: &BuiltinCtx<'_>) -> BuiltinAnswer {
    let version = ctx.kernel.cluster.info().version;
    let info = json!({ "previous_version": null, "timestamp_installed": null, "build_date": null });
    data(json!({ "keys": [version], "key_info": { version: info } }))
}

/// Names of one kind, as the catalog calls kinds.
fn names(ctx: &BuiltinCtx<'_>, kind: EngineKind) -> Vec<&'static str> {
    let mut names: Vec<_> = ctx
        .kernel
        .mounts
        .engines()
        .iter()
        .filter(|engine| engine.kind == kind)
        .map(|engine| engine.name)
        .collect();
    names.sort_unstable();
    names
}

fn plugins(ctx: &BuiltinCtx<'_>) -> BuiltinAnswer {
    let (auth, secret) = (names(ctx, EngineKind::Auth), names(ctx, EngineKind::Secrets));
    let detailed: Vec<Value> = auth
        .iter()
        .map(|name| ("auth", name))
        .chain(secret.iter().map(|name| ("secret", name)))
        .map(|(kind, name)| {
            json!({ "type": kind, "name": name, "version": "", "builtin": true, "deprecation_status": "supported" })
        })
        .collect();
    data(json!({ "auth": auth, "database": [], "secret": secret, "detailed": detailed }))
}

fn plugins_of(ctx: &BuiltinCtx<'_>, kind: &str) -> Result<BuiltinAnswer, KernelError> {
    let found = match kind {
        "auth" => names(ctx, EngineKind::Auth),
        "secret" => names(ctx, EngineKind::Secrets),
        "database" => Vec::new(),
        _ => return Err(KernelError::invalid("the kind must be auth, database or secret")),
    };
    Ok(Response::list(found.into_iter().map(str::to_owned).collect()).into())
}
