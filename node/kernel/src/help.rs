//! `?help=1`: what a path is for, from the route table that serves it.

use std::fmt::Write as _;

use arca_engine_api::{FieldKind, Map, Request, RouteTable};
use serde_json::Value;

use crate::KernelError;
use crate::admission::Found;
use crate::answer::{Answer, Shape};
use crate::kernel::Kernel;
use crate::openapi;
use crate::router::{Mount, Serves};

impl Kernel {
    /// The route tables that serve a mount.
    pub(crate) fn tables<'a>(&'a self, mount: &'a Mount) -> Result<Vec<&'a RouteTable>, KernelError> {
        Ok(match mount.serves {
            Serves::Engine(_) => vec![mount.engine()?.routes()],
            Serves::Identity | Serves::System | Serves::Token => {
                self.groups(mount).iter().map(|group| group.routes()).collect()
            }
            Serves::Unknown => Vec::new(),
        })
    }
}

/// The word for a type of field.
pub(crate) const fn kind_word(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Bool => "bool",
        FieldKind::Duration => "duration",
        FieldKind::Int => "int",
        FieldKind::List => "list",
        FieldKind::Map => "map",
        FieldKind::String => "string",
    }
}

/// The answer to a request for help: about the route that serves the path, or about the whole mount when asked at its root.
pub(crate) fn answer(
    mount: &Mount,
    tables: &[&RouteTable],
    found: Option<&Found>,
    request: &Request,
) -> Result<Answer, KernelError> {
    let (help, document) = match found {
        Some(found) if !request.path.is_empty() => {
            (of_route(found, request), openapi::document("", std::iter::once(("/", found.route))))
        }
        _ if request.path.is_empty() => {
            let routes = tables.iter().flat_map(|table| table.routes());
            (of_mount(mount, tables), openapi::document("", routes.map(|route| ("/", route))))
        }
        _ => return Err(KernelError::Bug("help was asked for at a path without a route".to_owned())),
    };
    let mut data = Map::new();
    data.insert("help".to_owned(), help.into());
    data.insert("openapi".to_owned(), document);
    data.insert("see_also".to_owned(), Value::Null);
    Ok(Answer { request_id: request.id.clone(), data: Some(data), shape: Shape::Bare, ..Answer::default() })
}

// Writing to a String cannot fail, so the results of `writeln!` below say nothing.

fn of_mount(mount: &Mount, tables: &[&RouteTable]) -> String {
    let mut text =
        format!("## DESCRIPTION\n\nThis is a mount of type {}.\n\n## PATHS\n", mount.record.engine);
    for route in tables.iter().flat_map(|table| table.routes()) {
        let _always_ok = writeln!(text, "\n    {}\n        {}", route.pattern, route.summary);
    }
    text
}

fn of_route(found: &Found, request: &Request) -> String {
    let route = found.route;
    let mut text =
        format!("Request:        {}\nMatching Route: {}\n\n{}\n", request.path, route.pattern, route.summary);
    if !route.fields.is_empty() {
        text.push_str("\n## PARAMETERS\n");
        for field in route.fields {
            let kind = kind_word(field.kind);
            let _always_ok = writeln!(text, "\n    {} ({kind})\n\n        {}", field.name, field.summary);
        }
    }
    text.push_str("\n## OPERATIONS\n");
    for method in route.methods {
        let _always_ok = writeln!(text, "\n    {}\n        {}", method.operation.as_str(), method.summary);
    }
    text
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn kinds_have_words() {
        assert_eq!(kind_word(FieldKind::List), "list");
    }
}
