//! Calls to the primary: to the node that answered last, and to the others when it does not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_replication::{
    ASK_BYTES_MAX, Call, Greeting, Link, LinkError, PayloadStream, PrimaryLink, Refusal, Welcome,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::authority::primary_dns_name;
use super::service::{MESSAGE_SIZE_MAX, REVOKED};
use super::tls;
use crate::identity::IdentityError;
use crate::replication_proto::replication_client::ReplicationClient;
use crate::replication_proto::{ActivateRequest, CallRequest, GreetRequest, Reply, reply::Outcome};
use crate::transport::{Dial, NotConnected, connect, describe, was_never_sent};

/// Longest wait for a TCP and TLS handshake: the primary may be far away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for one node's answer, and for a stream to begin.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for what the primary is asked to do: less than a client of the secondary waits.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for an answer to a greeting.
const GREET_TIMEOUT: Duration = Duration::from_secs(3);
/// The node that answered the last greeting has so much time before the others are greeted as well.
const GREET_HEAD_START: Duration = Duration::from_millis(300);
/// How often a node is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// One that answers no HTTP/2 ping for this long is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Most addresses tried.
const ADDRESSES_MAX: usize = 64;

/// Who a secondary is to its primary.
pub struct LinkIdentity {
    /// Of the primary and all that follow it.
    pub replication_id: String,
    /// Certificate of the primary's CA for its secondaries, DER.
    pub ca: Vec<u8>,
    /// Own certificate, DER.
    pub certificate: Vec<u8>,
    /// Own key, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for LinkIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkIdentity({})", self.replication_id)
    }
}

/// Makes connections to nodes of one primary.
struct Dialer {
    replication_id: String,
    tls: TlsConnector,
    dial: Arc<dyn Dial>,
}

type Client = ReplicationClient<Channel>;

impl Dialer {
    fn new(replication_id: &str, tls: ClientConfig, dial: Arc<dyn Dial>) -> Self {
        Self { replication_id: replication_id.to_owned(), tls: TlsConnector::from(Arc::new(tls)), dial }
    }

    fn client(&self, addr: &str) -> Result<Client, LinkError> {
        let unusable = |err: &dyn std::fmt::Display| LinkError::Unreachable(err.to_string());
        let name = primary_dns_name(&self.replication_id);
        let server_name = ServerName::try_from(name.clone()).map_err(|err| unusable(&err))?;
        let (tls, dial, addr) = (self.tls.clone(), Arc::clone(&self.dial), addr.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, dial, addr, server_name) =
                (tls.clone(), Arc::clone(&dial), addr.clone(), server_name.clone());
            async move {
                let connecting = connect(dial.as_ref(), &tls, &addr, server_name, CONNECT_TIMEOUT);
                connecting.await.map(TokioIo::new).map_err(NotConnected)
            }
        });
        let endpoint = Endpoint::from_shared(format!("http://{name}"))
            .map_err(|err| unusable(&err))?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        Ok(ReplicationClient::new(endpoint.connect_with_connector_lazy(connector))
            .max_decoding_message_size(MESSAGE_SIZE_MAX)
            .max_encoding_message_size(MESSAGE_SIZE_MAX))
    }
}

/// What became of asking one node.
enum Asked<T> {
    /// The cluster's answer.
    Answered(Result<T, Refusal>),
    /// Another node is asked.
    Elsewhere(LinkError),
}

impl<T> From<Result<T, LinkError>> for Asked<T> {
    fn from(outcome: Result<T, LinkError>) -> Self {
        match outcome {
            Ok(answer) => Self::Answered(Ok(answer)),
            Err(LinkError::Refused(refusal)) => Self::Answered(Err(refusal)),
            Err(err) => Self::Elsewhere(err),
        }
    }
}

fn opened(reply: Reply) -> Asked<Bytes> {
    let unusable = |text: &str| Asked::Elsewhere(LinkError::Unreachable(text.to_owned()));
    match reply.outcome {
        Some(Outcome::Payload(payload)) => Asked::Answered(Ok(payload)),
        Some(Outcome::Refusal(refusal)) => match Refusal::decode(refusal) {
            Ok(refusal) => Asked::Answered(Err(refusal)),
            Err(err) => unusable(&err.to_string()),
        },
        Some(Outcome::NotActive(_)) => {
            let busy = Refusal::Busy("the primary has no active node right now".to_owned());
            Asked::Elsewhere(busy.into())
        }
        None => unusable("an answer of a newer version"),
    }
}

/// A message in the middle of a stream.
fn message(reply: Result<Reply, Status>) -> Result<Bytes, LinkError> {
    match opened(reply.map_err(|status| LinkError::Unreachable(describe(&status)))?) {
        Asked::Answered(outcome) => Ok(outcome?),
        Asked::Elsewhere(err) => Err(err),
    }
}

async fn bounded<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    timeout: Duration,
) -> Result<T, LinkError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) if status.code() == Code::PermissionDenied && status.message() == REVOKED => {
            Err(Refusal::Revoked.into())
        }
        Ok(Err(status)) => Err(LinkError::Unreachable(describe(&status))),
        Err(_) => Err(LinkError::Unreachable("no answer in time".to_owned())),
    }
}

/// The addresses known, and who answered last.
#[derive(Default)]
struct Known {
    addresses: Vec<String>,
    /// Who answered the last greeting. It says nothing about whom to ask: a comparison, which one node holds the other half of,
    /// must not go to another one because a greeting took long.
    greeted: Option<String>,
    clients: BTreeMap<String, Client>,
}

/// The real [`Link`].
pub struct GrpcLink {
    dialer: Dialer,
    known: Mutex<Known>,
}

impl std::fmt::Debug for GrpcLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GrpcLink({})", self.dialer.replication_id)
    }
}

impl GrpcLink {
    /// To the primary at these cluster addresses.
    ///
    /// # Errors
    /// When the identity does not parse.
    pub fn new(
        identity: &LinkIdentity,
        addresses: Vec<String>,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, IdentityError> {
        let dialer = Dialer::new(&identity.replication_id, tls::follow_config(identity)?, dial);
        let link = Self { dialer, known: Mutex::default() };
        link.learn(addresses);
        Ok(link)
    }

    /// The addresses it knows, the one that answered last first.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.known.lock().addresses.clone()
    }

    fn greeted_first(&self) -> Vec<String> {
        let known = self.known.lock();
        let mut addresses = known.addresses.clone();
        addresses.sort_by_key(|addr| Some(addr) != known.greeted.as_ref());
        addresses
    }

    fn client(&self, addr: &str) -> Result<Client, LinkError> {
        let mut known = self.known.lock();
        if let Some(client) = known.clients.get(addr) {
            return Ok(client.clone());
        }
        let client = self.dialer.client(addr)?;
        known.clients.insert(addr.to_owned(), client.clone());
        Ok(client)
    }

    /// Asks one node after the other, until one answers; it is asked first the next time.
    async fn ask<'a, T>(
        &'a self,
        ask: impl Fn(Client) -> BoxFuture<'a, Asked<T>> + Send,
    ) -> Result<T, LinkError> {
        let mut last = LinkError::Unreachable("no address of the primary is known".to_owned());
        for addr in self.addresses() {
            match ask(self.client(&addr)?).await {
                Asked::Answered(answer) => {
                    self.known.lock().addresses.sort_by_key(|known| *known != addr);
                    return Ok(answer?);
                }
                Asked::Elsewhere(err) => {
                    // Asked last the next time: one that hangs costs its time once.
                    self.known.lock().addresses.sort_by_key(|known| *known == addr);
                    // That one cannot be reached says less than what another one said.
                    if matches!(last, LinkError::Unreachable(_)) {
                        last = err;
                    }
                }
            }
        }
        Err(last)
    }

    /// Has one node of the primary do something, once: another is only asked where the one before has surely done nothing.
    async fn ask_once(&self, payload: Bytes) -> Result<Bytes, LinkError> {
        if payload.len() > ASK_BYTES_MAX {
            return Err(Refusal::Malformed("the request is too large for the primary".to_owned()).into());
        }
        let unanswered = |text: String| LinkError::Refused(Refusal::Unanswered(text));
        let mut last = LinkError::Unreachable("no address of the primary is known".to_owned());
        for addr in self.addresses() {
            let mut client = self.client(&addr)?;
            let request = CallRequest { call: u32::from(Call::Ask as u8), payload: payload.clone() };
            match tokio::time::timeout(ASK_TIMEOUT, client.call(request)).await {
                Ok(Ok(reply)) => match opened(reply.into_inner()) {
                    Asked::Answered(answer) => {
                        self.known.lock().addresses.sort_by_key(|known| *known != addr);
                        return Ok(answer?);
                    }
                    Asked::Elsewhere(err @ LinkError::Refused(_)) => last = err,
                    Asked::Elsewhere(err) => return Err(unanswered(err.to_string())),
                },
                // An older node knows no such call, and did nothing.
                Ok(Err(status)) if was_never_sent(&status) || status.code() == Code::Unimplemented => {
                    let said = LinkError::Unreachable(describe(&status));
                    last = if matches!(last, LinkError::Unreachable(_)) { said } else { last };
                }
                Ok(Err(status)) => return Err(unanswered(describe(&status))),
                Err(_) => return Err(unanswered("no answer in time".to_owned())),
            }
            self.known.lock().addresses.sort_by_key(|known| *known == addr);
        }
        Err(last)
    }
}

#[async_trait]
impl Link for GrpcLink {
    async fn call(&self, call: Call, payload: Bytes) -> Result<Bytes, LinkError> {
        if call == Call::Ask {
            return self.ask_once(payload).await;
        }
        let answer = self.ask(|mut client| {
            let request = CallRequest { call: u32::from(call as u8), payload: payload.clone() };
            async move {
                match bounded(client.call(request), CALL_TIMEOUT).await {
                    Ok(reply) => opened(reply),
                    Err(err) => Asked::Elsewhere(err),
                }
            }
            .boxed()
        });
        answer.await
    }

    async fn stream(&self, call: Call, payload: Bytes) -> Result<PayloadStream, LinkError> {
        let stream = self.ask(|client| {
            let request = CallRequest { call: u32::from(call as u8), payload: payload.clone() };
            begin(client, request).boxed()
        });
        stream.await
    }
}

#[async_trait]
impl PrimaryLink for GrpcLink {
    async fn greet(&self, greeting: &Greeting) -> Result<Welcome, LinkError> {
        let mut asked = FuturesUnordered::new();
        for (place, addr) in self.greeted_first().into_iter().enumerate() {
            let mut client = self.client(&addr)?;
            asked.push(async move {
                if place > 0 {
                    tokio::time::sleep(GREET_HEAD_START).await;
                }
                let greeted = client.greet(GreetRequest::from(greeting.clone()));
                (addr, bounded(greeted, GREET_TIMEOUT).await.map(Welcome::from))
            });
        }
        let mut lonely = Err(LinkError::Unreachable("no address of the primary is known".to_owned()));
        while let Some((addr, answer)) = asked.next().await {
            match answer {
                Ok(welcome) if welcome.has_leader => {
                    self.known.lock().greeted = Some(addr);
                    return Ok(welcome);
                }
                Err(LinkError::Refused(refusal)) => return Err(refusal.into()),
                // What a node without a leader says counts if nobody knows better.
                Err(_) if lonely.is_ok() => {}
                answer => lonely = answer,
            }
        }
        lonely
    }

    /// The addresses in use stay the first.
    fn learn(&self, mut addresses: Vec<String>) {
        addresses.truncate(ADDRESSES_MAX);
        let mut known = self.known.lock();
        known.clients.retain(|addr, _| addresses.contains(addr));
        let first = known.addresses.first().cloned();
        addresses.sort_by_key(|addr| Some(addr) != first.as_ref());
        known.addresses = addresses;
    }
}

/// A stream with its first message, which says whether the node serves it at all.
async fn begin(mut client: Client, request: CallRequest) -> Asked<PayloadStream> {
    let mut stream = match bounded(client.stream(request), CALL_TIMEOUT).await {
        Ok(stream) => stream,
        Err(err) => return Asked::Elsewhere(err),
    };
    let first = match tokio::time::timeout(CALL_TIMEOUT, stream.next()).await {
        Ok(Some(Ok(first))) => opened(first),
        Ok(Some(Err(status))) => Asked::Elsewhere(LinkError::Unreachable(describe(&status))),
        Ok(None) => return Asked::Answered(Ok(Box::pin(futures::stream::empty()))),
        Err(_) => Asked::Elsewhere(LinkError::Unreachable("no answer in time".to_owned())),
    };
    match first {
        Asked::Answered(Ok(first)) => {
            let first = futures::stream::iter([Ok(first)]);
            Asked::Answered(Ok(Box::pin(first.chain(stream.map(message)))))
        }
        Asked::Answered(Err(refusal)) => Asked::Answered(Err(refusal)),
        Asked::Elsewhere(err) => Asked::Elsewhere(err),
    }
}

/// Shows an activation token to the primary with this CA, at one of these addresses.
///
/// # Errors
/// See [`LinkError`].
pub async fn activate(
    replication_id: &str,
    ca: &[u8],
    addresses: &[String],
    request: Bytes,
    dial: Arc<dyn Dial>,
) -> Result<Bytes, LinkError> {
    let tls = tls::activate_config(ca).map_err(|err| LinkError::Unreachable(err.to_string()))?;
    let dialer = Dialer::new(replication_id, tls, dial);
    let mut last = LinkError::Unreachable("the token names no address of the primary".to_owned());
    for addr in addresses.iter().take(ADDRESSES_MAX) {
        let mut client = dialer.client(addr)?;
        let asked = bounded(client.activate(ActivateRequest { payload: request.clone() }), CALL_TIMEOUT);
        match asked.await.map(opened) {
            Ok(Asked::Answered(answer)) => return Ok(answer?),
            Ok(Asked::Elsewhere(err)) | Err(err) if matches!(last, LinkError::Unreachable(_)) => last = err,
            Ok(Asked::Elsewhere(_)) | Err(_) => {}
        }
    }
    Err(last)
}
