//! Accepted requests, and the texts of refusals. The expected values were read from OpenBao.

use super::*;
use crate::config::{CustomHeader, Limits, Statuses};

#[tokio::test]
async fn methods_and_queries_become_operations() {
    let server = Server::start().await;
    for (line, operation) in [
        ("GET /v1/a/b", "read"),
        ("GET /v1/a/b?list=true", "list"),
        ("GET /v1/a/b?scan=1", "scan"),
        ("LIST /v1/a/b", "list"),
        ("SCAN /v1/a/b", "scan"),
        ("DELETE /v1/a/b?list=true", "delete"),
        ("POST /v1/a/b?list=true", "update"),
        ("PUT /v1/a/b", "update"),
        ("GET /v1/a/b?help=1", "help"),
        ("POST /v1/a/b?help=1", "help"),
    ] {
        assert_eq!(server.send(line, &[], b"").await.json()["operation"], operation, "{line}");
    }
    let patch =
        server.send("PATCH /v1/a/b", &["Content-Type: application/merge-patch+json"], b"{\"a\":1}").await.json();
    assert_eq!((&patch["operation"], &patch["body"]), (&json!("patch"), &json!("{\"a\":1}")));
    let list = server.get("/v1/a/?list=true&after=%61&limit=2").await.json();
    assert_eq!((&list["path"], &list["query"]), (&json!("a/"), &json!([["after", "a"], ["limit", "2"]])));
    let repeated = server.get("/v1/a?x=1&y=2&x=3").await.json();
    assert_eq!(repeated["query"], json!([["x", ["1", "3"]], ["y", "2"]]));
    assert_eq!(server.send("POST /v1/a?x=1", &[], b"{}").await.json()["query"], json!([]));
}

#[tokio::test]
async fn other_methods_are_refused_as_by_openbao() {
    let server = Server::start().await;
    for (line, headers, status, body) in [
        ("FOO /v1/a", &[][..], 405, "{\"errors\":[]}\n"),
        ("TRACE /v1/a", &[], 405, "{\"errors\":[]}\n"),
        ("OPTIONS /v1/a", &[], 400, "{\"errors\":[\"cannot handle internal-only request operation\"]}\n"),
        ("OPTIONS /v1/sys/health", &[], 405, "{\"errors\":[]}\n"),
        ("PATCH /v1/a", &[], 400, "{\"errors\":[\"mime: no media type\"]}\n"),
        (
            "PATCH /v1/a",
            &["Content-Type: application/json"],
            415,
            "{\"errors\":[\"PATCH requires Content-Type of application/merge-patch+json, provided application/json\"]}\n",
        ),
        ("GET /v1/a?list=x", &[], 400, "{\"errors\":[]}\n"),
        ("GET /foo", &[], 404, "{\"errors\":[]}\n"),
        ("GET /", &[], 404, "404 page not found\n"),
    ] {
        let response = server.send(line, headers, b"").await;
        assert_eq!((response.status, response.body.as_str()), (status, body), "{line} {headers:?}");
    }
    // The kernel decides whether a path has the operation, and for whom.
    for path in ["HEAD /v1/sys/health", "HEAD /v1/a"] {
        let response = server.send(path, &[], b"").await;
        assert_eq!((response.status, response.body.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn an_origin_is_checked_by_the_rules_that_other_nodes_acknowledged() {
    let server = Server::start().await;
    // A path of a sealed server is checked by the last known rules, and waits for no leader.
    assert_eq!(server.send("GET /v1/sys/health", &["Origin: http://a"], b"").await.status, 403);
    assert_eq!(server.send("GET /v1/a", &["Origin: http://a"], b"").await.status, 200);
}

#[tokio::test]
async fn headers_reach_the_kernel() {
    let server = Server::start().await;
    let response = server
        .send(
            "GET /v1/a",
            &["X-Vault-Token: t", "X-Vault-Namespace: /ns1/", "X-Vault-Wrap-TTL: 5m", "X-Vault-Request: true"],
            b"",
        )
        .await
        .json();
    assert_eq!(
        (&response["token"], &response["namespace"], &response["wrap_ttl"]),
        (&json!("t"), &json!("ns1"), &json!(300_000))
    );
    assert_eq!(response["remote"], "127.0.0.1");
    assert_eq!(server.send("GET /v1/a", &["Authorization: Bearer b"], b"").await.json()["token"], "b");
    assert_eq!(server.send("GET /v1/a", &["X-Vault-Wrap-TTL: abc"], b"").await.status, 400);
}

#[tokio::test]
async fn sec_ds10_oversized_and_malformed_token_headers_are_refused() {
    let server = Server::start().await;
    let header = |n: usize| format!("X-Vault-Token: {}", "x".repeat(n));
    assert_eq!(server.send("GET /v1/a", &[&header(8192)], b"").await.status, 200);
    assert_eq!(server.send("GET /v1/a", &[&header(8193)], b"").await.status, 431);
    assert_eq!(server.send("GET /v1/a", &[&header(100_000)], b"").await.status, 431);
    for bad in
        ["X-Vault-Token: a\u{1}b", "X-Vault-Token: a\u{7f}b", "X-Vault-Token: a\tb", "Authorization: Bearer a\u{1}b"]
    {
        assert_eq!(server.send("GET /v1/a", &[bad], b"").await.status, 400, "{bad:?}");
    }
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}: x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(server.send("GET /v1/a", &many, b"").await.status, 431);
}

#[tokio::test]
async fn a_body_is_json_unless_it_is_a_form() {
    let server = Server::start().await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    for (kind, body, seen) in [
        ("Content-Type: application/json", "{\"a\":1}", "{\"a\":1}"),
        (form, "{\"a\":1}", "{\"a\":1}"),
        (form, "a=b&c=d+e", "{\"a\":\"b\",\"c\":\"d e\"}"),
        ("Content-Type: text/plain", "{\"a\":1}", "{\"a\":1}"),
        ("X-None: 1", "null", ""),
        ("X-None: 1", " \n", ""),
    ] {
        let response = server.send("POST /v1/a", &[kind], body.as_bytes()).await;
        assert_eq!((response.status, &response.json()["body"]), (200, &json!(seen)), "{kind} {body}");
    }
    for bad in ["[]", "5", "{\"a\":1}x", "{\"a\""] {
        assert_eq!(server.send("POST /v1/a", &[], bad.as_bytes()).await.status, 400, "{bad}");
    }
    assert_eq!(server.send("POST /v1/a", &[form], b"%zz=1").await.body, "{\"errors\":[\"error parsing form data\"]}\n");
    // Reads ignore a body.
    assert_eq!(server.send("DELETE /v1/a", &[], b"{bad").await.status, 200);
}

#[tokio::test]
async fn chunked_bodies_are_joined() {
    let server = Server::start().await;
    let response = server
        .send("POST /v1/a", &["Transfer-Encoding: chunked"], b"3\r\n{\"a\r\n2\r\n\":\r\n2\r\n1}\r\n0\r\n\r\n")
        .await;
    assert_eq!(response.json()["body"], "{\"a\":1}");
}

#[tokio::test]
async fn sec_ds02_a_body_beyond_the_cap_is_413_announced_or_not() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let server = Server::with(|c| c.limits = limits).await;
    let body = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n - 8));
    assert_eq!(server.send("POST /v1/a", &[], body(1000).as_bytes()).await.status, 200);
    let response = server.send("POST /v1/a", &[], body(1001).as_bytes()).await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (413, "{\"errors\":[\"http: request body too large (max_request_size)\"]}\n")
    );
    let chunked = format!("3e9\r\n{}\r\n0\r\n\r\n", body(1001));
    assert_eq!(server.send("POST /v1/a", &["Transfer-Encoding: chunked"], chunked.as_bytes()).await.status, 413);
    // A body that is announced and never sent is refused at once.
    assert_eq!(server.send("POST /v1/a", &["Content-Length: 99999999999"], b"{").await.status, 413);
}

#[tokio::test]
async fn a_client_that_sends_its_whole_body_first_reads_the_413() {
    let server = Server::with(|c| c.limits = Limits { body: 1000, ..Limits::default() }).await;
    let body = vec![b'x'; 8 << 20];
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let announced = format!("Content-Length: {}", body.len());
    for (line, header, sent) in [
        ("POST /v1/a", announced.as_str(), &body),
        ("POST /v1/a", "Transfer-Encoding: chunked", &chunked),
        // A refusal of another kind, and a method whose body is not read.
        ("FOO /v1/a", announced.as_str(), &body),
        ("DELETE /v1/a", announced.as_str(), &body),
    ] {
        let mut stream = server.connect().await;
        for _ in 0..2 {
            // The second request shows that the connection is still usable.
            stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n").as_bytes()).await.unwrap();
            stream.write_all(sent).await.unwrap();
            let response = receive(&mut stream).await;
            let expected = match line {
                "POST /v1/a" => (413, "{\"errors\":[\"http: request body too large (max_request_size)\"]}\n"),
                "FOO /v1/a" => (405, "{\"errors\":[]}\n"),
                _ => (200, response.body.as_str()),
            };
            assert_eq!((response.status, response.body.as_str()), expected, "{line} {header}");
        }
    }
}

#[tokio::test]
async fn a_client_that_awaits_100_continue_receives_only_the_413() {
    let server = Server::with(|c| c.limits = Limits { body: 1000, ..Limits::default() }).await;
    let response = server.send("POST /v1/a", &["Expect: 100-continue", "Content-Length: 9000000"], b"").await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (413, "{\"errors\":[\"http: request body too large (max_request_size)\"]}\n")
    );
}

/// One response with a length, on a connection that stays open.
async fn receive(stream: &mut TcpStream) -> Response {
    let mut raw = Vec::new();
    loop {
        let response = Response::of(&raw);
        if response.header("content-length").is_some_and(|length| length.parse() == Ok(response.body.len())) {
            return response;
        }
        assert_ne!(stream.read_buf(&mut raw).await.unwrap(), 0, "{response:?}");
    }
}

#[tokio::test]
async fn over_http2_a_client_that_sends_its_whole_body_first_reads_the_413() {
    let server = Server::with(|c| c.limits = Limits { body: 1000, ..Limits::default() }).await;
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let (sent, all_sent) = tokio::sync::oneshot::channel();
    let body = Parts { left: 128, sent: Some(sent) };
    let request = http::Request::post("http://x/v1/a").body(body).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 413);
    let text = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert_eq!(text, "{\"errors\":[\"http: request body too large (max_request_size)\"]}\n");
    all_sent.await.expect("the stream is reset before the body is sent");
}

/// A body of this number of parts of 64 KiB; `sent` is signalled when the last one is polled.
struct Parts {
    left: usize,
    sent: Option<tokio::sync::oneshot::Sender<()>>,
}

impl hyper::body::Body for Parts {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
        if self.left == 0 {
            self.sent.take().map(|sent| sent.send(()));
            return std::task::Poll::Ready(None);
        }
        self.left -= 1;
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes::Bytes::from_static(&[b'x'; 64 << 10])))))
    }
}

#[tokio::test]
async fn sec_ds02_bombs_are_refused_before_they_are_parsed() {
    let server = Server::start().await;
    let strings = format!("[{}\"s\"]", "\"s\",".repeat(200_000));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("{{\"a\":[{}1]}}", "1,".repeat(100_000));
    let row = format!("[{}1]", "1,".repeat(9_989));
    let numbers = format!("{{\"a\":[{}{row}]}}", format!("{row},").repeat(149));
    for bomb in [strings, deep, wide, numbers] {
        let response = server.send("POST /v1/a", &["X-Vault-Token: t"], bomb.as_bytes()).await;
        assert_eq!(response.status, 400, "{}", &bomb[..20]);
    }
    assert_eq!(server.get("/v1/a").await.status, 200);
}

#[tokio::test]
async fn every_response_has_the_headers_of_openbao() {
    let server = Server::start().await;
    let read = server.get("/v1/a").await;
    assert_eq!(read.header("content-type"), Some("application/json"));
    let redirect = server.get("/v1//a?x=1").await;
    assert_eq!((redirect.status, redirect.header("location")), (307, Some("/v1/a?x=1")));
    let empty = server.get("/v1/test/empty").await;
    assert_eq!((empty.status, empty.body.as_str(), empty.header("content-length")), (204, "", None));
    let text = server.get("/").await;
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    for response in [read, redirect, empty, text] {
        assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
        assert_eq!(response.header("strict-transport-security"), Some("max-age=31536000; includesubdomains"));
        assert!(response.header("date").is_some() && response.header("server").is_none());
    }
}

#[tokio::test]
async fn configured_headers_are_added_by_status() {
    let custom = |when, value: &'static str| CustomHeader {
        when,
        name: http::HeaderName::from_static("x-team"),
        value: http::HeaderValue::from_static(value),
    };
    let server = Server::with(|c| {
        c.headers =
            vec![custom(Statuses::All, "all"), custom(Statuses::Class(4), "fault"), custom(Statuses::One(404), "none")]
    })
    .await;
    assert_eq!(server.get("/v1/a").await.header("x-team"), Some("all"));
    assert_eq!(server.get("/v1/a?list=x").await.header("x-team"), Some("fault"));
    assert_eq!(server.get("/foo").await.header("x-team"), Some("none"));
}

#[tokio::test]
async fn sec_ac02_no_spelling_reaches_the_kernel_as_another_path() {
    let server = Server::start().await;
    for target in
        ["%2e%2e/b", "..%2fb", "%2e%2e%2fb", ".%2e/b", "a%2f..%2f..%2fb", "%2fb", "b%00", "%c0%ae%c0%ae/b", "%zz"]
    {
        let response = server.get(&format!("/v1/secret/data/a/{target}")).await;
        assert_eq!(response.status, 400, "{target}: {}", response.body);
    }
    for (target, seen) in
        [("%252e%252e/b", "%2e%2e/b"), ("a%2fb", "a/b"), ("...", "..."), ("x;y", "x;y"), ("a%5c..%5cb", "a\\..\\b")]
    {
        assert_eq!(
            server.get(&format!("/v1/secret/data/{target}")).await.json()["path"],
            format!("secret/data/{seen}"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn sec_ac09_edge_refusals_depend_on_the_request_and_name_no_address() {
    let server = Server::start().await;
    for line in ["GET /v1/%2e%2e/x", "FOO /v1/x", "GET /v1/x?list=x", "PATCH /v1/x", "GET /nothing", "GET /v1//x"] {
        let first = server.send(line, &[], b"").await;
        let second = server.send(&line.replace('x', "y"), &[], b"").await;
        let names = |t: &Response| {
            t.head.lines().skip(1).map(|l| l.split(':').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (first.status, names(&first), first.body.len()),
            (second.status, names(&second), second.body.len()),
            "{line}"
        );
        assert!(!first.body.contains("127.0.0.1") && !first.head.contains("127.0.0.1"));
    }
}

#[tokio::test]
async fn sec_al04_a_malformed_body_is_not_quoted() {
    let server = Server::start().await;
    let canary = "hvs.C4n4ryC4n4ryC4n4ry";
    let whole = format!("{{\"a\":\"{canary}\",\"b\":[1,{{\"c\":\"{canary}\"}}]}}");
    let mut bodies: Vec<Vec<u8>> = (1..whole.len()).map(|end| whole.as_bytes()[..end].to_vec()).collect();
    for at in 0..whole.len() {
        let mut broken = whole.clone().into_bytes();
        broken[at] = b'\x01';
        bodies.push(broken);
    }
    bodies.push(format!("\"{canary}\"").into_bytes());
    bodies.push(format!("{{}}{canary}").into_bytes());
    let mut refused = 0;
    for body in bodies {
        let response = server.send("POST /v1/a", &["X-Vault-Token: hvs.C4n4ryC4n4ryC4n4ry"], &body).await;
        // This kernel returns an accepted body.
        if response.status != 200 {
            assert_eq!(response.status, 400);
            assert!(!response.body.contains(canary) && !response.head.contains(&canary.to_lowercase()), "{response:?}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}
