//! Shamir shares: any threshold of them, nothing below it, and Vault's layout.

use arca_barrier::{BarrierError, Share, combine, split};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::testing::{Broken, Seeded};

fn share(bytes: &[u8]) -> Share {
    Share::from_bytes(Zeroizing::new(bytes.to_vec()))
}

fn copies(shares: &[Share], which: &[usize]) -> Vec<Share> {
    which.iter().map(|at| share(shares[*at].expose())).collect()
}

#[test]
fn known_answer() {
    // In the field of AES 0x53 times 0xca is 1, so f(x) = 0x42 + 0x53 x has f(1) = 0x11 and f(0xca) = 0x43.
    let combined = combine(&[share(&[0x11, 0x01]), share(&[0x43, 0xca])]).unwrap();
    assert_eq!(combined.as_slice(), [0x42]);
}

#[test]
fn impossible_numbers_are_refused() {
    let check = |shares: u8, threshold: u8, is_ok: bool| {
        let made = split(&[7; 32], shares, threshold, &Seeded::new(1));
        assert_eq!(made.is_ok(), is_ok, "{shares} shares, threshold {threshold}");
    };
    check(0, 0, false);
    check(1, 0, false);
    check(0, 1, false);
    check(2, 1, false);
    check(2, 3, false);
    check(1, 1, true);
    check(2, 2, true);
    check(255, 2, true);
    check(255, 255, true);
    assert!(split(&[], 3, 2, &Seeded::new(1)).is_err());
    assert!(matches!(split(&[7; 32], 3, 2, &Broken), Err(BarrierError::Entropy(_))));
}

#[test]
fn one_share_of_one_is_the_secret() {
    let shares = split(&[7; 32], 1, 1, &Seeded::new(1)).unwrap();
    assert_eq!(shares[0].expose(), [7; 32]);
    assert_eq!(combine(&shares).unwrap().as_slice(), [7; 32]);
}

#[test]
fn wrong_sets_are_refused() {
    let check = |shares: &[&[u8]], want: BarrierError| {
        let shares: Vec<_> = shares.iter().map(|bytes| share(bytes)).collect();
        assert_eq!(combine(&shares), Err(want));
    };
    check(&[], BarrierError::SharesWrong);
    check(&[&[1, 2, 1], &[1, 2]], BarrierError::ShareSize { size: 2, want: 3 });
    check(&[&[1, 2, 1], &[3, 4, 1]], BarrierError::ShareConflict);
    check(&[&[1, 2, 0], &[3, 4, 1]], BarrierError::ShareMalformed);
    check(&[&[1], &[2]], BarrierError::ShareMalformed);
}

#[test]
fn text_is_hexadecimal_first_then_base64() {
    let check = |text: &str, want: Option<&[u8]>| {
        let parsed = Share::parse(text).ok();
        assert_eq!(parsed.as_ref().map(Share::expose), want, "{text}");
    };
    let made = share(&[0xfb; 33]);
    check(&made.to_hex(), Some(&[0xfb; 33]));
    check(&made.to_hex().to_uppercase(), Some(&[0xfb; 33]));
    check(&made.to_base64(), Some(&[0xfb; 33]));
    check(&format!(" {}\n", made.to_hex().as_str()), Some(&[0xfb; 33]));
    check(&"0".repeat(32), Some(&[0; 16]));
    // Hexadecimal of 34 bytes is too long for a share, and its base64 reading is too.
    check(&"00".repeat(34), None);
    // Too short in hexadecimal, long enough in base64: Vault's rule takes the latter.
    check(&"0".repeat(24), Some(&[0xd3, 0x4d, 0x34].repeat(6)));
    check("", None);
    check("not a share", None);
    assert_eq!(format!("{made:?}"), "Share(redacted)");
}

proptest! {
    #[test]
    fn any_threshold_of_them_combine_and_fewer_do_not(
        secret: [u8; 32],
        seed: u64,
        (shares, threshold) in (2_u8..12).prop_flat_map(|shares| (Just(shares), 2..=shares)),
        order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let made = split(&secret, shares, threshold, &Seeded::new(seed)).unwrap();
        let order: Vec<_> = order.into_iter().filter(|at| *at < usize::from(shares)).collect();
        for count in 1..=usize::from(shares) {
            let combined = combine(&copies(&made, &order[..count])).unwrap();
            let is_secret = combined.as_slice() == secret;
            prop_assert_eq!(is_secret, count >= usize::from(threshold), "{} of {}", count, threshold);
        }
    }
}
