//! Key-value secrets: [`Kv1`] keeps one value a key, [`Kv2`] keeps versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::error::Error;
use crate::request::Request;
use crate::secret::Secret;

/// A kv version 1 mount, from [`Client::kv1`].
#[derive(Clone, Debug)]
pub struct Kv1<'a> {
    client: &'a Client,
    mount: String,
}

/// A kv version 2 mount, from [`Client::kv2`].
#[derive(Clone, Debug)]
pub struct Kv2<'a> {
    client: &'a Client,
    mount: String,
}

impl Client {
    /// The kv version 1 mount at `mount`.
    pub fn kv1(&self, mount: &str) -> Kv1<'_> {
        Kv1 { client: self, mount: mount.trim_matches('/').to_owned() }
    }

    /// The kv version 2 mount at `mount`.
    pub fn kv2(&self, mount: &str) -> Kv2<'_> {
        Kv2 { client: self, mount: mount.trim_matches('/').to_owned() }
    }
}

/// Whether a write minds what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// It does not.
    Any,
    /// Only if this is the current version; 0 means that there is none.
    Version(u64),
}

impl Cas {
    fn options(self) -> Value {
        match self {
            Self::Any => json!({}),
            Self::Version(version) => json!({"cas": version}),
        }
    }
}

/// What a version is, without its data.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct VersionMetadata {
    /// When it was written, RFC 3339.
    pub created_time: String,
    /// When it was or will be deleted; empty if never.
    pub deletion_time: String,
    /// Whether its data is gone for ever.
    pub destroyed: bool,
    /// Its number.
    pub version: u64,
    /// The key's own metadata.
    pub custom_metadata: Option<BTreeMap<String, String>>,
}

/// A version and its data. `data` is `None` for one that was deleted.
#[derive(Clone, Deserialize)]
pub struct Versioned {
    /// The data.
    pub data: Option<Map<String, Value>>,
    /// What the version is.
    pub metadata: VersionMetadata,
}

impl std::fmt::Debug for Versioned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Versioned").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl Kv1<'_> {
    /// The value of `key`.
    pub async fn get(&self, key: &str) -> Result<Option<Map<String, Value>>, Error> {
        Ok(self.client.read(&self.path(key)).await?.and_then(|secret| secret.data))
    }

    /// Replaces the value of `key`.
    pub async fn put(&self, key: &str, data: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.client.write(&self.path(key), data).await.map(drop)
    }

    /// Removes `key`.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.client.delete(&self.path(key)).await.map(drop)
    }

    /// The names below `prefix`; those that end in `/` hold more.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        Ok(self.client.list(&self.path(prefix)).await?.unwrap_or_default())
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{}", self.mount, key.trim_start_matches('/'))
    }
}

impl Kv2<'_> {
    /// The current version of `key`.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        self.get_request(Request::get(self.path("data", key))).await
    }

    /// One version of `key`.
    pub async fn get_version(&self, key: &str, version: u64) -> Result<Option<Versioned>, Error> {
        self.get_request(Request::get(self.path("data", key)).query("version", version.to_string())).await
    }

    /// Writes a new version, whatever is there.
    pub async fn put(&self, key: &str, data: &(impl Serialize + ?Sized)) -> Result<VersionMetadata, Error> {
        self.put_cas(key, data, Cas::Any).await
    }

    /// Writes a new version if `cas` holds.
    pub async fn put_cas(
        &self,
        key: &str,
        data: &(impl Serialize + ?Sized),
        cas: Cas,
    ) -> Result<VersionMetadata, Error> {
        let request = Request::put(self.path("data", key)).json(&Write { data, options: cas.options() })?;
        self.client.send(request).await?.data()
    }

    /// Merges `data` into the current version; `null` removes a field.
    pub async fn patch(
        &self,
        key: &str,
        data: &(impl Serialize + ?Sized),
        cas: Cas,
    ) -> Result<VersionMetadata, Error> {
        let request = Request::patch(self.path("data", key)).json(&Write { data, options: cas.options() })?;
        self.client.send(request).await?.data()
    }

    /// Deletes the current version; it can be undeleted.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.client.delete(&self.path("data", key)).await.map(drop)
    }

    /// Deletes versions; they can be undeleted.
    pub async fn delete_versions(&self, key: &str, versions: &[u64]) -> Result<(), Error> {
        self.versions("delete", key, versions).await
    }

    /// Brings deleted versions back.
    pub async fn undelete(&self, key: &str, versions: &[u64]) -> Result<(), Error> {
        self.versions("undelete", key, versions).await
    }

    /// Removes the data of versions for ever.
    pub async fn destroy(&self, key: &str, versions: &[u64]) -> Result<(), Error> {
        self.versions("destroy", key, versions).await
    }

    /// What is known about `key` and its versions.
    pub async fn metadata(&self, key: &str) -> Result<Option<Secret>, Error> {
        self.client.read(&self.path("metadata", key)).await
    }

    /// Sets the key's own settings.
    pub async fn put_metadata(&self, key: &str, metadata: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.client.write(&self.path("metadata", key), metadata).await.map(drop)
    }

    /// Merges into the key's own settings.
    pub async fn patch_metadata(&self, key: &str, metadata: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.client.patch(&self.path("metadata", key), metadata).await.map(drop)
    }

    /// Removes the key and all its versions for ever.
    pub async fn delete_metadata(&self, key: &str) -> Result<(), Error> {
        self.client.delete(&self.path("metadata", key)).await.map(drop)
    }

    /// The names below `prefix`; those that end in `/` hold more.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        Ok(self.client.list(&self.path("metadata", prefix)).await?.unwrap_or_default())
    }

    async fn get_request(&self, request: Request) -> Result<Option<Versioned>, Error> {
        let Some(secret) = self.client.read_request(request.clone()).await? else { return Ok(None) };
        let Some(data) = secret.data else { return Ok(None) };
        let bad = |_| Error::BadResponse {
            method: request.method.clone(),
            path: request.path.clone(),
            reason: "it is not a version of a kv version 2 secret".into(),
        };
        serde_json::from_value(Value::Object(data)).map(Some).map_err(bad)
    }

    async fn versions(&self, verb: &str, key: &str, versions: &[u64]) -> Result<(), Error> {
        self.client.write(&self.path(verb, key), &json!({"versions": versions})).await.map(drop)
    }

    fn path(&self, verb: &str, key: &str) -> String {
        format!("{}/{verb}/{}", self.mount, key.trim_start_matches('/'))
    }
}

/// The body of a version 2 write.
#[derive(Serialize)]
struct Write<'a, T: ?Sized> {
    data: &'a T,
    options: Value,
}
