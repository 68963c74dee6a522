//! rustls settings between clusters: TLS 1.3 only, each side checked against the primary's CA for its secondaries.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::authority::ReplicationAuthority;
use super::link::LinkIdentity;
use crate::IdentityError;
use crate::tls::{provider, refused};

/// A secondary's connection.
pub(crate) const FOLLOW: &[u8] = b"arca-replication/1";
/// A connection for showing an activation token, without a client certificate.
pub(crate) const ACTIVATE: &[u8] = b"arca-activation/1";

fn roots(ca: &[u8]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec())).map_err(refused)?;
    Ok(roots)
}

fn pair(certificate: Vec<u8>, key: &[u8]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivatePkcs8KeyDer::from(key.to_vec());
    (vec![CertificateDer::from(certificate)], key.into())
}

/// Settings of a primary's node: for secondaries, and for those that want to become one.
pub(crate) fn server_configs(
    authority: &ReplicationAuthority,
) -> Result<(ServerConfig, ServerConfig), IdentityError> {
    let (certificate, key) = authority.issue_primary()?;
    let builder = || {
        ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refused)
    };
    let roots = Arc::new(roots(authority.certificate())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(refused)?;
    let (chain, exposed) = pair(certificate.clone(), &key);
    let mut follow =
        builder()?.with_client_cert_verifier(verifier).with_single_cert(chain, exposed).map_err(refused)?;
    follow.alpn_protocols = vec![FOLLOW.to_vec()];
    let (chain, exposed) = pair(certificate, &key);
    let mut activate = builder()?.with_no_client_auth().with_single_cert(chain, exposed).map_err(refused)?;
    activate.alpn_protocols = vec![ACTIVATE.to_vec()];
    Ok((follow, activate))
}

/// Settings for calling a primary as `identity`.
pub(crate) fn follow_config(identity: &LinkIdentity) -> Result<ClientConfig, IdentityError> {
    let (chain, key) = pair(identity.certificate.clone(), &identity.key);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_root_certificates(roots(&identity.ca)?)
        .with_client_auth_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![FOLLOW.to_vec()];
    Ok(config)
}

/// Settings for showing an activation token to the primary with this CA.
pub(crate) fn activate_config(ca: &[u8]) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![ACTIVATE.to_vec()];
    Ok(config)
}
