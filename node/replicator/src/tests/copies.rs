//! Copies that do not come to their end: whatever was there before goes on as if nothing had been asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_barrier::Class;
use arca_kernel::key_keeper::SUCCESSOR_PATH;
use arca_kernel::replication::{Kind, Mode, ReplicationPort as _, Serves};
use arca_raft_storage::Version;

use super::region::{Region, World, refused};
use crate::activation::forget_old_tokens;
use crate::records::{SECONDARIES_MAX, TokenRecord};

impl Region {
    async fn copy(&self, primary: &Self) {
        let token = primary.token(self.name).await;
        self.port().enable_secondary(Kind::Dr, token).await.unwrap();
    }
}

/// One that was a copy before has the same names: what is stored for the copy to come is the role in use.
#[tokio::test(start_paused = true)]
async fn a_copy_that_breaks_leaves_the_secondary_a_secondary() {
    for rotates in [false, true] {
        let (east, mut west) = Region::pair().await;
        west.port().disable_secondary(Kind::Dr, true).await.unwrap();
        if rotates {
            east.rotate().await;
        }
        east.world.breaks_copies.store(true, Ordering::SeqCst);
        west.copy(&east).await;
        let problem = |west: &Region| west.port().status(Kind::Dr).unwrap().contains_key("problem");
        west.until("the break", problem).await;
        for _ in 0..20 {
            // Between what is stored for the step and its being taken back as well.
            assert_eq!(west.stored_role().mode, Mode::Secondary, "rotated: {rotates}");
            assert_eq!(*west.now.kernel.standing().serves(), Serves::DrSecondary);
            tokio::time::sleep(Duration::from_millis(333)).await;
        }
        west.restart().await;
        assert_eq!(*west.now.kernel.standing().serves(), Serves::DrSecondary);
        east.world.breaks_copies.store(false, Ordering::SeqCst);
        east.write("after").await.unwrap();
        west.catch_up_with(&east).await;
        assert!(west.has("after"));
    }
}

/// Who has the key shares of this cluster has no business with the primary's root key.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_cancelled_leaves_nothing_behind() {
    let world = Arc::<World>::default();
    let (east, west) = (Region::open(&world, "east").await, Region::open(&world, "west").await);
    east.port().enable_primary(Kind::Dr, String::new()).await.unwrap();
    west.write("own").await.unwrap();
    let before = west.own_keys();
    world.stalls_copies.store(true, Ordering::SeqCst);
    west.copy(&east).await;
    let has_key = |west: &Region| west.tx().version(Class::Node, SUCCESSOR_PATH).unwrap() != Version::ABSENT;
    west.until("the announcement", has_key).await;
    west.port().disable_secondary(Kind::Dr, false).await.unwrap();
    assert!(!has_key(&west));
    let left: Vec<_> = west.own_keys().difference(&before).cloned().collect();
    // Its own role record, which says that it is nothing.
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(west.stored_role().mode, Mode::Disabled);
    assert!(west.has("own") && west.write("more").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_over_do_not_keep_new_ones_from_being_made() {
    let east = Region::open(&Arc::default(), "east").await;
    let tx = east.tx();
    let record = |expires_at: u64, used_at| TokenRecord {
        used_at,
        ..TokenRecord::new("west", [1; 32], b"secret", arca_engine_api::UnixMillis(expires_at))
    };
    let now = arca_engine_api::UnixMillis(1_000_000);
    let put = |name: String, record: &TokenRecord| {
        tx.put_record(Class::Node, &TokenRecord::path(Kind::Dr, &name), record).unwrap();
    };
    for number in 0..SECONDARIES_MAX {
        put(format!("{number}-used"), &record(2_000_000, 500_000));
        put(format!("{number}-late"), &record(900_000, 0));
    }
    forget_old_tokens(&tx, Kind::Dr, now).unwrap();
    let left =
        || tx.list(Class::Node, &TokenRecord::folder(Kind::Dr), &arca_engine_api::Page::default()).unwrap();
    assert_eq!(left().len(), SECONDARIES_MAX, "the newest are remembered, so that who comes late is told");
    assert!(left().iter().all(|name| name.ends_with("-late")));
    for number in 0..SECONDARIES_MAX {
        put(format!("{number}-waits"), &record(2_000_000, 0));
    }
    assert!(forget_old_tokens(&tx, Kind::Dr, now).is_err());
    let later = arca_engine_api::UnixMillis(2_000_000 + 25 * 3_600_000);
    forget_old_tokens(&tx, Kind::Dr, later).unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

/// A member that is locked out by the copy it took in may lead for a while longer, and still finds what was to be copied,
/// under the names of before. Made again, the copy would store a cursor that is ahead of the state.
#[tokio::test(start_paused = true)]
async fn a_copy_is_made_once() {
    let world = Arc::<World>::default();
    let (east, west) = (Region::open(&world, "east").await, Region::open(&world, "west").await);
    east.port().enable_primary(Kind::Dr, String::new()).await.unwrap();
    west.copy(&east).await;
    west.until("the copy", |west| west.now.keys.is_locked_out()).await;
    let cursor = west.cursor();
    east.write("later").await.unwrap();
    // As when leadership comes and goes.
    west.now.kernel.deactivate();
    tokio::time::sleep(Duration::from_secs(3)).await;
    west.now.kernel.activate();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(west.cursor(), cursor);
}

/// An order that is on its way for long would otherwise take the place of the one that came after it.
#[tokio::test(start_paused = true)]
async fn a_new_token_for_a_name_replaces_the_one_that_waits() {
    let world = Arc::<World>::default();
    let (east, west) = (Region::open(&world, "east").await, Region::open(&world, "west").await);
    east.port().enable_primary(Kind::Dr, String::new()).await.unwrap();
    let (older, newer) = (east.token("west").await, east.token("west").await);
    let other = east.token("north").await;
    let refused = refused(west.port().enable_secondary(Kind::Dr, older)).await;
    assert!(refused.contains("activation token"), "{refused}");
    west.port().enable_secondary(Kind::Dr, newer).await.unwrap();
    drop(other);
    assert_eq!(
        east.tx().list(Class::Node, &TokenRecord::folder(Kind::Dr), &Default::default()).unwrap().len(),
        2
    );
}
