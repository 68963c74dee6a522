//! KV version 2: every write makes a version; versions can be read, deleted, brought back and destroyed; keys carry
//! settings and notes. Checked writes (`cas`) refuse to replace what the caller has not seen.
//!
//! Read next: [`key`] for what a key is, [`data`], [`versions`] and [`metadata`] for the operations.

mod config;
mod custom;
mod data;
mod key;
mod keys;
mod metadata;
mod routes;
#[cfg(test)]
mod tests;
mod versions;

use arca_engine_api::{Ctx, Engine, EngineError, Operation, Request, Response, RouteTable};
use async_trait::async_trait;

use self::config::Config;
use self::keys::Keys;

/// See the file's header.
pub(super) struct Kv2 {
    table: RouteTable,
}

impl Kv2 {
    pub(super) fn new() -> Self {
        Self { table: RouteTable::new(routes::ROUTES) }
    }
}

#[async_trait]
impl Engine for Kv2 {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let (route, operation) = (request.route.id, request.operation);
        if route == "config" {
            return match operation {
                Operation::Read => Config::read(ctx.storage),
                _ => Config::write(ctx.storage, request.fields()),
            };
        }
        if route == "elsewhere" {
            return Ok(no_such_path(operation));
        }
        let keys = Keys::of(ctx);
        match (route, operation) {
            ("metadata", Operation::List | Operation::Scan) => return metadata::names(&keys, request),
            ("detailed-metadata", _) => return metadata::names_with_metadata(&keys, request),
            _ => {}
        }
        let path = request.param("path");
        if path.is_empty() {
            return Ok(missing("Non-listing operations on the root of a K/V v2 mount are not supported."));
        }
        if path.ends_with('/') {
            return Err(EngineError::invalid("the path of a secret cannot end with a slash"));
        }
        match (route, operation) {
            ("data", Operation::Read) => data::read(&keys, request),
            ("data", Operation::Patch) => data::patch(&keys, request),
            ("data", Operation::Delete) => data::delete_latest(&keys, path),
            ("data", _) => data::write(&keys, request),
            ("subkeys", _) => data::subkeys(&keys, request),
            ("delete", _) => versions::delete(&keys, request),
            ("undelete", _) => versions::undelete(&keys, request),
            ("destroy", _) => versions::destroy(&keys, request),
            ("metadata", Operation::Read) => metadata::read(&keys, path),
            ("metadata", Operation::Delete) => metadata::delete(&keys, path),
            ("metadata", Operation::Patch) => metadata::patch(&keys, request),
            ("metadata", _) => metadata::write(&keys, request),
            _ => Err(EngineError::Unsupported),
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        match request.route.id {
            "data" | "metadata" => Ok(Some(Keys::of(ctx).find(request.param("path"))?.is_some())),
            _ => Ok(None),
        }
    }
}

/// 404 with a hint.
fn missing(hint: &str) -> Response {
    Response { is_missing: true, ..Response::empty().with_warning(hint) }
}

fn no_such_path(operation: Operation) -> Response {
    let verb = match operation {
        Operation::Create | Operation::Update => "put",
        Operation::Read | Operation::Help => "get",
        other => other.as_str(),
    };
    missing(&format!(
        "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. \
         On the command line, use 'kv {verb}' for this operation."
    ))
}
