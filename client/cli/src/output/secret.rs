//! The envelope as a table, and single fields of it.

use arca_client::{Auth, Secret, WrapInfo};
use serde_json::{Value, json};

use super::table::{field, short_duration};

/// The rows of the table for `secret`.
pub fn rows(secret: &Secret) -> Vec<(String, String)> {
    if let Some(info) = secret.wrap_info.as_ref().filter(|info| !info.token.is_empty()) {
        return wrap_rows(info);
    }
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push((key.to_owned(), value));
    if !secret.lease_id.is_empty() {
        row("lease_id", secret.lease_id.clone());
        row("lease_duration", lifetime(secret.lease_duration));
        row("lease_renewable", secret.renewable.to_string());
    } else if secret.lease_duration > 0 {
        // A secret without a lease still says how long it may be kept.
        row("refresh_interval", short_duration(secret.lease_duration));
    }
    if let Some(auth) = &secret.auth {
        rows.extend(auth_rows(auth));
    }
    let data = secret.data.iter().flatten();
    rows.extend(data.map(|(key, value)| (key.clone(), field(key, value))));
    rows
}

fn auth_rows(auth: &Auth) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push((key.to_owned(), value));
    if let Some(mfa) = auth.mfa_requirement.as_ref().filter(|_| auth.client_token.is_empty()) {
        row("mfa_request_id", mfa.mfa_request_id.clone());
        for (name, constraint) in &mfa.mfa_constraints {
            for method in &constraint.any {
                row(&format!("mfa_constraint_{name}_{}_id", method.kind), method.id.clone());
                row(
                    &format!("mfa_constraint_{name}_{}_uses_passcode", method.kind),
                    method.uses_passcode.to_string(),
                );
            }
        }
        return rows;
    }
    // Printing the token is what the operator asked for.
    row("token", auth.client_token.expose().to_owned());
    row("token_accessor", auth.accessor.clone());
    row("token_duration", lifetime(auth.lease_duration));
    row("token_renewable", auth.renewable.to_string());
    row("token_policies", quoted(auth.token_policies.as_deref()));
    row("identity_policies", quoted(auth.identity_policies.as_deref()));
    row("policies", quoted(auth.policies.as_deref()));
    for (key, value) in auth.metadata.iter().flatten() {
        row(&format!("token_meta_{key}"), value.clone());
    }
    rows
}

fn wrap_rows(info: &WrapInfo) -> Vec<(String, String)> {
    let mut rows = vec![
        // As above.
        ("wrapping_token:", info.token.expose().to_owned()),
        ("wrapping_accessor:", info.accessor.clone()),
        ("wrapping_token_ttl:", short_duration(info.ttl)),
        ("wrapping_token_creation_time:", spelled_time(&info.creation_time)),
        ("wrapping_token_creation_path:", info.creation_path.clone()),
    ];
    if !info.wrapped_accessor.is_empty() {
        rows.push(("wrapped_accessor:", info.wrapped_accessor.clone()));
    }
    rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A TTL, or for ever.
fn lifetime(seconds: u64) -> String {
    if seconds == 0 { "∞".to_owned() } else { short_duration(seconds) }
}

fn quoted(list: Option<&[String]>) -> String {
    let items: Vec<_> = list.unwrap_or_default().iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

/// `2026-01-02T03:04:05Z` as `2026-01-02 03:04:05 +0000 UTC`.
fn spelled_time(time: &str) -> String {
    match time.strip_suffix('Z').and_then(|time| time.split_once('T')) {
        Some((day, clock)) => format!("{day} {clock} +0000 UTC"),
        None => time.to_owned(),
    }
}

/// The field `name`, wherever in the envelope it is.
pub fn find(secret: &Secret, name: &str) -> Option<Value> {
    if let Some(info) = secret.wrap_info.as_ref().filter(|info| !info.token.is_empty()) {
        return match name {
            "wrapping_token" => Some(json!(info.token.expose())),
            "wrapping_accessor" => Some(json!(info.accessor)),
            "wrapping_token_ttl" => Some(json!(info.ttl)),
            "wrapping_token_creation_time" => Some(json!(info.creation_time)),
            "wrapping_token_creation_path" => Some(json!(info.creation_path)),
            "wrapped_accessor" => Some(json!(info.wrapped_accessor)),
            _ => None,
        };
    }
    if let Some(auth) = &secret.auth {
        let found = match name {
            "token" => Some(json!(auth.client_token.expose())),
            "token_accessor" => Some(json!(auth.accessor)),
            "token_duration" => Some(json!(auth.lease_duration)),
            "token_renewable" => Some(json!(auth.renewable)),
            "token_policies" => Some(json!(auth.token_policies)),
            "identity_policies" => Some(json!(auth.identity_policies)),
            "policies" => Some(json!(auth.policies)),
            _ => {
                let metadata = auth.metadata.as_ref();
                let value = name.strip_prefix("token_meta_").and_then(|key| metadata?.get(key));
                value.map(|value| json!(value))
            }
        };
        if found.is_some() {
            return found;
        }
    }
    match name {
        "data" => secret.field(name).cloned().or_else(|| secret.data.clone().map(Value::Object)),
        "lease_id" if !secret.lease_id.is_empty() => Some(json!(secret.lease_id)),
        "lease_duration" if !secret.lease_id.is_empty() => Some(json!(secret.lease_duration)),
        "lease_renewable" if !secret.lease_id.is_empty() => Some(json!(secret.renewable)),
        "refresh_interval" if secret.lease_id.is_empty() && secret.field(name).is_none() => {
            Some(json!(secret.lease_duration))
        }
        _ => secret.field(name).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::output::table;

    #[track_caller]
    fn check(body: &str, want: Expect) {
        let secret: Secret = serde_json::from_str(body).unwrap();
        want.assert_eq(&table::pairs(rows(&secret)));
    }

    #[test]
    fn a_login() {
        check(
            r#"{"auth":{"client_token":"hvs.x","accessor":"acc","policies":["default","p"],"token_policies":["default"],
                "identity_policies":null,"metadata":{"username":"bob"},"lease_duration":2764800,"renewable":true}}"#,
            expect![[r#"
                Key                    Value
                ---                    -----
                token                  hvs.x
                token_accessor         acc
                token_duration         768h
                token_renewable        true
                token_policies         ["default"]
                identity_policies      []
                policies               ["default" "p"]
                token_meta_username    bob
            "#]],
        );
    }

    #[test]
    fn a_lease_comes_before_its_data() {
        check(
            r#"{"lease_id":"db/creds/r/abc","lease_duration":3600,"renewable":true,"data":{"username":"u","ttl":60}}"#,
            expect![[r#"
                Key                Value
                ---                -----
                lease_id           db/creds/r/abc
                lease_duration     1h
                lease_renewable    true
                ttl                1m
                username           u
            "#]],
        );
        check(
            r#"{"lease_duration":2764800,"data":{"a":"1"}}"#,
            expect![[r#"
                Key                 Value
                ---                 -----
                refresh_interval    768h
                a                   1
            "#]],
        );
    }

    #[test]
    fn data_within_data_goes_first() {
        let secret = |body: &str| serde_json::from_str::<Secret>(body).unwrap();
        let versioned = secret(r#"{"data":{"data":{"a":1},"metadata":{}}}"#);
        assert_eq!(find(&versioned, "data"), Some(json!({"a": 1})));
        assert_eq!(find(&secret(r#"{"data":{"a":1}}"#), "data"), Some(json!({"a": 1})));
    }

    #[test]
    fn a_wrapped_answer() {
        check(
            r#"{"wrap_info":{"token":"hvs.w","accessor":"a","ttl":60,"creation_time":"2026-11-24T03:39:34.31Z",
                "creation_path":"auth/token/create","wrapped_accessor":"b"}}"#,
            expect![[r#"
                Key                              Value
                ---                              -----
                wrapping_token:                  hvs.w
                wrapping_accessor:               a
                wrapping_token_ttl:              1m
                wrapping_token_creation_time:    2026-11-24 03:39:34.31 +0000 UTC
                wrapping_token_creation_path:    auth/token/create
                wrapped_accessor:                b
            "#]],
        );
    }
}
