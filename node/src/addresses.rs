//! A node that comes up at other addresses than the membership has makes them known.
//!
//! The leader cannot reach a node that moved, but that node reaches the others: it tells each of them until one records
//! its addresses or names the leader. Only a node's own certificate can change where that node is looked for. When a
//! majority moved at once, its members cannot find each other any more: that is a lost quorum.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use arca_raft_storage::{Member, Replica as _, Role};
use arca_rpc::Announced;

use crate::unsealed::Unsealed;

/// How often the membership is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// For one peer's answer.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers asked in one round: all of them, and the leaders they name.
const ASKED_MAX: usize = 32;

/// Runs for as long as the node is unsealed.
pub(crate) async fn keep_current(unsealed: Weak<Unsealed>) {
    let mut said = None;
    loop {
        {
            let Some(unsealed) = unsealed.upgrade() else { return };
            if let Err(reason) = announce(&unsealed).await
                && said.as_ref() != Some(&reason)
            {
                tracing::warn!(reason, "the cluster does not know the addresses of this node yet");
                said = Some(reason);
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether the membership known here has this node elsewhere than it is.
fn has_moved(unsealed: &Unsealed) -> bool {
    let membership = unsealed.replica.membership();
    let known = membership.members.get(&unsealed.me.id);
    known.is_some_and(|(known, _)| {
        (&known.cluster_addr, &known.api_addr) != (&unsealed.me.cluster_addr, &unsealed.me.api_addr)
    })
}

async fn announce(unsealed: &Unsealed) -> Result<(), String> {
    if !has_moved(unsealed) {
        return Ok(());
    }
    let me = &unsealed.me;
    if unsealed.replica.status().role == Role::Leader {
        return unsealed.replica.add_learner(me.clone()).await.map_err(|err| err.to_string());
    }
    let Some(transport) = &unsealed.transport else { return Ok(()) };
    let members = unsealed.replica.membership().members.into_values();
    let mut to_ask: VecDeque<Member> =
        members.map(|(member, _)| member).filter(|member| member.id != me.id).collect();
    let mut reason = "no other member is known".to_owned();
    for _ in 0..ASKED_MAX {
        let Some(peer) = to_ask.pop_front() else { break };
        match transport.announce(&peer, &me.cluster_addr, &me.api_addr, ANNOUNCE_TIMEOUT).await {
            Ok(Announced::Recorded) => return Ok(()),
            Ok(Announced::AskLeader(Some(leader))) if leader.id != peer.id && leader.id != me.id => {
                reason = format!("{} names {} as leader", peer.cluster_addr, leader.cluster_addr);
                // It may have moved as well: where this peer sees it counts for more than what is known here.
                to_ask.retain(|waiting| waiting.id != leader.id);
                to_ask.push_front(leader);
            }
            Ok(Announced::AskLeader(_)) => reason = format!("{} knows no leader", peer.cluster_addr),
            Err(err) => reason = format!("{}: {err}", peer.cluster_addr),
        }
    }
    Err(reason)
}
