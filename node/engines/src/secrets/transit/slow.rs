//! Items that take long, done a few at a time where they keep no other request waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arca_engine_api::{Ctx, EngineError, Entropy, EntropyError};
use zeroize::Zeroizing;

use super::batch::item_error;
use super::generate;
use super::hashes::Hash;
use super::kind::{Curve, Kind};

/// Items of one computation: others get their turn between two. The slowest take some milliseconds each.
const AT_ONCE: usize = 16;
const SEED_LEN: usize = 32;

/// Random bytes stretched from some of the request's source, for threads that may outlive it: each 32 are an HMAC of
/// their number.
struct Stretched {
    seed: Zeroizing<Vec<u8>>,
    next: AtomicU64,
}

impl Stretched {
    fn of(entropy: &dyn Entropy) -> Result<Self, EngineError> {
        Ok(Self { seed: generate::bytes(entropy, SEED_LEN)?, next: AtomicU64::new(0) })
    }
}

impl std::fmt::Debug for Stretched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stretched(redacted)")
    }
}

impl Entropy for Stretched {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in dest.chunks_mut(SEED_LEN) {
            let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let block = Zeroizing::new(Hash::Sha256.hmac(&self.seed, &number));
            for (byte, random) in chunk.iter_mut().zip(block.iter()) {
                *byte = *random;
            }
        }
        Ok(())
    }
}

/// Whether so many items by a key of that kind would be felt by others.
fn is_slow(kind: Kind, count: usize) -> bool {
    match kind {
        Kind::Rsa(_) | Kind::Ec(Curve::P384 | Curve::P521) => true,
        Kind::Ec(Curve::P256) | Kind::Ed25519 => count > AT_ONCE,
        Kind::Aead(_) | Kind::Hmac => false,
    }
}

/// Does `work` for each task that is one. What comes of it stands in their order; what is no fault of an item's fails
/// all.
pub(super) async fn each<T, R>(
    ctx: &Ctx<'_>,
    kind: Kind,
    tasks: Vec<Result<T, String>>,
    work: impl Fn(T, &dyn Entropy) -> Result<R, EngineError> + Send + Sync + 'static,
) -> Result<Vec<Result<R, String>>, EngineError>
where
    T: Send + 'static,
    R: Send + 'static,
{
    if !is_slow(kind, tasks.len()) {
        return tasks.into_iter().map(|task| one(task, &work, ctx.entropy)).collect();
    }
    let shared = Arc::new((work, Stretched::of(ctx.entropy)?));
    let mut done = Vec::with_capacity(tasks.len());
    let mut tasks = tasks.into_iter();
    loop {
        let some: Vec<_> = tasks.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return Ok(done);
        }
        let shared = Arc::clone(&shared);
        let some = ctx.compute(move || {
            let (work, entropy) = &*shared;
            some.into_iter().map(|task| one(task, work, entropy)).collect::<Result<Vec<_>, _>>()
        });
        done.extend(some.await??);
    }
}

fn one<T, R>(
    task: Result<T, String>,
    work: &impl Fn(T, &dyn Entropy) -> Result<R, EngineError>,
    entropy: &dyn Entropy,
) -> Result<Result<R, String>, EngineError> {
    match task.map(|task| work(task, entropy)) {
        Ok(Ok(done)) => Ok(Ok(done)),
        Ok(Err(err)) => item_error(err).map(Err),
        Err(why) => Ok(Err(why)),
    }
}
