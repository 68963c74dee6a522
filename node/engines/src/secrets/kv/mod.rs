//! KV: secrets as people write them. Version 1 keeps the last value, version 2 keeps versions. The mount's `version`
//! option says which.

mod plain;
mod time;
mod v1;
mod v2;

use std::sync::Arc;

use arca_engine_api::{Engine, EngineError, EngineKind, EngineType, MountView, Page, Request};

const fn of(name: &'static str, summary: &'static str) -> EngineType {
    EngineType { name, kind: EngineKind::Secrets, make, summary }
}

/// The types this folder brings. `generic` is version 1's old name.
pub const TYPES: &[EngineType] =
    &[of("generic", "Key/value secrets without versions."), of("kv", "Key/value secrets; version 1 or 2.")];

fn make(mount: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    match mount.options.get("version").map_or("1", String::as_str) {
        "1" | "" => Ok(Arc::new(v1::Kv1::new())),
        "2" => Ok(Arc::new(v2::Kv2::new())),
        _ => Err(EngineError::invalid("the version of a kv mount is 1 or 2")),
    }
}

/// `after` and `limit` of a listing. A limit that is empty or not above zero stands for none.
fn page(request: &Request) -> Result<Page, EngineError> {
    let fields = request.fields();
    let is_said = fields.string("limit")?.is_some_and(|text| !text.is_empty());
    let limit = if is_said { fields.integer("limit")? } else { None };
    Ok(Page {
        after: fields.string("after")?.filter(|after| !after.is_empty()),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
    })
}
