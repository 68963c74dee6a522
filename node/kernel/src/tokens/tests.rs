//! Tokens from birth to end, and every published flaw of this family that touches them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{Clock as _, Fields, Login, TokenKind};
use proptest::prelude::*;
use serde_json::json;

use super::lifetime::Limits;
use super::login::{LoginMount, LoginRequest};
use super::renew::Renewal;
use super::rig::{Rig, spec};
use super::spec::NewTokenSpec;
use super::{NewToken, TokenEntry, TokenRef, TokenState, Use, lookup, secret};
use crate::KernelError;
use crate::namespaces::Namespace;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn renew(rig: &Rig, token: &NewToken, increment: u64) -> Result<TokenEntry, KernelError> {
    let limits = rig.kernel.token_limits(&Namespace::root())?;
    let renewal = Renewal { increment: secs(increment), limits, login: None };
    let (entry, _) =
        rig.commit(|tx| rig.kernel.tokens.renew(tx, &token.entry.reference(), renewal, rig.now())).await?;
    Ok(entry)
}

async fn revoke(rig: &Rig, wanted: &TokenRef) {
    rig.commit(|tx| rig.kernel.tokens.revoke_tree(tx, wanted, rig.now())).await.unwrap();
}

#[tokio::test]
async fn tokens_have_the_size_clients_expect() {
    let rig = Rig::new().await;
    let entropy = rig.kernel.entropy.as_ref();
    let root = rig.commit(|tx| rig.kernel.tokens.create_root(tx, entropy, rig.now(), None)).await.unwrap();
    assert_eq!(root.secret.len(), 28, "one-time pads of generate-root have this size");
    assert!(root.secret.starts_with("hvs.") && rig.lets_in(&root));
    let child = rig.child(&rig.root, spec(60)).await.unwrap();
    assert_eq!(child.secret.len(), 4 + secret::BODY_LEN);
    assert_eq!(child.entry.accessor.len(), 24);
    let old_spelling = child.secret.replacen("hvs.", "s.", 1);
    assert!(rig.kernel.tokens.find(&rig.view(), &old_spelling, rig.now()).unwrap().is_some());
}

#[tokio::test]
async fn nothing_stored_names_a_token() {
    let rig = Rig::new().await;
    let child = rig.child(&rig.root, spec(60)).await.unwrap();
    let body = child.secret.trim_start_matches("hvs.");
    for path in rig.leftovers() {
        assert!(!path.contains(body), "{path}");
    }
    let stored = serde_json::to_string(&*child.entry).unwrap();
    assert!(!stored.contains(body));
    assert!(!format!("{child:?}").contains(body));
}

/// Vault 0.10.2 note: a token whose end came while the server was stopped became one without end.
#[tokio::test]
async fn vault_0_10_2_expired_while_stopped_is_unusable() {
    let mut rig = Rig::new().await;
    let token = rig.child(&rig.root, spec(60)).await.unwrap();
    rig.advance(60);
    rig.fail_over();
    assert!(!rig.lets_in(&token), "before housekeeping had a chance");
    assert!(renew(&rig, &token, 60).await.is_err());
    rig.keep_house().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn vault_0_10_2_without_a_deadline_only_root_lives() {
    let rig = Rig::new().await;
    let entry = TokenEntry { policies: vec!["p".to_owned()], ..TokenEntry::default() };
    assert!(entry.has_ended(rig.now()));
    assert!(!rig.root.has_ended(rig.now()));
}

/// CVE-2021-32923: renewing within a second of the maximum gave a token without end.
#[tokio::test]
async fn cve_2021_32923_renewal_next_to_the_maximum() {
    let rig = Rig::new().await;
    let wanted = NewTokenSpec { explicit_max_ttl: secs(60), ..spec(60) };
    let token = rig.child(&rig.root, wanted).await.unwrap();
    for left_ms in [900, 500, 100, 1] {
        let end = token.entry.expires.unwrap();
        rig.clock.advance(Duration::from_millis(end.0 - rig.now().0 - left_ms));
        assert!(renew(&rig, &token, 3_600).await.is_err(), "{left_ms} ms left");
        assert!(rig.lets_in(&token));
    }
    rig.advance(1);
    assert!(!rig.lets_in(&token));
}

/// Vault 0.9.2 note: periodic tokens met the maximum.
#[tokio::test]
async fn vault_0_9_2_periodic_tokens_pass_the_maximum() {
    let rig = Rig::new().await;
    let periodic = rig.child(&rig.root, NewTokenSpec { period: secs(3_600), ..spec(0) }).await.unwrap();
    let usual = rig.child(&rig.root, spec(3_600)).await.unwrap();
    for _ in 0..769 * 2 {
        rig.advance(1_800);
        assert_eq!(renew(&rig, &periodic, 60).await.unwrap().time_left(rig.now()), Some(secs(3_600)));
        if let Err(err) = renew(&rig, &usual, 3_600).await {
            assert!(!err.to_string().is_empty());
        }
    }
    assert!(rig.lets_in(&periodic) && !rig.lets_in(&usual), "768 hours have passed");
}

/// Vault 0.6.4 note: a parent without `default` made children with it.
#[tokio::test]
async fn vault_0_6_4_child_policies_are_among_the_parents() {
    let rig = Rig::new().await;
    let own =
        NewTokenSpec { policies: vec!["a".to_owned(), "b".to_owned()], no_default_policy: true, ..spec(60) };
    let parent = rig.child(&rig.root, own).await.unwrap();
    assert_eq!(parent.entry.policies, ["a", "b"]);
    let cases: &[(&[&str], Option<&[&str]>)] = &[
        (&[], Some(&["a", "b"])),
        (&["a"], Some(&["a"])),
        (&["A "], Some(&["a"])),
        (&["a", "default"], None),
        (&["c"], None),
        (&["root"], None),
        (&[" ROOT"], None),
        (&["response-wrapping"], None),
    ];
    for (asked, want) in cases {
        let policies = asked.iter().map(|name| (*name).to_owned()).collect();
        let got = rig.child(&parent.entry, NewTokenSpec { policies, ..spec(60) }).await;
        let got = got.as_ref().ok().map(|token| token.entry.policies.clone());
        assert_eq!(
            got.as_deref().map(|list| list.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
            *want,
            "{asked:?}"
        );
    }
}

/// Vault 1.0.2 note: a child lost its parent's bound CIDRs.
#[tokio::test]
async fn vault_1_0_2_children_keep_bound_cidrs() {
    let rig = Rig::new().await;
    let mut bound = TokenEntry::clone(&rig.child(&rig.root, spec(60)).await.unwrap().entry);
    bound.bound_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
    let child = rig.child(&bound, spec(60)).await.unwrap();
    assert!(rig.lets_in_from(&child, Some("10.1.2.3")));
    assert!(rig.lets_in_from(&child, Some("::ffff:10.1.2.3")));
    assert!(!rig.lets_in_from(&child, Some("11.1.2.3")));
    assert!(!rig.lets_in_from(&child, None), "an unknown address is nowhere");
}

/// CVE-2026-40264: an accessor of one namespace worked in another.
#[tokio::test]
async fn cve_2026_40264_accessors_stay_in_their_namespace() {
    let rig = Rig::new().await;
    let token = rig.foreign("n1", secs(60)).await;
    assert!(token.entry.accessor.ends_with(".n1") && token.secret.ends_with(".n1"));
    let find = |namespace: &str| {
        let tokens = &rig.kernel.tokens;
        tokens.find_accessor(&rig.view(), namespace, &token.entry.accessor, rig.now()).unwrap().is_some()
    };
    assert!(find("n1") && !find("root"));
    let renamed = token.secret.replace(".n1", "");
    assert!(rig.kernel.tokens.find(&rig.view(), &renamed, rig.now()).unwrap().is_none());
}

#[tokio::test]
async fn uses_run_out_exactly_once_under_contention() {
    let rig = Rig::new().await;
    let token = rig.child(&rig.root, NewTokenSpec { num_uses: 3, ..spec(60) }).await.unwrap();
    let attempt = || async {
        loop {
            let used = rig.commit(|tx| rig.kernel.tokens.use_once(tx, &token.entry, rig.now())).await;
            match used {
                Err(err) if err.is_conflict() => {}
                Err(KernelError::Denied) => return None,
                other => return Some(other.unwrap()),
            }
        }
    };
    let uses = futures::future::join_all((0..100).map(|_| attempt())).await;
    let mut uses: Vec<Use> = uses.into_iter().flatten().collect();
    uses.sort_by_key(|used| format!("{used:?}"));
    assert_eq!(uses, [Use::Last, Use::Left(1), Use::Left(2)]);
    assert!(!rig.lets_in(&token));
}

/// Vault 0.6.4 note: leases outlived the last use of their token.
#[tokio::test]
async fn vault_0_6_4_leases_end_with_the_last_use() {
    let rig = Rig::new().await;
    let token = rig.child(&rig.root, NewTokenSpec { num_uses: 1, ..spec(600) }).await.unwrap();
    // The request that takes the last use is the one that is granted the lease.
    let lease = rig
        .commit(|tx| {
            assert_eq!(rig.kernel.tokens.use_once(tx, &token.entry, rig.now())?, Use::Last);
            rig.stage_lease(tx, &token.entry, "root", "aws/creds/x", 600)
        })
        .await
        .unwrap();
    assert!(!rig.lets_in(&token) && rig.has_lease(&lease));
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn restricted_and_batch_tokens_make_no_tokens() {
    let rig = Rig::new().await;
    let counted = rig.child(&rig.root, NewTokenSpec { num_uses: 5, ..spec(60) }).await.unwrap();
    let batch = rig.child(&rig.root, NewTokenSpec { kind: "batch".to_owned(), ..spec(60) }).await.unwrap();
    for parent in [&counted, &batch] {
        assert!(matches!(rig.child(&parent.entry, spec(60)).await, Err(KernelError::Invalid(_))));
    }
}

/// Whoever controls a performance secondary has the keys that seal batch tokens: one of root would outlive its revocation.
#[tokio::test]
async fn no_batch_token_is_of_root() {
    let rig = Rig::new().await;
    let kind = "batch".to_owned();
    let fine = rig.child(&rig.root, NewTokenSpec { kind, is_orphan: true, ..spec(60) }).await.unwrap();
    let tx = rig.kernel.store.begin(crate::tx::Mode::ReadOnly);
    let found = |entry: &crate::tokens::TokenEntry| {
        let sealed = super::batch::seal(tx.barrier(), entry).unwrap();
        rig.kernel.tokens.find(&tx, &sealed, rig.clock.now()).unwrap()
    };
    assert!(found(&fine.entry).is_some());
    let forged = crate::tokens::TokenEntry { policies: vec!["root".to_owned()], ..(*fine.entry).clone() };
    assert!(found(&forged).is_none());
}

#[tokio::test]
async fn batch_tokens_are_stored_nowhere_and_end_with_their_parent() {
    let rig = Rig::new().await;
    let parent = rig.child(&rig.root, spec(600)).await.unwrap();
    let before = rig.replica.keys().len();
    let kind = || "batch".to_owned();
    let batch = rig.child(&parent.entry, NewTokenSpec { kind: kind(), ..spec(60) }).await.unwrap();
    let orphan =
        rig.child(&rig.root, NewTokenSpec { kind: kind(), is_orphan: true, ..spec(300) }).await.unwrap();
    assert_eq!(rig.replica.keys().len(), before);
    assert!(batch.secret.starts_with("hvb.AQ") && rig.lets_in(&batch) && rig.lets_in(&orphan));
    assert!(batch.entry.accessor.is_empty() && !batch.entry.is_renewable);
    revoke(&rig, &parent.entry.reference()).await;
    assert!(!rig.lets_in(&batch) && rig.lets_in(&orphan));
    rig.advance(300);
    assert!(!rig.lets_in(&orphan));
}

/// What is given out can be presented, or it is not given out.
#[tokio::test]
async fn a_batch_token_is_no_longer_than_one_may_be() {
    let rig = Rig::new().await;
    let mut refused = 0;
    for entries in [1, 8, 9, 10, 11, 12, 13, 14, 64] {
        let metadata = (0..entries).map(|at| (format!("{at}"), "x".repeat(512))).collect();
        let wanted = NewTokenSpec { kind: "batch".to_owned(), metadata, ..spec(60) };
        match rig.child(&rig.root, wanted).await {
            Ok(batch) => assert!(rig.lets_in(&batch), "{entries} entries, {} bytes", batch.secret.len()),
            Err(KernelError::Invalid(text)) => {
                assert!(text.contains("too much"), "{text}");
                refused += 1;
            }
            Err(err) => panic!("{err}"),
        }
    }
    assert!((1..9).contains(&refused));
}

#[tokio::test]
async fn changed_batch_tokens_are_refused() {
    let rig = Rig::new().await;
    let batch = rig.child(&rig.root, NewTokenSpec { kind: "batch".to_owned(), ..spec(60) }).await.unwrap();
    let text = batch.secret.to_string();
    for at in (4..text.len()).step_by(7) {
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut changed = text.clone();
        changed.replace_range(at..=at, other);
        assert!(rig.kernel.tokens.find(&rig.view(), &changed, rig.now()).unwrap().is_none(), "byte {at}");
    }
    assert!(rig.kernel.tokens.find(&rig.view(), &text[..40], rig.now()).unwrap().is_none());
}

#[tokio::test]
async fn chosen_ids_need_sudo_and_are_taken_once() {
    let rig = Rig::new().await;
    let chosen = |id: &str| NewTokenSpec { id: Some(id.to_owned()), ..spec(60) };
    let token = rig.child(&rig.root, chosen("my-id")).await.unwrap();
    assert_eq!(token.secret.as_str(), "my-id");
    assert!(rig.lets_in(&token));
    for id in ["my-id", "root", "a.b", "hvs.x", "s.x", "b.x"] {
        assert!(rig.child(&rig.root, chosen(id)).await.is_err(), "{id}");
    }
    assert!(rig.child(&token.entry, chosen("other")).await.is_err());
    for wanted in
        [NewTokenSpec { is_orphan: true, ..spec(60) }, NewTokenSpec { period: secs(60), ..spec(60) }]
    {
        assert!(rig.child(&token.entry, wanted).await.is_err());
    }
}

#[tokio::test]
async fn root_makes_root_without_end_only_while_it_has_none_itself() {
    let rig = Rig::new().await;
    let bare = NewTokenSpec { is_renewable: true, ..NewTokenSpec::default() };
    let root = rig.child(&rig.root, bare.clone()).await.unwrap();
    assert_eq!((root.entry.expires, root.entry.is_renewable), (None, false));
    assert_eq!(root.secret.len(), 28);
    let ending = rig.child(&rig.root, NewTokenSpec { ttl: secs(60), ..bare.clone() }).await.unwrap();
    assert!(ending.entry.is_root() && ending.entry.expires.is_some());
    assert!(rig.child(&ending.entry, bare).await.is_err());
    assert!(renew(&rig, &root, 60).await.is_err());
}

#[tokio::test]
async fn revoking_a_tree_is_one_small_write_that_ends_all_of_it() {
    let mut rig = Rig::new().await;
    let parent = rig.child(&rig.root, spec(600)).await.unwrap();
    let mut tree = Vec::new();
    for _ in 0..600 {
        tree.push(rig.child(&parent.entry, spec(600)).await.unwrap());
    }
    let grandchild = rig.child(&tree[0].entry, spec(600)).await.unwrap();
    let tx = rig.kernel.store.begin(crate::tx::Mode::ReadWrite);
    rig.kernel.tokens.revoke_tree(&tx, &parent.entry.reference(), rig.now()).unwrap();
    assert!(tx.into_write_set().unwrap().writes.len() <= 3);
    revoke(&rig, &parent.entry.reference()).await;
    assert!(tree.iter().chain([&parent, &grandchild]).all(|token| !rig.lets_in(token)));
    assert!(rig.child(&grandchild.entry, spec(60)).await.is_ok(), "its own record knows of nothing yet");
    // Half way through, another node takes over.
    rig.kernel.reap_soon(tree[0].entry.reference()).await;
    rig.fail_over();
    rig.keep_house().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn revoking_alone_makes_orphans() {
    let rig = Rig::new().await;
    let parent = rig.child(&rig.root, spec(600)).await.unwrap();
    let child = rig.child(&parent.entry, spec(600)).await.unwrap();
    let grandchild = rig.child(&child.entry, spec(600)).await.unwrap();
    rig.commit(|tx| rig.kernel.tokens.revoke_alone(tx, &parent.entry.reference(), rig.now())).await.unwrap();
    assert!(!rig.lets_in(&parent) && rig.lets_in(&child) && rig.lets_in(&grandchild));
    rig.keep_house().await;
    assert!(!rig.lets_in(&parent) && rig.lets_in(&child) && rig.lets_in(&grandchild));
    let stored = rig.kernel.tokens.load(&rig.view(), &child.entry.reference()).unwrap().unwrap();
    assert!(stored.is_orphan());
    revoke(&rig, &child.entry.reference()).await;
    assert!(!rig.lets_in(&grandchild));
}

/// Something hung on a token while that token was being revoked must not be left behind.
#[tokio::test]
async fn a_child_made_during_the_revocation_is_refused() {
    let rig = Rig::new().await;
    let parent = rig.child(&rig.root, spec(600)).await.unwrap();
    let namespace = Namespace::root();
    let draft = rig.asker(&parent.entry, &namespace).draft(spec(60), rig.now()).unwrap();
    let tx = rig.kernel.store.begin(crate::tx::Mode::ReadWrite);
    rig.kernel.tokens.issue(&tx, rig.kernel.entropy.as_ref(), draft.entry, None).unwrap();
    revoke(&rig, &parent.entry.reference()).await;
    assert!(rig.kernel.store.commit(tx).await.unwrap_err().is_conflict());
    let late = rig.lease(&parent.entry, "root", "aws/creds/x", 60).await;
    assert!(matches!(late, Err(KernelError::Denied)));
}

#[tokio::test]
async fn logins_are_bound_by_method_mount_and_system() {
    let rig = Rig::new().await;
    let mount = |token_type| LoginMount {
        path: "auth/userpass/",
        accessor: "auth_userpass_1",
        limits: Limits { default_ttl: secs(600), max_ttl: secs(3_600) },
        token_type,
    };
    let login = Login {
        alias_name: "alice".to_owned(),
        display_name: "alice".to_owned(),
        policies: vec!["Dev".to_owned()],
        is_renewable: true,
        ..Login::default()
    };
    let namespace = Namespace::root();
    let make = async |login: &Login, token_type| {
        let mount = mount(token_type);
        let path = "auth/userpass/login/alice";
        let request = LoginRequest { mount: &mount, namespace: &namespace, path, login, entity_id: "" };
        let entropy = rig.kernel.entropy.as_ref();
        rig.commit(|tx| rig.kernel.tokens.create_from_login(tx, entropy, rig.now(), &request)).await
    };
    let (token, _) = make(&login, "").await.unwrap();
    assert_eq!(token.entry.policies, ["default", "dev"]);
    assert_eq!(token.entry.display_name, "userpass-alice");
    assert_eq!((token.entry.ttl, token.entry.is_orphan()), (secs(600), true));
    let (long, warnings) = make(&Login { ttl: secs(86_400), ..login.clone() }, "").await.unwrap();
    assert_eq!((long.entry.ttl, warnings.len()), (secs(3_600), 1));
    let (batch, _) = make(&login, "batch").await.unwrap();
    assert!(batch.entry.is_batch() && rig.lets_in(&batch));
    let asks = Login { token_kind: TokenKind::Batch, ..login.clone() };
    assert!(!make(&asks, "service").await.unwrap().0.entry.is_batch(), "the mount decides");
    for policy in ["root", " ROOT", "response-wrapping"] {
        let login = Login { policies: vec![policy.to_owned()], ..login.clone() };
        assert!(make(&login, "").await.is_err(), "{policy}");
    }
    assert!(make(&Login { num_uses: 1, ..login.clone() }, "batch").await.is_err());
}

#[tokio::test]
async fn renewal_of_a_roles_token_follows_the_role() {
    let rig = Rig::new().await;
    let write = async |body: serde_json::Value| {
        let body = body.as_object().unwrap().clone();
        rig.commit(|tx| rig.kernel.tokens.put_role(tx, "root", "r", Fields::new(&body))).await
    };
    write(json!({"token_period": "1h", "allowed_policies": "p"})).await.unwrap();
    let role = rig.kernel.tokens.role(&rig.view(), "root", "r").unwrap().unwrap();
    let namespace = Namespace::root();
    let asker = super::spec::Asker { role: Some(&role), ..rig.asker(&rig.root, &namespace) };
    let draft = asker.draft(spec(0), rig.now()).unwrap();
    assert_eq!(draft.entry.path, "auth/token/create/r");
    let entropy = rig.kernel.entropy.as_ref();
    let token = rig.commit(|tx| rig.kernel.tokens.issue(tx, entropy, draft.entry, None)).await.unwrap();
    assert_eq!((token.entry.period, token.entry.ttl), (secs(0), secs(3_600)), "the role's stays the role's");
    for (period, max, want) in [("10m", "0", 600), ("2h", "0", 7_200), ("0", "20m", 1_200), ("0", "0", 1_200)]
    {
        write(json!({"token_period": period, "token_explicit_max_ttl": max})).await.unwrap();
        let renewed = renew(&rig, &token, 0).await.unwrap();
        assert_eq!(renewed.time_left(rig.now()), Some(secs(want)), "{period} {max}");
    }
    rig.commit(|tx| rig.kernel.tokens.delete_role(tx, "root", "r")).await.unwrap();
    assert!(renew(&rig, &token, 0).await.is_err());
}

#[tokio::test]
async fn what_was_asked_for_bounds_a_roles_token_too() {
    let rig = Rig::new().await;
    let write = async |body: serde_json::Value| {
        let body = body.as_object().unwrap().clone();
        rig.commit(|tx| rig.kernel.tokens.put_role(tx, "root", "r", Fields::new(&body))).await.unwrap();
        rig.kernel.tokens.role(&rig.view(), "root", "r").unwrap().unwrap()
    };
    let role = write(json!({"token_period": "1h", "token_explicit_max_ttl": "3h"})).await;
    let namespace = Namespace::root();
    let asker = super::spec::Asker { role: Some(&role), ..rig.asker(&rig.root, &namespace) };
    let wanted = NewTokenSpec { period: secs(1_800), explicit_max_ttl: secs(7_200), ..spec(0) };
    let draft = asker.draft(wanted, rig.now()).unwrap();
    assert_eq!((draft.entry.ttl, draft.entry.explicit_max_ttl), (secs(1_800), secs(7_200)));
    let entropy = rig.kernel.entropy.as_ref();
    let token = rig.commit(|tx| rig.kernel.tokens.issue(tx, entropy, draft.entry, None)).await.unwrap();
    write(json!({"token_period": "0", "token_explicit_max_ttl": "0"})).await;
    let left = async || renew(&rig, &token, 0).await.unwrap().time_left(rig.now());
    assert_eq!(left().await, Some(secs(1_800)));
    for _ in 0..4 {
        rig.advance(1_500);
        left().await;
    }
    assert_eq!(left().await, Some(secs(1_200)));
}

#[tokio::test]
async fn roles_limit_policies() {
    let rig = Rig::new().await;
    let parent =
        rig.child(&rig.root, NewTokenSpec { policies: vec!["maker".to_owned()], ..spec(60) }).await.unwrap();
    let cases: &[(serde_json::Value, &[&str], &str)] = &[
        (json!({"allowed_policies": "a,b"}), &[], "a b default"),
        (json!({"allowed_policies": "a,b"}), &["a"], "a default"),
        (json!({"allowed_policies": "a,b"}), &["z"], "refused"),
        (json!({"allowed_policies": "root"}), &[], "refused"),
        (json!({"allowed_policies_glob": "g-*"}), &["g-1"], "default g-1"),
        (json!({"allowed_policies_glob": "g-*"}), &[], "default"),
        (json!({"allowed_policies_glob": "*"}), &["root"], "refused"),
        (json!({"disallowed_policies": "c"}), &["c"], "refused"),
        (json!({"disallowed_policies": "c"}), &["d"], "d default"),
        (json!({"disallowed_policies": "default"}), &[], "refused"),
        (json!({"disallowed_policies": "default"}), &["d"], "d"),
        (json!({"disallowed_policies": "default", "allowed_policies": "a"}), &[], "a"),
        (json!({"disallowed_policies": "default", "allowed_policies": "a"}), &["a"], "a"),
        (json!({"disallowed_policies": "default", "allowed_policies_glob": "*"}), &["default"], "refused"),
        (json!({"disallowed_policies_glob": "def*"}), &["d"], "d"),
        (json!({"disallowed_policies_glob": "*"}), &["d"], "refused"),
        (json!({"disallowed_policies_glob": "x*"}), &["xy"], "refused"),
        (json!({"disallowed_policies_glob": "X*"}), &["xy"], "refused"),
        (json!({"allowed_policies_glob": " G-* "}), &["g-1"], "default g-1"),
        (json!({"token_no_default_policy": true, "allowed_policies": "a"}), &[], "a"),
        (json!({"token_no_default_policy": true, "allowed_policies": "a"}), &["a", "default"], "refused"),
        (json!({"orphan": true}), &["other"], "refused"),
        (json!({"orphan": true}), &[], "default maker"),
    ];
    for (role, asked, want) in cases {
        let body = role.as_object().unwrap().clone();
        rig.commit(|tx| rig.kernel.tokens.put_role(tx, "root", "r", Fields::new(&body))).await.unwrap();
        let role = rig.kernel.tokens.role(&rig.view(), "root", "r").unwrap().unwrap();
        let namespace = Namespace::root();
        let asker = super::spec::Asker { role: Some(&role), ..rig.asker(&parent.entry, &namespace) };
        let policies = asked.iter().map(|name| (*name).to_owned()).collect();
        let got = asker.draft(NewTokenSpec { policies, ..spec(60) }, rig.now());
        let mut got = got.map_or_else(|_| vec!["refused".to_owned()], |draft| draft.entry.policies);
        got.sort();
        let mut want: Vec<&str> = want.split(' ').collect();
        want.sort_unstable();
        assert_eq!(got, want, "{body:?} {asked:?}");
        rig.commit(|tx| rig.kernel.tokens.delete_role(tx, "root", "r")).await.unwrap();
    }
}

#[tokio::test]
async fn lookups_have_the_fields_clients_read() {
    let rig = Rig::new().await;
    let wanted = NewTokenSpec {
        display_name: "x y".to_owned(),
        metadata: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..spec(3_600)
    };
    let token = rig.child(&rig.root, wanted).await.unwrap();
    let data = lookup::data(&token.entry, "tok", rig.now());
    let want = json!({
        "accessor": token.entry.accessor, "creation_time": 1_767_268_800, "creation_ttl": 3_600,
        "display_name": "token-x-y", "entity_id": "", "expire_time": "2026-01-01T13:00:00Z", "explicit_max_ttl": 0,
        "id": "tok", "issue_time": "2026-01-01T12:00:00Z", "meta": {"a": "b"}, "num_uses": 0, "orphan": false,
        "path": "auth/token/create", "policies": ["default", "p"], "renewable": true, "ttl": 3_600,
        "type": "service",
    });
    assert_eq!(serde_json::Value::Object(data), want);
    let root = lookup::data(&rig.root, "", rig.now());
    assert_eq!((&root["expire_time"], &root["ttl"], &root["meta"]), (&json!(null), &json!(0), &json!(null)));
}

#[tokio::test]
async fn tidying_finds_what_leads_nowhere() {
    let rig = Rig::new().await;
    let parent = rig.child(&rig.root, spec(600)).await.unwrap();
    let child = rig.child(&parent.entry, spec(600)).await.unwrap();
    // Damage that no request could do.
    let path = super::store::id_path("root", &parent.entry.key);
    rig.commit(|tx| Ok(tx.delete(arca_barrier::Class::Local, &path)?)).await.unwrap();
    rig.commit(|tx| rig.kernel.tokens.tidy_step(tx, "root", None, 100, rig.now())).await.unwrap();
    rig.keep_house().await;
    let accessors =
        rig.kernel.tokens.accessors(&rig.view(), "root", &arca_engine_api::Page::default()).unwrap();
    assert_eq!(accessors, std::slice::from_ref(&rig.root.accessor));
    assert!(!rig.lets_in(&child));
}

/// A role that says anything about policies decides about `default` too, whatever the parent has.
#[tokio::test]
async fn a_role_gives_default_to_a_child_of_a_parent_without() {
    let rig = Rig::new().await;
    let bare = NewTokenSpec { policies: vec!["maker".to_owned()], no_default_policy: true, ..spec(60) };
    let parent = rig.child(&rig.root, bare).await.unwrap();
    for (disallowed, want) in [("c", &["default", "maker"][..]), ("default", &["maker"])] {
        let body = json!({"disallowed_policies": disallowed}).as_object().unwrap().clone();
        rig.commit(|tx| rig.kernel.tokens.put_role(tx, "root", "r", Fields::new(&body))).await.unwrap();
        let role = rig.kernel.tokens.role(&rig.view(), "root", "r").unwrap().unwrap();
        let namespace = Namespace::root();
        let asker = super::spec::Asker { role: Some(&role), ..rig.asker(&parent.entry, &namespace) };
        let draft = asker.draft(NewTokenSpec { policies: Vec::new(), ..spec(60) }, rig.now()).unwrap();
        assert_eq!(draft.entry.policies, want);
    }
}

/// A record as it is stored: its fields are on disk for ever.
#[test]
fn golden_record() {
    let entry = TokenEntry {
        key: "k".to_owned(),
        accessor: "a".to_owned(),
        namespace_id: "root".to_owned(),
        parent: Some(TokenRef { namespace_id: "root".to_owned(), key: "p".to_owned() }),
        depth: 1,
        policies: vec!["default".to_owned()],
        display_name: "token".to_owned(),
        path: "auth/token/create".to_owned(),
        created: arca_engine_api::UnixMillis(1_000),
        expires: Some(arca_engine_api::UnixMillis(61_000)),
        ttl: secs(60),
        state: TokenState::RevokedWithTree,
        bound_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        is_renewable: true,
        ..TokenEntry::default()
    };
    let want = concat!(
        r#"{"key":"k","accessor":"a","namespace_id":"root","parent":{"namespace_id":"root","key":"p"},"depth":1,"#,
        r#""policies":["default"],"display_name":"token","path":"auth/token/create","created":1000,"#,
        r#""expires":61000,"ttl":60000,"explicit_max_ttl":0,"period":0,"num_uses":0,"state":"revoked-with-tree","#,
        r#""kind":"service","bound_cidrs":["10.0.0.0/8"],"no_identity_policies":false,"is_renewable":true}"#,
    );
    assert_eq!(serde_json::to_string(&entry).unwrap(), want);
    assert_eq!(serde_json::from_str::<TokenEntry>(want).unwrap(), entry);
}

#[derive(Clone, Debug)]
enum Act {
    Create { parent: usize, ttl: u64, is_orphan: bool },
    KeepHouse,
    FailOver,
    Renew { token: usize, ttl: u64 },
    RevokeAlone(usize),
    RevokeTree(usize),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..40_usize, 10..200_u64, proptest::bool::weighted(0.2))
            .prop_map(|(parent, ttl, is_orphan)| Act::Create { parent, ttl, is_orphan }),
        1 => Just(Act::KeepHouse),
        1 => Just(Act::FailOver),
        1 => (0..40_usize, 10..200_u64).prop_map(|(token, ttl)| Act::Renew { token, ttl }),
        1 => (0..40_usize).prop_map(Act::RevokeAlone),
        1 => (0..40_usize).prop_map(Act::RevokeTree),
        2 => (1..60_u64).prop_map(Act::Wait),
    ]
}

/// The same tokens as plain data: who is whose child, until when, and who is gone.
#[derive(Default)]
struct Model {
    tokens: Vec<(Option<usize>, u64)>,
    gone: Vec<bool>,
    now: u64,
}

impl Model {
    fn is_good(&self, at: usize) -> bool {
        let (parent, end) = self.tokens[at];
        !self.gone[at] && end > self.now && parent.is_none_or(|parent| self.is_good(parent))
    }

    /// Ended means ended: nobody comes back because a parent was revoked alone later.
    fn settle(&mut self) {
        for at in 0..self.tokens.len() {
            self.gone[at] |= !self.is_good(at);
        }
    }

    fn revoke_alone(&mut self, at: usize) {
        self.gone[at] = true;
        for other in 0..self.tokens.len() {
            if self.tokens[other].0 == Some(at) {
                self.tokens[other].0 = None;
            }
        }
    }
}

async fn play(acts: Vec<Act>) {
    let mut rig = Rig::new().await;
    let (mut model, mut tokens) = (Model::default(), Vec::<NewToken>::new());
    for act in acts {
        model.settle();
        let pick = |wanted: usize| (!tokens.is_empty()).then(|| wanted % tokens.len());
        match act {
            Act::Create { parent, ttl, is_orphan } => {
                let parent = pick(parent).filter(|at| model.is_good(*at));
                let owner = parent.map_or_else(|| Arc::clone(&rig.root), |at| Arc::clone(&tokens[at].entry));
                let namespace = Namespace::root();
                let asker = super::spec::Asker { has_sudo: true, ..rig.asker(&owner, &namespace) };
                let draft = asker.draft(NewTokenSpec { is_orphan, ..spec(ttl) }, rig.now()).unwrap();
                let entropy = rig.kernel.entropy.as_ref();
                let made = rig.commit(|tx| rig.kernel.tokens.issue(tx, entropy, draft.entry, None)).await;
                tokens.push(made.unwrap());
                model.tokens.push((parent.filter(|_| !is_orphan), model.now + ttl));
                model.gone.push(false);
            }
            Act::FailOver => rig.fail_over(),
            Act::KeepHouse => rig.keep_house().await,
            Act::Renew { token, ttl } => {
                if let Some(at) = pick(token).filter(|at| model.is_good(*at)) {
                    renew(&rig, &tokens[at], ttl).await.unwrap();
                    model.tokens[at].1 = model.now + ttl;
                }
            }
            Act::RevokeAlone(at) => {
                if let Some(at) = pick(at).filter(|at| model.is_good(*at)) {
                    let wanted = tokens[at].entry.reference();
                    rig.commit(|tx| rig.kernel.tokens.revoke_alone(tx, &wanted, rig.now())).await.unwrap();
                    model.revoke_alone(at);
                }
            }
            Act::RevokeTree(at) => {
                if let Some(at) = pick(at) {
                    revoke(&rig, &tokens[at].entry.reference()).await;
                    model.gone[at] = true;
                }
            }
            Act::Wait(seconds) => {
                rig.advance(seconds);
                model.now += seconds;
            }
        }
        for (at, token) in tokens.iter().enumerate() {
            assert_eq!(rig.lets_in(token), model.is_good(at), "token {at}");
        }
    }
    rig.far_future();
    rig.keep_house().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new(), "nothing is left of tokens that ended");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is done in whatever order, exactly the tokens that should be good are.
    #[test]
    fn tokens_live_as_the_model_says(acts in proptest::collection::vec(act(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(play(acts));
    }
}

/// A token that has ended leaves no orphans, even where nobody has taken it away yet.
#[tokio::test]
async fn revoking_alone_what_has_ended_brings_nothing_back() {
    let rig = Rig::active().await;
    for is_through_an_ancestor in [false, true] {
        let above = rig.child(&rig.root, spec(3_600)).await.unwrap();
        let parent = rig.child(&above.entry, spec(60)).await.unwrap();
        let child = rig.child(&parent.entry, spec(600)).await.unwrap();
        if is_through_an_ancestor {
            revoke(&rig, &above.entry.reference()).await;
        } else {
            rig.advance(61);
        }
        assert!(!rig.lets_in(&parent) && !rig.lets_in(&child));
        let wanted = parent.entry.reference();
        rig.commit(|tx| rig.kernel.tokens.revoke_alone(tx, &wanted, rig.now())).await.unwrap();
        assert!(!rig.lets_in(&child));
        rig.keep_house().await;
        assert!(!rig.lets_in(&child), "{is_through_an_ancestor}");
    }
}
