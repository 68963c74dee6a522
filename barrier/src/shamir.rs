//! Shamir's secret sharing over GF(2^8), byte by byte, in the layout of Vault: the share's number is its last byte.
//!
//! The field is that of `vsss-rs`, whose product has no table and no branch (CVE-2023-25000 was a table). Its own
//! split and combine are not used: they leave coefficients in memory and cannot be told that randomness failed.
//! One share of one is the secret itself.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use vsss_rs::{Gf256, IdentifierGf256, ShareIdentifier};
use zeroize::Zeroizing;

use crate::{BarrierError, Entropy};

/// Most shares.
pub const SHARES_MAX: u8 = u8::MAX;

/// Shares in text have at least this many bytes.
const TEXT_BYTES_MIN: usize = 16;
/// Shares in text have at most this many bytes: a key and the share's number.
const TEXT_BYTES_MAX: usize = 33;

/// A share of a secret. Shown only on purpose, by [`Self::to_hex`] and [`Self::to_base64`].
pub struct Share(Zeroizing<Vec<u8>>);

impl Share {
    /// Takes over a share's bytes.
    #[must_use]
    pub const fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Reads a share as people enter it: hexadecimal if it is that and gives 16 to 33 bytes, else base64.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, BarrierError> {
        let text = text.trim_ascii();
        let is_sized = |bytes: &[u8]| (TEXT_BYTES_MIN..=TEXT_BYTES_MAX).contains(&bytes.len());
        let hex = hex::decode(text).ok().map(Zeroizing::new).filter(|bytes| is_sized(bytes));
        hex.or_else(|| STANDARD.decode(text).ok().map(Zeroizing::new).filter(|bytes| is_sized(bytes)))
            .map(Self)
            .ok_or(BarrierError::ShareMalformed)
    }

    /// Lower-case hexadecimal.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }

    /// Base64 with padding.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// Each call site says in a comment why it needs the bare bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether both have the same bytes; takes the same time for all of one size.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    pub(crate) fn number(&self) -> Option<u8> {
        self.0.last().copied()
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(redacted)")
    }
}

/// Whether so many shares with that threshold make sense.
pub(crate) const fn check_counts(shares: u8, threshold: u8) -> Result<(), BarrierError> {
    match (shares, threshold) {
        (0, _) => Err(BarrierError::InvalidConfig("shares must be at least one")),
        (_, 0) => Err(BarrierError::InvalidConfig("threshold must be at least one")),
        (2.., 1) => {
            Err(BarrierError::InvalidConfig("threshold must be greater than one for multiple shares"))
        }
        _ if threshold > shares => Err(BarrierError::InvalidConfig("threshold cannot be larger than shares")),
        _ => Ok(()),
    }
}

/// Splits `secret` so that any `threshold` of the `shares` give it back and fewer say nothing about it.
///
/// # Errors
/// When the numbers make no sense, the secret is empty, or randomness fails.
pub fn split(
    secret: &[u8],
    shares: u8,
    threshold: u8,
    entropy: &dyn Entropy,
) -> Result<Vec<Share>, BarrierError> {
    check_counts(shares, threshold)?;
    if secret.is_empty() {
        return Err(BarrierError::InvalidConfig("the secret is empty"));
    }
    if shares == 1 {
        return Ok(vec![Share(Zeroizing::new(secret.to_vec()))]);
    }
    let degree = usize::from(threshold - 1);
    let mut coefficients = Zeroizing::new(vec![0; degree * secret.len()]);
    entropy.fill(&mut coefficients)?;
    Ok((1..=shares).map(|number| evaluate(secret, &coefficients, degree, number)).collect())
}

/// The share at `number`: for each byte of the secret, its polynomial there, by Horner's rule.
fn evaluate(secret: &[u8], coefficients: &[u8], degree: usize, number: u8) -> Share {
    let at = Gf256(number);
    let mut share = Zeroizing::new(Vec::with_capacity(secret.len() + 1));
    for (byte, polynomial) in secret.iter().zip(coefficients.chunks_exact(degree)) {
        let sum = polynomial.iter().rev().fold(Gf256(0), |sum, coefficient| (sum + Gf256(*coefficient)) * at);
        share.push((sum + Gf256(*byte)).0);
    }
    share.push(number);
    Share(share)
}

/// The secret the shares were made from, if there are enough of them and all belong together; otherwise some other
/// bytes, which only the caller can tell from the secret. A single share counts as the secret itself.
///
/// # Errors
/// When there is none, sizes differ, two have the same number, or one has number zero.
pub fn combine(shares: &[Share]) -> Result<Zeroizing<Vec<u8>>, BarrierError> {
    let first = shares.first().ok_or(BarrierError::SharesWrong)?;
    if shares.len() == 1 {
        return Ok(first.0.clone());
    }
    let want = first.0.len();
    if want < 2 {
        return Err(BarrierError::ShareMalformed);
    }
    if let Some(other) = shares.iter().find(|share| share.0.len() != want) {
        return Err(BarrierError::ShareSize { size: other.0.len(), want });
    }
    let numbers: Vec<u8> = shares.iter().filter_map(Share::number).collect();
    let mut sum = Zeroizing::new(vec![0; want - 1]);
    for (share, number) in shares.iter().zip(&numbers) {
        let weight = weight(*number, &numbers)?;
        for (total, value) in sum.iter_mut().zip(share.0.iter()) {
            *total = (Gf256(*total) + Gf256(*value) * weight).0;
        }
    }
    Ok(sum)
}

/// How much the share at `number` adds to the value at zero (Lagrange). Numbers are no secret.
fn weight(number: u8, numbers: &[u8]) -> Result<Gf256, BarrierError> {
    if number == 0 {
        return Err(BarrierError::ShareMalformed);
    }
    if numbers.iter().filter(|other| **other == number).count() != 1 {
        return Err(BarrierError::ShareConflict);
    }
    let (mut above, mut below) = (Gf256(1), Gf256(1));
    for other in numbers.iter().filter(|other| **other != number) {
        above *= Gf256(*other);
        below *= Gf256(*other) - Gf256(number);
    }
    let below = IdentifierGf256(below).invert().map_err(|_| BarrierError::ShareConflict)?;
    Ok(above * below.0)
}
