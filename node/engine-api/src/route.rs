//! Paths as data. One table per engine feeds routing, ACL checks, parameter warnings, help and OpenAPI.
//!
//! A pattern is made of segments: literal, `{name}` (one segment), or a last `{name...}` (the rest, which may be
//! empty and may end in a slash). `{name?}` as last segment is optional. `{name%...}` is the rest as well, and may come
//! as the client wrote it, percent-escapes and all, where no other path could: with encoded slashes, or two in a row.
//! Literal beats capture at each segment; routes are tried from the most to the least literal.
//!
//! **Invariant:** two paths that differ by a slash at the end lead to one route only where both list, so policies,
//! which see the slash, and handlers, which mostly do not, decide on the same thing.
//!
//! **Invariant:** where case does not count in a name, its table says so ([`RouteTable::folding`]), and whatever looks at a
//! path looks at [`RouteTable::one_form`] of it: rules, audit and handlers decide on the same name.

use crate::Operation;

/// Who may use a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// A valid token whose policies allow it.
    #[default]
    Token,
    /// Also the `sudo` capability.
    Sudo,
    /// Anybody: login routes, public certificates.
    Unauthenticated,
}

/// Whether serving an operation changes stored state. A standby serves only what reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Never writes: any node serves it.
    Reads,
    /// About the node that is asked, whatever its role: carried to no other. A standby cannot take a use of the token
    /// for it, so only the active node does.
    ThisNode,
    /// Reads what the active node alone knows: carried to it while one is known, answered as well as can be otherwise.
    AsksActive,
    /// Writes, or issues something leased: the active node serves it.
    Writes,
}

/// One operation a route supports.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The operation. `Update` also serves `Create` requests.
    pub operation: Operation,
    /// Whether it changes state.
    pub effect: Effect,
    /// One line for help and OpenAPI.
    pub summary: &'static str,
}

impl Method {
    /// A method with the effect its operation usually has.
    #[must_use]
    pub const fn new(operation: Operation, summary: &'static str) -> Self {
        let effect = if operation.only_reads() { Effect::Reads } else { Effect::Writes };
        Self { operation, effect, summary }
    }

    /// A method whose effect is unusual: a read that issues a credential, an update that only computes.
    #[must_use]
    pub const fn with_effect(operation: Operation, effect: Effect, summary: &'static str) -> Self {
        Self { operation, effect, summary }
    }
}

/// Type of a request field, for parsing, help and OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// `true`, `"true"`, 1, …
    Bool,
    /// Seconds, or a string such as `"1h"`.
    Duration,
    /// A whole number.
    Int,
    /// A list of strings, or one comma-separated string.
    List,
    /// An object.
    Map,
    /// A string.
    String,
}

/// One request field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in the body or query.
    pub name: &'static str,
    /// Type.
    pub kind: FieldKind,
    /// One line for help and OpenAPI.
    pub summary: &'static str,
}

impl Field {
    /// A field.
    #[must_use]
    pub const fn new(name: &'static str, kind: FieldKind, summary: &'static str) -> Self {
        Self { name, kind, summary }
    }
}

/// One path of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Name by which `handle` tells routes apart.
    pub id: &'static str,
    /// Pattern, see the module's header.
    pub pattern: &'static str,
    /// Who may use it.
    pub access: Access,
    /// What it supports.
    pub methods: &'static [Method],
    /// Fields it knows. Others are ignored with a warning, unless `takes_any_field`.
    pub fields: &'static [Field],
    /// The whole body is the caller's data (KV v1, cubbyhole): no field is unknown.
    pub takes_any_field: bool,
    /// A paragraph for help and OpenAPI.
    pub summary: &'static str,
}

impl Route {
    /// A path for those with a token whose policies allow it: what most are.
    #[must_use]
    pub const fn new(
        id: &'static str,
        pattern: &'static str,
        methods: &'static [Method],
        fields: &'static [Field],
        summary: &'static str,
    ) -> Self {
        Self { id, pattern, access: Access::Token, methods, fields, takes_any_field: false, summary }
    }
}

/// What a pattern captured, by name.
type Params = Vec<(&'static str, String)>;

/// The route that matched, with its captures.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// [`Route::id`].
    pub id: &'static str,
    /// [`Route::fields`].
    pub fields: &'static [Field],
    params: Params,
}

impl RouteMatch {
    /// No route: what a request carries until one is found.
    #[must_use]
    pub const fn none() -> Self {
        Self { id: "", fields: &[], params: Vec::new() }
    }

    /// Captured text, empty when absent.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(&'static str),
    Capture(&'static str),
    Optional(&'static str),
    Rest(&'static str),
    RawRest(&'static str),
}

impl Segment {
    fn parse(text: &'static str) -> Self {
        let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            return Self::Literal(text);
        };
        if let Some(name) = name.strip_suffix("%...") {
            Self::RawRest(name)
        } else if let Some(name) = name.strip_suffix("...") {
            Self::Rest(name)
        } else if let Some(name) = name.strip_suffix('?') {
            Self::Optional(name)
        } else {
            Self::Capture(name)
        }
    }
}

/// The one form of a name in which case does not count. Such names are of ASCII: every other letter stays as it is, for
/// the engine to refuse.
#[must_use]
pub fn fold_name(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// An engine's routes, compiled once.
#[derive(Debug)]
pub struct RouteTable {
    routes: &'static [Route],
    compiled: Vec<(Vec<Segment>, &'static Route)>,
    folding: &'static [&'static str],
}

impl RouteTable {
    /// Compiles `routes`; the more literal pattern is tried first, whatever the order given.
    #[must_use]
    pub fn new(routes: &'static [Route]) -> Self {
        let mut compiled: Vec<_> = routes
            .iter()
            .map(|route| (route.pattern.split('/').map(Segment::parse).collect(), route))
            .collect();
        compiled.sort_by(|(left, _): &(Vec<Segment>, _), (right, _)| left.cmp(right));
        Self { routes, compiled, folding: &[] }
    }

    /// The same, with the names of captures of one segment in which case does not count.
    #[must_use]
    pub fn folding(mut self, names: &'static [&'static str]) -> Self {
        self.folding = names;
        self
    }

    /// `path` (below the mount, no leading slash) with the names in which case does not count in their one form, by
    /// [`fold_name`]. None if it is in that form already, or no route's. The same for every operation: a rule on a name
    /// holds for every spelling of it (CVE-2026-89322).
    #[must_use]
    pub fn one_form(&self, path: &str) -> Option<String> {
        if self.folding.is_empty() {
            return None;
        }
        // A route that serves a path for anything is the one that would list it: slashes at the end are for lists.
        let (segments, ..) = self.serving(Operation::List, path)?;
        let mut segments = segments.iter();
        let form = |text: &str| match segments.next() {
            Some(Segment::Capture(name) | Segment::Optional(name)) if self.folding.contains(name) => {
                fold_name(text)
            }
            _ => text.to_owned(),
        };
        let folded = path.split('/').map(form).collect::<Vec<_>>().join("/");
        (folded != path).then_some(folded)
    }

    /// The routes in the order they were declared.
    #[must_use]
    pub fn routes(&self) -> &'static [Route] {
        self.routes
    }

    /// The route serving `path` (below the mount, no leading slash). With a slash at the end it is a folder: nothing
    /// is written to it, and besides `{name...}` only routes that list lead there, for listing and help.
    #[must_use]
    pub fn find(&self, operation: Operation, path: &str) -> Option<(&'static Route, RouteMatch)> {
        let (_, route, params) = self.serving(operation, path)?;
        Some((route, RouteMatch { id: route.id, fields: route.fields, params }))
    }

    fn serving(&self, operation: Operation, path: &str) -> Option<(&[Segment], &'static Route, Params)> {
        let is_folder = path.ends_with('/');
        if is_folder && operation.writes_entry() {
            return None;
        }
        let is_about_folders = matches!(operation, Operation::Help | Operation::List | Operation::Scan);
        self.compiled.iter().find_map(|(segments, route)| {
            let takes_slash = matches!(segments.last(), Some(Segment::Rest(_) | Segment::RawRest(_)));
            if is_folder && !takes_slash && !(is_about_folders && route.lists()) {
                return None;
            }
            capture(segments, path).map(|params| (segments.as_slice(), *route, params))
        })
    }

    /// Whether what stands below `path` is read by a route that takes it as it was written.
    #[must_use]
    pub fn takes_raw_rest(&self, path: &str) -> bool {
        // Any name: the route has to be the one that serves it, and has to capture all of it.
        const PROBE: &str = "0";
        let Some((found, matched)) = self.find(Operation::Read, &format!("{path}/{PROBE}")) else {
            return false;
        };
        let by_id = |(_, route): &&(Vec<Segment>, &Route)| route.id == found.id;
        let last = self.compiled.iter().find(by_id).and_then(|(segments, _)| segments.last());
        matches!(last, Some(Segment::RawRest(name)) if matched.param(name) == PROBE)
    }
}

impl Route {
    /// Whether it answers listings.
    #[must_use]
    pub fn lists(&self) -> bool {
        let is_listing = |method: &Method| matches!(method.operation, Operation::List | Operation::Scan);
        self.methods.iter().any(is_listing)
    }

    /// How it serves `operation`; a `Create` falls back to `Update`.
    #[must_use]
    pub fn method(&self, operation: Operation) -> Option<&'static Method> {
        let find = |wanted| self.methods.iter().find(|method| method.operation == wanted);
        find(operation)
            .or_else(|| if operation == Operation::Create { find(Operation::Update) } else { None })
    }
}

fn capture(segments: &[Segment], path: &str) -> Option<Params> {
    let mut params = Vec::new();
    let mut rest = Some(path);
    for segment in segments {
        if let Segment::Rest(name) | Segment::RawRest(name) = segment {
            params.push((*name, rest.unwrap_or("").to_owned()));
            return Some(params);
        }
        let here = rest.filter(|text| !text.is_empty());
        let (head, tail) = match here {
            Some(text) => text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail))),
            None => ("", None),
        };
        match segment {
            Segment::Literal(word) if *word == head => {}
            Segment::Capture(name) if !head.is_empty() => params.push((*name, head.to_owned())),
            Segment::Optional(name) => params.push((*name, head.to_owned())),
            Segment::Literal(_) | Segment::Capture(_) | Segment::Rest(_) | Segment::RawRest(_) => {
                return None;
            }
        }
        rest = tail;
    }
    rest.is_none_or(str::is_empty).then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Method] = &[Method::new(Operation::List, "")];

    const fn route(id: &'static str, pattern: &'static str, methods: &'static [Method]) -> Route {
        Route {
            id,
            pattern,
            access: Access::Token,
            methods,
            fields: &[],
            takes_any_field: false,
            summary: "",
        }
    }

    static ROUTES: &[Route] = &[
        route("any", "any/{path...}", &[]),
        route("config", "config", &[]),
        route("data", "data/{path...}", &[]),
        route("key", "keys/{name}", &[]),
        route("keys", "keys", LIST),
        route("names", "keys/{name}/names", LIST),
        route("rotate", "keys/{name}/rotate", &[]),
        route("random", "random/{source?}", &[]),
        route("raw", "raw/{text%...}", &[]),
    ];

    #[track_caller]
    fn check(path: &str, want: &str) {
        check_operation(Operation::Read, path, want);
    }

    #[track_caller]
    fn check_operation(operation: Operation, path: &str, want: &str) {
        let table = RouteTable::new(ROUTES);
        let got = table
            .find(operation, path)
            .map_or_else(|| "none".to_owned(), |(route, found)| format!("{} {:?}", route.id, found.params));
        assert_eq!(got, want, "{operation:?} {path:?}");
    }

    #[test]
    fn literal_beats_capture() {
        check("config", "config []");
        check("keys/a/rotate", r#"rotate [("name", "a")]"#);
    }

    #[test]
    fn captures_one_segment() {
        check("keys/a", r#"key [("name", "a")]"#);
        check("keys", "keys []");
    }

    #[test]
    fn a_folder_is_listed_and_nothing_else() {
        for operation in [Operation::List, Operation::Scan, Operation::Help] {
            check_operation(operation, "keys/", "keys []");
            check_operation(operation, "keys/a/names/", r#"names [("name", "a")]"#);
            check_operation(operation, "keys/a/", "none");
            check_operation(operation, "config/", "none");
            check_operation(operation, "random/", "none");
        }
        for operation in [Operation::Read, Operation::Delete] {
            for path in ["keys/", "keys/a/", "keys/a/names/", "keys/a/rotate/", "config/", "random/"] {
                check_operation(operation, path, "none");
            }
            check_operation(operation, "data/a/", r#"data [("path", "a/")]"#);
        }
        for operation in [Operation::Create, Operation::Update, Operation::Patch] {
            for path in ["keys/", "keys/a/", "config/", "data/", "data/a/", "random/all/"] {
                check_operation(operation, path, "none");
            }
        }
    }

    #[test]
    fn captures_the_rest_with_its_slash() {
        check("data/a/b/", r#"data [("path", "a/b/")]"#);
        check("data/", r#"data [("path", "")]"#);
        check("any/x", r#"any [("path", "x")]"#);
        check("any", r#"any [("path", "")]"#);
    }

    #[test]
    fn only_a_route_that_says_so_takes_a_rest_as_it_was_written() {
        let table = RouteTable::new(ROUTES);
        assert!(table.takes_raw_rest("raw"));
        for path in ["", "any", "config", "data", "data/raw", "keys", "keys/raw", "random", "raw/a", "other"]
        {
            assert!(!table.takes_raw_rest(path), "{path}");
        }
        check("raw/a%2Fb", r#"raw [("text", "a%2Fb")]"#);
        check("raw/a/b", r#"raw [("text", "a/b")]"#);
    }

    #[track_caller]
    fn check_form(path: &str, want: Option<&str>) {
        let table = RouteTable::new(ROUTES).folding(&["name", "source"]);
        assert_eq!(table.one_form(path).as_deref(), want, "{path:?}");
        assert_eq!(RouteTable::new(ROUTES).one_form(path), None, "{path:?} where case counts");
    }

    /// CVE-2026-89322: a name in which case does not count has one form in a path, whatever stands behind it.
    #[test]
    fn cve_2026_89322_names_that_fold_have_one_form() {
        check_form("keys/BoB", Some("keys/bob"));
        check_form("keys/BoB/names/", Some("keys/bob/names/"));
        check_form("keys/BoB/rotate", Some("keys/bob/rotate"));
        check_form("random/ALL", Some("random/all"));
        check_form("keys/B\u{c4}\u{212a}", Some("keys/b\u{c4}\u{212a}"));
        let others =
            ["keys/bob", "keys", "keys/BoB/", "random", "Keys/BoB", "keys/BoB/Rotate", "data/BoB", ""];
        for path in others {
            check_form(path, None);
        }
    }

    #[test]
    fn optional_segment_may_be_absent() {
        check("random", r#"random [("source", "")]"#);
        check("random/all", r#"random [("source", "all")]"#);
    }
}
