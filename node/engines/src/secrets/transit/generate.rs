//! New versions of keys. Secrets come from the request's random source, but for RSA's primes, which AWS-LC draws itself.

use arca_engine_api::{Ctx, EngineError, Entropy};
use zeroize::Zeroizing;

use super::key::Key;
use super::kind::{Kind, Modulus};
use super::material::{Material, Secret};
use super::{ec, ed25519, rsa_keys};

/// Bytes of what authenticates under a version that is no HMAC key itself.
const HMAC_KEY_LEN: usize = 32;

/// Secret bytes out of the random source.
pub(super) fn bytes(entropy: &dyn Entropy, len: usize) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let mut bytes = Zeroizing::new(vec![0; len]);
    entropy.fill(&mut bytes)?;
    Ok(bytes)
}

/// What authenticates under a version.
pub(super) fn hmac_key(entropy: &dyn Entropy) -> Result<Secret, EngineError> {
    bytes(entropy, HMAC_KEY_LEN).map(Secret::new)
}

/// A new version of `key`. RSA keys take seconds: they are made aside.
pub(super) async fn material(ctx: &Ctx<'_>, key: &Key) -> Result<Material, EngineError> {
    let Kind::Rsa(modulus) = key.kind else { return quick_material(key, ctx.entropy) };
    let (secret, public) = ctx.compute(move || rsa_pair(modulus)).await??;
    Ok(Material { public, ..symmetric(Secret::new(secret), Some(hmac_key(ctx.entropy)?)) })
}

/// A new version of a key that is quickly made: of any kind but RSA.
pub(super) fn quick_material(key: &Key, entropy: &dyn Entropy) -> Result<Material, EngineError> {
    let (secret, public) = match key.kind {
        Kind::Aead(cipher) => (bytes(entropy, cipher.key_len())?, Vec::new()),
        Kind::Ec(curve) => {
            let pair = ec::Pair::generate(curve, entropy)?;
            (pair.scalar, pair.point)
        }
        Kind::Ed25519 => {
            let private = ed25519::generate(entropy)?;
            let (_, public) = ed25519::halves(&private)?;
            let public = public.to_vec();
            (private, public)
        }
        Kind::Hmac => {
            let secret = bytes(entropy, key.hmac_len.map_or(0, usize::from))?;
            return Ok(symmetric(Secret::new(secret), None));
        }
        Kind::Rsa(_) => return Err(EngineError::Bug("an RSA key is to be made aside".to_owned())),
    };
    Ok(Material { public, ..symmetric(Secret::new(secret), Some(hmac_key(entropy)?)) })
}

/// The pair that imported keys are wrapped to.
pub(super) async fn wrapping_key(ctx: &Ctx<'_>) -> Result<Material, EngineError> {
    let (secret, public) = ctx.compute(|| rsa_pair(Modulus::B4096)).await??;
    Ok(Material { public, ..symmetric(Secret::new(secret), None) })
}

fn rsa_pair(modulus: Modulus) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), EngineError> {
    let private = rsa_keys::generate(modulus)?;
    let numbers = rsa_keys::Numbers::of(&private)
        .ok_or_else(|| EngineError::Bug("a new RSA key is no key".to_owned()))?;
    let public = rsa_keys::public(numbers.n, numbers.e);
    Ok((private, public))
}

/// A version without a public half.
pub(super) fn symmetric(secret: Secret, hmac_key: Option<Secret>) -> Material {
    Material { secret: Some(secret), hmac_key, public: Vec::new(), certificates: Vec::new() }
}
