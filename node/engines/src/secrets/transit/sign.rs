//! `sign` and `verify`.

use std::sync::Arc;

use arca_engine_api::{Ctx, EngineError, Entropy, Fields, Request, Response};
use serde_json::Value;
use zeroize::Zeroizing;

use super::batch::{self, Batch, map};
use super::hashes::Hash;
use super::key::Key;
use super::keys::Keys;
use super::kind::Kind;
use super::ready::Ready;
use super::ring::Ring;
use super::rsa_keys::{self, Padding, Salt};
use super::{ec, ed25519, slow, text, tools};

/// Bytes of an Ed25519 seed.
const SEED_LEN: usize = 32;

/// How signatures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marshaling {
    /// As OpenSSL has them, in standard base64.
    Asn1,
    /// As JWS has them, in base64 for URLs.
    Jws,
}

/// How a request wants things signed.
struct How {
    /// What to hash by; `None` for not at all.
    hash: Option<Hash>,
    marshaling: Marshaling,
    is_prehashed: bool,
    scheme: String,
    salt: Salt,
}

impl How {
    fn of(request: &Request) -> Result<Self, EngineError> {
        let fields = request.fields();
        let hash = tools::named_hash(request)?;
        let marshaling = match fields.string("marshaling_algorithm")?.as_deref() {
            None | Some("asn1") => Marshaling::Asn1,
            Some("jws") => Marshaling::Jws,
            Some(_) => return Err(EngineError::invalid("invalid marshaling type")),
        };
        if fields.string("signature_context")?.is_some_and(|context| !context.is_empty()) {
            return Err(EngineError::invalid("signature_context is not supported"));
        }
        Ok(Self {
            hash,
            marshaling,
            is_prehashed: fields.boolean("prehashed")?.unwrap_or_default(),
            scheme: fields.string("signature_algorithm")?.unwrap_or_default(),
            salt: salt(fields)?,
        })
    }

    fn check(&self, key: &Key, doing: &str) -> Result<(), EngineError> {
        if !key.kind.signs() {
            return Err(EngineError::Invalid(format!(
                "key type {} does not support {doing}",
                key.kind.name()
            )));
        }
        let is_bare = self.is_prehashed && self.scheme == "pkcs1v15";
        if key.kind.hashes_input() && self.hash.is_none() && !is_bare {
            return Err(EngineError::invalid(
                "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15",
            ));
        }
        Ok(())
    }

    /// What is signed of an input.
    fn digest(&self, kind: Kind, input: &[u8]) -> Vec<u8> {
        match self.hash {
            Some(hash) if kind.hashes_input() && !self.is_prehashed => hash.digest(input),
            _ => input.to_vec(),
        }
    }

    fn padding(&self) -> Result<Padding, EngineError> {
        match (self.scheme.as_str(), self.hash) {
            ("" | "pss", Some(hash)) => Ok(Padding::Pss(hash, self.salt)),
            ("pkcs1v15", hash) => Ok(Padding::Pkcs1(hash)),
            ("" | "pss", None) => Err(EngineError::invalid("unsupported hash algorithm")),
            _ => Err(EngineError::invalid("unsupported rsa signature algorithm")),
        }
    }

    fn written(&self, signature: &[u8]) -> String {
        match self.marshaling {
            Marshaling::Asn1 => text::encode(signature),
            Marshaling::Jws => text::encode_url(signature),
        }
    }
}

fn salt(fields: Fields<'_>) -> Result<Salt, EngineError> {
    let Some(text) = fields.string("salt_length")? else { return Ok(Salt::Auto) };
    match text.to_ascii_lowercase().as_str() {
        "auto" | "0" => Ok(Salt::Auto),
        "hash" | "-1" => Ok(Salt::Digest),
        number => match number.parse::<i64>() {
            Ok(len) => usize::try_from(len)
                .map(Salt::Len)
                .map_err(|_| EngineError::Invalid(format!("salt length is invalid: {len}"))),
            Err(_) => Err(EngineError::invalid("salt length neither 'auto', 'hash', nor an int")),
        },
    }
}

/// One thing to sign or verify, as sent.
struct Ask {
    input: Option<String>,
    context: String,
    signature: String,
}

impl Ask {
    fn read(fields: Fields<'_>) -> Result<Self, EngineError> {
        Ok(Self {
            input: batch::string(fields, "input")?,
            context: batch::string(fields, "context")?.unwrap_or_default(),
            signature: batch::string(fields, "signature")?.unwrap_or_default(),
        })
    }

    fn input(&self, is_listed: bool) -> Result<zeroize::Zeroizing<Vec<u8>>, EngineError> {
        match &self.input {
            None if is_listed => Err(EngineError::invalid("missing input")),
            input => tools::base64(input.as_deref().unwrap_or_default()),
        }
    }

    fn context(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, EngineError> {
        text::decode(&self.context).map_err(|_| EngineError::invalid("failed to base64-decode context"))
    }
}

/// Signs.
pub(super) async fn sign(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let how = Arc::new(How::of(request)?);
    let key = keys.require(name, "signing key not found")?;
    how.check(&key, "signing")?;
    let wanted = request.fields().integer("key_version")?.unwrap_or_default();
    let batch = Batch::of(request)?;
    batch.limit_for(key.kind)?;
    let asks = batch.read(Ask::read)?;
    let mut ring = Ring::new(keys, name, &key);
    let tasks = batch::each(&asks, |_, ask| {
        let digest = how.digest(key.kind, &ask.input(batch.is_list)?);
        let context = ask.context()?;
        key.check_shown()?;
        let version = key.version_to_make(wanted, "signing")?;
        Ok((Signer::of(&mut ring, version, &context)?, digest, version))
    })?;
    // Two spellings, one for each form: this is how the API has it.
    let public_field = if batch.is_list { "publickey" } else { "public_key" };
    let kind = key.kind;
    let done = slow::each(ctx, kind, tasks, move |(signer, digest, version), entropy| {
        let (signature, public) = signer.sign(kind, &how, &digest, entropy)?;
        let mut made = map([
            ("signature", Value::String(text::versioned(version, &how.written(&signature)))),
            ("key_version", Value::from(version)),
        ]);
        if let Some(public) = public {
            made.insert(public_field.to_owned(), Value::String(text::encode(&public)));
        }
        Ok(made)
    });
    batch::answer(&batch, done.await?, &map([("key_version", Value::from(0))]))
}

/// What signs an item.
enum Signer {
    /// A private Ed25519 key of the item's context alone.
    Derived(Zeroizing<Vec<u8>>),
    Version(Arc<Ready>),
}

impl Signer {
    fn of(ring: &mut Ring<'_>, version: u32, context: &[u8]) -> Result<Self, EngineError> {
        let key = ring.key();
        if key.kind == Kind::Ed25519 && key.is_derived {
            return Ok(Self::Derived(ed25519::from_seed(&ring.secret_for(version, context, SEED_LEN)?)?));
        }
        Ok(Self::Version(Arc::clone(ring.ready(version)?)))
    }

    /// The signature, and the public key if it is the context's own.
    fn sign(
        &self,
        kind: Kind,
        how: &How,
        digest: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), EngineError> {
        match self {
            Self::Derived(private) => {
                let public = ed25519::halves(private)?.1.to_vec();
                Ok((ed25519::sign(private, digest)?, Some(public)))
            }
            Self::Version(ready) => {
                let signature = ready.sign(kind, || how.padding(), digest, entropy)?;
                let is_pair = matches!(kind, Kind::Ec(_)) && how.marshaling == Marshaling::Asn1;
                Ok((if is_pair { ec::to_der(&signature) } else { signature }, None))
            }
        }
    }
}

/// Verifies signatures, or HMACs.
pub(super) async fn verify(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let batch = Batch::of(request)?;
    if is_about_hmacs(&batch)? {
        return tools::verify_hmac(ctx, request, &batch);
    }
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let how = How::of(request)?;
    let key = keys.require(name, "signature verification key not found")?;
    how.check(&key, "verification")?;
    batch.limit_for(key.kind)?;
    let asks = batch.read(Ask::read)?;
    let mut ring = Ring::new(keys, name, &key);
    let tasks = batch::each(&asks, |_, ask| {
        let digest = how.digest(key.kind, &ask.input(batch.is_list)?);
        let context = ask.context()?;
        key.check_shown()?;
        Signed::read(&mut ring, &how, &context, digest, &ask.signature)
    })?;
    let kind = key.kind;
    let done = slow::each(ctx, kind, tasks, move |signed, _| {
        Ok(map([("valid", Value::from(signed.is_valid(kind, &how)?))]))
    });
    batch::answer(&batch, done.await?, &map([("valid", Value::from(false))]))
}

/// Whether the items bring HMACs. All are to bring the same; of one that brings both the signature counts.
fn is_about_hmacs(batch: &Batch<'_>) -> Result<bool, EngineError> {
    let is_there =
        |fields: Fields<'_>, name| fields.has(name) && fields.string(name).ok() != Some(Some(String::new()));
    let has = |name: &'static str| {
        let items = batch.items.iter().filter(|item| is_there(Fields::new(item), name));
        items.count()
    };
    let (signatures, hmacs) = (has("signature"), has("hmac"));
    let all = batch.items.len();
    let refused = match (signatures, hmacs) {
        (0, 0) if batch.is_list => "no batch_input elements have 'signature' or 'hmac'",
        (0, 0) => "neither a 'signature' nor an 'hmac' were given to verify",
        (0, hmacs) if hmacs == all => return Ok(true),
        (signatures, _) if signatures == all => return Ok(false),
        (0, _) => "some elements of batch_input are missing 'hmac'",
        (_, 0) => "some elements of batch_input are missing 'signature'",
        _ => "elements of batch_input must all provide 'signature' or all provide 'hmac'",
    };
    Err(EngineError::invalid(refused))
}

/// A signature with what it is to be of.
struct Signed {
    signer: Signer,
    digest: Vec<u8>,
    signature: Zeroizing<Vec<u8>>,
}

impl Signed {
    fn read(
        ring: &mut Ring<'_>,
        how: &How,
        context: &[u8],
        digest: Vec<u8>,
        signature: &str,
    ) -> Result<Self, EngineError> {
        let (found, body) = text::split_version(signature).map_err(|why| why.of("signature"))?;
        let version = ring.key().version_of(found, "signature")?;
        let signature = match how.marshaling {
            Marshaling::Asn1 => text::decode(body),
            Marshaling::Jws => text::decode_url(body),
        };
        let signature = signature.map_err(|_| EngineError::invalid("invalid base64 signature value"))?;
        Ok(Self { signer: Signer::of(ring, version, context)?, digest, signature })
    }

    fn is_valid(&self, kind: Kind, how: &How) -> Result<bool, EngineError> {
        let (digest, signature) = (&self.digest, &self.signature);
        let public = match &self.signer {
            Signer::Derived(private) => {
                return Ok(ed25519::verify(ed25519::halves(private)?.1, digest, signature));
            }
            Signer::Version(ready) => &ready.material.public,
        };
        match kind {
            Kind::Ec(curve) => {
                let signature = match how.marshaling {
                    Marshaling::Asn1 => ec::from_der(curve, signature)?,
                    Marshaling::Jws => ec::from_halves(curve, signature),
                };
                signature.map_or(Ok(false), |signature| ec::verify(curve, public, digest, &signature))
            }
            Kind::Ed25519 => Ok(ed25519::verify(public, digest, signature)),
            Kind::Rsa(_) => rsa_keys::verify(public, how.padding()?, digest, signature),
            Kind::Aead(_) | Kind::Hmac => Ok(false),
        }
    }
}
