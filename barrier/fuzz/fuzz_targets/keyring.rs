//! Sealed keyrings and wrapped root keys.

#![no_main]

use arca_barrier::{Keyring, RootKey, ShamirSeal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let root = RootKey::from_slice(&[1; 32]).unwrap();
    assert!(Keyring::open(&root, bytes).is_err());
    assert!(ShamirSeal::from_key(&[1; 32]).unwrap().unwrap(bytes).is_err());
});
