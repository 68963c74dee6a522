//! Cubbyhole: a drawer of its own for each token. Nobody else sees into it, and it goes when the token goes: the
//! kernel removes everything below `<token key>/` then. Batch tokens have none.

use std::sync::Arc;

use arca_engine_api::{
    Access, Ctx, Engine, EngineError, EngineKind, EngineType, Map, Method, MountView, Operation, Page,
    Request, Response, Route, RouteTable, StorageExt as _,
};
use async_trait::async_trait;

/// The types this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "cubbyhole",
    kind: EngineKind::Secrets,
    make,
    summary: "A private drawer for each token.",
}];

static ROUTES: &[Route] = &[Route {
    id: "entry",
    pattern: "{path...}",
    access: Access::Token,
    methods: &[
        Method::new(Operation::Read, "Read an entry."),
        Method::new(Operation::Update, "Write an entry."),
        Method::new(Operation::Delete, "Delete an entry."),
        Method::new(Operation::List, "List entries."),
        Method::new(Operation::Scan, "List entries at any depth."),
    ],
    fields: &[],
    takes_any_field: true,
    summary: "Entries that only this token can see.",
}];

/// See the module's header.
struct Cubbyhole {
    table: RouteTable,
}

#[allow(clippy::unnecessary_wraps)] // The shape every engine's `make` has.
fn make(_mount: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Cubbyhole { table: RouteTable::new(ROUTES) }))
}

/// `after` and `limit` of a listing; a limit that is none stands for no limit.
fn page(request: &Request) -> Result<Page, EngineError> {
    let fields = request.fields();
    let limit = fields.integer("limit").ok().flatten();
    Ok(Page {
        after: fields.string("after")?.filter(|after| !after.is_empty()),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
    })
}

fn drawer(request: &Request) -> Result<String, EngineError> {
    let caller = request.caller.as_ref().ok_or(EngineError::Denied)?;
    if caller.is_batch {
        return Err(EngineError::invalid("cubbyhole operations are only supported by service tokens"));
    }
    Ok(format!("{}/", caller.token_key))
}

#[async_trait]
impl Engine for Cubbyhole {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let (drawer, path) = (drawer(request)?, request.param("path"));
        if matches!(request.operation, Operation::List | Operation::Scan) {
            let (folder, page) = (format!("{drawer}{path}"), page(request)?);
            let names = match request.operation {
                Operation::Scan => ctx.storage.scan(&folder, &page)?,
                _ => ctx.storage.list(&folder, &page)?,
            };
            return Ok(Response::list(names));
        }
        if path.is_empty() || path.ends_with('/') {
            return Err(EngineError::invalid("missing path"));
        }
        let key = format!("{drawer}{path}");
        match request.operation {
            Operation::Read => {
                let data: Option<Map> = ctx.storage.get_record(&key)?;
                Ok(Response { data, ..Response::default() })
            }
            Operation::Delete => {
                ctx.storage.delete(&key)?;
                Ok(Response::empty())
            }
            _ if request.data.is_empty() => Err(EngineError::invalid("missing data fields")),
            _ => {
                ctx.storage.put_record(&key, &request.data)?;
                Ok(Response::empty())
            }
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        let key = format!("{}{}", drawer(request)?, request.param("path"));
        Ok(Some(ctx.storage.get(&key)?.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::Rig;

    #[test]
    fn entries_are_listed_in_part_and_at_any_depth() {
        let rig = Rig::new(make, "");
        for path in ["a", "b/c", "b/d/e", "f"] {
            assert_eq!(rig.say(Operation::Update, path, &json!({"x": 1})), "none");
        }
        let check = |operation, path: &str, data: Value, want: Value| {
            let want = if want == json!([]) { json!({}) } else { json!({ "keys": want }) };
            assert_eq!(rig.say(operation, path, &data), want.to_string(), "{operation:?} {path:?} {data}");
        };
        check(Operation::List, "", json!({}), json!(["a", "b/", "f"]));
        check(Operation::List, "", json!({"after": "a", "limit": 1}), json!(["b/"]));
        check(Operation::List, "", json!({"after": "f"}), json!([]));
        check(Operation::List, "", json!({"limit": "-1"}), json!(["a", "b/", "f"]));
        check(Operation::Scan, "", json!({}), json!(["a", "b/c", "b/d/e", "f"]));
        check(Operation::Scan, "b/", json!({"after": "c"}), json!(["d/e"]));
        check(Operation::Scan, "", json!({"limit": 2}), json!(["a", "b/c"]));
    }
}
