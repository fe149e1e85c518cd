//! Slow, silent, broken and hostile connections; the orderly end; Unix sockets.

use std::time::Duration;

use tokio::net::UnixStream;

use super::*;
use crate::config::{Bind, Forwarded, Limits};

/// Limits that make a timeout take milliseconds.
fn short_timeouts() -> Limits {
    let short = Duration::from_millis(40);
    Limits {
        header_timeout: short,
        read_timeout: short,
        idle_timeout: short * 3,
        handshake_timeout: short,
        ..Limits::default()
    }
}

/// Reads until the server closes; the limit only keeps a failing test from hanging.
async fn rest(stream: &mut TcpStream) -> String {
    let mut out = Vec::new();
    let _ =
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut out)).await.expect("the server closes");
    String::from_utf8_lossy(&out).into_owned()
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a client that trickles is a matter of time")]
async fn sec_ds04_a_slow_head_is_cut_off() {
    let server = Server::with(|c| c.limits = short_timeouts()).await;
    let mut silent = server.connect().await;
    assert_eq!(rest(&mut silent).await, "");
    let (mut trickle, mut writing) = server.connect().await.into_split();
    let writer = tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        for byte in "GET /v1/a HTTP/1.1\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x')) {
            pause.tick().await;
            if writing.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let mut out = Vec::new();
    let read = trickle.read_to_end(&mut out);
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the server closes");
    assert!(out.is_empty(), "half a head was answered: {out:?}");
    drop(trickle);
    writer.await.unwrap();
    assert_eq!(server.get("/v1/a").await.status, 200);
}

#[tokio::test]
async fn sec_ds04_a_second_slow_head_on_a_kept_connection_is_cut_off_too() {
    let server =
        Server::with(|c| c.limits = Limits { idle_timeout: Duration::from_secs(60), ..short_timeouts() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream.write_all(b"GET /v1/b HTT").await.unwrap();
    assert!(!rest(&mut stream).await.contains("HTTP/1.1"));
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::with(|c| c.limits = short_timeouts()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn sec_ds04_a_body_that_does_not_arrive_is_408() {
    let server = Server::with(|c| c.limits = short_timeouts()).await;
    let response = server.send("POST /v1/a", &["Content-Length: 10"], b"{").await;
    assert_eq!(response.status, 408);
}

#[tokio::test]
async fn sec_ds04_broken_connections_do_not_disturb_others() {
    let server = Server::start().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
        b"garbage\r\n\r\n",
        b"\0\0\0\0\0\0",
        b"GET /v1/a HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let response = rest(&mut stream).await;
        assert!(!response.contains("HTTP/1.1 2") && !response.contains("HTTP/1.1 5"), "{response}");
    }
    for _ in 0..200 {
        let stream = server.connect().await;
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    let half_open: Vec<_> = futures_util::future::join_all((0..50).map(|_| server.connect())).await;
    assert_eq!(server.get("/v1/a").await.status, 200);
    drop(half_open);
}

#[tokio::test]
async fn sec_kf10_a_new_connection_at_the_cap_closes_the_longest_idle_one() {
    let server = Server::of(ListenerConfig::plain("127.0.0.1:0"), 2).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for stream in [&mut first, &mut second] {
        stream.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\nX-Vault-Token: t\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
    }
    assert_eq!(server.get("/v1/a").await.status, 200);
    assert!(!rest(&mut first).await.contains("HTTP/1.1"));
    second.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut second).await.contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_at_once_when_all_are_busy() {
    let server = Server::of(ListenerConfig::plain("127.0.0.1:0"), 1).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /v1/test/wait HTTP/1.1\r\nHost: x\r\nX-Vault-Token: t\r\n\r\n").await.unwrap();
    server.kernel.started.notified().await;
    assert_eq!(rest(&mut server.connect().await).await, "");
    server.kernel.go.notify_one();
}

#[tokio::test]
async fn sec_kf10_the_cap_of_one_source_excludes_proxies() {
    let limits = Limits { connections_per_source: 1, ..Limits::default() };
    let proxy = Forwarded { authorized: vec!["127.0.0.1/32".parse().unwrap()], ..Forwarded::default() };
    for (forwarded, first_is_closed) in [(Forwarded::default(), true), (proxy, false)] {
        let server = Server::with(|c| (c.limits, c.forwarded) = (limits, forwarded)).await;
        let mut first = server.connect().await;
        first.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        first.read_exact(&mut [0; 12]).await.unwrap();
        assert_eq!(server.get("/v1/a").await.status, 200);
        first.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert_eq!(!rest(&mut first).await.contains("HTTP/1.1 200"), first_is_closed);
    }
}

#[tokio::test]
async fn sec_ds06_a_panic_fails_only_its_request_without_its_message() {
    let server = Server::start().await;
    let response = server.get("/v1/test/panic").await;
    assert_eq!((response.status, response.body.as_str()), (500, "{\"errors\":[\"internal error\"]}\n"));
    assert_eq!(server.get("/v1/a").await.status, 200);
}

#[tokio::test]
async fn a_request_beyond_its_timeout_gets_a_response_and_runs_to_its_end() {
    let server = Server::with(|c| c.limits.duration = Duration::from_millis(20)).await;
    assert_eq!(server.get("/v1/test/wait").await.status, 503);
    server.kernel.go.notify_one();
    server.kernel.finished.notified().await;
}

#[tokio::test]
async fn a_request_whose_client_disconnects_is_finished() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST /v1/test/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
    server.kernel.started.notified().await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    server.kernel.go.notify_one();
    tokio::time::timeout(Duration::from_secs(10), server.kernel.finished.notified()).await.unwrap();
}

#[tokio::test]
async fn stop_finishes_requests_in_flight_and_closes_idle_connections() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 12]).await.unwrap();
    let mut busy = server.connect().await;
    busy.write_all(b"GET /v1/test/wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.kernel.started.notified().await;
    server.stop.send(true).unwrap();
    assert!(!rest(&mut idle).await.contains("HTTP/1.1"));
    assert!(!server.connections.drained(Duration::from_millis(20)).await);
    server.kernel.go.notify_one();
    assert!(rest(&mut busy).await.starts_with("HTTP/1.1 200"));
    assert!(server.connections.drained(Duration::from_secs(10)).await);
    assert!(TcpStream::connect(server.address.unwrap()).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_serves_without_a_remote_address_and_leaves_no_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keepfast.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bind = Bind::Unix { path: path.clone(), mode: Some(0o600), user: None, group: None };
    let server = Server::with(|c| c.bind = bind.clone()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let response = exchange(UnixStream::connect(&path).await.unwrap(), "GET /v1/a", &[], b"").await;
    assert_eq!((response.status, &response.json()["remote"]), (200, &Value::Null));
    assert!(Socket::bind(&bind).is_err(), "a socket that responses is not replaced");
    server.stop.send(true).unwrap();
    assert!(server.connections.drained(Duration::from_secs(10)).await);
    let removed = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), removed).await.expect("the file is removed");
}

#[tokio::test]
async fn an_authorized_proxy_forwards_the_address() {
    let rules = Forwarded {
        authorized: vec!["127.0.0.1/32".parse().unwrap()],
        reject_not_present: true,
        ..Forwarded::default()
    };
    let server = Server::with(|c| c.forwarded = rules).await;
    assert_eq!(server.send("GET /v1/a", &["X-Forwarded-For: 1.2.3.4"], b"").await.json()["remote"], "1.2.3.4");
    assert_eq!(server.get("/v1/a").await.status, 400);
}

#[tokio::test]
async fn a_socket_of_both_families_reports_ipv4_addresses() {
    let server = Server::with(|c| c.bind = Bind::Tcp(":0".into())).await;
    let port = server.address.unwrap().port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /v1/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let response = rest(&mut stream).await;
    assert!(response.contains("\"remote\":\"127.0.0.1\""), "{response}");
}
