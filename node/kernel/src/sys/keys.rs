//! `sys/key-status`, `sys/rotate`, `sys/rotate/config`: the keyring's terms.

use std::time::Duration;

use arca_engine_api::{
    Access, Effect, Field, FieldKind, Method, Operation, Request, Response, Route, RouteTable, UnixMillis,
};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::tokens::lifetime::go_text;

const CONFIG_FIELDS: &[Field] = &[
    Field { name: "enabled", kind: FieldKind::Bool, summary: "Whether the keyring rotates by itself." },
    Field { name: "max_operations", kind: FieldKind::Int, summary: "Encryptions before it does." },
    Field {
        name: "interval",
        kind: FieldKind::Duration,
        summary: "Longest time between rotations; zero for none.",
    },
];

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

const ROTATE: &[Method] = &[Method::new(Operation::Update, "Add a key term.")];
/// Encryption counts are exact on the active node only.
const CONFIG: &[Method] = &[
    Method::with_effect(Operation::Read, Effect::Writes, "Show when the keyring rotates by itself."),
    Method::new(Operation::Update, "Change when the keyring rotates by itself."),
];

static ROUTES: &[Route] = &[
    route(
        "key-status",
        "key-status",
        Access::Token,
        &[Method::with_effect(Operation::Read, Effect::Writes, "Show the active key term.")],
        &[],
        "The active term of the keyring: number, age, encryptions so far.",
    ),
    route(
        "rotate",
        "rotate",
        Access::Sudo,
        ROTATE,
        &[],
        "New values are sealed with a new key; old ones stay readable.",
    ),
    route("rotate", "rotate/keyring", Access::Sudo, ROTATE, &[], "As `rotate`."),
    route("config", "rotate/config", Access::Token, CONFIG, CONFIG_FIELDS, "Automatic rotation."),
    route("config", "rotate/keyring/config", Access::Token, CONFIG, CONFIG_FIELDS, "As `rotate/config`."),
];

/// These paths.
pub(crate) struct KeyPaths {
    table: RouteTable,
}

impl KeyPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for KeyPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        match (request.route.id, request.operation) {
            ("key-status", _) => {
                let status = ctx.kernel.store.barrier().key_status();
                Ok(BuiltinAnswer::at_both_levels(Response::data(json!({
                    "term": status.term,
                    "install_time": crate::rfc3339::format(UnixMillis(status.install_time_ms)),
                    "encryptions": status.encryptions,
                }))))
            }
            ("rotate", _) => Ok(BuiltinAnswer::after(|kernel| {
                Box::pin(async move {
                    kernel.standing().check_writes()?;
                    kernel.cluster.rotate_keyring().await.map(|()| Response::empty())
                })
            })),
            (_, Operation::Read) => {
                let config = ctx.kernel.store.barrier().rotation_config();
                Ok(Response::data(json!({
                    "enabled": config.enabled,
                    "max_operations": config.max_operations,
                    "interval": shown_interval(config.interval_ms),
                }))
                .into())
            }
            _ => configure(ctx, request),
        }
    }
}

/// A number only where there is none, as in the field.
fn shown_interval(interval_ms: u64) -> Value {
    if interval_ms == 0 { json!(0) } else { json!(go_text(Duration::from_millis(interval_ms))) }
}

fn configure(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let fields = request.fields();
    let mut config = ctx.kernel.store.barrier().rotation_config();
    if let Some(enabled) = fields.boolean("enabled")? {
        config.enabled = enabled;
    }
    if let Some(operations) = fields.integer("max_operations")? {
        config.max_operations =
            u64::try_from(operations).map_err(|_| KernelError::invalid("max_operations is negative"))?;
    }
    if let Some(interval) = fields.duration("interval")? {
        config.interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    }
    config.validate().map_err(|err| KernelError::invalid(err.to_string()))?;
    Ok(BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            kernel.standing().check_writes()?;
            kernel.cluster.configure_rotation(config).await.map(|()| Response::empty())
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_shown_as_go_prints_it() {
        assert_eq!(shown_interval(0), json!(0));
        assert_eq!(shown_interval(720 * 3_600 * 1_000), json!("720h0m0s"));
    }
}
