//! `sys/capabilities`: what a token may do on paths.

use std::sync::Arc;

use arca_engine_api::{
    Access, Effect, Field, FieldKind, Map, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use serde_json::json;

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::places::Place;
use crate::policy::Acl;
use crate::tokens::TokenEntry;

/// Paths asked about at once, at most.
const PATHS_MAX: usize = 1_024;

const ASK: &[Method] = &[Method::with_effect(Operation::Update, Effect::Reads, "Ask.")];
const PATHS: Field = Field { name: "paths", kind: FieldKind::List, summary: "Paths." };
const PATH: Field = Field { name: "path", kind: FieldKind::List, summary: "Old name of paths." };

static ROUTES: &[Route] = &[
    Route {
        id: "token",
        pattern: "capabilities",
        access: Access::Token,
        methods: ASK,
        fields: &[PATHS, PATH, Field { name: "token", kind: FieldKind::String, summary: "The token." }],
        takes_any_field: false,
        summary: "What a token may do on paths.",
    },
    Route {
        id: "accessor",
        pattern: "capabilities-accessor",
        access: Access::Token,
        methods: ASK,
        fields: &[
            PATHS,
            PATH,
            Field { name: "accessor", kind: FieldKind::String, summary: "Accessor of the token." },
        ],
        takes_any_field: false,
        summary: "What the token with an accessor may do on paths.",
    },
    Route {
        id: "self",
        pattern: "capabilities-self",
        access: Access::Token,
        methods: ASK,
        fields: &[PATHS, PATH, Field { name: "token", kind: FieldKind::String, summary: "Ignored." }],
        takes_any_field: false,
        summary: "What the caller may do on paths.",
    },
];

/// These paths.
pub(crate) struct CapabilityPaths {
    table: RouteTable,
}

impl CapabilityPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for CapabilityPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let fields = request.fields();
        let paths = match fields.list("paths")?.filter(|paths| !paths.is_empty()) {
            Some(paths) => paths,
            None => fields.list("path")?.unwrap_or_default(),
        };
        if paths.is_empty() {
            return Err(KernelError::invalid("paths must be supplied"));
        }
        if paths.len() > PATHS_MAX {
            return Err(KernelError::invalid(format!(
                "at most {PATHS_MAX} paths can be asked about at once"
            )));
        }
        if request.route.id == "self" {
            return answer(ctx, ctx.acl.ok_or(KernelError::Denied)?, &paths);
        }
        let entry = subject(ctx, request)?;
        answer(ctx, &*acl_of(ctx, &entry)?, &paths)
    }
}

/// The token asked about.
fn subject(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Arc<TokenEntry>, KernelError> {
    let (kernel, fields, now) = (ctx.kernel, request.fields(), ctx.kernel.clock.now());
    if request.route.id == "accessor" {
        let accessor = fields.string("accessor")?.filter(|accessor| !accessor.is_empty());
        let accessor = accessor.ok_or_else(|| KernelError::invalid("missing accessor"))?;
        let found = kernel.tokens.find_accessor(ctx.tx, &ctx.namespace.id, &accessor, now)?;
        return found.ok_or_else(|| KernelError::invalid("invalid accessor"));
    }
    let token = fields.string("token")?.filter(|token| !token.is_empty());
    let token = zeroize::Zeroizing::new(token.ok_or_else(|| KernelError::invalid("missing token"))?);
    let found = kernel.tokens.find(ctx.tx, &token, now)?;
    found.ok_or_else(|| KernelError::invalid("invalid token"))
}

/// A token whose entity is disabled or gone is none.
fn acl_of(ctx: &BuiltinCtx<'_>, entry: &TokenEntry) -> Result<Arc<Acl>, KernelError> {
    match ctx.kernel.authority(ctx.tx, entry) {
        Ok(authority) => Ok(authority.acl),
        Err(KernelError::Denied) => Err(KernelError::invalid("invalid token")),
        Err(err) => Err(err),
    }
}

fn answer(ctx: &BuiltinCtx<'_>, acl: &Acl, paths: &[String]) -> Result<BuiltinAnswer, KernelError> {
    let mut data = Map::new();
    let mut last = None;
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    for path in paths {
        let bare = path.strip_prefix('/').unwrap_or(path);
        let words = json!(acl.capabilities(&Place::find(&router, ctx.namespace, bare).full_path));
        last = Some(words.clone());
        data.insert(path.clone(), words);
    }
    if let (Some(words), [_]) = (last, paths) {
        data.insert("capabilities".to_owned(), words);
    }
    Ok(BuiltinAnswer::at_both_levels(Response { data: Some(data), ..Response::default() }))
}
