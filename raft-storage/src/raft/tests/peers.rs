//! Who is heard, and where members are found.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::support::{Cluster, LONG, member};
use crate::{Call, Member, MemberId, MemberKind, Replica, ReplicaError};

#[tokio::test(start_paused = true)]
async fn messages_for_others_touch_nothing() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await.status();
    // Everything for one member now arrives at another.
    let (from, to) = (cluster.others().await[0], cluster.others().await[1]);
    let inbound = cluster.at(to).inbound();
    let (seen, mut arrived) = unbounded_channel();
    cluster.net.meddle(Arc::new(move |_, target, call, payload| {
        if target == from {
            let _ = seen.send((call, payload.clone()));
        }
        payload
    }));
    cluster.write("a", "1").await;
    let (call, payload) = arrived.recv().await.unwrap();
    let refused = inbound.serve(leader.id, call, payload.clone()).await.unwrap_err();
    assert!(refused.contains(&format!("for member {from}, but this is member {to}")), "{refused}");
    let refused = inbound.serve(from, Call::Vote, Bytes::from_static(b"nonsense")).await.unwrap_err();
    assert!(refused.contains("format"), "{refused}");
    // The same message at the right member, over a connection of somebody else.
    let refused = cluster.at(from).inbound().serve(to, call, payload.clone()).await.unwrap_err();
    assert!(refused.contains(&format!("over a connection of member {to}")), "{refused}");
    let chunks = Box::pin(futures::stream::empty());
    let refused = cluster.at(from).inbound().receive_snapshot(to, payload, chunks).await.unwrap_err();
    assert!(refused.contains(&format!("over a connection of member {to}")), "{refused}");
    assert_eq!(cluster.at(to).status().term, leader.term);
}

/// What `from` sends to `to` from now on.
fn overhear(cluster: &Cluster, from: MemberId, to: MemberId) -> UnboundedReceiver<(Call, Bytes)> {
    let (seen, arrived) = unbounded_channel();
    cluster.net.meddle(Arc::new(move |sender, target, call, payload| {
        if (sender, target) == (from, to) {
            // Nobody listens any more at the end of the test.
            let _ = seen.send((call, payload.clone()));
        }
        payload
    }));
    arrived
}

#[tokio::test(start_paused = true)]
async fn a_removed_member_is_not_heard() {
    let cluster = Cluster::new(3).await;
    let gone = cluster.leader().await.status().id;
    let stays = cluster.others().await[0];
    let mut overheard = overhear(&cluster, gone, stays);
    cluster.write("a", "1").await;
    let (call, payload) = overheard.recv().await.unwrap();
    assert_eq!(call, Call::Append);
    cluster.leader().await.remove(gone).await.unwrap();
    let left: Vec<_> = cluster.ids().into_iter().filter(|id| *id != gone).collect();
    let leader = cluster.leader_among(&left).await;
    let index = leader.read_barrier().await.unwrap();
    cluster.at(stays).await_applied(index, LONG).await.unwrap();
    let inbound = cluster.at(stays).inbound();
    assert!(inbound.is_removed(gone) && !inbound.is_removed(leader.status().id));
    let unheard_of = MemberId(leader.status().applied_index + 1);
    assert!(!inbound.is_removed(unheard_of), "it may have joined since");
    let refused = inbound.serve(gone, call, payload).await.unwrap_err();
    assert_eq!(refused, format!("member {gone} was removed from the cluster"));
}

/// It is in no membership that the others know, and leads all the same.
#[tokio::test(start_paused = true)]
async fn one_that_joined_while_a_member_was_away_is_heard() {
    let mut cluster = Cluster::new(3).await;
    let away = cluster.others().await[0];
    cluster.crash(away);
    let late = cluster.join().await;
    cluster.leader().await.promote(late).await.unwrap();
    cluster.leader().await.transfer_leadership(Some(late)).await.unwrap();
    cluster.write("a", "1").await;
    cluster.start(away).await;
    assert_eq!(cluster.read(away, "a").await.as_deref(), Some("1"));
    assert_eq!(cluster.leader().await.status().id, late);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_moved_is_called_at_its_new_address() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let id = cluster.others().await[0];
    let moved = Member { cluster_addr: "elsewhere:1".to_owned(), ..member(id) };
    leader.add_learner(moved.clone()).await.unwrap();
    cluster.write("a", "1").await;
    assert_eq!(cluster.read(id, "a").await.as_deref(), Some("1"));
    let called = async {
        while cluster.net.address(leader.status().id, id).as_deref() != Some("elsewhere:1") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, called).await.unwrap();
    let (known, kind) = leader.membership().members[&id].clone();
    assert_eq!((known, kind), (moved, MemberKind::Voter));
}

#[tokio::test(start_paused = true)]
async fn an_id_older_than_the_membership_is_not_added() {
    let mut cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    let early = leader.reserve_member_id().await.unwrap();
    cluster.join().await;
    let refused = leader.add_learner(member(early)).await.unwrap_err();
    assert!(
        matches!(&refused, ReplicaError::Membership(why) if why.contains("reserve another")),
        "{refused}"
    );
    let id = leader.admit(member(early)).await.unwrap();
    assert!(id > early && leader.membership().members[&id].0.id == id);
}
