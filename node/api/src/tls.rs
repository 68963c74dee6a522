//! TLS of a listener: TLS 1.2 and 1.3 by rustls, certificate files that can be read again while connections live.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// A certificate, key or setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or parsed.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Setting(String),
}

/// A listener's TLS settings.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificate chain, PEM, leaf first.
    pub cert_file: PathBuf,
    /// Private key, PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
    /// CAs for client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// Refuse clients without a certificate of one of these CAs.
    pub requires_client_cert: bool,
    /// Do not even ask for client certificates.
    pub disables_client_certs: bool,
    /// TLS 1.3 only.
    pub is_tls13_only: bool,
    /// TLS 1.2 only.
    pub is_tls12_only: bool,
}

/// The certificate in use. [`Self::reload`] swaps it for new connections.
#[derive(Debug)]
pub struct CertificateStore {
    options: TlsOptions,
    current: ArcSwap<CertifiedKey>,
}

impl CertificateStore {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or the key does not fit the certificate.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(read_key(&options)?);
        Ok(Self { options, current })
    }

    /// Reads the files again. On an error the old certificate stays in use.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read_key(&self.options)?));
        Ok(())
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn file_error(path: &std::path::Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|err| file_error(path, err))?;
    if chain.is_empty() { Err(file_error(path, "no certificate in this file")) } else { Ok(chain) }
}

fn read_key(options: &TlsOptions) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(&options.cert_file)?;
    let key =
        PrivateKeyDer::from_pem_file(&options.key_file).map_err(|err| file_error(&options.key_file, err))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|err| file_error(&options.key_file, err))
}

/// rustls settings for a listener.
///
/// # Errors
/// When a file cannot be read or the settings do not go together.
pub fn server_config(store: &Arc<CertificateStore>) -> Result<ServerConfig, TlsError> {
    let options = &store.options;
    let versions: &[&rustls::SupportedProtocolVersion] = match (options.is_tls12_only, options.is_tls13_only)
    {
        (true, true) => return Err(TlsError::Setting("tls_min_version is above tls_max_version".to_owned())),
        (true, false) => &[&rustls::version::TLS12],
        (false, true) => &[&rustls::version::TLS13],
        (false, false) => &[&rustls::version::TLS12, &rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|err| TlsError::Setting(err.to_string()))?;
    let builder = if options.requires_client_cert {
        let path = options.client_ca_file.as_ref().ok_or_else(|| {
            TlsError::Setting("tls_require_and_verify_client_cert needs tls_client_ca_file".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(path)? {
            roots.add(certificate).map_err(|err| file_error(path, err))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|err| file_error(path, err))?;
        builder.with_client_cert_verifier(verifier)
    } else if options.disables_client_certs {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(Arc::new(AskOnly(provider())))
    };
    let mut config = builder.with_cert_resolver(Arc::<CertificateStore>::clone(store));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Asks for a client certificate, checks only that the client holds its key, and hands it on. Nothing trusts it until
/// an auth method has verified chain, name and revocation; everything else ignores it.
#[derive(Debug)]
struct AskOnly(Arc<CryptoProvider>);

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
