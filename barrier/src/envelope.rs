//! One key sealed under another: the keyring under the root key, the root key under the seal key.
//!
//! `version | suite | nonce | ciphertext | tag`, where the associated data names the purpose, so that one envelope
//! is never taken for another.

use zeroize::Zeroizing;

use crate::reader::Reader;
use crate::root_key::Secret;
use crate::suite::TAG_SIZE;
use crate::{BarrierError, Entropy, Suite};

const VERSION_V1: u8 = 1;

/// Envelopes are few and must outlive every count of messages, so they always take the suite without a bound.
const SUITE: Suite = Suite::XChaCha20Poly1305;

/// What an envelope holds. The text is part of what is authenticated: never change one.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Keyring,
    RootKey,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Keyring => b"arca keyring",
            Self::RootKey => b"arca root key",
        }
    }

    fn aad(self, suite: Suite) -> Vec<u8> {
        [&[VERSION_V1, suite.tag()], self.label()].concat()
    }
}

pub(crate) fn seal(
    key: &Secret,
    purpose: Purpose,
    plain: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, BarrierError> {
    let mut nonce = [0; SUITE.nonce_size()];
    entropy.fill(&mut nonce)?;
    let mut body = Zeroizing::new(plain.to_vec());
    let tag = SUITE.prepare(key)?.seal(&nonce, &purpose.aad(SUITE), &mut body)?;
    Ok([&[VERSION_V1, SUITE.tag()], nonce.as_slice(), &body, &tag].concat())
}

pub(crate) fn open(
    key: &Secret,
    purpose: Purpose,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, BarrierError> {
    let mut reader = Reader::new(sealed);
    let version = reader.byte()?;
    if version != VERSION_V1 {
        return Err(BarrierError::UnknownVersion(version));
    }
    let suite = Suite::from_tag(reader.byte()?)?;
    let nonce = reader.take(suite.nonce_size())?;
    let (body, tag) = reader.rest().split_last_chunk::<TAG_SIZE>().ok_or(BarrierError::Truncated)?;
    let mut plain = Zeroizing::new(body.to_vec());
    suite.prepare(key)?.open(nonce, &purpose.aad(suite), &mut plain, tag)?;
    Ok(plain)
}
