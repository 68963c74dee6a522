//! What an operator asks of the leader, again and again until it is so, whoever leads meanwhile.

use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::{MemberId, RaftReplica, Replica as _};
use tokio::time::{sleep, timeout};

use crate::cluster::{Directory, member};

/// Longest wait for one answer of the leader.
const LIMIT: Duration = Duration::from_secs(10);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The leader, as soon as there is one that a majority confirms.
async fn confirmed_leader(directory: &Directory) -> Arc<RaftReplica> {
    loop {
        if let Some(leader) = directory.leader()
            && leader.read_barrier().await.is_ok()
        {
            return leader;
        }
        sleep(PAUSE).await;
    }
}

/// Puts a member out.
pub async fn put_out(directory: Directory, id: MemberId) {
    loop {
        let leader = confirmed_leader(&directory).await;
        if !leader.membership().members.contains_key(&id) {
            return;
        }
        // Whether it went well is seen at the next look.
        let _ = timeout(LIMIT, leader.remove(id)).await;
        sleep(PAUSE).await;
    }
}

/// Has the cluster take in a new member on `host`, and answers its id.
pub async fn admit(directory: Directory, host: String) -> MemberId {
    loop {
        let leader = confirmed_leader(&directory).await;
        let membership = leader.membership();
        let known = membership.members.iter().find(|(_, (member, _))| member.name == host);
        if let Some((id, _)) = known {
            return *id;
        }
        let _ = timeout(LIMIT, leader.admit(member(MemberId(0), &host))).await;
        sleep(PAUSE).await;
    }
}

/// Makes a member a voter. Returns once the change is finished: until then, majorities of the voters before it are
/// needed as well.
pub async fn promote(directory: Directory, id: MemberId) {
    loop {
        let leader = confirmed_leader(&directory).await;
        if let Ok(Ok(())) = timeout(LIMIT, leader.promote(id)).await {
            return;
        }
        sleep(PAUSE).await;
    }
}
