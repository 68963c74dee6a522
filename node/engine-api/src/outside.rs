//! What an engine may reach beyond its storage: other systems over HTTP, threads for long computations, the
//! operator's rules for passwords. Each is a seam: the simulation passes its own.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::channel::oneshot;
use zeroize::Zeroizing;

use crate::cidr::source_of;
use crate::{EngineError, Request};

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

/// Who waits for a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Whoever reaches the node, without a token: from where ([`source_of`]), as far as that is known.
    Anybody(Option<IpAddr>),
    /// A caller with a token, or the node itself.
    Known,
}

impl Asker {
    /// Who made a request.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        match request.caller {
            Some(_) => Self::Known,
            None => Self::Anybody(request.remote_addr.map(source_of)),
        }
    }
}

/// Runs computations that take long aside, so that no other request waits for them.
///
/// What anybody can ask for keeps nobody waiting who has a token, and whatever waits is bounded.
pub trait Workers: Debug + Send + Sync {
    /// Runs `work` once. When too many wait already it is dropped, now or later, without being run.
    fn run(&self, asker: Asker, work: Box<dyn FnOnce() + Send>);
}

/// What comes of a computation that runs aside. Nothing is computed for somebody who has stopped waiting by the time it
/// could begin.
pub(crate) async fn computed<T, F>(workers: &dyn Workers, asker: Asker, work: F) -> Result<T, EngineError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let has_begun = Arc::new(AtomicBool::new(false));
    let begun = Arc::clone(&has_begun);
    workers.run(
        asker,
        Box::new(move || {
            begun.store(true, Ordering::Release);
            if !sender.is_canceled() {
                // It may have been given up meanwhile.
                let _ = sender.send(work());
            }
        }),
    );
    receiver.await.map_err(|_| {
        if has_begun.load(Ordering::Acquire) {
            EngineError::Bug("a computation ended without a result".to_owned())
        } else {
            EngineError::Busy
        }
    })
}

/// Workers that run everything at once: for tests and the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtOnce;

impl Workers for AtOnce {
    fn run(&self, _: Asker, work: Box<dyn FnOnce() + Send>) {
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

/// What Kubernetes tells a pod of the service account it runs as. These two files and no others: an engine cannot be
/// brought to read what else lies on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodFile {
    /// Certificates of the authorities to trust at the cluster's API, in PEM.
    Authority,
    /// The account's token.
    Token,
}

/// The pod a node runs in.
#[async_trait]
pub trait Pod: Debug + Send + Sync {
    /// What lies there now; tokens are replaced while a pod runs.
    ///
    /// # Errors
    /// [`EngineError::Upstream`] when there is none: most nodes run in no pod.
    async fn read(&self, file: PodFile) -> Result<Zeroizing<String>, EngineError>;
}

/// No pod at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPod;

#[async_trait]
impl Pod for NoPod {
    async fn read(&self, _: PodFile) -> Result<Zeroizing<String>, EngineError> {
        Err(EngineError::Upstream("this node runs in no pod".to_owned()))
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt as _;

    use super::*;

    /// Workers that begin nothing by themselves.
    #[derive(Default)]
    struct Held(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

    impl Debug for Held {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Held")
        }
    }

    impl Workers for Held {
        fn run(&self, _: Asker, work: Box<dyn FnOnce() + Send>) {
            self.0.lock().unwrap().push(work);
        }
    }

    impl Held {
        fn next(&self) -> Box<dyn FnOnce() + Send> {
            self.0.lock().unwrap().pop().unwrap()
        }
    }

    #[test]
    fn a_result_comes_back() {
        let done = computed(&AtOnce, Asker::Known, || 7).now_or_never().unwrap();
        assert_eq!(done.unwrap(), 7);
    }

    #[test]
    fn what_is_dropped_before_it_began_was_too_much() {
        let held = Held::default();
        let mut waiting = Box::pin(computed(&held, Asker::Anybody(None), || 7));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held.next());
        let refused = waiting.now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.fault(), crate::Fault::RateLimited, "{refused}");
    }

    #[test]
    fn a_panic_is_no_refusal() {
        let held = Held::default();
        let mut waiting = Box::pin(computed(&held, Asker::Known, || std::panic::panic_any("as planned")));
        assert!(waiting.as_mut().now_or_never().is_none());
        let work = held.next();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        let failed: Result<(), _> = waiting.now_or_never().unwrap();
        assert!(matches!(failed, Err(EngineError::Bug(_))));
    }

    #[test]
    fn nothing_is_computed_for_who_is_gone() {
        let held = Held::default();
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let mut waiting =
            Box::pin(computed(&held, Asker::Known, move || seen.store(true, Ordering::Relaxed)));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        held.next()();
        assert!(!ran.load(Ordering::Relaxed));
    }
}
