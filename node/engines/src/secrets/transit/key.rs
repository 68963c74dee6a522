//! A key as its mount knows it: type, settings, which versions there are. No secrets: those lie with the versions.

use std::collections::BTreeMap;

use arca_engine_api::{EngineError, UnixMillis};
use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// Shortest and longest HMAC key, in bytes.
pub(super) const HMAC_KEY_LEN: std::ops::RangeInclusive<usize> = 32..=512;

/// The layout of the record. Another one is refused, not guessed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub(super) struct Layout;

impl From<Layout> for u8 {
    fn from(_: Layout) -> Self {
        1
    }
}

impl TryFrom<u8> for Layout {
    type Error = &'static str;

    fn try_from(layout: u8) -> Result<Self, Self::Error> {
        if layout == 1 { Ok(Self) } else { Err("a layout this version does not know") }
    }
}

/// When something was done with a key, and which version was the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) at: UnixMillis,
    pub(super) version: u32,
}

/// How the key of a context is made of a version's secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kdf {
    /// HKDF with SHA-256, RFC 5869.
    #[default]
    #[serde(rename = "hkdf_sha256")]
    Hkdf,
    /// HMAC-SHA-256 in counter mode, NIST SP 800-108 section 4.1. The older way, which OpenBao keeps for what is imported: only
    /// so do both understand what either makes.
    #[serde(rename = "hmac-sha256-counter")]
    Counter,
}

impl Kdf {
    /// As keys and the API name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hkdf => "hkdf_sha256",
            Self::Counter => "hmac-sha256-counter",
        }
    }

    /// That of a key that comes from outside. A seed for Ed25519 never was made in the older way.
    pub(super) fn of_imported(kind: Kind) -> Self {
        if matches!(kind, Kind::Aead(_)) { Self::Counter } else { Self::Hkdf }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// See the file's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) layout: Layout,
    pub(super) kind: Kind,
    /// Versions there are, with their time of birth. Invariant: without a gap up to `latest`, never empty.
    pub(super) versions: BTreeMap<u32, UnixMillis>,
    /// Each context has a key of its own, derived of this one.
    pub(super) is_derived: bool,
    /// How, if it is derived. Left out of the record as long as it is HKDF: records from before there was a choice have none.
    #[serde(default, skip_serializing_if = "Kdf::is_default")]
    pub(super) kdf: Kdf,
    /// Equal plaintexts give equal ciphertexts.
    pub(super) is_convergent: bool,
    pub(super) is_exportable: bool,
    pub(super) allows_backup: bool,
    pub(super) allows_deletion: bool,
    /// Oldest version that decrypts and verifies; at least 1.
    pub(super) min_decryption: u32,
    /// Oldest version that encrypts and signs when asked for; 0 for any.
    pub(super) min_encryption: u32,
    /// Oldest version kept; 0 if none was ever trimmed.
    pub(super) min_available: u32,
    /// Age at which the latest version is replaced; 0 for none.
    pub(super) rotate_after_seconds: u64,
    /// Bytes of an HMAC key.
    pub(super) hmac_len: Option<u16>,
    /// It came from outside, and no version was made here.
    pub(super) is_imported: bool,
    /// Versions may be made here all the same.
    pub(super) allows_rotation: bool,
    /// Refused until it is brought back.
    pub(super) is_hidden: bool,
    pub(super) backed_up: Option<Stamp>,
    pub(super) restored: Option<Stamp>,
}

impl Key {
    /// A key without versions.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            layout: Layout,
            kind,
            versions: BTreeMap::new(),
            is_derived: false,
            kdf: Kdf::default(),
            is_convergent: false,
            is_exportable: false,
            allows_backup: false,
            allows_deletion: false,
            min_decryption: 1,
            min_encryption: 0,
            min_available: 0,
            rotate_after_seconds: 0,
            hmac_len: None,
            is_imported: false,
            allows_rotation: false,
            is_hidden: false,
            backed_up: None,
            restored: None,
        }
    }

    /// Number of the latest version; 0 before there is any.
    pub(super) fn latest(&self) -> u32 {
        self.versions.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// Birth of the latest version.
    pub(super) fn latest_birth(&self) -> UnixMillis {
        self.versions.last_key_value().map_or_else(UnixMillis::default, |(_, birth)| *birth)
    }

    /// The version itself, if it is one that may be used at all.
    pub(super) fn usable(&self, version: i64) -> Result<u32, EngineError> {
        u32::try_from(version)
            .ok()
            .filter(|version| *version >= self.min_decryption && self.versions.contains_key(version))
            .ok_or_else(|| EngineError::invalid("no such key version"))
    }

    /// Versions that may be used, the oldest first.
    pub(super) fn usable_versions(&self) -> impl Iterator<Item = (u32, UnixMillis)> {
        self.versions.range(self.min_decryption..).map(|(version, birth)| (*version, *birth))
    }

    /// The version to make something new with; `purpose` is encryption, signing or key wrapping.
    pub(super) fn version_to_make(&self, wanted: i64, purpose: &str) -> Result<u32, EngineError> {
        let refused =
            |why: &str| Err(EngineError::Invalid(format!("requested version for {purpose} is {why}")));
        match wanted {
            0 => Ok(self.latest()),
            _ if wanted < 0 => refused("negative"),
            _ if wanted > i64::from(self.latest()) => refused("higher than the latest key version"),
            _ if wanted < i64::from(self.min_encryption) => {
                refused("less than the minimum encryption key version")
            }
            _ => self.usable(wanted),
        }
    }

    /// The version that made what is to be decrypted or verified; `what` is a ciphertext or a signature.
    pub(super) fn version_of(&self, found: i64, what: &str) -> Result<u32, EngineError> {
        if found > i64::from(self.latest()) {
            return Err(EngineError::Invalid(format!("invalid {what}: version is too new")));
        }
        if found < i64::from(self.min_decryption) {
            return Err(EngineError::invalid(
                "ciphertext or signature version is disallowed by policy (too old)",
            ));
        }
        self.usable(found)
    }

    /// Refuses a key that is marked as deleted.
    pub(super) fn check_shown(&self) -> Result<(), EngineError> {
        if self.is_hidden { Err(EngineError::invalid("refusing to use soft-deleted key")) } else { Ok(()) }
    }

    /// Refuses flags that the type knows nothing of.
    pub(super) fn check_flags(&self) -> Result<(), EngineError> {
        let refused = match self.kind {
            Kind::Aead(_) if self.is_convergent && !self.is_derived => {
                "convergent encryption requires derivation to be enabled".to_owned()
            }
            Kind::Ed25519 if self.is_convergent => {
                format!("convergent encryption not supported for keys of type {}", self.kind.name())
            }
            Kind::Ec(_) | Kind::Hmac | Kind::Rsa(_) if self.is_derived || self.is_convergent => format!(
                "key derivation and convergent encryption not supported for keys of type {}",
                self.kind.name()
            ),
            Kind::Hmac if !self.hmac_len.is_some_and(|len| HMAC_KEY_LEN.contains(&usize::from(len))) => {
                format!(
                    "invalid key size for HMAC key, must be between {} and {} bytes",
                    HMAC_KEY_LEN.start(),
                    HMAC_KEY_LEN.end()
                )
            }
            _ => return Ok(()),
        };
        Err(EngineError::Invalid(refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes on disk: never change them, add a layout.
    #[test]
    fn the_layout_is_what_it_was() {
        let mut key = Key::new(Kind::DEFAULT);
        key.versions.insert(1, UnixMillis(1_000));
        key.backed_up = Some(Stamp { at: UnixMillis(2_000), version: 1 });
        let golden = r#"{"layout":1,"kind":"aes256-gcm96","versions":{"1":1000},"is_derived":false,"is_convergent":false,"is_exportable":false,"allows_backup":false,"allows_deletion":false,"min_decryption":1,"min_encryption":0,"min_available":0,"rotate_after_seconds":0,"hmac_len":null,"is_imported":false,"allows_rotation":false,"is_hidden":false,"backed_up":{"at":2000,"version":1},"restored":null}"#;
        assert_eq!(serde_json::to_string(&key).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Key>(golden).unwrap(), key);
        key.kdf = Kdf::Counter;
        let derived =
            golden.replace(r#","is_convergent""#, r#","kdf":"hmac-sha256-counter","is_convergent""#);
        assert_eq!(serde_json::to_string(&key).unwrap(), derived);
        assert_eq!(serde_json::from_str::<Key>(&derived).unwrap(), key);
        for (from, to) in
            [("\"layout\":1", "\"layout\":2"), ("aes256-gcm96", "rot13"), ("\"is_hidden\"", "\"more\"")]
        {
            assert!(serde_json::from_str::<Key>(&golden.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn versions_outside_their_limits_are_refused() {
        let mut key = Key::new(Kind::DEFAULT);
        key.versions = (1..=5).map(|version| (version, UnixMillis(0))).collect();
        (key.min_decryption, key.min_encryption) = (2, 3);
        let check = |got: Result<u32, EngineError>, want: Result<u32, &str>| {
            assert_eq!(got.map_err(|err| err.to_string()), want.map_err(str::to_owned));
        };
        check(key.version_to_make(0, "signing"), Ok(5));
        check(key.version_to_make(3, "signing"), Ok(3));
        check(
            key.version_to_make(2, "signing"),
            Err("requested version for signing is less than the minimum encryption key version"),
        );
        check(key.version_to_make(-1, "signing"), Err("requested version for signing is negative"));
        check(
            key.version_to_make(6, "signing"),
            Err("requested version for signing is higher than the latest key version"),
        );
        check(key.version_of(2, "signature"), Ok(2));
        let too_old = "ciphertext or signature version is disallowed by policy (too old)";
        check(key.version_of(1, "signature"), Err(too_old));
        check(key.version_of(i64::MIN, "signature"), Err(too_old));
        check(key.version_of(i64::MAX, "signature"), Err("invalid signature: version is too new"));
        key.min_encryption = 0;
        check(key.version_to_make(1, "encryption"), Err("no such key version"));
    }
}
