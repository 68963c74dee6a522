//! rustls settings for the cluster port: TLS 1.3 only, both sides present a certificate of the cluster's CA.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{IdentityError, NodeIdentity};

/// ALPN of the cluster protocol, version 1. gRPC's own `h2` follows for the library's sake.
const ALPN: &[&[u8]] = &[b"h2"];

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(identity: &NodeIdentity) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(identity.ca.clone())).map_err(refused)?;
    Ok(roots)
}

fn own(identity: &NodeIdentity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivatePkcs8KeyDer::from(identity.key.to_vec());
    (vec![CertificateDer::from(identity.certificate.clone())], key.into())
}

pub(crate) fn refused(err: impl std::fmt::Display) -> IdentityError {
    IdentityError::Certificate(err.to_string())
}

fn alpn() -> Vec<Vec<u8>> {
    ALPN.iter().map(|name| name.to_vec()).collect()
}

/// Settings for accepting peers.
///
/// # Errors
/// When the identity does not parse.
pub fn server_config(identity: &NodeIdentity) -> Result<ServerConfig, IdentityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider())
        .build()
        .map_err(refused)?;
    let (chain, key) = own(identity);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = alpn();
    Ok(config)
}

/// Settings for calling peers. The server name decides which member is accepted.
///
/// # Errors
/// When the identity does not parse.
pub fn client_config(identity: &NodeIdentity) -> Result<ClientConfig, IdentityError> {
    let (chain, key) = own(identity);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = alpn();
    Ok(config)
}
