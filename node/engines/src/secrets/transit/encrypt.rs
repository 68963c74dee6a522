//! `encrypt`, `decrypt`, `rewrap`, `datakey`.

use std::sync::Arc;

use arca_engine_api::{Ctx, EngineError, Fields, Map, Operation, Request, Response};
use serde_json::Value;
use zeroize::Zeroizing;

use super::batch::{self, Batch, Done, map};
use super::config::KeysConfig;
use super::key::Key;
use super::keys::Keys;
use super::kind::Kind;
use super::material::Material;
use super::ready::Ready;
use super::ring::Ring;
use super::{generate, slow, text};

const NO_KEY: &str = "encryption key not found";

/// Text of an item of a list that is encrypted or decrypted.
const TEXTS: [&str; 4] = ["associated_data", "ciphertext", "context", "plaintext"];

fn check_texts(batch: &Batch<'_>, fields: Fields<'_>) -> Result<(), EngineError> {
    if !batch.is_list {
        return Ok(());
    }
    TEXTS.iter().try_for_each(|name| batch::check_string(fields, name))
}

/// One thing to encrypt or decrypt, as sent.
struct Ask {
    input: Option<Zeroizing<String>>,
    context: String,
    key_version: i64,
    associated_data: String,
}

impl Ask {
    /// `input` names the field; without `default_version` the item says which version.
    fn read(fields: Fields<'_>, input: &str) -> Result<Self, EngineError> {
        if input != "ciphertext" {
            check_nonce(fields)?;
        }
        Ok(Self {
            input: batch::string(fields, input)?.map(Zeroizing::new),
            context: batch::string(fields, "context")?.unwrap_or_default(),
            key_version: fields.integer("key_version")?.unwrap_or_default(),
            associated_data: batch::string(fields, "associated_data")?.unwrap_or_default(),
        })
    }

    fn input(&self) -> &str {
        self.input.as_ref().map_or("", |input| input.as_str())
    }

    fn context(&self) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        text::decode(&self.context)
    }

    fn associated_data(&self, key: &Key, at: Option<usize>) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        associated_data(&self.associated_data, key, at)
    }
}

fn associated_data(encoded: &str, key: &Key, at: Option<usize>) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    if !encoded.is_empty() && !matches!(key.kind, Kind::Aead(_)) {
        let item = at.map_or_else(String::new, |at| format!("[{at}]."));
        let kind = key.kind.name();
        return Err(EngineError::Invalid(format!(
            "'{item}associated_data' provided for non-AEAD cipher suite {kind}"
        )));
    }
    text::decode(encoded).map_err(|_| EngineError::invalid("unable to decode associated_data as base64"))
}

/// CVE-2023-4680: a caller who chooses nonces can have one used twice. What is decrypted brings its own, and another
/// that is sent with it changes nothing.
fn check_nonce(fields: Fields<'_>) -> Result<(), EngineError> {
    match fields.string("nonce")? {
        Some(nonce) if !nonce.is_empty() => Err(EngineError::invalid("nonce provided when not allowed")),
        _ => Ok(()),
    }
}

fn check_contexts(asks: &[Ask]) -> Result<(), EngineError> {
    let mut missing = asks.iter().map(|ask| ask.context.is_empty());
    let first = missing.next().unwrap_or(true);
    if missing.all(|is_missing| is_missing == first) {
        return Ok(());
    }
    Err(EngineError::invalid("context should be set either in all the request blocks or in none"))
}

/// Encrypts, by a new key if there is none and the caller may make one. It is kept if anything was encrypted by it.
pub(super) async fn encrypt(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    batch::status_wished(request)?;
    let batch = Batch::of(request)?;
    let asks = batch.read(|fields| {
        check_texts(&batch, fields)?;
        let ask = Ask::read(fields, "plaintext")?;
        if ask.input.is_none() {
            return Err(EngineError::invalid("missing plaintext to encrypt"));
        }
        Ok(ask)
    })?;
    check_contexts(&asks)?;
    let name = request.param("name");
    let is_derived = asks.first().is_some_and(|ask| !ask.context.is_empty());
    let (key, new) = match keys.find(name)? {
        Some(key) => (key, None),
        None if request.operation == Operation::Create => {
            let (key, material) = make_key(&keys, request, is_derived)?;
            (Arc::new(key), Some(Arc::new(Ready::of(material))))
        }
        None => return Err(EngineError::invalid(NO_KEY)),
    };
    batch.limit_for(key.kind)?;
    let mut ring = Ring::new(keys, name, &key);
    if let Some(new) = &new {
        ring = ring.with_version(key.latest(), Arc::clone(new));
    }
    let done = if matches!(key.kind, Kind::Rsa(_)) {
        encrypt_rsa(ctx, ring, &asks).await?
    } else {
        batch::each(&asks, |at, ask| {
            let plaintext = text::decode(ask.input())?;
            let context = ask.context()?;
            let aad = ask.associated_data(&key, Some(at))?;
            let (ciphertext, version) = ring.encrypt(ask.key_version, &context, &plaintext, &aad)?;
            Ok(encrypted(ciphertext, version))
        })?
    };
    if let Some(new) = new.filter(|_| done.iter().any(Result::is_ok)) {
        keys.store(name, &key)?;
        keys.put_material(name, key.latest(), &new.material)?;
    }
    batch::answer_with_status(request, &batch, done, &Map::new())
}

async fn encrypt_rsa(ctx: &Ctx<'_>, mut ring: Ring<'_>, asks: &[Ask]) -> Result<Vec<Done>, EngineError> {
    let kind = ring.key().kind;
    let tasks = batch::each(asks, |at, ask| {
        let plaintext = text::decode(ask.input())?;
        ask.context()?;
        ask.associated_data(ring.key(), Some(at))?;
        let version = ring.version_to_encrypt(ask.key_version)?;
        Ok((Arc::clone(ring.ready(version)?), version, plaintext))
    })?;
    slow::each(ctx, kind, tasks, |(ready, version, plaintext), entropy| {
        let sealed = ready.encrypt_rsa(&plaintext, entropy)?;
        Ok(encrypted(text::versioned(version, &text::encode(&sealed)), version))
    })
    .await
}

fn encrypted(ciphertext: String, version: u32) -> Map {
    map([("ciphertext", Value::String(ciphertext)), ("key_version", Value::from(version))])
}

/// The key that encrypting makes, with its first version: symmetric, derived if there is a context.
fn make_key(keys: &Keys<'_>, request: &Request, is_derived: bool) -> Result<(Key, Material), EngineError> {
    let fields = request.fields();
    let is_convergent = fields.boolean("convergent_encryption")?.unwrap_or_default();
    if is_convergent && !is_derived {
        return Err(EngineError::invalid(
            "convergent encryption requires derivation to be enabled, so context is required",
        ));
    }
    let kind = match fields.string("type")?.as_deref() {
        None => Kind::DEFAULT,
        Some(kind) => Kind::named(kind).ok_or_else(|| EngineError::invalid("unknown key type"))?,
    };
    if !matches!(kind, Kind::Aead(_)) {
        return Err(EngineError::Invalid(format!(
            "key type {} not supported for this operation",
            kind.name()
        )));
    }
    if KeysConfig::load(keys.storage)?.disable_upsert {
        return Err(EngineError::invalid(NO_KEY));
    }
    let mut key = Key { is_derived, is_convergent, ..Key::new(kind) };
    let material = generate::quick_material(&key, keys.entropy)?;
    key.versions.insert(1, keys.clock.now());
    Ok((key, material))
}

/// Decrypts.
pub(super) async fn decrypt(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    batch::status_wished(request)?;
    let (batch, asks) = ciphertexts(request)?;
    batch.read(|fields| check_texts(&batch, fields))?;
    let name = request.param("name");
    let key = keys.require(name, NO_KEY)?;
    batch.limit_for(key.kind)?;
    let mut ring = Ring::new(keys, name, &key);
    let done = if matches!(key.kind, Kind::Rsa(_)) {
        let tasks = batch::each(&asks, |at, ask| sealed_by_rsa(&mut ring, at, ask))?;
        slow::each(ctx, key.kind, tasks, |(ready, sealed), _| {
            ready.decrypt_rsa(&sealed).map(|plaintext| decrypted(&plaintext))
        })
        .await?
    } else {
        batch::each(&asks, |at, ask| {
            present(ask)?;
            let context = ask.context()?;
            let aad = ask.associated_data(&key, Some(at))?;
            ring.decrypt(&context, ask.input(), &aad).map(|plaintext| decrypted(&plaintext))
        })?
    };
    batch::answer_with_status(request, &batch, done, &map([("plaintext", Value::from(""))]))
}

fn decrypted(plaintext: &[u8]) -> Map {
    map([("plaintext", Value::String(text::encode(plaintext)))])
}

/// What RSA is to decrypt, and by which version.
fn sealed_by_rsa(
    ring: &mut Ring<'_>,
    at: usize,
    ask: &Ask,
) -> Result<(Arc<Ready>, Zeroizing<Vec<u8>>), EngineError> {
    present(ask)?;
    ask.context()?;
    ask.associated_data(ring.key(), Some(at))?;
    let (version, sealed) = ring.sealed(ask.input())?;
    Ok((Arc::clone(ring.ready(version)?), sealed))
}

/// Decrypts and encrypts again, by the latest version unless another is wanted.
pub(super) async fn rewrap(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    let (batch, asks) = ciphertexts(request)?;
    let name = request.param("name");
    let key = keys.require(name, NO_KEY)?;
    batch.limit_for(key.kind)?;
    let mut ring = Ring::new(keys, name, &key);
    let done = if matches!(key.kind, Kind::Rsa(_)) {
        let tasks = batch::each(&asks, |at, ask| {
            let (from, sealed) = sealed_by_rsa(&mut ring, at, ask)?;
            let version = ring.version_to_encrypt(ask.key_version)?;
            Ok((from, sealed, Arc::clone(ring.ready(version)?), version))
        })?;
        slow::each(ctx, key.kind, tasks, |(from, sealed, to, version), entropy| {
            let sealed = to.encrypt_rsa(&from.decrypt_rsa(&sealed)?, entropy)?;
            Ok(encrypted(text::versioned(version, &text::encode(&sealed)), version))
        })
        .await?
    } else {
        batch::each(&asks, |at, ask| {
            present(ask)?;
            let context = ask.context()?;
            let aad = ask.associated_data(&key, Some(at))?;
            let plaintext = ring.decrypt(&context, ask.input(), &aad)?;
            let (ciphertext, version) = ring.encrypt(ask.key_version, &context, &plaintext, &aad)?;
            Ok(encrypted(ciphertext, version))
        })?
    };
    batch::answer(&batch, done, &Map::new())
}

fn ciphertexts(request: &Request) -> Result<(Batch<'_>, Vec<Ask>), EngineError> {
    let batch = Batch::of(request)?;
    let asks = batch.read(|fields| Ask::read(fields, "ciphertext"))?;
    check_contexts(&asks)?;
    Ok((batch, asks))
}

fn present(ask: &Ask) -> Result<(), EngineError> {
    if ask.input().is_empty() { Err(EngineError::invalid("missing ciphertext to decrypt")) } else { Ok(()) }
}

/// A new key of the caller's, encrypted, and bare if wanted.
pub(super) fn data_key(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, fields) = (Keys::of(ctx), request.fields());
    let is_shown = match request.param("plaintext") {
        "plaintext" => true,
        "wrapped" => false,
        _ => return Err(EngineError::invalid("Invalid path, must be 'plaintext' or 'wrapped'")),
    };
    check_nonce(fields)?;
    let context = batch::context(fields)?;
    let name = request.param("name");
    let key = keys.require(name, NO_KEY)?;
    let len = match fields.integer("bits")? {
        None | Some(256) => 32,
        Some(128) => 16,
        Some(512) => 64,
        Some(_) => return Err(EngineError::invalid("invalid bit length")),
    };
    let aad = associated_data(&batch::string(fields, "associated_data")?.unwrap_or_default(), &key, None)?;
    let secret = generate::bytes(keys.entropy, len)?;
    let wanted = fields.integer("key_version")?.unwrap_or_default();
    let (ciphertext, version) = Ring::new(keys, name, &key).encrypt(wanted, &context, &secret, &aad)?;
    let mut data = encrypted(ciphertext, version);
    if is_shown {
        data.insert("plaintext".to_owned(), Value::String(text::encode(&secret)));
    }
    Ok(Response::data(Value::Object(data)))
}
