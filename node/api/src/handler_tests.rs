//! Requests as a listener hands them over, answered by a node with and without a kernel.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arca_engine_api::StorageError;
use arca_kernel::replication::{Fence, Kind, Mode, RoleRecord};
use arca_kernel::testing::Pair;
use http::{HeaderMap, HeaderValue};

use crate::handler::forwards_when_behind;
use crate::testing::{FakeSystem, api, request, text};

const TOKEN: (&str, &str) = ("x-vault-token", "root");

/// Status, the named headers that were sent, and the body.
async fn answer(
    system: &Arc<FakeSystem>,
    method: &str,
    target: &str,
    headers: &[(&'static str, &str)],
    shown: &[&str],
) -> String {
    let response = api(Arc::<FakeSystem>::clone(system)).respond(request(method, target, headers)).await;
    let mut lines = vec![response.status().as_u16().to_string()];
    for name in shown {
        for value in response.headers().get_all(*name) {
            lines.push(format!("{name}: {}", value.to_str().unwrap()));
        }
    }
    lines.push(text(response).await);
    lines.join("\n")
}

fn sealed() -> Arc<FakeSystem> {
    Arc::new(FakeSystem { has_metrics: true, ..FakeSystem::default() })
}

async fn pair() -> (Arc<FakeSystem>, Arc<FakeSystem>) {
    let Pair { active, standby } = Pair::new("root").await.unwrap();
    let active = FakeSystem { kernel: Some(active), ..FakeSystem::default() };
    let standby = FakeSystem {
        kernel: Some(standby),
        redirect_address: Some("https://active:8200/".to_owned()),
        ..FakeSystem::default()
    };
    (Arc::new(active), Arc::new(standby))
}

/// On one thread, where a request that never waited would keep the node from noticing for ever.
#[tokio::test(start_paused = true)]
async fn a_request_gives_the_node_time_to_notice_that_leadership_moved() {
    let (_, standby) = pair().await;
    standby.is_alone.store(true, Ordering::Relaxed);
    let noticing = Arc::clone(&standby);
    tokio::spawn(async move { noticing.is_alone.store(false, Ordering::Relaxed) });
    let got = answer(&standby, "PUT", "/v1/sys/step-down", &[TOKEN], &[]).await;
    assert_eq!(got, "200\n{}");
    assert_eq!(standby.take_notes().len(), 2, "once in vain");
}

#[tokio::test]
async fn any_node_makes_a_backup_of_its_own_state() {
    let (active, standby) = pair().await;
    for node in [&active, &standby] {
        let got = answer(node, "GET", "/v1/sys/storage/raft/snapshot", &[TOKEN], &["location"]).await;
        assert_eq!(got, "200\nsnapshot");
    }
    assert!(standby.take_notes().is_empty(), "it was carried");
    // Anything else that only the active node can do is carried there.
    let got = answer(&standby, "PUT", "/v1/sys/step-down", &[TOKEN], &["location"]).await;
    assert_eq!(got, "200\n{}");
    assert_eq!(standby.take_notes(), ["carry PUT /v1/sys/step-down"]);
}

#[tokio::test]
async fn the_namespace_is_echoed_as_it_was_sent() {
    let (active, _) = pair().await;
    for name in ["root", "a", "a/b/", "%zz"] {
        for target in ["/v1/sys/health", "/v1/sys/mounts", "/v1/a//b", "/elsewhere"] {
            let headers = [TOKEN, ("x-vault-namespace", name)];
            let got = answer(&active, "GET", target, &headers, &["x-vault-namespace"]).await;
            assert!(got.contains(&format!("\nx-vault-namespace: {name}\n")), "{target}: {got}");
        }
    }
    let got = answer(&active, "GET", "/v1/sys/health", &[], &["x-vault-namespace"]).await;
    assert!(!got.contains("x-vault-namespace"), "{got}");
}

#[tokio::test]
async fn pages_of_other_origins_are_served_as_set() {
    let (active, standby) = pair().await;
    let (page, evil) = (("origin", "http://page"), ("origin", "http://evil"));
    let shown = ["access-control-allow-origin", "vary"];
    let got = answer(&active, "GET", "/v1/sys/health", &[evil], &shown).await;
    assert!(got.starts_with("501\n{"), "not set up yet, {got}");
    let mut put = request("PUT", "/v1/sys/config/cors", &[TOKEN]);
    put.body = crate::RawBody::Bytes(r#"{"allowed_origins": "http://page"}"#.into());
    let response = api(Arc::<FakeSystem>::clone(&active)).respond(put).await;
    assert_eq!(response.status(), 204);
    for node in [&active, &standby] {
        for target in ["/v1/sys/health", "/v1/sys/mounts", "/v1/a//b"] {
            let got = answer(node, "GET", target, &[TOKEN, page], &shown).await;
            assert!(got.contains("\naccess-control-allow-origin: http://page\nvary: Origin\n"), "{got}");
            let got = answer(node, "GET", target, &[TOKEN, evil], &shown).await;
            assert_eq!(got, "403\n{\"errors\":[\"origin not allowed\"]}", "{target}");
        }
        let question = [page, ("access-control-request-method", "PUT")];
        let got = answer(node, "OPTIONS", "/v1/sys/mounts", &question, &["access-control-max-age"]).await;
        assert_eq!(got, "200\naccess-control-max-age: 300\n");
    }
}

#[tokio::test]
async fn metrics_need_no_token_where_the_listener_says_so() {
    let system = sealed();
    let ask = |target: &str, is_open| {
        let (system, mut request) = (Arc::clone(&system), request("GET", target, &[]));
        request.unauthenticated_metrics = is_open;
        async move {
            let response = api(system).respond(request).await;
            let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
            (response.status().as_u16(), kind, text(response).await)
        }
    };
    let (json, prometheus) = ("application/json".to_owned(), "text/plain; version=0.0.4".to_owned());
    assert_eq!(ask("/v1/sys/metrics", true).await, (200, json, "{}".to_owned()));
    let target = "/v1/sys/metrics?format=prometheus";
    assert_eq!(ask(target, true).await, (200, prometheus, "# all\n".to_owned()));
    assert_eq!(ask("/v1/sys/metrics?format=xml", true).await.0, 400);
    // Elsewhere it takes a token, and so does everything else here.
    assert_eq!(ask(target, false).await.0, 503);
    assert_eq!(ask("/v1/sys/metrics/more", true).await.0, 503);
    let (active, _) = pair().await;
    assert!(answer(&active, "GET", target, &[], &[]).await.starts_with("403\n"));
}

#[tokio::test]
async fn every_refusal_has_one_shape() {
    let (active, _) = pair().await;
    for (method, target, headers, want) in [
        ("GET", "/v1/a//b", vec![TOKEN], 400),
        ("GET", "/v1/a/../b", vec![TOKEN], 400),
        ("GET", "/v1/a/%2e%2e/b", vec![TOKEN], 400),
        ("GET", "/v1/a/%252e%252e/b", vec![TOKEN], 404),
        ("GET", "/v1/a%2fb", vec![TOKEN], 400),
        ("GET", "/v1/a%00b", vec![TOKEN], 400),
        ("GET", "/v1/a?b=%zz", vec![TOKEN], 400),
        ("GET", "//v1/sys/health", vec![], 404),
        ("GET", "/v1", vec![], 404),
        ("GET", "/v2/sys/health", vec![], 404),
        ("GET", "/v1/sys/mounts", vec![], 403),
        ("GET", "/v1/sys/mounts", vec![("x-vault-token", "nonsense")], 403),
        ("GET", "/v1/sys/mounts", vec![TOKEN, TOKEN], 400),
        ("GET", "/v1/sys/mounts", vec![TOKEN, ("x-vault-namespace", "a"), ("x-vault-namespace", "b")], 400),
        ("GET", "/v1/sys/mounts", vec![TOKEN, ("x-vault-wrap-ttl", "soon")], 400),
        ("FOO", "/v1/sys/mounts", vec![TOKEN], 405),
        ("OPTIONS", "/v1/sys/mounts", vec![TOKEN], 405),
        ("POST", "/v1/sys/health", vec![], 405),
        ("PATCH", "/v1/sys/mounts", vec![TOKEN], 415),
    ] {
        let got = answer(&active, method, target, &headers, &["content-type"]).await;
        let start = format!("{want}\ncontent-type: application/json\n{{\"errors\":[");
        assert!(got.starts_with(&start), "{method} {target} {headers:?}: {got}");
    }
}

#[test]
fn a_node_that_is_behind_may_be_told_to_pass_the_request_on() {
    let check = |values: &[&'static str], want: bool| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-vault-inconsistent", HeaderValue::from_static(value));
        }
        assert_eq!(forwards_when_behind(&headers), want, "{values:?}");
    };
    check(&[], false);
    check(&[""], false);
    check(&["fail"], false);
    check(&["forward-active-node"], true);
    check(&[" forward-active-node "], true);
    check(&["fail", "forward-active-node"], true);
    check(&["forward"], false);
}

async fn become_one(system: &FakeSystem, role: &RoleRecord) {
    let failed = |err: arca_kernel::KernelError| StorageError::Failed(err.to_string());
    let kernel = system.kernel.as_ref().unwrap();
    kernel.commit_with(|tx| role.store(tx, Kind::Dr).map_err(failed)).await.unwrap();
}

#[tokio::test]
async fn every_node_of_a_dr_secondary_answers_472() {
    let (active, standby) = pair().await;
    become_one(&active, &RoleRecord { mode: Mode::Secondary, ..RoleRecord::default() }).await;
    let disabled = "472\n{\"errors\":[\"path disabled in replication DR secondary mode\"]}";
    for node in [&active, &standby] {
        for (method, target) in [
            ("GET", "/v1/sys/mounts"),
            ("PUT", "/v1/secret/a"),
            ("LIST", "/v1/secret"),
            ("GET", "/v1/cubbyhole/a"),
        ] {
            assert_eq!(answer(node, method, target, &[TOKEN], &[]).await, disabled, "{target}");
        }
        let got = answer(node, "GET", "/v1/sys/replication/status", &[], &[]).await;
        assert!(got.starts_with("200\n") && got.contains("\"dr\":{\"mode\":\"secondary\"}"), "{got}");
        let got = answer(node, "GET", "/v1/sys/seal-status", &[], &[]).await;
        assert!(got.starts_with("200\n"), "{got}");
        let got = answer(node, "GET", "/v1/sys/health", &[], &[]).await;
        assert!(got.contains("\"replication_dr_mode\":\"secondary\""), "{got}");
    }
    assert!(standby.take_notes().is_empty(), "it was carried");
    let got = answer(&standby, "PUT", "/v1/sys/replication/dr/secondary/promote", &[TOKEN], &[]).await;
    assert_eq!((got.as_str(), standby.take_notes().len()), ("200\n{}", 1), "carried to the active node");
}

#[tokio::test]
async fn a_fenced_primary_asks_whoever_writes_to_wait() {
    let (active, _) = pair().await;
    let fence = Some(Fence { epoch: 2, ..Fence::default() });
    become_one(&active, &RoleRecord { mode: Mode::Primary, fence, ..RoleRecord::default() }).await;
    let got = answer(&active, "PUT", "/v1/cubbyhole/a", &[TOKEN], &["retry-after"]).await;
    assert!(
        got.starts_with("503\nretry-after: 60\n{\"errors\":[\"this cluster is no longer the primary"),
        "{got}"
    );
    let got = answer(&active, "GET", "/v1/sys/mounts", &[TOKEN], &["retry-after"]).await;
    assert!(got.starts_with("200\n{"), "{got}");
}
