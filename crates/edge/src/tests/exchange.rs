//! Requests as bytes of HTTP/1.1 and HTTP/2, and parsed responses. Also used by the tests of the whole server.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A parsed response of HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn of(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends a request line, header lines and a body, and receives the response.
pub(crate) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
    headers: &[&str],
    body: &[u8],
) -> Response {
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !body.is_empty()
        && !headers.iter().any(|h| h.starts_with("Content-Length") || h.starts_with("Transfer-Encoding"))
    {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut raw = head.into_bytes();
    raw.extend_from_slice(body);
    // A server that refuses a body responds and closes before it has read the whole body.
    let _ = stream.write_all(&raw).await;
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    Response::of(&response)
}

/// Frames of HTTP/2 with this number of GET requests for one path, which HPACK repeats by one byte.
pub(crate) fn repeated(path: &str, count: u32) -> Vec<u8> {
    let mut raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for n in 0..count {
        // GET, http, and a literal path that enters the dynamic table; later the entry of the table (RFC 7541 section 6).
        let mut fields = vec![0x82, 0x86];
        if n == 0 {
            let rest = path.len() - 127;
            fields.extend_from_slice(&[0x44, 0x7f, (rest % 128) as u8 | 0x80, (rest / 128) as u8]);
            fields.extend_from_slice(path.as_bytes());
        } else {
            fields.push(0xbe);
        }
        raw.extend_from_slice(&[0, (fields.len() >> 8) as u8, fields.len() as u8, 1, 5]);
        raw.extend_from_slice(&(2 * n + 1).to_be_bytes());
        raw.extend_from_slice(&fields);
    }
    raw
}

/// Sends frames with this number of requests. Returns how many bytes of DATA the responses have.
pub(crate) async fn answered(mut stream: TcpStream, raw: &[u8], requests: usize) -> usize {
    let (mut reading, mut writing) = stream.split();
    let both = async { tokio::join!(writing.write_all(raw), bytes_of_responses(&mut reading, requests)) };
    let (written, bytes) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("all are answered");
    written.unwrap();
    bytes
}

/// Reads frames until this number of streams have a response or were reset. Returns how many bytes of DATA came.
async fn bytes_of_responses(stream: &mut (impl AsyncRead + Unpin), streams: usize) -> usize {
    let (mut ended, mut bytes) = (0, 0);
    while ended < streams {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        ended += usize::from(head[3] == 1 || head[3] == 3);
        bytes += if head[3] == 0 { length } else { 0 };
    }
    bytes
}
