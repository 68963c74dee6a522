//! `arca server`: what a configuration file may say, what the operator is told when it says something else, and the
//! signals a running server obeys.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::fs;
use std::path::Path;
use std::time::Duration;

use arca_client::{Address, Client, Config, Token};
use arca_harness::certificates::Certificates;
use arca_harness::load::Writer;
use arca_harness::raw::Connection;
use arca_harness::{Cluster, ClusterOptions, Node, Signal, free_port};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_arca");
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a configuration of its own. Killed when dropped.
struct Server(Node);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Server {
    /// Starts it with what `config` makes of its port, in a file called `name`.
    fn start(dir: &Path, name: &str, config: impl FnOnce(&Node) -> String) -> Self {
        let mut node = Node::new("server", dir, false).unwrap();
        node.config = dir.join(name);
        fs::write(&node.config, config(&node)).unwrap();
        let mut server = Self(node);
        server.0.launch(Path::new(BINARY)).unwrap();
        server
    }

    async fn ended(&mut self) -> Option<i32> {
        self.0.ended(PATIENCE).await.unwrap().code()
    }

    /// The status of the seal at `port`, once somebody answers there.
    async fn seal_status(&self, port: u16) -> Value {
        let ask =
            async || Connection::open(port).await.ok()?.call("GET", "/v1/sys/seal-status", "", "").await.ok();
        let waiting = async {
            loop {
                if let Some(answer) = ask().await {
                    break answer.json();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answered = tokio::time::timeout(PATIENCE, waiting).await;
        answered.unwrap_or_else(|_| panic!("nobody answers: {}", self.0.log_text()))
    }
}

fn listener(node: &Node) -> String {
    format!("listener \"tcp\" {{\n  address = \"127.0.0.1:{}\"\n  tls_disable = true\n}}\n", node.port)
}

/// A file that is refused, and with which words. `PORT` and `DIR` are filled in.
async fn check(text: &str, want: &str) {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let mut server = Server::start(dir.path(), "arca.hcl", |node| {
        text.replace("PORT", &node.port.to_string()).replace("DIR", &place)
    });
    let code = server.ended().await;
    let log = server.0.log_text();
    let want = want.replace("DIR", &place);
    assert!(code == Some(1) && log.contains(&want), "wanted {want:?} and code 1, got {code:?} and {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_named_with_file_and_line() {
    const GOOD: &str =
        "storage \"inmem\" {}\nlistener \"tcp\" {\n  address = \"127.0.0.1:PORT\"\n  tls_disable = true\n}\n";
    check("storage \"inmem\" {\nlistener", "DIR/arca.hcl:2: ").await;
    check("storage \"inmem\" {}\nlistener \"tcp\" {\n  address = \"127.0.0.1\n}\n", "DIR/arca.hcl:3: ").await;
    check("{\"storage\": {\"inmem\": {}},\n\"listener\": }", "DIR/arca.hcl:2: ").await;
    check("", "DIR/arca.hcl:1: a storage block is missing").await;
    check(&format!("{GOOD}max_lease_ttl = \"soon\"\n"), "DIR/arca.hcl:6: max_lease_ttl: expected a duration")
        .await;
    check(
        &format!("{GOOD}default_lease_ttl = \"2h\"\nmax_lease_ttl = \"1h\"\n"),
        "DIR/arca.hcl:6: default_lease_ttl: expected",
    )
    .await;
    check(&format!("{GOOD}log_level = \"loud\"\n"), "DIR/arca.hcl:6: log_level: expected trace, debug").await;
    check(&format!("{GOOD}seal \"transit\" {{}}\n"), "DIR/arca.hcl:6: seal \"transit\": expected").await;
    check(
        &GOOD.replace("true", "\"perhaps\""),
        "DIR/arca.hcl:4: listener \"tcp\" tls_disable: expected true or false",
    )
    .await;
    check(&GOOD.replace("inmem", "consul"), "DIR/arca.hcl:1: storage \"consul\": expected \"raft\"").await;
    check(&GOOD.replace("inmem", "raft"), "DIR/arca.hcl:1: storage \"raft\": expected path").await;
    check(
        &GOOD.replace("  tls_disable = true\n", ""),
        "DIR/arca.hcl:2: listener \"tcp\": expected tls_cert_file",
    )
    .await;
    check(&GOOD.replace("\"tcp\"", "\"unix\""), "DIR/arca.hcl:2: listener \"unix\": expected \"tcp\"").await;
    let tls = GOOD
        .replace("tls_disable = true", "tls_cert_file = \"DIR/none.pem\"\n  tls_key_file = \"DIR/none.key\"");
    check(&tls, "DIR/none.pem").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    check(&GOOD.replace("PORT", &port), &format!("cannot bind 127.0.0.1:{port}")).await;
    check(
        &GOOD.replace("storage \"inmem\" {}", "storage \"file\" { path = \"DIR/arca.hcl\" }"),
        "DIR/arca.hcl",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_and_a_missing_flag_are_named() {
    for (args, want, code) in [
        (&["-config=/no/such/arca.hcl"] as &[&str], "/no/such/arca.hcl", 1),
        (&[], "-config is missing", 1),
        (&["-config=/", "-no-such-flag"], "no-such-flag", 2),
    ] {
        let run = tokio::process::Command::new(BINARY).arg("server").args(args).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(code) && told.contains(want),
            "{args:?}: {}: {told}",
            output.status
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_setting_is_warned_about_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "arca.hcl", |node| {
        let place = dir.path().display();
        format!(
            "storage \"inmem\" {{\n  sped = 9\n}}\n{}nonsense = 1\npid_file = \"{place}/pid\"\n",
            listener(node)
        )
    });
    assert_eq!(server.seal_status(server.0.port).await["storage_type"], "inmem");
    let log = server.0.log_text();
    for want in [
        "arca.hcl:2: unknown or unsupported setting storage \"inmem\" \"sped\"",
        "arca.hcl:8: unknown or unsupported setting \"nonsense\"",
    ] {
        assert!(log.lines().any(|line| line.contains(want) && line.contains("WARN")), "{want}: {log}");
    }
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    assert_eq!(pid.trim().parse(), Ok(server.0.pid().unwrap()));
    server.0.signal(Signal::TERM).unwrap();
    assert_eq!(server.ended().await, Some(0));
    assert!(!dir.path().join("pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_several_listeners() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path()).unwrap();
    let (plain, tls) = (free_port().unwrap(), free_port().unwrap());
    let log_file = dir.path().join("arca.json.log");
    let server = Server::start(dir.path(), "arca.json", |node| {
        let off = |port: u16| json!({"tcp": {"address": format!("127.0.0.1:{port}"), "tls_disable": 1}});
        let on = json!({"tcp": {
            "address": format!("127.0.0.1:{tls}"), "tls_cert_file": certificates.server, "tls_key_file": certificates.key,
        }});
        json!({
            "storage": {"inmem": {}}, "listener": [off(node.port), off(plain), on],
            "log_format": "json", "log_file": log_file, "disable_mlock": true,
        })
        .to_string()
    });
    for port in [server.0.port, plain] {
        assert_eq!(server.seal_status(port).await["initialized"], false);
    }
    let client = tls_client(tls, &certificates.ca, None);
    assert!(!client.sys().seal_status().await.unwrap().initialized);
    let log = fs::read_to_string(log_file).unwrap();
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    assert!(log.contains("server started") && server.0.log_text().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn file_storage_outlives_the_process_and_memory_does_not() {
    for (storage, is_kept) in [("file", true), ("inmem", false)] {
        let dir = tempfile::tempdir().unwrap();
        let options =
            ClusterOptions { nodes: 1, is_tls: false, storage, ..ClusterOptions::new(BINARY, dir.path()) };
        let mut cluster = Cluster::up(options).await.unwrap();
        let client = cluster.client(0).unwrap();
        client.write("secret/data/x", &json!({"data": {"a": "b"}})).await.unwrap();
        assert_eq!(client.sys().seal_status().await.unwrap().storage_type, storage);
        assert!(cluster.terminate(0).await.unwrap().success());
        cluster.launch(0).unwrap();
        cluster.wait_until_listening(0).await.unwrap();
        assert_eq!(client.sys().seal_status().await.unwrap().initialized, is_kept, "{storage}");
        if is_kept {
            cluster.unseal(0).await.unwrap();
            cluster.active().await.unwrap();
            let found = client.read("secret/data/x").await.unwrap().unwrap();
            assert_eq!(found.field("data").unwrap()["a"], "b");
        }
    }
}

fn tls_client(port: u16, ca: &Path, token: Option<&str>) -> Client {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse::<Address>().unwrap());
    config.tls.ca_cert = Some(ca.to_owned());
    config.token = token.map(Token::new);
    config.retry.retries = 0;
    Client::new(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_certificates_and_reopens_the_audit_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = ClusterOptions { nodes: 1, storage: "inmem", ..ClusterOptions::new(BINARY, dir.path()) };
    let cluster = Cluster::up(options).await.unwrap();
    let port = cluster.nodes[0].port;
    let (audit, moved) = (dir.path().join("audit.log"), dir.path().join("audit.log.1"));
    let device = json!({"type": "file", "options": {"file_path": audit}});
    cluster.client(0).unwrap().write("sys/audit/file", &device).await.unwrap();

    let new_dir = tempfile::tempdir().unwrap();
    let new = Certificates::make(new_dir.path()).unwrap();
    let by_new_ca = || tls_client(port, &new.ca, Some(&cluster.root_token));
    assert!(by_new_ca().sys().seal_status().await.is_err(), "the new CA is trusted too early");
    // A key that does not go with its certificate changes nothing.
    fs::copy(&new.key, &cluster.certificates().key).unwrap();
    cluster.signal(0, Signal::HUP).unwrap();
    let refused = || async {
        cluster.nodes[0].log_text().contains("the old certificate and client CAs stay in use").then_some(())
    };
    cluster.wait_for("the bad pair to be refused", PATIENCE, refused).await.unwrap();
    cluster.client(0).unwrap().sys().seal_status().await.unwrap();

    cluster.client(0).unwrap().write("secret/data/before", &json!({"data": {}})).await.unwrap();
    fs::copy(&new.server, &cluster.certificates().server).unwrap();
    fs::rename(&audit, &moved).unwrap();
    assert!(fs::File::open(&moved).unwrap().try_lock().is_err(), "the audit file is not locked");
    cluster.signal(0, Signal::HUP).unwrap();
    let trusted = || async { by_new_ca().sys().seal_status().await.ok().map(drop) };
    cluster.wait_for("the new certificate", PATIENCE, trusted).await.unwrap();
    assert!(cluster.client(0).unwrap().sys().seal_status().await.is_err(), "the old CA is still good");
    // The server locks the file it writes to.
    let let_go = || async { fs::File::open(&moved).unwrap().try_lock().ok() };
    cluster.wait_for("the moved file to be let go", PATIENCE, let_go).await.unwrap();
    by_new_ca().write("secret/data/after", &json!({"data": {}})).await.unwrap();
    assert!(fs::read_to_string(&audit).unwrap().contains("secret/data/after"));
    let old = fs::read_to_string(&moved).unwrap();
    assert!(old.contains("secret/data/before") && !old.contains("secret/data/after"), "{old}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_leadership_over_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::up(ClusterOptions::new(BINARY, dir.path())).await.unwrap();
    let active = cluster.active().await.unwrap();
    let standbys = cluster.standbys().await.unwrap();
    let clients = || standbys.iter().map(|at| cluster.client(*at).unwrap()).collect();
    let writer = Writer::start("steady", clients());
    writer.progress(30, PATIENCE).await.unwrap();
    let status = cluster.terminate(active).await.unwrap();
    let log = cluster.nodes[active].log_text();
    assert!(
        status.success() && log.contains("leadership handed over") && log.contains("stopped"),
        "{status}: {log}"
    );
    assert_ne!(cluster.active().await.unwrap(), active);
    writer.progress(30, PATIENCE).await.unwrap();
    let report = writer.finish(&cluster.client(standbys[0]).unwrap()).await.unwrap();
    println!("{report:?}");
    // Standbys wait for the new active node, so that nobody sees an error.
    assert_eq!(report.failed, 0, "{report:?}");
    // SIGINT does the same, also to a node that is sealed.
    cluster.launch(active).unwrap();
    cluster.wait_until_listening(active).await.unwrap();
    cluster.signal(active, Signal::INT).unwrap();
    assert!(cluster.ended(active, PATIENCE).await.unwrap().success());
}
