//! One entry as one line, in the fields Vault's audit log has.
//!
//! **Invariant:** tokens, field values and raw bodies leave only through [`Salt`], whatever their type, unless the
//! device logs raw. Keys, numbers, booleans, paths, policies, metadata and lease ids are in clear.

use std::collections::BTreeMap;

use arca_engine_api::{Map, Operation, Raw};
use serde_json::Value;

use super::entry::{AuthRecord, MountRecord, RequestRecord, ResponseRecord};
use super::json::Json;
use super::salt::Salt;
use super::table::HeaderRule;
use crate::answer::WrapInfo;
use crate::rfc3339;

/// How a device writes its lines.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) salt: Salt,
    pub(super) is_raw: bool,
    pub(super) hashes_accessors: bool,
    pub(super) elides_lists: bool,
    pub(super) prefix: String,
}

/// Headers to log, by lower-case name.
pub(super) type Headers = BTreeMap<String, HeaderRule>;

impl Style {
    /// The line of a request, without its last brace: the chain comes before that.
    pub(super) fn request(&self, record: &RequestRecord<'_>, headers: &Headers) -> String {
        let mut json = self.begin(record.time, "request", record);
        self.request_object(&mut json, record, headers);
        self.end(json, record, record.error)
    }

    /// The line of an answer, without its last brace.
    pub(super) fn response(&self, record: &ResponseRecord<'_>, headers: &Headers) -> String {
        let mut json = self.begin(record.time, "response", record.request);
        self.request_object(&mut json, record.request, headers);
        self.response_object(&mut json, record);
        self.end(json, record.request, record.error)
    }

    fn begin(&self, time: arca_engine_api::UnixMillis, kind: &str, request: &RequestRecord<'_>) -> Json {
        let mut json = Json::after(&self.prefix);
        json.open('{');
        json.key("time");
        json.string(&rfc3339::format(time));
        json.key("type");
        json.string(kind);
        if let Some(auth) = &request.auth {
            self.auth(&mut json, auth);
        }
        json
    }

    fn end(&self, mut json: Json, request: &RequestRecord<'_>, error: Option<&str>) -> String {
        json.field("error", error.unwrap_or_default());
        json.field("forwarded_from", request.forwarded_from.unwrap_or_default());
        json.into_text()
    }

    /// A value that must not be readable.
    fn hidden(&self, json: &mut Json, text: &str) {
        if self.is_raw { json.string(text) } else { json.string(&self.salt.hash(text.as_bytes())) }
    }

    fn hidden_field(&self, json: &mut Json, name: &str, text: &str) {
        if !text.is_empty() {
            json.key(name);
            self.hidden(json, text);
        }
    }

    fn accessor(&self, json: &mut Json, name: &str, accessor: &str) {
        if self.hashes_accessors {
            self.hidden_field(json, name, accessor);
        } else {
            json.field(name, accessor);
        }
    }

    fn auth(&self, json: &mut Json, auth: &AuthRecord<'_>) {
        json.object("auth");
        self.hidden_field(json, "client_token", auth.client_token.unwrap_or_default());
        self.accessor(json, "accessor", auth.accessor);
        json.field("display_name", auth.display_name);
        json.list("policies", auth.policies);
        json.list("token_policies", auth.token_policies);
        json.list("identity_policies", auth.identity_policies);
        if let Some(results) = auth.policy_results {
            json.object("policy_results");
            json.key("allowed");
            json.plain(results.decision.is_allowed);
            json.key("granting_policies");
            json.open('[');
            for policy in results.decision.granting_policies() {
                json.open('{');
                json.field("name", &policy.name);
                json.field("namespace_id", &policy.namespace_id);
                json.field("namespace_path", &policy.namespace_path);
                json.field("type", "acl");
                json.close('}');
            }
            json.close(']');
            json.close('}');
        }
        if let Some(metadata) = auth.metadata.filter(|metadata| !metadata.is_empty()) {
            json.object("metadata");
            for (name, value) in metadata {
                json.key(name);
                json.string(value);
            }
            json.close('}');
        }
        json.field("entity_id", auth.entity_id);
        json.field("token_type", auth.token_type);
        number(json, "token_ttl", auth.token_ttl.as_secs());
        if let Some(time) = auth.token_issue_time {
            json.field("token_issue_time", &rfc3339::format(time));
        }
        number(json, "remaining_uses", u64::from(auth.remaining_uses));
        json.close('}');
    }

    fn request_object(&self, json: &mut Json, record: &RequestRecord<'_>, headers: &Headers) {
        json.object("request");
        json.field("id", record.id);
        json.field("operation", record.operation.as_str());
        mount(json, record.mount.as_ref());
        if let Some(auth) = &record.auth {
            self.hidden_field(json, "client_token", auth.client_token.unwrap_or_default());
            self.accessor(json, "client_token_accessor", auth.accessor);
        }
        json.object("namespace");
        json.field("id", record.namespace_id);
        json.field("path", record.namespace_path);
        json.close('}');
        json.field("path", record.path);
        if !record.data.is_empty() {
            json.key("data");
            self.map(json, record.data, record.mount.map_or(&[], |mount| mount.clear_request_keys));
        }
        if let Some(address) = record.remote_addr {
            json.field("remote_address", &address.to_string());
        }
        number(json, "remote_port", u64::from(record.remote_port));
        number(json, "wrap_ttl", record.wrap_ttl.map_or(0, |ttl| ttl.as_secs()));
        self.headers(json, record.headers, headers);
        json.field("client_certificate_serial_number", record.client_certificate_serial.unwrap_or_default());
        json.close('}');
    }

    fn headers(&self, json: &mut Json, found: &BTreeMap<String, Vec<String>>, wanted: &Headers) {
        let mut is_open = false;
        for (name, rule) in wanted {
            let Some(values) = found.get(name) else { continue };
            if !is_open {
                json.object("headers");
                is_open = true;
            }
            json.key(name);
            json.open('[');
            for value in values {
                if rule.hmac { self.hidden(json, value) } else { json.string(value) }
            }
            json.close(']');
        }
        if is_open {
            json.close('}');
        }
    }

    fn response_object(&self, json: &mut Json, record: &ResponseRecord<'_>) {
        json.object("response");
        if let Some(auth) = &record.auth {
            self.auth(json, auth);
        }
        mount(json, record.request.mount.as_ref());
        if !record.lease_id.is_empty() {
            json.object("secret");
            json.field("lease_id", record.lease_id);
            json.close('}');
        }
        let clear = record.request.mount.map_or(&[][..], |mount| mount.clear_response_keys);
        if let Some(raw) = record.raw {
            self.raw(json, raw);
        } else if let Some(data) = record.data.filter(|data| !data.is_empty()) {
            json.key("data");
            let is_listing = matches!(record.request.operation, Operation::List | Operation::Scan);
            if self.elides_lists && is_listing {
                self.elided(json, data, clear)
            } else {
                self.map(json, data, clear)
            }
        }
        json.list("warnings", record.warnings);
        if let Some(info) = record.wrap_info {
            self.wrap_info(json, info);
        }
        if let Some(headers) = record.headers.filter(|headers| !headers.is_empty()) {
            json.object("headers");
            for (name, values) in headers {
                json.key(name);
                json.open('[');
                values.iter().for_each(|value| self.hidden(json, value));
                json.close(']');
            }
            json.close('}');
        }
        json.close('}');
    }

    /// CVE-2025-62513: a raw body is a value like any other.
    fn raw(&self, json: &mut Json, raw: &Raw) {
        json.object("data");
        json.field("http_content_type", &raw.content_type);
        json.key("http_raw_body");
        if self.is_raw {
            json.string(&String::from_utf8_lossy(&raw.body));
        } else {
            json.string(&self.salt.hash(&raw.body));
        }
        number(json, "http_status_code", u64::from(raw.status));
        json.close('}');
    }

    fn wrap_info(&self, json: &mut Json, info: &WrapInfo) {
        json.object("wrap_info");
        number(json, "ttl", info.ttl);
        self.hidden_field(json, "token", &info.token);
        self.accessor(json, "accessor", &info.accessor);
        json.field("creation_time", &rfc3339::format(info.creation_time));
        json.field("creation_path", &info.creation_path);
        self.accessor(json, "wrapped_accessor", info.wrapped_accessor.as_deref().unwrap_or_default());
        json.close('}');
    }

    fn map(&self, json: &mut Json, map: &Map, clear: &[String]) {
        json.open('{');
        for (name, value) in map {
            json.key(name);
            self.value(json, value, clear, clear.contains(name));
        }
        json.close('}');
    }

    /// `keys` and `key_info` only by their size.
    fn elided(&self, json: &mut Json, data: &Map, clear: &[String]) {
        json.open('{');
        for (name, value) in data {
            json.key(name);
            match (name.as_str(), value) {
                ("keys", Value::Array(keys)) => json.plain(keys.len()),
                ("key_info", Value::Object(infos)) => json.plain(infos.len()),
                _ => self.value(json, value, clear, clear.contains(name)),
            }
        }
        json.close('}');
    }

    fn value(&self, json: &mut Json, value: &Value, clear: &[String], is_clear: bool) {
        match value {
            Value::String(text) if is_clear => json.string(text),
            Value::String(text) => self.hidden(json, text),
            Value::Array(values) => {
                json.open('[');
                values.iter().for_each(|value| self.value(json, value, clear, is_clear));
                json.close(']');
            }
            Value::Object(map) => self.map(json, map, clear),
            Value::Bool(flag) => json.plain(flag),
            Value::Null => json.plain("null"),
            Value::Number(number) => json.plain(number),
        }
    }
}

fn number(json: &mut Json, name: &str, value: u64) {
    if value > 0 {
        json.key(name);
        json.plain(value);
    }
}

fn mount(json: &mut Json, mount: Option<&MountRecord<'_>>) {
    if let Some(mount) = mount {
        json.field("mount_point", mount.point);
        json.field("mount_type", mount.kind);
        json.field("mount_accessor", mount.accessor);
        json.field("mount_class", mount.class);
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
pub(super) mod tests;
