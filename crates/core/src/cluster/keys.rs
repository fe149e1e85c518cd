//! The cluster port of an unsealed node: its keys are those of the keyring, so that only unsealed nodes have them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keepfast_framework::{Clock, Error, Result};
use keepfast_storage::{Addresses, Barrier, Consensus, Index, Watch, Write};
use tokio::sync::Notify;

use super::port::{ClusterPort, PeerService, PortIdentity};
use crate::metrics::cluster::{Observed, TimedTransport};

/// The use of the derived keys.
const PURPOSE: &str = "certificate authority of the cluster port";
/// The record of the keyring.
const KEYRING: &str = "barrier/keyring";
/// The pause before the port is opened again after an error.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The parts of a connection.
#[derive(Clone)]
pub(crate) struct ConnectionParts {
    /// The members and the log.
    pub(crate) consensus: Arc<dyn Consensus>,
    /// The port.
    pub(crate) port: Arc<dyn ClusterPort>,
    /// Handles the requests of other members.
    pub(crate) service: Arc<dyn PeerService>,
    /// The addresses of this node.
    pub(crate) addresses: Addresses,
    /// The id of the cluster.
    pub(crate) cluster_id: String,
    /// Times calls of other members.
    pub(crate) observed: Observed,
}

/// The connection of an unsealed node to the other members. When the keyring changes, the port gets the new keys.
pub(crate) struct Connection {
    parts: ConnectionParts,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Notices each change of the keyring. Its barrier has switched to the new one before.
#[derive(Default)]
struct KeyringChanges(Notify);

impl Watch for KeyringChanges {
    fn applied(&self, _: Index, writes: &[Write]) {
        if writes.iter().any(|write| write.key().as_str() == KEYRING) {
            self.0.notify_one();
        }
    }

    /// The barrier closes, and the node opens another connection.
    fn replaced(&self, _: Index) {}
}

impl Connection {
    /// Opens the port and begins to exchange messages with the other members.
    ///
    /// # Errors
    /// Those of the port and of [`Consensus::start`]. The port is then closed.
    pub(crate) async fn open(parts: ConnectionParts, barrier: &Arc<Barrier>, clock: Arc<dyn Clock>) -> Result<Self> {
        let changes = Arc::<KeyringChanges>::default();
        let watcher: Arc<dyn Watch> = changes.clone();
        barrier.watch(Arc::downgrade(&watcher));
        if let Err(error) = parts.open(barrier).await {
            parts.port.close().await;
            return Err(error);
        }
        let task = tokio::spawn(follow(parts.clone(), Arc::downgrade(barrier), changes, clock));
        Ok(Connection { parts, task })
    }

    /// Transfers leadership if this node leads, leaves the network, and closes the port.
    pub(crate) async fn close(mut self) {
        self.task.abort();
        // Until it has ended, it could open the port again.
        let _ = (&mut self.task).await;
        self.parts.consensus.stop().await;
        self.parts.port.close().await;
    }
}

impl ConnectionParts {
    /// Opens the port with the current keys, and starts the exchange of messages or gives it the new transport.
    async fn open(&self, barrier: &Barrier) -> Result<()> {
        let term = barrier.key_status()?.term;
        let authorities = (1..=term).rev().map(|term| barrier.derive(term, PURPOSE));
        let identity = PortIdentity {
            cluster_id: self.cluster_id.clone(),
            node: self.consensus.identity(),
            authorities: authorities.collect::<Result<_, _>>()?,
        };
        let transport = self.port.open(identity, self.service.clone()).await?;
        let timed = TimedTransport::new(transport, self.observed.clone());
        Ok(self.consensus.start(Arc::new(timed), self.addresses.clone()).await?)
    }
}

/// Opens the port again after each change of the keyring.
async fn follow(parts: ConnectionParts, barrier: Weak<Barrier>, changes: Arc<KeyringChanges>, clock: Arc<dyn Clock>) {
    loop {
        changes.0.notified().await;
        while let Some(barrier) = barrier.upgrade().filter(|barrier| !barrier.is_closed()) {
            let opened = parts.open(&barrier).await;
            drop(barrier);
            let Err(error) = opened else { break };
            report(&error);
            clock.sleep_until(clock.now().after(RETRY_PAUSE)).await;
        }
    }
}

fn report(error: &Error) {
    let cause = error.cause().map(ToString::to_string).unwrap_or_default();
    tracing::error!(%error, %cause, "the cluster port cannot use the rotated keyring, and tries again");
}
