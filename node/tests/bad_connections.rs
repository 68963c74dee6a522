//! Connections that are misused: requests hidden in requests, clients that are slow, silent or gone, handshakes that are
//! none. The server forgets them, and nobody else waits for them.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

mod abused;

use abused::{PATIENCE, Server};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn requests_within_requests() {
    let server = Server::start(false).await;
    let hidden = String::from_utf8(server.head("DELETE /v1/sys/mounts/secret", "")).unwrap();
    // Both lengths: the chunks count, and whatever follows is never taken for a request.
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 400\r\n",
    ] {
        let head = server.head("POST /v1/secret/data/x", headers);
        let bytes = [&head[..], b"0\r\n\r\n", hidden.as_bytes()].concat();
        let (answer, mut connection) = server.answer(headers, &bytes).await;
        assert!(answer.is_none_or(|answer| answer.status < 500), "{headers}");
        assert_eq!(timeout(PATIENCE, connection.is_closed_by_peer()).await, Ok(true), "{headers}");
    }
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length: \r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding\x0b: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
    ] {
        let bytes = [&server.head("POST /v1/secret/data/x", headers)[..], hidden.as_bytes()].concat();
        server.check_closed(headers, &bytes).await;
    }
    let old =
        format!("POST /v1/secret/data/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}");
    server.check_closed("chunks in HTTP/1.0", old.as_bytes()).await;
    // The mount that every one of them tried to remove is still there.
    server.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_slow_or_gone() {
    let server = Server::start(false).await;
    let half =
        [&server.head("POST /v1/secret/data/x", "Content-Length: 100\r\n")[..], b"{\"data\":"].concat();
    let mut connection = server.connect().await;
    connection.send(&half).await.unwrap();
    connection.half_close().await.unwrap();
    let answer = timeout(PATIENCE, connection.answer()).await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400), "a body cut half-way");

    let chunked =
        [&server.head("POST /v1/secret/data/x", "Transfer-Encoding: chunked\r\n")[..], b"8\r\n{\"data"]
            .concat();
    let mut waiting = Vec::new();
    for beginning in [
        &b""[..],
        b"P",
        b"PRI",
        b"GET /v1/sys/hea",
        &server.head("GET /v1/secret/data/x", "")[..50],
        &half,
        &chunked,
    ] {
        for _ in 0..20 {
            let mut connection = server.connect().await;
            connection.send(beginning).await.unwrap();
            waiting.push((String::from_utf8_lossy(beginning).into_owned(), connection));
        }
    }
    // Nobody else waits for them.
    server.assert_well().await;
    for (beginning, mut connection) in waiting {
        let ended = timeout(PATIENCE, async {
            let answer = connection.answer().await.ok();
            (answer.map(|answer| answer.status), connection.is_closed_by_peer().await)
        });
        let (status, is_closed) = ended.await.unwrap_or_else(|_| panic!("kept for ever: {beginning:?}"));
        assert!(status.is_none_or(|status| status == 408) && is_closed, "{beginning:?}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_none() {
    let server = Server::start(true).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(server.connect().await);
        let mut begun = server.connect().await;
        begun.send(hello).await.unwrap();
        silent.push(begun);
    }
    for bytes in [
        &b"GET /v1/sys/health HTTP/1.1\r\nHost: arca\r\n\r\n"[..],
        &[0; 512],
        &[0xff; 512],
        b"\x15\x03\x01\x00\x02\x02\x28",
    ] {
        server.check_closed("no handshake", bytes).await;
    }
    let endless_record = [&b"\x16\x03\x01\xff\xff"[..], &[1; 70_000]].concat();
    server.check_closed("a record over the limit", &endless_record).await;
    let mut cut = server.connect().await;
    cut.send(hello).await.unwrap();
    cut.half_close().await.unwrap();
    assert_eq!(timeout(PATIENCE, cut.is_closed_by_peer()).await, Ok(true), "a handshake cut half-way");
    server.assert_well().await;
}
