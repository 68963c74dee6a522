//! Challenges that nobody has to remember: the time they were made and a random part, under a keyed hash that only
//! holders of the root key can make. Any member that becomes active honours those of its predecessor.
//!
//! What it defends against: floods (making one leaves nothing behind, so none evicts another: CVE-2024-8185), and
//! answers that are replayed (the few that were answered rightly are remembered for as long as they could be again).

use std::collections::BTreeMap;
use std::time::Duration;

use arca_barrier::RootKey;
use arca_engine_api::{Entropy, EntropyError, UnixMillis};
use zeroize::Zeroizing;

/// How long a challenge can be answered. A joiner asks for one when it has the shares, so a machine answers.
pub(crate) const LIFE: Duration = Duration::from_secs(300);
/// Most answered challenges remembered. Each cost its sender the cluster's shares.
const USED_MAX: usize = 1024;
const CONTEXT: &str = "arca 2026-11 cluster join: challenge";
const TIME_BYTES: usize = 8;
const RANDOM_BYTES: usize = 16;
const HEAD_BYTES: usize = TIME_BYTES + RANDOM_BYTES;

/// Why a challenge is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Too many were answered just now.
    TooMany,
    /// It is not of this cluster, too old, or was answered before.
    Unknown,
}

/// The challenges that were answered, until they would be too old anyway.
#[derive(Debug, Default)]
pub(crate) struct Used {
    /// By challenge: when it was made.
    answered: BTreeMap<Vec<u8>, UnixMillis>,
}

/// A new challenge.
pub(crate) fn make(root: &RootKey, entropy: &dyn Entropy, now: UnixMillis) -> Result<Vec<u8>, EntropyError> {
    let mut random = [0_u8; RANDOM_BYTES];
    entropy.fill(&mut random)?;
    let mut nonce = [&now.0.to_be_bytes()[..], &random].concat();
    let tag = tag(root, &nonce);
    nonce.extend_from_slice(tag.as_bytes());
    Ok(nonce)
}

fn tag(root: &RootKey, head: &[u8]) -> blake3::Hash {
    // The bare root key goes into a key derivation and nowhere else.
    let key = Zeroizing::new(blake3::derive_key(CONTEXT, root.expose()));
    blake3::keyed_hash(&key, head)
}

/// When `nonce` was made, if this cluster made it and it is not too old. Clocks of two members may differ by as much
/// as a challenge lives.
pub(crate) fn check(root: &RootKey, nonce: &[u8], now: UnixMillis) -> Option<UnixMillis> {
    let (head, claimed) = nonce.split_at_checked(HEAD_BYTES)?;
    // Comparing hashes takes the same time for every wrong one.
    let is_ours = tag(root, head) == blake3::Hash::from_bytes(claimed.try_into().ok()?);
    let made = UnixMillis(u64::from_be_bytes(head.first_chunk().copied()?));
    let is_fresh = now.since(made) < LIFE && made.since(now) < LIFE;
    (is_ours && is_fresh).then_some(made)
}

impl Used {
    /// Uses up a challenge that [`check`] passed.
    pub(crate) fn spend(&mut self, nonce: &[u8], made: UnixMillis, now: UnixMillis) -> Result<(), Spent> {
        self.answered.retain(|_, made| now.since(*made) < LIFE);
        if self.answered.contains_key(nonce) {
            return Err(Spent::Unknown);
        }
        if self.answered.len() >= USED_MAX {
            return Err(Spent::TooMany);
        }
        self.answered.insert(nonce.to_vec(), made);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::SystemEntropy;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn root(byte: u8) -> RootKey {
        RootKey::from_slice(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_challenge_needs_no_memory_and_ends_with_its_time() {
        let nonce = make(&root(7), &SystemEntropy, NOW).unwrap();
        assert_eq!(check(&root(7), &nonce, NOW), Some(NOW));
        assert_eq!(check(&root(7), &nonce, NOW.after(LIFE - Duration::from_millis(1))), Some(NOW));
        assert_eq!(check(&root(7), &nonce, NOW.after(LIFE)), None);
        assert_eq!(check(&root(7), &nonce, UnixMillis(NOW.0 - 300_000)), None);
        assert_eq!(check(&root(8), &nonce, NOW), None, "another cluster's");
    }

    #[test]
    fn a_challenge_cannot_be_forged_or_changed() {
        let nonce = make(&root(7), &SystemEntropy, NOW).unwrap();
        for at in 0..nonce.len() {
            let mut changed = nonce.clone();
            changed[at] ^= 1;
            assert_eq!(check(&root(7), &changed, NOW), None, "byte {at}");
        }
        for short in [0, 1, HEAD_BYTES, nonce.len() - 1] {
            assert_eq!(check(&root(7), &nonce[..short], NOW), None, "{short} bytes");
        }
        assert_eq!(check(&root(7), &[nonce.as_slice(), b"x"].concat(), NOW), None);
    }

    #[test]
    fn a_flood_of_challenges_harms_nobody() {
        let honest = make(&root(7), &SystemEntropy, NOW).unwrap();
        let mut used = Used::default();
        for _ in 0..10_000 {
            make(&root(7), &SystemEntropy, NOW).unwrap();
        }
        let made = check(&root(7), &honest, NOW).unwrap();
        assert_eq!(used.spend(&honest, made, NOW), Ok(()));
    }

    #[test]
    fn a_challenge_is_answered_once_and_what_is_remembered_is_bounded() {
        let mut used = Used::default();
        assert_eq!(used.spend(b"a", NOW, NOW), Ok(()));
        assert_eq!(used.spend(b"a", NOW, NOW), Err(Spent::Unknown));
        for number in 1..USED_MAX {
            assert_eq!(used.spend(&number.to_be_bytes(), NOW, NOW), Ok(()), "{number}");
        }
        assert_eq!(used.spend(b"b", NOW, NOW), Err(Spent::TooMany));
        // Too old to be answered again, so it need not be remembered.
        assert_eq!(used.spend(b"b", NOW.after(LIFE), NOW.after(LIFE)), Ok(()));
        assert_eq!(used.answered.len(), 1);
    }
}
