//! Connections and roles: what is kept, what is shown, what is refused.

use arca_engine_api::{Operation, Page, Storage as _};
use serde_json::{Value, json};

use super::Talk;
use super::fake::Mood;

#[tokio::test(start_paused = true)]
async fn connections_show_no_secret() {
    let talk = Talk::new().await;
    let more = json!({"tls_certificate_key": "canary", "max_open_connections": "3", "root_rotation_statements": "a,b", "plugin_version": "v1"});
    assert_eq!(
        talk.write("config/db", more).await,
        "none warning: plugin_version has no effect: databases are built in, in one version"
    );
    assert_eq!(
        talk.read("config/db").await,
        r#"{"allowed_roles":["*"],"connection_details":{"connection_url":"x","max_open_connections":"3","username":"root"},"password_policy":"","plugin_name":"fake","plugin_version":"","root_credentials_rotate_statements":["a,b"]}"#
    );
    assert_eq!(talk.say(Operation::List, "config", Value::Null).await, r#"{"keys":["db"]}"#);
    assert_eq!(talk.say(Operation::Delete, "config/db", Value::Null).await, "none");
    // The API answers 404 without a word, as others do.
    assert_eq!(talk.read("config/db").await, "none");
}

#[tokio::test(start_paused = true)]
async fn connections_that_cannot_be_are_refused() {
    let talk = Talk::new().await;
    let base =
        json!({"plugin_name": "fake", "connection_url": "x", "username": "root", "password": "secret"});
    for (change, want) in [
        (json!({"plugin_name": ""}), "Invalid: empty plugin name"),
        (
            json!({"plugin_name": "zz"}),
            "Invalid: error creating database object: plugin not found in the catalog",
        ),
        (
            json!({"connection_url": ""}),
            "Invalid: error creating database object: connection_url cannot be empty",
        ),
        (
            json!({"username": "{{password}}"}),
            "Invalid: error creating database object: username and/or password cannot contain the template variables",
        ),
        (
            json!({"username_template": "{{foo"}),
            "Invalid: error creating database object: unable to initialize username template: unable to parse \
             template: at byte 2: unclosed action",
        ),
        (
            json!({"password": "wrong"}),
            "Invalid: error creating database object: error verifying connection: access denied",
        ),
        (
            json!({"password_authentication": "x"}),
            "Invalid: error creating database object: password_authentication is password or scram-sha-256",
        ),
        (
            json!({"connection_url": "canary"}),
            "none warning: Password found in connection_url, use a templated url to enable root rotation and prevent read access to password information.",
        ),
        (json!({"password": "wrong", "verify_connection": false}), "none"),
        (
            json!({"username_template": 5}),
            "Invalid: error creating database object: username_template is no text",
        ),
        (
            json!({"max_open_connections": "", "max_idle_connections": "", "max_connection_lifetime": "-1"}),
            "none",
        ),
    ] {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        assert_eq!(talk.write("config/new", body).await, want, "{change}");
    }
    talk.server.is(Mood::Deaf);
    assert_eq!(
        talk.write("config/deaf", base).await,
        "Invalid: error creating database object: error verifying connection: the database did not answer in time"
    );
    assert!(talk.write("config/-x", Value::Null).await.starts_with("Invalid: a name is made of"));
    assert_eq!(talk.read("config/deaf").await, "none");
}

#[tokio::test(start_paused = true)]
async fn a_reset_says_whether_the_database_lets_in() {
    let talk = Talk::new().await;
    assert_eq!(talk.write("reset/db", Value::Null).await, "none");
    talk.server.is(Mood::Unreachable);
    assert_eq!(talk.write("reset/db", Value::Null).await, "Upstream: error verifying connection: no way");
    talk.server.is(Mood::Well);
    assert_eq!(talk.write("reset/db", Value::Null).await, "none");
    assert_eq!(
        talk.write("reset/none", Value::Null).await,
        "Invalid: failed to find entry for connection with name: \"none\""
    );
}

#[tokio::test(start_paused = true)]
async fn roles_are_kept_as_they_are_said() {
    let talk = Talk::new().await;
    assert_eq!(talk.write("roles/r", json!({})).await, "Invalid: database name is required");
    let body = json!({"db_name": "db", "creation_statements": "a,b; c", "revocation_statements": ["", " "], "default_ttl": "1h", "max_ttl": 86400});
    assert_eq!(talk.write("roles/r", body).await, "none");
    assert_eq!(talk.write("roles/r", json!({"renew_statements": ["x", "y"]})).await, "none");
    assert_eq!(
        talk.read("roles/r").await,
        r#"{"creation_statements":["a,b; c"],"credential_type":"password","db_name":"db","default_ttl":3600,"max_ttl":86400,"renew_statements":["x","y"],"revocation_statements":[],"rollback_statements":[]}"#
    );
    assert_eq!(talk.say(Operation::List, "roles", Value::Null).await, r#"{"keys":["r"]}"#);
    assert_eq!(
        talk.write("static-roles/r", json!({"db_name": "db", "username": "app", "rotation_period": 60}))
            .await,
        "Invalid: Role and Static Role names must be unique"
    );
    assert_eq!(talk.say(Operation::Delete, "roles/r", Value::Null).await, "none");
    assert_eq!(talk.read("creds/r").await, "Invalid: unknown role: r");
}

#[tokio::test(start_paused = true)]
async fn credential_types_are_checked() {
    let talk = Talk::new().await;
    let config = |kind: &str, config: Value| json!({"db_name": "db", "credential_type": kind, "credential_config": config});
    for (body, want) in [
        (
            config("bad", json!({})),
            "Invalid: invalid credential_type: there are password, rsa_private_key and client_certificate",
        ),
        (
            config("rsa_private_key", json!({"key_bits": 12})),
            "Invalid: credential_config validation failed: invalid key_bits",
        ),
        (
            config("client_certificate", json!({})),
            "Invalid: credential_config validation failed: invalid key_type",
        ),
        (
            config("client_certificate", json!({"key_type": "rsa"})),
            "Invalid: credential_config validation failed: missing required common_name_template",
        ),
        (
            config(
                "client_certificate",
                json!({"key_type": "ec", "common_name_template": "x", "ca_cert": "c", "ca_private_key": "canary"}),
            ),
            "none",
        ),
    ] {
        assert_eq!(talk.write("roles/r", body).await, want);
    }
    assert!(!talk.read("roles/r").await.contains("canary"));
    assert_eq!(talk.write("roles/r", config("rsa_private_key", json!({}))).await, "none");
    let shown = talk.read("roles/r").await;
    assert!(shown.contains(r#""credential_config":{"format":"pkcs8","key_bits":2048}"#), "{shown}");
    assert_eq!(talk.read("creds/r").await, r#"Invalid: unsupported credential_type: "rsa_private_key""#);
}

/// What reads a connection or a role never shows a secret, and what is stored of a credential is in the lease's user only.
#[tokio::test(start_paused = true)]
async fn no_issued_password_is_stored() {
    let talk = Talk::new().await;
    talk.write("roles/r", json!({"db_name": "db", "creation_statements": "x"})).await;
    let (made, lease) = talk.call(Operation::Read, "creds/r", Value::Null, super::Crash::Never).await;
    let password = made.unwrap().data.unwrap()["password"].as_str().unwrap().to_owned();
    assert!(!Value::Object(lease.unwrap().internal).to_string().contains(&password));
    for key in talk.storage.scan("", &Page::default()).unwrap() {
        let stored = talk.storage.get(&key).unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains(&password), "{key}");
    }
}
