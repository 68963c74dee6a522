//! TLS of a listener: TLS 1.2 and 1.3 by rustls, with files that can be read again while connections live.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
};
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
    /// Cipher suites of TLS 1.2 by their standard names, see [`is_supported_suite`]; all when empty. Those of TLS 1.3
    /// are always on.
    pub cipher_suites: Vec<String>,
}

/// A listener's certificate, key and client CAs as they were last read. [`Self::reload`] swaps them for new
/// connections, and no session begun under the old ones is resumed under the new.
#[derive(Debug)]
pub struct CertificateStore {
    options: TlsOptions,
    current: ArcSwap<ServerConfig>,
}

impl CertificateStore {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, the key does not fit the certificate, or the settings do not go together.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(server_config(&options)?);
        Ok(Self { options, current })
    }

    /// Reads the files again. On an error everything old stays in use.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(server_config(&self.options)?));
        Ok(())
    }

    /// For the next connection.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

/// Whether a cipher suite of TLS 1.2 or 1.3 can be had here.
#[must_use]
pub fn is_supported_suite(name: &str) -> bool {
    provider().cipher_suites.iter().any(|suite| has_name(suite, name))
}

/// Some names are written in more ways than one: of TLS 1.3 with and without the version, of ChaCha20 without its hash.
fn has_name(suite: &SupportedCipherSuite, name: &str) -> bool {
    let Some(own) = suite.suite().as_str() else { return false };
    own == name
        || own.strip_suffix("_SHA256").is_some_and(|own| own.ends_with("POLY1305") && own == name)
        || own.strip_prefix("TLS13").is_some_and(|own| name.strip_prefix("TLS") == Some(own))
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// The provider with only the cipher suites the listener wants.
fn chosen_provider(options: &TlsOptions) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = provider();
    if !options.cipher_suites.is_empty() {
        let is_wanted = |suite: &SupportedCipherSuite| {
            suite.tls13().is_some() || options.cipher_suites.iter().any(|name| has_name(suite, name))
        };
        provider.cipher_suites.retain(is_wanted);
    }
    if options.is_tls12_only && provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()) {
        return Err(TlsError::Setting("tls_cipher_suites names no suite that is supported".to_owned()));
    }
    Ok(Arc::new(provider))
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

fn server_config(options: &TlsOptions) -> Result<ServerConfig, TlsError> {
    let provider = chosen_provider(options)?;
    let has_tls12 = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let versions: &[&rustls::SupportedProtocolVersion] = match (options.is_tls12_only, options.is_tls13_only)
    {
        (true, true) => return Err(TlsError::Setting("tls_min_version is above tls_max_version".to_owned())),
        (true, false) => &[&rustls::version::TLS12],
        (false, false) if has_tls12 => &[&rustls::version::TLS12, &rustls::version::TLS13],
        (false, _) => &[&rustls::version::TLS13],
    };
    let verifier = client_verifier(options, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|err| TlsError::Setting(err.to_string()))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain = read_certificates(&options.cert_file)?;
    let key =
        PrivateKeyDer::from_pem_file(&options.key_file).map_err(|err| file_error(&options.key_file, err))?;
    let mut config =
        builder.with_single_cert(chain, key).map_err(|err| file_error(&options.key_file, err))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What becomes of client certificates; `None`: they are not asked for.
fn client_verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    match (options.requires_client_cert, options.disables_client_certs) {
        (true, true) => Err(TlsError::Setting(
            "tls_require_and_verify_client_cert and tls_disable_client_certs exclude each other".to_owned(),
        )),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(Arc::new(AskOnly(Arc::clone(provider))))),
        (true, false) => {
            let path = options.client_ca_file.as_ref().ok_or_else(|| {
                TlsError::Setting("tls_require_and_verify_client_cert needs tls_client_ca_file".to_owned())
            })?;
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|err| file_error(path, err))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            Ok(Some(verifier.build().map_err(|err| file_error(path, err))?))
        }
    }
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
