//! Shares coming in: who may learn what, and when.

use arca_barrier::{BarrierError, Offer, RootKey, Seal, SealConfig, ShamirSeal, Share, UnsealProgress};
use zeroize::Zeroizing;

use crate::testing::{Broken, Seeded};

struct Sealed {
    root: RootKey,
    wrapped: Vec<u8>,
    shares: Vec<Share>,
    progress: UnsealProgress,
}

fn sealed(shares: u8, threshold: u8) -> Sealed {
    let entropy = Seeded::new(1);
    let (seal, root) = (ShamirSeal::generate(&entropy).unwrap(), RootKey::generate(&entropy).unwrap());
    Sealed {
        wrapped: seal.wrap(&root, &entropy).unwrap(),
        shares: seal.split(shares, threshold, &entropy).unwrap(),
        progress: UnsealProgress::new(&SealConfig::shamir(shares, threshold).unwrap()).unwrap(),
        root,
    }
}

impl Sealed {
    fn offer(&mut self, share: &[u8]) -> Result<Offer<(ShamirSeal, RootKey)>, BarrierError> {
        let share = Share::from_bytes(Zeroizing::new(share.to_vec()));
        self.progress.offer_seal_key(share, &Seeded::new(4), &self.wrapped)
    }

    /// Offers the share at `at` with `change` added to its first byte: pending, opened, or the error.
    fn step(&mut self, at: usize, change: u8) -> String {
        let mut share = self.shares[at].expose().to_vec();
        share[0] ^= change;
        match self.offer(&share) {
            Ok(Offer::Pending) => format!("{} of {}", self.progress.progress(), self.progress.threshold()),
            Ok(Offer::Complete((_, root))) => format!("opened: {}", root.matches(&self.root)),
            Err(err) => err.to_string(),
        }
    }
}

const WRONG: &str = "key shares do not give the key; start again";

#[track_caller]
fn check(shares: u8, threshold: u8, steps: &[(usize, u8, &str)]) {
    let mut sealed = sealed(shares, threshold);
    for (at, change, want) in steps {
        assert_eq!(sealed.step(*at, *change), *want, "share {at} with {change}");
    }
}

#[test]
fn opens_at_the_threshold_in_any_order() {
    check(5, 3, &[(4, 0, "1 of 3"), (0, 0, "2 of 3"), (2, 0, "opened: true")]);
    check(1, 1, &[(0, 0, "opened: true")]);
}

#[test]
fn the_same_share_counts_once() {
    check(3, 2, &[(1, 0, "1 of 2"), (1, 0, "1 of 2"), (0, 0, "opened: true")]);
}

#[test]
fn a_wrong_share_shows_only_at_the_threshold_and_starts_over() {
    check(
        5,
        3,
        &[
            (0, 0, "1 of 3"),
            (1, 1, "2 of 3"),
            (2, 0, WRONG),
            (0, 0, "1 of 3"),
            (1, 0, "2 of 3"),
            (2, 0, "opened: true"),
        ],
    );
    check(1, 1, &[(0, 1, WRONG), (0, 0, "opened: true")]);
}

#[test]
fn another_share_with_the_same_number_is_refused_and_progress_kept() {
    let conflict = "a different share with the same number was already provided";
    check(3, 2, &[(1, 0, "1 of 2"), (1, 1, conflict), (2, 0, "opened: true")]);
}

#[test]
fn malformed_shares_leave_progress_alone() {
    let mut sealed = sealed(3, 2);
    assert_eq!(sealed.step(0, 0), "1 of 2");
    assert_eq!(sealed.offer(&[1; 32]).unwrap_err(), BarrierError::ShareSize { size: 32, want: 33 });
    assert_eq!(sealed.offer(&[]).unwrap_err(), BarrierError::ShareSize { size: 0, want: 33 });
    assert_eq!(sealed.offer(&[0; 33]).unwrap_err(), BarrierError::ShareMalformed);
    assert_eq!(sealed.step(1, 0), "opened: true");
}

#[test]
fn an_attempt_has_a_name_until_it_ends() {
    let mut sealed = sealed(3, 2);
    assert_eq!((sealed.progress.nonce(), sealed.progress.is_attempt("")), ("", false));
    sealed.step(0, 0);
    let nonce = sealed.progress.nonce().to_owned();
    assert_eq!((nonce.len(), &nonce[14..15]), (36, "4"), "a random UUID: {nonce}");
    assert!(sealed.progress.is_attempt(&nonce) && !sealed.progress.is_attempt(&nonce[..35]));
    sealed.progress.reset();
    assert_eq!((sealed.progress.progress(), sealed.progress.nonce()), (0, ""));
    assert!(!sealed.progress.is_attempt(&nonce));
    sealed.step(0, 0);
    sealed.step(1, 0);
    assert_eq!((sealed.progress.progress(), sealed.progress.nonce()), (0, ""), "opened: nothing is kept");
}

#[test]
fn a_share_is_not_kept_when_randomness_fails() {
    let mut sealed = sealed(3, 2);
    let share = Share::from_bytes(Zeroizing::new(sealed.shares[0].expose().to_vec()));
    let offered = sealed.progress.offer_seal_key(share, &Broken, &sealed.wrapped);
    assert!(matches!(offered, Err(BarrierError::Entropy(_))));
    assert_eq!(sealed.progress.progress(), 0);
}

#[test]
fn the_verdict_of_the_caller_ends_the_attempt_too() {
    let mut sealed = sealed(1, 1);
    let share = Share::from_bytes(Zeroizing::new(sealed.shares[0].expose().to_vec()));
    let offered = sealed.progress.offer(share, &Seeded::new(1), |_| Err::<(), _>(BarrierError::Sealed));
    assert_eq!((offered, sealed.progress.progress()), (Err(BarrierError::Sealed), 0));
}

#[test]
fn a_seal_works_as_a_trait_object() {
    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("a seal made of shares never waits"),
        }
    }
    let entropy = Seeded::new(1);
    let seal: Box<dyn Seal> = Box::new(ShamirSeal::generate(&entropy).unwrap());
    let root = RootKey::generate(&entropy).unwrap();
    let wrapped = now(seal.wrap_root_key(&root, &entropy)).unwrap();
    assert!(now(seal.unwrap_root_key(&wrapped)).unwrap().matches(&root));
    let other = ShamirSeal::generate(&entropy).unwrap();
    assert_eq!(other.unwrap(&wrapped).unwrap_err(), BarrierError::Authentication);
    assert_eq!((seal.seal_type(), format!("{seal:?}").as_str()), ("shamir", "ShamirSeal(redacted)"));
}

#[test]
fn settings_are_checked_when_read() {
    let check = |json: &str, want: Result<(), BarrierError>| {
        assert_eq!(SealConfig::from_json(json.as_bytes()).map(|_| ()), want, "{json}");
    };
    let stored = SealConfig::shamir(5, 3).unwrap().to_json().unwrap();
    assert_eq!(SealConfig::from_json(&stored).unwrap(), SealConfig::shamir(5, 3).unwrap());
    check(r#"{"type":"shamir","secret_shares":5,"secret_threshold":3,"version":1}"#, Ok(()));
    check(r#"{"version":2,"new":true}"#, Err(BarrierError::UnknownVersion(2)));
    let malformed = BarrierError::Malformed("seal settings do not parse");
    check(
        r#"{"type":"shamir","secret_shares":5,"secret_threshold":3,"version":1,"x":1}"#,
        Err(malformed.clone()),
    );
    check(r#"{"type":"shamir","secret_shares":256,"secret_threshold":3,"version":1}"#, Err(malformed));
    check("", Err(BarrierError::Malformed("seal settings are not JSON with a version")));
    assert!(
        SealConfig::from_json(br#"{"type":"shamir","secret_shares":2,"secret_threshold":1,"version":1}"#)
            .is_err()
    );
}
