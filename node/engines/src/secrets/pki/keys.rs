//! Private keys of a mount: their records, which hold no secret, and the paths that manage them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_engine_api::{Ctx, EngineError, Operation, Page, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Call;
use super::private_key::{self, PrivateKey, kind_of};
use super::x509::certificate::colons;
use super::x509::public_key::{Kind, PublicKey};
use super::{base64, config, issuers, names, output};
use crate::crypto::der;

const LAYOUT: u8 = 1;

/// What is known of a key besides its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    layout: u8,
    pub(super) id: String,
    pub(super) name: String,
    /// `SubjectPublicKeyInfo`.
    #[serde(with = "base64")]
    pub(super) spki: Vec<u8>,
}

impl Key {
    pub(super) fn kind(&self) -> Result<Kind, EngineError> {
        Ok(PublicKey::of(&self.spki)?.kind)
    }

    fn put(&self, ctx: &Ctx<'_>) -> Result<(), EngineError> {
        Ok(ctx.storage.put_record(&record_key(&self.id), self)?)
    }
}

fn record_key(id: &str) -> String {
    format!("key/{id}")
}

fn name_key(name: &str) -> String {
    format!("key-name/{name}")
}

/// By what its public half is: no key is there twice.
fn public_key(spki: &[u8]) -> String {
    format!("key-public/{}", issuers::digest(&[spki]))
}

/// Where the secret lies.
pub(super) fn secret_key(id: &str) -> String {
    format!("key-secret/{id}")
}

/// The key of that id.
pub(super) fn find(ctx: &Ctx<'_>, id: &str) -> Result<Option<Arc<Key>>, EngineError> {
    let key = if id.is_empty() { None } else { ctx.storage.get_shared::<Key>(&record_key(id))? };
    if key.as_ref().is_some_and(|key| key.layout != LAYOUT) {
        return Err(EngineError::Bug("a key has an unknown layout".to_owned()));
    }
    Ok(key)
}

/// The key with that public half.
pub(super) fn with_public(ctx: &Ctx<'_>, spki: &[u8]) -> Result<Option<Arc<Key>>, EngineError> {
    match ctx.storage.get_record::<String>(&public_key(spki))? {
        Some(id) => find(ctx, &id),
        None => Ok(None),
    }
}

/// The key a reference means: `default`, an id or a name.
pub(super) fn resolve(ctx: &Ctx<'_>, reference: &str) -> Result<Option<Arc<Key>>, EngineError> {
    if reference == issuers::DEFAULT {
        return find(ctx, &config::default_key(ctx)?);
    }
    if !names::is_name(reference) {
        return Ok(None);
    }
    if let Some(key) = find(ctx, reference)? {
        return Ok(Some(key));
    }
    match ctx.storage.get_record::<String>(&name_key(reference))? {
        Some(id) => find(ctx, &id),
        None => Ok(None),
    }
}

/// The key a reference means, or the caller's mistake.
pub(super) fn required(ctx: &Ctx<'_>, reference: &str) -> Result<Arc<Key>, EngineError> {
    resolve(ctx, reference)?
        .ok_or_else(|| EngineError::Invalid(format!("unable to find PKI key for reference: {reference}")))
}

/// Checks the name a new key is to have; empty for none.
pub(super) fn new_name(ctx: &Ctx<'_>, name: &str) -> Result<(), EngineError> {
    if name.is_empty() {
        return Ok(());
    }
    if name == issuers::DEFAULT {
        return Err(EngineError::invalid("reserved keyword 'default' can not be used for a name"));
    }
    if !names::is_name(name) {
        return Err(EngineError::invalid(names::REFUSED));
    }
    if resolve(ctx, name)?.is_some() {
        return Err(EngineError::invalid("key name already in use"));
    }
    Ok(())
}

/// Keeps a key, unless it is there already. Says whether it was.
pub(super) fn keep(ctx: &Ctx<'_>, private: &PrivateKey, name: &str) -> Result<(Arc<Key>, bool), EngineError> {
    let spki = private.spki()?;
    if let Some(key) = with_public(ctx, &spki)? {
        return Ok((key, true));
    }
    let key = Key { layout: LAYOUT, id: names::new_id(ctx.entropy)?, name: name.to_owned(), spki };
    ctx.storage.put(&secret_key(&key.id), private.encode()?)?;
    ctx.storage.put_record(&public_key(&key.spki), &key.id)?;
    if !name.is_empty() {
        ctx.storage.put_record(&name_key(name), &key.id)?;
    }
    key.put(ctx)?;
    if find(ctx, &config::default_key(ctx)?)?.is_none() {
        config::put_default_key(ctx, &key.id)?;
    }
    // Issuers that were imported before their key can sign from now on.
    issuers::adopt(ctx, &key)?;
    Ok((Arc::new(key), false))
}

/// Lists the keys with their names.
pub(super) fn list(call: &Call<'_>) -> Result<Response, EngineError> {
    let (mut ids, mut info) = (Vec::new(), BTreeMap::new());
    let default = config::default_key(call.ctx)?;
    for id in call.ctx.storage.list("key/", &call.page()?)? {
        if let Some(key) = find(call.ctx, &id)? {
            info.insert(id.clone(), json!({ "is_default": id == default, "key_name": key.name }));
            ids.push(id);
        }
    }
    Ok(output::listed(ids, json!(info)))
}

/// Makes a key.
pub(super) async fn generate(call: &Call<'_>) -> Result<Response, EngineError> {
    let is_exported = match call.request.param("exported") {
        "exported" => true,
        "internal" => false,
        _ => return Err(EngineError::invalid("keys are generated as internal or exported")),
    };
    let (name, key_type) = (call.text("key_name")?, call.text("key_type")?);
    let key_type = if key_type.is_empty() { "rsa" } else { key_type.as_str() };
    let kind = kind_of(key_type, call.fields().integer("key_bits")?.unwrap_or_default())?;
    new_name(call.ctx, &name)?;
    let private = private_key::generate(call.ctx, kind).await?;
    let (key, _) = keep(call.ctx, &private, &name)?;
    let mut data = output::object(json!({ "key_id": key.id, "key_name": key.name, "key_type": kind.name() }));
    if is_exported {
        let (label, der) = private.traditional()?;
        output::put(&mut data, "private_key", der::pem(label, &der).trim_end());
    }
    Ok(output::answer(data, Vec::new()))
}

/// Takes a key from outside.
pub(super) fn import(call: &Call<'_>) -> Result<Response, EngineError> {
    let bundle = call.text("pem_bundle")?;
    if bundle.is_empty() {
        return Err(EngineError::invalid("'pem_bundle' parameter was empty"));
    }
    let name = call.text("key_name")?;
    let mut found = None;
    let mut rest = bundle.as_str();
    while let Some((label, block, behind)) = der::first_pem(rest) {
        rest = behind;
        let block = zeroize::Zeroizing::new(block);
        let Some(key) = PrivateKey::in_pem(label, &block) else { continue };
        if found.replace(key?).is_some() {
            return Err(EngineError::invalid(
                "only a single key can be present within the pem_bundle for importing",
            ));
        }
    }
    let private = found.ok_or_else(|| EngineError::invalid("no private key in 'pem_bundle'"))?;
    if with_public(call.ctx, &private.spki()?)?.is_none() {
        new_name(call.ctx, &name)?;
    }
    let (key, is_old) = keep(call.ctx, &private, &name)?;
    let response =
        Response::data(json!({ "key_id": key.id, "key_name": key.name, "key_type": key.kind()?.name() }));
    Ok(if is_old && !name.is_empty() && name != key.name {
        response.with_warning("Key already imported, use key/ endpoint to update name.")
    } else {
        response
    })
}

/// Reads, renames or deletes a key.
pub(super) fn serve(call: &Call<'_>) -> Result<Response, EngineError> {
    let reference = call.request.param("key_ref");
    match call.request.operation {
        Operation::Read => {
            let key = required(call.ctx, reference)?;
            Ok(Response::data(shown(&key)?))
        }
        Operation::Delete => delete(call, reference),
        _ => rename(call, reference),
    }
}

fn shown(key: &Key) -> Result<Value, EngineError> {
    let public = PublicKey::of(&key.spki)?;
    Ok(json!({
        "key_id": key.id,
        "key_name": key.name,
        "key_type": public.kind.name(),
        "subject_key_id": colons(&public.id()),
    }))
}

fn described(key: &Key) -> Result<Value, EngineError> {
    Ok(json!({ "key_id": key.id, "key_name": key.name, "key_type": key.kind()?.name() }))
}

fn rename(call: &Call<'_>, reference: &str) -> Result<Response, EngineError> {
    let key = required(call.ctx, reference)?;
    let name = call.text("key_name")?;
    if name != key.name {
        new_name(call.ctx, &name)?;
        if !key.name.is_empty() {
            call.ctx.storage.delete(&name_key(&key.name))?;
        }
        if !name.is_empty() {
            call.ctx.storage.put_record(&name_key(&name), &key.id)?;
        }
        let renamed = Key { name, ..(*key).clone() };
        renamed.put(call.ctx)?;
        let response = Response::data(described(&renamed)?);
        return Ok(if renamed.name.is_empty() {
            response.with_warning(format!("The key has no name any more; its id is {}", renamed.id))
        } else {
            response
        });
    }
    Ok(Response::data(described(&key)?))
}

fn delete(call: &Call<'_>, reference: &str) -> Result<Response, EngineError> {
    let Some(key) = resolve(call.ctx, reference)? else { return Ok(Response::empty()) };
    for issuer in issuers::all(call.ctx)? {
        if issuer.record.key_id == key.id {
            return Err(EngineError::Invalid(format!(
                "Failed to Delete Key.  Key in Use by Issuer: {}",
                issuer.record.id
            )));
        }
    }
    remove(call, &key)?;
    if config::default_key(call.ctx)? == key.id {
        config::put_default_key(call.ctx, "")?;
        return Ok(Response::empty().with_warning(format!(
            "Deleted key {} (via key_ref {reference}); this was configured as the default key. \
             Operations without an explicit key will not work until a new default is configured.",
            key.id
        )));
    }
    Ok(Response::empty())
}

fn remove(call: &Call<'_>, key: &Key) -> Result<(), EngineError> {
    for stored in [record_key(&key.id), secret_key(&key.id), public_key(&key.spki)] {
        call.ctx.storage.delete(&stored)?;
    }
    if !key.name.is_empty() {
        call.ctx.storage.delete(&name_key(&key.name))?;
    }
    call.signers.forget(&key.id);
    Ok(())
}

/// Removes every key.
pub(super) fn remove_all(call: &Call<'_>) -> Result<(), EngineError> {
    for id in call.ctx.storage.list("key/", &Page::default())? {
        if let Some(key) = find(call.ctx, &id)? {
            remove(call, &key)?;
        }
    }
    config::put_default_key(call.ctx, "")
}
