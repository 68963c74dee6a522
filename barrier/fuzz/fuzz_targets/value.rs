//! Sealed values: anything but an error is a forgery.

#![no_main]

use std::sync::{Arc, LazyLock};

use arca_barrier::{Barrier, Keyring, OsEntropy, Suite};
use libfuzzer_sys::fuzz_target;

static BARRIERS: LazyLock<[Barrier; 2]> = LazyLock::new(|| {
    [Suite::XChaCha20Poly1305, Suite::Aes256Gcm]
        .map(|suite| Barrier::new(Keyring::generate(&OsEntropy, 0, suite).unwrap(), Arc::new(OsEntropy)))
});

fuzz_target!(|bytes: &[u8]| {
    for barrier in BARRIERS.iter() {
        assert!(barrier.open_value(b"key", bytes).is_err());
    }
});
