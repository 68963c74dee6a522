//! CVE-2026-89322, through the whole server and every auth method whose names are the same in any case: a rule on a name
//! holds for every spelling of it and for all that is below it, and what a name was given ends with every spelling.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::fs;
use std::path::PathBuf;

use arca_harness::raw::{Answer, Connection};
use arca_harness::{Cluster, ClusterOptions};
use serde_json::{Value, json};

const SPELLINGS: [&str; 4] = ["prod", "Prod", "PROD", "pRoD"];

/// A method at `auth/m`, with a token that may do everything there but what is about `prod`.
struct Server {
    dir: tempfile::TempDir,
    cluster: Cluster,
    connection: Connection,
    token: String,
}

impl Server {
    /// Starts it; names of the method lie in `folder`.
    async fn start(method: &str, folder: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = ClusterOptions {
            nodes: 1,
            shares: 1,
            threshold: 1,
            is_tls: false,
            storage: "inmem",
            ..ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path())
        };
        let cluster = Cluster::up(options).await.unwrap();
        let connection = Connection::open(cluster.nodes[0].port).await.unwrap();
        let mut server = Self { token: cluster.root_token.clone(), dir, cluster, connection };
        server.post("sys/auth/m", &json!({ "type": method })).await;
        let options = json!({"file_path": server.audit_log()});
        server.post("sys/audit/file", &json!({"type": "file", "options": options})).await;
        let all = r#"{ capabilities = ["create", "read", "update", "delete", "list"] }"#;
        let none = r#"{ capabilities = ["deny"] }"#;
        let denied = ["", "/*"].map(|below| format!("path \"auth/m/{folder}/prod{below}\" {none}\n"));
        let policy = format!("path \"auth/m/*\" {all}\n{}", denied.concat());
        server.post("sys/policies/acl/but-prod", &json!({ "policy": policy })).await;
        let made = server.post("auth/token/create", &json!({"policies": ["but-prod"]})).await;
        made["auth"]["client_token"].as_str().unwrap().clone_into(&mut server.token);
        server
    }

    fn audit_log(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    async fn call(&mut self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.connection.call(method, &format!("/v1/{path}"), token, &body).await.unwrap()
    }

    /// A write by root, which succeeds.
    async fn post(&mut self, path: &str, body: &Value) -> Value {
        let root = self.cluster.root_token.clone();
        let answer = self.call("POST", path, &root, body).await;
        assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Whatever is asked of `prod` is refused, however it is spelled; of another name it is not.
    async fn check(&mut self, folder: &str, asked: &[(&str, &str, Value)]) {
        let token = self.token.clone();
        for (method, below, body) in asked {
            for name in SPELLINGS {
                let path = format!("auth/m/{folder}/{name}{below}");
                let answer = self.call(method, &path, &token, body).await;
                assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
                let paths = json!({ "paths": [path] });
                let words = self.call("POST", "sys/capabilities-self", &token, &paths).await.json();
                assert_eq!(words["capabilities"], json!(["deny"]), "{path}");
            }
            let answer = self.call(method, &format!("auth/m/{folder}/oTher{below}"), &token, body).await;
            assert_ne!(answer.status, 403, "{method} {below}: {}", answer.text());
        }
        let log = fs::read_to_string(self.audit_log()).unwrap();
        let is_logged = |name: &str| log.contains(&format!("\"path\":\"auth/m/{folder}/{name}"));
        assert_eq!(SPELLINGS.map(is_logged), [true, false, false, false], "in the one form");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_89322_users_of_userpass() {
    let mut server = Server::start("userpass", "users").await;
    server.post("auth/m/users/Prod", &json!({"password": "old"})).await;
    let asked = [
        ("GET", "", json!({})),
        ("POST", "", json!({"password": "new"})),
        ("POST", "/password", json!({"password": "new"})),
        ("POST", "/policies", json!({"token_policies": "default"})),
        ("DELETE", "", json!({})),
    ];
    server.check("users", &asked).await;
    let mut tokens = Vec::new();
    for name in SPELLINGS {
        let answer = server.post(&format!("auth/m/login/{name}"), &json!({"password": "old"})).await;
        tokens.push(answer["auth"]["client_token"].as_str().unwrap().to_owned());
    }
    for token in &tokens {
        let shown = server.call("GET", "auth/token/lookup-self", token, &json!({})).await.json();
        assert_eq!(shown["data"]["path"], "auth/m/login/prod");
    }
    server.post("sys/leases/revoke-prefix/auth/m/login/PROD", &json!({})).await;
    for token in &tokens {
        assert_eq!(server.call("GET", "auth/token/lookup-self", token, &json!({})).await.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_89322_roles_of_approle() {
    let mut server = Server::start("approle", "role").await;
    for name in ["prod", "other"] {
        server.post(&format!("auth/m/role/{name}"), &json!({"token_policies": "default"})).await;
    }
    let asked = [
        ("GET", "", json!({})),
        ("POST", "", json!({"token_policies": "default"})),
        ("GET", "/role-id", json!({})),
        ("POST", "/secret-id", json!({})),
        ("LIST", "/secret-id", json!({})),
        ("LIST", "/secret-id/", json!({})),
        ("POST", "/custom-secret-id", json!({"secret_id": "mine"})),
        ("POST", "/secret-id/lookup", json!({"secret_id": "mine"})),
        ("POST", "/secret-id/destroy", json!({"secret_id": "mine"})),
        ("POST", "/secret-id-accessor/lookup", json!({"secret_id_accessor": "x"})),
        ("POST", "/secret-id-accessor/destroy", json!({"secret_id_accessor": "x"})),
        ("POST", "/policies", json!({"token_policies": "default"})),
        ("DELETE", "", json!({})),
    ];
    server.check("role", &asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_89322_roles_of_jwt() {
    let mut server = Server::start("jwt", "role").await;
    let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["a"]});
    server.post("auth/m/role/prod", &role).await;
    server.check("role", &[("GET", "", json!({})), ("POST", "", role), ("DELETE", "", json!({}))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_89322_roles_of_kubernetes() {
    let mut server = Server::start("kubernetes", "role").await;
    let role = json!({"bound_service_account_names": ["a"], "bound_service_account_namespaces": ["b"]});
    server.post("auth/m/role/prod", &role).await;
    server.check("role", &[("GET", "", json!({})), ("POST", "", role), ("DELETE", "", json!({}))]).await;
}
