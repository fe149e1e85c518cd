//! The form of frames and requests, also with bytes that no node sends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use keepfast_core::cluster::port::{ComingRoot, MAX_SEAL_KEY};
use keepfast_crypto::hash::sha256;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::tls_session::{ChainCheck, ClientChain, TlsVersion};
use keepfast_framework::{
    AuditedHeader, Authorization, Body, Incoming, Input, Operation, QueryValue, TlsSession, UnauthedEndpoints,
};
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::requests::request;
use crate::cluster::frames::{self, Frame, Hello, Kind, Outgoing, encode_address, limit_of, read_address, welcome};
use crate::cluster::{calls, coming_root, failure, request as form};

/// A request with every field.
fn full() -> Box<Incoming> {
    let plain = request("PATCH", Operation::Patch, "secret/data/ä", "{\"a\": [1.10, null], \"b\":\"c\"}");
    let pairs = [("x", "1"), ("y", "\""), ("x", "2"), ("", "")];
    let chain = ClientChain {
        leaf: Box::from(*b"leaf"),
        intermediates: vec![Box::from(*b"first"), Box::from([])],
        check: ChainCheck::Authorities,
    };
    Box::new(Incoming {
        input: Input { query: pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().collect(), ..plain.input },
        token: Some(SecretString::new("t0ken".to_owned())),
        authorization: Authorization::None,
        mfa: Vec::new(),
        namespace: "n/s".to_owned(),
        body_withheld: true,
        headers: vec![AuditedHeader {
            name: "x-h".to_owned(),
            values: vec!["1".to_owned(), String::new()],
            hmac: true,
        }],
        wrap_ttl: Some(Duration::new(60, 7)),
        remote: Some("[fe80::1%3]:443".parse().unwrap()),
        tls: Some(Arc::new(TlsSession {
            version: TlsVersion::Tls13,
            cipher_suite: 0x1301,
            alpn: Some("h2"),
            server_name: Some("name".into()),
            client_chain: Some(chain),
        })),
        open: UnauthedEndpoints { rekey: true, generate_root: false },
        accepts_prometheus: true,
        ..*plain
    })
}

fn whole(request: &Incoming) -> Vec<u8> {
    let head = form::encode(request).unwrap();
    assert_eq!(head.expose().len(), head.expose().capacity());
    [head.expose(), &form::body(request)[..]].concat()
}

fn decoded(bytes: &[u8]) -> Option<Box<Incoming>> {
    form::decode(Bytes::copy_from_slice(bytes))
}

#[test]
fn every_field_of_a_request_comes_back() {
    let sent = whole(&full());
    // Another value means that nodes of two versions do not understand each other.
    let expected = "77f2821ee5a159a2ae8c47f9beedd6e1019da883c9bad5f9ab4fa71a0e7e9f92";
    assert_eq!(hex::encode(sha256(&sent)), expected);
    let request = decoded(&sent).unwrap();
    assert_eq!(whole(&request), sent);
    assert_eq!((request.id.as_str(), request.method, request.operation), ("id-1", "PATCH", Operation::Patch));
    assert_eq!((request.path.as_str(), request.namespace.as_str()), ("secret/data/ä", "n/s"));
    assert_eq!(request.token.as_ref().unwrap().expose(), "t0ken");
    assert_eq!(request.input.body.field("a"), Some("[1.10, null]"));
    assert!(matches!(request.input.query.get("x"), Some(QueryValue::Repeated { json, .. }) if json == "[\"1\",\"2\"]"));
    assert_eq!(request.input.query.get("y").map(QueryValue::first), Some("\""));
    assert_eq!((request.wrap_ttl, request.remote), (Some(Duration::new(60, 7)), full().remote));
    assert!(request.body_withheld && request.accepts_prometheus && request.headers[0].hmac);
    assert_eq!((request.headers[0].name.as_str(), request.headers[0].values.len()), ("x-h", 2));
    assert_eq!(request.open, UnauthedEndpoints { rekey: true, generate_root: false });
    let tls = request.tls.as_deref().unwrap();
    assert_eq!((tls.version, tls.cipher_suite, tls.alpn), (TlsVersion::Tls13, 0x1301, Some("h2")));
    assert_eq!(tls.client_chain, full().tls.as_deref().unwrap().client_chain);
    let plain = request_of("", Operation::Read);
    assert!(plain.token.is_some() && plain.tls.is_none() && plain.remote.is_none() && plain.wrap_ttl.is_none());
}

fn request_of(body: &str, operation: Operation) -> Box<Incoming> {
    decoded(&whole(&request("GET", operation, "a/", body))).unwrap()
}

#[test]
fn the_authorization_header_comes_back() {
    let mut sent = request("POST", Operation::Update, "a/", "");
    sent.authorization = Authorization::Bearer;
    assert!(matches!(decoded(&whole(&sent)).unwrap().authorization, Authorization::Bearer));
    sent.authorization = Authorization::Basic(SecretString::new("aTpz".to_owned()));
    let received = decoded(&whole(&sent)).unwrap();
    assert!(matches!(&received.authorization, Authorization::Basic(text) if text.expose() == "aTpz"));
    assert_eq!(received.token.as_ref().unwrap().expose(), "root");
}

#[test]
fn mfa_credentials_come_back() {
    for authorization in [Authorization::None, Authorization::Basic(SecretString::new("aTpz".to_owned()))] {
        let mut sent = request("POST", Operation::Update, "a/", "");
        let plain = whole(&sent);
        sent.mfa = ["id:123456", "name"].map(|value| SecretString::new(value.to_owned())).into();
        sent.authorization = authorization;
        let bytes = whole(&sent);
        assert!(bytes.len() > plain.len());
        let received = decoded(&bytes).unwrap();
        assert_eq!(received.mfa.iter().map(|value| value.expose().as_str()).collect::<Vec<_>>(), ["id:123456", "name"]);
        assert_eq!(received.token.as_ref().unwrap().expose(), "root");
        for length in 0..bytes.len() {
            assert!(decoded(&bytes[..length]).is_none(), "{length}");
        }
    }
}

#[test]
fn a_body_of_bytes_comes_back_unchanged() {
    let bytes: Vec<u8> = (0..=255).collect();
    let mut sent = request("POST", Operation::Update, "sys/storage/raft/snapshot", "");
    sent.input.body = Body::of_bytes(Bytes::from(bytes.clone()));
    let received = decoded(&whole(&sent)).unwrap();
    assert_eq!(received.input.body.bytes(), &bytes);
    assert!(received.input.body.raw().is_empty() && received.input.body.is_empty());
}

#[test]
fn a_request_of_another_form_is_refused() {
    let sent = whole(&full());
    for length in 0..sent.len() {
        assert!(decoded(&sent[..length]).is_none(), "{length}");
    }
    assert!(decoded(&[&sent[..], b" "].concat()).is_none());
    // A path and a body have the checks of the edge.
    let encoded = |path: &str| {
        let good = whole(&request("GET", Operation::Read, "aaaa", ""));
        let at = good.windows(4).position(|window| window == b"aaaa").unwrap();
        let mut bytes = good;
        bytes[at..at + 4].copy_from_slice(path.as_bytes());
        decoded(&bytes)
    };
    assert!(encoded("a/bc").is_some());
    for path in ["a//b", "/abc", "../b", "a/..", "a\0bc"] {
        assert!(encoded(path).is_none(), "{path}");
    }
    let body = |text: &'static [u8]| {
        let mut bytes = whole(&request("GET", Operation::Update, "a", ""));
        let length = bytes.len();
        bytes[length - 4..].copy_from_slice(&(text.len() as u32).to_le_bytes());
        decoded(&[&bytes[..], text].concat())
    };
    assert_eq!(body(b"{\"a\":1,\"a\":2}").unwrap().input.body.field("a"), Some("2"));
    assert!(body(b"[1]").is_none() && body(b"{").is_none());
}

#[test]
fn a_response_comes_back_without_a_copy_of_its_body() {
    let binary: Vec<u8> = (0..=255).collect();
    let bytes = Bytes::from([form::encode_response(503, 429, 1 << 40, "text/plain"), binary.clone()].concat());
    let response = form::decode_response(bytes.clone()).unwrap();
    assert_eq!((response.status, response.decided, response.index), (503, 429, 1 << 40));
    assert_eq!((response.content_type.as_str(), &response.body[..]), ("text/plain", &binary[..]));
    assert_eq!(response.body.as_ptr_range().end, bytes.as_ptr_range().end);
    for length in 0..bytes.len() - binary.len() {
        assert!(form::decode_response(bytes.slice(..length)).is_none());
    }
}

/// Bytes in small reads. Records the most memory that a read offers beyond what was received.
struct Slowly {
    bytes: Vec<u8>,
    at: usize,
    most: usize,
}

impl AsyncRead for Slowly {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let offered = out.remaining().saturating_sub(self.at);
        self.most = self.most.max(offered);
        let step = (self.bytes.len() - self.at).min(out.remaining()).min(4096);
        out.put_slice(&self.bytes[self.at..self.at + step]);
        self.at += step;
        Poll::Ready(Ok(()))
    }
}

async fn read(bytes: Vec<u8>, limit: usize) -> (io::Result<Frame>, usize) {
    let mut input = Slowly { bytes, at: 0, most: 0 };
    let frame = frames::read(&mut input, limit).await;
    (frame, input.most)
}

#[tokio::test]
async fn memory_follows_the_received_bytes_of_a_frame() {
    for length in [0, 1, 5000, 70_000, 1_000_000] {
        let body = Bytes::from((0..length).map(|n| n as u8).collect::<Vec<u8>>());
        let sent = Outgoing::new(3, b"field", body.clone());
        let mut bytes = Vec::new();
        sent.write(&mut bytes).await.unwrap();
        assert_eq!((bytes.len(), sent.tag()), (length + 10, 3));
        assert!(frames::read(&mut &bytes[..], sent.length() - 1).await.is_err());
        let (frame, most) = read(bytes, sent.length()).await;
        let frame = frame.unwrap();
        assert_eq!((frame.tag, &frame.body[..5], &frame.body[5..]), (3, &b"field"[..], &body[..]));
        assert!(most <= 64 << 10, "{most}");
    }
    let (frame, most) = read([&[0xff, 0xff, 0xff, 0x7f, 1][..], &[0; 100]].concat(), usize::MAX).await;
    assert!(frame.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) && most <= 64 << 10);
}

#[test]
fn a_root_key_comes_back_and_other_lengths_are_refused() {
    let coming =
        |seal: usize| ComingRoot { record: [7; 32], root: Key256::new([8; 32]), seal: SecretBytes::new(vec![9; seal]) };
    for length in [0, 32, MAX_SEAL_KEY] {
        let sent = coming_root::encode(5, &coming(length));
        assert_eq!(sent.expose().len(), sent.expose().capacity());
        let received = coming_root::decode(Bytes::copy_from_slice(&sent.expose()[8..])).unwrap();
        assert_eq!((received.record, received.root.expose()), ([7; 32], &[8; 32]));
        assert_eq!(received.seal.expose(), &vec![9; length]);
    }
    for length in [0, 63, 64 + MAX_SEAL_KEY + 1] {
        assert!(coming_root::decode(Bytes::from(vec![0; length])).is_none(), "{length}");
    }
}

#[test]
fn the_first_bytes_come_back_and_others_are_refused() {
    for kind in [Kind::Messages, Kind::Snapshot, Kind::Calls, Kind::Requests] {
        let hello = Hello { kind, process: [7; 16], generation: u64::MAX - 1 };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        for at in 0..5 {
            let mut bytes = hello.encode();
            bytes[at] ^= 0x80;
            assert_eq!(Hello::decode(&bytes), None);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let address = |bytes: &[u8]| runtime.block_on(read_address(&mut &*bytes));
    for text in ["", "https://ä:8201", &"x".repeat(512)] {
        assert_eq!(address(&encode_address(text)).unwrap(), text);
    }
    assert_eq!(address(&encode_address(&"x".repeat(513))).unwrap(), "");
    for bytes in [&[1, 2][..], &[1], &[4, 0, b'a'], &[1, 0, 0xff]] {
        assert!(address(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(limit_of(welcome(12345)), Some(12345));
    assert_eq!(limit_of(*b"KFP2\0\0\0\0"), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), tag: u8) {
        let _ = decoded(&bytes);
        let body = Bytes::from(bytes.clone());
        let _ = form::decode_response(body.clone());
        let _ = failure::decode(body.clone());
        let _ = coming_root::decode(body.clone());
        let _ = calls::decode(Frame { tag: tag % 16, body });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(read(bytes, 1 << 20));
    }

    #[test]
    fn no_damaged_request_panics_or_changes_its_form(at in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let mut bytes = whole(&full());
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Some(request) = decoded(&bytes) {
            // Only the JSON of the body has several forms.
            let again = whole(&request);
            prop_assert!(again == bytes || decoded(&again).is_some());
        }
    }

    #[test]
    fn counts_reserve_no_memory(count: u32, rest in prop::collection::vec(any::<u8>(), 0..40)) {
        // A list of headers that is longer than its bytes.
        let head = whole(&request("GET", Operation::Read, "a", ""));
        let bytes = [&head[..head.len() - 12], &count.max(64).to_le_bytes(), &rest].concat();
        prop_assert!(decoded(&bytes).is_none());
    }

    #[test]
    fn every_body_comes_back(text in ".{0,80}") {
        let body = serde_json::json!({ "v": text }).to_string();
        let request = request_of(&body, Operation::Update);
        prop_assert_eq!(&request.input.body.raw()[..], body.as_bytes());
        prop_assert!(!Body::parse(request.input.body.raw().clone()).unwrap().is_empty());
    }
}
