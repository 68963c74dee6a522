//! `random`, `hash` and `hmac`.

use arca_engine_api::{Ctx, EngineError, Fields, Map, Request, Response};
use serde_json::{Value, json};

use super::batch::{self, Batch, map};
use super::hashes::Hash;
use super::keys::Keys;
use super::ring::Ring;
use super::{generate, text};

/// Most random bytes at once.
const RANDOM_MAX: i64 = 128 << 10;
const RANDOM_DEFAULT: i64 = 32;

/// Random bytes. Every source is this one.
pub(super) fn random(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let fields = request.fields();
    let (first, second) = (request.param("source"), request.param("bytes"));
    let is_source = |text: &str| matches!(text, "" | "platform" | "seal" | "all");
    let in_path = if !second.is_empty() {
        if !is_source(first) {
            return Err(EngineError::invalid(
                "unsupported entropy source; must be \"platform\" or \"seal\", or \"all\"",
            ));
        }
        second
    } else if is_source(first) {
        ""
    } else {
        first
    };
    let wanted = if in_path.is_empty() {
        fields.integer("bytes")?.unwrap_or(RANDOM_DEFAULT)
    } else {
        in_path
            .parse()
            .map_err(|_| EngineError::invalid("error parsing url-set byte count: invalid syntax"))?
    };
    if wanted < 1 {
        return Err(EngineError::invalid("'bytes' cannot be less than 1"));
    }
    if wanted > RANDOM_MAX {
        return Err(EngineError::Invalid(format!("'bytes' should be less than {RANDOM_MAX}")));
    }
    let format = fields.string("format")?.unwrap_or_else(|| "base64".to_owned());
    let bytes = generate::bytes(ctx.entropy, usize::try_from(wanted).unwrap_or_default())?;
    let response = Response::data(json!({ "random_bytes": written(&bytes, &format)? }));
    let is_seal = first == "seal" || fields.string("source")?.as_deref() == Some("seal");
    Ok(if is_seal {
        response.with_warning("no seal/entropy augmentation available, using platform entropy source")
    } else {
        response
    })
}

fn written(bytes: &[u8], format: &str) -> Result<String, EngineError> {
    match format {
        "base64" => Ok(text::encode(bytes)),
        "hex" => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => Err(EngineError::invalid("unsupported encoding format; must be \"hex\" or \"base64\"")),
    }
}

const HASH_DEFAULT: &str = "sha2-256";

/// The name in the path, or else in the body.
fn algorithm(request: &Request) -> Result<String, EngineError> {
    let in_path = request.param("algorithm");
    if !in_path.is_empty() {
        return Ok(in_path.to_owned());
    }
    Ok(request.fields().string("algorithm")?.unwrap_or_else(|| HASH_DEFAULT.to_owned()))
}

/// The hash function a request names for signing and the like; `None` for none at all.
pub(super) fn named_hash(request: &Request) -> Result<Option<Hash>, EngineError> {
    let fields = request.fields();
    let names = [
        Some(request.param("algorithm").to_owned()),
        fields.string("hash_algorithm")?,
        fields.string("algorithm")?,
    ];
    // Unlike where only a hash is asked for, an empty name counts as none here.
    let name = names.into_iter().flatten().find(|name| !name.is_empty());
    let name = name.as_deref().unwrap_or(HASH_DEFAULT);
    if name == "none" {
        return Ok(None);
    }
    Hash::named(name).map(Some).ok_or_else(|| EngineError::invalid("invalid hash algorithm"))
}

/// The hash of something.
pub(super) fn hash(request: &Request) -> Result<Response, EngineError> {
    let fields = request.fields();
    let input = batch::string(fields, "input")?.ok_or_else(|| EngineError::invalid("input missing"))?;
    let input = base64(&input)?;
    let hash = Hash::named(&algorithm(request)?).filter(|hash| *hash != Hash::Sha1);
    let format = fields.string("format")?.unwrap_or_else(|| "hex".to_owned());
    let hash = hash.ok_or_else(|| EngineError::invalid("unsupported algorithm"))?;
    Ok(Response::data(json!({ "sum": written(&hash.digest(&input), &format)? })))
}

/// Input of signatures and HMACs.
pub(super) fn base64(input: &str) -> Result<zeroize::Zeroizing<Vec<u8>>, EngineError> {
    text::decode(input)
        .map_err(|err| EngineError::Invalid(format!("unable to decode input as base64: {err}")))
}

/// The HMACs of things, by a key of any type.
pub(super) fn hmac(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, fields, name) = (Keys::of(ctx), request.fields(), request.param("name"));
    let key = keys.require(name, "encryption key not found")?;
    let wanted = fields.integer("key_version")?.unwrap_or_default();
    let wanted = if wanted == 0 { i64::from(key.latest()) } else { wanted };
    key.check_shown()?;
    if wanted != i64::from(key.latest()) && key.min_encryption > 0 && wanted < i64::from(key.min_encryption) {
        return Err(EngineError::invalid("cannot generate HMAC: version is too old (disallowed by policy)"));
    }
    let version = hmac_version(&key, wanted)?;
    let hash =
        Hash::named(&algorithm(request)?).ok_or_else(|| EngineError::invalid("unsupported algorithm"))?;
    let batch = Batch::of(request)?;
    let inputs = batch.read(|fields| batch::string(fields, "input"))?;
    let mut ring = Ring::new(keys, name, &key);
    let secret = secret(&mut ring, version)?;
    let done = batch::each(&inputs, |_, input| {
        let input = base64(input.as_deref().ok_or_else(|| EngineError::invalid("missing input for HMAC"))?)?;
        let made = text::encode(&hash.hmac(secret, &input));
        Ok(map([("hmac", Value::String(text::versioned(version, &made)))]))
    })?;
    batch::answer(&batch, done, &Map::new())
}

fn hmac_version(key: &super::key::Key, wanted: i64) -> Result<u32, EngineError> {
    if wanted < 0 {
        return Err(EngineError::invalid("key version does not exist (cannot be negative)"));
    }
    if wanted > i64::from(key.latest()) {
        let latest = key.latest();
        return Err(EngineError::Invalid(format!(
            "key version does not exist; latest key version is {latest}"
        )));
    }
    key.usable(wanted)
}

fn secret<'r>(ring: &'r mut Ring<'_>, version: u32) -> Result<&'r [u8], EngineError> {
    let none = || EngineError::invalid("no HMAC key exists for that key version");
    Ok(ring.version(version)?.hmac().ok_or_else(none)?.expose())
}

/// Whether HMACs are those of things.
pub(super) fn verify_hmac(
    ctx: &Ctx<'_>,
    request: &Request,
    batch: &Batch<'_>,
) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let key = keys.require(name, "encryption key not found")?;
    key.check_shown()?;
    let hash = named_hash(request)?.ok_or_else(|| EngineError::invalid("invalid hash algorithm"))?;
    let asks = batch
        .read(|fields: Fields<'_>| Ok((batch::string(fields, "input")?, batch::string(fields, "hmac")?)))?;
    let mut ring = Ring::new(keys, name, &key);
    let done = batch::each(&asks, |_, (input, tag)| {
        let input = match input {
            Some(input) => base64(input)?,
            None if batch.is_list => return Err(EngineError::invalid("missing input")),
            None => zeroize::Zeroizing::new(Vec::new()),
        };
        let tag = tag.as_deref().ok_or_else(|| EngineError::invalid("missing hmac"))?;
        let (found, body) = text::split_version(tag).map_err(|why| why.of("HMAC"))?;
        let tag = text::decode(body).map_err(|err| {
            EngineError::Invalid(format!("unable to decode verification HMAC as base64: {err}"))
        })?;
        if found > i64::from(key.latest()) {
            return Err(EngineError::invalid("invalid HMAC: version is too new"));
        }
        if found < i64::from(key.min_decryption) {
            return Err(EngineError::invalid(
                "cannot verify HMAC: version is too old (disallowed by policy)",
            ));
        }
        let version = hmac_version(&key, found)?;
        let is_valid = hash.verifies(secret(&mut ring, version)?, &input, &tag);
        Ok(map([("valid", Value::from(is_valid))]))
    })?;
    batch::answer(batch, done, &map([("valid", Value::from(false))]))
}
