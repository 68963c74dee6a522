//! Connections to one database: so many at once, some kept for the next who asks.
//!
//! **Invariant:** a connection on which anything went wrong, or whose work was given up, is closed, never kept. Who waits
//! for a place waits so long and no longer, so a database that hangs holds up its own users only.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::adapter::Failure;

/// Longest wait for a place.
const ROOM_PATIENCE: Duration = Duration::from_secs(15);
/// Idle connections are closed after this long.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// How many connections, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) open_max: usize,
    pub(super) idle_max: usize,
    /// Age at which a connection is not used again; zero for any.
    pub(super) lifetime_max: Duration,
}

#[derive(Debug)]
struct Kept<C> {
    connection: C,
    born: Instant,
    since: Instant,
}

/// How connections are made.
pub(super) trait Connector<C>: Sync {
    /// Whether one that was kept can be used.
    fn is_good(&self, connection: &mut C) -> impl Future<Output = bool> + Send;
    /// A new one.
    fn connect(&self) -> impl Future<Output = Result<C, Failure>> + Send;
}

/// Connections.
#[derive(Debug)]
pub(super) struct Pool<C> {
    limits: Limits,
    room: Semaphore,
    kept: Mutex<Vec<Kept<C>>>,
}

/// A connection in use. Dropped it is closed; [`Held::keep`] gives it back.
pub(super) struct Held<'a, C> {
    pub(super) connection: C,
    born: Instant,
    pool: &'a Pool<C>,
    _place: SemaphorePermit<'a>,
}

impl<C> Pool<C> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, room: Semaphore::new(limits.open_max), kept: Mutex::new(Vec::new()) }
    }

    /// A connection that was kept and is good, or a new one.
    ///
    /// # Errors
    /// When there is no place in time, or what the connector says.
    pub(super) async fn take(&self, connector: &impl Connector<C>) -> Result<Held<'_, C>, Failure> {
        let place = tokio::time::timeout(ROOM_PATIENCE, self.room.acquire()).await;
        let Ok(Ok(place)) = place else {
            return Err(Failure::Unreachable("every connection to the database is in use".to_owned()));
        };
        while let Some(mut kept) = self.next_kept() {
            if connector.is_good(&mut kept.connection).await {
                return Ok(Held { connection: kept.connection, born: kept.born, pool: self, _place: place });
            }
        }
        let connection = connector.connect().await?;
        Ok(Held { connection, born: Instant::now(), pool: self, _place: place })
    }

    /// The one used last that is young enough; older ones are closed on the way.
    fn next_kept(&self) -> Option<Kept<C>> {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        kept.retain(|kept| self.may_live(kept.born, now) && now.duration_since(kept.since) < IDLE_MAX);
        kept.pop()
    }

    fn may_live(&self, born: Instant, now: Instant) -> bool {
        self.limits.lifetime_max.is_zero() || now.duration_since(born) < self.limits.lifetime_max
    }

    /// Closes what has been idle for long.
    pub(super) fn sweep(&self) {
        if let Some(kept) = self.next_kept() {
            self.kept.lock().push(kept);
        }
    }
}

impl<'a, C> Held<'a, C> {
    /// The same place, with what `change` makes of the connection.
    pub(super) async fn exchange<F, E>(self, change: impl FnOnce(C) -> F) -> Result<Held<'a, C>, E>
    where
        F: Future<Output = Result<C, E>>,
    {
        let connection = change(self.connection).await?;
        Ok(Held { connection, ..self })
    }

    /// Keeps the connection for the next who asks.
    pub(super) fn keep(self) {
        let since = Instant::now();
        let mut kept = self.pool.kept.lock();
        if kept.len() < self.pool.limits.idle_max && self.pool.may_live(self.born, since) {
            kept.push(Kept { connection: self.connection, born: self.born, since });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn pool(open_max: usize, lifetime: u64) -> Pool<u32> {
        Pool::new(Limits { open_max, idle_max: 1, lifetime_max: Duration::from_secs(lifetime) })
    }

    impl Connector<u32> for AtomicU32 {
        async fn is_good(&self, _: &mut u32) -> bool {
            true
        }

        async fn connect(&self) -> Result<u32, Failure> {
            Ok(self.fetch_add(1, Ordering::Relaxed))
        }
    }

    async fn take<'a>(pool: &'a Pool<u32>, count: &AtomicU32) -> Result<Held<'a, u32>, Failure> {
        pool.take(count).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_used_again_while_it_is_young() {
        let (pool, count) = (pool(2, 60), AtomicU32::new(0));
        take(&pool, &count).await.unwrap().keep();
        assert_eq!(take(&pool, &count).await.unwrap().connection, 0);
        let (first, second) = (take(&pool, &count).await.unwrap(), take(&pool, &count).await.unwrap());
        assert_eq!((first.connection, second.connection), (1, 2));
        first.keep();
        second.keep(); // One too many.
        assert_eq!(pool.kept.lock().len(), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(take(&pool, &count).await.unwrap().connection, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_waited_for_so_long_and_no_longer() {
        let (pool, count) = (pool(1, 0), AtomicU32::new(0));
        let held = take(&pool, &count).await.unwrap();
        let begun = Instant::now();
        assert!(matches!(take(&pool, &count).await, Err(Failure::Unreachable(_))));
        assert_eq!(begun.elapsed(), ROOM_PATIENCE);
        drop(held);
        assert!(take(&pool, &count).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ones_are_swept() {
        let (pool, count) = (pool(1, 0), AtomicU32::new(0));
        take(&pool, &count).await.unwrap().keep();
        pool.sweep();
        assert_eq!(pool.kept.lock().len(), 1);
        tokio::time::advance(IDLE_MAX).await;
        pool.sweep();
        assert_eq!(pool.kept.lock().len(), 0);
    }
}
