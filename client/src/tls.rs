//! rustls settings from a [`TlsConfig`]: whom to trust, what to show.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::TlsConfig;
use crate::error::Error;

/// Builds the rustls settings. Files are read here, once; the system's store only if TLS will be spoken.
///
/// # Errors
/// When a certificate or key cannot be read or used.
pub fn client_config(tls: &TlsConfig, speaks_tls: bool) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|err| Error::Config { name: "TLS".into(), reason: err.to_string() })?;
    let builder = if tls.danger_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptsAny(provider)))
    } else if let Some(named) = named(tls)? {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptsNamed::new(named, provider)?))
    } else if speaks_tls {
        // The system's store may hold entries that rustls does not take; the rest still counts.
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        builder.with_root_certificates(roots)
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    match (&tls.client_cert, &tls.client_key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let bad = |reason: String| Error::Config { name: key.display().to_string(), reason };
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|err| bad(format!("no PEM private key: {err}")))?;
            let name = cert.display().to_string();
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|err| Error::Config { name, reason: err.to_string() })
        }
        _ => Err(Error::Config {
            name: "client certificate".into(),
            reason: "a certificate and its key go together; only one of the two is given".into(),
        }),
    }
}

/// The certificates that the operator named, if any.
fn named(tls: &TlsConfig) -> Result<Option<Vec<CertificateDer<'static>>>, Error> {
    Ok(Some(if let Some(pem) = &tls.ca_pem {
        parse(pem.as_bytes(), "the CA certificate given inline")?
    } else if let Some(path) = &tls.ca_cert {
        certificates(path)?
    } else if let Some(folder) = &tls.ca_path {
        folder_certificates(folder)?
    } else {
        return Ok(None);
    }))
}

fn folder_certificates(folder: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            all.extend(CertificateDer::pem_file_iter(&path).into_iter().flatten().filter_map(Result::ok));
        }
    }
    // One odd file in a folder of many does not take the others down.
    all.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    if all.is_empty() {
        let name = folder.display().to_string();
        return Err(Error::Config { name, reason: "no PEM certificate in this folder".into() });
    }
    Ok(all)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    parse(&pem, &path.display().to_string())
}

fn parse(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |reason: String| Error::Config { name: name.to_owned(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(bad("no PEM certificate in it".into())),
        Ok(all) => Ok(all),
        Err(err) => Err(bad(format!("not PEM: {err}"))),
    }
}

/// Trusts the certificates that the operator named, and those they signed. One of them may be the server's own, even
/// if it is marked as an authority's: a self-signed certificate usually is, and rustls alone would refuse it for that.
#[derive(Debug)]
struct AcceptsNamed {
    inner: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl AcceptsNamed {
    fn new(named: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let bad = |reason: String| Error::Config { name: "CA certificate".into(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in &named {
            roots.add(certificate.clone()).map_err(|err| bad(err.to_string()))?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self { inner: inner.map_err(|err| bad(err.to_string()))?, named })
    }
}

impl ServerCertVerifier for AcceptsNamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_named = || self.named.iter().any(|named| named == end_entity);
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // Dates are judged first and have errors of their own; what is left to check is the name.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if is_named() => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Takes any certificate, because the operator asked for it with `-tls-skip-verify`. Signatures are still checked,
/// so that a broken handshake shows as one.
#[derive(Debug)]
struct AcceptsAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptsAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
