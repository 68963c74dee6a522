//! Connections as clients of all kinds make them: gone before the answer, silent, slow, greedy, ambiguous.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::{Connection, Shared};
use crate::testing::{FakeSystem, Gate, api};
use crate::{Listener, ListenerOptions};

/// Longer than any of these tests should take: a hang fails instead of lasting.
const PATIENCE: Duration = Duration::from_secs(20);
/// A time limit that is reached at once.
const AT_ONCE: Duration = Duration::from_millis(5);

struct Rig {
    system: Arc<FakeSystem>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Rig {
    fn new(system: FakeSystem, options: ListenerOptions) -> Self {
        let (system, stop) = (Arc::new(system), CancellationToken::new());
        let shared = Shared::new(api(Arc::<FakeSystem>::clone(&system)), Arc::new(options), stop.clone());
        Self { system, shared, stop }
    }

    fn plain(options: ListenerOptions) -> Self {
        Self::new(FakeSystem::default(), options)
    }

    fn gated(options: ListenerOptions) -> Self {
        Self::new(FakeSystem { gate: Some(Gate::default()), ..FakeSystem::default() }, options)
    }

    fn gate(&self) -> &Gate {
        self.system.gate.as_ref().unwrap()
    }

    /// A client's end of a connection, and the task that serves it.
    fn connect(&self) -> (DuplexStream, JoinHandle<Result<(), String>>) {
        let (client, server) = tokio::io::duplex(64 << 10);
        let peer = ([127, 0, 0, 1], 9).into();
        let connection = Connection::new(Arc::clone(&self.shared), peer, Arc::new([]));
        (client, tokio::spawn(connection.speak(server)))
    }

    /// Sends `bytes`, says that there is no more, and returns all that comes back.
    async fn ask(&self, bytes: &[u8]) -> String {
        let (mut client, task) = self.connect();
        // A refusal may come, and the other end be gone, before everything is sent.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let answer = rest(&mut client).await;
        let _ = in_time(task).await;
        answer
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

/// Everything until the other side closes.
async fn rest(client: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = in_time(client.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One answer with a body of known length.
async fn one_answer(client: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        let byte = in_time(client.read_u8()).await.unwrap_or_else(|err| {
            panic!("{err} after {}", String::from_utf8_lossy(&bytes));
        });
        bytes.push(byte);
    }
    String::from_utf8(bytes).unwrap()
}

const INIT: &[u8] = b"PUT /v1/sys/init HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
const STATUS: &[u8] = b"GET /v1/sys/seal-status HTTP/1.1\r\nhost: a\r\n\r\n";
const HEALTH: &[u8] = b"GET /v1/sys/health?uninitcode=200 HTTP/1.1\r\nhost: a\r\n\r\n";
const LEADER: &[u8] = b"GET /v1/sys/leader HTTP/1.1\r\nhost: a\r\n\r\n";

#[track_caller]
fn check_status(answer: &str, want: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {want} ")), "wanted {want}, got {answer:?}");
    assert!(
        want < 400 || !answer.contains("127.0.0.1"),
        "no refusal tells an address (CVE-2021-3024): {answer:?}"
    );
}

/// The one shape of a refusal.
#[track_caller]
fn check_refusal(answer: &str, want: u16, text: &str) {
    check_status(answer, want);
    assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{answer:?}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let errors = body["errors"].as_array().unwrap();
    assert!(errors.iter().any(|err| err.as_str().unwrap().contains(text)), "{body} lacks {text:?}");
}

#[tokio::test]
async fn a_request_outlives_its_connection() {
    let rig = Rig::gated(ListenerOptions::default());
    let (mut client, task) = rig.connect();
    client.write_all(INIT).await.unwrap();
    in_time(rig.gate().reached.notified()).await;
    drop(client);
    // Even the connection's own task goes; the request does not.
    task.abort();
    let _ = task.await;
    rig.gate().opened.notify_one();
    in_time(rig.gate().left.notified()).await;
}

#[tokio::test]
async fn a_half_closed_connection_gets_its_answer() {
    let rig = Rig::gated(ListenerOptions::default());
    let (mut client, _task) = rig.connect();
    client.write_all(INIT).await.unwrap();
    client.shutdown().await.unwrap();
    in_time(rig.gate().reached.notified()).await;
    rig.gate().opened.notify_one();
    check_status(&rest(&mut client).await, 200);
}

#[tokio::test]
async fn a_request_outlives_its_time_limit() {
    let rig = Rig::gated(ListenerOptions { request_duration_max: AT_ONCE, ..ListenerOptions::default() });
    let (mut client, _task) = rig.connect();
    client.write_all(INIT).await.unwrap();
    check_refusal(&one_answer(&mut client).await, 500, "may or may not have happened");
    rig.gate().opened.notify_one();
    in_time(rig.gate().left.notified()).await;
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let rig = Rig::plain(ListenerOptions { request_duration_max: AT_ONCE, ..ListenerOptions::default() });
    let (mut client, _task) = rig.connect();
    client.write_all(b"PUT /v1/a HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
    check_refusal(&one_answer(&mut client).await, 408, "took too long");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let rig = Rig::plain(ListenerOptions { header_timeout: AT_ONCE, ..ListenerOptions::default() });
    let (mut client, _task) = rig.connect();
    client.write_all(b"PUT /v1/a HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
    check_refusal(&one_answer(&mut client).await, 408, "stopped coming");
}

#[tokio::test]
async fn silent_and_slow_clients_are_cut_off() {
    let rig = Rig::plain(ListenerOptions { header_timeout: AT_ONCE, ..ListenerOptions::default() });
    for opening in [&b""[..], b"GET /v1/sys/he", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let (mut client, task) = rig.connect();
        client.write_all(opening).await.unwrap();
        rest(&mut client).await;
        assert!(in_time(task).await.unwrap().is_err());
    }
    // A later head is timed as well, though the connection might be idle for long.
    let (mut client, task) = rig.connect();
    client.write_all(STATUS).await.unwrap();
    one_answer(&mut client).await;
    client.write_all(b"GET /v1/sys/he").await.unwrap();
    rest(&mut client).await;
    assert!(in_time(task).await.unwrap().is_err());
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let rig = Rig::plain(ListenerOptions { idle_timeout: AT_ONCE, ..ListenerOptions::default() });
    let (mut client, task) = rig.connect();
    client.write_all(STATUS).await.unwrap();
    check_status(&rest(&mut client).await, 200);
    assert_eq!(in_time(task).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let rig = Rig::plain(ListenerOptions { idle_timeout: AT_ONCE * 20, ..ListenerOptions::default() });
    let (client, task) = rig.connect();
    let io = hyper_util::rt::TokioIo::new(client);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = http::Request::get("http://a/v1/sys/seal-status");
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = in_time(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    in_time(driving).await.unwrap().unwrap();
    let _ = in_time(task).await.unwrap();
}

#[tokio::test]
async fn an_unread_answer_is_given_up() {
    let options =
        ListenerOptions { header_timeout: AT_ONCE, idle_timeout: AT_ONCE, ..ListenerOptions::default() };
    let rig = Rig::plain(options);
    let (mut client, server) = tokio::io::duplex(64);
    let connection = Connection::new(Arc::clone(&rig.shared), ([127, 0, 0, 1], 9).into(), Arc::new([]));
    let task = tokio::spawn(connection.speak(server));
    client.write_all(STATUS).await.unwrap();
    assert!(in_time(task).await.unwrap().is_err());
}

#[tokio::test]
async fn bodies_are_bounded_one_by_one_and_together() {
    let options = ListenerOptions {
        request_size_max: 64 << 10,
        bodies_size_max: 32 << 10,
        ..ListenerOptions::default()
    };
    let rig = Rig::plain(options);
    let put = |size: usize| {
        let mut bytes =
            format!("PUT /v1/sys/unseal HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + size, b' ');
        bytes
    };
    // 400: blank, so no key is in it.
    check_refusal(&rig.ask(&put(40 << 10)).await, 400, "'key' must be specified");
    check_refusal(&rig.ask(&put(64 << 10)).await, 503, "too many large request bodies");
    check_refusal(&rig.ask(&put((64 << 10) + 1)).await, 413, "over 65536 bytes");
    let chunk = format!("{:x}\r\n{}\r\n", 40 << 10, " ".repeat(40 << 10));
    let head = "PUT /v1/sys/unseal HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    check_refusal(&rig.ask(format!("{head}{chunk}0\r\n\r\n").as_bytes()).await, 400, "'key' must be");
    check_refusal(&rig.ask(format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).await, 503, "too many large");
    // All room was given back.
    check_refusal(&rig.ask(&put(40 << 10)).await, 400, "'key' must be specified");
    let roomy = Rig::plain(ListenerOptions { request_size_max: 64 << 10, ..ListenerOptions::default() });
    check_refusal(&roomy.ask(format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).await, 413, "over 65536");
}

#[tokio::test]
async fn requests_at_once_are_bounded() {
    let rig = Rig::gated(ListenerOptions { requests_max: 1, ..ListenerOptions::default() });
    let (mut client, _task) = rig.connect();
    client.write_all(INIT).await.unwrap();
    in_time(rig.gate().reached.notified()).await;
    check_refusal(&rig.ask(LEADER).await, 503, "too many requests");
    // How the node is can be asked however busy it is.
    check_status(&rig.ask(HEALTH).await, 200);
    check_status(&rig.ask(STATUS).await, 200);
    rig.gate().opened.notify_one();
    check_status(&one_answer(&mut client).await, 200);
    check_status(&rig.ask(LEADER).await, 200);
}

#[tokio::test]
async fn bodies_that_never_come_take_no_place() {
    let rig = Rig::plain(ListenerOptions { requests_max: 2, ..ListenerOptions::default() });
    let (mut client, _task) = rig.connect();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS_FRAME, 0, 0, &[]));
    for stream in [1, 3] {
        // POST http / with an authority, from HPACK's static table; more is said to follow.
        bytes.extend(frame(HEADERS_FRAME, 4, stream, &[0x83, 0x86, 0x84, 0x41, 1, b'a']));
    }
    client.write_all(&bytes).await.unwrap();
    let coming = |count: usize| {
        let bodies = &rig.shared.coming;
        in_time(async move {
            while bodies.count() != count {
                tokio::task::yield_now().await;
            }
        })
    };
    coming(2).await;
    for plain in [HEALTH, STATUS, LEADER] {
        check_status(&rig.ask(plain).await, 200);
    }
    // Another body takes the place of the one that has been coming for longest.
    check_status(&rig.ask(INIT).await, 200);
    coming(1).await;
}

async fn listening(options: ListenerOptions) -> (std::net::SocketAddr, CancellationToken, JoinHandle<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, stop) = (socket.local_addr().unwrap(), CancellationToken::new());
    let listener = Listener { socket, tls: None, options: Arc::new(options) };
    let api = api(Arc::new(FakeSystem::default()));
    (addr, stop.clone(), tokio::spawn(listener.serve(api, stop, PATIENCE)))
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_place() {
    let options = ListenerOptions { connections_max: 1, ..ListenerOptions::default() };
    let (addr, stop, serving) = listening(options).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(STATUS).await.unwrap();
    one_answer(&mut client).await;
    stop.cancel();
    in_time(serving).await.unwrap();
}

#[tokio::test]
async fn a_connection_too_many_waits_until_an_idle_one_is_closed() {
    let options = ListenerOptions { connections_max: 1, idle_timeout: AT_ONCE, ..ListenerOptions::default() };
    let (addr, stop, serving) = listening(options).await;
    let mut first = TcpStream::connect(addr).await.unwrap();
    first.write_all(STATUS).await.unwrap();
    one_answer(&mut first).await;
    let mut second = TcpStream::connect(addr).await.unwrap();
    second.write_all(STATUS).await.unwrap();
    check_status(&one_answer(&mut second).await, 200);
    stop.cancel();
    in_time(serving).await.unwrap();
}

#[tokio::test]
async fn stopping_lets_requests_finish() {
    let rig = Rig::gated(ListenerOptions::default());
    let (mut client, task) = rig.connect();
    client.write_all(INIT).await.unwrap();
    in_time(rig.gate().reached.notified()).await;
    rig.stop.cancel();
    rig.gate().opened.notify_one();
    check_status(&rest(&mut client).await, 200);
    assert_eq!(in_time(task).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_head_has_one_meaning() {
    let rig = Rig::plain(ListenerOptions::default());
    let ask = |head: &str, body: &str| {
        let bytes = format!("PUT /v1/sys/unseal HTTP/1.1\r\nhost: a\r\n{head}\r\n{body}").into_bytes();
        let rig = &rig;
        async move { rig.ask(&bytes).await }
    };
    // What follows would be a second request to whoever reads the length differently: nobody answers it.
    let smuggled = "0\r\n\r\nGET /v1/sys/seal-status HTTP/1.1\r\nhost: a\r\n\r\n";
    for head in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let answer = ask(head, smuggled).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer:?}");
    }
    for head in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding : chunked\r\n",
        "a: b\r\n c: d\r\n",
        "a b: c\r\n",
        "a: b\0c\r\n",
    ] {
        let answer = ask(head, smuggled).await;
        check_status(&answer, 400);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer:?}");
    }
    check_status(&ask("transfer-encoding: chunked\r\n", "zz\r\n").await, 400);
}

#[tokio::test]
async fn heads_are_bounded() {
    let rig = Rig::plain(ListenerOptions::default());
    let head = |extra: &str| format!("GET /v1/sys/seal-status HTTP/1.1\r\nhost: a\r\n{extra}\r\n");
    check_status(&rig.ask(head(&"a: b\r\n".repeat(127)).as_bytes()).await, 200);
    check_status(&rig.ask(head(&"a: b\r\n".repeat(128)).as_bytes()).await, 431);
    check_status(&rig.ask(head(&format!("a: {}\r\n", "b".repeat(60 << 10))).as_bytes()).await, 200);
    check_status(&rig.ask(head(&format!("a: {}\r\n", "b".repeat(70 << 10))).as_bytes()).await, 431);
    let path = format!("GET /v1/{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(30 << 10));
    check_refusal(&rig.ask(path.as_bytes()).await, 400, "path is longer");
    for bad in ["GET /v1/a b HTTP/1.1", "GET /v1/a", "GET /v1/a HTTP/9.9", "\u{1}"] {
        check_status(&rig.ask(format!("{bad}\r\n\r\n").as_bytes()).await, 400);
    }
}

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

const HEADERS_FRAME: u8 = 1;
const RST_FRAME: u8 = 3;
const SETTINGS_FRAME: u8 = 4;
const GOAWAY_FRAME: u8 = 7;

/// Kinds and payloads of the frames in `bytes`.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        found.push((head[3], payload.to_vec()));
        bytes = rest;
    }
    found
}

#[tokio::test]
async fn http2_requests_taken_back_in_a_hurry_end_the_connection() {
    let rig = Rig::plain(ListenerOptions::default());
    let (mut client, task) = rig.connect();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS_FRAME, 0, 0, &[]));
    for stream in (1..2_000).step_by(2) {
        // GET http / with an authority, from HPACK's static table.
        bytes.extend(frame(HEADERS_FRAME, 5, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a']));
        bytes.extend(frame(RST_FRAME, 0, stream, &8_u32.to_be_bytes()));
    }
    let _ = client.write_all(&bytes).await;
    let mut answer = Vec::new();
    let _ = in_time(client.read_to_end(&mut answer)).await;
    let calm = 11_u32.to_be_bytes();
    let sent = frames(&answer);
    let is_told =
        sent.iter().any(|(kind, payload)| *kind == GOAWAY_FRAME && payload.get(4..8) == Some(&calm[..]));
    assert!(is_told, "{sent:?}");
    assert!(in_time(task).await.unwrap().is_err());
}

#[tokio::test]
async fn http2_requests_at_once_are_bounded() {
    let rig = Rig::plain(ListenerOptions::default());
    let (mut client, _task) = rig.connect();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(SETTINGS_FRAME, 0, 0, &[])).await.unwrap();
    let mut head = [0; 9];
    in_time(client.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], SETTINGS_FRAME);
    let mut settings = vec![0; usize::from(head[2])];
    in_time(client.read_exact(&mut settings)).await.unwrap();
    // What the client is told, it keeps to; whoever does not has the stream refused.
    let most = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(most[2..], 64_u32.to_be_bytes());
}

#[tokio::test]
async fn http2_heads_are_bounded() {
    let rig = Rig::plain(ListenerOptions::default());
    let (client, _task) = rig.connect();
    let io = hyper_util::rt::TokioIo::new(client);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let _driving = tokio::spawn(connection);
    for (count, size, want) in [(127, 1, 200), (200, 1, 431), (9, 8 << 10, 431)] {
        let mut request = http::Request::get("http://a/v1/sys/seal-status");
        for number in 0..count {
            request = request.header(format!("x-{number}"), "b".repeat(size));
        }
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let response = in_time(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status().as_u16(), want, "{count} headers of {size} bytes");
    }
}
