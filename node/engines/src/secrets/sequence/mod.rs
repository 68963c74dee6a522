//! Numbers that are given once: serials, build numbers, ticket numbers, the same for every caller of every node.
//!
//! **Invariant:** no number of a sequence is given twice. Each is taken in the request's own commit, which is refused, and
//! the request run again, if another one took it meanwhile. Numbers may be left out: whoever got one may not use it. It holds for
//! as long as the state goes forward: a restored backup takes the sequence back (`README.md`).

use std::sync::Arc;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, Field, FieldKind, Method, MountView, Operation, Page,
    Request, Response, Route, RouteTable, StorageExt as _,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The type this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "sequence",
    kind: EngineKind::Secrets,
    make,
    summary: "Numbers that are given once.",
}];

/// Most numbers given at once.
const COUNT_MAX: i64 = 1_000_000;

const PAGE: &[Field] = &[
    Field::new("after", FieldKind::String, "Only names after this one."),
    Field::new("limit", FieldKind::Int, "At most so many."),
];
const START: &[Field] = &[Field::new("start", FieldKind::Int, "The first number to be given; 1 by default.")];
const COUNT: &[Field] = &[Field::new("count", FieldKind::Int, "How many numbers in a row; 1 by default.")];

static ROUTES: &[Route] = &[
    Route::new(
        "names",
        "sequences",
        &[Method::new(Operation::List, "Names of all sequences.")],
        PAGE,
        "All sequences.",
    ),
    Route::new(
        "sequence",
        "sequences/{name}",
        &[
            Method::new(Operation::Read, "The number that comes next."),
            Method::new(Operation::Update, "Begin a sequence."),
            Method::new(Operation::Delete, "Forget a sequence."),
        ],
        START,
        "One sequence.",
    ),
    Route::new(
        "next",
        "next/{name}",
        &[Method::new(Operation::Update, "Take numbers.")],
        COUNT,
        "The next numbers.",
    ),
];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Sequences(RouteTable::new(ROUTES))))
}

struct Sequences(RouteTable);

/// A sequence, at `sequence/<name>`.
#[derive(Serialize, Deserialize)]
struct Sequence {
    next: i64,
}

fn stored_at(name: &str) -> String {
    format!("sequence/{name}")
}

#[async_trait]
impl Engine for Sequences {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let (name, fields) = (request.param("name"), request.fields());
        let found: Option<Sequence> = ctx.storage.get_record(&stored_at(name))?;
        match (request.route.id, request.operation) {
            ("names", _) => {
                let limit = fields.integer("limit")?.and_then(|limit| usize::try_from(limit).ok());
                let page = Page { after: fields.string("after")?, limit: limit.filter(|limit| *limit > 0) };
                Ok(Response::list(ctx.storage.list("sequence/", &page)?))
            }
            ("next", _) => next(ctx, name, found, fields.integer("count")?.unwrap_or(1)),
            (_, Operation::Read) => {
                let found = found.ok_or(EngineError::NotFound)?;
                Ok(Response::data(json!({ "next": found.next })))
            }
            (_, Operation::Delete) => {
                ctx.storage.delete(&stored_at(name))?;
                Ok(Response::empty())
            }
            // Begun anew, it would give numbers a second time.
            _ if found.is_some() => Err(EngineError::invalid("there is a sequence of this name already")),
            _ => {
                let next = fields.integer("start")?.unwrap_or(1);
                ctx.storage.put_record(&stored_at(name), &Sequence { next })?;
                Ok(Response::empty())
            }
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        match request.route.id {
            "sequence" => Ok(Some(ctx.storage.get(&stored_at(request.param("name")))?.is_some())),
            _ => Ok(None),
        }
    }
}

/// Takes numbers.
fn next(ctx: &Ctx<'_>, name: &str, found: Option<Sequence>, count: i64) -> Result<Response, EngineError> {
    let Sequence { next: first } = found.ok_or_else(|| EngineError::invalid("no sequence of this name"))?;
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(EngineError::Invalid(format!("count must be from 1 to {COUNT_MAX}")));
    }
    let next = first.checked_add(count).ok_or_else(|| EngineError::invalid("the sequence is at its end"))?;
    ctx.storage.put_record(&stored_at(name), &Sequence { next })?;
    Ok(Response::data(json!({ "first": first, "last": next - 1 })))
}

#[cfg(test)]
mod tests {
    use Operation::{Delete, List, Read, Update};
    use serde_json::Value;

    use super::*;
    use crate::testing::Rig;

    #[track_caller]
    fn check(rig: &Rig, operation: Operation, path: &str, data: &Value, want: &str) {
        assert_eq!(rig.say(operation, path, data), want, "{path} {data}");
    }

    #[test]
    fn numbers_are_given_once() {
        let rig = Rig::new(make, "");
        check(&rig, Update, "next/build", &json!({}), "error: no sequence of this name");
        check(&rig, Read, "sequences/build", &json!({}), "error: not found");
        check(&rig, Update, "sequences/build", &json!({"start": 40}), "none");
        check(&rig, Update, "next/build", &json!({}), r#"{"first":40,"last":40}"#);
        check(&rig, Update, "next/build", &json!({"count": "3"}), r#"{"first":41,"last":43}"#);
        check(&rig, Read, "sequences/build", &json!({}), r#"{"next":44}"#);
        let again = "error: there is a sequence of this name already";
        check(&rig, Update, "sequences/build", &json!({}), again);
        check(&rig, List, "sequences", &json!({}), r#"{"keys":["build"]}"#);
        check(&rig, Delete, "sequences/build", &json!({}), "none");
        check(&rig, List, "sequences", &json!({}), "{}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rig = Rig::new(make, "");
        check(&rig, Update, "sequences/s", &json!({"start": i64::MAX}), "none");
        for count in [0, -1, COUNT_MAX + 1] {
            let want = "error: count must be from 1 to 1000000";
            check(&rig, Update, "next/s", &json!({ "count": count }), want);
        }
        check(&rig, Update, "next/s", &json!({"count": 1}), "error: the sequence is at its end");
        let want = "error: error converting input for field \"count\": expected integer";
        assert_eq!(rig.say(Update, "next/s", &json!({"count": "x"})).get(..7), want.get(..7));
    }
}
