//! The cluster's own CA and the certificates of its members.
//!
//! The CA's key is made at init and lives behind the barrier; the active node signs a joiner's key after the joiner
//! proved that it holds the unseal key. A certificate names one member of one cluster, so a peer can be checked to be
//! exactly the member a message is meant for.

use arca_raft_storage::MemberId;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::ca::{self, Ca};

/// A certificate or key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate does not name a member of this cluster.
    #[error("the certificate does not name a member of this cluster")]
    NotAMember,
    /// The certificate does not name a secondary of this primary.
    #[error("the certificate does not name a secondary of this primary")]
    NotASecondary,
    /// The library refused.
    #[error("certificate: {0}")]
    Certificate(String),
}

impl From<rcgen::Error> for IdentityError {
    fn from(err: rcgen::Error) -> Self {
        Self::Certificate(err.to_string())
    }
}

/// The name a member's certificate carries, and the one a peer must see.
#[must_use]
pub fn member_dns_name(cluster_id: &str, id: MemberId) -> String {
    format!("member-{id}.{cluster_id}.arca.internal")
}

/// The CA of one cluster.
pub struct Authority {
    cluster_id: String,
    ca: Ca,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.cluster_id)
    }
}

impl Authority {
    /// A new CA for a new cluster. Members trust it only among themselves, and leave with the cluster.
    ///
    /// # Errors
    /// When key generation or signing fails.
    pub fn create(cluster_id: &str) -> Result<Self, IdentityError> {
        let ca = Ca::create(format!("arca cluster {cluster_id}"))?;
        Ok(Self { cluster_id: cluster_id.to_owned(), ca })
    }

    /// The CA as it was stored: certificate (DER) and key (PKCS#8).
    #[must_use]
    pub fn from_parts(cluster_id: &str, certificate: Vec<u8>, key: Zeroizing<Vec<u8>>) -> Self {
        Self { cluster_id: cluster_id.to_owned(), ca: Ca::from_parts(certificate, key) }
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

    /// Signs the key of `request` for member `id`. Names in the request are ignored: the CA decides who is who.
    ///
    /// # Errors
    /// When the request is malformed or its signature is wrong.
    pub fn issue(&self, request: &[u8], id: MemberId) -> Result<Vec<u8>, IdentityError> {
        let name = member_dns_name(&self.cluster_id, id);
        let mut params = CertificateParams::new(vec![name.clone()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.ca.sign(params, &ca::requested(request)?)
    }

    /// A signature for whoever has nothing of this cluster but the CA's certificate; see [`is_statement_of`].
    /// `statement` begins with words that say what it is for, as no certificate does.
    ///
    /// # Errors
    /// When the stored key cannot be used.
    pub fn sign_statement(&self, statement: &[u8]) -> Result<Vec<u8>, IdentityError> {
        Ok(self.ca.key_pair()?.sign(statement)?)
    }
}

/// A member's private key before it has a certificate.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new P-256 key.
    ///
    /// # Errors
    /// When key generation fails.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// A signing request for it, DER, without names.
    ///
    /// # Errors
    /// When signing fails.
    pub fn signing_request(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(CertificateParams::default().serialize_request(&self.0)?.der().to_vec())
    }

    /// The key, to have it signed, and its bytes.
    pub(crate) fn into_pair(self) -> (KeyPair, Zeroizing<Vec<u8>>) {
        let exposed = self.expose();
        (self.0, exposed)
    }

    /// The private key, PKCS#8. Exposed only to be stored behind the barrier and handed to TLS.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(redacted)")
    }
}

/// Everything a member needs to speak to its peers.
pub struct NodeIdentity {
    /// The cluster.
    pub cluster_id: String,
    /// This member.
    pub member: MemberId,
    /// CA certificate, DER.
    pub ca: Vec<u8>,
    /// Own certificate, DER.
    pub certificate: Vec<u8>,
    /// Own key, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeIdentity({} of {})", self.member, self.cluster_id)
    }
}

/// Whether the CA with this certificate (DER) signed `statement`.
#[must_use]
pub fn is_statement_of(ca: &[u8], statement: &[u8], signature: &[u8]) -> bool {
    let Ok((_, ca)) = X509Certificate::from_der(ca) else { return false };
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &ca.public_key().subject_public_key.data);
    key.verify(statement, signature).is_ok()
}

/// Which member of `cluster_id` a certificate names.
///
/// # Errors
/// When it names none, another cluster's, or several.
pub fn member_of(certificate: &[u8], cluster_id: &str) -> Result<MemberId, IdentityError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|err| IdentityError::Certificate(err.to_string()))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|err| IdentityError::Certificate(err.to_string()))?
        .ok_or(IdentityError::NotAMember)?;
    let [GeneralName::DNSName(name)] = names.value.general_names.as_slice() else {
        return Err(IdentityError::NotAMember);
    };
    name.strip_suffix(&format!(".{cluster_id}.arca.internal"))
        .and_then(|rest| rest.strip_prefix("member-"))
        .and_then(|id| id.parse().ok())
        .map(MemberId)
        .ok_or(IdentityError::NotAMember)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issued_certificate_names_its_member() {
        let authority = Authority::create("c-1").unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = authority.issue(&key.signing_request().unwrap(), MemberId(7)).unwrap();
        assert_eq!(member_of(&certificate, "c-1").unwrap(), MemberId(7));
        assert!(member_of(&certificate, "c-2").is_err());
    }

    #[test]
    fn a_stored_authority_issues_again() {
        let authority = Authority::create("c-1").unwrap();
        let stored = Authority::from_parts(
            "c-1",
            authority.certificate().to_vec(),
            Zeroizing::new(authority.expose_key().to_vec()),
        );
        let key = NodeKey::generate().unwrap();
        assert!(stored.issue(&key.signing_request().unwrap(), MemberId(2)).is_ok());
    }

    #[test]
    fn a_statement_is_its_cluster_s_and_not_to_be_changed() {
        let (authority, other) = (Authority::create("c-1").unwrap(), Authority::create("c-1").unwrap());
        let signature = authority.sign_statement(b"for a test: yes").unwrap();
        assert!(is_statement_of(authority.certificate(), b"for a test: yes", &signature));
        assert!(!is_statement_of(authority.certificate(), b"for a test: no", &signature));
        assert!(!is_statement_of(other.certificate(), b"for a test: yes", &signature));
        assert!(!is_statement_of(b"not a certificate", b"for a test: yes", &signature));
        assert!(!is_statement_of(authority.certificate(), b"for a test: yes", b""));
    }

    #[test]
    fn garbage_is_refused() {
        let authority = Authority::create("c-1").unwrap();
        assert!(authority.issue(b"not a request", MemberId(1)).is_err());
        assert!(member_of(b"not a certificate", "c-1").is_err());
        assert!(member_of(authority.certificate(), "c-1").is_err());
    }
}
