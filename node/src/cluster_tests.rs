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

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_operators_alert_on_are_there() {
    crate::telemetry::start(arca_engine_api::UnixMillis(1)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(&format!("storage \"raft\" {{ path = {:?} node_id = \"n1\" }}", dir.path()));
    let token = rig.bring_up().await;
    let body = json!({"type": "kv", "options": {"version": "1"}});
    assert_eq!(rig.ask(Method::POST, "sys/mounts/kv", &token, &body).await.0, 204);
    let page = read(&rig, &token, "sys/metrics?format=prometheus").await;
    let page = page.as_str().unwrap();
    for line in [
        "vault_core_active{cluster=\"",
        "vault_core_unsealed{cluster=\"",
        "vault_core_in_flight_requests{cluster=\"",
        "vault_core_handle_request_count ",
        "vault_core_leadership_lost_count ",
        "vault_core_leadership_setup_failed_count ",
        "vault_raft_apply ",
        "vault_raft_commitTime_count ",
        "vault_raft_peers 1",
        "vault_raft_storage_stats_applied_index{peer_id=\"n1\"} ",
        "vault_raft_storage_log_sync_count ",
        "vault_raft_storage_state_bytes ",
        "vault_raft_storage_log_bytes ",
        "vault_raft_storage_free_bytes ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        let found = page.lines().find(|found| found.starts_with(line));
        let value =
            found.and_then(|found| found.rsplit(' ').next()).and_then(|value| value.parse::<f64>().ok());
        let may_be_zero = line.contains("leadership") || line.contains("log_bytes");
        assert!(value.is_some_and(|value| value > 0.0 || may_be_zero), "{line}: {found:?}");
    }
    metrics::gauge!("vault.gone.member", "node_id" => "n9").set(1.0);
    let is_shown = |page: &Value| page.as_str().unwrap().contains("vault_gone_member{node_id=\"n9\"} 1");
    assert!(is_shown(&read(&rig, &token, "sys/metrics?format=prometheus").await));
    crate::telemetry::forget_gauges("vault.gone.");
    assert!(!is_shown(&read(&rig, &token, "sys/metrics?format=prometheus").await));

    let shown = read(&rig, &token, "sys/metrics").await;
    let gauges = shown["Gauges"].as_array().unwrap();
    let active = gauges.iter().find(|gauge| gauge["Name"] == "vault.core.active").unwrap();
    assert_eq!(active["Value"].as_f64(), Some(1.0));
    assert!(active["Labels"]["cluster"].as_str().unwrap().starts_with("arca-cluster-"));
    rig.node.shutdown().await;
}
