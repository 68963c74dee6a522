//! `sys/auth`: auth methods enabled, listed, tuned and disabled.

use arca_engine_api::{Access, EngineKind, Request, Route, RouteTable};
use async_trait::async_trait;

use super::mounts::{MOUNT_FIELDS, MOUNT_METHODS, TABLE_METHODS, serve};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};

static ROUTES: &[Route] = &[
    Route {
        id: "table",
        pattern: "auth",
        access: Access::Token,
        methods: TABLE_METHODS,
        fields: &[],
        takes_any_field: false,
        summary: "The auth methods enabled here.",
    },
    Route {
        id: "mount",
        pattern: "auth/{path...}",
        access: Access::Sudo,
        methods: MOUNT_METHODS,
        fields: MOUNT_FIELDS,
        takes_any_field: false,
        summary: "An auth method; its settings are at the path with /tune behind.",
    },
];

/// These paths.
pub(crate) struct AuthMountPaths {
    table: RouteTable,
}

impl AuthMountPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for AuthMountPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        serve(ctx, request, EngineKind::Auth).await
    }
}
