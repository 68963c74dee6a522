//! Nothing waits for a lane that is busy, and jobs do not run ahead of those who undo what they ended.

use std::pin::Pin;
use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::EngineKind;
use serde_json::json;

use super::FIRST_IN_LINE;
use crate::KernelError;
use crate::leases::jobs::{Work, job_path};
use crate::tokens::rig::{Rig, spec};

/// Lets housekeeping go on for a second, in which it does not come to an end.
async fn go_on(due: &mut Pin<&mut impl Future<Output = Result<usize, KernelError>>>) {
    tokio::select! {
        biased;
        ended = due.as_mut() => panic!("it ended: {ended:?}"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn what_falls_due_meanwhile_does_not_wait_for_an_engine_that_hangs() {
    let rig = Rig::new().await;
    rig.mount("gcp", EngineKind::Secrets).await;
    let mut stuck = Vec::new();
    for _ in 0..200 {
        stuck.push(rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap());
    }
    rig.flag_engine("hung", true).await;
    rig.advance(60);
    let mut due = std::pin::pin!(rig.kernel.expire_due());
    go_on(&mut due).await;
    for _ in 0..3 {
        let other = rig.lease(&rig.root, "root", "gcp/creds/x", 5).await.unwrap();
        let token = rig.child(&rig.root, spec(5)).await.unwrap();
        rig.advance(5);
        go_on(&mut due).await;
        assert!(rig.is_undone(&other) && !rig.has_lease(&other));
        assert!(rig.kernel.tokens.load(&rig.view(), &token.entry.reference()).unwrap().is_none());
    }
    assert!(stuck.iter().all(|lease| rig.has_lease(lease)));
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_those_who_undo_what_it_ended() {
    const COUNT: u64 = 9_000;
    let rig = Rig::new().await;
    for _ in 0..COUNT / 500 {
        rig.commit(|tx| {
            for _ in 0..500 {
                rig.stage_lease(tx, &rig.root, "root", "aws/creds/x", 3_600)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    }
    rig.flag_engine("hung", true).await;
    rig.commit(|tx| {
        let work = Work::ending("aws/creds", false);
        rig.kernel.leases.begin(tx, &rig.kernel.tokens, rig.kernel.entropy.as_ref(), rig.now(), "root", work)
    })
    .await
    .unwrap();
    let ended = || rig.kernel.leases.jobs(&rig.view(), "root").unwrap().first().map(|(_, job)| job.ended);
    {
        let mut due = std::pin::pin!(rig.kernel.expire_due());
        go_on(&mut due).await;
        let ahead = ended().unwrap();
        assert!((4_096..7_000).contains(&ahead), "{ahead} ended, none of them undone");
        let token = rig.child(&rig.root, spec(5)).await.unwrap();
        rig.advance(5);
        go_on(&mut due).await;
        assert_eq!(ended(), Some(ahead));
        assert!(rig.kernel.tokens.load(&rig.view(), &token.entry.reference()).unwrap().is_none());
    }
    rig.flag_engine("hung", false).await;
    rig.keep_house().await;
    rig.advance(3);
    rig.keep_house().await;
    assert_eq!(ended(), None);
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

/// Earlier versions went on with the tokens of a path without forgetting where they had ended its leases.
#[tokio::test]
async fn a_job_of_an_earlier_version_stays_in_its_folder() {
    let rig = Rig::new().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 600).await.unwrap();
    let token = rig.child(&rig.root, spec(600)).await.unwrap();
    let path = job_path("root", "early");
    for after in ["root/lease/id/aws/creds/x/a", "root/token/accessor/a", "root/lease/token/a"] {
        let work = json!({"do": "revoke-tokens", "prefix": "aws/creds/"});
        rig.commit(|tx| {
            tx.put_record(Class::Local, &path, &json!({"work": work, "queued": 0, "after": after}))?;
            Ok(tx.put_timed(Class::Local, TimedIndex::LeaseDeadline, FIRST_IN_LINE, &path)?)
        })
        .await
        .unwrap();
        rig.keep_house().await;
        assert!(rig.has_lease(&lease) && rig.lets_in(&token));
    }
}

/// As the list of revoked certificates: 300 of them were taken away three a second.
#[tokio::test(start_paused = true)]
async fn leases_about_which_one_record_is_kept_do_not_wait_for_each_other() {
    const COUNT: u64 = 300;
    let rig = Rig::new().await;
    let path = format!("{}counted", rig.aws_prefix());
    rig.commit(|tx| Ok(tx.put_record(Class::Replicated, &path, &0_u64)?)).await.unwrap();
    for _ in 0..COUNT {
        rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    }
    rig.advance(60);
    let began = tokio::time::Instant::now();
    rig.kernel.expire_due().await.unwrap();
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
    assert_eq!(rig.view().get_record::<u64>(Class::Replicated, &path).unwrap(), Some(COUNT));
    assert!(began.elapsed() < Duration::from_secs(2), "they waited for {:?}", began.elapsed());
}
