//! A CA of our own making: a cluster has one for its members, a primary one for its secondaries.
//!
//! Its certificates end never in practice: whoever trusts it takes out at once, and by name, what shall count no more.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::IdentityError;

/// Its certificate and its key.
pub(crate) struct Ca {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// From before anybody's clock to beyond it.
fn endless(mut params: CertificateParams) -> CertificateParams {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(4096, 1, 1);
    params
}

/// The key that a signing request (DER) is about, and holds: its signature is checked.
pub(crate) fn requested(request: &[u8]) -> Result<impl PublicKeyData, IdentityError> {
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))?;
    Ok(request.public_key)
}

impl Ca {
    /// A new one.
    pub(crate) fn create(common_name: String) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = endless(CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.der().to_vec(), key: Zeroizing::new(key.serialize_der()) })
    }

    /// As it was stored: certificate (DER) and key (PKCS#8).
    pub(crate) const fn from_parts(certificate: Vec<u8>, key: Zeroizing<Vec<u8>>) -> Self {
        Self { certificate, key }
    }

    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Exposed only to be stored behind the barrier.
    pub(crate) fn expose_key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn key_pair(&self) -> Result<KeyPair, IdentityError> {
        Ok(KeyPair::try_from(&PrivatePkcs8KeyDer::from(self.key.as_slice()))?)
    }

    /// A certificate (DER) for `key`, for signatures and what `params` says.
    pub(crate) fn sign(
        &self,
        params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Vec<u8>, IdentityError> {
        let mut params = endless(params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = Issuer::from_ca_cert_der(&self.certificate.as_slice().into(), self.key_pair()?)?;
        Ok(params.signed_by(key, &issuer)?.der().to_vec())
    }
}
