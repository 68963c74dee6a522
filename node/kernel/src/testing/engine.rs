//! An engine for tests: notes under any path, a counter that reads before it writes, an open route, a leased read.

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{
    Access, Ctx, Effect, Engine, EngineError, EngineKind, EngineType, Field, FieldKind, LeaseGrant,
    LeaseRecord, Login, Map, Method, MountView, Operation, Page, Request, Response, Route, RouteTable,
    StorageExt,
};
use async_trait::async_trait;
use serde_json::{Value, json};

static ROUTES: &[Route] = &[
    Route {
        id: "note",
        pattern: "{path...}",
        access: Access::Token,
        methods: &[
            Method::new(Operation::Read, "Read a note."),
            Method::new(Operation::Update, "Write a note."),
            Method::new(Operation::Delete, "Remove a note."),
            Method::new(Operation::List, "Names of notes."),
        ],
        fields: &[],
        takes_any_field: true,
        summary: "A note.",
    },
    Route {
        id: "count",
        pattern: "count/{name}",
        access: Access::Token,
        methods: &[Method::new(Operation::Update, "Add one."), Method::new(Operation::Read, "The count.")],
        fields: &[Field { name: "by", kind: FieldKind::Int, summary: "How much to add." }],
        takes_any_field: false,
        summary: "A counter.",
    },
    Route {
        id: "guarded",
        pattern: "guarded/{name}",
        access: Access::Sudo,
        methods: &[Method::new(Operation::Read, "Needs sudo.")],
        fields: &[],
        takes_any_field: false,
        summary: "Protected.",
    },
    Route {
        id: "login",
        pattern: "login/{name}",
        access: Access::Unauthenticated,
        methods: &[Method::new(Operation::Update, "Anybody may log in as anybody.")],
        fields: &[
            Field::new("counts", FieldKind::Bool, "Keep count of it."),
            Field::new("wrong", FieldKind::Bool, "Fail."),
            Field::new("groups", FieldKind::List, "Groups to be in."),
            Field::new("metadata", FieldKind::Map, "Metadata of the alias."),
            Field::new("policies", FieldKind::List, "Policies wanted."),
        ],
        takes_any_field: false,
        summary: "A login.",
    },
    Route {
        id: "lease",
        pattern: "lease/{name}",
        access: Access::Token,
        methods: &[Method::with_effect(Operation::Read, Effect::Writes, "A leased credential.")],
        fields: &[],
        takes_any_field: false,
        summary: "A credential.",
    },
    Route {
        id: "sneaky",
        pattern: "sneaky/{name}",
        access: Access::Token,
        methods: &[Method::new(Operation::Read, "A read that turns out to write.")],
        fields: &[],
        takes_any_field: false,
        summary: "A read that writes.",
    },
];

struct Notes(RouteTable);

fn key(request: &Request) -> String {
    format!("note/{}", request.param("path"))
}

impl Notes {
    fn count(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let key = format!("count/{}", request.param("name"));
        let mut count: i64 = ctx.storage.get_record(&key)?.unwrap_or(0);
        if request.operation != Operation::Read {
            count += request.fields().integer("by")?.unwrap_or(1);
            ctx.storage.put_record(&key, &count)?;
        }
        Ok(Response::data(json!({"count": count})))
    }

    fn note(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        match request.operation {
            Operation::Read => {
                let found: Option<Map> = ctx.storage.get_record(&key(request))?;
                found.map(|data| Response::data(Value::Object(data))).ok_or(EngineError::NotFound)
            }
            Operation::List => Ok(Response::list(ctx.storage.list(&key(request), &Page::default())?)),
            Operation::Delete => {
                ctx.storage.delete(&key(request))?;
                Ok(Response::empty())
            }
            _ => {
                ctx.storage.put_record(&key(request), &request.data)?;
                Ok(Response::empty())
            }
        }
    }
}

#[async_trait]
impl Engine for Notes {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        match request.route.id {
            "count" => Self::count(ctx, request),
            "guarded" => Ok(Response::data(json!({"guarded": true}))),
            "sneaky" => {
                ctx.storage.put_record("sneaky", &true)?;
                Ok(Response::data(json!({"written": true})))
            }
            "lease" => {
                let lease = LeaseGrant {
                    ttl: Duration::from_secs(60),
                    is_renewable: true,
                    internal: Map::from_iter([("name".to_owned(), request.param("name").into())]),
                    ..LeaseGrant::default()
                };
                ctx.storage.put_record(&format!("issued/{}", request.param("name")), &true)?;
                Ok(Response { lease: Some(lease), ..Response::data(json!({"password": "p4ss"})) })
            }
            "login" if request.fields().boolean("wrong")?.unwrap_or_default() => {
                tokio::task::yield_now().await; // Others are tried meanwhile, as while a password is hashed.
                Err(EngineError::BadLogin { text: "wrong" })
            }
            "login" => {
                tokio::task::yield_now().await;
                if request.fields().boolean("counts")?.unwrap_or_default() {
                    let key = format!("count/{}", request.param("name"));
                    let count: i64 = ctx.storage.get_record(&key)?.unwrap_or(0);
                    ctx.storage.put_record(&key, &(count + 1))?;
                }
                let policies = request.fields().list("policies")?.unwrap_or_default();
                let login = Login {
                    alias_name: request.param("name").to_owned(),
                    alias_metadata: request.fields().string_map("metadata")?.unwrap_or_default(),
                    group_aliases: request.fields().list("groups")?,
                    internal: Map::from_iter([("name".to_owned(), request.param("name").into())]),
                    display_name: request.param("name").to_owned(),
                    policies,
                    is_renewable: true,
                    ..Login::default()
                };
                Ok(Response { login: Some(login), ..Response::default() })
            }
            _ => Self::note(ctx, request),
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        if request.route.id == "note" {
            Ok(Some(ctx.storage.get(&key(request))?.is_some()))
        } else {
            Ok(None)
        }
    }

    fn locks_names(&self) -> bool {
        true
    }

    fn login_name(&self, request: &Request) -> Option<String> {
        Some(request.param("name").to_lowercase())
    }

    /// A login is in the groups of the note `groups/<name>` from then on, if it names any; its lifetimes are the note's.
    async fn renew(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        let name = lease.internal.get("name").and_then(Value::as_str).unwrap_or_default();
        if let Some(note) = ctx.storage.get_record::<Map>(&format!("note/groups/{name}"))? {
            let note = arca_engine_api::Fields::new(&note);
            let login = Login {
                group_aliases: note.list("groups")?,
                ttl: note.duration("ttl")?.unwrap_or_default(),
                max_ttl: note.duration("max_ttl")?.unwrap_or_default(),
                internal: lease.internal.clone(),
                ..Login::default()
            };
            return Ok(Response { login: Some(login), ..Response::default() });
        }
        let grant = LeaseGrant { ttl: lease.ttl, is_renewable: true, ..LeaseGrant::default() };
        Ok(Response { lease: Some(grant), ..Response::default() })
    }

    async fn revoke(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<(), EngineError> {
        let name = lease.internal.get("name").and_then(Value::as_str).unwrap_or_default();
        ctx.storage.delete(&format!("issued/{name}"))?;
        Ok(())
    }
}

/// The engine as a type to mount: `notes`, as secrets engine or auth method.
#[must_use]
pub fn notes_engine(kind: EngineKind) -> EngineType {
    EngineType {
        name: "notes",
        kind,
        make: |_| Ok(Arc::new(Notes(RouteTable::new(ROUTES)))),
        summary: "Notes for tests.",
    }
}

/// The same as a type `names`, in whose names case does not count. In paths of notes it does.
#[must_use]
pub fn names_engine(kind: EngineKind) -> EngineType {
    let make =
        |_: &MountView| Ok(Arc::new(Notes(RouteTable::new(ROUTES).folding(&["name"]))) as Arc<dyn Engine>);
    EngineType { name: "names", kind, make, summary: "Names for tests." }
}
