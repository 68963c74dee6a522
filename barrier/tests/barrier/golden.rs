//! Golden bytes: every stored format as it is on disks out there. A change here is a change of format: it needs a new
//! version beside the old one, never another line in place of one of these.

use std::sync::Arc;

use arca_barrier::{Barrier, Class, Keyring, RootKey, SealConfig, ShamirSeal, Suite, TimedIndex, boot_key};

use crate::testing::Counting;

const GOLDEN: &str = include_str!("testdata/golden_v1.txt");

fn golden(name: &str) -> Vec<u8> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    hex::decode(line.unwrap_or_default()).unwrap()
}

#[track_caller]
fn check(name: &str, made: &[u8]) {
    assert_eq!(hex::encode(made), hex::encode(golden(name)), "{name}");
}

fn root() -> RootKey {
    RootKey::from_slice(&[0x11; 32]).unwrap()
}

/// Two terms, one of each suite.
fn keyring() -> Keyring {
    let entropy = Counting::default();
    let keyring = Keyring::generate(&entropy, 1_700_000_000_000, Suite::Aes256Gcm).unwrap();
    keyring.rotated(&entropy, 1_800_000_000_000, Suite::XChaCha20Poly1305).unwrap()
}

#[test]
fn keyring_v1() {
    check("keyring", &keyring().seal(&root(), &Counting::default()).unwrap());
    let opened = Keyring::open(&root(), &golden("keyring")).unwrap();
    assert_eq!((opened.active_term(), opened.suite()), (2, Suite::XChaCha20Poly1305));
    let barrier = Barrier::new(opened, Arc::new(Counting::default()));
    assert_eq!(
        barrier.open_value(b"key", &golden("value xchacha20poly1305")).unwrap().as_slice(),
        b"a secret"
    );
    assert_eq!(barrier.open_value(b"key", &golden("value aes256gcm")).unwrap().as_slice(), b"a secret");
    assert_eq!(barrier.open_name(&golden("name")).unwrap(), (Class::Replicated, "a/b".to_owned()));
    assert_eq!(barrier.open_timed(&golden("timed")).unwrap(), (1_900_000_000_000, "a/b".to_owned()));
}

#[test]
fn values_v1() {
    let new = Barrier::new(keyring(), Arc::new(Counting::default()));
    check("value xchacha20poly1305", &new.seal_value(b"key", b"a secret").unwrap());
    let entropy = Counting::default();
    let old = Keyring::generate(&entropy, 0, Suite::Aes256Gcm).unwrap();
    check("value aes256gcm", &Barrier::new(old, Arc::new(entropy)).seal_value(b"key", b"a secret").unwrap());
}

#[test]
fn names_v1() {
    let barrier = Barrier::new(keyring(), Arc::new(Counting::default()));
    check("name", &barrier.seal_name(Class::Replicated, "a/b").unwrap());
    check("name of a class", &barrier.seal_name(Class::Local, "").unwrap());
    let index = TimedIndex::LeaseDeadline;
    check("timed", &barrier.seal_timed(Class::Local, index, 1_900_000_000_000, "a/b").unwrap());
    check("boot", &boot_key("seal-config"));
}

#[test]
fn root_key_v1() {
    let seal = ShamirSeal::from_key(&[0x22; 32]).unwrap();
    check("root key", &seal.wrap(&root(), &Counting::default()).unwrap());
    assert!(seal.unwrap(&golden("root key")).unwrap().matches(&root()));
}

#[test]
fn shares_v1() {
    let shares = ShamirSeal::from_key(&[0x22; 32]).unwrap().split(2, 2, &Counting::default()).unwrap();
    check("share 1 of 2", shares[0].expose());
    check("share 2 of 2", shares[1].expose());
}

#[test]
fn seal_config_v1() {
    let json = r#"{"type":"shamir","secret_shares":5,"secret_threshold":3,"nonce":"","version":1}"#;
    assert_eq!(String::from_utf8(SealConfig::shamir(5, 3).unwrap().to_json().unwrap()).unwrap(), json);
}
