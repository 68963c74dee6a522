//! The devices and audited headers as stored. Every node opens the devices for itself.

use std::collections::BTreeMap;

use arca_barrier::Class;
use arca_engine_api::{Entropy, Page};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::KernelError;
use crate::tx::Tx;

/// Below this, in the root namespace, stands everything audit stores.
pub const PREFIX: &str = "root/core/audit/";
const DEVICES: &str = "root/core/audit/device/";
const HEADERS: &str = "root/core/audit/headers";

/// Headers that can be configured at most.
const HEADERS_MAX: usize = 256;

/// A salt as stored, hex.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SaltText(String);

impl SaltText {
    /// A new one.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, KernelError> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice())?;
        Ok(Self(hex::encode(bytes.as_slice())))
    }

    /// The bytes, for the device that hashes with them.
    pub(super) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, KernelError> {
        let bytes = hex::decode(&self.0);
        bytes
            .map(Zeroizing::new)
            .map_err(|_| KernelError::Bug("an audit device's salt is not hex".to_owned()))
    }
}

/// A device as stored. Its salt makes its hashes; whoever has it can guess values.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// `file`, `socket` or `syslog`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// As given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// As given; devices never leave their cluster in any case.
    #[serde(default)]
    pub is_local: bool,
    /// Comes from the configuration file, and goes with it.
    #[serde(default)]
    pub is_declared: bool,
    /// Makes its hashes.
    pub salt: SaltText,
}

impl std::fmt::Debug for DeviceRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceRecord").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A device the configuration file declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredDevice {
    /// Path, with or without a trailing slash.
    pub path: String,
    /// `file`, `socket` or `syslog`.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Options of the type.
    pub options: BTreeMap<String, String>,
}

/// How a header is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRule {
    /// Only as an HMAC.
    pub hmac: bool,
}

/// A device's path in its one form, with a trailing slash.
///
/// # Errors
/// When it could not be told apart in a path.
pub fn device_path(path: &str) -> Result<String, KernelError> {
    let path = path.trim_matches('/');
    let is_fine = path.split('/').all(|segment| !matches!(segment.trim(), "" | "." | ".."))
        && !path.chars().any(char::is_control)
        && path.len() <= 512;
    if is_fine { Ok(format!("{path}/")) } else { Err(KernelError::invalid("invalid audit device path")) }
}

/// All devices by path.
///
/// # Errors
/// When storage fails or a record is damaged.
pub fn devices(tx: &Tx) -> Result<BTreeMap<String, DeviceRecord>, KernelError> {
    let mut found = BTreeMap::new();
    for name in tx.scan(Class::Local, DEVICES, &Page::default())? {
        if let Some(record) = tx.get_record(Class::Local, &format!("{DEVICES}{name}"))? {
            found.insert(format!("{name}/"), record);
        }
    }
    Ok(found)
}

/// One device.
///
/// # Errors
/// When storage fails or the record is damaged.
pub fn device(tx: &Tx, path: &str) -> Result<Option<DeviceRecord>, KernelError> {
    Ok(tx.get_record(Class::Local, &key_of(path))?)
}

fn key_of(path: &str) -> String {
    format!("{DEVICES}{}", path.trim_end_matches('/'))
}

/// Stages a device.
///
/// # Errors
/// On a read-only transaction.
pub fn put_device(tx: &Tx, path: &str, record: &DeviceRecord) -> Result<(), KernelError> {
    Ok(tx.put_record(Class::Local, &key_of(path), record)?)
}

/// Stages a device's removal.
///
/// # Errors
/// On a read-only transaction.
pub fn delete_device(tx: &Tx, path: &str) -> Result<(), KernelError> {
    Ok(tx.delete(Class::Local, &key_of(path))?)
}

/// Brings the declared devices into the table: new ones in, changed ones changed (their salt stays), and those no
/// longer declared out. Devices enabled by request are left alone.
///
/// # Errors
/// When storage or the random source fails, or a path is taken.
pub fn declare(tx: &Tx, declared: &[DeclaredDevice], entropy: &dyn Entropy) -> Result<(), KernelError> {
    let mut old = devices(tx)?;
    for device in declared {
        let path = device_path(&device.path)?;
        let stored = old.remove(&path);
        let salt = match &stored {
            Some(stored) => stored.salt.clone(),
            None => SaltText::generate(entropy)?,
        };
        let record = DeviceRecord {
            kind: device.kind.clone(),
            description: device.description.clone(),
            options: device.options.clone(),
            is_local: false,
            is_declared: true,
            salt,
        };
        if stored.as_ref() != Some(&record) {
            put_device(tx, &path, &record)?;
        }
    }
    for (path, _) in old.iter().filter(|(_, record)| record.is_declared) {
        delete_device(tx, path)?;
    }
    Ok(())
}

/// The audited headers by lower-case name.
///
/// # Errors
/// When storage fails or the record is damaged.
pub fn headers(tx: &Tx) -> Result<BTreeMap<String, HeaderRule>, KernelError> {
    Ok(tx.get_record(Class::Replicated, HEADERS)?.unwrap_or_default())
}

/// Stages the audited headers.
///
/// # Errors
/// When there are too many, or on a read-only transaction.
pub fn put_headers(tx: &Tx, headers: &BTreeMap<String, HeaderRule>) -> Result<(), KernelError> {
    if headers.len() > HEADERS_MAX {
        return Err(KernelError::invalid(format!("at most {HEADERS_MAX} headers can be audited")));
    }
    Ok(tx.put_record(Class::Replicated, HEADERS, headers)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arca_barrier::{Barrier, Keyring, Suite};

    use super::*;
    use crate::store::SealedStore;
    use crate::testing::{LocalReplica, SeededEntropy, TestClock};
    use crate::tx::Mode;

    fn store() -> SealedStore {
        let keyring = Keyring::generate(&SeededEntropy::default(), 0, Suite::XChaCha20Poly1305).unwrap();
        let barrier = Arc::new(Barrier::new(keyring, Arc::new(SeededEntropy::default())));
        SealedStore::new(barrier, Arc::new(LocalReplica::default()), Arc::new(TestClock::default())).unwrap()
    }

    /// Whether anything was written.
    async fn declare_all(store: &SealedStore, declared: &[DeclaredDevice]) -> bool {
        let tx = store.begin(Mode::ReadWrite);
        declare(&tx, declared, &SeededEntropy::default()).unwrap();
        store.commit(tx).await.unwrap().is_some()
    }

    fn declared(path: &str, description: &str) -> DeclaredDevice {
        DeclaredDevice {
            path: path.to_owned(),
            kind: "file".to_owned(),
            description: description.to_owned(),
            options: BTreeMap::from([("file_path".to_owned(), "discard".to_owned())]),
        }
    }

    #[tokio::test]
    async fn declared_devices_come_and_go_with_the_configuration() {
        let store = store();
        let all = || devices(&store.begin(Mode::ReadOnly)).unwrap();
        assert!(declare_all(&store, &[declared("a", "1"), declared("b/c/", "2")]).await);
        assert_eq!(all().keys().collect::<Vec<_>>(), ["a/", "b/c/"]);
        let salt = all()["a/"].salt.clone();
        assert!(!declare_all(&store, &[declared("a", "1"), declared("b/c", "2")]).await);
        assert!(declare_all(&store, &[declared("a", "changed")]).await);
        assert_eq!(all().keys().collect::<Vec<_>>(), ["a/"]);
        assert!(all()["a/"].salt == salt && all()["a/"].description == "changed");
        let tx = store.begin(Mode::ReadWrite);
        put_device(&tx, "api/", &DeviceRecord { is_declared: false, ..all()["a/"].clone() }).unwrap();
        store.commit(tx).await.unwrap();
        assert!(declare_all(&store, &[]).await);
        assert_eq!(all().keys().collect::<Vec<_>>(), ["api/"]);
    }

    #[test]
    fn paths_have_one_form() {
        assert_eq!(device_path("/a/b/").unwrap(), "a/b/");
        for bad in ["", "/", "a/../b", "a//b", "a\n", "./a"] {
            assert!(device_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_salt_never_shows() {
        let record = DeviceRecord {
            kind: "file".to_owned(),
            description: String::new(),
            options: BTreeMap::new(),
            is_local: false,
            is_declared: false,
            salt: SaltText("canary".to_owned()),
        };
        assert!(!format!("{record:?}").contains("canary"));
    }
}
