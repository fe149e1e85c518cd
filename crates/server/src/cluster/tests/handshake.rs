//! Which nodes a port accepts, and what others cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_core::cluster::port::PortIdentity;
use keepfast_framework::clock::{Clock, SystemClock, TestClock};
use keepfast_storage::{Origin, SnapshotParts, StorageError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::{CLUSTER, TestNode, identity, origin, soon};
use crate::cluster::dial::{HANDSHAKE, dial};
use crate::cluster::frames::{ALPN, Hello, Kind, encode_address};
use crate::cluster::identity::Identity;

/// Accepts any certificate: a caller that is no node.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A caller with the certificate of an identity, or without one, that accepts any server.
fn caller(identity: Option<PortIdentity>, clock: Arc<dyn Clock>) -> ClientConfig {
    with_version(identity, clock, &TLS13)
}

fn with_version(
    identity: Option<PortIdentity>,
    clock: Arc<dyn Clock>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything(provider)));
    let mut config = match identity {
        Some(identity) => {
            let own = Identity::new(identity, clock).unwrap().configs().unwrap().dialling;
            builder.with_client_cert_resolver(own.client_auth_cert_resolver.clone())
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Whether the port welcomes the caller. The handshake alone shows nothing: with TLS 1.3 the caller ends it first.
async fn is_welcome(address: SocketAddr, config: ClientConfig) -> bool {
    let welcome = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("x").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let hello = Hello { kind: Kind::Messages, process: [1; 16], generation: 1 };
        stream.write_all(&[&hello.encode()[..], &encode_address("https://x:1")].concat()).await?;
        stream.flush().await?;
        let mut welcome = [0; 8];
        stream.read_exact(&mut welcome).await
    };
    soon(welcome).await.is_ok()
}

fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

#[tokio::test]
async fn sec_cs07_only_members_with_a_certificate_of_the_cluster_connect() {
    let b = TestNode::with("bb", &[1, 2], system()).await;
    b.service.strangers.lock().push(origin("stranger"));
    let address = b.port.bound()[0];
    for (cluster, name, seeds, expected) in [
        (CLUSTER, "a", &[1][..], true),
        // An older authority.
        (CLUSTER, "a", &[2], true),
        (CLUSTER, "a", &[3], false),
        ("other", "a", &[1], false),
        (CLUSTER, "stranger", &[1], false),
    ] {
        let config = caller(Some(identity(cluster, name, seeds)), system());
        assert_eq!(is_welcome(address, config).await, expected, "{cluster} {name} {seeds:?}");
    }
    assert!(!is_welcome(address, caller(None, system())).await);
}

#[tokio::test]
async fn sec_cs07_only_tls_1_3_with_the_protocol_of_the_port_is_accepted() {
    let b = TestNode::start("bb").await;
    let address = b.port.bound()[0];
    let own = || Some(identity(CLUSTER, "a", &[1]));
    assert!(!is_welcome(address, with_version(own(), system(), &TLS12)).await);
    for protocols in [vec![], vec![b"h2".to_vec()]] {
        let mut config = caller(own(), system());
        config.alpn_protocols = protocols;
        assert!(!is_welcome(address, config).await);
    }
    assert!(is_welcome(address, caller(own(), system())).await);
}

#[tokio::test]
async fn sec_cs07_certificates_are_valid_for_a_day_and_an_hour_before() {
    let clock = TestClock::default();
    let b = TestNode::with("bb", &[1], Arc::new(clock.clone())).await;
    let address = b.port.bound()[0];
    for (hours, expected) in [(-26, false), (-23, true), (0, true), (2, false)] {
        let of_node = TestClock::at(keepfast_framework::Timestamp::from_unix(clock.now().unix() + hours * 3600 - 60));
        let config = caller(Some(identity(CLUSTER, "a", &[1])), Arc::new(of_node));
        assert_eq!(is_welcome(address, config).await, expected, "{hours}");
    }
    // The certificates of both nodes are replaced before they expire.
    let a = TestNode::with("a", &[1], Arc::new(clock.clone())).await;
    for _ in 0..4 {
        clock.advance(Duration::from_secs(20 * 3600));
        let dialled = dial(&a.open_port(), &origin("bb"), &b.member.cluster_addr, Kind::Calls).await;
        assert!(dialled.is_ok());
    }
}

#[tokio::test]
async fn sec_cs07_another_node_at_the_address_of_a_member_gets_nothing() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let other_disk = Origin { incarnation: [9; 16], ..origin("bb") };
    for expected in [origin("ccc"), other_disk] {
        let error = dial(&a.open_port(), &expected, &b.member.cluster_addr, Kind::Calls).await.err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
    // Nor a node that has no certificate of the cluster.
    let foreign = TestNode::with("bb", &[3], system()).await;
    assert!(dial(&a.open_port(), &origin("bb"), &foreign.member.cluster_addr, Kind::Calls).await.is_err());
}

#[tokio::test]
async fn sec_strangers_leave_room_for_members() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(TcpStream::connect(b.port.bound()[0]).await.unwrap());
    }
    assert!(soon(a.transport.read_index(&b.member)).await.is_ok());
    // The oldest were closed, long before the most time for a handshake.
    let closed = tokio::time::timeout(HANDSHAKE / 2, strangers[0].read(&mut [0])).await;
    assert_eq!(closed.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn sec_a_frame_beyond_its_bound_ends_the_connection() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("bb").await);
    for kind in [Kind::Messages, Kind::Snapshot, Kind::Calls, Kind::Requests] {
        for length in [0, u32::try_from(kind.limit(2 << 20) + 1).unwrap(), u32::MAX] {
            let dialled = dial(&a.open_port(), &origin("bb"), &b.member.cluster_addr, kind).await.unwrap();
            assert_eq!(dialled.limit, kind.limit(2 << 20));
            let mut halves = dialled.halves;
            // The length and a type: the body is not awaited.
            halves.writer.write_all(&[&length.to_le_bytes()[..], &[1]].concat()).await.unwrap();
            halves.writer.flush().await.unwrap();
            let mut rest = Vec::new();
            // The end, with or without a farewell.
            let _ = soon(halves.reader.read_to_end(&mut rest)).await;
        }
    }
    assert!(a.transport.read_index(&b.member).await.is_ok());
}

#[tokio::test]
async fn a_silent_connection_ends() {
    let clock = TestClock::default();
    let (a, b) = (
        TestNode::with("a", &[1], Arc::new(clock.clone())).await,
        TestNode::with("bb", &[1], Arc::new(clock.clone())).await,
    );
    let dialled = dial(&a.open_port(), &origin("bb"), &b.member.cluster_addr, Kind::Messages).await.unwrap();
    let mut halves = dialled.halves;
    let mut rest = Vec::new();
    let ended = async {
        let read = halves.reader.read_to_end(&mut rest);
        tokio::pin!(read);
        loop {
            clock.advance(Duration::from_secs(1));
            let step = tokio::time::timeout(Duration::from_millis(1), &mut read).await;
            if step.is_ok() {
                return;
            }
        }
    };
    soon(ended).await;
    // Until then it showed that it was alive.
    assert!(rest.starts_with(&[1, 0, 0, 0, 0]) && rest.len() >= 3 * 5, "{rest:?}");
}

#[tokio::test]
async fn a_node_that_is_busy_with_a_snapshot_is_not_silent() {
    let clock = TestClock::default();
    let (a, b) = (
        TestNode::with("a", &[1], Arc::new(clock.clone())).await,
        TestNode::with("bb", &[1], Arc::new(clock.clone())).await,
    );
    b.service.storage.pause.forget_permits(Semaphore::MAX_PERMITS);
    let (transport, to) = (a.transport.clone(), b.member.clone());
    let sent = tokio::spawn(async move { transport.send_snapshot(&to, Bytes::new(), Box::new(OnePart(true))).await });
    soon(b.service.storage.paused.notified()).await;
    for _ in 0..30 {
        clock.advance(Duration::from_secs(1));
        tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
    }
    b.service.storage.pause.add_permits(9);
    soon(sent).await.unwrap().unwrap();
}

#[tokio::test]
async fn sec_a_sender_without_parts_does_not_hold_the_place_of_a_snapshot() {
    let clock = TestClock::default();
    let (a, b) = (
        TestNode::with("a", &[1], Arc::new(clock.clone())).await,
        TestNode::with("bb", &[1], Arc::new(clock.clone())).await,
    );
    let (transport, to) = (a.transport.clone(), b.member.clone());
    // It shows all the time that it is alive.
    let sent = tokio::spawn(async move { transport.send_snapshot(&to, Bytes::new(), Box::new(NoPart)).await });
    let mut seconds = 0;
    while b.service.storage.snapshot_errors.lock().is_empty() {
        clock.advance(Duration::from_secs(1));
        seconds += 1;
        tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
        assert!(seconds < 10_000, "it holds the place");
    }
    assert!(seconds >= 60 && soon(sent).await.unwrap().is_err());
}

struct NoPart;

#[async_trait]
impl SnapshotParts for NoPart {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        std::future::pending().await
    }
}

struct OnePart(bool);

#[async_trait]
impl SnapshotParts for OnePart {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        Ok(std::mem::take(&mut self.0).then(|| Bytes::from_static(b"part")))
    }
}
