//! What `sys/` says of a node and its cluster, with a whole node in this process.

use http::Method;
use serde_json::{Value, json};

use crate::testing::Rig;

async fn read(rig: &Rig, token: &str, path: &str) -> Value {
    let (status, said) = rig.ask(Method::GET, path, token, &Value::Null).await;
    assert_eq!(status, 200, "{path}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_what_it_does_and_where() {
    let rig = Rig::open("storage \"inmem\" {}");
    let token = rig.bring_up().await;

    let under_way = read(&rig, &token, "sys/in-flight-req").await;
    let requests: Vec<_> = under_way.as_object().unwrap().values().collect();
    assert_eq!(requests.len(), 1, "{under_way}");
    assert_eq!(requests[0]["request_path"], "/v1/sys/in-flight-req");
    assert_eq!(
        (&requests[0]["request_method"], &requests[0]["client_remote_address"]),
        (&json!("GET"), &json!("127.0.0.1:1"))
    );
    assert!(!under_way.to_string().contains(&token));
    assert!(requests[0]["start_time"].as_str().unwrap().ends_with('Z'));

    let info = read(&rig, &token, "sys/host-info").await;
    assert!(info["data"]["memory"]["total"].as_u64().unwrap() > 0, "{info}");

    let config = read(&rig, &token, "sys/config/state/sanitized").await;
    assert_eq!(config["data"]["storage"]["type"], "inmem");
    assert_eq!(config["data"]["listeners"][0]["config"]["tls_disable"], true);

    let (status, said) = rig.ask(Method::GET, "sys/in-flight-req", "", &Value::Null).await;
    assert_eq!(status, 403, "{said}");
    rig.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn autopilots_settings_are_kept_and_shape_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(&format!("storage \"raft\" {{ path = {:?} node_id = \"n1\" }}", dir.path()));
    let token = rig.bring_up().await;
    const SETTINGS: &str = "sys/storage/raft/autopilot/configuration";
    let defaults = read(&rig, &token, SETTINGS).await;
    assert_eq!(
        (&defaults["data"]["last_contact_threshold"], &defaults["data"]["cleanup_dead_servers"]),
        (&json!("10s"), &json!(false))
    );
    for (body, wanted) in [
        (json!({"cleanup_dead_servers": true}), 400),
        (json!({"cleanup_dead_servers": true, "min_quorum": 3, "last_contact_threshold": "90s"}), 204),
        (json!({"dead_server_last_contact_threshold": "5s"}), 400),
    ] {
        let (status, said) = rig.ask(Method::POST, SETTINGS, &token, &body).await;
        assert_eq!(status, wanted, "{body}: {said}");
    }
    let kept = read(&rig, &token, SETTINGS).await;
    assert_eq!(
        (&kept["data"]["min_quorum"], &kept["data"]["last_contact_threshold"]),
        (&json!(3), &json!("1m30s"))
    );
    assert_eq!(kept["data"]["dead_server_last_contact_threshold"], "24h0m0s");

    let state = read(&rig, &token, "sys/storage/raft/autopilot/state").await;
    let state = &state["data"];
    assert_eq!((&state["healthy"], &state["leader"]), (&json!(true), &json!("n1")));
    assert_eq!((&state["voters"], &state["non_voters"]), (&json!(["n1"]), &json!([])));
    let me = &state["servers"]["n1"];
    assert_eq!((&me["status"], &me["last_contact"]), (&json!("leader"), &json!("0s")));
    assert!(me["last_index"].as_u64().unwrap() > 0 && me["last_term"].as_u64().unwrap() > 0, "{state}");
    rig.node.shutdown().await;
}
