//! Where keys lie: `key/<name>` has what a key is, `version/<name>/<number>` the secrets of each version.

use std::sync::Arc;

use arca_engine_api::{Clock, Ctx, EngineError, Entropy, Page, Storage, StorageError, StorageExt as _};

use super::generate;
use super::key::Key;
use super::material::Material;

/// Where keys lie.
const KEYS: &str = "key/";
/// The pair that imported keys are wrapped to.
const WRAPPING_KEY: &str = "wrapping-key";

/// A mount's keys, as one request sees them.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) clock: &'a dyn Clock,
    pub(super) entropy: &'a dyn Entropy,
}

impl<'a> Keys<'a> {
    pub(super) fn of(ctx: &Ctx<'a>) -> Self {
        Self { storage: ctx.storage, clock: ctx.clock, entropy: ctx.entropy }
    }

    /// The key, if there is one.
    pub(super) fn find(&self, name: &str) -> Result<Option<Arc<Key>>, StorageError> {
        if is_name(name) { self.storage.get_shared(&key_at(name)) } else { Ok(None) }
    }

    /// The same, to be changed.
    pub(super) fn load(&self, name: &str) -> Result<Option<Key>, StorageError> {
        Ok(self.find(name)?.map(Arc::unwrap_or_clone))
    }

    /// The key that a request is about, or what to say if there is none.
    pub(super) fn require(&self, name: &str, missing: &str) -> Result<Arc<Key>, EngineError> {
        self.find(name)?.ok_or_else(|| EngineError::invalid(missing))
    }

    /// Stages the key.
    pub(super) fn store(&self, name: &str, key: &Key) -> Result<(), EngineError> {
        if !is_name(name) {
            return Err(EngineError::invalid(
                "the name of a key is made of letters, digits, '_', '-' and '.', and neither begins nor ends with \
                 '-' or '.'",
            ));
        }
        Ok(self.storage.put_record(&key_at(name), key)?)
    }

    /// The secrets of a version.
    pub(super) fn material(&self, name: &str, version: u32) -> Result<Material, EngineError> {
        let at = version_at(name, version);
        let bytes = self.storage.get(&at)?;
        let bytes =
            bytes.ok_or_else(|| EngineError::Bug(format!("version {version} is listed, but missing")))?;
        Ok(Material::decode(&at, &bytes)?)
    }

    /// Stages the secrets of a version.
    pub(super) fn put_material(
        &self,
        name: &str,
        version: u32,
        material: &Material,
    ) -> Result<(), StorageError> {
        self.storage.put(&version_at(name, version), material.encode())
    }

    /// Stages a new version, and the key with it.
    pub(super) fn add_version(
        &self,
        name: &str,
        key: &mut Key,
        material: &Material,
    ) -> Result<(), EngineError> {
        let version = key.latest() + 1;
        key.versions.insert(version, self.clock.now());
        self.store(name, key)?;
        Ok(self.put_material(name, version, material)?)
    }

    /// Removes versions for good.
    pub(super) fn drop_versions(
        &self,
        name: &str,
        versions: impl Iterator<Item = u32>,
    ) -> Result<(), StorageError> {
        for version in versions {
            self.storage.delete(&version_at(name, version))?;
        }
        Ok(())
    }

    /// Removes the key with all its versions.
    pub(super) fn delete(&self, name: &str, key: &Key) -> Result<(), StorageError> {
        self.drop_versions(name, key.versions.keys().copied())?;
        self.storage.delete(&key_at(name))
    }

    /// Names of keys.
    pub(super) fn list(&self, page: &Page) -> Result<Vec<String>, StorageError> {
        self.storage.list(KEYS, page)
    }

    /// The pair that imported keys are wrapped to, once somebody has asked for it.
    pub(super) fn find_wrapping_key(&self) -> Result<Option<Material>, EngineError> {
        let found = self.storage.get(WRAPPING_KEY)?;
        Ok(found.map(|bytes| Material::decode(WRAPPING_KEY, &bytes)).transpose()?)
    }
}

/// The pair that imported keys are wrapped to, made when it is first asked for.
pub(super) async fn wrapping_key(ctx: &Ctx<'_>) -> Result<Material, EngineError> {
    if let Some(found) = Keys::of(ctx).find_wrapping_key()? {
        return Ok(found);
    }
    // Fails where nothing can be written, before the key is made in vain: that takes long.
    ctx.storage.delete(WRAPPING_KEY)?;
    let material = generate::wrapping_key(ctx).await?;
    ctx.storage.put(WRAPPING_KEY, material.encode())?;
    Ok(material)
}

fn key_at(name: &str) -> String {
    format!("{KEYS}{name}")
}

fn version_at(name: &str, version: u32) -> String {
    format!("version/{name}/{version}")
}

/// Whether a key may have that name.
fn is_name(name: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.starts_with(is_word)
        && name.ends_with(is_word)
        && name.chars().all(|letter| is_word(letter) || matches!(letter, '-' | '.'))
}
