//! What openraft runs on: tokio, with random numbers that follow a seed where there is one, and nothing that draws
//! others.
//!
//! openraft draws when it starts (how long a follower waits before it campaigns, when its clock first ticks) and in the
//! tasks it spawns from then on. [`within`] gives a future a seed, and every task spawned from it derives its own, so
//! what a member draws does not depend on what others do. Without a seed, numbers are the thread's ordinary ones.
//!
//! Calls into a running openraft only send messages to its tasks: none of them draws or spawns, so callers need no
//! seed of their own.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{AsyncRuntime, OptionalSend, OptionalSync, TokioRuntime};
use rand_core::TryRng;
use tokio::task::JoinHandle;

use crate::watch;

tokio::task_local! {
    static SEED: Cell<u64>;
}

#[cfg(test)]
thread_local! {
    static UNSEEDED: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has drawn or spawned without a seed.
#[cfg(test)]
pub(super) fn unseeded() -> u64 {
    UNSEEDED.get()
}

/// Runs `future` with `seed`, if there is one.
pub(super) async fn within<F: Future>(seed: Option<u64>, future: F) -> F::Output {
    match seed {
        Some(seed) => SEED.scope(Cell::new(seed), future).await,
        None => future.await,
    }
}

/// The next number of the stream that this task draws from; none without a seed.
fn next() -> Option<u64> {
    let drawn = SEED.try_with(|seed| {
        let mut stream = Stream(seed.get());
        let drawn = stream.draw();
        seed.set(stream.0);
        drawn
    });
    #[cfg(test)]
    if drawn.is_err() {
        UNSEEDED.set(UNSEEDED.get() + 1);
    }
    drawn.ok()
}

/// A number for each turn of a counter. Not for anything secret.
#[derive(Clone, Debug)]
struct Stream(u64);

impl Stream {
    /// A step of the counter that shares no factor with its size, so that every number comes up.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        // Each line can be undone, so that no two counters give the same number.
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// What openraft draws from.
#[derive(Debug)]
pub struct Rng(Source);

#[derive(Debug)]
enum Source {
    Seeded(Stream),
    Thread(<TokioRuntime as AsyncRuntime>::ThreadLocalRng),
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match &mut self.0 {
            // The upper half: it depends on all of the counter.
            Source::Seeded(stream) => Ok(u32::try_from(stream.draw() >> 32).unwrap_or_default()),
            Source::Thread(rng) => rng.try_next_u32(),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match &mut self.0 {
            Source::Seeded(stream) => Ok(stream.draw()),
            Source::Thread(rng) => rng.try_next_u64(),
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        match &mut self.0 {
            Source::Seeded(stream) => {
                for piece in dest.chunks_mut(size_of::<u64>()) {
                    piece.iter_mut().zip(stream.draw().to_le_bytes()).for_each(|(to, from)| *to = from);
                }
                Ok(())
            }
            Source::Thread(rng) => rng.try_fill_bytes(dest),
        }
    }
}

/// See the file's header. Only what differs from tokio's own is written out.
pub struct Runtime(TokioRuntime);

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = Rng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = Watched;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match next() {
            Some(seed) => tokio::spawn(SEED.scope(Cell::new(seed), future)),
            None => tokio::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(err: &Self::JoinError) -> bool {
        err.is_panic()
    }

    fn thread_rng() -> Rng {
        Rng(next()
            .map_or_else(|| Source::Thread(TokioRuntime::thread_rng()), |seed| Source::Seeded(Stream(seed))))
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioRuntime::spawn_blocking(work)
    }
}

/// [`crate::watch`], as openraft asks for it.
#[derive(Debug)]
pub struct Watched;

impl Watch for Watched {
    type Sender<T: OptionalSend + OptionalSync> = watch::Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = watch::Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (watch::Sender<T>, watch::Receiver<T>) {
        watch::channel(value)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Watched, T> for watch::Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.send(value).map_err(SendError)
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> watch::Receiver<T> {
        self.subscribe()
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Watched, T> for watch::Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        self.changed().await.map_err(|watch::Closed| RecvError(()))
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::Rng as _;

    use super::*;

    async fn draws() -> Vec<u64> {
        let mut drawn = vec![Runtime::thread_rng().next_u64(), Runtime::thread_rng().next_u64()];
        let child = Runtime::spawn(async { Runtime::thread_rng().next_u64() });
        let other = Runtime::spawn(async { Runtime::thread_rng().next_u64() });
        drawn.extend([other.await.unwrap(), child.await.unwrap()]);
        drawn.push(Runtime::thread_rng().next_u64());
        drawn
    }

    #[tokio::test]
    async fn draws_follow_the_seed_through_tasks_and_differ_everywhere_else() {
        let first = within(Some(7), draws()).await;
        assert_eq!(first, within(Some(7), draws()).await);
        let mut all = [first, within(Some(8), draws()).await].concat();
        assert_eq!(unseeded(), 0);
        all.extend(within(None, draws()).await);
        assert_eq!(unseeded(), 7, "five draws and two tasks");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 15);
    }

    #[tokio::test]
    async fn bytes_are_the_numbers_in_order() {
        let numbers = within(Some(7), async { Runtime::thread_rng() }).await;
        let (mut numbers, mut bytes) = (numbers, [0; 11]);
        within(Some(7), async { Runtime::thread_rng() }).await.fill_bytes(&mut bytes);
        let whole = [numbers.next_u64().to_le_bytes(), numbers.next_u64().to_le_bytes()].concat();
        assert_eq!(bytes, whole[..11]);
    }
}
