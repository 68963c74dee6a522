//! `sys/policies/password`: the texts of password policies, and passwords by them.

use arca_barrier::Class;
use arca_engine_api::{
    EngineError, Field, FieldKind, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use serde_json::json;

use super::policies::{page, plain_text};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::password_policy::{self, PasswordPolicy, PasswordPolicyRecord};

const LIST: &[Method] = &[Method::new(Operation::List, "Names of all password policies.")];
const ONE: &[Method] = &[
    Method::new(Operation::Read, "Show a password policy."),
    Method::new(Operation::Update, "Write a password policy."),
    Method::new(Operation::Delete, "Remove a password policy."),
];
const GENERATE: &[Method] = &[Method::new(Operation::Read, "A password by the policy.")];
const PAGE_FIELDS: &[Field] = &[
    Field { name: "after", kind: FieldKind::String, summary: "Only names after this one." },
    Field { name: "limit", kind: FieldKind::Int, summary: "At most so many." },
];
const FIELDS: &[Field] = &[Field {
    name: "policy",
    kind: FieldKind::String,
    summary: "Length and rules as HCL or JSON, plain or in base64.",
}];

static ROUTES: &[Route] = &[
    Route::new("names", "policies/password", LIST, PAGE_FIELDS, "All password policies."),
    Route::new("policy", "policies/password/{name...}", ONE, FIELDS, "One password policy."),
    Route::new("generate", "policies/password/{name}/generate", GENERATE, &[], "A password."),
];

/// Most bytes of a policy's text.
const TEXT_MAX: usize = 64 << 10;

/// These paths.
pub(crate) struct PasswordPolicyPaths {
    table: RouteTable,
}

impl PasswordPolicyPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for PasswordPolicyPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let name = request.param("name");
        // A name may hold slashes, and a route what stands behind it no more.
        let generated = name.strip_suffix("/generate").filter(|_| request.operation == Operation::Read);
        let (route, name) = generated.map_or((request.route.id, name), |name| ("generate", name));
        let stored_at = password_policy::path(&ctx.namespace.id, name);
        let missing = || KernelError::NotFound("policy does not exist".to_owned());
        let record = || ctx.tx.get_record::<PasswordPolicyRecord>(Class::Replicated, &stored_at);
        match (route, request.operation) {
            ("names", _) => {
                let folder = password_policy::path(&ctx.namespace.id, "");
                let names = ctx.tx.scan(Class::Replicated, &folder, &page(request.fields())?)?;
                Ok(Response::list(names).into())
            }
            ("generate", _) => {
                record()?.ok_or_else(missing)?;
                let entropy = ctx.kernel.entropy.as_ref();
                let password = password_policy::generate(ctx.tx, entropy, &ctx.namespace.id, name)?;
                Ok(Response::data(json!({"password": password.as_str()})).into())
            }
            (_, Operation::Read) => {
                let record = record()?.ok_or_else(missing)?;
                Ok(Response::data(json!({"policy": record.policy})).into())
            }
            (_, Operation::Delete) => {
                ctx.tx.delete(Class::Replicated, &stored_at)?;
                Ok(Response::empty().into())
            }
            _ => write(ctx, request, &stored_at),
        }
    }
}

/// A policy that makes no password is refused when it is written, not when somebody needs one.
fn write(ctx: &BuiltinCtx<'_>, request: &Request, stored_at: &str) -> Result<BuiltinAnswer, KernelError> {
    let given = request.fields().string("policy")?.filter(|text| !text.is_empty());
    let policy = plain_text(given.ok_or_else(|| KernelError::invalid("missing policy"))?);
    if policy.len() > TEXT_MAX {
        return Err(KernelError::invalid("the password policy is too long"));
    }
    let refused = |text: String| KernelError::invalid(format!("invalid password policy: {text}"));
    let parsed = PasswordPolicy::parse(&policy).map_err(|err| refused(err.to_string()))?;
    match parsed.generate(ctx.kernel.entropy.as_ref()) {
        Err(EngineError::Invalid(text)) => return Err(refused(text)),
        other => drop(other?),
    }
    ctx.tx.put_record(Class::Replicated, stored_at, &PasswordPolicyRecord { policy })?;
    Ok(Response::empty().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::rig::{Rig, text};

    #[tokio::test]
    async fn a_policy_is_written_read_used_and_removed() {
        let rig = Rig::active().await;
        let policy = "length=20\nrule \"charset\" { charset = \"ab\" }";
        let path = "sys/policies/password/p";
        assert_eq!(text(rig.get("root", path).await), "policy does not exist");
        assert_eq!(text(rig.get("root", &format!("{path}/generate")).await), "policy does not exist");
        rig.post("root", path, json!({"policy": policy})).await.unwrap();
        let read = rig.get("root", path).await.unwrap().data.unwrap();
        assert_eq!(read["policy"], policy);
        let made = rig.get("root", &format!("{path}/generate")).await.unwrap().data.unwrap();
        let made = made["password"].as_str().unwrap();
        assert!(made.len() == 20 && made.bytes().all(|byte| b"ab".contains(&byte)), "{made}");
        let kept = "length=9\nrule \"charset\" { charset = \"a\" min-chars = 10 }";
        for (policy, want) in [
            ("", "missing policy"),
            (
                kept,
                "invalid password policy: line 1, column 1: the rules ask for more characters than length allows",
            ),
        ] {
            assert_eq!(text(rig.post("root", path, json!({"policy": policy})).await), want);
        }
        rig.ask("root", Operation::Delete, path, json!({}), None).await.unwrap();
        assert_eq!(text(rig.get("root", path).await), "policy does not exist");
    }
}
