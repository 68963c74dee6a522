//! Path filters of performance secondaries, and what they come to. Set where the cluster is the primary; the filter is part
//! of what a secondary gets, so it can be read there too.

use arca_engine_api::{Operation, Request, Response};
use serde_json::json;

use super::{fields, require};
use crate::KernelError;
use crate::builtin::{BuiltinAnswer, BuiltinCtx};
use crate::replication::filter::{self, FILTERS_MAX, Filter, FilterMode};
use crate::replication::{Kind, Mode, Standing};

const COMPARES: &str = "a secondary of this name compares its state with this cluster's now: what it must not have any more \
                        is deleted there, what it was not allowed before is fetched";
const ENDS_THERE: &str = "tokens and leases that a secondary granted from mounts it must not have any more end, and what it keeps of its own \
                          of them (revocations of certificates, local secret ids) is deleted there after a day";
const EMPTY_ALLOW: &str = "no path is allowed: the secondary gets policies and identity, and no mount";

fn none(id: &str) -> KernelError {
    KernelError::NotFound(format!("no filter is set for {id:?}"))
}

/// `primary/paths-filter/{id}`.
pub(super) fn paths_filter(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    standing: &Standing,
) -> Result<BuiltinAnswer, KernelError> {
    let id = fields::id_in_path(request)?;
    require(standing, Kind::Performance, Mode::Primary)?;
    match request.operation {
        Operation::Read => {
            let Filter { mode, paths } = Filter::load(ctx.tx, &id)?.ok_or_else(|| none(&id))?;
            let data = json!({ "mode": mode.name(), "paths": paths });
            Ok(BuiltinAnswer::at_both_levels(Response::data(data)))
        }
        Operation::Delete => {
            let was_there = Filter::remove(ctx.tx, &id)?;
            let answer = Response::empty();
            Ok(if was_there { answer.with_warning(COMPARES) } else { answer }.into())
        }
        _ => set(ctx, request, &id),
    }
}

fn set(ctx: &BuiltinCtx<'_>, request: &Request, id: &str) -> Result<BuiltinAnswer, KernelError> {
    let filter = wanted(request)?;
    let mut answer = Response::empty().with_warning(COMPARES).with_warning(ENDS_THERE);
    if filter.paths.is_empty() && filter.mode == FilterMode::Allow {
        answer = answer.with_warning(EMPTY_ALLOW);
    }
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    for path in &filter.paths {
        if router.at(path).is_none() && router.namespaces().at(path).is_none() {
            let text =
                format!("nothing is mounted at {path:?}, and no namespace: it counts once something is");
            answer = answer.with_warning(text);
        }
    }
    filter.store(ctx.tx, id)?;
    Ok(answer.into())
}

/// The filter that is asked for.
fn wanted(request: &Request) -> Result<Filter, KernelError> {
    let fields = request.fields();
    let mode = match fields.string("mode")?.as_deref() {
        Some("allow") => FilterMode::Allow,
        Some("deny") => FilterMode::Deny,
        _ => return Err(KernelError::invalid("mode must be allow or deny")),
    };
    let given = fields.list("paths")?.unwrap_or_default();
    if given.len() > FILTERS_MAX {
        return Err(KernelError::invalid(format!("paths takes {FILTERS_MAX} of them at most")));
    }
    let mut paths = Vec::with_capacity(given.len());
    for path in given {
        paths.push(filter::canonical(&path)?);
    }
    paths.sort();
    paths.dedup();
    Ok(Filter { mode, paths })
}

/// `{primary,secondary}/dynamic-filter/{id}`: what a filter comes to. Only the primary knows what is withheld.
pub(super) fn dynamic_filter(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    standing: &Standing,
) -> Result<BuiltinAnswer, KernelError> {
    let id = fields::id_in_path(request)?;
    let is_primary = match request.param("side") {
        "primary" => true,
        "secondary" => false,
        _ => return Err(KernelError::NotFound("unsupported path".to_owned())),
    };
    let wanted = if is_primary { Mode::Primary } else { Mode::Secondary };
    require(standing, Kind::Performance, wanted)?;
    let filter = Filter::load(ctx.tx, &id)?.ok_or_else(|| none(&id))?;
    let mut data = json!({ "mode": filter.mode.name(), "paths": filter.paths });
    if is_primary && let Some(data) = data.as_object_mut() {
        let withheld = filter::withheld(ctx.tx, &filter)?;
        data.insert("dynamic_filtered_mounts".to_owned(), json!(withheld.mounts));
        data.insert("dynamic_filtered_namespaces".to_owned(), json!(withheld.namespaces));
    }
    Ok(BuiltinAnswer::at_both_levels(Response::data(data)))
}
