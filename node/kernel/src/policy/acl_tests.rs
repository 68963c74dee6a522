//! Decisions by table, against recorded ones, and by property against the slow matcher.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::policy::matching::tests::{path_text, pattern_text, slow_best};
use crate::policy::parse::parse;
use crate::policy::template::tests::alice;

const ROOT_SCOPE: AclScope<'static> = AclScope { namespace_id: "root", namespace_path: "" };

fn compile(texts: &[&str], identity: Option<&Identity>) -> Acl {
    let policies: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| Arc::new(parse(&format!("p{at}"), text).unwrap()))
        .collect();
    Acl::compile(ROOT_SCOPE, &policies, identity, UnixMillis(0))
}

fn decide(acl: &Acl, operation: Operation, path: &str, data: &Value) -> AclDecision {
    acl.check(AclRequest { operation, path, data: data.as_object().unwrap(), fields: &[], wrap_ttl: None })
}

#[track_caller]
fn check(text: &str, operation: Operation, path: &str, want: bool) {
    let got = decide(&compile(&[text], None), operation, path, &json!({})).is_allowed;
    assert_eq!(got, want, "{operation:?} {path:?} under {text}");
}

#[test]
fn an_exact_path_beats_every_pattern() {
    let text = r#"path "a/b" { capabilities = ["read"] } path "a/*" { policy = "deny" } path "+/b" { policy = "deny" }"#;
    check(text, Operation::Read, "a/b", true);
    check(text, Operation::Read, "a/c", false);
    check(text, Operation::Update, "a/b", false);
}

#[test]
fn the_same_pattern_is_united_and_deny_wins() {
    let acl = compile(
        &[r#"path "a" { capabilities = ["read"] }"#, r#"path "a" { capabilities = ["update", "sudo"] }"#],
        None,
    );
    assert_eq!(acl.capabilities("a"), ["read", "sudo", "update"]);
    let decision = decide(&acl, Operation::Update, "a", &json!({}));
    assert!(decision.is_allowed && decision.has_sudo);
    assert_eq!(decision.granting_policies().map(|policy| &*policy.name).collect::<Vec<_>>(), ["p1"]);
    let acl = compile(&[r#"path "a" { capabilities = ["read"] }"#, r#"path "a" { policy = "deny" }"#], None);
    assert_eq!(acl.capabilities("a"), ["deny"]);
}

#[test]
fn only_the_pattern_of_highest_priority_counts() {
    check(
        r#"path "a/*" { policy = "write" } path "a/b*" { capabilities = ["list"] }"#,
        Operation::Read,
        "a/bc",
        false,
    );
}

#[test]
fn listing_a_folder_finds_its_path() {
    for text in [r#"path "m/r" { capabilities = ["list"] }"#, r#"path "m/+" { capabilities = ["list"] }"#] {
        check(text, Operation::List, "m/r/", true);
        check(text, Operation::Scan, "m/r/", false);
        check(text, Operation::List, "m/r/s/", false);
    }
    check(r#"path "m/r" { capabilities = ["read"] }"#, Operation::Read, "m/r/", false);
}

#[test]
fn cve_2026_12624_a_narrower_deny_wins_over_a_broader_list() {
    for deny in ["m/r/*", "m/r", "m/r/", "m/r*", "m/+"] {
        let text = format!(
            r#"path "m/*" {{ capabilities = ["list", "scan"] }} path "{deny}" {{ policy = "deny" }}"#
        );
        check(&text, Operation::List, "m/r/", false);
        check(&text, Operation::Scan, "m/r/", false);
        let acl = compile(&[&text], None);
        assert_eq!(acl.capabilities("m/r/"), ["deny"], "{deny}");
    }
    let deeper = r#"path "m/r/*" { capabilities = ["list"] } path "m/+" { policy = "deny" }"#;
    check(deeper, Operation::List, "m/r/", true);
}

#[test]
fn wrapping_bounds_hold() {
    let acl = compile(&[r#"path "a" { policy = "write" min_wrapping_ttl = 5 max_wrapping_ttl = 60 }"#], None);
    let wrapped = |seconds: Option<u64>| {
        let data = Map::new();
        let wrap_ttl = seconds.map(Duration::from_secs);
        acl.check(AclRequest { operation: Operation::Read, path: "a", data: &data, fields: &[], wrap_ttl })
            .is_allowed
    };
    assert_eq!([None, Some(4), Some(5), Some(60), Some(61)].map(wrapped), [false, false, true, true, false]);
    let merged = [
        r#"path "a" { policy = "write" max_wrapping_ttl = 9 }"#,
        r#"path "a" { policy = "write" max_wrapping_ttl = 5 }"#,
    ];
    assert_eq!(compile(&merged, None).resultant()["exact_paths"]["a"]["max_wrapping_ttl"], 5);
}

#[test]
fn fields_are_checked_on_reads_and_writes_only() {
    let acl = compile(&[r#"path "a/*" { policy = "write" denied_parameters = { x = ["1"] } }"#], None);
    let allowed = |operation| decide(&acl, operation, "a/", &json!({"X": "1"})).is_allowed;
    assert!(!allowed(Operation::Update) && !allowed(Operation::Create) && !allowed(Operation::Read));
    assert!(allowed(Operation::Delete) && allowed(Operation::List));
}

#[test]
fn root_reaches_its_namespace_and_below() {
    let root = [Arc::new(Policy { name: ROOT.to_owned(), rules: Vec::new() })];
    let acl =
        Acl::compile(AclScope { namespace_id: "n1", namespace_path: "ns1/" }, &root, None, UnixMillis(0));
    assert!(decide(&acl, Operation::Delete, "ns1/sys/x", &json!({})).is_root);
    assert!(!decide(&acl, Operation::Read, "sys/x", &json!({})).is_allowed);
    assert_eq!((acl.capabilities("ns1/a"), acl.capabilities("ns2/a")), (vec!["root"], vec!["deny"]));
    let both = [Arc::clone(&root[0]), Arc::new(parse("x", "").unwrap())];
    assert!(Acl::compile(ROOT_SCOPE, &both, None, UnixMillis(0)).is_refused());
}

/// CVE-2020-35453: a policy speaks of its own namespace only.
#[test]
fn cve_2020_35453_paths_are_relative_to_the_policys_namespace() {
    let policy = [Arc::new(parse("p", r#"path "a/*" { policy = "write" }"#).unwrap())];
    let acl =
        Acl::compile(AclScope { namespace_id: "n1", namespace_path: "ns1/" }, &policy, None, UnixMillis(0));
    assert_eq!(acl.capabilities("ns1/a/b")[0], "create");
    assert_eq!((acl.capabilities("a/b"), acl.capabilities("ns2/a/b")), (vec!["deny"], vec!["deny"]));
    assert!(acl.resultant()["glob_paths"]["a/"].is_object());
}

#[test]
fn templates_follow_the_caller() {
    let text = r#"path "s/{{identity.entity.metadata.team}}/*" { capabilities = ["read"] }"#;
    let acl = compile(&[text], Some(&alice("red")));
    assert_eq!((acl.capabilities("s/red/x"), acl.capabilities("s/blue/x")), (vec!["read"], vec!["deny"]));
    assert_eq!(compile(&[text], None).capabilities("s/red/x"), ["deny"]);
}

#[test]
fn ghsa_hr5j_a_deny_that_does_not_resolve_denies_everything() {
    let text =
        r#"path "s/*" { policy = "write" } path "s/{{identity.entity.metadata.team}}/*" { policy = "deny" }"#;
    for team in ["*", "a/b", "+", ""] {
        let acl = compile(&[text], Some(&alice(team)));
        assert!(acl.is_refused() && !decide(&acl, Operation::Read, "s/x", &json!({})).is_allowed, "{team:?}");
    }
    assert!(compile(&[text], None).is_refused());
    assert_eq!(compile(&[text], Some(&alice("red"))).capabilities("s/red/x"), ["deny"]);
    // A narrower grant that cannot be filled in safely could have been the narrowing rule too.
    let text =
        r#"path "s/*" { policy = "write" } path "s/{{identity.entity.metadata.team}}/*" { policy = "read" }"#;
    assert!(compile(&[text], Some(&alice("*"))).is_refused());
}

#[test]
fn rules_expire() {
    let text =
        r#"path "a" { policy = "read" expiration = 100 } path "b" { policy = "read" expiration = 200 }"#;
    let policy = [Arc::new(parse("p", text).unwrap())];
    let at = |seconds: u64| Acl::compile(ROOT_SCOPE, &policy, None, UnixMillis(seconds * 1_000));
    assert_eq!(at(99).capabilities("a"), ["list", "read"]);
    assert_eq!(at(99).expires_at(), Some(UnixMillis(100_000)));
    assert_eq!((at(100).capabilities("a"), at(100).expires_at()), (vec!["deny"], Some(UnixMillis(200_000))));
}

#[test]
fn pagination_limits_are_applied() {
    let acl = compile(&[r#"path "a/*" { policy = "read" pagination_limit = 3 }"#], None);
    for (asked, want) in [
        (json!({}), 3),
        (json!({"limit": "2"}), 2),
        (json!({"limit": 9}), 3),
        (json!({"limit": "-1"}), 3),
        (json!({"limit": "max"}), 3),
    ] {
        let mut data = asked.as_object().unwrap().clone();
        decide(&acl, Operation::List, "a/", &asked).limit_page(Operation::List, &mut data);
        assert_eq!(data["limit"], want, "{asked}");
    }
}

#[test]
fn mounts_are_seen_where_something_is_granted() {
    let sees = |text: &str| compile(&[text], None).sees_mount("m/");
    for text in [
        r#"path "m/x/y" { policy = "read" }"#,
        r#"path "+/x" { policy = "read" }"#,
        r#"path "*" { policy = "read" }"#,
        r#"path "m/*" { policy = "deny" } path "m/x" { policy = "read" }"#,
    ] {
        assert!(sees(text), "{text}");
    }
    for text in [
        "",
        r#"path "n/*" { policy = "read" }"#,
        r#"path "m/*" { policy = "deny" } path "*" { policy = "read" }"#,
        r#"path "m/x" {}"#,
    ] {
        assert!(!sees(text), "{text}");
    }
}

/// Decisions of OpenBao 2.7.2 on random policies. Ours are the same, but for listings of a folder whose bare path a
/// stronger pattern denies: there we deny (see `find`).
#[test]
fn agrees_with_recorded_decisions() {
    let cases: Value = serde_json::from_str(include_str!("../../testdata/policy_decisions.json")).unwrap();
    let (mut same, mut stricter) = (0, 0);
    for case in cases.as_array().unwrap() {
        let texts: Vec<_> = case["policies"].as_array().unwrap().iter().map(as_policy_text).collect();
        let acl = compile(&texts.iter().map(String::as_str).collect::<Vec<_>>(), None);
        for (path, want) in case["paths"].as_object().unwrap() {
            let got = json!(acl.capabilities(path));
            if got == *want {
                same += 1;
            } else {
                let bare = path
                    .strip_suffix('/')
                    .unwrap_or_else(|| panic!("{path} is {got}, not {want}, under {texts:?}"));
                assert_eq!(
                    (got, acl.capabilities(bare)),
                    (json!(["deny"]), vec!["deny"]),
                    "{path} under {texts:?}"
                );
                stricter += 1;
            }
        }
    }
    assert!(same > 2_000 && stricter < 60, "{same} the same, {stricter} stricter");
}

fn as_policy_text(rules: &Value) -> String {
    let paths: Map = rules
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, words)| (path.clone(), json!({ "capabilities": words })))
        .collect();
    json!({ "path": paths }).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Reads go by the slow matcher; a deny on what it finds is final whatever else grants.
    #[test]
    fn reads_go_by_the_slow_matcher(
        rules in prop::collection::btree_map(pattern_text(), prop::sample::select(vec!["read", "list", "deny"]), 0..10),
        path in path_text(),
    ) {
        let text = as_policy_text(&rules.iter().map(|(path, word)| (path.clone(), json!([word]))).collect::<Map>().into());
        let patterns: Vec<_> = rules.keys().map(|written| Pattern::parse(written)).collect();
        let exact = patterns.iter().find(|one| one.is_exact() && one.text == path);
        let best = exact.or_else(|| slow_best(&patterns, &path));
        let want = best.is_some_and(|best| rules.iter().any(|(written, word)| *word == "read" && Pattern::parse(written) == *best));
        let got = decide(&compile(&[&text], None), Operation::Read, &path, &json!({})).is_allowed;
        prop_assert_eq!(got, want, "{} {}", path, text);
    }
}
