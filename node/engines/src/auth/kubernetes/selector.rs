//! Label selectors, as the cluster writes them: every requirement must hold.

use std::collections::BTreeMap;

use arca_engine_api::EngineError;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest text.
const TEXT_MAX: usize = 16 * 1024;

/// Requirements on labels.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Operator {
    DoesNotExist,
    Exists,
    In,
    NotIn,
}

impl Selector {
    /// Reads JSON or YAML.
    ///
    /// # Errors
    /// When it is neither, says nothing or something unknown: what is not understood would be taken for no requirement.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        let invalid =
            || EngineError::invalid("invalid \"bound_service_account_namespace_selector\" configured");
        if text.len() > TEXT_MAX {
            return Err(invalid());
        }
        let selector: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|_| invalid())?
        } else {
            serde_yaml_ng::from_str(text).map_err(|_| invalid())?
        };
        let is_sound = |expression: &Expression| {
            let wants_values = matches!(expression.operator, Operator::In | Operator::NotIn);
            wants_values != expression.values.is_empty()
        };
        let says_something = !selector.match_labels.is_empty() || !selector.match_expressions.is_empty();
        let is_good = says_something && selector.match_expressions.iter().all(is_sound);
        if is_good { Ok(selector) } else { Err(invalid()) }
    }

    /// Whether all requirements hold for these labels.
    pub(super) fn matches(&self, labels: &Map<String, Value>) -> bool {
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        self.match_labels.iter().all(|(key, value)| label(key) == Some(value.as_str()))
            && self.match_expressions.iter().all(|expression| {
                let found = label(&expression.key);
                let is_listed =
                    || found.is_some_and(|found| expression.values.iter().any(|value| value == found));
                match expression.operator {
                    Operator::DoesNotExist => found.is_none(),
                    Operator::Exists => found.is_some(),
                    Operator::In => is_listed(),
                    Operator::NotIn => !is_listed(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let labels = json!({"env": "prod", "team": "a"});
        let got = match Selector::parse(text) {
            Ok(selector) if selector.matches(labels.as_object().unwrap()) => "yes",
            Ok(_) => "no",
            Err(_) => "invalid",
        };
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn all_requirements_must_hold() {
        check(r#"{"matchLabels": {"env": "prod"}}"#, "yes");
        check(r#"{"matchLabels": {"env": "prod", "team": "b"}}"#, "no");
        check("matchLabels:\n  env: prod\n", "yes");
        check("matchLabels:\n  env: test\n", "no");
        let expression = |operator: &str, values: &str| {
            format!(
                r#"{{"matchExpressions": [{{"key": "env", "operator": "{operator}", "values": {values}}}]}}"#
            )
        };
        check(&expression("In", r#"["test", "prod"]"#), "yes");
        check(&expression("NotIn", r#"["test", "prod"]"#), "no");
        check(&expression("Exists", "[]"), "yes");
        check(&expression("DoesNotExist", "[]"), "no");
        for (operator, values) in [("In", "[]"), ("Exists", r#"["x"]"#), ("Like", r#"["x"]"#)] {
            check(&expression(operator, values), "invalid");
        }
        for text in
            ["", "{}", "zz", "[1]", r#"{"zz": 1}"#, r#"{"matchLabels": {}}"#, r#"{"matchLabels": {"a": 1}}"#]
        {
            check(text, "invalid");
        }
    }
}
