//! Paths: what is sealed opens to the same path.

#![no_main]

use std::sync::{Arc, LazyLock};

use arca_barrier::{Barrier, Class, Keyring, OsEntropy, Suite, TimedIndex};
use libfuzzer_sys::fuzz_target;

static BARRIER: LazyLock<Barrier> = LazyLock::new(|| {
    Barrier::new(Keyring::generate(&OsEntropy, 0, Suite::Aes256Gcm).unwrap(), Arc::new(OsEntropy))
});

fuzz_target!(|path: &str| {
    if let Ok(key) = BARRIER.seal_name(Class::Local, path) {
        assert_eq!(BARRIER.open_name(&key).unwrap(), (Class::Local, path.to_owned()));
    }
    if let Ok(key) = BARRIER.seal_timed(Class::Local, TimedIndex::LeaseDeadline, 7, path) {
        assert_eq!(BARRIER.open_timed(&key).unwrap(), (7, path.to_owned()));
    }
});
