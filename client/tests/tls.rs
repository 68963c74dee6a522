//! TLS failures have names, because each needs another remedy.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests, which clippy sees only in functions marked so"
)]

use std::sync::Arc;

use arca_client::{Client, Config, Error, RetryPolicy, TransportKind};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A TLS server for `name` that answers every request alike. Answers its port and its certificate.
async fn server(name: &str) -> (u16, String) {
    self_signed(CertificateParams::new(vec![name.to_owned()]).unwrap()).await
}

async fn self_signed(params: CertificateParams) -> (u16, String) {
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    let pem = cert.pem();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\nconnection: close\r\n\r\n{\"data\":{\"a\":\"b\"}}";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, pem)
}

async fn check(address: String, change: impl FnOnce(&mut Config), want: Result<(), TransportKind>) {
    let mut config = Config::new(address.parse().unwrap());
    config.retry = RetryPolicy { retries: 0, ..RetryPolicy::default() };
    change(&mut config);
    let got = match Client::new(config).unwrap().read("secret/a").await {
        Ok(secret) => {
            assert_eq!(secret.unwrap().field("a").unwrap(), "b");
            Ok(())
        }
        Err(Error::Transport(err)) => Err(err.kind),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(got, want, "{address}");
}

#[tokio::test]
async fn certificates_are_checked() {
    let (port, pem) = server("arca.example").await;
    let address = || format!("https://127.0.0.1:{port}");
    let (trusted, named) = (pem.clone(), pem.clone());
    check(address(), |_| {}, Err(TransportKind::CertificateAuthority)).await;
    check(address(), |config| config.tls.ca_pem = Some(trusted), Err(TransportKind::CertificateName)).await;
    check(address(), |config| config.tls.danger_skip_verify = true, Ok(())).await;
    let with_name = |config: &mut Config| {
        config.tls.ca_pem = Some(named);
        config.tls.server_name = Some("arca.example".into());
    };
    check(address(), with_name, Ok(())).await;
}

#[tokio::test]
async fn a_self_signed_certificate_may_call_itself_an_authority() {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (port, pem) = self_signed(params.clone()).await;
    let (_, other) = self_signed(params.clone()).await;
    let trusting = |pem: String| move |config: &mut Config| config.tls.ca_pem = Some(pem);
    let address = |host: &str| format!("https://{host}:{port}");
    check(address("localhost"), trusting(pem.clone()), Ok(())).await;
    check(address("127.0.0.1"), trusting(pem), Err(TransportKind::CertificateName)).await;
    check(address("localhost"), trusting(other), Err(TransportKind::CertificateOther)).await;

    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let (port, pem) = self_signed(params).await;
    let expired = format!("https://localhost:{port}");
    check(expired, trusting(pem), Err(TransportKind::CertificateOther)).await;
}

#[tokio::test]
async fn the_wrong_protocol_has_a_name() {
    let (port, _) = server("arca.example").await;
    check(format!("http://127.0.0.1:{port}"), |_| {}, Err(TransportKind::NotHttp)).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    check(format!("https://127.0.0.1:{port}"), |_| {}, Err(TransportKind::HttpServerAskedForTls)).await;
}

#[tokio::test]
async fn a_redirect_out_of_tls_is_refused() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let answer = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/v1/a\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(answer).await;
    });
    let mut config = Config::new(format!("https://localhost:{port}").parse().unwrap());
    config.tls.ca_pem = Some(made.cert.pem());
    let err = Client::new(config).unwrap().read("a").await.unwrap_err();
    assert!(matches!(&err, Error::Redirect { reason, .. } if reason.contains("without TLS")), "{err}");
}
