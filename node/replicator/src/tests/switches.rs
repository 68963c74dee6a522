//! Who is the primary, and who knows it: promotions, fences, and orders that would make two of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_barrier::Class;
use arca_kernel::replication::{
    Kind, Mode, Promotion, ReplicationPort as _, RoleRecord, SecondaryUpdate, Serves,
};
use arca_raft_storage::{Replica as _, Version};
use arca_replication::{Announcement, Call, Epoch, LinkError, Refusal, load_cursor};
use serde_json::json;

use super::region::{Region, refused};
use crate::records::announcement_path;
use crate::shipped;

impl Region {
    async fn promote(&self, promotion: Promotion) -> Result<(), arca_kernel::KernelError> {
        self.port().promote_secondary(Kind::Dr, String::new(), promotion).await
    }

    fn is_announcing(&self) -> bool {
        self.tx().version(Class::Node, &announcement_path(Kind::Dr)).unwrap() != Version::ABSENT
    }
}

/// What was only heard is gone with the member that heard it, and nobody would say it again.
#[tokio::test(start_paused = true)]
async fn a_promotion_is_taken_as_told_once_the_fence_is_on_disk() {
    let (east, west) = Region::pair().await;
    let link = west.port().link_to(&west.stored_role()).unwrap();
    let news = Announcement { epoch: Epoch(2), followed: west.cursor(), ..Announcement::default() };
    let announce = || link.call(Call::Announce, news.encode().into());
    let room = east.vfs.used() + (1 << 20);
    east.vfs.set_capacity(room);
    // Until the member has seen that its disk is full.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let told = announce().await;
    assert!(matches!(told, Err(LinkError::Refused(Refusal::Busy(_)))), "{told:?}");
    assert_eq!(east.stored_role().fence, None);
    east.vfs.set_capacity(1 << 40);
    tokio::time::sleep(Duration::from_secs(5)).await;
    announce().await.unwrap();
    assert_eq!(
        east.stored_role().fence.map(|fence| fence.epoch),
        Some(2),
        "it stands written when it is answered"
    );
    assert!(east.write("late").await.unwrap_err().contains("no longer the primary"));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_is_announced_until_the_old_primary_says_that_it_is_over() {
    let (mut east, west) = Region::pair().await;
    east.set_cut(true);
    west.promote(Promotion::Ordinary).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(west.is_announcing());
    let status = west.port().status(Kind::Dr).unwrap();
    assert!(status["pending"][0].as_str().unwrap().contains("the old primary"), "{status:?}");
    east.write("tail/1").await.unwrap();
    east.set_cut(false);
    east.until("the fence", |east| east.stored_role().fence.is_some()).await;
    west.until("the answer", |west| !west.is_announcing()).await;
    assert_eq!(west.port().status(Kind::Dr).unwrap()["pending"], json!([]));
    // It serves nobody after a restart, either, and is not made a second primary.
    east.restart().await;
    let admits = |east: &Region| east.port().source.admit("west", crate::shipped(Kind::Dr));
    east.until("the fence, read again", |east| admits(east) == Err(Refusal::Fenced(Epoch(2)))).await;
    let text = refused(east.port().disable_primary(Kind::Dr)).await;
    assert!(text.contains("another cluster is the primary since epoch 2"), "{text}");
    east.port().demote_primary(Kind::Dr).await.unwrap();
    let text = refused(east.promote(Promotion::Ordinary)).await;
    assert!(text.contains("has taken over from this one"), "{text}");
}

/// Whatever was acknowledged before the fence and never shipped is in the list, also what was in flight with it.
#[tokio::test(start_paused = true)]
async fn the_tail_ends_with_the_fence_itself() {
    let (east, west) = Region::pair().await;
    let link = west.port().link_to(&west.stored_role()).unwrap();
    let news = Announcement { epoch: Epoch(2), followed: west.cursor(), ..Announcement::default() };
    let names: Vec<String> = (0..64).map(|n| format!("tail/{n}")).collect();
    let writes = futures::future::join_all(names.iter().map(|name| east.write(name)));
    let (written, told) = tokio::join!(writes, link.call(Call::Announce, news.encode().into()));
    told.unwrap();
    let tail = east.port().tail(Kind::Dr, None, 1_000).await.unwrap();
    let shown: Vec<_> = tail["writes"].as_array().unwrap().iter().map(|row| row["path"].clone()).collect();
    let kept: Vec<_> =
        names.iter().zip(&written).filter(|(_, done)| done.is_ok()).map(|(name, _)| name).collect();
    assert!(!kept.is_empty());
    for name in kept {
        assert!(shown.contains(&json!(name)), "{name} of {tail:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_planned_switch_takes_everything_along_into_an_epoch_of_its_own() {
    let (east, west) = Region::pair().await;
    east.write("last").await.unwrap();
    east.port().demote_primary(Kind::Dr).await.unwrap();
    west.promote(Promotion::Planned).await.unwrap();
    assert!(west.has("last"));
    assert_eq!((east.stored_role().epoch, west.stored_role().epoch), (2, 3));
    // The one that was demoted is told, and remembers.
    west.until("the answer", |west| !west.is_announcing()).await;
    assert_eq!(east.stored_role().fence.map(|fence| fence.epoch), Some(3));
    let text = refused(east.promote(Promotion::Ordinary)).await;
    assert!(text.contains("since epoch 3 (at west:1)"), "{text}");
    east.promote(Promotion::Forced).await.unwrap();
    assert_eq!(east.stored_role().epoch, 4, "never two primaries of one epoch");
}

/// What was written last may be with a primary that does not answer: gone from both, if its role were taken.
#[tokio::test(start_paused = true)]
async fn a_planned_promotion_takes_nothing_on_trust() {
    let (east, west) = Region::pair().await;
    let planned = async || refused(west.promote(Promotion::Planned)).await;
    assert!(planned().await.contains("demote it first"));
    east.set_cut(true);
    assert!(planned().await.contains("does not answer"));
    east.write("last").await.unwrap();
    east.port().demote_primary(Kind::Dr).await.unwrap();
    assert!(planned().await.contains("does not answer"));
    assert_eq!(west.stored_role().mode, Mode::Secondary);
    east.set_cut(false);
    west.promote(Promotion::Planned).await.unwrap();
    assert!(west.has("last"));
}

/// A node that lost its cluster still says what that was: found by killing a primary's nodes while it was being demoted.
#[tokio::test(start_paused = true)]
async fn what_a_node_without_a_leader_says_of_its_primary_is_not_relied_on() {
    let (east, west) = Region::pair().await;
    east.world.is_leaderless.store(true, Ordering::SeqCst);
    let text = refused(west.promote(Promotion::Ordinary)).await;
    assert!(text.contains("knows of no active node"), "{text}");
    east.port().demote_primary(Kind::Dr).await.unwrap();
    assert!(refused(west.promote(Promotion::Ordinary)).await.contains("knows of no active node"));
    east.world.is_leaderless.store(false, Ordering::SeqCst);
    west.promote(Promotion::Ordinary).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_revoked_its_secondary_is_not_taken_for_one_that_is_gone() {
    let (east, west) = Region::pair().await;
    east.port().revoke_secondary(Kind::Dr, "west").await.unwrap();
    let text = refused(west.promote(Promotion::Ordinary)).await;
    assert!(text.contains("has revoked this secondary"), "{text}");
    assert_eq!(west.stored_role().mode, Mode::Secondary);
    west.promote(Promotion::Forced).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(west.is_announcing(), "nobody listens there, which is not to have been told");
}

#[tokio::test(start_paused = true)]
async fn a_copy_does_not_go_on_by_itself_beside_its_primary() {
    let (east, west) = Region::pair().await;
    let disable = |is_forced| west.port().disable_secondary(Kind::Dr, is_forced);
    let text = refused(disable(false)).await;
    assert!(text.contains("its primary answers and is at work"), "{text}");
    east.set_cut(true);
    let text = refused(disable(false)).await;
    assert!(text.contains("does not answer, and may be at work"), "{text}");
    assert_eq!(west.stored_role().mode, Mode::Secondary);
    east.set_cut(false);
    east.port().demote_primary(Kind::Dr).await.unwrap();
    disable(false).await.unwrap();
    assert_eq!(west.stored_role().mode, Mode::Disabled);
    let text = refused(east.port().disable_secondary(Kind::Dr, false)).await;
    assert!(text.contains("it knows no primary"), "{text}");
    east.port().disable_secondary(Kind::Dr, true).await.unwrap();
}

/// After a failover the role of the cluster that came back is of a newer epoch than anything that its primary says.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_came_back_can_be_told_to_compare_again() {
    let (east, west) = Region::pair().await;
    west.promote(Promotion::Forced).await.unwrap();
    east.until("the fence", |east| east.stored_role().fence.is_some()).await;
    east.port().demote_primary(Kind::Dr).await.unwrap();
    east.follow(&west).await;
    assert_eq!((east.stored_role().epoch, east.cursor().epoch), (3, Epoch(2)));
    east.port().reindex(Kind::Dr).await.unwrap();
    west.write("after").await.unwrap();
    east.catch_up_with(&west).await;
    assert!(east.has("after"));
}

/// The nodes' own addresses may mean nothing where the secondary is.
#[tokio::test(start_paused = true)]
async fn an_address_that_an_operator_gave_stays_known() {
    let (_east, west) = Region::pair().await;
    west.world.aliases.lock().insert("nat:1".to_owned(), "east:1".to_owned());
    let update = SecondaryUpdate::Addresses(vec!["nat:1".to_owned()]);
    west.port().update_primary(Kind::Dr, update).await.unwrap();
    let known = ["east:1".to_owned(), "nat:1".to_owned()];
    west.until("the addresses", |west| west.stored_role().upstream.unwrap().addresses == known).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(west.stored_role().upstream.unwrap().addresses, known);
    let status = west.port().status(Kind::Dr).unwrap();
    assert_eq!(status["known_primary_cluster_addrs"], json!(["https://east:1", "https://nat:1"]));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_state_changes_nothing() {
    let (east, west) = Region::pair().await;
    let north = Region::open(&east.world, "north").await;
    north.port().enable_primary(Kind::Dr, String::new()).await.unwrap();
    let before = west.stored_role();
    let update = SecondaryUpdate::Token(north.token("west").await);
    let text = refused(west.port().update_primary(Kind::Dr, update)).await;
    assert!(text.contains("of a cluster with another state"), "{text}");
    assert_eq!(west.stored_role(), before);
    east.write("after").await.unwrap();
    west.catch_up_with(&east).await;
    assert!(west.has("after"));
}

/// Nothing of a term without a generation is told, and what a demoted primary wrote last may be told in a later term.
#[tokio::test(start_paused = true)]
async fn a_planned_switch_outlives_an_election_at_the_demoted_primary() {
    let (mut east, west) = Region::pair().await;
    east.set_cut(true);
    east.write("last").await.unwrap();
    east.port().demote_primary(Kind::Dr).await.unwrap();
    let term = east.replica.status().term;
    east.elect().await;
    assert!(east.replica.status().term > term);
    east.set_cut(false);
    west.promote(Promotion::Ordinary).await.unwrap();
    assert!(west.has("last"));
}

/// A performance secondary may have a DR secondary of its own: promoted, that follows the same primary once it is told where
/// that is, and until then writes nothing that is shared.
#[tokio::test(start_paused = true)]
async fn who_takes_over_from_a_performance_secondary_is_one() {
    let (east, west) = Region::pair().await;
    let follows = RoleRecord {
        mode: Mode::Secondary,
        replication_id: "of another".to_owned(),
        epoch: 5,
        ..RoleRecord::default()
    };
    let commit = |role: RoleRecord| {
        east.port().commit(move |tx| {
            role.store(tx, Kind::Performance)?;
            Ok(Vec::new())
        })
    };
    commit(follows.clone()).await.unwrap();
    let said = |region: &Region| region.tx().version(Class::Local, "root/core/replication/beside").unwrap();
    east.until("the entry", |east| said(east) != Version::ABSENT).await;
    west.catch_up_with(&east).await;
    east.set_cut(true);
    west.promote(Promotion::Ordinary).await.unwrap();
    assert_eq!(RoleRecord::load(&west.tx(), Kind::Performance).unwrap(), follows);
    let (cursor, at) = load_cursor(west.replica.view().as_ref(), shipped(Kind::Performance)).unwrap();
    assert!(cursor.is_unknown() && at != Version::ABSENT, "it compares, wherever it had followed before");
    assert_eq!(*west.now.kernel.standing().serves(), Serves::PerformanceSecondary);
    // Whoever follows nobody any more says so.
    commit(RoleRecord { epoch: 6, ..RoleRecord::default() }).await.unwrap();
    east.until("the end of it", |east| said(east) == Version::ABSENT).await;
}

/// Quorum fencing, over the link: what is heard counts, whoever it was that asked for something.
#[tokio::test(start_paused = true)]
async fn a_bounded_primary_stops_while_it_is_cut_off() {
    let (east, west) = Region::pair().await;
    let bound = |seconds| east.port().configure_primary(Kind::Dr, Duration::from_secs(seconds));
    bound(20).await.unwrap();
    east.write("a").await.unwrap();
    east.set_cut(true);
    east.clock.advance(Duration::from_secs(21));
    let text = east.write("b").await.unwrap_err();
    assert!(text.contains("no DR secondary for 20 seconds"), "{text}");
    let status = east.port().status(Kind::Dr).unwrap();
    assert_eq!((&status["state"], &status["fence_after"]), (&json!("fenced"), &json!(20)));
    let text = refused(bound(5)).await;
    assert!(text.contains("no DR secondary has been heard for 5 seconds"), "{text}");
    let text = refused(east.port().revoke_secondary(Kind::Dr, "west")).await;
    assert!(text.contains("the only DR secondary that is heard"), "{text}");
    east.set_cut(false);
    east.until("a word of the secondary", |east| !east.now.kernel.standing().is_fenced()).await;
    east.write("c").await.unwrap();
    west.catch_up_with(&east).await;
    east.port().demote_primary(Kind::Dr).await.unwrap();
    west.promote(Promotion::Ordinary).await.unwrap();
    assert_eq!(west.stored_role().fence_after_s, 0, "it is followed by nobody yet");
    bound(0).await.unwrap_err();
}

/// One that is not there keeps nobody waiting.
#[tokio::test(start_paused = true)]
async fn secondaries_that_are_there_are_waited_for() {
    let (east, west) = Region::pair().await;
    let patience = Duration::from_secs(10);
    let reached = async |index| east.port().await_secondaries(Kind::Dr, index, patience).await.unwrap();
    let index = east.write("a").await.unwrap();
    assert_eq!(reached(index).await, 1);
    assert!(west.has("a"));
    assert_eq!(reached(index + 1_000_000).await, 0, "it does not have that");
    east.set_cut(true);
    east.clock.advance(Duration::from_secs(60));
    assert_eq!(reached(index).await, 0, "nobody was heard for a minute");
}
