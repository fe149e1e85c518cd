//! The cluster port over real sockets, with a service that records what it gets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod calls;
mod fake;
mod form;
mod handshake;
mod messages;
mod requests;
mod snapshots;
mod unknown;

use std::sync::Arc;
use std::time::Duration;

use keepfast_core::cluster::port::{ClusterPort, PortIdentity};
use keepfast_crypto::locked::Key256;
use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_storage::{Member, Origin, RaftId, Transport};

use self::fake::FakeService;
use super::open_port::OpenPort;
use super::{Port, RequestLimits};

const CLUSTER: &str = "7f0c";
const LIMITS: RequestLimits = RequestLimits { body: 1 << 20, duration: Duration::from_secs(90) };

/// A node whose port is open on a free address.
struct TestNode {
    port: Arc<Port>,
    service: Arc<FakeService>,
    transport: Arc<dyn Transport>,
    member: Member,
}

fn origin(name: &str) -> Origin {
    Origin { node: name.to_owned(), incarnation: [name.len() as u8; 16] }
}

fn identity(cluster: &str, name: &str, seeds: &[u8]) -> PortIdentity {
    let authorities = seeds.iter().map(|seed| Key256::new([*seed; 32])).collect();
    let (cluster_id, cluster_addr) = (cluster.to_owned(), String::new());
    PortIdentity { cluster_id, node: origin(name), cluster_addr, authorities }
}

impl TestNode {
    /// A node of the cluster with one authority. Every node is a member.
    async fn start(name: &str) -> Self {
        Self::with(name, &[1], Arc::new(SystemClock)).await
    }

    async fn with(name: &str, seeds: &[u8], clock: Arc<dyn Clock>) -> Self {
        let port = Port::new(vec!["127.0.0.1:0".to_owned()], LIMITS, clock);
        let service = FakeService::new();
        let transport = port.open(identity(CLUSTER, name, seeds), service.clone()).await.unwrap();
        let member = member(name, format!("https://{}", port.bound()[0]));
        Self { port, service, transport, member }
    }

    /// The same node after a restart, at the same address.
    async fn restart(&self) -> Self {
        self.port.close().await;
        let address = self.member.cluster_addr.trim_start_matches("https://").to_owned();
        let port = Port::new(vec![address], LIMITS, Arc::new(SystemClock));
        let service = FakeService::new();
        let name = &self.member.node;
        let transport = port.open(identity(CLUSTER, name, &[1]), service.clone()).await.unwrap();
        Self { port, service, transport, member: self.member.clone() }
    }

    /// Opens the port again, with the address by which other nodes reach this one.
    async fn announce_address(&self) {
        let identity = identity(CLUSTER, &self.member.node, &[1]);
        let identity = PortIdentity { cluster_addr: self.member.cluster_addr.clone(), ..identity };
        self.port.open(identity, self.service.clone()).await.unwrap();
    }

    async fn open_again(&self, seeds: &[u8]) {
        let identity = identity(CLUSTER, &self.member.node, seeds);
        self.port.open(identity, self.service.clone()).await.unwrap();
    }

    fn open_port(&self) -> Arc<OpenPort> {
        self.port.current().unwrap()
    }
}

fn member(name: &str, cluster_addr: String) -> Member {
    let Origin { node, incarnation } = origin(name);
    Member {
        id: RaftId(1),
        node,
        incarnation,
        cluster_addr,
        api_addr: String::new(),
        voter: true,
        wants_vote: true,
        election_ms: 600,
        version: String::new(),
    }
}

/// Fails a test that waits for something that does not come.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it did not come")
}
