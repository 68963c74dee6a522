//! Joining, with whole nodes in this process: what callers without a token can bring about, and whom the cluster
//! takes in.

use arca_kernel::ports::ClusterPort as _;
use arca_raft_storage::{Member, MemberId, MemberKind, Replica as _};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::joiner::TARGETS_MAX;
use crate::testing::Rig;

const JOIN: &str = "sys/storage/raft/join";

fn raft(dir: &tempfile::TempDir, name: &str) -> String {
    format!("storage \"raft\" {{ path = {:?} node_id = {name:?} }}", dir.path().join(name))
}

/// Where nobody listens.
async fn closed_url() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

async fn join(rig: &Rig, body: Value) -> (u16, Value) {
    rig.ask(Method::POST, JOIN, "", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_asks_nobody_to_join() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(&raft(&dir, "node1"));
    rig.bring_up().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for retry in [false, true] {
        let (status, said) = join(&rig, json!({"leader_api_addr": url, "retry": retry})).await;
        assert_eq!((status, &said["joined"]), (200, &json!(true)));
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert!(!rig.node.joiner.is_searching());
    rig.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_background_task_with_a_bounded_number_of_targets() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(&raft(&dir, "node1"));
    let url = closed_url().await;
    for _ in 0..3 {
        let (status, said) = join(&rig, json!({"leader_api_addr": url, "retry": true})).await;
        assert_eq!((status, &said["joined"]), (200, &json!(true)));
    }
    assert_eq!(rig.node.joiner.targets(), 1);
    for number in 1..TARGETS_MAX {
        let url = format!("{url}/{number}");
        assert_eq!(join(&rig, json!({"leader_api_addr": url, "retry": true})).await.0, 200, "{number}");
    }
    assert_eq!(join(&rig, json!({"leader_api_addr": format!("{url}/x"), "retry": true})).await.0, 429);
    assert_eq!(rig.node.joiner.targets(), TARGETS_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_hears_nothing_of_what_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(&raft(&dir, "node1"));
    let mut heard = Vec::new();
    for body in [r#"{"errors": ["canary"]}"#, "canary", r#"{"data": {"nonce": "canary"}}"#] {
        for status in ["200 OK", "400 Bad Request", "503 Service Unavailable"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut sent = [0; 4096];
                let _ = stream.read(&mut sent).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            heard.push(join(&rig, json!({"leader_api_addr": url})).await);
            server.await.unwrap();
        }
    }
    heard.push(join(&rig, json!({"leader_api_addr": closed_url().await})).await);
    heard.push(join(&rig, json!({"leader_api_addr": "gopher://canary"})).await);
    for answer in &heard {
        assert_eq!(answer, &heard[0], "every failure looks the same");
        assert!(answer.0 == 400 && !answer.1.to_string().contains("canary"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_is_served_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let rig = std::sync::Arc::new(Rig::open(&raft(&dir, "node1")));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let first = {
        let (rig, url) = (std::sync::Arc::clone(&rig), url.clone());
        tokio::spawn(async move { join(&rig, json!({"leader_api_addr": url})).await })
    };
    let (held, _) = silent.accept().await.unwrap();
    assert_eq!(join(&rig, json!({"leader_api_addr": url})).await.0, 429);
    drop(held);
    assert_eq!(first.await.unwrap().0, 400);
}

/// Replaces the one share by another one; that.
async fn rekey(rig: &Rig, share: &Value) -> Value {
    let plan = json!({"secret_shares": 1, "secret_threshold": 1});
    let (status, begun) = rig.ask(Method::PUT, "sys/rekey/init", "", &plan).await;
    assert_eq!(status, 200, "{begun}");
    let offered = json!({"key": share["key"], "nonce": begun["nonce"]});
    let (status, done) = rig.ask(Method::PUT, "sys/rekey/update", "", &offered).await;
    assert_eq!(status, 200, "{done}");
    json!({"key": done["keys"][0]})
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_that_were_replaced_let_no_node_in() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::open(&raft(&dir, "node1"));
    let (_, share) = first.bring_up_with_share().await;
    // Who has the shares of today and what any node answers today has this.
    let old_root = first.node.unsealed.load_full().unwrap().keys.root();
    let old_nonce = first.node.join_challenge().unwrap()["nonce"].clone();
    let new_share = rekey(&first, &share).await;
    let root = first.node.unsealed.load_full().unwrap().keys.root();
    assert!(!root.matches(&old_root));
    let new_nonce = first.node.join_challenge().unwrap()["nonce"].clone();
    let key = arca_rpc::NodeKey::generate().unwrap();
    for (nonce, want) in [(new_nonce, "proof_wrong"), (old_nonce, "challenge_unknown")] {
        let mut answer = crate::join::Answer {
            nonce: nonce.as_str().unwrap().to_owned(),
            server_id: "node2".to_owned(),
            cluster_addr: "127.0.0.1:1".to_owned(),
            api_addr: "http://127.0.0.1:2".to_owned(),
            signing_request: hex::encode(key.signing_request().unwrap()),
            non_voter: true,
            proof: String::new(),
        };
        answer.proof = answer.proof(&old_root).to_hex().to_string();
        let reply = first.node.join_answer(serde_json::to_value(answer).unwrap()).await.unwrap();
        assert_eq!(reply, json!({"refused": want}));
    }
    assert_eq!(members(&first).len(), 1);
    // The new one does, and unseals.
    let second = Rig::open(&raft(&dir, "node2"));
    let (status, said) = join_and_unseal(&second, &first.listen().await, &new_share, true).await;
    assert_eq!((status, &said["sealed"]), (200, &json!(false)), "{said}");
    first.node.seal().await;
    assert_eq!(first.ask(Method::PUT, "sys/unseal", "", &share).await.0, 400);
    assert_eq!(first.ask(Method::PUT, "sys/unseal", "", &new_share).await.0, 200);
    for rig in [&second, &first] {
        rig.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_a_rekey_brings_its_shares_back_and_locks_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(&raft(&dir, "node1"));
    let (token, share) = rig.bring_up_with_share().await;
    let cluster = std::sync::Arc::clone(&rig.node.unsealed.load_full().unwrap().cluster);
    let backup = cluster.snapshot().await.unwrap();
    let new_share = rekey(&rig, &share).await;
    assert_eq!(rig.ask(Method::PUT, "sys/rotate", &token, &Value::Null).await.0, 204);
    cluster.restore(backup, true).await.unwrap();
    drop(cluster);
    // Unsealed as it was, it goes on; and joins and rotations are by the keys of then.
    assert_eq!(rig.ask(Method::PUT, "sys/rotate", &token, &Value::Null).await.0, 204);
    assert!(!rig.node.seal_status().sealed);
    rig.node.seal().await;
    assert_eq!(rig.ask(Method::PUT, "sys/unseal", "", &new_share).await.0, 400);
    let (status, said) = rig.ask(Method::PUT, "sys/unseal", "", &share).await;
    assert_eq!((status, &said["sealed"]), (200, &json!(false)), "{said}");
    rig.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_name_is_bounded_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(&raft(&dir, "node1"));
    rig.bring_up().await;
    let answer = |name: &str| {
        json!({
            "nonce": "", "server_id": name, "cluster_addr": "a", "api_addr": "b", "signing_request": "",
            "non_voter": false, "proof": "",
        })
    };
    let refused = rig.node.join_answer(answer(&"n".repeat(257))).await.unwrap_err().to_string();
    assert_eq!(refused, "server_id must be of 1 to 256 bytes");
    let unknown = rig.node.join_answer(answer(&"n".repeat(256))).await.unwrap();
    assert_eq!(unknown, json!({"refused": "challenge_unknown"}));
    rig.node.shutdown().await;
}

/// Joins `rig` through `url` and unseals it; the answer to the last share.
async fn join_and_unseal(rig: &Rig, url: &str, share: &Value, is_non_voter: bool) -> (u16, Value) {
    let body = json!({"leader_api_addr": url, "non_voter": is_non_voter});
    let (status, said) = join(rig, body).await;
    assert_eq!(status, 200, "{said}");
    rig.ask(Method::PUT, "sys/unseal", "", share).await
}

fn members(rig: &Rig) -> Vec<(String, MemberKind)> {
    let unsealed = rig.node.unsealed.load_full().unwrap();
    unsealed.replica.membership().members.into_values().map(|(member, kind)| (member.name, kind)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_while_its_member_lives_and_free_once_it_was_never_there() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::open(&raft(&dir, "node1"));
    let (_, share) = first.bring_up_with_share().await;
    let url = first.listen().await;

    // A join that was cut off left a member behind that answers nobody.
    let replica = std::sync::Arc::clone(&first.node.unsealed.load_full().unwrap().replica);
    let ghost = Member {
        id: MemberId(replica.reserve_member_id().await.unwrap().0),
        name: "node2".to_owned(),
        cluster_addr: "127.0.0.1:1".to_owned(),
        api_addr: String::new(),
    };
    let ghost_id = ghost.id;
    replica.add_learner(ghost).await.unwrap();
    let second = Rig::open(&raft(&dir, "node2"));
    let (status, said) = join_and_unseal(&second, &url, &share, true).await;
    assert_eq!((status, &said["sealed"]), (200, &json!(false)), "{said}");
    assert!(!replica.membership().members.contains_key(&ghost_id));

    // Now the name has an owner that lives, although it never votes.
    let other = tempfile::tempdir().unwrap();
    let third = Rig::open(&raft(&other, "node2"));
    let (status, said) = join_and_unseal(&third, &url, &share, false).await;
    assert_eq!(status, 400, "{said}");
    assert!(said["errors"][0].as_str().unwrap().contains("node_id \"node2\" already belongs to a member"));
    assert_eq!(
        members(&first),
        [("node1".to_owned(), MemberKind::Voter), ("node2".to_owned(), MemberKind::Learner)]
    );
    for rig in [&third, &second, &first] {
        rig.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_configured_as_a_non_voter_never_votes() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::open(&raft(&dir, "node1"));
    let (_, share) = first.bring_up_with_share().await;
    let url = first.listen().await;
    let mut joined = Vec::new();
    for (name, setting, stays) in [("node2", "\"true\"", true), ("node3", "false", false)] {
        let path = dir.path().join(name);
        let rig = Rig::open(&format!(
            "storage \"raft\" {{\n path = {path:?}\n node_id = {name:?}\n retry_join_as_non_voter = {setting}\n \
             retry_join {{ leader_api_addr = {url:?} }}\n}}"
        ));
        rig.node.join_as_configured().unwrap();
        while !rig.node.seal_status().initialized {
            tokio::task::yield_now().await;
        }
        let (status, said) = rig.ask(Method::PUT, "sys/unseal", "", &share).await;
        assert_eq!((status, &said["sealed"]), (200, &json!(false)), "{said}");
        let leader = first.node.unsealed.load_full().unwrap();
        let members = leader.replica.membership().members;
        let (id, _) = members.iter().find(|(_, (member, _))| member.name == name).unwrap();
        let found = crate::join::stays_learner(&leader.kernel.read_tx(), *id).unwrap();
        assert_eq!(found, stays, "{name}");
        if !stays {
            // Once it has caught up it votes, by itself.
            while !members_named(&first, name, MemberKind::Voter) {
                tokio::task::yield_now().await;
            }
        }
        joined.push(rig);
    }
    assert!(members_named(&first, "node2", MemberKind::Learner));
}

fn members_named(rig: &Rig, name: &str, kind: MemberKind) -> bool {
    members(rig).contains(&(name.to_owned(), kind))
}
