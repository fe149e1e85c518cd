//! Requests that a node passes to the leader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_core::cluster::port::{ClusterPort, ForwardedResponse, NotForwarded};
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Body, CanonicalPath, Incoming, Input, Operation, UnauthedEndpoints};
use keepfast_storage::Index;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

use super::{TestNode, member, origin, soon};
use crate::cluster::dial::dial;
use crate::cluster::frames::{self, Kind, Outgoing, tag};
use crate::cluster::port::Port;
use crate::cluster::request as form;

pub(super) fn request(method: &'static str, operation: Operation, path: &str, body: &str) -> Box<Incoming> {
    let body = Body::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    Box::new(Incoming {
        id: "id-1".to_owned(),
        method,
        operation,
        path: CanonicalPath::new(path.to_owned()).unwrap(),
        input: Input { body, ..Input::default() },
        token: Some(SecretString::new("root".to_owned())),
        authorization: keepfast_framework::Authorization::None,
        mfa: Vec::new(),
        namespace: String::new(),
        body_withheld: false,
        headers: Vec::new(),
        wrap_ttl: None,
        remote: None,
        tls: None,
        open: UnauthedEndpoints::default(),
        accepts_prometheus: false,
        cluster: None,
    })
}

fn read(path: &str) -> Box<Incoming> {
    request("GET", Operation::Read, path, "")
}

fn json_of(response: &ForwardedResponse) -> Value {
    assert_eq!(response.content_type, "application/json");
    serde_json::from_slice(&response.body).unwrap()
}

/// Fails the test with the kind of the error.
async fn forward(from: &TestNode, to: &TestNode, request: Box<Incoming>) -> ForwardedResponse {
    match soon(from.port.forward(&to.member, request)).await {
        Ok(response) => response,
        Err(NotForwarded::Elsewhere(_)) => panic!("elsewhere"),
        Err(NotForwarded::Busy(_) | NotForwarded::TooLong(_)) => panic!("refused"),
        Err(NotForwarded::Lost(_)) => panic!("lost"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_handled_at_the_leader_and_its_response_comes_back() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    b.service.lead().await;
    let value = "ä\u{0}\u{1f}\"\\ 🔑".repeat(20_000);
    let body = json!({ "data": { "binary": value } }).to_string();
    let written = forward(&a, &b, request("POST", Operation::Update, "secret/data/app", &body)).await;
    assert_eq!((written.status, written.decided, written.index), (200, 200, 42));
    assert_eq!(json_of(&written)["data"]["version"], 1);
    let response = forward(&a, &b, read("secret/data/app")).await;
    assert_eq!(json_of(&response)["data"]["data"]["binary"], value);
    let missing = forward(&a, &b, read("secret/data/none")).await;
    assert_eq!(missing.status, 404);
    let deleted = forward(&a, &b, request("DELETE", Operation::Delete, "secret/metadata/app", "")).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
}

#[tokio::test]
async fn a_request_comes_back_when_nothing_was_done() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let elsewhere = async |to, path: &str, body: &str| {
        let request = request("POST", Operation::Update, path, body);
        match soon(a.port.forward(to, request)).await {
            Err(NotForwarded::Elsewhere(request)) => request,
            Err(NotForwarded::Busy(_) | NotForwarded::TooLong(_)) => panic!("refused"),
            Err(NotForwarded::Lost(_)) => panic!("lost"),
            Ok(response) => panic!("{}", response.status),
        }
    };
    // It does not lead, or is not reached.
    let back = elsewhere(&b.member, "secret/data/app", "{\"a\":1}").await;
    assert_eq!((back.path.as_str(), back.input.body.field("a")), ("secret/data/app", Some("1")));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = member("ccc", format!("https://{free}"));
    elsewhere(&absent, "x", "").await;
    a.port.close().await;
    elsewhere(&b.member, "secret/data/app", "").await;
}

#[tokio::test]
async fn a_request_that_no_leader_would_take_is_refused_at_once() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    b.service.lead().await;
    let long = json!({ "data": { "v": "x".repeat(3 << 20) } }).to_string();
    let without_form = request("BREW", Operation::Read, "secret/data/app", "");
    for request in [request("POST", Operation::Update, "secret/data/app", &long), without_form] {
        let path = request.path.to_string();
        match soon(a.port.forward(&b.member, request)).await {
            Err(NotForwarded::TooLong(back)) => assert_eq!(back.path.as_str(), path),
            _ => panic!("it was offered"),
        }
    }
    assert_eq!(forward(&a, &b, read("sys/health")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_requests_that_nothing_proves_leave_room_for_others() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let unproven = || {
        let (port, to, mut request) = (a.port.clone(), b.member.clone(), read("sys/health"));
        request.cluster.get_or_insert_default().is_unproven = true;
        async move { port.forward(&to, request).await }
    };
    let waiting: Vec<_> = (0..64).map(|_| tokio::spawn(unproven())).collect();
    for _ in 0..64 {
        soon(paths.recv()).await.unwrap();
    }
    for _ in 0..700 {
        assert!(matches!(soon(unproven()).await, Err(NotForwarded::Busy(_))));
    }
    let proven: Vec<_> = (0..100).map(|n| start(&a.port, &b, &format!("secret/data/{n}"))).collect();
    for _ in 0..100 {
        soon(paths.recv()).await.unwrap();
    }
    b.service.gate.add_permits(164);
    for request in waiting {
        assert!(soon(request).await.unwrap().is_ok());
    }
    for request in proven {
        assert_eq!(soon(request).await.unwrap(), Ok(404));
    }
    b.service.gate.add_permits(1);
    assert!(soon(unproven()).await.is_ok(), "there is room again");
}

/// A leader whose requests wait, and the paths of those that arrive.
async fn slow(b: &TestNode) -> mpsc::UnboundedReceiver<String> {
    let (arrived, paths) = mpsc::unbounded_channel();
    b.service.lead().await;
    *b.service.arrived.lock() = Some(arrived);
    b.service.gate.forget_permits(Semaphore::MAX_PERMITS);
    paths
}

fn start(port: &Arc<Port>, to: &TestNode, path: &str) -> tokio::task::JoinHandle<Result<u16, bool>> {
    let (port, to, request) = (port.clone(), to.member.clone(), read(path));
    tokio::spawn(async move {
        let forwarded = port.forward(&to, request).await;
        forwarded.map(|response| response.status).map_err(|error| matches!(error, NotForwarded::Lost(_)))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_is_not_known_when_the_connection_ends() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let waiting = start(&a.port, &b, "sys/health");
    assert_eq!(soon(paths.recv()).await.unwrap(), "sys/health");
    b.port.close().await;
    assert_eq!(soon(waiting).await.unwrap(), Err(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_ends_its_requests_and_takes_no_more() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let waiting = start(&a.port, &b, "sys/health");
    soon(paths.recv()).await.unwrap();
    let mut drained = std::pin::pin!(b.port.drain(Duration::from_secs(30)));
    tokio::select! {
        biased;
        _ = &mut drained => panic!("a request runs"),
        () = std::future::ready(()) => {}
    }
    let later = soon(a.port.forward(&b.member, read("sys/health"))).await;
    assert!(matches!(later, Err(NotForwarded::Elsewhere(_))));
    b.service.gate.add_permits(1);
    assert!(soon(drained).await);
    assert_eq!(soon(waiting).await.unwrap(), Ok(200));
    // Commits of the storage go on until the role passes on.
    assert_eq!(soon(a.transport.read_index(&b.member)).await.unwrap(), Index(77));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_end_delays_a_stop_for_a_time() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let waiting = start(&a.port, &b, "sys/health");
    soon(paths.recv()).await.unwrap();
    assert!(!soon(b.port.drain(Duration::ZERO)).await);
    let later = soon(a.port.forward(&b.member, read("sys/health"))).await;
    assert!(matches!(later, Err(NotForwarded::Elsewhere(_))));
    b.port.close().await;
    assert_eq!(soon(waiting).await.unwrap(), Err(true));
    assert!(b.port.drain(Duration::ZERO).await, "a closed port has no requests");
}

#[tokio::test]
async fn a_request_whose_handler_panics_gets_a_response() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    // More than the queue of responses has room for.
    let panicking: Vec<_> = (0..100).map(|_| start(&a.port, &b, "panic")).collect();
    for request in panicking {
        assert_eq!(soon(request).await.unwrap(), Err(true));
    }
    b.service.lead().await;
    assert_eq!(forward(&a, &b, read("sys/health")).await.status, 200);
}

#[tokio::test]
async fn a_request_makes_one_hop_and_has_its_form_and_connection() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    b.service.lead().await;
    let address = &b.member.cluster_addr;
    let mut halves = dial(&a.open_port(), &origin("bb"), address, Kind::Requests).await.unwrap().halves;
    let head = form::encode(&read("sys/health")).unwrap();
    for (id, hops, head, expected) in [
        (3_u64, 1, &head.expose()[..], tag::RESPONSE),
        (4, 0, head.expose(), tag::ELSEWHERE),
        (5, 2, head.expose(), tag::ELSEWHERE),
        (6, 1, b"no request", tag::ELSEWHERE),
    ] {
        let fields = [&id.to_le_bytes()[..], &[hops], head].concat();
        Outgoing::new(tag::REQUEST, &fields, Bytes::new()).write(&mut halves.writer).await.unwrap();
        halves.writer.flush().await.unwrap();
        let response = loop {
            let frame = soon(frames::read(&mut halves.reader, 1 << 20)).await.unwrap();
            if frame.tag != tag::ALIVE {
                break frame;
            }
        };
        assert_eq!((response.tag, &response.body[..8]), (expected, &id.to_le_bytes()[..]));
    }
    // A commit belongs to another connection.
    Outgoing::new(tag::COMMIT, &[0; 8], Bytes::new()).write(&mut halves.writer).await.unwrap();
    halves.writer.flush().await.unwrap();
    let _ = soon(halves.reader.read_to_end(&mut Vec::new())).await;
    assert!(b.service.storage.committed.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_requests_delay_no_other_call() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let waiting: Vec<_> = (0..100).map(|n| start(&a.port, &b, &format!("secret/data/{n}"))).collect();
    for _ in 0..100 {
        soon(paths.recv()).await.unwrap();
    }
    assert_eq!(soon(a.transport.read_index(&b.member)).await.unwrap(), Index(77));
    b.service.gate.add_permits(100);
    for request in waiting {
        assert_eq!(soon(request).await.unwrap(), Ok(404));
    }
}

#[tokio::test]
async fn a_request_continues_when_its_connection_ends() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let (port, to) = (a.port.clone(), b.member.clone());
    let body = "{\"data\":{\"k\":\"v\"}}";
    let write = request("POST", Operation::Update, "secret/data/app", body);
    let waiting = tokio::spawn(async move { port.forward(&to, write).await.is_err() });
    soon(paths.recv()).await.unwrap();
    a.port.close().await;
    assert!(soon(waiting).await.unwrap());
    b.service.gate.add_permits(Semaphore::MAX_PERMITS >> 1);
    let c = TestNode::start("ccc").await;
    let written = async {
        while forward(&c, &b, read("secret/data/app")).await.status != 200 {
            tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await.unwrap_err();
        }
    };
    soon(written).await;
}

/// A connection ends with the keys that it was opened with, a minute after the rotation.
#[tokio::test]
async fn requests_after_a_rotation_outlive_the_former_keys() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let before = start(&a.port, &b, "secret/data/before");
    soon(paths.recv()).await.unwrap();
    for node in [&b, &a] {
        node.open_again(&[2, 1]).await;
    }
    let after = start(&a.port, &b, "secret/data/after");
    soon(paths.recv()).await.unwrap();
    assert!(!before.is_finished(), "its connection is still open");
    for node in [&b, &a] {
        node.open_again(&[2]).await;
    }
    assert_eq!(soon(before).await.unwrap(), Err(true), "it took longer than a minute");
    let last = start(&a.port, &b, "secret/data/last");
    soon(paths.recv()).await.unwrap();
    b.service.gate.add_permits(3);
    for request in [after, last] {
        assert_eq!(soon(request).await.unwrap(), Ok(404));
    }
}

#[tokio::test]
async fn a_request_of_a_removed_node_is_answered_and_no_later_one() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut paths = slow(&b).await;
    let removal = start(&a.port, &b, "secret/data/removal");
    soon(paths.recv()).await.unwrap();
    b.service.strangers.lock().push(origin("a"));
    b.port.members_changed();
    b.service.gate.add_permits(9);
    assert_eq!(soon(removal).await.unwrap(), Ok(404));
    assert!(soon(start(&a.port, &b, "secret/data/later")).await.unwrap().is_err());
    assert!(paths.try_recv().is_err(), "it did not arrive");
}
