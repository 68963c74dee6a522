//! Who is behind tokens: entities, the aliases by which auth mounts know them, and groups of them.
//!
//! A login finds the entity of its alias, or makes one, in the transaction that makes its token; at each request the
//! token's policies are joined by those of its entity and of the entity's groups. Everything is found by a few reads
//! of records and pointers, so nothing is loaded when a node becomes active.
//! Read next: [`record`] for what is stored, [`book`] for how it changes, [`resolve`] for what a request asks.

mod alias_paths;
mod book;
mod entity_paths;
mod fields;
mod group_paths;
mod groups;
mod login;
mod lookup_paths;
mod merge;
mod of_tokens;
mod record;
mod removal;
mod resolve;
mod show;
#[cfg(test)]
mod tests;
mod withheld;

pub(crate) use book::Book;
pub(crate) use login::AliasOf;
pub(crate) use of_tokens::{Authority, Joined, identity_policies};
pub(crate) use record::Paths;
pub(crate) use resolve::{Resolved, Resolver};

use arca_engine_api::{Field, FieldKind, Map, Method, Operation, Page, Response};
use serde_json::Value;

use crate::builtin::Builtin;

/// Entities that one request removes or merges, at most: what it writes goes into one Raft entry.
const DELETE_MANY_MAX: usize = 1_024;

const LIST: &[Method] = &[Method::new(Operation::List, "List.")];
const WRITE: &[Method] = &[Method::new(Operation::Update, "Write.")];
const ONE: &[Method] = &[
    Method::new(Operation::Read, "Read."),
    Method::new(Operation::Update, "Write."),
    Method::new(Operation::Delete, "Remove."),
];
const PAGE_FIELDS: &[Field] = &[
    Field::new("after", FieldKind::String, "Only names after this one."),
    Field::new("limit", FieldKind::Int, "At most so many."),
];

/// Every group below `identity/`.
pub(crate) fn groups() -> Vec<Box<dyn Builtin>> {
    vec![
        Box::new(entity_paths::EntityPaths::new()),
        Box::new(alias_paths::AliasPaths::new()),
        Box::new(group_paths::GroupPaths::new()),
        Box::new(lookup_paths::LookupPaths::new()),
    ]
}

/// Ids, and what there is to say of each.
fn listed(keys: Vec<String>, infos: Map) -> Response {
    let is_empty = keys.is_empty();
    let mut response = Response::list(keys);
    if let Some(data) = response.data.as_mut().filter(|_| !is_empty) {
        data.insert("key_info".to_owned(), Value::Object(infos));
    }
    response
}

/// The wanted part of names that stand in no order.
fn paged(mut names: Vec<String>, page: &Page) -> Vec<String> {
    names.sort_unstable();
    names.retain(|name| page.after.as_ref().is_none_or(|after| name > after));
    names.truncate(page.limit.unwrap_or(usize::MAX));
    names
}
