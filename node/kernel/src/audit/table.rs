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
