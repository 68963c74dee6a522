//! What the clients of a workload have in common: few things at a time, so that they meet at each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::dice::Dice;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Pool<T> {
    things: Mutex<Vec<Arc<T>>>,
    made: AtomicU64,
    /// Its size when it is full.
    size: usize,
}

impl<T> Pool<T> {
    /// An empty one, full with `size` things.
    pub(super) const fn new(size: usize) -> Self {
        Self { things: Mutex::new(Vec::new()), made: AtomicU64::new(0), size }
    }

    /// A number that no thing had yet.
    pub(super) fn number(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.things.lock().len() >= self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.things.lock().is_empty()
    }

    /// Adds one.
    pub(super) fn add(&self, thing: T) {
        self.things.lock().push(Arc::new(thing));
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.things.lock().clone()
    }

    /// Any of them.
    pub(super) fn pick(&self, dice: &mut Dice) -> Option<Arc<T>> {
        dice.pick(&self.things.lock()).cloned()
    }

    /// Takes one out, unless somebody did.
    pub(super) fn remove(&self, thing: &Arc<T>) {
        self.things.lock().retain(|other| !Arc::ptr_eq(other, thing));
    }
}
