//! An `OpenAPI` 3 document from route tables.

use arca_engine_api::{Access, Field, FieldKind, Map, Operation, Route};
use serde_json::{Value, json};

/// The document for routes, each with the path of its mount (slashes around it).
pub(crate) fn document<'a>(version: &str, routes: impl Iterator<Item = (&'a str, &'a Route)>) -> Value {
    let mut paths = Map::new();
    for (mount, route) in routes {
        for (pattern, parameters) in shown_patterns(route.pattern) {
            paths.insert(format!("{mount}{pattern}"), path_item(route, &parameters));
        }
    }
    json!({
        "openapi": "3.0.2",
        "info": {
            "title": "Arca API",
            "description": "HTTP API of Arca. All routes are below `/v1/`.",
            "version": version,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "paths": paths,
        "components": {"schemas": {}},
    })
}

/// The pattern as `OpenAPI` writes it, with its parameters; two of them when the last segment is optional.
fn shown_patterns(pattern: &str) -> Vec<(String, Vec<String>)> {
    let mut shown = Vec::new();
    let mut segments: Vec<String> = Vec::new();
    let mut parameters = Vec::new();
    for segment in pattern.split('/') {
        let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            segments.push(segment.to_owned());
            continue;
        };
        if name.ends_with('?') {
            shown.push((segments.join("/"), parameters.clone()));
        }
        let name = name.trim_end_matches('?').trim_end_matches("...").trim_end_matches('%');
        segments.push(format!("{{{name}}}"));
        parameters.push(name.to_owned());
    }
    shown.push((segments.join("/"), parameters));
    shown
}

fn path_item(route: &Route, parameters: &[String]) -> Value {
    let mut item = Map::new();
    item.insert("description".to_owned(), route.summary.into());
    if !parameters.is_empty() {
        let shown: Vec<Value> = parameters
            .iter()
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        item.insert("parameters".to_owned(), shown.into());
    }
    match route.access {
        Access::Sudo => drop(item.insert("x-vault-sudo".to_owned(), true.into())),
        Access::Unauthenticated => drop(item.insert("x-vault-unauthenticated".to_owned(), true.into())),
        Access::Token => {}
    }
    for method in route.methods {
        let (verb, is_list) = match method.operation {
            Operation::Read | Operation::Help => ("get", false),
            Operation::List | Operation::Scan => ("get", true),
            Operation::Create | Operation::Update => ("post", false),
            Operation::Patch => ("patch", false),
            Operation::Delete => ("delete", false),
        };
        let entry = item.entry(verb).or_insert_with(|| operation(route, verb, method.summary));
        if is_list && let Value::Object(entry) = entry {
            let list = json!([{"name": "list", "in": "query", "schema": {"type": "string"}}]);
            entry.insert("parameters".to_owned(), list);
        }
    }
    Value::Object(item)
}

fn operation(route: &Route, verb: &str, summary: &str) -> Value {
    let mut shown = json!({
        "summary": summary,
        "operationId": format!("{}-{verb}", route.id),
        "responses": {"200": {"description": "OK"}},
    });
    if let Value::Object(shown) = &mut shown
        && matches!(verb, "post" | "patch")
        && !route.fields.is_empty()
    {
        let properties: Map =
            route.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
        let schema = json!({"type": "object", "properties": properties});
        shown.insert("requestBody".to_owned(), json!({"content": {"application/json": {"schema": schema}}}));
    }
    shown
}

fn property(field: &Field) -> Value {
    let summary = field.summary;
    match field.kind {
        FieldKind::Bool => json!({"type": "boolean", "description": summary}),
        FieldKind::Duration => json!({"type": "string", "format": "seconds", "description": summary}),
        FieldKind::Int => json!({"type": "integer", "description": summary}),
        FieldKind::List => json!({"type": "array", "items": {"type": "string"}, "description": summary}),
        FieldKind::Map => json!({"type": "object", "description": summary}),
        FieldKind::String => json!({"type": "string", "description": summary}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, want: &[(&str, &[&str])]) {
        let got = shown_patterns(pattern);
        let got: Vec<(&str, Vec<&str>)> = got
            .iter()
            .map(|(text, names)| (text.as_str(), names.iter().map(String::as_str).collect()))
            .collect();
        let want: Vec<(&str, Vec<&str>)> = want.iter().map(|(text, names)| (*text, names.to_vec())).collect();
        assert_eq!(got, want, "pattern {pattern:?}");
    }

    #[test]
    fn patterns_as_openapi_writes_them() {
        check("keys/{name}/rotate", &[("keys/{name}/rotate", &["name"])]);
        check("data/{path...}", &[("data/{path}", &["path"])]);
        check("ocsp/{request%...}", &[("ocsp/{request}", &["request"])]);
        check("random/{source?}", &[("random", &[]), ("random/{source}", &["source"])]);
        check("config", &[("config", &[])]);
    }
}
