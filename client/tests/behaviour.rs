//! The client against a scripted server: what is repeated, where it goes next, what it says when it fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests, which clippy sees only in functions marked so"
)]

mod stub;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arca_client::transport::Connecting;
use arca_client::{Address, Client, Config, Connect, Error, Request, RetryPolicy, Token, TransportKind};
use http::Method;
use stub::{Step, Stub};

fn config(addresses: &[&str]) -> Config {
    let mut config = Config::new(addresses[0].parse().unwrap());
    config.addresses = Address::parse_list(&addresses.join(",")).unwrap();
    config.token = Some(Token::new("hvs.secret-token"));
    config.retry = RetryPolicy {
        wait_min: Duration::from_millis(1),
        wait_max: Duration::from_millis(2),
        jitter_seed: Some(1),
        ..RetryPolicy::default()
    };
    config
}

fn client(addresses: &[&str]) -> Client {
    Client::new(config(addresses)).unwrap()
}

/// Sends one request against `steps`; answers what came of it and how often the server was asked.
async fn check(method: Method, steps: Vec<Step>, want: &str, asked: usize) {
    let stub = Stub::new(steps.clone()).await;
    let got = match client(&[&stub.address]).send(Request::new(method.clone(), "secret/a")).await {
        Ok(response) => response.status.as_u16().to_string(),
        Err(Error::Api(err)) => format!("error {}", err.status.as_u16()),
        Err(Error::Transport(err)) => format!("{:?}", err.kind),
        Err(other) => format!("{other}"),
    };
    assert_eq!((got.as_str(), stub.count()), (want, asked), "{method} against {steps:?}");
}

#[tokio::test]
async fn classes_of_failure() {
    let three = |step: Step| vec![step.clone(), step.clone(), step];
    let then_ok = |step: Step| vec![step, Step::ok("{}")];
    for method in [Method::GET, Method::PUT] {
        check(method.clone(), then_ok(Step::error(503, "sealed")), "200", 2).await;
        check(method.clone(), then_ok(Step::error(429, "slow down")), "200", 2).await;
        check(method.clone(), then_ok(Step::error(412, "not there yet")), "200", 2).await;
        check(method.clone(), three(Step::error(503, "sealed")), "error 503", 3).await;
        check(method.clone(), vec![Step::error(400, "bad")], "error 400", 1).await;
        check(method.clone(), vec![Step::error(403, "denied")], "error 403", 1).await;
        check(method, vec![Step::error(501, "never")], "error 501", 1).await;
    }
    check(Method::GET, then_ok(Step::error(500, "oops")), "200", 2).await;
    check(Method::GET, then_ok(Step::HangUp), "200", 2).await;
    // Whether these writes happened is not known, so they are not repeated.
    check(Method::PUT, then_ok(Step::error(500, "oops")), "error 500", 1).await;
    check(Method::PUT, then_ok(Step::error(502, "gone")), "error 502", 1).await;
    check(Method::PUT, then_ok(Step::HangUp), "Interrupted", 1).await;
    check(Method::DELETE, then_ok(Step::HangUp), "Interrupted", 1).await;
}

#[tokio::test]
async fn a_long_retry_after_is_handed_over() {
    let stub = Stub::new([Step::error(429, "slow down").with_header("retry-after", "3600")]).await;
    let err = client(&[&stub.address]).read("a").await.unwrap_err();
    let Error::Api(err) = err else { panic!("{err}") };
    assert_eq!((err.retry_after, stub.count()), (Some(Duration::from_secs(3600)), 1));
}

#[tokio::test]
async fn the_next_address_is_tried_at_once_and_kept() {
    let nobody = stub::nobody().await;
    let stub = Stub::new([]).await;
    let mut config = config(&[&nobody, &stub.address]);
    config.retry.retries = 0;
    let client = Client::new(config).unwrap();
    client.send(Request::put("a")).await.unwrap();
    client.send(Request::put("b")).await.unwrap();
    assert_eq!(stub.count(), 2);
    assert_eq!(client.address().unwrap().to_string(), stub.address);
}

#[tokio::test]
async fn a_sealed_server_sends_the_client_to_the_next() {
    let sealed = Stub::new([Step::error(503, "sealed")]).await;
    let open = Stub::new([]).await;
    client(&[&sealed.address, &open.address]).send(Request::put("a")).await.unwrap();
    assert_eq!((sealed.count(), open.count()), (1, 1));
}

#[tokio::test]
async fn nobody_listening_ends_after_the_retries() {
    let nobody = stub::nobody().await;
    let err = client(&[&nobody]).read("a").await.unwrap_err();
    let Error::Transport(err) = err else { panic!("{err}") };
    assert_eq!((err.kind, err.address.as_str()), (TransportKind::Connect, nobody.as_str()));
    assert!(err.to_string().contains("refused"), "{err}");
}

#[tokio::test]
async fn one_redirect_is_followed_with_method_body_and_token() {
    let active = Stub::new([Step::ok(r#"{"data":{"a":1}}"#)]).await;
    let to_active =
        Step::error(307, "").with_header("location", format!("{}/v1/secret/a?x=1", active.address));
    let standby = Stub::new([to_active]).await;
    client(&[&standby.address]).write("secret/a", &serde_json::json!({"k": "v"})).await.unwrap();
    let asked = &active.asked()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("PUT", "/v1/secret/a?x=1"));
    assert_eq!(asked.body, r#"{"k":"v"}"#);
    assert_eq!(asked.headers["x-vault-token"], "hvs.secret-token");
}

#[tokio::test]
async fn a_second_redirect_is_refused() {
    let loops = |at: &str| Step::error(307, "").with_header("location", at.to_owned());
    let stub = Stub::new([loops("/v1/b"), loops("/v1/c")]).await;
    let err = client(&[&stub.address]).read("a").await.unwrap_err();
    assert!(matches!(&err, Error::Redirect { reason, .. } if reason.contains("only one")), "{err}");
    assert_eq!(stub.count(), 2);
}

#[tokio::test]
async fn headers_carry_who_and_where() {
    let stub = Stub::new([]).await;
    let mut config = config(&[&stub.address]);
    config.namespace = Some("team/a".into());
    config.wrap_ttl = Some("60s".into());
    config.add_header("x-extra", "1").unwrap();
    let client = Client::new(config).unwrap();
    client.send(Request::patch("secret/data/a").json(&serde_json::json!({})).unwrap()).await.unwrap();
    client.send(Request::put("sys/unseal").anonymous()).await.unwrap();
    let asked = stub.asked();
    let seen = |index: usize, name: &str| asked[index].headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(seen(0, "x-vault-request"), Some("true"));
    assert_eq!(seen(0, "x-vault-namespace"), Some("team/a"));
    assert_eq!(seen(0, "x-vault-wrap-ttl"), Some("60s"));
    assert_eq!(seen(0, "x-extra"), Some("1"));
    assert_eq!(seen(0, "content-type"), Some("application/merge-patch+json"));
    assert_eq!(seen(1, "x-vault-token"), None);
}

#[tokio::test]
async fn a_404_that_says_something_is_an_answer() {
    let tombstone =
        r#"{"data":{"data":null,"metadata":{"version":4,"deletion_time":"2026-01-01T00:00:00Z"}}}"#;
    let gone = Step::Answer { status: 404, headers: vec![], body: tombstone.into() };
    let stub =
        Stub::new([gone, Step::Answer { status: 404, headers: vec![], body: r#"{"errors":[]}"#.into() }])
            .await;
    let client = client(&[&stub.address]);
    let found = client.kv2("secret").get("a").await.unwrap().unwrap();
    assert_eq!((found.data, found.metadata.version), (None, 4));
    assert!(client.kv2("secret").get("a").await.unwrap().is_none());
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let stub = Stub::new([Step::Silence]).await;
    let mut config = config(&[&stub.address]);
    config.timeout = Duration::from_millis(50);
    let err = Client::new(config).unwrap().send(Request::put("a")).await.unwrap_err();
    assert!(matches!(&err, Error::Transport(err) if err.kind == TransportKind::Timeout), "{err}");
    assert!(err.is_outcome_unknown());
}

#[tokio::test]
async fn answers_have_a_limit() {
    let stub = Stub::new([Step::ok(&format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(100)))]).await;
    let mut config = config(&[&stub.address]);
    config.response_bytes_max = 64;
    let err = Client::new(config).unwrap().read("a").await.unwrap_err();
    assert!(matches!(err, Error::TooLarge { limit: 64, .. }), "{err}");
}

#[tokio::test]
async fn errors_show_no_secret() {
    let page = Step::Answer { status: 502, headers: vec![], body: "<html>Bad Gateway</html>".into() };
    let not_json = Step::ok(r#"{"data": "hunter2"}"#);
    let stub = Stub::new([page, not_json]).await;
    let client = client(&[&stub.address]);
    let body = serde_json::json!({"password": "hunter2"});
    let first = client.write("secret/a", &body).await.unwrap_err();
    let second = client.write("secret/a", &body).await.unwrap_err();
    assert!(first.to_string().contains("Bad Gateway"), "{first}");
    for shown in [format!("{first} {first:?}"), format!("{second} {second:?}"), format!("{client:?}")] {
        assert!(!shown.contains("hunter2") && !shown.contains("hvs."), "{shown}");
    }
}

#[tokio::test]
async fn a_dry_run_sends_nothing() {
    let stub = Stub::new([]).await;
    let mut config = config(&[&stub.address]);
    config.dry_run = true;
    let err = Client::new(config).unwrap().list("secret/metadata").await.unwrap_err();
    let Error::DryRun(planned) = err else { panic!("{err}") };
    assert_eq!(planned.url, format!("{}/v1/secret/metadata?list=true", stub.address));
    assert!(planned.has_token && planned.is_list && planned.headers.get("x-vault-token").is_none());
    assert_eq!(stub.count(), 0);
}

/// Counts connections and sends them all to one server, as a simulated network would.
struct Detour(std::net::SocketAddr, AtomicUsize);

impl Connect for Detour {
    fn connect(&self, host: &str, port: u16) -> Connecting {
        assert_eq!((host, port), ("node-1.example", 8200));
        self.1.fetch_add(1, Ordering::Relaxed);
        let address = self.0;
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Box<dyn arca_client::Stream>)
        })
    }
}

#[tokio::test]
async fn the_connector_can_be_replaced() {
    let stub = Stub::new([]).await;
    let target = stub.address.trim_start_matches("http://").parse().unwrap();
    let detour = Arc::new(Detour(target, AtomicUsize::new(0)));
    let client = Client::with_connector(config(&["http://node-1.example:8200"]), detour.clone()).unwrap();
    for _ in 0..3 {
        client.send(Request::put("a")).await.unwrap();
    }
    assert_eq!((stub.count(), detour.1.load(Ordering::Relaxed)), (3, 1), "one connection carries all");
}

#[tokio::test]
async fn a_download_streams_to_its_end() {
    let body = "x".repeat(300_000);
    let stub = Stub::new([Step::error(503, "sealed"), Step::ok(&body)]).await;
    let mut out = Vec::new();
    let count = client(&[&stub.address]).sys().raft_snapshot(&mut out).await.unwrap();
    assert_eq!((count, out.len()), (300_000, 300_000));
}

#[tokio::test]
async fn a_file_is_sent_again_whole() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "snapshot").unwrap();
    let stub = Stub::new([Step::error(503, "sealed")]).await;
    let client = client(&[&stub.address]);
    client.sys().raft_restore(file.path(), arca_client::raft::Restore::Checked).await.unwrap();
    assert_eq!(
        stub.asked().iter().map(|asked| asked.body.as_str()).collect::<Vec<_>>(),
        ["snapshot", "snapshot"]
    );
}
