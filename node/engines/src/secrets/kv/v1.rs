//! KV version 1: the last value of each path, and nothing else. Any body is the secret.

use arca_engine_api::{
    Access, Ctx, Engine, EngineError, Fields, Map, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;

use super::page;
use super::plain::{self, Plain};

static ROUTES: &[Route] = &[Route {
    id: "entry",
    pattern: "{path...}",
    access: Access::Token,
    methods: &[
        Method::new(Operation::Read, "Read a secret."),
        Method::new(Operation::Update, "Write a secret."),
        Method::new(Operation::Delete, "Delete a secret."),
        Method::new(Operation::List, "List secrets and folders."),
        Method::new(Operation::Scan, "List every secret below a folder."),
    ],
    fields: &[],
    takes_any_field: true,
    summary: "Secrets by path.",
}];

/// See the module's header.
pub(super) struct Kv1 {
    table: RouteTable,
}

impl Kv1 {
    pub(super) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Engine for Kv1 {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let path = request.param("path");
        match request.operation {
            Operation::List => return Ok(Response::list(plain::list(ctx.storage, path, &page(request)?)?)),
            Operation::Scan => return Ok(Response::list(plain::scan(ctx.storage, path, &page(request)?)?)),
            _ => {}
        }
        if path.is_empty() || path.ends_with('/') {
            // No secret has such a path, so there is none to be read or deleted.
            return match request.operation {
                Operation::Read | Operation::Delete => Ok(Response::empty()),
                _ => Err(EngineError::invalid("missing path")),
            };
        }
        match request.operation {
            Operation::Read => {
                let data = plain::load(ctx.storage, path)?.map(|secret| secret.data);
                let lease_duration_hint =
                    Some(data.as_ref().and_then(ttl_of).unwrap_or(ctx.mount.default_lease_ttl));
                Ok(Response { data, lease_duration_hint, ..Response::default() })
            }
            Operation::Delete => {
                plain::delete(ctx.storage, path)?;
                Ok(Response::empty())
            }
            _ if request.data.is_empty() => Err(EngineError::invalid("missing data fields")),
            _ => {
                let secret = Plain { data: request.data.clone(), written: ctx.clock.now() };
                plain::store(ctx.storage, path, &secret)?;
                Ok(Response::empty())
            }
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        Ok(Some(plain::exists(ctx.storage, request.param("path"))?))
    }
}

/// A secret may say how long it is good for; that is all `ttl` does here.
fn ttl_of(data: &Map) -> Option<std::time::Duration> {
    let fields = Fields::new(data);
    let named = |name: &str| fields.duration(name).ok().flatten();
    named("ttl").or_else(|| named("lease"))
}

#[cfg(test)]
mod tests {
    use arca_engine_api::Operation::{Delete, List, Read, Scan, Update};
    use serde_json::json;

    use crate::secrets::kv::make;
    use crate::testing::Rig;

    #[test]
    fn keeps_the_last_value_only() {
        let rig = Rig::new(make, "1");
        assert_eq!(rig.say(Update, "a", &json!({})), "error: missing data fields");
        for value in [1, 2] {
            assert_eq!(rig.say(Update, "a", &json!({"n": value, "ttl": "30s"})), "none");
        }
        assert_eq!(rig.say(Read, "a", &json!({})), r#"{"n":2,"ttl":"30s"}"#);
        let hint = |path: &str| rig.call(Read, path, &json!({})).unwrap().lease_duration_hint.unwrap();
        assert_eq!((hint("a").as_secs(), hint("b").as_secs()), (30, 60));
        rig.call(Update, "d/e", &json!({"n": 1})).unwrap();
        assert_eq!(rig.say(List, "", &json!({})), r#"{"keys":["a","d/"]}"#);
        assert_eq!(rig.say(Scan, "", &json!({})), r#"{"keys":["a","d/e"]}"#);
        assert_eq!((rig.exists("a"), rig.exists("d")), (Some(true), Some(false)));
        assert_eq!(rig.say(Delete, "a", &json!({})), "none");
        assert_eq!(rig.say(Read, "a", &json!({})), "none");
        for path in ["", "d/"] {
            assert_eq!(
                (rig.say(Read, path, &json!({})), rig.say(Delete, path, &json!({}))),
                ("none".to_owned(), "none".to_owned())
            );
        }
        assert_eq!(rig.say(Update, "", &json!({"n": 1})), "error: missing path");
        assert_eq!(rig.say(Scan, "", &json!({})), r#"{"keys":["d/e"]}"#);
    }
}
