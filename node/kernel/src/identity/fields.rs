//! What the fields of identity requests mean, checked before anything is written.

use arca_engine_api::{EngineError, Fields, Operation, Request};

use super::book::Book;
use super::record::Metadata;
use crate::KernelError;
use crate::builtin::BuiltinCtx;
use crate::policy::{AclRequest, RESPONSE_WRAPPING, ROOT, canonical_names};

/// Most metadata entries, and longest name and value, bytes.
const METADATA_MAX: usize = 64;
const METADATA_KEY_MAX: usize = 128;
const METADATA_VALUE_MAX: usize = 512;

/// The records of the request's namespace.
pub(super) fn book<'a>(ctx: &BuiltinCtx<'a>) -> Book<'a> {
    Book {
        tx: ctx.tx,
        namespace_id: &ctx.namespace.id,
        entropy: ctx.kernel.entropy.as_ref(),
        now: ctx.kernel.clock.now(),
    }
}

/// `policies` in their one form. The names are brought into it before they are looked at, so that no spelling of
/// `root` gets through (CVE-2025-5999, CVE-2025-64761, CVE-2024-9180).
pub(super) fn policies(fields: Fields<'_>) -> Result<Option<Vec<String>>, KernelError> {
    let Some(names) = fields.list("policies")? else { return Ok(None) };
    let names = canonical_names(names.iter().map(String::as_str))?;
    if names.iter().any(|name| name == ROOT) {
        return Err(KernelError::invalid("policies cannot contain root"));
    }
    if names.iter().any(|name| name == RESPONSE_WRAPPING) {
        return Err(KernelError::invalid(format!("cannot assign policy {RESPONSE_WRAPPING:?}")));
    }
    Ok(Some(names))
}

/// `metadata` or `custom_metadata`.
pub(super) fn metadata(fields: Fields<'_>, name: &str) -> Result<Option<Metadata>, KernelError> {
    let Some(metadata) = fields.string_map(name)? else { return Ok(None) };
    let is_over = |(key, value): (&String, &String)| {
        key.is_empty() || key.len() > METADATA_KEY_MAX || value.len() > METADATA_VALUE_MAX
    };
    let is_plain = |text: &str| !text.chars().any(char::is_control);
    if metadata.len() > METADATA_MAX || metadata.iter().any(is_over) {
        return Err(KernelError::invalid(format!(
            "{name} is limited to {METADATA_MAX} entries with keys of 1 to {METADATA_KEY_MAX} and values of \
             {METADATA_VALUE_MAX} bytes"
        )));
    }
    if !metadata.iter().all(|(key, value)| is_plain(key) && is_plain(value)) {
        return Err(KernelError::invalid(format!("{name} contains unprintable characters")));
    }
    Ok(Some(metadata))
}

/// What the path says, or else the body; empty where neither does.
pub(super) fn path_or_body(request: &Request, name: &str) -> Result<String, EngineError> {
    match request.param(name) {
        "" => Ok(request.fields().string(name)?.unwrap_or_default()),
        given => Ok(given.to_owned()),
    }
}

/// Refuses a caller who reached something by another spelling of its name than the one it has, unless the rules allow
/// that one too: a rule on the name as it is shown holds for every spelling (CVE-2026-89322).
pub(super) fn check_spelling(ctx: &BuiltinCtx<'_>, request: &Request, name: &str) -> Result<(), KernelError> {
    let asked = request.param("name");
    if asked.is_empty() || asked == name {
        return Ok(());
    }
    let Some(folder) = request.path.strip_suffix(asked) else { return Ok(()) };
    let path = format!("{}{}{folder}{name}", ctx.namespace.path, request.mount_point);
    let operation = match request.operation {
        Operation::Create => Operation::Update,
        other => other,
    };
    let asked = AclRequest::of(request, operation, &path);
    let is_allowed = ctx.acl.is_some_and(|acl| acl.check(asked).is_allowed);
    if is_allowed { Ok(()) } else { Err(KernelError::Denied) }
}
