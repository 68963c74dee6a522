//! What engines reach beyond their storage on a real node: other systems over HTTP, threads for long computations.

mod threads;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arca_client::TlsConfig;
use arca_engine_api::{EngineError, Http, HttpAnswer, HttpRequest, Pod, PodFile};
use arca_kernel::Outside;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use self::threads::Threads;

/// Sets of trusted authorities whose connections are kept; of more, the one used least recently goes.
const CLIENTS_MAX: usize = 64;
/// How long a connection nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// The world around this node.
pub(crate) fn outside() -> Outside {
    let pod = Arc::new(ServiceAccount(SERVICE_ACCOUNT.into()));
    Outside { http: Arc::new(HttpClients::default()), workers: Arc::new(Threads::default()), pod }
}

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A pool of connections for each set of authorities somebody trusts.
#[derive(Default)]
struct HttpClients(Mutex<VecDeque<(String, Pool)>>);

impl fmt::Debug for HttpClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClients").finish_non_exhaustive()
    }
}

impl HttpClients {
    /// The pool for these authorities.
    fn trusting(&self, ca_pem: &str) -> Result<Pool, EngineError> {
        let mut pools = self.0.lock();
        if let Some(at) = pools.iter().position(|(pem, _)| pem == ca_pem)
            && let Some(entry) = pools.remove(at)
        {
            let pool = entry.1.clone();
            pools.push_back(entry);
            return Ok(pool);
        }
        let pool = pool(ca_pem)?;
        pools.push_back((ca_pem.to_owned(), pool.clone()));
        if pools.len() > CLIENTS_MAX {
            pools.pop_front();
        }
        Ok(pool)
    }
}

fn pool(ca_pem: &str) -> Result<Pool, EngineError> {
    let named = (!ca_pem.is_empty()).then(|| ca_pem.to_owned());
    let tls = TlsConfig { ca_pem: named, ..TlsConfig::default() };
    let tls =
        arca_client::tls_client_config(&tls, true).map_err(|err| EngineError::invalid(err.to_string()))?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let mut builder = Client::builder(TokioExecutor::new());
    Ok(builder.pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).build(connector))
}

#[async_trait]
impl Http for HttpClients {
    async fn send(&self, request: HttpRequest) -> Result<HttpAnswer, EngineError> {
        let HttpRequest { method, url, headers, body, ca_pem, patience, body_max } = request;
        let target = url.parse::<Uri>().ok().and_then(|uri| {
            let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
            (is_web && uri.host().is_some()).then_some(uri)
        });
        let target = target.ok_or_else(|| EngineError::invalid("no URL of an HTTP server"))?;
        // What is said of a failure names the server and no more: paths and queries may hold secrets.
        let server = target.authority().map_or("", |authority| authority.as_str()).to_owned();
        let failed = |why: &dyn fmt::Display| EngineError::Upstream(format!("asking {server}: {why}"));
        let mut asked = Request::builder().method(method).uri(target);
        for (name, value) in &headers {
            asked = asked.header(*name, value.0.as_str());
        }
        let asked =
            asked.body(Full::new(Bytes::from(body))).map_err(|err| EngineError::invalid(err.to_string()))?;
        let pool = self.trusting(&ca_pem)?;
        let answering = async {
            let answer = pool.request(asked).await.map_err(|err| failed(&with_cause(&err)))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, body_max).collect().await.map_err(|err| failed(&err))?;
            let headers = parts.headers.iter();
            let headers =
                headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
            Ok(HttpAnswer {
                status: parts.status.as_u16(),
                headers: headers.collect(),
                body: body.to_bytes().to_vec(),
            })
        };
        tokio::time::timeout(patience, answering).await.unwrap_or_else(|_| Err(failed(&"no answer in time")))
    }
}

/// An error and what caused it, on one line.
fn with_cause(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}

/// Where Kubernetes puts what a pod is to know of its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Largest file taken from there, bytes.
const POD_FILE_MAX: u64 = 1 << 20;

/// The service account of the pod this node runs in.
#[derive(Debug)]
struct ServiceAccount(PathBuf);

#[async_trait]
impl Pod for ServiceAccount {
    async fn read(&self, file: PodFile) -> Result<Zeroizing<String>, EngineError> {
        let path = self.0.join(match file {
            PodFile::Authority => "ca.crt",
            PodFile::Token => "token",
        });
        let failed =
            |err: std::io::Error| EngineError::Upstream(format!("reading {}: {err}", path.display()));
        let file = tokio::fs::File::open(&path).await.map_err(failed)?;
        let mut text = Zeroizing::new(String::new());
        file.take(POD_FILE_MAX).read_to_string(&mut text).await.map_err(failed)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Answers one request as told; answers where.
    fn server(answer: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = [0; 1024];
            assert!(stream.read(&mut seen).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    async fn say(request: HttpRequest) -> String {
        match HttpClients::default().send(request).await {
            Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Err(err) => err.to_string(),
        }
    }

    #[tokio::test]
    async fn answers_come_back_and_redirects_are_answers() {
        let url = server("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 2\r\n\r\nhi");
        let answer = HttpClients::default().send(HttpRequest::new("GET", url)).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("location"), answer.body.as_slice()),
            (302, Some("/x"), b"hi".as_slice())
        );
    }

    #[tokio::test]
    async fn a_long_body_is_refused() {
        let url = server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789");
        let said = say(HttpRequest { body_max: 8, ..HttpRequest::new("GET", url) }).await;
        assert!(said.ends_with("length limit exceeded"), "{said}");
    }

    #[tokio::test]
    async fn what_is_no_url_is_refused() {
        for url in ["", "x", "file:///etc/passwd", "http://", "ldap://h"] {
            assert_eq!(say(HttpRequest::new("GET", url)).await, "no URL of an HTTP server", "{url}");
        }
        let bad = HttpRequest { ca_pem: "no certificate".to_owned(), ..HttpRequest::new("GET", "https://h") };
        assert!(say(bad).await.contains("no PEM certificate"));
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_that_names_the_server_only() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let said = say(HttpRequest::new("GET", format!("http://{at}/secret?token=1"))).await;
        assert!(said.starts_with(&format!("asking {at}: ")) && !said.contains("secret"), "{said}");
    }

    #[tokio::test]
    async fn a_pod_knows_its_service_account() {
        let dir = tempfile::tempdir().unwrap();
        let pod = ServiceAccount(dir.path().to_owned());
        let missing = pod.read(PodFile::Token).await.unwrap_err().to_string();
        assert!(missing.starts_with("reading /") && missing.contains("/token: "), "{missing}");
        for (name, text) in [("token", "T"), ("ca.crt", "C")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(pod.read(PodFile::Token).await.unwrap().as_str(), "T");
        assert_eq!(pod.read(PodFile::Authority).await.unwrap().as_str(), "C");
    }
}
