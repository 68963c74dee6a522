//! RSA keys: made, taken apart, written as others read them, and used.
//!
//! AWS-LC makes keys, encrypts, decrypts and signs. What it cannot do is done by the `rsa` crate: digests other than
//! SHA-2 from 256 bits up, salts of a chosen length, and verifying with a salt of any length
//! (docs/adr/0019-transit-crypto.md). A private key is its `RSAPrivateKey` in DER, a public one its `RSAPublicKey`.

use arca_engine_api::{EngineError, Entropy, EntropyError};
use aws_lc_rs::digest::{Algorithm, Digest as AwsDigest, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
    OAEP_SHA512_MGF1SHA512, OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaPssSaltLength,
};
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::traits::SignatureScheme;
use rsa::{BoxedUint, Pkcs1v15Sign, Pss};
use zeroize::Zeroizing;

use super::Modulus;
use super::der::{self, Reader};
use super::hashes::{Hash, with_digest};

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// Keys made for PSS alone; the key inside is the same.
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// How long a PSS salt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Salt {
    /// As long as fits when signing, of any length when verifying.
    Auto,
    /// As long as the digest.
    Digest,
    /// So many bytes.
    Len(usize),
}

/// How a digest is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// PKCS#1 v1.5; without a hash function what is given is signed as it is.
    Pkcs1(Option<Hash>),
    /// PSS.
    Pss(Hash, Salt),
}

fn bug(what: &str) -> EngineError {
    EngineError::Bug(what.to_owned())
}

/// A new private key.
pub(crate) fn generate(modulus: Modulus) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let size = match modulus {
        Modulus::B2048 => KeySize::Rsa2048,
        Modulus::B3072 => KeySize::Rsa3072,
        Modulus::B4096 => KeySize::Rsa4096,
    };
    let made = KeyPair::generate(size)
        .and_then(|pair| pair.as_der())
        .map_err(|_| bug("no RSA key could be made"))?;
    let (_, inner) = private_in(made.as_ref()).ok_or_else(|| bug("a new RSA key is no PKCS#8"))?;
    Ok(Zeroizing::new(inner.to_vec()))
}

/// The numbers of a private key: n, e, d, p, q, and what the Chinese remainder theorem needs.
pub(crate) struct Numbers<'a> {
    pub(crate) n: &'a [u8],
    pub(crate) e: &'a [u8],
    pub(crate) d: &'a [u8],
    pub(crate) p: &'a [u8],
    pub(crate) q: &'a [u8],
    pub(crate) dp: &'a [u8],
    pub(crate) dq: &'a [u8],
    pub(crate) q_inverse: &'a [u8],
}

impl<'a> Numbers<'a> {
    /// Out of an `RSAPrivateKey` of two primes.
    pub(crate) fn of(private: &'a [u8]) -> Option<Self> {
        let mut outer = Reader::new(private);
        let mut inner = outer.enter(der::SEQUENCE).filter(|_| outer.is_empty())?;
        inner.unsigned()?.is_empty().then_some(())?;
        let mut next = || inner.unsigned();
        let numbers = Self {
            n: next()?,
            e: next()?,
            d: next()?,
            p: next()?,
            q: next()?,
            dp: next()?,
            dq: next()?,
            q_inverse: next()?,
        };
        inner.is_empty().then_some(numbers)
    }

    /// The `RSAPrivateKey` of these.
    pub(crate) fn private(&self) -> Zeroizing<Vec<u8>> {
        let numbers = [&[0][..], self.n, self.e, self.d, self.p, self.q, self.dp, self.dq, self.q_inverse];
        let parts = numbers.map(der::write_unsigned);
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
        der::write(der::SEQUENCE, &parts)
    }
}

/// The `RSAPublicKey` of a modulus and an exponent.
pub(crate) fn public(n: &[u8], e: &[u8]) -> Vec<u8> {
    der::write(der::SEQUENCE, &[&der::write_unsigned(n), &der::write_unsigned(e)]).to_vec()
}

/// Modulus and exponent of an `RSAPublicKey`.
pub(crate) fn public_numbers(public: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = Reader::new(public);
    let mut inner = outer.enter(der::SEQUENCE).filter(|_| outer.is_empty())?;
    let numbers = (inner.unsigned()?, inner.unsigned()?);
    inner.is_empty().then_some(numbers)
}

/// Whether the library takes it for a sound private key.
pub(crate) fn is_sound(private: &[u8]) -> bool {
    KeyPair::from_der(private).is_ok()
}

/// Whether the library takes it for a sound public key.
pub(crate) fn is_sound_public(public: &[u8]) -> bool {
    crate_public(public).is_ok() && PublicEncryptingKey::from_der(&spki(public)).is_ok()
}

fn algorithm() -> Zeroizing<Vec<u8>> {
    der::write(der::SEQUENCE, &[&der::write(der::OID, &[RSA_ENCRYPTION]), &der::write(der::NULL, &[])])
}

/// `PrivateKeyInfo`.
pub(crate) fn pkcs8(private: &[u8]) -> Zeroizing<Vec<u8>> {
    let inner = der::write(der::OCTET_STRING, &[private]);
    der::write(der::SEQUENCE, &[&der::write_unsigned(&[0]), &algorithm(), &inner])
}

/// `SubjectPublicKeyInfo`.
pub(crate) fn spki(public: &[u8]) -> Vec<u8> {
    der::write(der::SEQUENCE, &[&algorithm(), &der::write_bits(public)]).to_vec()
}

/// Whether an algorithm is that of an RSA key.
pub(crate) fn is_named(mut algorithm: Reader<'_>) -> bool {
    algorithm.take(der::OID).is_some_and(|oid| oid == RSA_ENCRYPTION || oid == RSA_PSS)
}

/// Algorithm and private key in a `PrivateKeyInfo`.
pub(crate) fn private_in(pkcs8: &[u8]) -> Option<(Reader<'_>, &[u8])> {
    let mut outer = Reader::new(pkcs8);
    let mut inner = outer.enter(der::SEQUENCE).filter(|_| outer.is_empty())?;
    let _version = inner.unsigned()?;
    Some((inner.enter(der::SEQUENCE)?, inner.take(der::OCTET_STRING)?))
}

/// OAEP's hash function here, for the masks as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oaep {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Oaep {
    /// By the name used when keys are wrapped, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "SHA1" => Some(Self::Sha1),
            "SHA224" => Some(Self::Sha224),
            "SHA256" => Some(Self::Sha256),
            "SHA384" => Some(Self::Sha384),
            "SHA512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn algorithm(self) -> Option<&'static OaepAlgorithm> {
        match self {
            Self::Sha1 => Some(&OAEP_SHA1_MGF1SHA1),
            Self::Sha224 => None,
            Self::Sha256 => Some(&OAEP_SHA256_MGF1SHA256),
            Self::Sha384 => Some(&OAEP_SHA384_MGF1SHA384),
            Self::Sha512 => Some(&OAEP_SHA512_MGF1SHA512),
        }
    }

    /// Encrypts; `None` if the plaintext is too long for the key.
    pub(crate) fn encrypt(
        self,
        public: &[u8],
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(algorithm) = self.algorithm() else {
            let made = crate_public(public)?.encrypt(
                &mut Seam(entropy),
                rsa::Oaep::<sha2::Sha224>::new(),
                plaintext,
            );
            return Ok(made.ok());
        };
        let key =
            PublicEncryptingKey::from_der(&spki(public)).map_err(|_| bug("a stored RSA key is no key"))?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| bug("a stored RSA key cannot encrypt"))?;
        if plaintext.len() > key.max_plaintext_size(algorithm) {
            return Ok(None);
        }
        let mut out = vec![0; key.ciphertext_size()];
        let len = key.encrypt(algorithm, plaintext, &mut out, None).map_err(|_| bug("RSA failed"))?.len();
        out.truncate(len);
        Ok(Some(out))
    }

    /// Decrypts; `None` if it is not what [`Self::encrypt`] makes.
    pub(crate) fn decrypt(
        self,
        private: &[u8],
        ciphertext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, EngineError> {
        let Some(algorithm) = self.algorithm() else {
            let key = crate_private(private)?;
            let made = key.decrypt_blinded(&mut Seam(entropy), rsa::Oaep::<sha2::Sha224>::new(), ciphertext);
            return Ok(made.ok().map(Zeroizing::new));
        };
        Ok(Decryptor::by(algorithm, private)?.decrypt(ciphertext))
    }
}

/// A private key made ready to decrypt many times.
pub(crate) struct Decryptor {
    key: OaepPrivateDecryptingKey,
    algorithm: &'static OaepAlgorithm,
}

impl Decryptor {
    /// Of OAEP with SHA-256.
    pub(crate) fn of(private: &[u8]) -> Result<Self, EngineError> {
        Self::by(&OAEP_SHA256_MGF1SHA256, private)
    }

    fn by(algorithm: &'static OaepAlgorithm, private: &[u8]) -> Result<Self, EngineError> {
        let key = PrivateDecryptingKey::from_pkcs8(&pkcs8(private))
            .map_err(|_| bug("a stored RSA key is no key"))?;
        let key = OaepPrivateDecryptingKey::new(key).map_err(|_| bug("a stored RSA key cannot decrypt"))?;
        Ok(Self { key, algorithm })
    }

    /// Decrypts; `None` if it is not what [`Oaep::encrypt`] makes.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(vec![0; self.key.min_output_size()]);
        let len = self.key.decrypt(self.algorithm, ciphertext, &mut out, None).ok()?.len();
        out.truncate(len);
        Some(out)
    }
}

/// A private key made ready to sign many times.
pub(crate) struct Signer {
    pair: KeyPair,
    private: Zeroizing<Vec<u8>>,
}

impl Signer {
    pub(crate) fn of(private: &[u8]) -> Result<Self, EngineError> {
        let pair = KeyPair::from_der(private).map_err(|_| bug("a stored RSA key is no key"))?;
        Ok(Self { pair, private: Zeroizing::new(private.to_vec()) })
    }

    /// Signs a digest.
    pub(crate) fn sign(
        &self,
        padding: Padding,
        digest: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EngineError> {
        let room = Room::of(Numbers::of(&self.private).map_or(&[], |numbers| numbers.n));
        room.check_salt(padding)?;
        room.check_digest(padding, digest)?;
        if let Some((encoding, algorithm)) = aws_padding(padding) {
            let failed = |_| bug("RSA failed");
            let digest = AwsDigest::import_less_safe(digest, algorithm).map_err(failed)?;
            let mut signature = vec![0; self.pair.public_modulus_len()];
            self.pair.sign_digest(encoding, &digest, &mut signature).map_err(failed)?;
            return Ok(signature);
        }
        let (key, mut seam) = (crate_private(&self.private)?, Seam(entropy));
        let made = match padding {
            Padding::Pkcs1(None) => key.sign_with_rng(&mut seam, Pkcs1v15Sign::new_unprefixed(), digest),
            Padding::Pkcs1(Some(hash)) => {
                with_digest!(hash, D => key.sign_with_rng(&mut seam, Pkcs1v15Sign::new::<D>(), digest))
            }
            Padding::Pss(hash, salt) => {
                let len = match salt {
                    Salt::Auto => room.salt_max(hash),
                    Salt::Digest => hash.len(),
                    Salt::Len(len) => len,
                };
                with_digest!(hash, D => key.sign_with_rng(&mut seam, Pss::<D>::new_with_salt(len), digest))
            }
        };
        made.map_err(|_| bug("RSA failed"))
    }
}

/// Whether `signature` is one of the digest.
pub(crate) fn verify(
    public: &[u8],
    padding: Padding,
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, EngineError> {
    let key = crate_public(public)?;
    Room::of(public_numbers(public).map_or(&[], |(n, _)| n)).check_salt(padding)?;
    let verified = match padding {
        Padding::Pkcs1(None) => Pkcs1v15Sign::new_unprefixed().verify(&key, digest, signature),
        Padding::Pkcs1(Some(hash)) => {
            with_digest!(hash, D => Pkcs1v15Sign::new::<D>().verify(&key, digest, signature))
        }
        Padding::Pss(hash, salt) => with_digest!(hash, D => {
            let scheme = match salt {
                Salt::Auto => Pss::<D> { salt_len: None, ..Pss::<D>::new() },
                Salt::Digest => Pss::<D>::new(),
                Salt::Len(len) => Pss::<D>::new_with_salt(len),
            };
            scheme.verify(&key, digest, signature)
        }),
    };
    Ok(verified.is_ok())
}

/// What fits under a modulus.
struct Room {
    bits: usize,
}

impl Room {
    fn of(n: &[u8]) -> Self {
        let unused = n.first().map_or(0, |first| usize::try_from(first.leading_zeros()).unwrap_or_default());
        Self { bits: (n.len() * 8).saturating_sub(unused) }
    }

    fn salt_max(&self, hash: Hash) -> usize {
        ((self.bits + 6) / 8).saturating_sub(hash.len() + 2)
    }

    fn check_salt(&self, padding: Padding) -> Result<(), EngineError> {
        match padding {
            Padding::Pss(hash, Salt::Len(len)) if len > self.salt_max(hash) => {
                Err(EngineError::Invalid(format!("requested salt length {len} is invalid")))
            }
            _ => Ok(()),
        }
    }

    fn check_digest(&self, padding: Padding, digest: &[u8]) -> Result<(), EngineError> {
        let is_right = match padding {
            Padding::Pss(hash, _) | Padding::Pkcs1(Some(hash)) => digest.len() == hash.len(),
            Padding::Pkcs1(None) if digest.len() + 11 > self.bits.div_ceil(8) => {
                return Err(EngineError::invalid("message too long for RSA key size"));
            }
            Padding::Pkcs1(None) => true,
        };
        is_right.then_some(()).ok_or_else(|| EngineError::invalid("input must be hashed with the given hash"))
    }
}

/// The same in AWS-LC, if it has it.
fn aws_padding(padding: Padding) -> Option<(&'static dyn RsaEncoding, &'static Algorithm)> {
    Some(match padding {
        Padding::Pkcs1(Some(Hash::Sha256)) => (&RSA_PKCS1_SHA256, &SHA256),
        Padding::Pkcs1(Some(Hash::Sha384)) => (&RSA_PKCS1_SHA384, &SHA384),
        Padding::Pkcs1(Some(Hash::Sha512)) => (&RSA_PKCS1_SHA512, &SHA512),
        Padding::Pss(Hash::Sha256, Salt::Digest) => (&RSA_PSS_SHA256, &SHA256),
        Padding::Pss(Hash::Sha384, Salt::Digest) => (&RSA_PSS_SHA384, &SHA384),
        Padding::Pss(Hash::Sha512, Salt::Digest) => (&RSA_PSS_SHA512, &SHA512),
        Padding::Pss(Hash::Sha256, Salt::Auto) => {
            (&const { RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max) }, &SHA256)
        }
        Padding::Pss(Hash::Sha384, Salt::Auto) => {
            (&const { RSA_PSS_SHA384.with_pss_salt_length(RsaPssSaltLength::Max) }, &SHA384)
        }
        Padding::Pss(Hash::Sha512, Salt::Auto) => {
            (&const { RSA_PSS_SHA512.with_pss_salt_length(RsaPssSaltLength::Max) }, &SHA512)
        }
        _ => return None,
    })
}

fn number(bytes: &[u8]) -> Result<BoxedUint, EngineError> {
    let bits = u32::try_from(bytes.len() * 8).map_err(|_| bug("an RSA key is too long"))?;
    BoxedUint::from_be_slice(bytes, bits).map_err(|_| bug("an RSA key is too long"))
}

fn crate_private(private: &[u8]) -> Result<rsa::PrivateKey, EngineError> {
    let numbers = Numbers::of(private).ok_or_else(|| bug("a stored RSA key is no key"))?;
    let primes = vec![number(numbers.p)?, number(numbers.q)?];
    rsa::PrivateKey::from_components(number(numbers.n)?, number(numbers.e)?, number(numbers.d)?, primes)
        .map_err(|_| bug("a stored RSA key is no key"))
}

fn crate_public(public: &[u8]) -> Result<rsa::PublicKey, EngineError> {
    let (n, e) = public_numbers(public).ok_or_else(|| bug("a stored RSA key is no key"))?;
    rsa::PublicKey::new(number(n)?, number(e)?).map_err(|_| bug("a stored RSA key is no key"))
}

/// The random source of the request, as the `rsa` crate takes it.
struct Seam<'a>(&'a dyn Entropy);

impl TryRng for Seam<'_> {
    type Error = EntropyError;

    fn try_next_u32(&mut self) -> Result<u32, EntropyError> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, EntropyError> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        self.0.fill(dest)
    }
}

impl TryCryptoRng for Seam<'_> {}
