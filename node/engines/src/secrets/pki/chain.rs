//! Who signed whom: the way from an issuer up to a root, among the issuers of the mount.

use std::sync::Arc;

use super::issuers::Issuer;
use super::x509::certificate;
use super::x509::public_key::PublicKey;

/// Issuers in one chain.
const CHAIN_MAX: usize = 16;

/// Whether `parent` signed `child`, by name and by signature.
pub(super) fn is_signed_by(child: &Issuer, parent: &Issuer) -> bool {
    if child.issuer != parent.subject {
        return false;
    }
    let raw = &child.record.certificate;
    match (certificate::parse(raw), PublicKey::of(&parent.spki)) {
        (Ok(parsed), Ok(key)) => certificate::is_signed_by(&parsed, raw, &key),
        _ => false,
    }
}

/// The chain of an issuer, by ids, itself first: what an operator chose, or what is found. Of several who may have
/// signed one (they share name and key), a root comes first, then who lives longest.
pub(super) fn of(issuer: &Arc<Issuer>, all: &[Arc<Issuer>]) -> Vec<String> {
    if !issuer.record.manual_chain.is_empty() {
        let is_there = |id: &&String| all.iter().any(|other| other.record.id == **id);
        return issuer.record.manual_chain.iter().filter(is_there).cloned().collect();
    }
    let mut chain = vec![issuer.record.id.clone()];
    let mut here = Arc::clone(issuer);
    while !here.is_root() && chain.len() < CHAIN_MAX {
        let above = all
            .iter()
            .filter(|other| !chain.contains(&other.record.id) && is_signed_by(&here, other))
            .max_by_key(|other| (other.is_root(), other.not_after, other.record.id.clone()));
        let Some(above) = above else { break };
        chain.push(above.record.id.clone());
        here = Arc::clone(above);
    }
    chain
}
