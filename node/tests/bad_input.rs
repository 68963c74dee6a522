//! What no decent client sends: each gets a 4xx with a reason or a closed connection, never a 500, never silence, and
//! the server goes on serving others. Wrong fields in well-formed requests are in `bad_fields.rs`, connections that are
//! misused in `bad_connections.rs`.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

mod abused;

use abused::{REQUEST_SIZE_MAX, Server};

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_not_canonical() {
    let server = Server::start(false).await;
    let long = format!("/v1/secret/data/{}", "a/".repeat(4_500));
    let (wide, deep) = ("a".repeat(4_090), "a/".repeat(252));
    let (wide, deep) = (format!("/v1/secret/data/{wide}"), format!("/v1/secret/data/{deep}a"));
    for path in [
        "/v1/secret/data/../x",
        "/v1/secret/data/..",
        "/v1/../v1/secret/data/x",
        "/v1/secret/./data/x",
        "/v1/secret/data/%2e%2e/x",
        "/v1/secret/data/.%2E/x",
        "/v1/secret/data/%2e",
        "/v1//secret/data/x",
        "/v1/secret//data/x",
        "/v1/secret/data//",
        "/v1/secret/data/a%00b",
        "/v1/secret/data/a%0ab",
        "/v1/secret/data/a%7f",
        "/v1/secret/data/a%2fb",
        "/v1/secret/data/a%2",
        "/v1/secret/data/%",
        "/v1/secret/data/%zz",
        "/v1/secret/data/a%c0%af",
        "/v1/secret/data/%ff",
        &long,
        &wide,
        &deep,
    ] {
        server.check(path, &server.head(&format!("GET {path}"), ""), 400).await;
        server.check(path, &server.head(&format!("DELETE {path}"), ""), 400).await;
    }
    for path in ["/v2/secret", "/v1", "/nothing", "/v1secret", "*", "/ui/../v1/sys/mounts"] {
        server.check(path, &server.head(&format!("GET {path}"), ""), 404).await;
    }
    for path in ["/v1/a\x01b", "/v1/a\0b", "/v1/a b", "/v1/a\tb", "/v1/a\rb", "", "v1/secret"] {
        server.check_closed(path, &server.head(&format!("GET {path}"), "")).await;
    }
    let bare: &[u8] = b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: arca\r\n\r\n";
    server.check_closed("a path that is no text", bare).await;
    let endless = format!("/v1/secret/data/{}", "a".repeat(10 << 20));
    server.check_closed("10 MB of path", &server.head(&format!("GET {endless}"), "")).await;
    server.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_no_http_or_too_much_of_it() {
    let server = Server::start(false).await;
    let get = |headers: &str| server.head("GET /v1/secret/data/x", headers);
    let many = "X-Filler: y\r\n".repeat(1_000);
    server
        .check_closed("a header of 100 KB", &get(&format!("X-Filler: {}\r\n", "y".repeat(100 << 10))))
        .await;
    server.check_closed("1000 headers", &get(&many)).await;
    server
        .check_closed(
            "endless headers",
            &[&get("")[..60], "X-Filler: y\r\n".repeat(1 << 20).as_bytes()].concat(),
        )
        .await;
    for header in ["no colon", "X-Nul: a\0b", "X Space: a", ": no name", "X-Control: a\x01", " folded: first"]
    {
        server.check_closed(header, &get(&format!("{header}\r\n"))).await;
    }
    for line in
        ["GET /v1/x HTTP/9.9", "GET /v1/x", "GET", "HTTP/1.1 200 OK", "G@T /v1/x HTTP/1.1", "\u{7f}\u{7f}"]
    {
        server.check_closed(line, format!("{line}\r\nHost: arca\r\n\r\n").as_bytes()).await;
    }
    server
        .check_closed("TLS to a plain listener", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        .await;
    server.check_closed("zeros", &[0; 4_096]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames = [&preface[..], &[0xff; 4_096]].concat();
    server.check_closed("HTTP/2 that is none", &frames).await;
    for method in ["TRACE", "OPTIONS", "FROBNICATE", "get", "PROPFIND", &"M".repeat(500)] {
        let (answer, _) =
            server.answer(method, &server.head(&format!("{method} /v1/secret/data/x"), "")).await;
        assert_eq!(answer.unwrap().status, 405, "{method}");
    }
    server.check_closed("a tunnel", &server.head("CONNECT example.com:443", "Connection: close\r\n")).await;
    let parameters = "a=1&".repeat(5_000);
    server
        .check("5000 parameters", &server.head(&format!("GET /v1/secret/data/x?{parameters}"), ""), 400)
        .await;
    server.check("a bad escape", &server.head("GET /v1/secret/data/x?a=%zz", ""), 400).await;
    server.check("both at once", &server.head("GET /v1/secret/data/x?list=true&scan=true", ""), 400).await;
    server.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_make_no_sense() {
    let server = Server::start(false).await;
    let with_token = |token: &[u8]| {
        [b"GET /v1/secret/data/x HTTP/1.1\r\nHost: arca\r\nX-Vault-Token: ", token, b"\r\n\r\n"].concat()
    };
    let batch = format!("hvb.{}", "A".repeat(5_000));
    for token in [
        "",
        " ",
        "x",
        "hvs.",
        "hvs.x",
        "hvb.",
        "hvb.AAAA",
        "hvb.!!!!",
        &batch,
        "s.abc",
        "b.abc",
        "root",
        "../root",
        "hvs.a.b.c.d",
        "Bearer x",
        "{\"a\":1}",
        "null",
    ] {
        server.check(token, &with_token(token.as_bytes()), 403).await;
    }
    server.check("bytes for a token", &with_token(b"hvs.\xff\xfe"), 400).await;
    server.check("a token of 9 KB", &with_token(&[b'x'; 9_000]), 431).await;
    for scheme in ["Basic cm9vdDpyb290", "Bearer", "Bearer x", "bearer", ""] {
        let bytes =
            format!("GET /v1/secret/data/x HTTP/1.1\r\nHost: arca\r\nAuthorization: {scheme}\r\n\r\n");
        server.check(scheme, bytes.as_bytes(), 403).await;
    }
    let get = |headers: &str| server.head("GET /v1/secret/data/x", headers);
    for header in [
        "X-Vault-Token: second",
        "X-Vault-Wrap-TTL: soon",
        "X-Vault-Wrap-TTL: -1s",
        "X-Vault-Wrap-TTL: 1s\r\nX-Vault-Wrap-TTL: 2s",
        "X-Vault-Namespace: a/../b",
        "X-Vault-Namespace: a//b",
        "X-Vault-Namespace: %00",
        "X-Vault-Index: garbage",
        "X-Vault-Wrap-TTL: 99999999999999999999h",
    ] {
        server.check(header, &get(&format!("{header}\r\n")), 400).await;
    }
    server.check("no such namespace", &get("X-Vault-Namespace: elsewhere\r\n"), 404).await;
    let patch =
        |headers: &str| server.head("PATCH /v1/secret/data/x", &format!("{headers}Content-Length: 2\r\n"));
    for kind in
        ["", "Content-Type: application/json\r\n", "Content-Type: text/plain\r\n", "Content-Type: \r\n"]
    {
        server.check("PATCH of another type", &[&patch(kind)[..], b"{}"].concat(), 415).await;
    }
    server.assert_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_or_too_much_of_it() {
    let server = Server::start(false).await;
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let wide = format!("{{\"data\":{{\"a\":[{}1]}}}}", "1,".repeat(150_000));
    let nested = format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    let bodies: [&[u8]; 18] = [
        b"{",
        b"[1]",
        b"\"text\"",
        b"12",
        b"true",
        b"{\"data\":",
        b"{\"data\":{}}{}",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"NaN",
        b"{\"a\":\xff\xfe}",
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\n\"}",
        b"\0",
        deep.as_bytes(),
        wide.as_bytes(),
        nested.as_bytes(),
    ];
    for body in bodies {
        let what = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        server.check(&what, &server.post("Content-Type: application/json\r\n", body), 400).await;
        server.check(&what, &server.post("", body), 400).await;
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    server.check("a form with a bad escape", &server.post(form, b"a=%zz"), 400).await;
    server.check("a form of 5000 fields", &server.post(form, "a=1&".repeat(5_000).as_bytes()), 400).await;

    let large = vec![b' '; 2 * REQUEST_SIZE_MAX];
    let (answer, _) = server.answer("a body over the limit", &server.post("", &large)).await;
    assert!(answer.is_none_or(|answer| answer.status == 413), "a body over the limit");
    // What is announced is refused before it is sent.
    let announced = server.head("POST /v1/secret/data/x", "Content-Length: 999999999999\r\n");
    server.check("a terabyte announced", &announced, 413).await;
    let head = server.head("POST /v1/secret/data/x", "Transfer-Encoding: chunked\r\n");
    let chunk = [format!("{:x}\r\n", 64 << 10).into_bytes(), vec![b' '; 64 << 10], b"\r\n".to_vec()].concat();
    let (answer, _) =
        server.answer("chunks over the limit", &[head.clone(), chunk.repeat(32)].concat()).await;
    assert!(answer.is_none_or(|answer| answer.status == 413), "chunks over the limit");
    for chunk in ["zz\r\n{}\r\n", "fffffffffffffffff\r\n{}\r\n", "-2\r\n{}\r\n", "2\r\n{}xx", "0x2\r\n{}\r\n"]
    {
        server.check_closed(chunk, &[&head[..], chunk.as_bytes()].concat()).await;
    }
    server.assert_well().await;
}
