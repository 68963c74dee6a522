//! Where following would mean to guess, it stops and says why.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_raft_storage::kv::ModelHome;
use arca_raft_storage::{Changes, MemberId, Replica as _, Write};
use tokio::time::sleep;

use super::region::{Region, dr_sieve, key};
use super::road::Road;
use super::shipping::pair;
use crate::{
    Announcement, Answer, Call, Cursor, CursorMessage, Ended, Epoch, History, Kind, Link as _, LinkError,
    Primary, Refusal, Segment, State, codec::Reader, cursor_key, forget_cursor,
};

#[tokio::test(start_paused = true)]
async fn a_primary_whose_disks_were_put_back_is_refused_and_explained() {
    let (mut east, west, road) = pair(1).await;
    let id = MemberId(1);
    east.write(key(1, "a"), b"before").await;
    west.catch_up_with(&east).await;
    // From here on nothing really reaches the disk.
    east.nodes[&id].vfs.lie_on_sync(true);
    for n in 0..5 {
        east.write(key(1, "a"), &[n]).await;
    }
    west.catch_up_with(&east).await;
    let had = west.cursor().await.index;
    east.crash(id).await;
    east.nodes.get_mut(&id).unwrap().home = Arc::new(ModelHome::new());
    east.start(id).await;
    assert_eq!(east.leader().await.view().get(&key(1, "a")).unwrap().unwrap().value, b"before");
    // It writes on, past where the secondary is.
    for n in 0..20 {
        east.write(key(1, "b"), &[n]).await;
    }
    assert!(east.leader().await.view().index() > had);
    let Ended::Refused(Refusal::Forked(text)) = west.ended().await else { panic!() };
    assert!(text.contains("put back to an older state") && text.contains("update-primary"), "{text}");
    assert_eq!(west.leader().await.view().get(&key(1, "a")).unwrap().unwrap().value, [4]);
    assert_eq!(west.said.copies.load(Ordering::Relaxed), 1, "nothing was copied");
    let status = west.said.status.lock().clone();
    assert_eq!(status.state, State::Idle);
    assert_eq!(status.ended, Some(west.ended().await));

    // An operator's order stores an unknown cursor, and it goes on by a comparison.
    let mut west = west;
    forget_cursor(west.leader().await.as_ref(), Kind::Dr).await.unwrap();
    west.follow(&road);
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
}

#[tokio::test(start_paused = true)]
async fn another_cluster_s_history_is_a_fork() {
    let (_east, mut west, _road) = pair(1).await;
    let mut north = Region::new("north", 1).await;
    let road = Road::new("west", dr_sieve());
    north.lead(1, std::slice::from_ref(&road)).await;
    for n in 0..50 {
        north.write(key(1, "n"), &[n]).await;
    }
    for id in west.running() {
        west.crash(id).await;
        west.follow(&road);
        west.start(id).await;
    }
    let ended = west.ended().await;
    assert!(
        matches!(&ended, Ended::Refused(Refusal::Forked(text)) if text.contains("never had")),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_that_a_backup_replaced_is_refused() {
    let (east, west, _road) = pair(1).await;
    let leader = east.leader().await;
    let backup = leader.export().await.unwrap();
    east.write(key(1, "a"), b"now").await;
    west.catch_up_with(&east).await;
    leader.import(backup).await.unwrap();
    east.write(key(1, "b"), b"after").await;
    assert_eq!(west.ended().await, Ended::Refused(Refusal::Replaced));
    let view = west.leader().await.view();
    assert_eq!(view.get(&key(1, "a")).unwrap().unwrap().value, b"now");
    assert!(view.get(&key(1, "b")).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_secondary_is_cut_off_at_once() {
    let (mut east, west, road) = pair(1).await;
    east.set_primary(Some(Primary { epoch: Epoch(1), ..Primary::default() }));
    east.write(key(1, "a"), b"secret").await;
    assert_eq!(west.ended().await, Ended::Refused(Refusal::Revoked));
    assert!(west.leader().await.view().get(&key(1, "a")).unwrap().is_none());
    for source in east.sources() {
        assert_eq!(source.secondaries(Kind::Dr), []);
    }
    let asked = road.call(Call::Acknowledge, CursorMessage(west.cursor().await).encode().into()).await;
    assert_eq!(asked, Err(LinkError::Refused(Refusal::Revoked)));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_primary_any_more_ships_nothing() {
    let (mut east, west, _road) = pair(1).await;
    east.set_primary(None);
    assert_eq!(west.ended().await, Ended::Refused(Refusal::NotPrimary));
}

#[tokio::test(start_paused = true)]
async fn a_primary_hears_of_a_newer_epoch_and_ships_nothing_more() {
    let (mut east, west, road) = pair(3).await;
    let followed = west.cursor().await;
    let announce = |epoch| {
        let (addresses, epoch) = (vec!["west:1".to_owned()], Epoch(epoch));
        road.call(Call::Announce, Announcement { epoch, addresses, followed }.encode().into())
    };
    assert_eq!(announce(0).await, Err(LinkError::Refused(Refusal::Fenced(Epoch(1)))));
    let far = announce(u64::MAX).await;
    assert!(matches!(&far, Err(LinkError::Refused(Refusal::Malformed(text))) if text.contains("cannot be")));
    let both = announce(1).await;
    assert!(matches!(&both, Err(LinkError::Refused(Refusal::Forked(text))) if text.contains("two clusters")));
    assert!(east.sources().iter().all(|source| source.heard().borrow().is_empty()));
    for _ in east.running() {
        let answer = announce(2).await.unwrap();
        assert_eq!(Answer::decode(&mut Reader::new(answer)).unwrap().epoch, Epoch(1));
    }
    for source in east.sources() {
        let heard = source.heard().borrow().get(&Kind::Dr).cloned().unwrap();
        assert_eq!((heard.epoch, heard.addresses), (Epoch(2), vec!["west:1".to_owned()]));
        assert_eq!(heard.followed, Some(followed));
    }
    east.write(key(1, "tail"), b"unshipped").await;
    assert_eq!(west.ended().await, Ended::Refused(Refusal::Fenced(Epoch(2))));
    assert!(west.leader().await.view().get(&key(1, "tail")).unwrap().is_none());
    // Once it is primary again, in an epoch that is newer, all is forgotten.
    let secondaries = ["west".to_owned()].into();
    east.set_primary(Some(Primary { epoch: Epoch(3), secondaries, fence: None }));
    assert!(east.sources().iter().all(|source| source.heard().borrow().is_empty()));
    let mut west = west;
    west.follow(&road);
    west.catch_up_with(&east).await;
    assert_eq!(west.cursor().await.epoch, Epoch(3));
}

/// What one member heard is forgotten when it restarts, and the others never heard it: what is written down counts.
#[tokio::test(start_paused = true)]
async fn a_primary_that_is_known_to_be_over_serves_nobody_on_any_member() {
    let (mut east, west, road) = pair(3).await;
    let secondaries = ["west".to_owned()].into();
    east.set_primary(Some(Primary { epoch: Epoch(1), secondaries, fence: Some(Epoch(2)) }));
    assert_eq!(west.ended().await, Ended::Refused(Refusal::Fenced(Epoch(2))));
    for source in east.sources() {
        assert_eq!(source.admit("west", Kind::Dr), Err(Refusal::Fenced(Epoch(2))));
    }
    // It still learns of an epoch that is newer yet.
    let news = Announcement { epoch: Epoch(3), followed: west.cursor().await, ..Announcement::default() };
    let answer = road.call(Call::Announce, news.encode().into()).await.unwrap();
    assert_eq!(Answer::decode(&mut Reader::new(answer)).unwrap().epoch, Epoch(1));
}

/// What a member says in an epoch it says behind the entry that began it: who has that, has everything of the epoch before.
#[tokio::test(start_paused = true)]
async fn a_secondary_knows_in_which_epoch_it_heard_how_far_its_primary_is() {
    let (mut east, west, _road) = pair(1).await;
    assert_eq!(west.said.status.lock().primary_epoch, Epoch(1));
    let secondaries = ["west".to_owned()].into();
    east.set_primary(Some(Primary { epoch: Epoch(2), secondaries, fence: None }));
    sleep(Duration::from_secs(3)).await;
    let status = west.said.status.lock().clone();
    assert_eq!(
        (status.primary_epoch, status.cursor.epoch),
        (Epoch(2), Epoch(1)),
        "a heartbeat moves no cursor"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_of_a_newer_epoch_fences_whom_it_asks() {
    let (east, west, road) = pair(1).await;
    let newer = Cursor { epoch: Epoch(9), ..west.cursor().await };
    let asked = road.stream(Call::Follow, CursorMessage(newer).encode().into()).await;
    assert_eq!(asked.err(), Some(LinkError::Refused(Refusal::Fenced(Epoch(9)))));
    assert_eq!(east.sources()[0].heard().borrow().get(&Kind::Dr).unwrap().epoch, Epoch(9));
    assert_eq!(west.ended().await, Ended::Refused(Refusal::Fenced(Epoch(9))));
}

/// The epoch may have been heard of another member of the same cluster, which this one is a moment behind.
#[tokio::test(start_paused = true)]
async fn a_member_that_is_behind_takes_its_own_cluster_for_no_other() {
    let (mut east, west, road) = pair(1).await;
    let newer = Cursor { epoch: Epoch(2), ..west.cursor().await };
    let asked = road.stream(Call::Follow, CursorMessage(newer).encode().into());
    let learned = async {
        sleep(Duration::from_millis(200)).await;
        let secondaries = ["west".to_owned()].into();
        east.set_primary(Some(Primary { epoch: Epoch(2), secondaries, fence: None }));
    };
    let (asked, ()) = tokio::join!(asked, learned);
    assert!(asked.is_ok(), "{:?}", asked.err());
    assert!(east.sources().iter().all(|source| source.heard().borrow().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_segment_of_an_older_epoch_is_refused() {
    let (mut east, west, road) = pair(1).await;
    let secondaries = ["west".to_owned()].into();
    east.set_primary(Some(Primary { epoch: Epoch(5), secondaries, fence: None }));
    east.write(key(1, "a"), b"5").await;
    west.catch_up_with(&east).await;
    road.meddle(|segment| {
        let (chains, segment) = Segment::decode(segment).unwrap();
        vec![Segment { epoch: Epoch(4), ..segment }.encode(&chains.before)]
    });
    east.write(key(1, "a"), b"4").await;
    assert_eq!(west.ended().await, Ended::Refused(Refusal::Fenced(Epoch(5))));
    assert_eq!(west.leader().await.view().get(&key(1, "a")).unwrap().unwrap().value, b"5");
}

#[tokio::test(start_paused = true)]
async fn a_secondary_takes_nothing_that_is_its_own() {
    let (east, west, road) = pair(1).await;
    road.meddle(|segment| {
        let (chains, mut segment) = Segment::decode(segment).unwrap();
        for entry in &mut segment.entries {
            entry.writes.push(Write::Put(cursor_key(Kind::Dr), b"forged".to_vec()));
        }
        vec![segment.encode(&chains.before)]
    });
    let before = west.cursor().await;
    east.write(key(1, "a"), b"1").await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(west.cursor().await, before);
    let status = west.said.status.lock().clone();
    assert!(
        status.problem.as_deref().is_some_and(|text| text.contains("none of this secondary's")),
        "{status:?}"
    );
    assert!(west.leader().await.view().get(&key(1, "a")).unwrap().is_none());
    road.leave_alone();
    west.catch_up_with(&east).await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_of_another_chain_is_refused() {
    let (east, west, road) = pair(1).await;
    road.meddle(|segment| vec![Segment::decode(segment).unwrap().1.encode(&[5; 32])]);
    let before = west.cursor().await;
    east.write(key(1, "a"), b"1").await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(west.cursor().await, before);
    let problem = west.said.status.lock().problem.clone();
    assert!(problem.as_deref().is_some_and(|text| text.contains("does not follow")), "{problem:?}");
    road.leave_alone();
    west.catch_up_with(&east).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_of_a_term_before_its_generation_has_begun() {
    let (mut east, west, _road) = pair(1).await;
    east.begins = false;
    east.crash(MemberId(1)).await;
    east.start(MemberId(1)).await;
    east.write(key(1, "a"), b"1").await;
    sleep(Duration::from_secs(30)).await;
    assert!(west.leader().await.view().get(&key(1, "a")).unwrap().is_none());
    assert!(west.said.status.lock().lag_entries() > 0);
    let leader: Arc<dyn Changes> = east.leader().await;
    History::begin(&leader, [1; 16]).await.unwrap();
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
}

/// A leader that dies before it begins its generation leaves entries that the next one's holds.
#[tokio::test(start_paused = true)]
async fn terms_that_ended_without_a_name_are_told_with_the_next() {
    let (mut east, west, _road) = pair(1).await;
    east.begins = false;
    for value in [b"1", b"2", b"3"] {
        east.crash(MemberId(1)).await;
        east.start(MemberId(1)).await;
        east.write(key(1, "a"), value).await;
    }
    sleep(Duration::from_secs(5)).await;
    assert!(west.leader().await.view().get(&key(1, "a")).unwrap().is_none());
    let leader: Arc<dyn Changes> = east.leader().await;
    History::begin(&leader, [1; 16]).await.unwrap();
    east.write(key(1, "b"), b"4").await;
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
    assert_eq!(west.said.copies.load(Ordering::Relaxed), 1, "nothing had to be compared");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_holds_the_secondary_up_and_loses_nothing() {
    let (east, mut west, _road) = pair(1).await;
    let id = MemberId(1);
    west.nodes[&id].vfs.set_capacity(west.nodes[&id].vfs.used() + (1 << 20));
    sleep(Duration::from_secs(1)).await;
    let before = west.cursor().await;
    for n in 0..20 {
        east.write(key(1, &n.to_string()), &[1; 1000]).await;
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(west.cursor().await, before);
    let problem = west.said.status.lock().problem.clone();
    assert!(problem.as_deref().is_some_and(|text| text.contains("disk is full")), "{problem:?}");
    west.nodes.get_mut(&id).unwrap().vfs.set_capacity(1 << 40);
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_for_nonsense() {
    let (east, _west, road) = pair(1).await;
    let source = &east.sources()[0];
    for call in [Call::Follow, Call::Copy, Call::Acknowledge, Call::Compare, Call::Announce, Call::Ask] {
        let sieve = road.sieve();
        let answer = source.serve("west", sieve, call, vec![9, 9].into()).await;
        assert!(matches!(answer, Err(Refusal::Malformed(_))), "{call:?}: {answer:?}");
        let stream = source.stream("west", sieve, call, vec![9, 9].into()).await.err();
        assert!(matches!(stream, Some(Refusal::Malformed(_))), "{call:?}");
    }
    let performance = crate::Sieve::new(Kind::Performance);
    let cursor = CursorMessage(Cursor::default()).encode();
    let asked = source.stream("west", &performance, Call::Follow, cursor.clone().into()).await.err();
    assert!(matches!(asked, Some(Refusal::Busy(_))), "nobody told it of that kind yet");
    let unknown = source.stream("nobody", road.sieve(), Call::Follow, cursor.clone().into()).await.err();
    assert_eq!(unknown, Some(Refusal::Revoked));
    let gone = source.stream("west", road.sieve(), Call::Follow, cursor.into()).await.err();
    assert_eq!(gone, Some(Refusal::Gone));
}
