//! The activation token: what a primary's operator carries to a secondary. Whoever has it, unused and in time, gets a copy
//! of everything: it is worth as much as a root token.
//!
//! It names the primary's CA, so the secondary knows whom it talks to, and holds a secret of which the primary keeps a
//! keyed hash. **Never** logged or quoted.

use arca_engine_api::{Entropy, UnixMillis};
use arca_kernel::replication::Kind;
use arca_raft_storage::codec::{Malformed, Reader, put_bytes, put_varint};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::sealed_box::{self, BoxError};

/// Bytes of the secret.
pub(crate) const SECRET_SIZE: usize = 32;
/// Longest field, bytes.
const FIELD_MAX: usize = 4096;
/// Most addresses.
const ADDRESSES_MAX: u64 = 64;

// On the wire: never renumber, never reuse.
const PLAIN_V1: u8 = 1;
const SEALED_V1: u8 = 2;
const PUBLIC_KEY_V1: u8 = 1;

/// A token cannot be used. Never quotes it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// It does not parse.
    #[error(
        "this is no activation token, or not a whole one: copy it again from the answer of secondary-token"
    )]
    Malformed,
    /// It is for a key that this cluster does not have, or was changed.
    #[error(
        "this activation token is for another public key than the one made here last, or was altered: make a new token \
         with the key that generate-public-key answers"
    )]
    OtherKey,
    /// It needs a key, and there is none.
    #[error("this activation token is for a public key, and none was made here: see generate-public-key")]
    NoKey,
    /// It is of a newer version.
    #[error("this activation token is of a newer version than this node: update it first")]
    Newer,
}

impl From<Malformed> for TokenError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What it says.
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Names it; no secret.
    pub(crate) accessor: String,
    pub(crate) secret: Zeroizing<Vec<u8>>,
    pub(crate) replication_id: String,
    /// The primary's cluster.
    pub(crate) cluster_id: String,
    pub(crate) secondary_id: String,
    /// Certificate of the primary's CA for its secondaries, DER.
    pub(crate) ca: Vec<u8>,
    /// Cluster addresses of the primary's nodes.
    pub(crate) addresses: Vec<String>,
    pub(crate) epoch: u64,
    pub(crate) expires_at: UnixMillis,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

const fn tag_of(kind: Kind) -> u8 {
    match kind {
        Kind::Dr => 1,
        Kind::Performance => 2,
    }
}

impl Token {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it, so that no copy stays behind.
        let mut out = Zeroizing::new(Vec::with_capacity(8192));
        out.extend_from_slice(&[PLAIN_V1, tag_of(self.kind)]);
        for field in [self.accessor.as_bytes(), &self.secret, self.replication_id.as_bytes()] {
            put_bytes(&mut out, field);
        }
        for field in [self.cluster_id.as_bytes(), self.secondary_id.as_bytes(), &self.ca] {
            put_bytes(&mut out, field);
        }
        put_varint(&mut out, self.addresses.len() as u64);
        for addr in &self.addresses {
            put_bytes(&mut out, addr.as_bytes());
        }
        put_varint(&mut out, self.epoch);
        put_varint(&mut out, self.expires_at.0);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != PLAIN_V1 {
            return Err(TokenError::Newer);
        }
        let kind = match reader.byte()? {
            1 => Kind::Dr,
            2 => Kind::Performance,
            _ => return Err(TokenError::Newer),
        };
        let accessor = text(&mut reader)?;
        let secret = Zeroizing::new(reader.bytes(SECRET_SIZE)?.to_vec());
        let (replication_id, cluster_id) = (text(&mut reader)?, text(&mut reader)?);
        let secondary_id = text(&mut reader)?;
        let ca = reader.bytes(FIELD_MAX)?.to_vec();
        let count = reader.varint()?;
        if count > ADDRESSES_MAX || secret.len() != SECRET_SIZE {
            return Err(TokenError::Malformed);
        }
        let addresses = (0..count).map(|_| text(&mut reader)).collect::<Result<_, _>>()?;
        let (epoch, expires_at) = (reader.varint()?, UnixMillis(reader.varint()?));
        reader.finish()?;
        Ok(Self {
            kind,
            accessor,
            secret,
            replication_id,
            cluster_id,
            secondary_id,
            ca,
            addresses,
            epoch,
            expires_at,
        })
    }

    /// As an operator carries it; readable with the private half of `public_key` alone if there is one.
    pub(crate) fn to_text(
        &self,
        public_key: Option<&[u8]>,
        entropy: &dyn Entropy,
    ) -> Result<Zeroizing<String>, BoxError> {
        let plain = self.encode();
        let Some(public_key) = public_key else { return Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(&*plain))) };
        let mut sealed = vec![SEALED_V1];
        sealed.append(&mut sealed_box::seal(public_key, &plain, entropy)?);
        Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Reads one; `private_key` is the one made last by `generate-public-key` here, if there is one.
    pub(crate) fn parse(text: &str, private_key: Option<&[u8]>) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=').as_bytes());
        let bytes = Zeroizing::new(bytes.map_err(|_| TokenError::Malformed)?);
        match bytes.split_first() {
            Some((&PLAIN_V1, _)) => Self::decode(&bytes),
            Some((&SEALED_V1, sealed)) => {
                let private_key = private_key.ok_or(TokenError::NoKey)?;
                let plain = sealed_box::open(private_key, sealed).map_err(|_| TokenError::OtherKey)?;
                Self::decode(&plain)
            }
            // No text was ever longer than a few bytes without one of these.
            Some((version, _)) if *version < 16 => Err(TokenError::Newer),
            _ => Err(TokenError::Malformed),
        }
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, TokenError> {
    String::from_utf8(reader.bytes(FIELD_MAX)?.to_vec()).map_err(|_| TokenError::Malformed)
}

/// A public key as operators carry it.
pub(crate) fn public_key_to_text(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&[PUBLIC_KEY_V1], key].concat())
}

/// The public key in such a text.
pub(crate) fn public_key_from_text(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok()?;
    bytes.strip_prefix(&[PUBLIC_KEY_V1]).filter(|key| key.len() == 32).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use arca_kernel::testing::SeededEntropy;

    use super::*;

    fn token() -> Token {
        Token {
            kind: Kind::Dr,
            accessor: "a".to_owned(),
            secret: Zeroizing::new(vec![7; SECRET_SIZE]),
            replication_id: "r".to_owned(),
            cluster_id: "c".to_owned(),
            secondary_id: "west".to_owned(),
            ca: vec![1, 2, 3],
            addresses: vec!["a:1".to_owned(), "b:2".to_owned()],
            epoch: 300,
            expires_at: UnixMillis(5),
        }
    }

    #[test]
    fn a_token_comes_back_and_nothing_else_is_one() {
        let text = token().to_text(None, &SeededEntropy::default()).unwrap();
        let back = Token::parse(&format!(" {}\n", text.as_str()), None).unwrap();
        assert_eq!(back.encode(), token().encode());
        for wrong in ["", "!", &text[1..], &text[..text.len() - 4], "AAAA", "hvs.abc"] {
            assert!(Token::parse(wrong, None).is_err(), "{wrong}");
        }
        assert!(!format!("{back:?}").contains('7'));
    }

    #[test]
    fn a_token_for_a_key_needs_that_key() {
        let entropy = SeededEntropy::default();
        let (private, public) = sealed_box::key_pair(&entropy).unwrap();
        let (other, _) = sealed_box::key_pair(&entropy).unwrap();
        let named = public_key_from_text(&public_key_to_text(&public)).unwrap();
        let text = token().to_text(Some(&named), &entropy).unwrap();
        assert!(Token::parse(&text, Some(&private)).is_ok());
        assert_eq!(Token::parse(&text, Some(&other)).err(), Some(TokenError::OtherKey));
        assert_eq!(Token::parse(&text, None).err(), Some(TokenError::NoKey));
        assert_eq!(public_key_from_text("AAAA"), None);
    }
}
