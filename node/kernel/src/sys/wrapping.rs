//! `sys/wrapping/*`: wrap data of one's own, look at a wrapping token, take out what it wraps, move it to a new one.

use std::sync::Arc;

use arca_engine_api::{
    Access, Effect, Field, FieldKind, Method, Operation, Raw, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use serde_json::json;
use zeroize::Zeroizing;

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::grants::NO_JWT;
use crate::policy::AclRequest;
use crate::rfc3339;
use crate::tokens::TokenEntry;
use crate::wrapping::{self, Wrapping};

const TOKEN: &[Field] = &[Field {
    name: "token",
    kind: FieldKind::String,
    summary: "The wrapping token; the request's own when absent.",
}];

const UPDATE: &[Method] = &[Method::new(Operation::Update, "Act.")];
/// A standby's answer would be right as well, but unwrapping follows at once, and that is the active node's.
const LOOK: &[Method] = &[
    Method::with_effect(Operation::Update, Effect::Writes, "Look up."),
    Method::with_effect(Operation::Read, Effect::Writes, "Look up the request's own token."),
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

static ROUTES: &[Route] = &[
    Route {
        id: "wrap",
        pattern: "wrapping/wrap",
        access: Access::Token,
        methods: UPDATE,
        fields: &[],
        takes_any_field: true,
        summary: "Answers with the data sent, to be wrapped: send X-Vault-Wrap-TTL.",
    },
    route(
        "unwrap",
        "wrapping/unwrap",
        Access::Unauthenticated,
        UPDATE,
        TOKEN,
        "Takes a wrapped answer out, once.",
    ),
    route(
        "lookup",
        "wrapping/lookup",
        Access::Unauthenticated,
        LOOK,
        TOKEN,
        "When and by what a token was made.",
    ),
    route(
        "rewrap",
        "wrapping/rewrap",
        Access::Token,
        UPDATE,
        TOKEN,
        "Moves a wrapped answer to a new token.",
    ),
];

/// These paths.
pub(crate) struct WrappingPaths {
    table: RouteTable,
}

impl WrappingPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for WrappingPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        if request.route.id == "wrap" {
            if request.wrap_ttl.is_none() {
                return Err(KernelError::invalid("endpoint requires response wrapping to be used"));
            }
            return Ok(Response { data: Some(request.data.clone()), ..Response::default() }.into());
        }
        let kernel = ctx.kernel;
        let router = kernel.mounts.router(&kernel.store)?;
        let wrapping = Wrapping::new(
            ctx.tx,
            &kernel.tokens,
            kernel.clock.as_ref(),
            kernel.entropy.as_ref(),
            &router,
            ctx.namespace,
        )?;
        let entry = wanted(ctx, request, &wrapping)?;
        match request.route.id {
            "unwrap" => {
                take_leave(ctx, request, &entry)?;
                // Whoever wants the answer wrapped is not to see what is inside either.
                if let Some(ttl) = request.wrap_ttl {
                    if ctx.incoming.wants_jwt_wrapping {
                        return Err(KernelError::invalid(NO_JWT));
                    }
                    let path = format!("{}{}", request.mount_point, request.path);
                    let wrap_info = Some(wrapping.wrap_again(&entry, ttl, &path)?);
                    return Ok(BuiltinAnswer { wrap_info, ..BuiltinAnswer::default() });
                }
                let status = if wrapping.facts(&entry)?.is_missing { 404 } else { 200 };
                let body = wrapping.unwrap(&entry)?;
                let raw = Raw {
                    status,
                    content_type: "application/json".to_owned(),
                    body: body.as_bytes().to_vec(),
                };
                Ok(Response { raw: Some(raw), ..Response::default() }.into())
            }
            "lookup" => {
                let facts = wrapping.facts(&entry)?;
                Ok(Response::data(json!({
                    "creation_ttl": facts.creation_ttl,
                    "creation_time": rfc3339::format(facts.creation_time),
                    "creation_path": facts.creation_path,
                }))
                .into())
            }
            _ => {
                let info = wrapping.rewrap(&entry)?;
                Ok(BuiltinAnswer { wrap_info: Some(info), ..BuiltinAnswer::default() })
            }
        }
    }
}

/// Whether the caller may take out what `entry` wraps: the wrapping token itself may, and a token whose policies say so,
/// of which this takes a use. The path is open because a wrapping token that is no good is to be called so.
fn take_leave(ctx: &BuiltinCtx<'_>, request: &Request, entry: &TokenEntry) -> Result<(), KernelError> {
    let (Some(caller), Some(acl)) = (ctx.token, ctx.acl) else { return Err(KernelError::Denied) };
    if caller.reference() == entry.reference() {
        return Ok(());
    }
    let path = format!("{}{}{}", ctx.namespace.path, request.mount_point, request.path);
    if !acl.check(AclRequest::of(request, request.operation, &path)).is_allowed {
        return Err(KernelError::Denied);
    }
    ctx.kernel.tokens.use_once(ctx.tx, caller, ctx.kernel.clock.now()).map(drop)
}

/// The token meant: the one in the body, or the request's own. Nobody has taken its use yet.
fn wanted(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    wrapping: &Wrapping<'_>,
) -> Result<Arc<TokenEntry>, KernelError> {
    let in_body = request.fields().string("token")?.filter(|text| !text.is_empty()).map(Zeroizing::new);
    let own = ctx.incoming.token.as_ref().map(|token| Zeroizing::new(token.to_string()));
    let presented = in_body.or(own).ok_or_else(wrapping::invalid)?;
    wrapping.find(&presented)
}
