//! Batch tokens: the record sealed by the barrier into the token itself. Nothing is stored, so nothing can be
//! revoked, renewed or counted; such a token ends at its deadline, or with its parent.

use arca_barrier::Barrier;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::TokenEntry;
use super::entry::TokenType;
use super::secret::{BATCH_PREFIX, TOKEN_MAX, namespace_suffix};
use crate::KernelError;

/// Stands in for the physical key that binds stored values. No stored key begins with this byte, so no stored value
/// passes for a token and no token for a value.
const SEALED_FOR: &[u8] = b"\xfebatch token";

/// Version of the sealed record. Never reuse a number.
const RECORD_V1: u8 = 1;

/// The token.
///
/// # Errors
/// When it would be too long to be presented.
pub(super) fn seal(barrier: &Barrier, entry: &TokenEntry) -> Result<Zeroizing<String>, KernelError> {
    let mut plain = Zeroizing::new(vec![RECORD_V1]);
    serde_json::to_writer(&mut *plain, entry).map_err(|err| KernelError::Bug(err.to_string()))?;
    let sealed = barrier.seal_value(SEALED_FOR, &plain)?;
    let mut token = Zeroizing::new(BATCH_PREFIX.to_owned());
    URL_SAFE_NO_PAD.encode_string(sealed, &mut token);
    token.push_str(&namespace_suffix(&entry.namespace_id));
    if token.len() > TOKEN_MAX {
        let text = "a batch token carries its policies and metadata, and these are too much for one";
        return Err(KernelError::invalid(format!("{text}: {} bytes, at most {TOKEN_MAX}", token.len())));
    }
    Ok(token)
}

/// The record in a token's body; `None` for whatever this cluster did not seal.
pub(super) fn open(barrier: &Barrier, body: &str) -> Option<TokenEntry> {
    let sealed = URL_SAFE_NO_PAD.decode(body).ok()?;
    let plain = barrier.open_value(SEALED_FOR, &sealed).ok()?;
    let (version, record) = plain.split_first()?;
    let entry: TokenEntry = serde_json::from_slice(record).ok().filter(|_| *version == RECORD_V1)?;
    // Nobody makes one of root: but whoever holds the keys of a secondary could seal one that no revocation ends.
    (entry.kind == TokenType::Batch && entry.expires.is_some() && !entry.is_root()).then_some(entry)
}
