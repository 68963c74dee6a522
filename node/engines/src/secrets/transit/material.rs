//! One version of a key: its secret and what belongs to it. Stored as an entry of its own, so a key is read whatever
//! the number of its versions.
//!
//! **Invariant:** secrets are wiped when dropped, shown by no `Debug` and compared in constant time.

use arca_engine_api::StorageError;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Secret bytes.
pub(super) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub(super) fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Each caller computes with the bytes or hands them to who may export them.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether both are the same, in time that does not depend on where they differ.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A version of a key.
#[derive(Debug)]
pub(super) struct Material {
    /// The key itself. An AEAD or HMAC key: its bytes. Ed25519: seed and public key, 64 bytes. ECDSA: the scalar. RSA:
    /// `RSAPrivateKey` in DER. Nothing if only the public half was imported.
    pub(super) secret: Option<Secret>,
    /// What authenticates under this version. An HMAC key has none besides itself.
    pub(super) hmac_key: Option<Secret>,
    /// The public half: 32 bytes of Ed25519, an uncompressed point, or `RSAPublicKey` in DER. Empty without one.
    pub(super) public: Vec<u8>,
    /// Certificates of the public half, its own first, in DER.
    pub(super) certificates: Vec<Vec<u8>>,
}

/// Version of the layout: this byte, then fields of a tag, four bytes of length, and so many bytes.
const LAYOUT: u8 = 1;
const SECRET: u8 = 1;
const HMAC_KEY: u8 = 2;
const PUBLIC: u8 = 3;
const CERTIFICATE: u8 = 4;

impl Material {
    /// What authenticates, of whatever type the key is.
    pub(super) fn hmac(&self) -> Option<&Secret> {
        self.hmac_key.as_ref().or(self.secret.as_ref())
    }

    /// As stored.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let secret = |tag, secret: &'_ Option<Secret>| secret.as_ref().map(|secret| (tag, secret.0.to_vec()));
        let secrets = [secret(SECRET, &self.secret), secret(HMAC_KEY, &self.hmac_key)];
        let secrets: Vec<(u8, Zeroizing<Vec<u8>>)> =
            secrets.into_iter().flatten().map(|(tag, bytes)| (tag, Zeroizing::new(bytes))).collect();
        let public = Some((PUBLIC, self.public.as_slice())).filter(|(_, bytes)| !bytes.is_empty());
        let certificates = self.certificates.iter().map(|bytes| (CERTIFICATE, bytes.as_slice()));
        let fields: Vec<(u8, &[u8])> = secrets
            .iter()
            .map(|(tag, bytes)| (*tag, bytes.as_slice()))
            .chain(public)
            .chain(certificates)
            .collect();
        // Made as large as it gets, so that growing it leaves no copies behind.
        let size: usize = fields.iter().map(|(_, bytes)| bytes.len() + 5).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(size + 1));
        out.push(LAYOUT);
        for (tag, bytes) in fields {
            out.push(tag);
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Reads what is stored at `key`.
    pub(super) fn decode(key: &str, bytes: &[u8]) -> Result<Self, StorageError> {
        Self::parse(bytes)
            .map_err(|reason| StorageError::Damaged { key: key.to_owned(), reason: reason.to_owned() })
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some((&LAYOUT, mut rest)) = bytes.split_first() else { return Err("an unknown layout") };
        let mut found = Self { secret: None, hmac_key: None, public: Vec::new(), certificates: Vec::new() };
        while let Some((&tag, tail)) = rest.split_first() {
            let (len, tail) = tail.split_first_chunk::<4>().ok_or("a field is cut")?;
            let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| "a field is too long")?;
            let (field, tail) = tail.split_at_checked(len).ok_or("a field is cut")?;
            let secret = || Some(Secret::new(Zeroizing::new(field.to_vec())));
            match tag {
                SECRET => found.secret = secret(),
                HMAC_KEY => found.hmac_key = secret(),
                PUBLIC => found.public = field.to_vec(),
                CERTIFICATE => found.certificates.push(field.to_vec()),
                _ => return Err("a field of an unknown tag"),
            }
            rest = tail;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: &[u8]) -> Option<Secret> {
        Some(Secret::new(Zeroizing::new(bytes.to_vec())))
    }

    /// The bytes on disk: never change them, add a layout.
    #[test]
    fn the_layout_is_what_it_was() {
        let material = Material {
            secret: secret(b"key"),
            hmac_key: secret(b"mac"),
            public: b"pub".to_vec(),
            certificates: vec![b"c1".to_vec(), b"c2".to_vec()],
        };
        let golden =
            b"\x01\x01\0\0\0\x03key\x02\0\0\0\x03mac\x03\0\0\0\x03pub\x04\0\0\0\x02c1\x04\0\0\0\x02c2";
        assert_eq!(*material.encode(), golden);
        let back = Material::parse(golden).unwrap();
        assert!(back.secret.unwrap().matches(&material.secret.unwrap()));
        assert_eq!((back.hmac_key.unwrap().expose(), back.public.as_slice()), (&b"mac"[..], &b"pub"[..]));
        assert_eq!(back.certificates, material.certificates);
        let public = Material { secret: None, hmac_key: None, public: vec![7], certificates: Vec::new() };
        assert_eq!(*public.encode(), b"\x01\x03\0\0\0\x01\x07");
        assert!(Material::parse(&public.encode()).unwrap().secret.is_none());
    }

    #[test]
    fn damage_is_told_and_nothing_is_shown() {
        for bytes in [&b""[..], b"\x02", b"\x01\x01\0\0\0\x04key", b"\x01\x01\0\0", b"\x01\x09\0\0\0\0"] {
            let err = Material::decode("version/k/1", bytes).unwrap_err().to_string();
            assert!(err.starts_with("stored entry version/k/1 is damaged") && !err.contains("key"), "{err}");
        }
        let shown = format!("{:?}", Material::parse(b"\x01\x01\0\0\0\x03key").unwrap());
        assert!(shown.contains("Secret(redacted)") && !shown.contains("107"), "{shown}");
    }
}
