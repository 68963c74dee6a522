//! Whoever steals the disks of a cluster learns no path, no name, no value, no policy and no token from them, in any
//! file, plain or encoded; nor do values, tokens and unseal shares ever get into the server's log.
//!
//! Everything planted holds one of two words, so that two words are all that has to be looked for.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use arca_client::token::NewToken;
use arca_client::{Client, Token};
use arca_harness::raw::Connection;
use arca_harness::{Cluster, ClusterOptions};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// In every path segment, key and name.
const NAME: &str = "quixoticname";
/// In every value.
const VALUE: &str = "quixoticvalue";

/// One thing to look for, in every form it could have.
struct Wanted {
    what: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

/// `bytes` as they stand in the base64 of a longer text, wherever in it they are.
fn base64_forms(bytes: &[u8], encode: impl Fn(&[u8]) -> String) -> Vec<Vec<u8>> {
    let form = |before: usize| {
        let text = encode(&[&vec![0; before], bytes].concat());
        // Characters that hold bits of `bytes` alone.
        let (first, end) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
        text.as_bytes()[first..end].to_vec()
    };
    (0..3).map(form).collect()
}

impl Wanted {
    fn new(what: impl Into<String>, bytes: &[u8]) -> Self {
        let mut forms = vec![
            ("plain", bytes.to_vec()),
            ("hex", hex::encode(bytes).into_bytes()),
            ("upper-case hex", hex::encode_upper(bytes).into_bytes()),
        ];
        forms.extend(
            base64_forms(bytes, |bytes| STANDARD_NO_PAD.encode(bytes))
                .into_iter()
                .map(|form| ("base64", form)),
        );
        forms.extend(
            base64_forms(bytes, |bytes| URL_SAFE_NO_PAD.encode(bytes))
                .into_iter()
                .map(|form| ("base64url", form)),
        );
        Self { what: what.into(), forms }
    }

    fn text(what: impl Into<String>, text: &str) -> Self {
        Self::new(what, text.as_bytes())
    }

    /// The form in which it is found in `bytes`, and where.
    fn found_in(&self, bytes: &[u8]) -> Option<(&'static str, usize)> {
        self.forms.iter().find_map(|(form, wanted)| Some((*form, position(bytes, wanted)?)))
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// Reads every byte of every file below `dir`, and every name.
fn assert_holds_none(dir: &Path, wanted: &[Wanted]) {
    let mut files = Vec::new();
    files_below(dir, &mut files);
    for path in files {
        let inside = path.strip_prefix(dir).unwrap().display().to_string();
        let bytes = [inside.as_bytes(), b"\n", &fs::read(&path).unwrap()].concat();
        for wanted in wanted {
            if let Some((form, at)) = wanted.found_in(&bytes) {
                panic!("{} holds {} ({form}) at byte {at}", path.display(), wanted.what);
            }
        }
    }
}

/// What was planted, for looking for it.
struct Planted {
    /// Names and values.
    words: Vec<Wanted>,
    /// Tokens and shares.
    keys: Vec<Wanted>,
}

/// Mounts, secrets and policies.
async fn plant_secrets(client: &Client) {
    for (mount, version) in [("one", "1"), ("two", "2")] {
        let body = json!({
            "type": "kv", "options": {"version": version}, "description": format!("{VALUE} of the mount"),
        });
        client.write(&format!("sys/mounts/{NAME}-{mount}"), &body).await.unwrap();
    }
    let deep = format!("{NAME}-a/{NAME}-b/{NAME}-c");
    let secret = json!({ format!("{NAME}-key"): format!("{VALUE} in version 1") });
    client.kv1(&format!("{NAME}-one")).put(&deep, &secret).await.unwrap();
    let two = client.kv2(&format!("{NAME}-two"));
    for number in 0..3 {
        let secret =
            json!({ format!("{NAME}-key"): {"inner": [format!("{VALUE} {number}"), VALUE.repeat(500)]} });
        two.put(&deep, &secret).await.unwrap();
    }
    two.put_metadata(&deep, &json!({"custom_metadata": {format!("{NAME}-custom"): VALUE}})).await.unwrap();
    two.put(&format!("{NAME}-deleted"), &secret).await.unwrap();
    two.delete_metadata(&format!("{NAME}-deleted")).await.unwrap();
    client.write(&format!("cubbyhole/{NAME}"), &secret).await.unwrap();
    let policy = format!("# {VALUE}\npath \"{NAME}-two/data/+\" {{ capabilities = [\"read\", \"list\"] }}\n");
    client.sys().write_policy(&format!("{NAME}-policy"), &policy).await.unwrap();
    let header = format!("sys/config/auditing/request-headers/x-{NAME}");
    client.write(&header, &json!({"hmac": true})).await.unwrap();
    client
        .write("sys/config/cors", &json!({"allowed_origins": [format!("https://{NAME}.example")]}))
        .await
        .unwrap();
}

/// A token role, and tokens of every kind; answers the tokens.
async fn plant_tokens(client: &Client) -> Vec<(&'static str, Token)> {
    let role = format!("auth/token/roles/{NAME}-role");
    let body =
        json!({"allowed_policies": [format!("{NAME}-policy")], "path_suffix": format!("{NAME}suffix")});
    client.write(&role, &body).await.unwrap();
    let new = |kind: &str| NewToken {
        policies: vec![format!("{NAME}-policy")],
        meta: BTreeMap::from([(format!("{NAME}-meta"), format!("{NAME} of the metadata"))]),
        display_name: format!("{NAME}-display"),
        ttl: "1h".to_owned(),
        kind: kind.to_owned(),
        ..NewToken::default()
    };
    let mut tokens = Vec::new();
    for (what, role, kind) in [
        ("a service token", None, "service"),
        ("a token of a role", Some(format!("{NAME}-role")), "service"),
        ("a batch token", None, "batch"),
    ] {
        let made = client.tokens().create(role.as_deref(), &new(kind)).await.unwrap();
        tokens.push((what, made.auth.unwrap().client_token));
    }
    let wrapping = client.with_wrap_ttl(Some("1h".to_owned()));
    let wrapped =
        wrapping.write("sys/wrapping/wrap", &json!({ format!("{NAME}-wrapped"): VALUE })).await.unwrap();
    tokens.push(("a wrapping token", wrapped.unwrap().wrap_info.unwrap().token));
    tokens
}

/// Requests that fail, each with something in it that must not be repeated in the log.
async fn provoke(cluster: &Cluster, port: u16) {
    let root = &cluster.root_token;
    let mut connection = Connection::open(port).await.unwrap();
    let broken = format!("{{\"{NAME}\": \"{VALUE}");
    let not_a_policy =
        json!({"policy": format!("path \"{VALUE}\" {{ capabilities = [\"{VALUE}\"] }}")}).to_string();
    let wrong_type = json!({"ttl": VALUE, "policies": {VALUE: VALUE}}).to_string();
    for (method, path, token, body) in [
        ("POST", format!("/v1/{NAME}-one/x"), root.as_str(), broken.as_str()),
        ("GET", format!("/v1/{NAME}-one/x?{VALUE}=%zz"), root, ""),
        ("GET", format!("/v1/{NAME}-one/x"), VALUE, ""),
        ("GET", format!("/v1/no-such-mount/{NAME}"), root, ""),
        ("POST", format!("/v1/sys/policies/acl/{NAME}-bad"), root, &not_a_policy),
        ("POST", "/v1/auth/token/create".to_owned(), root, &wrong_type),
        ("POST", format!("/v1/{NAME}-two/data/x"), root, &wrong_type),
        ("POST", "/v1/sys/unseal".to_owned(), "", &json!({"key": VALUE}).to_string()),
        ("POST", "/v1/sys/wrapping/unwrap".to_owned(), VALUE, ""),
    ] {
        let answer = connection.call(method, &path, token, body).await.unwrap();
        // Unsealing a node that is unsealed says how it is; everything else is refused.
        assert!(answer.status >= 400 || path.ends_with("unseal"), "{method} {path}: {}", answer.status);
    }
}

async fn plant(cluster: &Cluster) -> Planted {
    let client = cluster.client(cluster.active().await.unwrap()).unwrap();
    plant_secrets(&client).await;
    client.sys().rotate().await.unwrap();
    let tokens = plant_tokens(&client).await;
    for node in &cluster.nodes {
        provoke(cluster, node.port).await;
    }
    let mut keys = vec![Wanted::text("the root token", &cluster.root_token)];
    // Exposed to be looked for.
    keys.extend(tokens.iter().map(|(what, token)| Wanted::text(*what, token.expose())));
    for (number, share) in cluster.shares.iter().enumerate() {
        keys.push(Wanted::text(format!("share {number} as given out"), share));
        keys.push(Wanted::new(format!("share {number}"), &STANDARD.decode(share).unwrap()));
    }
    Planted {
        words: vec![Wanted::text("a planted name", NAME), Wanted::text("a planted value", VALUE)],
        keys,
    }
}

/// A backup is compressed, and otherwise as sealed as the disk.
async fn assert_backup_holds_none(client: &Client, planted: &Planted) {
    let (mut backup, mut bytes) = (Vec::new(), Vec::new());
    client.sys().raft_snapshot(&mut backup).await.unwrap();
    flate2::read::GzDecoder::new(&backup[..]).read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() > 10_000, "a backup of {} bytes", bytes.len());
    for wanted in planted.words.iter().chain(&planted.keys) {
        assert!(wanted.found_in(&bytes).is_none(), "the backup holds {}", wanted.what);
    }
}

#[track_caller]
fn check(form: &str, text: &str) {
    let wanted = Wanted::text("it", VALUE);
    let found = wanted.found_in(text.as_bytes()).map(|(form, _)| form);
    assert_eq!(found, Some(form).filter(|form| !form.is_empty()), "{text}");
}

#[test]
fn every_form_is_found() {
    for before in ["", "x", "xy", "xyz"] {
        let text = format!("{before}{VALUE}~~?>");
        check("plain", &format!("..{text}.."));
        check("hex", &hex::encode(&text));
        check("upper-case hex", &hex::encode_upper(&text));
        check("base64", &STANDARD.encode(&text));
    }
    check("", &VALUE[1..]);
    // The two alphabets differ in two characters only: one that needs them.
    let bytes = [0xfb, 0xef, 0xbe, 0xff, 0xff, 0xfe, 0xfb];
    let found = Wanted::new("it", &bytes).found_in(URL_SAFE_NO_PAD.encode(bytes).as_bytes());
    assert_eq!(found, Some(("base64url", 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn stolen_disks_and_logs_tell_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.log");
    let options = ClusterOptions {
        is_tls: false,
        extra_config: "log_level = \"trace\"\n".to_owned(),
        ..ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path())
    };
    let mut cluster = Cluster::up(options).await.unwrap();
    let client = cluster.client(0).unwrap();
    let device = json!({"type": "file", "description": VALUE, "options": {"file_path": audit}});
    client.write(&format!("sys/audit/{NAME}-device"), &device).await.unwrap();
    let planted = plant(&cluster).await;
    assert_backup_holds_none(&client, &planted).await;

    // One node stops in order, and so has tables; the others are cut off, and have a log alone.
    let active = cluster.active().await.unwrap();
    assert!(cluster.terminate(active).await.unwrap().success());
    for at in (0..cluster.nodes.len()).filter(|at| *at != active) {
        cluster.kill(at).unwrap();
    }
    let mut files = Vec::new();
    for node in &cluster.nodes {
        assert_holds_none(&node.data, &planted.words);
        assert_holds_none(&node.data, &planted.keys);
        files_below(&node.data, &mut files);
        // Whatever runs into the log: shares and tokens go through it, and so do values.
        let log = node.log_text().into_bytes();
        for wanted in planted.words.iter().filter(|wanted| wanted.what.contains("value")).chain(&planted.keys)
        {
            let found = wanted.found_in(&log);
            assert!(found.is_none(), "{} holds {} {found:?}", node.log.display(), wanted.what);
        }
        // What is not sealed is found, so that the search itself is known to work.
        let record = fs::read(node.data.join("node.json")).unwrap();
        assert!(Wanted::text("the node's name", &node.name).found_in(&record).is_some());
    }
    for (kind, least) in [("seg", 3), ("sst", 1), ("json", 3)] {
        let found =
            files.iter().filter(|path| path.extension().is_some_and(|extension| extension == kind)).count();
        assert!(found >= least, "{found} files of kind {kind}: {files:?}");
    }
    // The audit file names paths, as it must, and hashes the rest.
    let lines = fs::read_to_string(&audit).unwrap();
    assert!(lines.contains(NAME) && lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    for wanted in &planted.keys {
        assert!(wanted.found_in(lines.as_bytes()).is_none(), "the audit file holds {}", wanted.what);
    }
}
