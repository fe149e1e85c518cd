//! The limits of requests without a live token, and ambiguous heads.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::config::Limits;
use crate::connections::{Charge, Source};

type Body = Full<bytes::Bytes>;

async fn http2(server: &Server) -> SendRequest<Body> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(server.connect().await)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(line: &str, headers: &[(&str, &str)], body: &'static str) -> http::Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let start = http::Request::builder().method(method).uri(format!("http://x{path}"));
    let whole = headers.iter().fold(start, |request, (name, value)| request.header(*name, *value));
    whole.body(Full::from(body)).unwrap()
}

async fn status(sender: &mut SendRequest<Body>, request: http::Request<Body>) -> u16 {
    sender.send_request(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn sec_kf03_a_request_of_http_2_has_at_most_100_fields_in_16_kib() {
    let server = Server::start().await;
    let mut sender = http2(&server).await;
    for (count, expected) in [(100, 200), (101, 431)] {
        assert_eq!(status(&mut sender, request("GET /v1/a", &vec![("a", ""); count], "")).await, expected, "{count}");
    }
    let token = "t".repeat(8192);
    assert_eq!(status(&mut sender, request("GET /v1/a", &[("x-vault-token", &token)], "")).await, 200);
    assert_eq!(status(&mut sender, request("GET /v1/a", &[("a", &token), ("b", &token)], "")).await, 431);
    let limits = Limits { token: 32 << 10, ..Limits::default() };
    let server = Server::with(|c| c.limits = limits).await;
    let mut generous = http2(&server).await;
    let token = "t".repeat(32 << 10);
    assert_eq!(status(&mut generous, request("GET /v1/a", &[("x-vault-token", &token)], "")).await, 200);
}

/// Frames that open POST streams whose bodies are not sent.
fn open_streams(count: u32) -> Vec<u8> {
    let mut raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for n in 0..count {
        // POST, http, and a literal path that is not indexed.
        let fields = b"\x83\x86\x04\x05/v1/a";
        raw.extend_from_slice(&[0, 0, fields.len() as u8, 1, 4]);
        raw.extend_from_slice(&(2 * n + 1).to_be_bytes());
        raw.extend_from_slice(fields);
    }
    raw
}

#[tokio::test]
async fn sec_kf03_streams_before_the_first_authenticated_request_are_few() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream.write_all(&open_streams(100)).await.unwrap();
    // A PING after them is answered when all were processed.
    stream.write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    let (mut headers, mut pongs) = (0, 0);
    let responses = async {
        while headers < 68 || pongs < 1 {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            headers += usize::from(head[3] == 1);
            pongs += usize::from(head[3] == 6);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), responses).await.expect("68 streams are answered");
    assert_eq!((headers, pongs), (68, 1), "32 of 100 wait for their bodies");
    let held = server.connections.held_unauthenticated();
    assert!((32 * 12_288..2 << 20).contains(&held), "{held}");
    drop(stream);
    assert!(server.connections.drained(std::time::Duration::from_secs(10)).await);
    // The tasks that drop the rest of bodies end shortly after their connection.
    let released = async {
        while server.connections.held_unauthenticated() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), released).await.expect("all is released");
}

#[tokio::test]
async fn sec_kf55_hpack_fields_count_with_their_decoded_length() {
    const COUNT: u32 = 500;
    let server = Server::start().await;
    // The kernel of the tests repeats the path, and so does the page of a redirect to the clean path.
    for path in [format!("/v1/{}", "a".repeat(2000)), format!("/v1//{}", "a".repeat(2000))] {
        let raw = repeated(&path, COUNT);
        let bytes = answered(server.connect().await, &raw, COUNT as usize).await;
        assert!(bytes > 2 * path.len(), "{bytes}: the first ones are served");
        assert!(bytes < (8 << 10) + 4 * raw.len() + COUNT as usize * 120, "{bytes} of {} received", raw.len());
    }
}

#[tokio::test]
async fn sec_kf56_the_parameters_of_a_query_count_before_they_are_built() {
    let server = Server::start().await;
    let query = (0..1000).map(|n| format!("{n}=")).collect::<Vec<_>>().join("&");
    let mut stream = server.connect().await;
    stream.write_all(format!("GET /v1/test/wait?{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    server.kernel.started.notified().await;
    let held = server.connections.held_unauthenticated();
    assert!(held > (28 << 10) + 999 * 150, "{held}");
    server.kernel.go.notify_one();
}

#[tokio::test]
async fn sec_kf56_kept_heads_count_until_the_response() {
    const COUNT: usize = 20;
    let server = Server::start().await;
    let head = format!(
        "POST /v1/a HTTP/1.1\r\nHost: x\r\nX-Vault-Namespace: {}\r\nContent-Length: 10\r\n\r\n",
        "n".repeat(60_000)
    );
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    let all_count = async {
        while server.connections.held_unauthenticated() < COUNT * (28 << 10) + COUNT * 50_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_count).await.expect("the heads count");
    drop(clients);
    assert!(server.connections.drained(Duration::from_secs(10)).await);
    assert_eq!(server.connections.held_unauthenticated(), 0);
}

#[tokio::test]
async fn sec_kf03_streams_above_the_memory_limit_wait_small_requests_do_not() {
    let server = Server::start().await;
    let mut authenticated = http2(&server).await;
    assert_eq!(status(&mut authenticated, request("GET /v1/a", &[("x-vault-token", "t")], "")).await, 200);
    let mut unauthenticated = http2(&server).await;
    assert_eq!(status(&mut unauthenticated, request("GET /v1/a", &[], "")).await, 200);
    // A closing connection that has not ended holds too much.
    let heavy = server.connections.admit(Source::default()).unwrap();
    let charge = Charge::new(heavy.peer(), 64 << 20);
    let waiting = tokio::spawn(async move { status(&mut unauthenticated, request("GET /v1/a", &[], "")).await });
    let fresh = {
        let mut stream = server.connect().await;
        stream.write_all(&open_streams(1)).await.unwrap();
        stream
    };
    for _ in 0..20 {
        assert_eq!(server.get("/v1/a").await.status, 200);
        assert_eq!(status(&mut authenticated, request("GET /v1/a", &[("x-vault-token", "t")], "")).await, 200);
    }
    assert!(!waiting.is_finished());
    drop((charge, heavy));
    assert_eq!(waiting.await.unwrap(), 200);
    drop(fresh);
}

#[tokio::test]
async fn sec_kf03_a_client_that_reads_no_responses_counts_more_and_waits() {
    const COUNT: usize = 2000;
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let (mut reading, mut writing) = stream.split();
    // The responses repeat the path: more than the buffers of the system hold.
    let request = format!("GET /v1/{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(4000));
    let last = "GET /v1/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let requests = request.repeat(COUNT - 1) + last;
    let read = async {
        while server.connections.held_unauthenticated() < 128 << 10 {
            tokio::task::yield_now().await;
        }
        let mut out = Vec::new();
        reading.read_to_end(&mut out).await.map(|_| String::from_utf8_lossy(&out).matches("HTTP/1.1 200").count())
    };
    let both = async { tokio::join!(writing.write_all(requests.as_bytes()), read) };
    let (written, responses) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it goes on");
    written.unwrap();
    assert_eq!(responses.unwrap(), COUNT);
    drop(stream);
    assert!(server.connections.drained(Duration::from_secs(10)).await);
    assert_eq!(server.connections.held_unauthenticated(), 0);
}

#[tokio::test]
async fn a_connection_with_a_live_token_has_more_streams_and_is_not_counted() {
    let server = Server::start().await;
    let sender = http2(&server).await;
    assert_eq!(status(&mut sender.clone(), request("GET /v1/a", &[("x-vault-token", "dead")], "")).await, 200);
    assert!(server.connections.held_unauthenticated() > 0);
    assert_eq!(status(&mut sender.clone(), request("GET /v1/a", &[("x-vault-token", "t")], "")).await, 200);
    let many = (0..90).map(|_| {
        let mut sender = sender.clone();
        async move {
            let response = sender.send_request(request("PUT /v1/a", &[("x-vault-token", "t")], "{}")).await.unwrap();
            (response.status().as_u16(), response.into_body().collect().await.is_ok())
        }
    });
    assert!(futures_util::future::join_all(many).await.iter().all(|response| *response == (200, true)));
    assert_eq!(server.connections.held_unauthenticated(), 0);
}

#[tokio::test]
async fn sec_kf09_bodies_without_a_live_token_are_small() {
    // The rest of a refused body is awaited for this time.
    let server = Server::with(|c| c.limits.read_timeout = Duration::from_secs(2)).await;
    let body = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8)).into_bytes();
    let (most, more) = (256 << 10, (256 << 10) + 1);
    assert_eq!(server.send("POST /v1/a", &[], &body(most)).await.status, 200);
    let refused = server.send("POST /v1/a", &[], &body(more)).await;
    assert!(refused.status == 413 && refused.body.contains("without a valid token"), "{refused:?}");
    assert_eq!(server.send("POST /v1/a", &["X-Vault-Token: t"], &body(more)).await.json()["body"], body_text(more));
    // An invalid token counts as none, also on an authenticated connection.
    let dead = server.send("POST /v1/a", &["X-Vault-Token: dead"], &body(more)).await;
    assert_eq!((dead.status, &dead.json()["withheld"]), (200, &json!(true)), "the kernel refuses it, without the body");
    assert_eq!(server.send("POST /v1/sys/unseal", &["X-Vault-Token: dead"], &body(more)).await.status, 413);
    let mut shared = server.connect().await;
    shared.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\nX-Vault-Token: t\r\n\r\n").await.unwrap();
    assert!(shared.read(&mut [0; 4096]).await.unwrap() > 0);
    let dead = exchange(shared, "POST /v1/a", &["X-Vault-Token: dead"], &body(more)).await;
    assert_eq!(dead.json()["withheld"], json!(true), "the connection is authenticated, the token is not");
    // A body that is announced and never sent is refused at once.
    assert_eq!(server.send("POST /v1/a", &["Content-Length: 300000"], b"{").await.status, 413);
    let smaller = Server::with(|c| c.limits.body = 1000).await;
    assert_eq!(
        smaller.send("POST /v1/a", &[], &body(1001)).await.body,
        "{\"errors\":[\"http: request body too large (max_request_size)\"]}\n"
    );
    assert_eq!(server.connections.held_unauthenticated(), 0);
}

fn body_text(length: usize) -> String {
    format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8))
}

#[tokio::test]
async fn sec_kf03_a_flood_of_frames_ends_its_connection() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let mut raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // PRIORITY of an idle stream, 100,000 times.
    raw.extend([0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 16].repeat(100_000));
    let (mut reading, mut writing) = stream.split();
    let mut out = Vec::new();
    let both = async { tokio::join!(writing.write_all(&raw), reading.read_to_end(&mut out)) };
    // Writes and reads may fail, because the server closes.
    let _ = tokio::time::timeout(Duration::from_secs(10), both).await.expect("the server closes");
    assert!(out.len() < 1000, "{} bytes", out.len());
    assert_eq!(server.get("/v1/a").await.status, 200);
}

/// The status of the last response to these bytes; 0 when there is none.
async fn last_status(server: &Server, raw: &str) -> u16 {
    let mut stream = server.connect().await;
    stream.write_all(raw.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut out = Vec::new();
    let _ = stream.read_to_end(&mut out).await;
    let text = String::from_utf8_lossy(&out);
    text.rsplit_once("HTTP/1.").and_then(|(_, last)| last.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn sec_kf15_requests_that_name_no_host_or_two_are_400() {
    let server = Server::start().await;
    for (head, expected) in [
        ("GET /v1/a HTTP/1.1\r\nHost: x\r\n", 200),
        ("GET /v1/a HTTP/1.1\r\nHost: 127.0.0.1:8200\r\n", 200),
        ("GET /v1/a HTTP/1.1\r\nHost: [::1]:8200\r\n", 200),
        ("GET /v1/a HTTP/1.1\r\nHost:\r\n", 200),
        ("GET /v1/a HTTP/1.0\r\n", 200),
        ("GET http://x/v1/a HTTP/1.1\r\nHost: X\r\n", 200),
        ("GET /v1/a HTTP/1.1\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost: x\r\nHost: x\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost: x\r\nhost: y\r\n", 400),
        ("GET /v1/a HTTP/1.0\r\nHost: x\r\nHost: y\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost: x, y\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost: x/v1\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost: u@x\r\n", 400),
        ("GET http://y/v1/a HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET http://y/v1/a HTTP/1.1\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost : x\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\n Host: x\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n", 400),
        ("GET /v1/a HTTP/1.1\r\nHost: x\n", 400),
        ("GET /v1/a HTTP/1.1\nHost: x\r\n", 400),
        ("POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
        ("POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n", 400),
        ("POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400),
    ] {
        assert_eq!(last_status(&server, &format!("{head}\r\n")).await, expected, "{head:?}");
        // After a valid request, and after a body.
        let before =
            "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{\n}GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(last_status(&server, &format!("{before}{head}\r\n")).await, expected, "{head:?} later");
    }
    let mut sender = http2(&server).await;
    assert_eq!(status(&mut sender, request("GET /v1/a", &[("host", "x")], "")).await, 200);
    assert_eq!(status(&mut sender, request("GET /v1/a", &[("host", "y")], "")).await, 400);
}

#[tokio::test]
async fn a_body_of_bytes_is_not_parsed_and_needs_a_token_when_it_is_large() {
    let server = Server::start().await;
    let body = |length: usize| [&b"{\x1f\x8b\x00"[..], &vec![0xff; length - 4]].concat();
    let form = "Content-Type: application/x-www-form-urlencoded";
    for headers in [&[][..], &[form]] {
        let small = server.send("POST /v1/test/bytes", headers, &body(100)).await;
        assert_eq!((small.status, &small.json()["bytes"]), (200, &serde_json::json!(100)));
        assert_eq!(small.json()["body"], "");
    }
    let large = body(300 << 10);
    assert_eq!(server.send("POST /v1/test/bytes", &[], &large).await.status, 413);
    let token = server.send("POST /v1/test/bytes", &["X-Vault-Token: t"], &large).await;
    assert_eq!((token.status, &token.json()["bytes"]), (200, &serde_json::json!(300 << 10)));
    let huge = body((33 << 20) + 1);
    assert_eq!(server.send("POST /v1/test/bytes", &["X-Vault-Token: t"], &huge).await.status, 413);
    assert_eq!(server.send("POST /v1/test/other", &[], &body(100)).await.status, 400, "any other path has JSON");
}
