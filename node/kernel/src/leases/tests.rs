//! Leases from grant to end, and every published flaw of this family that touches them.

use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::{EngineKind, LeaseGrant, Operation};
use serde_json::json;

use super::jobs::Work;
use super::{ATTEMPTS_MAX, FIRST_IN_LINE, GrantTo, LeaseState, id_path, token_key_of};
use crate::KernelError;
use crate::tokens::rig::{Rig, spec, text};
use crate::tokens::spec::NewTokenSpec;

fn none() -> Vec<String> {
    Vec::new()
}

#[tokio::test]
async fn a_lease_ends_at_its_deadline() {
    let mut rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    assert!(lease.id.starts_with("aws/creds/x/") && lease.id.len() == "aws/creds/x/".len() + 24);
    rig.advance(59);
    rig.keep_house().await;
    assert!(rig.has_lease(&lease) && !rig.is_undone(&lease));
    rig.advance(1);
    rig.fail_over();
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
    assert_eq!(rig.leftovers(), none());
}

#[tokio::test]
async fn leases_are_bound_by_their_mount() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 10_000 * 3_600).await.unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(768 * 3_600));
    // CVE-2020-12757: where nothing is asked for, the mount's default counts.
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 0).await.unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(768 * 3_600));
}

/// CVE-2020-25816: leases of batch tokens outlived the token.
#[tokio::test]
async fn cve_2020_25816_leases_end_with_their_batch_token() {
    let rig = Rig::new().await;
    for is_orphan in [false, true] {
        let wanted = NewTokenSpec { kind: "batch".to_owned(), is_orphan, ..spec(2) };
        let batch = rig.child(&rig.root, wanted).await.unwrap();
        let lease = rig.lease(&batch.entry, "root", "aws/creds/x", 600).await.unwrap();
        assert_eq!(lease.expires, batch.entry.expires.unwrap());
        let more = rig.commit(|tx| {
            let grant = LeaseGrant { ttl: Duration::from_secs(600), ..LeaseGrant::default() };
            let limits = crate::tokens::Limits { default_ttl: grant.ttl, max_ttl: grant.ttl };
            rig.kernel.leases.extend(tx, lease.clone(), &grant, grant.ttl, limits, rig.now())
        });
        assert_eq!(more.await.unwrap().0.expires, batch.entry.expires.unwrap(), "renewing does not help");
        rig.advance(2);
        rig.keep_house().await;
        assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
    }
}

#[tokio::test]
async fn leases_of_a_batch_token_end_with_its_parent() {
    let rig = Rig::new().await;
    let parent = rig.child(&rig.root, spec(600)).await.unwrap();
    let wanted = NewTokenSpec { kind: "batch".to_owned(), ..spec(600) };
    let batch = rig.child(&parent.entry, wanted).await.unwrap();
    let lease = rig.lease(&batch.entry, "root", "aws/creds/x", 600).await.unwrap();
    rig.commit(|tx| rig.kernel.tokens.revoke_tree(tx, &parent.entry.reference(), rig.now())).await.unwrap();
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
}

/// CVE-2019-18616: revoking a token of a child namespace left its leases alive.
#[tokio::test]
async fn cve_2019_18616_leases_end_with_a_namespaced_token() {
    let rig = Rig::new().await;
    let token = rig.foreign("n1", Duration::from_secs(600)).await;
    let lease = rig.lease(&token.entry, "n1", "aws/creds/x", 600).await.unwrap();
    assert!(lease.id.ends_with(".n1"));
    rig.commit(|tx| rig.kernel.tokens.revoke_tree(tx, &token.entry.reference(), rig.now())).await.unwrap();
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
    assert_eq!(rig.leftovers(), none());
}

/// CVE-2026-55774: the id of a lease was enough to revoke it from another namespace.
#[tokio::test]
async fn cve_2026_55774_a_lease_id_proves_nothing_elsewhere() {
    let rig = Rig::new().await;
    let token = rig.foreign("n1", Duration::from_secs(600)).await;
    let lease = rig.lease(&token.entry, "n1", "aws/creds/x", 600).await.unwrap();
    assert!(rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().is_none());
    rig.kernel.revoke_lease_now("root", &lease.id).await.unwrap();
    assert!(rig.has_lease(&lease) && !rig.is_undone(&lease));
}

/// Vault 0.11.3 note: leases with a dot in their id were not revoked.
#[tokio::test]
async fn vault_0_11_3_odd_ids_are_revoked() {
    let rig = Rig::new().await;
    let mut leases = Vec::new();
    for path in
        ["aws/creds/a.b", "aws/creds/a:b", "aws/creds/äöü", "aws/creds/a b", "aws/creds/.hidden", "aws/x.n1"]
    {
        leases.push(rig.lease(&rig.root, "root", path, 60).await.unwrap());
    }
    rig.commit(|tx| rig.kernel.leases.end(tx, leases[0].clone(), false, rig.now())).await.unwrap();
    rig.kernel.revoke_lease_now("root", &leases[1].id).await.unwrap();
    rig.kernel.end_below("root", "aws/creds/äöü", false).await.unwrap();
    rig.advance(60);
    rig.keep_house().await;
    assert!(leases.iter().all(|lease| !rig.has_lease(lease) && rig.is_undone(lease)));
    assert_eq!(rig.leftovers(), none());
}

/// Vault 0.6.0 note: revoking secrets by prefix revoked tokens too, and the other way round.
#[tokio::test]
async fn vault_0_6_0_a_prefix_reaches_only_its_own_kind() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap();
    let similar = rig.lease(&rig.root, "root", "aws/creds-other/x", 600).await.unwrap();
    let token = rig.child(&rig.root, spec(600)).await.unwrap();
    rig.kernel.end_below("root", "aws/creds", false).await.unwrap();
    assert!(!rig.has_lease(&lease) && rig.has_lease(&similar) && rig.lets_in(&token));
    rig.kernel.end_below("root", "auth/token/crea", false).await.unwrap();
    assert!(rig.lets_in(&token));
    rig.kernel.end_below("root", "auth/token/create", false).await.unwrap();
    assert!(rig.has_lease(&similar) && !rig.lets_in(&token));
}

#[tokio::test]
async fn what_is_wrapped_ends_with_the_path_it_came_from() {
    let rig = Rig::active().await;
    let unwrap = async |info: &crate::WrapInfo| {
        text(rig.post(&info.token, "sys/wrapping/unwrap", json!({})).await).contains("is not valid")
    };
    let (inside, similar) = (rig.wrapped_at("aws/creds/x").await, rig.wrapped_at("aws/creds-other/x").await);
    rig.post("root", "sys/leases/revoke-prefix/aws/creds", json!({})).await.unwrap();
    assert!(unwrap(&inside).await && !unwrap(&similar).await);
    let forced = rig.wrapped_at("aws/creds/x").await;
    rig.post("root", "sys/leases/revoke-force/aws", json!({})).await.unwrap();
    assert!(unwrap(&forced).await);
    let late = rig.wrapped_at("aws/creds/x").await;
    rig.ask("root", Operation::Delete, "sys/mounts/aws", json!(null), None).await.unwrap();
    assert!(unwrap(&late).await);
    assert_eq!(rig.leftovers(), none());
}

#[tokio::test]
async fn at_once_means_everything_below() {
    let rig = Rig::active().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap();
    rig.break_engine(true).await;
    for body in [json!({"sync": true}), json!({})] {
        let asked = rig.post("root", "sys/leases/revoke-prefix/aws/creds", body).await;
        assert_eq!(text(asked), "some leases could not be revoked yet; they will be tried again");
    }
    assert!(rig.has_lease(&lease));
}

/// Whoever revokes and then looks finds nothing, unless waiting was not wanted: then the answer says so.
#[tokio::test]
async fn what_was_revoked_is_gone_when_that_is_answered() {
    let rig = Rig::active().await;
    let status = |answer: crate::Answer| match answer.body {
        crate::AnswerBody::Raw(raw) => raw.status,
        _ => 204,
    };
    for (path, id_goes_in_body) in
        [("sys/leases/revoke", true), ("sys/leases/revoke-prefix/aws/creds/x", false)]
    {
        for (sync, want) in [(json!(null), 204), (json!(true), 204), (json!(false), 202)] {
            let lease = rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap();
            let mut body = json!({});
            if id_goes_in_body {
                body["lease_id"] = json!(lease.id);
            }
            if !sync.is_null() {
                body["sync"] = sync;
            }
            let got = status(rig.post("root", path, body.clone()).await.unwrap());
            assert_eq!((got, rig.has_lease(&lease)), (want, want == 202), "{path} {body}");
            rig.keep_house().await;
            let shown = rig.post("root", "sys/leases/lookup", json!({"lease_id": lease.id})).await;
            assert_eq!(text(shown), "invalid lease", "{path} {body}");
        }
    }
}

/// Whoever gets less time than the role says, or than is usual, is told so with what is issued.
#[tokio::test]
async fn what_is_issued_for_less_comes_with_a_warning() {
    let rig = Rig::new().await;
    let limits = crate::tokens::Limits {
        default_ttl: Duration::from_secs(3_600),
        max_ttl: Duration::from_secs(7_200),
    };
    for (ttl, max_ttl, want) in [
        (0, 0, None),
        (7_200, 0, None),
        (10_800, 0, Some(("3h", "2h"))),
        (7_200, 3_600, Some(("2h", "1h"))),
        (0, 1_800, Some(("1h", "30m"))),
    ] {
        let grant = LeaseGrant {
            ttl: Duration::from_secs(ttl),
            max_ttl: Duration::from_secs(max_ttl),
            ..LeaseGrant::default()
        };
        let to = GrantTo { namespace_id: "root", path: "aws/creds/x", mount_uuid: "m", limits, token: None };
        let kernel = &rig.kernel;
        let granted = rig.commit(|tx| {
            kernel.leases.grant(tx, &kernel.tokens, kernel.entropy.as_ref(), rig.now(), to, &grant)
        });
        let want = want.map(|(wanted, limit)| {
            format!("TTL of {wanted:?} exceeded the effective max_ttl of {limit:?}; TTL value is capped accordingly")
        });
        assert_eq!(granted.await.unwrap().1, want.into_iter().collect::<Vec<_>>(), "{ttl} {max_ttl}");
    }
}

/// Vault 0.5.3 note: a failed revocation counted as a success.
#[tokio::test]
async fn vault_0_5_3_a_failed_revocation_keeps_the_lease() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    rig.break_engine(true).await;
    assert!(rig.kernel.revoke_lease_now("root", &lease.id).await.is_err());
    for _ in 1..ATTEMPTS_MAX {
        assert_eq!(
            rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().unwrap().state,
            LeaseState::Revoking
        );
        rig.advance(600);
        rig.keep_house().await;
    }
    let stored = rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().unwrap();
    assert_eq!((stored.state, stored.attempts), (LeaseState::Irrevocable, ATTEMPTS_MAX));
    assert!(stored.failure.contains("no route"));
    assert_eq!(rig.kernel.leases.irrevocable(&rig.view(), "root", 10).unwrap(), [stored]);
    rig.far_future();
    rig.keep_house().await;
    assert!(rig.has_lease(&lease), "only force takes it away");
    rig.kernel.end_below("root", "aws", true).await.unwrap();
    assert!(!rig.has_lease(&lease) && !rig.is_undone(&lease));
    assert_eq!(rig.leftovers(), none());
}

#[tokio::test]
async fn a_revocation_that_failed_is_tried_again() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    rig.break_engine(true).await;
    rig.advance(60);
    rig.keep_house().await;
    rig.break_engine(false).await;
    rig.keep_house().await;
    assert!(rig.has_lease(&lease), "not before its time");
    rig.advance(10);
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
}

#[tokio::test]
async fn many_leases_end_in_small_steps_across_a_failover() {
    let mut rig = Rig::new().await;
    let token = rig.child(&rig.root, spec(600)).await.unwrap();
    for _ in 0..700 {
        rig.lease(&token.entry, "root", "aws/creds/x", 600).await.unwrap();
    }
    for _ in 0..300 {
        rig.wrapped_at("aws/creds/x").await;
    }
    let tx = rig.kernel.store.begin(crate::tx::Mode::ReadWrite);
    let work = Work::ending("aws/creds", false);
    let entropy = rig.kernel.entropy.as_ref();
    let is_done = rig.kernel.leases.begin(&tx, &rig.kernel.tokens, entropy, rig.now(), "root", work).unwrap();
    assert!(!is_done);
    let set = tx.into_write_set().unwrap();
    assert!(set.writes.len() <= 4 * 256 + 2, "{} writes, the job's own included", set.writes.len());
    rig.commit(|tx| {
        let work = Work::ending("aws/creds", false);
        rig.kernel.leases.begin(tx, &rig.kernel.tokens, rig.kernel.entropy.as_ref(), rig.now(), "root", work)
    })
    .await
    .unwrap();
    rig.fail_over();
    rig.keep_house().await;
    assert!(!rig.kernel.leases.has_any_below(&rig.view(), "root", "aws/").unwrap());
    rig.far_future();
    rig.keep_house().await;
    assert_eq!(rig.leftovers(), none());
}

#[tokio::test]
async fn renewing_asks_the_engine() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    let increment = Duration::from_secs(120);
    let tx = rig.kernel.store.begin(crate::tx::Mode::ReadWrite);
    let (renewed, _) = rig.kernel.renew_lease(&tx, lease.clone(), increment).await.unwrap();
    rig.kernel.store.commit(tx).await.unwrap();
    assert_eq!(renewed.expires, rig.now().after(increment));
    rig.advance(90);
    rig.keep_house().await;
    assert!(rig.has_lease(&lease));
    rig.break_engine(true).await;
    let tx = rig.kernel.store.begin(crate::tx::Mode::ReadWrite);
    let stored = rig.kernel.leases.load(&tx, "root", &lease.id).unwrap().unwrap();
    assert!(rig.kernel.renew_lease(&tx, stored.clone(), increment).await.is_err());
    rig.advance(30);
    let late = rig.kernel.renew_lease(&tx, stored, increment).await;
    assert!(matches!(late, Err(KernelError::Invalid(_))), "an ended lease does not come back");
}

#[tokio::test]
async fn tidying_ends_leases_without_a_token() {
    let rig = Rig::new().await;
    let token = rig.child(&rig.root, spec(600)).await.unwrap();
    let lost = rig.lease(&token.entry, "root", "aws/creds/x", 600).await.unwrap();
    let kept = rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap();
    // Damage that no request could do.
    let path = format!("root/token/id/{}", token.entry.key);
    rig.commit(|tx| Ok(tx.delete(arca_barrier::Class::Local, &path)?)).await.unwrap();
    rig.commit(|tx| {
        let entropy = rig.kernel.entropy.as_ref();
        rig.kernel.leases.begin(tx, &rig.kernel.tokens, entropy, rig.now(), "root", Work::TidyLeases)
    })
    .await
    .unwrap();
    rig.keep_house().await;
    assert!(!rig.has_lease(&lost) && rig.has_lease(&kept));
}

const HALF_HOUR: u64 = 1_800;

#[tokio::test]
async fn a_clock_set_forward_ends_nothing_for_good() {
    let rig = Rig::new().await;
    let hour = Duration::from_secs(3_600);
    let token = rig.child(&rig.root, spec(HALF_HOUR)).await.unwrap();
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", HALF_HOUR).await.unwrap();
    rig.clock.set_forward(hour);
    rig.keep_house().await;
    assert!(rig.has_lease(&lease) && !rig.lets_in(&token), "not good by this clock, but not gone");
    rig.clock.set_back(hour);
    rig.keep_house().await;
    assert!(rig.has_lease(&lease) && rig.lets_in(&token), "as if nothing had been");
    rig.clock.set_forward(hour);
    rig.keep_house().await;
    rig.advance(HALF_HOUR);
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease), "its time has really passed");
    assert_eq!(rig.leftovers(), none());
}

#[tokio::test]
async fn a_clock_set_forward_is_believed_in_the_end() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 2 * HALF_HOUR + 60).await.unwrap();
    rig.clock.set_forward(Duration::from_secs(2 * HALF_HOUR));
    rig.keep_house().await;
    rig.advance(2 * HALF_HOUR - 1);
    rig.keep_house().await;
    assert!(rig.has_lease(&lease));
    rig.advance(1);
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
}

#[tokio::test]
async fn what_is_revoked_by_request_goes_whatever_the_clock_says() {
    let mut rig = Rig::new().await;
    let token = rig.child(&rig.root, spec(10 * HALF_HOUR)).await.unwrap();
    let lease = rig.lease(&token.entry, "root", "aws/creds/x", 10 * HALF_HOUR).await.unwrap();
    rig.clock.set_forward(Duration::from_secs(HALF_HOUR));
    rig.commit(|tx| rig.kernel.tokens.revoke_tree(tx, &token.entry.reference(), rig.now())).await.unwrap();
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease) && !rig.lets_in(&token));
    // The next active node's clock was right: what was revoked by the wrong one is due there as well.
    let token = rig.child(&rig.root, spec(10 * HALF_HOUR)).await.unwrap();
    rig.commit(|tx| rig.kernel.tokens.revoke_tree(tx, &token.entry.reference(), rig.now())).await.unwrap();
    rig.clock.set_back(Duration::from_secs(HALF_HOUR));
    rig.fail_over();
    rig.keep_house().await;
    assert_eq!(rig.leftovers(), none());
}

#[tokio::test]
async fn a_clock_set_back_ends_nothing_early() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", HALF_HOUR).await.unwrap();
    rig.clock.set_back(Duration::from_secs(2 * HALF_HOUR));
    rig.keep_house().await;
    rig.advance(2 * HALF_HOUR);
    rig.keep_house().await;
    assert!(rig.has_lease(&lease));
    rig.advance(HALF_HOUR);
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
}

#[tokio::test]
async fn what_cannot_be_handled_holds_up_nothing_behind_it() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    let token = rig.child(&rig.root, spec(60)).await.unwrap();
    // Damage that no request could do: more records that do not parse than are looked at in one go.
    rig.commit(|tx| {
        for number in 0..1_100 {
            let kind = if number % 2 == 0 { "token" } else { "lease" };
            let path = format!("root/{kind}/id/damaged{number}");
            tx.put(Class::Local, &path, b"?".to_vec().into())?;
            tx.put_timed(Class::Local, TimedIndex::LeaseDeadline, rig.now(), &path)?;
        }
        Ok(())
    })
    .await
    .unwrap();
    rig.advance(60);
    rig.keep_house().await;
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
    assert!(rig.kernel.tokens.load(&rig.view(), &token.entry.reference()).unwrap().is_none());
}

#[tokio::test]
async fn an_engine_that_does_not_answer_keeps_only_its_own_leases_waiting() {
    let rig = Rig::new().await;
    rig.mount("gcp", EngineKind::Secrets).await;
    let mut stuck = Vec::new();
    for _ in 0..100 {
        stuck.push(rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap());
    }
    rig.advance(1);
    let other = rig.lease(&rig.root, "root", "gcp/creds/x", 60).await.unwrap();
    let token = rig.child(&rig.root, spec(60)).await.unwrap();
    rig.flag_engine("hung", true).await;
    rig.advance(60);
    let mut leases = std::pin::pin!(rig.kernel.expire_leases());
    for _ in 0..100 {
        assert!(futures::poll!(leases.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    assert!(rig.is_undone(&other) && !rig.has_lease(&other));
    assert!(stuck.iter().all(|lease| rig.has_lease(lease)));
    rig.kernel.expire_tokens().await.unwrap();
    assert!(rig.kernel.tokens.load(&rig.view(), &token.entry.reference()).unwrap().is_none());
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_no_matter_of_other_mounts() {
    let rig = Rig::new().await;
    rig.mount("gcp", EngineKind::Secrets).await;
    rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    let other = rig.lease(&rig.root, "root", "gcp/creds/x", 600).await.unwrap();
    rig.flag_engine("hung", true).await;
    rig.advance(60);
    let mut disabling = std::pin::pin!(rig.kernel.end_below("root", "gcp/", false));
    for _ in 0..1_000 {
        if let std::task::Poll::Ready(ended) = futures::poll!(disabling.as_mut()) {
            ended.unwrap();
            assert!(!rig.has_lease(&other) && rig.is_undone(&other));
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it waits for the other engine");
}

#[test]
fn a_token_lease_names_its_token() {
    let key = "0123456789abcdef".repeat(4);
    assert_eq!(token_key_of(&format!("auth/token/create/h{key}")), Some(key.as_str()));
    assert_eq!(token_key_of(&format!("auth/token/create/h{key}.n1")), Some(key.as_str()));
    for id in ["auth/token/create/hxyz", "aws/creds/x/AbCdEfGhIjKlMnOpQrStUvWx", "", "h"] {
        assert_eq!(token_key_of(id), None, "{id}");
    }
}

/// Whoever revokes a great many leases sees how far that is, until the last one is undone.
#[tokio::test]
async fn work_on_many_leases_shows_how_far_it_is() {
    let rig = Rig::active().await;
    for _ in 0..600 {
        rig.lease(&rig.root, "root", "aws/creds/a", 3_600).await.unwrap();
    }
    let shown = async || {
        let data = rig.get("root", "sys/leases/jobs").await.unwrap().data.unwrap();
        data["key_info"].as_object().unwrap().values().next().cloned()
    };
    assert_eq!(shown().await, None);
    rig.post("root", "sys/leases/revoke-prefix/aws/creds", json!({"sync": false})).await.unwrap();
    let begun = shown().await.unwrap();
    assert_eq!(
        (&begun["state"], &begun["ended"], &begun["left"]),
        (&json!("ending"), &json!(256), &json!(600))
    );
    rig.kernel.expire_tokens().await.unwrap();
    let marked = shown().await.unwrap();
    assert_eq!(
        (&marked["state"], &marked["ended"], &marked["left"]),
        (&json!("undoing"), &json!(600), &json!(600))
    );
    rig.keep_house().await;
    assert_eq!(shown().await.unwrap()["left"], 0);
    rig.advance(3);
    rig.keep_house().await;
    assert_eq!(shown().await, None);
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

/// Whoever asks for a revocation need not wait until it is tried again.
#[tokio::test(start_paused = true)]
async fn a_lease_that_waits_for_its_next_attempt_can_be_revoked_by_asking() {
    let rig = Rig::active().await;
    for path in ["sys/leases/revoke", "sys/leases/revoke-prefix/aws"] {
        let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
        rig.break_engine(true).await;
        for _ in 0..4 {
            rig.advance(600);
            rig.keep_house().await;
        }
        rig.break_engine(false).await;
        rig.keep_house().await;
        assert!(rig.has_lease(&lease), "not by itself before its time");
        rig.post("root", path, json!({"lease_id": lease.id, "sync": false})).await.unwrap();
        let stored = rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().unwrap();
        assert_eq!((stored.queued, stored.attempts), (Some(FIRST_IN_LINE), 0), "{path}");
        rig.keep_house().await;
        assert!(!rig.has_lease(&lease) && rig.is_undone(&lease), "{path}");
    }
    assert_eq!(rig.leftovers(), none());
}

/// A mount that cannot go yet is looked at every few seconds: that is nobody's wish to try everything at once.
#[tokio::test(start_paused = true)]
async fn a_mount_that_waits_to_go_keeps_the_pauses_between_attempts() {
    let rig = Rig::active().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    rig.break_engine(true).await;
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    let mount = std::sync::Arc::clone(router.at("aws/").unwrap());
    for _ in 0..4 {
        assert!(rig.kernel.revoke_mount(&mount).await.is_err());
    }
    let stored = rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().unwrap();
    assert_eq!(stored.attempts, 1);
}

/// A lease whose end has begun has no time left, whatever it was granted.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_being_revoked_is_shown_as_ended() {
    let rig = Rig::active().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap();
    rig.advance(10);
    rig.break_engine(true).await;
    let ended = rig.now();
    rig.post("root", "sys/leases/revoke", json!({"lease_id": lease.id, "sync": false})).await.unwrap();
    rig.keep_house().await;
    rig.advance(5);
    let shown = rig.post("root", "sys/leases/lookup", json!({"lease_id": lease.id})).await.unwrap();
    let shown = shown.data.unwrap();
    assert_eq!((&shown["ttl"], &shown["renewable"]), (&json!(0), &json!(false)));
    assert_eq!(shown["expire_time"], json!(crate::rfc3339::format(ended)));
}

/// A job is at its end once everything is undone, wherever among the leases the last one lies.
#[tokio::test(start_paused = true)]
async fn a_job_goes_on_while_anything_is_being_undone() {
    let rig = Rig::active().await;
    let (mut leases, count) = (Vec::new(), 600);
    for _ in 0..count {
        leases.push(rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap());
    }
    rig.break_engine(true).await;
    rig.post("root", "sys/leases/revoke-prefix/aws", json!({"sync": false})).await.unwrap();
    rig.keep_house().await;
    let jobs = || rig.kernel.leases.jobs(&rig.view(), "root").unwrap();
    assert_eq!(jobs().len(), 1);
    // All but the last in the order of the store cannot be undone for good.
    let folder = id_path("root", "aws/");
    let paths = rig.view().some_below(Class::Local, &folder, count).unwrap();
    let last = paths.last().unwrap().clone();
    for lease in leases.iter().filter(|lease| id_path("root", &lease.id) != last) {
        for _ in 0..ATTEMPTS_MAX {
            let stored = rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().unwrap();
            if stored.state == LeaseState::Revoking {
                rig.commit(|tx| rig.kernel.leases.put_off(tx, stored, "no", rig.now())).await.unwrap();
            }
        }
    }
    rig.advance(3);
    rig.keep_house().await;
    let progress = jobs();
    assert!(progress.len() == 1 && progress[0].1.is_marked, "{progress:?}");
    rig.break_engine(false).await;
    rig.advance(600);
    rig.keep_house().await;
    rig.advance(3);
    rig.keep_house().await;
    assert!(jobs().is_empty());
}

/// One look after everything at a time.
#[tokio::test(start_paused = true)]
async fn tidying_is_begun_once() {
    let rig = Rig::active().await;
    for _ in 0..300 {
        rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap();
        rig.child(&rig.root, spec(600)).await.unwrap();
    }
    let warning = |answer: crate::Answer| {
        let crate::AnswerBody::Raw(raw) = answer.body else { panic!("no raw body") };
        let body: serde_json::Value = serde_json::from_slice(&raw.body).unwrap();
        assert_eq!(raw.status, 202);
        body["warnings"][0].as_str().unwrap().to_owned()
    };
    for path in ["sys/leases/tidy", "auth/token/tidy"] {
        let tidy = || rig.post("root", path, json!({}));
        assert!(warning(tidy().await.unwrap()).starts_with("Tidy operation successfully started."), "{path}");
        for _ in 0..3 {
            let warnings = tidy().await.unwrap().warnings;
            assert_eq!(warnings, ["Tidy operation already in progress."], "{path}");
        }
    }
    assert_eq!(rig.kernel.leases.jobs(&rig.view(), "root").unwrap().len(), 2);
    rig.keep_house().await;
    assert!(rig.kernel.leases.jobs(&rig.view(), "root").unwrap().is_empty());
}
