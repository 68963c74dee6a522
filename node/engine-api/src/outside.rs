//! What an engine may reach beyond its storage: other systems over HTTP, threads for long computations, the
//! operator's rules for passwords. Each is a seam: the simulation passes its own.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::EngineError;

/// A request to a system behind an engine.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET`, `POST`, ….
    pub method: &'static str,
    /// Absolute, `http` or `https`.
    pub url: String,
    /// Names in lower case. A value may be a credential: it shows in no `Debug`.
    pub headers: Vec<(&'static str, Secretive)>,
    /// Body; empty for none.
    pub body: Vec<u8>,
    /// PEM certificates of the authorities to trust; the system's own when empty.
    pub ca_pem: String,
    /// Longest wait for the whole answer.
    pub patience: Duration,
    /// Most bytes taken of the answer's body.
    pub body_max: usize,
}

impl HttpRequest {
    /// Longest wait unless the engine says otherwise.
    pub const PATIENCE: Duration = Duration::from_secs(30);
    /// Most bytes of an answer unless the engine says otherwise.
    pub const BODY_MAX: usize = 4 << 20;

    /// A request without headers or body.
    #[must_use]
    pub fn new(method: &'static str, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            ca_pem: String::new(),
            patience: Self::PATIENCE,
            body_max: Self::BODY_MAX,
        }
    }
}

/// Text that is wiped when dropped and never shown.
#[derive(Clone)]
pub struct Secretive(pub Zeroizing<String>);

impl From<&str> for Secretive {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

impl From<String> for Secretive {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Debug for Secretive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// What a system behind an engine answered.
#[derive(Clone, Debug, Default)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The first header of this name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Sends requests to other systems. Redirects are not followed and no proxy is used, so that what an operator
/// configured is all that is ever asked.
#[async_trait]
pub trait Http: Debug + Send + Sync {
    /// Sends one request.
    ///
    /// # Errors
    /// [`EngineError::Upstream`] when there is no answer in time, TLS fails or the body is too long;
    /// [`EngineError::Invalid`] when the URL or the certificates are no such thing.
    async fn send(&self, request: HttpRequest) -> Result<HttpAnswer, EngineError>;
}

/// Runs computations that take long aside, so that no other request waits for them.
pub trait Workers: Debug + Send + Sync {
    /// Runs `work` once.
    fn run(&self, work: Box<dyn FnOnce() + Send>);
}

/// Workers that run everything at once: for tests and the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtOnce;

impl Workers for AtOnce {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// The operator's password policies, `sys/policies/password/…`.
pub trait Passwords: Send + Sync {
    /// A new password by the rules of `policy`, or by the built-in ones when it is empty.
    ///
    /// # Errors
    /// When there is no such policy or randomness fails.
    fn generate(&self, policy: &str) -> Result<Zeroizing<String>, EngineError>;
}

/// Without a network: every request fails. For engines' tests and nodes that may reach nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHttp;

#[async_trait]
impl Http for NoHttp {
    async fn send(&self, _: HttpRequest) -> Result<HttpAnswer, EngineError> {
        Err(EngineError::Upstream("no other system can be reached".to_owned()))
    }
}
