//! The CA of a primary for its secondaries, and what its certificates say.
//!
//! Its key never leaves the primary. A certificate names the secondary and the activation it came from: a secondary that
//! is activated anew gets another one, and the old one is good for nothing.

use arca_replication::Follower;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::ca::{self, Ca};
use crate::identity::{IdentityError, NodeKey};

/// The name that every node of a primary answers to.
#[must_use]
pub fn primary_dns_name(replication_id: &str) -> String {
    format!("primary.{replication_id}.arca.internal")
}

fn secondary_dns_name(activation: &str, replication_id: &str) -> String {
    format!("secondary-{activation}.{replication_id}.arca.internal")
}

/// The CA of one primary.
pub struct ReplicationAuthority {
    replication_id: String,
    ca: Ca,
}

impl std::fmt::Debug for ReplicationAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplicationAuthority({})", self.replication_id)
    }
}

impl ReplicationAuthority {
    /// A new CA.
    ///
    /// # Errors
    /// When key generation or signing fails.
    pub fn create(replication_id: &str) -> Result<Self, IdentityError> {
        let ca = Ca::create(format!("arca replication {replication_id}"))?;
        Ok(Self { replication_id: replication_id.to_owned(), ca })
    }

    /// The CA as it was stored: certificate (DER) and key (PKCS#8).
    #[must_use]
    pub fn from_parts(replication_id: &str, certificate: Vec<u8>, key: Zeroizing<Vec<u8>>) -> Self {
        Self { replication_id: replication_id.to_owned(), ca: Ca::from_parts(certificate, key) }
    }

    /// Its certificate, DER. Public.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.ca.certificate()
    }

    /// Its private key, PKCS#8. Exposed only to be stored behind the barrier.
    #[must_use]
    pub fn expose_key(&self) -> &[u8] {
        self.ca.expose_key()
    }

    /// Signs the key of `request` for a secondary. Names in the request are ignored: the CA decides who is who.
    ///
    /// # Errors
    /// When the request is malformed or its signature is wrong.
    pub fn issue(&self, request: &[u8], follower: &Follower) -> Result<Vec<u8>, IdentityError> {
        let name = secondary_dns_name(&follower.activation, &self.replication_id);
        let mut params = CertificateParams::new(vec![name])?;
        params.distinguished_name.push(DnType::CommonName, follower.secondary_id.clone());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.ca.sign(params, &ca::requested(request)?)
    }

    /// A certificate for a node of the primary, with a key that lives as long as the node serves.
    ///
    /// # Errors
    /// When key generation or signing fails.
    pub fn issue_primary(&self) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), IdentityError> {
        let (key, exposed) = NodeKey::generate()?.into_pair();
        let name = primary_dns_name(&self.replication_id);
        let mut params = CertificateParams::new(vec![name.clone()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok((self.ca.sign(params, &key)?, exposed))
    }
}

/// Which secondary of `replication_id` a certificate names.
///
/// # Errors
/// When it names none.
pub fn follower_of(certificate: &[u8], replication_id: &str) -> Result<Follower, IdentityError> {
    let unreadable = |err: &dyn std::fmt::Display| IdentityError::Certificate(err.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|err| unreadable(&err))?;
    let names = parsed.subject_alternative_name().map_err(|err| unreadable(&err))?;
    let names = names.ok_or(IdentityError::NotASecondary)?;
    let [GeneralName::DNSName(name)] = names.value.general_names.as_slice() else {
        return Err(IdentityError::NotASecondary);
    };
    let activation = name
        .strip_suffix(&format!(".{replication_id}.arca.internal"))
        .and_then(|rest| rest.strip_prefix("secondary-"))
        .ok_or(IdentityError::NotASecondary)?;
    let secondary_id = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let secondary_id = secondary_id.ok_or(IdentityError::NotASecondary)?;
    Ok(Follower { secondary_id: secondary_id.to_owned(), activation: activation.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_secondary_and_no_other_primary_s() {
        let authority = ReplicationAuthority::create("r-1").unwrap();
        let follower = Follower { secondary_id: "Köln 2".to_owned(), activation: "a1".to_owned() };
        let request = NodeKey::generate().unwrap().signing_request().unwrap();
        let certificate = authority.issue(&request, &follower).unwrap();
        assert_eq!(follower_of(&certificate, "r-1").unwrap(), follower);
        assert!(follower_of(&certificate, "r-2").is_err());
        let (own, _) = authority.issue_primary().unwrap();
        assert!(follower_of(&own, "r-1").is_err());
        assert!(follower_of(authority.certificate(), "r-1").is_err());
        assert!(authority.issue(b"no request", &follower).is_err());
    }
}
