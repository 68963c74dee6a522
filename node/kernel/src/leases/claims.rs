//! Which leases this node is undoing right now. A request and housekeeping may come upon the same lease: one of them asks
//! its engine, the other waits until that is done, so that nothing outside is undone twice at once.

use std::collections::BTreeSet;

use arca_danger::Bug;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// See the file's header.
#[derive(Default)]
pub(crate) struct Claims {
    /// Paths of leases.
    taken: Mutex<BTreeSet<String>>,
    freed: Notify,
}

/// A lease that nobody else on this node undoes for as long as this lives.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    path: &'a str,
}

impl Claims {
    /// The claim to a lease, after whoever has it now.
    pub(super) async fn take<'a>(&'a self, path: &'a str) -> Claim<'a> {
        loop {
            // Made before the look, so that it hears of a claim that ends right after it.
            let freed = self.freed.notified();
            if self.taken.lock().insert(path.to_owned()) || arca_danger::is(Bug::UndoneByTwo) {
                return Claim { claims: self, path };
            }
            freed.await;
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.taken.lock().remove(self.path);
        self.claims.freed.notify_waiters();
    }
}
