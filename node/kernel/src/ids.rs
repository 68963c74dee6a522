//! Names made of random bytes: mount ids, accessors, migration ids.

use arca_engine_api::Entropy;

use crate::KernelError;

/// A random (version 4) UUID.
///
/// # Errors
/// When randomness fails.
pub fn uuid(entropy: &dyn Entropy) -> Result<String, KernelError> {
    let mut bytes = [0_u8; 16];
    entropy.fill(&mut bytes)?;
    let number = u128::from_be_bytes(bytes) & !(0xf000_u128 << 64) & !(0xc000_u128 << 48);
    let text = format!("{:032x}", number | (0x4000_u128 << 64) | (0x8000_u128 << 48));
    let parts = [text.get(..8), text.get(8..12), text.get(12..16), text.get(16..20), text.get(20..)];
    Ok(parts.map(Option::unwrap_or_default).join("-"))
}

/// `size` random bytes in hex.
///
/// # Errors
/// When randomness fails.
pub fn hex(entropy: &dyn Entropy, size: usize) -> Result<String, KernelError> {
    let mut bytes = vec![0_u8; size];
    entropy.fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}
