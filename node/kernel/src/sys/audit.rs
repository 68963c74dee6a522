//! `sys/audit`, `sys/audit-hash` and the headers that are audited. Only in the root namespace: what a device records
//! is the whole cluster's.

use arca_engine_api::{
    Access, Effect, Field, FieldKind, Map, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use serde_json::json;

use crate::KernelError;
use crate::audit::{DeviceRecord, HeaderRule, SaltText, table};
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::kernel::Kernel;

const READ: &[Method] = &[Method::new(Operation::Read, "Show.")];

static ROUTES: &[Route] = &[
    Route {
        id: "devices",
        pattern: "audit",
        access: Access::Sudo,
        methods: READ,
        fields: &[],
        takes_any_field: false,
        summary: "The enabled audit devices.",
    },
    Route {
        id: "device",
        pattern: "audit/{path...}",
        access: Access::Sudo,
        methods: &[
            Method::new(Operation::Update, "Enable a device."),
            Method::new(Operation::Delete, "Disable a device."),
        ],
        fields: &[
            Field { name: "type", kind: FieldKind::String, summary: "file, socket or syslog." },
            Field { name: "description", kind: FieldKind::String, summary: "For people." },
            Field { name: "options", kind: FieldKind::Map, summary: "Options of the type." },
            Field {
                name: "local",
                kind: FieldKind::Bool,
                summary: "Kept for clients: devices never leave a cluster.",
            },
        ],
        takes_any_field: false,
        summary: "An audit device.",
    },
    Route {
        id: "hash",
        pattern: "audit-hash/{path...}",
        access: Access::Token,
        methods: &[Method::with_effect(Operation::Update, Effect::Reads, "Hash as the device does.")],
        fields: &[Field {
            name: "input",
            kind: FieldKind::String,
            summary: "The value to look for in the log.",
        }],
        takes_any_field: false,
        summary: "A value's hash in a device's log.",
    },
    Route {
        id: "headers",
        pattern: "config/auditing/request-headers",
        access: Access::Sudo,
        methods: READ,
        fields: &[],
        takes_any_field: false,
        summary: "The request headers that are audited.",
    },
    Route {
        id: "header",
        pattern: "config/auditing/request-headers/{header}",
        access: Access::Sudo,
        methods: &[
            Method::new(Operation::Read, "Show."),
            Method::new(Operation::Update, "Audit the header."),
            Method::new(Operation::Delete, "No longer audit the header."),
        ],
        fields: &[Field { name: "hmac", kind: FieldKind::Bool, summary: "Only as an HMAC." }],
        takes_any_field: false,
        summary: "A request header that is audited.",
    },
];

/// These paths.
pub(crate) struct AuditPaths {
    table: RouteTable,
}

impl AuditPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for AuditPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        if !ctx.namespace.is_root() {
            return Err(KernelError::invalid("audit is configured in the root namespace"));
        }
        match (request.route.id, request.operation) {
            ("devices", _) => devices(ctx),
            ("device", Operation::Delete) => disable(ctx, request.param("path")),
            ("device", _) => enable(ctx, request).await,
            ("hash", _) => hash(ctx, request),
            ("headers", _) => {
                let headers = table::headers(ctx.tx)?;
                Ok(BuiltinAnswer::at_both_levels(Response::data(json!({ "headers": headers }))))
            }
            (_, operation) => header(ctx, request, operation),
        }
    }
}

fn devices(ctx: &BuiltinCtx<'_>) -> Result<BuiltinAnswer, KernelError> {
    let mut data = Map::new();
    for (path, record) in table::devices(ctx.tx)? {
        let shown = json!({
            "type": record.kind, "description": record.description, "options": record.options,
            "local": record.is_local, "path": path,
        });
        data.insert(path, shown);
    }
    Ok(BuiltinAnswer::at_both_levels(Response { data: Some(data), ..Response::default() }))
}

/// The device writes a test line before anything is stored, so that one that cannot write never stops requests.
async fn enable(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let fields = request.fields();
    let path = table::device_path(request.param("path"))?;
    if table::device(ctx.tx, &path)?.is_some() {
        return Err(KernelError::invalid("path already in use"));
    }
    let record = DeviceRecord {
        kind: fields.required_string("type")?,
        description: fields.string("description")?.unwrap_or_default(),
        options: fields.string_map("options")?.unwrap_or_default(),
        is_local: fields.boolean("local")?.unwrap_or(false),
        is_declared: false,
        salt: SaltText::generate(ctx.kernel.entropy.as_ref())?,
    };
    ctx.kernel.audit.test(&path, &record, ctx.kernel.clock.now(), &request.id).await?;
    table::put_device(ctx.tx, &path, &record)?;
    Ok(Response::empty().into())
}

fn disable(ctx: &BuiltinCtx<'_>, path: &str) -> Result<BuiltinAnswer, KernelError> {
    let path = table::device_path(path)?;
    match table::device(ctx.tx, &path)? {
        Some(record) if record.is_declared => {
            Err(KernelError::invalid("the device is declared in the configuration file, remove it there"))
        }
        Some(_) => {
            table::delete_device(ctx.tx, &path)?;
            Ok(Response::empty().into())
        }
        None => Ok(Response::empty().into()),
    }
}

fn hash(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let path = table::device_path(request.param("path"))?;
    let input = request.fields().string("input")?.filter(|input| !input.is_empty());
    let input = zeroize::Zeroizing::new(
        input.ok_or_else(|| KernelError::invalid("the \"input\" parameter is empty"))?,
    );
    let hash = ctx.kernel.audit.hash(&path, &input);
    let hash = hash.ok_or_else(|| KernelError::invalid(format!("unknown audit backend {path:?}")))?;
    Ok(BuiltinAnswer::at_both_levels(Response::data(json!({ "hash": hash }))))
}

fn header(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    operation: Operation,
) -> Result<BuiltinAnswer, KernelError> {
    let name = request.param("header").trim().to_ascii_lowercase();
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if !is_name || name.len() > 256 {
        return Err(KernelError::invalid("invalid header name"));
    }
    let mut headers = table::headers(ctx.tx)?;
    match operation {
        Operation::Read => {
            let rule =
                headers.get(&name).ok_or_else(|| KernelError::invalid("Could not find header in config"))?;
            return Ok(BuiltinAnswer::at_both_levels(Response::data(json!({ name: rule }))));
        }
        Operation::Delete if headers.remove(&name).is_none() => return Ok(Response::empty().into()),
        Operation::Delete => {}
        _ => {
            // What a client presents as itself is never logged in clear, whatever is configured (CVE-2024-8365).
            let is_credential = matches!(name.as_str(), "authorization" | "cookie" | "x-vault-token");
            let hmac = request.fields().boolean("hmac")?.unwrap_or(false) || is_credential;
            headers.insert(name, HeaderRule { hmac });
        }
    }
    table::put_headers(ctx.tx, &headers)?;
    Ok(Response::empty().into())
}

impl Kernel {
    /// Brings the devices of the configuration file into the table. Nothing is written when they are there already.
    pub(crate) async fn declare_audit(&self) -> Result<(), KernelError> {
        let entropy = self.entropy.as_ref();
        self.commit_staged(|tx| table::declare(tx, self.audit.declared(), entropy)).await
    }
}
