//! TLS towards databases.
//!
//! **Invariant:** a certificate goes unverified only where the configuration says so: `sslmode` of `allow`, `prefer` or
//! `require` without an authority, as libpq has it, or `tls_skip_verify`. Even then the peer proves that it has the key.

use std::sync::Arc;

use arca_engine_api::EngineError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// What is checked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// That an authority signed it.
    Chain,
    /// That, and whose it is.
    ChainAndName,
    /// Nothing.
    Nothing,
}

/// Certificates of a PEM text; at least one.
pub(super) fn certificates(pem: &str, field: &str) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    let bad = || EngineError::Invalid(format!("{field} holds no certificate in PEM"));
    let found =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
    if found.is_empty() { Err(bad()) } else { Ok(found) }
}

/// The certificate and the key to show.
pub(super) fn identity(
    pem: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), EngineError> {
    let chain = certificates(pem, "tls_certificate_key")?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    let key = key.map_err(|_| EngineError::invalid("tls_certificate_key holds no private key in PEM"))?;
    Ok((chain, key))
}

/// How to begin TLS.
pub(super) fn client_config(ca: &str, own: &str, check: Check) -> Result<ClientConfig, EngineError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier {
        chain: chain_verifier(ca, check, &provider)?,
        check,
        provider: Arc::clone(&provider),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| EngineError::Bug(err.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    if own.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let (chain, key) = identity(own)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|_| EngineError::invalid("tls_certificate_key: the key is not the certificate's"))
}

fn chain_verifier(
    ca: &str,
    check: Check,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, EngineError> {
    if check == Check::Nothing {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in certificates(ca, "tls_ca")? {
            roots
                .add(certificate)
                .map_err(|_| EngineError::invalid("tls_ca holds what is no certificate"))?;
        }
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    built.map(Some).map_err(|_| EngineError::invalid("there is no authority to trust; set tls_ca"))
}

#[derive(Debug)]
struct Verifier {
    /// None when nothing is checked.
    chain: Option<Arc<WebPkiServerVerifier>>,
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is checked last: whose name is wrong has a good chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Chain => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
