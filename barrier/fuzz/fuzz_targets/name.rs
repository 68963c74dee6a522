//! Physical keys: names, children and time indexes.

#![no_main]

use std::sync::{Arc, LazyLock};

use arca_barrier::{Barrier, Keyring, OsEntropy, Suite};
use libfuzzer_sys::fuzz_target;

static BARRIER: LazyLock<Barrier> = LazyLock::new(|| {
    Barrier::new(Keyring::generate(&OsEntropy, 0, Suite::Aes256Gcm).unwrap(), Arc::new(OsEntropy))
});

fuzz_target!(|bytes: &[u8]| {
    assert!(bytes.len() == 1 || BARRIER.open_name(bytes).is_err());
    assert!(BARRIER.open_timed(bytes).is_err());
    for at in 0..bytes.len() {
        assert!(BARRIER.open_child(&bytes[..at], bytes).is_err());
    }
});
