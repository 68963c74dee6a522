//! Requests that are shown instead of sent: as a curl command, and as the policy they need.

use arca_client::{Body, PlannedRequest};
use http::{Method, header};

/// Whatever is done at these paths needs `sudo`, too. Those that end in `/` stand for all below them.
const SUDO: [&str; 20] = [
    "auth/token/accessors",
    "auth/token/revoke-orphan",
    "sys/audit",
    "sys/audit/",
    "sys/auth/",
    "sys/config/auditing/",
    "sys/config/cors",
    "sys/config/ui/headers/",
    "sys/leases/lookup/",
    "sys/leases/revoke-force/",
    "sys/leases/revoke-prefix/",
    "sys/plugins/catalog/",
    "sys/raw/",
    "sys/remount",
    "sys/revoke-force/",
    "sys/revoke-prefix/",
    "sys/rotate",
    "sys/rotate/keyring",
    "sys/seal",
    "sys/step-down",
];

/// The policy a request needs. Whether a write creates or updates is for the engine to say, so both are named.
pub fn policy(request: &PlannedRequest) -> String {
    let capabilities = match request.method.as_str() {
        _ if request.is_list => r#""list""#,
        _ if request.is_scan => r#""scan""#,
        "GET" | "HEAD" => r#""read""#,
        "DELETE" => r#""delete""#,
        "PATCH" => r#""patch""#,
        _ => r#""create", "update""#,
    };
    let path = request.path.trim_end_matches('/');
    let needs_sudo =
        SUDO.iter().any(|known| if known.ends_with('/') { path.starts_with(known) } else { path == *known });
    let sudo = if needs_sudo { r#", "sudo""# } else { "" };
    format!("path {path:?} {{\n  capabilities = [{capabilities}{sudo}]\n}}")
}

/// A curl command. The token is fetched when it runs and does not stand in it; nor does any other header that may hold a
/// secret, which whoever runs the command fills in.
pub fn curl(request: &PlannedRequest) -> String {
    let mut parts = vec!["curl".to_owned()];
    if request.method != Method::GET {
        parts.push(format!("-X {}", request.method));
    }
    for (name, value) in &request.headers {
        let is_default = name == header::CONTENT_TYPE && request.method != Method::PATCH;
        if !is_default {
            let shown = if value.is_sensitive() { "(hidden)" } else { value.to_str().unwrap_or_default() };
            parts.push(format!("-H {}", quoted(&format!("{name}: {shown}"))));
        }
    }
    if request.has_token {
        parts.push(r#"-H "X-Vault-Token: $(arca print token)""#.to_owned());
    }
    match &request.body {
        Body::Empty => {}
        Body::Bytes(bytes) => parts.push(format!("-d {}", quoted(&String::from_utf8_lossy(bytes)))),
        Body::File(path) => {
            parts.push(format!("--data-binary {}", quoted(&format!("@{}", path.display()))));
        }
    }
    parts.push(quoted(&request.url));
    parts.join(" ")
}

/// Text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[track_caller]
    fn check(method: Method, path: &str, want: &str) {
        let request = PlannedRequest {
            method,
            url: format!("http://server/v1/{path}"),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            has_token: false,
            is_list: false,
            is_scan: false,
            body: Body::Empty,
        };
        let text = policy(&request);
        assert!(text.contains(&format!("[{want}]")), "{path}: {text}");
    }

    #[test]
    fn sudo_goes_by_the_path() {
        check(Method::GET, "sys/audit", r#""read", "sudo""#);
        check(Method::PUT, "sys/audit/file", r#""create", "update", "sudo""#);
        check(Method::GET, "sys/auth", r#""read""#);
        check(Method::POST, "sys/auth/userpass", r#""create", "update", "sudo""#);
        check(Method::POST, "sys/mounts/secret", r#""create", "update""#);
        check(Method::PUT, "sys/leases/revoke", r#""create", "update""#);
        check(Method::PUT, "sys/leases/revoke-prefix/db", r#""create", "update", "sudo""#);
        check(Method::GET, "sys/remount/status/id", r#""read""#);
        check(Method::GET, "sys/rotate/config", r#""read""#);
        check(Method::PUT, "auth/token/revoke-orphan", r#""create", "update", "sudo""#);
        check(Method::DELETE, "secret/data/a", r#""delete""#);
    }
}
