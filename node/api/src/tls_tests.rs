//! Handshakes over a pipe: which certificates, suites and clients a listener takes, before and after reading its files
//! again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::testing::{FakeSystem, api};
use crate::tls::{CertificateStore, TlsOptions, is_supported_suite};
use crate::{Listener, ListenerOptions};

/// A CA that signs for servers and clients alike.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, PEM.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

/// Writes a server's files, signed by `authority`, which is also the client CA.
fn issue(dir: &TempDir, authority: &Authority) {
    let (certificate, key) = authority.sign();
    write(dir.path(), "cert.pem", &certificate);
    write(dir.path(), "key.pem", &key);
    write(dir.path(), "ca.pem", &authority.pem);
}

fn options(dir: &TempDir) -> TlsOptions {
    TlsOptions {
        cert_file: dir.path().join("cert.pem"),
        key_file: dir.path().join("key.pem"),
        client_ca_file: Some(dir.path().join("ca.pem")),
        ..TlsOptions::default()
    }
}

/// How a client came through: the suite, and how many certificates the server has seen of it.
async fn connect(
    store: &CertificateStore,
    server: &Authority,
    client: Option<&Authority>,
) -> Result<(String, usize), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let (certificate, key) = authority.sign();
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let (near, far) = tokio::io::duplex(64 << 10);
    let connector = TlsConnector::from(Arc::new(config));
    let (client, server) = tokio::join!(
        connector.connect(ServerName::try_from("localhost").unwrap(), near),
        TlsAcceptor::from(store.current()).accept(far),
    );
    client.map_err(|err| format!("client: {err}"))?;
    let server = server.map_err(|err| format!("server: {err}"))?;
    let session = server.get_ref().1;
    let suite = session.negotiated_cipher_suite().unwrap().suite().as_str().unwrap().to_owned();
    Ok((suite, session.peer_certificates().unwrap_or_default().len()))
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_not_required() {
    let (dir, authority, stranger) = (TempDir::new().unwrap(), Authority::new(), Authority::new());
    issue(&dir, &authority);
    let store = CertificateStore::load(options(&dir)).unwrap();
    assert_eq!(connect(&store, &authority, None).await.unwrap().1, 0);
    // An auth method judges it later; here any will do.
    assert_eq!(connect(&store, &authority, Some(&stranger)).await.unwrap().1, 1);
    let store = CertificateStore::load(TlsOptions { disables_client_certs: true, ..options(&dir) }).unwrap();
    assert_eq!(connect(&store, &authority, Some(&authority)).await.unwrap().1, 0);
}

#[tokio::test]
async fn reading_again_takes_new_certificate_and_new_client_ca() {
    let (dir, old, new) = (TempDir::new().unwrap(), Authority::new(), Authority::new());
    issue(&dir, &old);
    let store = CertificateStore::load(TlsOptions { requires_client_cert: true, ..options(&dir) }).unwrap();
    assert_eq!(connect(&store, &old, Some(&old)).await.unwrap().1, 1);
    assert!(connect(&store, &old, Some(&new)).await.is_err());
    assert!(connect(&store, &old, None).await.is_err());
    issue(&dir, &new);
    store.reload().unwrap();
    assert_eq!(connect(&store, &new, Some(&new)).await.unwrap().1, 1);
    assert!(connect(&store, &new, Some(&old)).await.is_err());
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    issue(&dir, &authority);
    let store = CertificateStore::load(TlsOptions { requires_client_cert: true, ..options(&dir) }).unwrap();
    let (_, other_key) = authority.sign();
    for (name, text) in [("key.pem", other_key.as_str()), ("cert.pem", "none"), ("ca.pem", "")] {
        let before = std::fs::read_to_string(dir.path().join(name)).unwrap();
        write(dir.path(), name, text);
        let err = store.reload().unwrap_err().to_string();
        assert!(err.contains(".pem: "), "{name}: {err}");
        connect(&store, &authority, Some(&authority)).await.unwrap();
        write(dir.path(), name, &before);
    }
}

#[tokio::test]
async fn suites_can_be_chosen() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    issue(&dir, &authority);
    let with = |names: &[&str], is_tls12_only| {
        let cipher_suites = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateStore::load(TlsOptions { cipher_suites, is_tls12_only, ..options(&dir) })
    };
    let wanted = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    for name in [wanted, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"] {
        let store = with(&[name, "TLS_RSA_WITH_AES_128_CBC_SHA"], true).unwrap();
        assert_eq!(connect(&store, &authority, None).await.unwrap().0, wanted);
    }
    // Without a suite of TLS 1.2 there is still TLS 1.3, unless that is excluded.
    let store = with(&["TLS_RSA_WITH_AES_128_CBC_SHA"], false).unwrap();
    assert!(connect(&store, &authority, None).await.unwrap().0.starts_with("TLS13_"));
    assert!(with(&["TLS_RSA_WITH_AES_128_CBC_SHA"], true).is_err());
    assert!(is_supported_suite("TLS_AES_128_GCM_SHA256") && is_supported_suite("TLS13_AES_128_GCM_SHA256"));
    assert!(!is_supported_suite("TLS_RSA_WITH_AES_128_CBC_SHA") && !is_supported_suite("nonsense"));
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    issue(&dir, &authority);
    for bad in [
        TlsOptions { requires_client_cert: true, disables_client_certs: true, ..options(&dir) },
        TlsOptions { requires_client_cert: true, client_ca_file: None, ..options(&dir) },
        TlsOptions { is_tls12_only: true, is_tls13_only: true, ..options(&dir) },
    ] {
        assert!(CertificateStore::load(bad).is_err());
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    issue(&dir, &authority);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, stop) = (socket.local_addr().unwrap(), CancellationToken::new());
    let tls = Some(Arc::new(CertificateStore::load(options(&dir)).unwrap()));
    let options = ListenerOptions { header_timeout: Duration::from_millis(5), ..ListenerOptions::default() };
    let listener = Listener { socket, tls, options: Arc::new(options) };
    let serving = tokio::spawn(listener.serve(api(Arc::new(FakeSystem::default())), stop.clone(), PATIENCE));
    let mut client = TcpStream::connect(addr).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, client.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes.is_empty());
    stop.cancel();
    serving.await.unwrap();
}
