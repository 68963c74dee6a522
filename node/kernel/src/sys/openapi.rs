//! `sys/internal/specs/openapi`: one document of every path the caller may know of, from the route tables.

use arca_engine_api::{
    Access, Field, FieldKind, Method, Operation, Raw, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;

use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::{KernelError, openapi};

static ROUTES: &[Route] = &[Route {
    id: "openapi",
    pattern: "internal/specs/openapi",
    access: Access::Unauthenticated,
    methods: &[
        Method::new(Operation::Read, "Show."),
        Method::with_effect(Operation::Update, arca_engine_api::Effect::Reads, "Show."),
    ],
    fields: &[
        Field { name: "generic_mount_paths", kind: FieldKind::Bool, summary: "Kept for clients." },
        Field { name: "context", kind: FieldKind::String, summary: "Kept for clients." },
    ],
    takes_any_field: false,
    summary: "An OpenAPI document of the paths the caller may see.",
}];

/// These paths.
pub(crate) struct OpenApiPaths {
    table: RouteTable,
}

impl OpenApiPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for OpenApiPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, _request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
        let mut routes: Vec<(String, &'static Route)> = Vec::new();
        if let Some(acl) = ctx.acl {
            let mounts = router.mounts_of(&ctx.namespace.id);
            for mount in mounts.filter(|mount| mount.is_active() && acl.sees_mount(&mount.full_path)) {
                for table in ctx.kernel.tables(mount)? {
                    routes.extend(
                        table.routes().iter().map(|route| (format!("/{}", mount.record.path), route)),
                    );
                }
            }
        }
        let version = ctx.kernel.cluster.info().version;
        let document =
            openapi::document(&version, routes.iter().map(|(mount, route)| (mount.as_str(), *route)));
        let raw = Raw {
            status: 200,
            content_type: "application/json".to_owned(),
            body: document.to_string().into_bytes(),
        };
        Ok(Response { raw: Some(raw), ..Response::default() }.into())
    }
}
