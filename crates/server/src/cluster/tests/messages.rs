//! Messages of Raft.

use std::time::Duration;

use bytes::Bytes;
use keepfast_core::cluster::port::ClusterPort;
use keepfast_storage::MAX_MESSAGE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{TestNode, origin, soon};
use crate::cluster::dial::{Dialled, dial};
use crate::cluster::frames::{Kind, Outgoing, tag};

fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_and_name_their_sender() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    for n in 0..1000 {
        a.transport.send(&b.member, number(n));
    }
    a.transport.send(&b.member, vec![7; MAX_MESSAGE].into());
    for n in 0..1000 {
        assert_eq!(b.service.message().await, (origin("a"), number(n)));
    }
    assert_eq!(b.service.message().await.1.len(), MAX_MESSAGE);
    b.transport.send(&a.member, number(1));
    assert_eq!(a.service.message().await, (origin("bb"), number(1)));
}

#[tokio::test]
async fn what_an_older_connection_still_brings_is_dropped() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let port = a.open_port();
    let to = origin("bb");
    let connect = || dial(&port, &to, &b.member.cluster_addr, Kind::Messages);
    let send = async |dialled: &mut Dialled, n: u32| {
        let sent = Outgoing::new(tag::MESSAGE, &[], number(n)).write(&mut dialled.halves.writer).await;
        sent.is_ok() && dialled.halves.writer.flush().await.is_ok()
    };
    let mut older = connect().await.unwrap();
    assert!(send(&mut older, 1).await);
    assert_eq!(b.service.message().await.1, number(1));
    let mut newer = connect().await.unwrap();
    send(&mut older, 2).await;
    assert!(send(&mut newer, 3).await);
    assert_eq!(b.service.message().await.1, number(3));
    // The older one also ends.
    soon(older.connection.ended()).await;
    while send(&mut older, 4).await {
        tokio::task::yield_now().await;
    }
    assert!(send(&mut newer, 5).await);
    assert_eq!(b.service.message().await.1, number(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_again_after_a_member_restarts() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    a.transport.send(&b.member, number(0));
    b.service.message().await;
    let b = b.restart().await;
    let arrived = async {
        loop {
            a.transport.send(&b.member, number(1));
            let mut messages = b.service.storage.messages.lock().await;
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(50), messages.recv()).await {
                return message;
            }
        }
    };
    assert_eq!(soon(arrived).await, Some((origin("a"), number(1))));
}

#[tokio::test]
async fn a_closed_port_sends_nothing_and_can_be_opened_again() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    a.port.close().await;
    a.transport.send(&b.member, number(1));
    assert!(a.transport.read_index(&b.member).await.is_err());
    let again = a.restart().await;
    again.transport.send(&b.member, number(2));
    assert_eq!(b.service.message().await.1, number(2));
}

#[tokio::test]
async fn sec_bytes_that_are_no_message_end_the_connection() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let dialled = dial(&a.open_port(), &origin("bb"), &b.member.cluster_addr, Kind::Messages).await.unwrap();
    let mut halves = dialled.halves;
    for body in ["first", "unreadable", "after"] {
        let frame = Outgoing::new(tag::MESSAGE, &[], Bytes::from_static(body.as_bytes()));
        frame.write(&mut halves.writer).await.unwrap();
    }
    halves.writer.flush().await.unwrap();
    let _ = soon(halves.reader.read_to_end(&mut Vec::new())).await;
    assert_eq!(b.service.message().await.1, "first");
    assert_eq!(b.service.message().await.1, "unreadable");
    assert!(b.service.storage.messages.lock().await.try_recv().is_err());
}
