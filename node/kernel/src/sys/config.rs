//! `sys/config/cors` and what is shown of quotas: settings that belong to no other topic.

use arca_barrier::Class;
use arca_engine_api::{Access, Field, FieldKind, Method, Operation, Request, Response, Route, RouteTable};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};

const CORS_PATH: &str = "root/core/config/cors";

/// Headers a page of an allowed origin may always send.
const CORS_HEADERS: &[&str] = &[
    "Content-Type",
    "Authorization",
    "X-Vault-Token",
    "X-Vault-MFA",
    "X-Vault-No-Request-Forwarding",
    "X-Vault-Wrap-Format",
    "X-Vault-Wrap-TTL",
    "X-Vault-Policy-Override",
    "X-Requested-With",
];

/// Which pages of other origins may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorsConfig {
    /// Whether any may.
    pub is_enabled: bool,
    /// Origins, or `*`.
    pub allowed_origins: Vec<String>,
    /// Headers they may send.
    pub allowed_headers: Vec<String>,
}

static ROUTES: &[Route] = &[
    Route {
        id: "cors",
        pattern: "config/cors",
        access: Access::Sudo,
        methods: &[
            Method::new(Operation::Read, "Show."),
            Method::new(Operation::Update, "Change."),
            Method::new(Operation::Delete, "Turn off."),
        ],
        fields: &[
            Field {
                name: "enable",
                kind: FieldKind::Bool,
                summary: "Kept for clients: setting origins enables.",
            },
            Field { name: "allowed_origins", kind: FieldKind::List, summary: "Origins, or *." },
            Field { name: "allowed_headers", kind: FieldKind::List, summary: "More headers pages may send." },
        ],
        takes_any_field: false,
        summary: "Which pages of other origins may call.",
    },
    Route {
        id: "quotas",
        pattern: "quotas/config",
        access: Access::Token,
        methods: &[Method::new(Operation::Read, "Show.")],
        fields: &[],
        takes_any_field: false,
        summary: "Settings of quotas.",
    },
];

/// These paths.
pub(crate) struct ConfigPaths {
    table: RouteTable,
}

impl ConfigPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for ConfigPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        match (request.route.id, request.operation) {
            ("quotas", _) => Ok(Response::data(json!({
                "enable_rate_limit_audit_logging": false,
                "enable_rate_limit_response_headers": false,
                "rate_limit_exempt_paths": [],
            }))
            .into()),
            (_, Operation::Read) => read_cors(ctx),
            (_, Operation::Delete) => {
                ctx.tx.delete(Class::Replicated, CORS_PATH)?;
                Ok(Response::empty().into())
            }
            _ => write_cors(ctx, request),
        }
    }
}

fn read_cors(ctx: &BuiltinCtx<'_>) -> Result<BuiltinAnswer, KernelError> {
    let config: CorsConfig = ctx.tx.get_record(Class::Replicated, CORS_PATH)?.unwrap_or_default();
    let data = if config.is_enabled {
        json!({
            "enabled": true,
            "allowed_origins": config.allowed_origins,
            "allowed_headers": config.allowed_headers,
            "allow_credentials": false,
        })
    } else {
        json!({"enabled": false})
    };
    Ok(BuiltinAnswer::at_both_levels(Response::data(data)))
}

fn write_cors(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let fields = request.fields();
    let origins = fields.list("allowed_origins")?.unwrap_or_default();
    if origins.is_empty() {
        return Err(KernelError::invalid("at least one origin or the wildcard must be provided"));
    }
    if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
        return Err(KernelError::invalid(
            "to allow all origins the '*' must be the only value for allowed_origins",
        ));
    }
    let more = fields.list("allowed_headers")?.unwrap_or_default();
    let allowed_headers = CORS_HEADERS.iter().map(|name| (*name).to_owned()).chain(more).collect();
    let config = CorsConfig { is_enabled: true, allowed_origins: origins, allowed_headers };
    ctx.tx.put_record(Class::Replicated, CORS_PATH, &config)?;
    Ok(Response::empty().into())
}

impl crate::kernel::Kernel {
    /// Which pages of other origins may call, for the API layer.
    ///
    /// # Errors
    /// When the setting cannot be read.
    pub fn cors(&self) -> Result<CorsConfig, KernelError> {
        let tx = self.store.begin(crate::tx::Mode::ReadOnly);
        Ok(tx.get_record(Class::Replicated, CORS_PATH)?.unwrap_or_default())
    }
}
