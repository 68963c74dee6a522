//! Clusters of one state whose keys went apart.

use arca_barrier::Class;
use arca_kernel::key_keeper::SUCCESSOR_PATH;
use arca_kernel::replication::{Kind, Mode, Promotion, ReplicationPort as _, Serves};
use arca_raft_storage::Version;
use zeroize::Zeroizing;

use super::region::Region;

/// An old primary that rotated its keys where nobody got it any more. Everything of its own that it sealed since opens under a
/// key that the new primary's keyring does not have: which each of its members must take over all the same.
#[tokio::test(start_paused = true)]
async fn a_primary_that_rotated_in_its_tail_comes_back_and_is_still_itself() {
    for both in [false, true] {
        let (mut east, west) = Region::pair().await;
        east.set_cut(true);
        west.port().promote_secondary(Kind::Dr, String::new(), Promotion::Ordinary).await.unwrap();
        east.rotate().await;
        if both {
            west.rotate().await;
        }
        let tx = east.tx();
        let (own, secret) = ("root/core/cluster-ca/key", || Zeroizing::new(b"secret".to_vec()));
        tx.put(Class::Local, own, secret()).unwrap();
        arca_raft_storage::Replica::propose(east.replica.as_ref(), tx.into_write_set().unwrap())
            .await
            .unwrap();
        east.set_cut(false);
        east.until("the fence", |east| east.stored_role().fence.is_some()).await;
        east.port().demote_primary(Kind::Dr).await.unwrap();
        east.follow(&west).await;
        // As it is stored, whatever is remembered: this is what a member finds that starts.
        assert_eq!(east.stored_role().mode, Mode::Secondary);
        assert_eq!(east.tx().get(Class::Local, own).unwrap(), Some(secret()));
        east.restart().await;
        assert_eq!(*east.now.kernel.standing().serves(), Serves::DrSecondary);
        west.write("after").await.unwrap();
        east.catch_up_with(&west).await;
        west.port().demote_primary(Kind::Dr).await.unwrap();
        east.port().promote_secondary(Kind::Dr, String::new(), Promotion::Ordinary).await.unwrap();
        assert!(east.has("after") && east.write("more").await.is_ok(), "both: {both}");
        assert_eq!(east.tx().version(Class::Node, SUCCESSOR_PATH).unwrap(), Version::ABSENT);
    }
}
