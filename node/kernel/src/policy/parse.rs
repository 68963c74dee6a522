//! Policy text (HCL or JSON) into rules. Anything unknown or not enforced here is refused, never skipped: a rule
//! that silently lost a restriction would grant more than its author meant.

use std::collections::BTreeSet;
use std::time::Duration;

use arca_engine_api::{UnixMillis, fields::parse_duration};
use arca_hcl::{Block, Body, Item, ParseError, Value};
use serde_json::{Map, Number};

use super::Capabilities;
use super::parameters::{Parameters, ValueLists};
use super::template::Template;
use crate::rfc3339;

/// What a policy says about one pattern of paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// As written, without a leading slash: literal, `+` for one segment, a last `*` for any rest.
    pub pattern: String,
    /// Set when the pattern depends on who asks.
    pub template: Option<Template>,
    /// What may be done.
    pub capabilities: Capabilities,
    /// What fields a request may carry.
    pub parameters: Parameters,
    /// Least TTL of a wrapped answer; zero for no rule.
    pub min_wrapping_ttl: Duration,
    /// Largest TTL of a wrapped answer; zero for no rule.
    pub max_wrapping_ttl: Duration,
    /// Most names a listing may return.
    pub pagination_limit: Option<u64>,
    /// The rule counts only before this moment.
    pub expiration: Option<UnixMillis>,
}

/// A policy, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Name in its one form.
    pub name: String,
    /// Rules in the order they were written.
    pub rules: Vec<Rule>,
}

const RULE_KEYS: [&str; 10] = [
    "allowed_parameters",
    "capabilities",
    "comment",
    "denied_parameters",
    "expiration",
    "max_wrapping_ttl",
    "min_wrapping_ttl",
    "pagination_limit",
    "policy",
    "required_parameters",
];

/// Known elsewhere, not enforced here: ignoring one would widen what the rule grants.
const UNENFORCED_KEYS: [&str; 5] = [
    "control_group",
    "list_scan_response_keys_filter_path",
    "mfa_methods",
    "sentinel",
    "subscribe_event_types",
];

/// Parses `text` as the policy `name`.
///
/// # Errors
/// Names the line and what was expected there.
pub fn parse(name: &str, text: &str) -> Result<Policy, ParseError> {
    let body = arca_hcl::parse(text)?;
    if let Some(item) = body.unknown(&["name", "path"]) {
        return Err(at(item, format!("unknown key {}", shown(&item.name))));
    }
    let rules = body.blocks("path", 1)?.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(Policy { name: name.to_owned(), rules })
}

fn at(item: &Item, message: impl Into<String>) -> ParseError {
    ParseError::at_line(item.line, message)
}

/// Quotes a key, never a value, and not at any length.
fn shown(key: &str) -> String {
    format!("{:?}", key.chars().take(64).collect::<String>())
}

fn rule(block: &Block<'_>) -> Result<Rule, ParseError> {
    check_keys(block.body)?;
    let written = block.labels.first().copied().unwrap_or_default();
    let pattern = written.strip_prefix('/').unwrap_or(written).to_owned();
    if pattern.contains("+*") {
        return Err(ParseError::at_line(block.line, "a path may not hold '+*'"));
    }
    let template = Template::parse(&pattern).map_err(|text| ParseError::at_line(block.line, text))?;
    let ttl = |name| duration(block.body, name);
    let (min_wrapping_ttl, max_wrapping_ttl) = (ttl("min_wrapping_ttl")?, ttl("max_wrapping_ttl")?);
    if !max_wrapping_ttl.is_zero() && max_wrapping_ttl < min_wrapping_ttl {
        return Err(ParseError::at_line(block.line, "max_wrapping_ttl is less than min_wrapping_ttl"));
    }
    Ok(Rule {
        pattern,
        template,
        capabilities: capabilities(block.body)?,
        parameters: Parameters {
            allowed: value_lists(block.body, "allowed_parameters")?,
            denied: value_lists(block.body, "denied_parameters")?,
            required: texts(block.body, "required_parameters")?
                .iter()
                .map(|name| name.to_lowercase())
                .collect(),
        },
        min_wrapping_ttl,
        max_wrapping_ttl,
        pagination_limit: pagination_limit(block.body)?,
        expiration: expiration(block.body)?,
    })
}

fn check_keys(body: &Body) -> Result<(), ParseError> {
    if let Some(item) = body.items.iter().find(|item| UNENFORCED_KEYS.contains(&item.name.as_str())) {
        return Err(at(
            item,
            format!("{} is not supported; the policy would grant more than it says", item.name),
        ));
    }
    if let Some(item) = body.unknown(&RULE_KEYS) {
        return Err(at(item, format!("unknown key {}", shown(&item.name))));
    }
    let mut seen = BTreeSet::new();
    match body.items.iter().find(|item| !seen.insert(&item.name)) {
        Some(item) => Err(at(item, format!("{} is given twice", item.name))),
        None => Ok(()),
    }
}

fn attribute<'a>(body: &'a Body, name: &str) -> Result<Option<&'a Item>, ParseError> {
    match body.items.iter().find(|item| item.name == name) {
        Some(item) if !item.labels.is_empty() => Err(at(item, format!("{name} takes no label"))),
        found => Ok(found),
    }
}

fn texts<'a>(body: &'a Body, name: &str) -> Result<Vec<&'a str>, ParseError> {
    let Some(item) = attribute(body, name)? else { return Ok(Vec::new()) };
    let list =
        item.value.as_list().map(|values| values.iter().map(Value::as_text).collect::<Option<Vec<_>>>());
    list.flatten().ok_or_else(|| at(item, format!("{name} must be a list of strings")))
}

fn capabilities(body: &Body) -> Result<Capabilities, ParseError> {
    let mut found = old_policy(body)?;
    for word in texts(body, "capabilities")? {
        let one = Capabilities::from_word(word).ok_or_else(|| {
            let line = body.attribute("capabilities").map_or(1, |item| item.line);
            ParseError::at_line(line, format!("unknown capability, use any of {}", Capabilities::all_words()))
        })?;
        found = found.union(one);
    }
    Ok(found)
}

/// `policy = "write"`, from before capabilities.
fn old_policy(body: &Body) -> Result<Capabilities, ParseError> {
    let Some(item) = attribute(body, "policy")? else { return Ok(Capabilities::NONE) };
    let words: &[Capabilities] = match item.value.as_text() {
        Some("") => &[],
        Some("deny") => &[Capabilities::DENY],
        Some("read") => &[Capabilities::READ, Capabilities::LIST],
        Some("write") => &[OLD_WRITE],
        Some("sudo") => &[OLD_WRITE, Capabilities::SUDO],
        _ => return Err(at(item, "policy must be \"deny\", \"read\", \"write\" or \"sudo\"")),
    };
    Ok(words.iter().fold(Capabilities::NONE, |all, one| all.union(*one)))
}

const OLD_WRITE: Capabilities = Capabilities::CREATE
    .union(Capabilities::READ)
    .union(Capabilities::UPDATE)
    .union(Capabilities::DELETE)
    .union(Capabilities::LIST);

fn duration(body: &Body, name: &str) -> Result<Duration, ParseError> {
    let Some(item) = attribute(body, name)? else { return Ok(Duration::ZERO) };
    let span = match &item.value {
        Value::Int(seconds) => {
            u64::try_from(*seconds).ok().and_then(|seconds| parse_duration(&seconds.to_string()))
        }
        Value::Text(text) => parse_duration(text),
        _ => None,
    };
    span.ok_or_else(|| at(item, format!("{name} must be a number of seconds or a duration like \"1h\"")))
}

fn pagination_limit(body: &Body) -> Result<Option<u64>, ParseError> {
    let Some(item) = attribute(body, "pagination_limit")? else { return Ok(None) };
    match item.value {
        Value::Int(limit) if limit > 0 => Ok(u64::try_from(limit).ok()),
        _ => Err(at(item, "pagination_limit must be a whole number above zero")),
    }
}

fn expiration(body: &Body) -> Result<Option<UnixMillis>, ParseError> {
    let Some(item) = attribute(body, "expiration")? else { return Ok(None) };
    let moment = match &item.value {
        Value::Text(text) => rfc3339::parse(text),
        Value::Int(seconds) => rfc3339::parse(&seconds.to_string()),
        _ => None,
    };
    moment.map(Some).ok_or_else(|| at(item, "expiration must be a moment like \"2027-01-01T00:00:00Z\""))
}

fn value_lists(body: &Body, name: &str) -> Result<ValueLists, ParseError> {
    let mut lists = ValueLists::new();
    for item in body.blocks(name, 0)?.iter().flat_map(|block| &block.body.items) {
        let Some(values) = item.value.as_list().filter(|_| item.labels.is_empty()) else {
            return Err(at(item, format!("every entry of {name} must be a list")));
        };
        let values = values.iter().map(json).collect::<Result<_, _>>()?;
        if lists.insert(item.name.to_lowercase(), values).is_some() {
            return Err(at(item, format!("{} is given twice", shown(&item.name))));
        }
    }
    Ok(lists)
}

fn json(value: &Value) -> Result<serde_json::Value, ParseError> {
    Ok(match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Float(number) => Number::from_f64(*number).map_or(serde_json::Value::Null, Into::into),
        Value::Int(number) => (*number).into(),
        Value::List(values) => values.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Null => serde_json::Value::Null,
        Value::Object(body) => {
            let mut map = Map::new();
            for item in &body.items {
                if !item.labels.is_empty() || map.insert(item.name.clone(), json(&item.value)?).is_some() {
                    return Err(at(item, "an object of a parameter list has a label or a key twice"));
                }
            }
            map.into()
        }
        Value::Text(text) => text.as_str().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = parse("p", text).map_or_else(
            |err| err.to_string(),
            |policy| {
                let shown = policy
                    .rules
                    .iter()
                    .map(|rule| format!("{} {}", rule.pattern, rule.capabilities.words().join("+")));
                shown.collect::<Vec<_>>().join("; ")
            },
        );
        assert_eq!(got, want, "input {text}");
    }

    #[test]
    fn both_languages_say_the_same() {
        check(r#"path "/a/*" { capabilities = ["read", "list"] } path "b" {}"#, "a/* list+read; b deny");
        check(
            r#"{"name": "x", "path": {"a/*": {"capabilities": ["read", "list"]}, "b": {}}}"#,
            "a/* list+read; b deny",
        );
    }

    #[test]
    fn deny_is_alone_and_old_words_still_work() {
        check(r#"path "a" { capabilities = ["read", "deny"] }"#, "a deny");
        check(
            r#"path "a" { policy = "write" } path "b" { policy = "read" }"#,
            "a create+delete+list+read+update; b list+read",
        );
        check(
            r#"path "a" { policy = "sudo" } path "b" { policy = "deny" }"#,
            "a create+delete+list+read+sudo+update; b deny",
        );
        check(
            r#"path "a" { policy = "root" }"#,
            "line 1, column 1: policy must be \"deny\", \"read\", \"write\" or \"sudo\"",
        );
    }

    #[test]
    fn unknown_things_are_refused_with_their_line() {
        let words = Capabilities::all_words();
        let unknown = format!("line 2, column 1: unknown capability, use any of {words}");
        check("path \"a\" {\n capabilities = [\"reed\"] }", &unknown);
        check("path \"a\" {\n capabilities = [\"READ\"] }", &unknown);
        check("path \"a\" {\n capabilties = [\"read\"] }", "line 2, column 1: unknown key \"capabilties\"");
        check("foo = 1", "line 1, column 1: unknown key \"foo\"");
        check(
            "path \"a\" { capabilities = \"read\" }",
            "line 1, column 1: capabilities must be a list of strings",
        );
        check(
            "path \"a\" { policy = \"read\"\n policy = \"deny\" }",
            "line 2, column 1: policy is given twice",
        );
        check("path \"a+*\" {}", "line 1, column 1: a path may not hold '+*'");
        check("path \"a/{{x\" {}", "line 1, column 1: unbalanced {{ }} in a path");
        check("path \"a\" { \"\" = 1 }", "line 1, column 1: unknown key \"\"");
    }

    #[test]
    fn what_is_not_enforced_is_refused() {
        for key in
            ["control_group = {}", "control_group { ttl = 1 }", "mfa_methods = [\"x\"]", "sentinel = \"\""]
        {
            let name = key.split_once(' ').unwrap().0;
            check(
                &format!("path \"a\" {{ {key} }}"),
                &format!(
                    "line 1, column 1: {name} is not supported; the policy would grant more than it says"
                ),
            );
        }
    }

    #[test]
    fn reads_parameters_and_limits() {
        let text = r#"path "a" {
            capabilities = ["update"], comment = "why"
            allowed_parameters = { "Key" = ["x", 1, true], "*" = [] }
            denied_parameters { other = [{ a = 1 }] }
            required_parameters = ["Key"]
            min_wrapping_ttl = 5, max_wrapping_ttl = "1m"
            pagination_limit = 3
            expiration = "2027-01-01T00:00:00Z"
        }"#;
        let policy = parse("p", text).unwrap();
        let rule = &policy.rules[0];
        assert_eq!(
            serde_json::to_string(&rule.parameters.allowed).unwrap(),
            r#"{"*":[],"key":["x",1,true]}"#
        );
        assert_eq!(serde_json::to_string(&rule.parameters.denied).unwrap(), r#"{"other":[{"a":1}]}"#);
        assert_eq!(rule.parameters.required, BTreeSet::from(["key".to_owned()]));
        assert_eq!((rule.min_wrapping_ttl.as_secs(), rule.max_wrapping_ttl.as_secs()), (5, 60));
        assert_eq!((rule.pagination_limit, rule.expiration), (Some(3), Some(UnixMillis(1_798_761_600_000))));
        check(
            "path \"a\" { min_wrapping_ttl = 9 max_wrapping_ttl = 5 }",
            "line 1, column 1: max_wrapping_ttl is less than min_wrapping_ttl",
        );
        check(
            "path \"a\" { allowed_parameters = [\"a\"] }",
            "line 1, column 1: allowed_parameters needs a block, found a string",
        );
        check(
            "path \"a\" { allowed_parameters = { a = \"b\" } }",
            "line 1, column 1: every entry of allowed_parameters must be a list",
        );
        check(
            "path \"a\" { allowed_parameters = { a = [], A = [] } }",
            "line 1, column 1: \"A\" is given twice",
        );
        check(
            "path \"a\" { pagination_limit = 0 }",
            "line 1, column 1: pagination_limit must be a whole number above zero",
        );
        check(
            "path \"a\" { min_wrapping_ttl = -1 }",
            "line 1, column 1: min_wrapping_ttl must be a number of seconds or a duration like \"1h\"",
        );
        check(
            "path \"a\" { expiration = \"soon\" }",
            "line 1, column 1: expiration must be a moment like \"2027-01-01T00:00:00Z\"",
        );
    }
}
