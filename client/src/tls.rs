//! rustls settings from a [`TlsConfig`]: whom to trust, what to show.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::TlsConfig;
use crate::error::Error;

/// Builds the rustls settings. Files are read here, once; the system's store only if TLS will be spoken.
pub(crate) fn client_config(tls: &TlsConfig, speaks_tls: bool) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|err| Error::Config { name: "TLS".into(), reason: err.to_string() })?;
    let builder = if tls.danger_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptsAny(provider)))
    } else {
        builder.with_root_certificates(roots(tls, speaks_tls)?)
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

fn roots(tls: &TlsConfig, speaks_tls: bool) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let trusted = if let Some(pem) = &tls.ca_pem {
        parse(pem.as_bytes(), "the CA certificate given inline")?
    } else if let Some(path) = &tls.ca_cert {
        certificates(path)?
    } else if let Some(folder) = &tls.ca_path {
        folder_certificates(folder)?
    } else if !speaks_tls {
        Vec::new()
    } else {
        // The system's store may hold entries that rustls does not take; the rest still counts.
        rustls_native_certs::load_native_certs().certs
    };
    let was_named = tls.ca_pem.is_some() || tls.ca_cert.is_some();
    for certificate in trusted {
        match roots.add(certificate) {
            Ok(()) => {}
            Err(err) if was_named => {
                return Err(Error::Config { name: "CA certificate".into(), reason: err.to_string() });
            }
            Err(_) => {} // One odd file in a folder of many does not take the others down.
        }
    }
    Ok(roots)
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
