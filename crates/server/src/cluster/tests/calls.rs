//! Calls of the storage.

use std::sync::Arc;

use bytes::Bytes;
use keepfast_core::cluster::port::{ClusterPort, ComingRoot};
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::Timestamp;
use keepfast_storage::{Batch, Index, Key, MAX_MESSAGE, StorageError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use super::{TestNode, member, soon};

fn encoded(value: &[u8]) -> (Batch, Bytes) {
    let batch = Batch::put(Key::new("a/b").unwrap(), value.to_vec());
    let mut bytes = Vec::new();
    batch.encode(&mut bytes);
    (batch, bytes.into())
}

#[tokio::test]
async fn a_batch_is_committed_at_the_leader() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let (batch, bytes) = encoded(&[0, 255, 7]);
    assert_eq!(a.transport.propose(&b.member, bytes.clone()).await.unwrap(), Index(1));
    let (large, large_bytes) = encoded(&vec![9; 5 << 20]);
    assert_eq!(a.transport.propose(&b.member, large_bytes).await.unwrap(), Index(2));
    assert_eq!(*b.service.storage.committed.lock(), [batch, large]);
    assert_eq!(a.transport.read_index(&b.member).await.unwrap(), Index(77));
    assert_eq!(b.transport.propose(&a.member, bytes).await.unwrap(), Index(1));
}

#[tokio::test]
async fn errors_of_the_leader_come_back() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let (_, bytes) = encoded(b"x");
    for (failure, proposed, read) in [
        (StorageError::Conflict, "Conflict", "NoLeader"),
        (StorageError::Full, "Full", "NoLeader"),
        (StorageError::TooLarge { size: 9, limit: 8 }, "TooLarge { size: 9, limit: 8 }", "NoLeader"),
        (StorageError::NotLeader, "NotLeader", "NotLeader"),
        (StorageError::NoLeader, "NoLeader", "NoLeader"),
        (StorageError::NotCommitted, "NotCommitted", "NoLeader"),
        (StorageError::Unknown, "Unknown", "NoLeader"),
        (StorageError::Closed, "Unknown", "NoLeader"),
        (StorageError::corrupt("x"), "Unknown", "NoLeader"),
    ] {
        *b.service.storage.failure.lock() = Some(failure);
        assert_eq!(format!("{:?}", a.transport.propose(&b.member, bytes.clone()).await.unwrap_err()), proposed);
        assert_eq!(format!("{:?}", a.transport.read_index(&b.member).await.unwrap_err()), read);
    }
    *b.service.storage.failure.lock() = None;
    let unreadable = a.transport.propose(&b.member, Bytes::from_static(b"no batch")).await;
    assert!(matches!(unreadable, Err(StorageError::Unknown)));
    let long = a.transport.propose(&b.member, vec![0; MAX_MESSAGE + 1].into()).await;
    assert!(matches!(long, Err(StorageError::TooLarge { .. })));
    assert!(a.transport.propose(&b.member, bytes).await.is_ok());
}

#[tokio::test]
async fn a_member_that_is_not_reached_has_done_nothing() {
    let a = TestNode::start("a").await;
    let (_, bytes) = encoded(b"x");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [format!("https://{free}"), String::new(), "https://no.invalid".to_owned()] {
        let other = member("bb", address);
        assert!(matches!(a.transport.propose(&other, bytes.clone()).await, Err(StorageError::NoLeader)));
    }
}

#[tokio::test]
async fn a_root_key_reaches_a_member_and_a_refusal_the_leader() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let coming = ComingRoot { record: [1; 32], root: Key256::new([2; 32]), seal: SecretBytes::new(vec![3; 32]) };
    assert!(a.port.announce_root(&b.member, &coming).await);
    {
        let roots = b.service.roots.lock();
        let (from, received) = &roots[0];
        assert_eq!((from.node.as_str(), received.record, received.root.expose()), ("a", [1; 32], &[2; 32]));
        assert_eq!(received.seal.expose(), &[3; 32]);
    }
    assert!(a.port.announce_root(&b.member, &coming).await);
    assert!(!a.port.announce_root(&b.member, &coming).await, "it takes no third");
    b.port.close().await;
    assert!(!soon(a.port.announce_root(&b.member, &coming)).await);
}

#[tokio::test]
async fn the_clock_of_a_member_is_the_answer_to_that_of_the_leader() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    for own in [5, 1_800_000_000] {
        let theirs = a.port.exchange_clock(&b.member, Timestamp::from_unix(own)).await;
        assert_eq!(theirs, Some(Timestamp::from_unix(own - 1)));
    }
    b.port.close().await;
    assert_eq!(soon(a.port.exchange_clock(&b.member, Timestamp::from_unix(5))).await, None);
}

#[tokio::test]
async fn a_member_tells_its_leader_which_slots_it_opens() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    assert_eq!(a.port.open_slots(&b.member, &[1; 32]).await, Some(1 << 63 | 5));
    assert_eq!(a.port.open_slots(&b.member, &[2; 32]).await, None, "of another record");
    b.port.close().await;
    assert_eq!(soon(a.port.open_slots(&b.member, &[1; 32])).await, None);
}

#[tokio::test]
async fn a_node_that_is_removed_is_cut_off_at_once() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    assert!(a.transport.read_index(&b.member).await.is_ok());
    b.service.strangers.lock().push(super::origin("a"));
    // Its open connection serves nothing more.
    assert!(a.transport.read_index(&b.member).await.is_err());
    b.service.strangers.lock().clear();
    soon(async { while a.transport.read_index(&b.member).await.is_err() {} }).await;
    a.transport.send(&b.member, Bytes::from_static(b"m"));
    assert_eq!(b.service.message().await.1, "m");
    b.service.strangers.lock().push(super::origin("a"));
    b.port.members_changed();
    assert!(a.transport.read_index(&b.member).await.is_err());
    // A member that this node removed gets no new connection either.
    a.service.strangers.lock().push(super::origin("bb"));
    b.service.strangers.lock().clear();
    a.port.members_changed();
    assert!(b.transport.read_index(&a.member).await.is_err());
}

/// Passes bytes on to a member, and its bytes back once the gate is open. Notes each connection.
async fn slow_line(to: &TestNode) -> (String, Arc<Semaphore>, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let (gate, (accepted, connections)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
    let (opened, member) = (gate.clone(), to.member.cluster_addr.trim_start_matches("https://").to_owned());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepted.send(()).unwrap();
            let (opened, member) = (opened.clone(), member.clone());
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let (mut back, mut on) = TcpStream::connect(member).await.unwrap().into_split();
                let forth = tokio::io::copy(&mut reader, &mut on);
                let back = async {
                    let _open = opened.acquire().await;
                    tokio::io::copy(&mut back, &mut writer).await
                };
                let _ = tokio::join!(forth, back);
            });
        }
    });
    (address, gate, connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_connection_is_opened_though_its_first_caller_gave_up() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let (address, gate, mut connections) = slow_line(&b).await;
    let slow = member("bb", address);
    // Callers give up, as the storage does after 500 milliseconds.
    tokio::select! {
        index = a.transport.read_index(&slow) => panic!("{index:?}"),
        connected = soon(connections.recv()) => connected.unwrap(),
    }
    tokio::select! {
        biased;
        index = a.transport.read_index(&slow) => panic!("{index:?}"),
        () = std::future::ready(()) => {}
    }
    gate.add_permits(1);
    assert_eq!(soon(a.transport.read_index(&slow)).await.unwrap(), Index(77));
    assert!(connections.try_recv().is_err(), "one connection was opened");
}

/// A node that was away during a rotation has the older keyring only, for as long as the others accept its authority.
#[tokio::test]
async fn members_with_a_common_authority_reach_each_other() {
    let clock = || std::sync::Arc::new(keepfast_framework::clock::SystemClock);
    let away = TestNode::with("a", &[1], clock()).await;
    let (b, stranger) = (TestNode::with("bb", &[3, 2, 1], clock()).await, TestNode::with("ccc", &[4], clock()).await);
    assert_eq!(soon(away.transport.read_index(&b.member)).await.unwrap(), Index(77));
    assert_eq!(soon(b.transport.read_index(&away.member)).await.unwrap(), Index(77));
    assert!(stranger.transport.read_index(&b.member).await.is_err());
    assert!(b.transport.read_index(&stranger.member).await.is_err());
    // It has received the new keyring: connections with the older certificates stay.
    away.open_again(&[3, 2, 1]).await;
    assert_eq!(soon(away.transport.read_index(&b.member)).await.unwrap(), Index(77));
    b.open_again(&[3]).await;
    let reached = async { while away.transport.read_index(&b.member).await.is_err() {} };
    soon(reached).await;
}

#[tokio::test]
async fn another_identity_keeps_accepted_connections_and_ends_others() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let call = async || soon(a.transport.read_index(&b.member)).await;
    assert_eq!(call().await.unwrap(), Index(77));
    let generation = || a.open_port().hello(crate::cluster::frames::Kind::Calls).generation;
    let before = generation();
    for node in [&a, &b] {
        node.open_again(&[2, 1]).await;
    }
    assert_eq!(call().await.unwrap(), Index(77));
    assert_eq!(generation(), before + 2, "it is dialled once, with the new keys");
    // The certificates of the connection are those of the first authority.
    for node in [&a, &b] {
        node.open_again(&[2]).await;
    }
    let connected = async { while call().await.is_err() {} };
    soon(connected).await;
    assert!(generation() > before + 3);
    // The certificate of the other end counts as well.
    a.open_again(&[3]).await;
    assert!(matches!(call().await, Err(StorageError::NoLeader)));
    a.open_again(&[2]).await;
    soon(async { while call().await.is_err() {} }).await;
    // A node that is no longer a member is cut off.
    b.service.strangers.lock().push(super::origin("a"));
    b.open_again(&[2]).await;
    assert!(matches!(call().await, Err(StorageError::NoLeader)));
    assert!(matches!(call().await, Err(StorageError::NoLeader)));
}
