//! The cluster port of an unsealed node: its keys are those of the keyring, so that only unsealed nodes have them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keepfast_crypto::compare;
use keepfast_crypto::locked::Key256;
use keepfast_framework::{Clock, Error, Result, Timestamp};
use keepfast_storage::{Addresses, Barrier, Consensus, Index, Watch, Write};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::port::{AUTHORITY, ClusterPort, PeerService, PortIdentity};
use crate::metrics::transport::{Observed, TimedTransport};

/// The record of the keyring.
const KEYRING: &str = "barrier/keyring";
/// The time in which the other members open a storage whose records were replaced.
const FORMER_FOR: Duration = Duration::from_secs(60);
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
    /// The seeds of the authorities that the port has.
    pub(crate) authorities: Arc<Mutex<Authorities>>,
    /// Times calls of other members.
    pub(crate) observed: Observed,
}

/// The seeds of the authorities of the cluster port.
#[derive(Default)]
pub(crate) struct Authorities {
    /// Those of the keyring.
    current: Vec<Key256>,
    /// Those of the keyring before all records were replaced: until the other members have replaced theirs, their
    /// certificates are of these.
    former: Vec<Key256>,
}

impl Authorities {
    fn all(&self) -> Vec<Key256> {
        let is_new = |key: &&Key256| !self.current.iter().any(|known| compare::equal(known.expose(), key.expose()));
        self.current.iter().chain(self.former.iter().filter(is_new)).cloned().collect()
    }
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
        let follower = Follower::new(parts.clone(), barrier, changes, clock);
        let task = tokio::spawn(follower.run());
        Ok(Connection { parts, task })
    }

    /// Goes on with the keyring of another barrier after all records were replaced. The port stays open, and connections
    /// with the keys of the former keyring stay for a minute.
    ///
    /// # Errors
    /// As for [`open`](Self::open). This node has then left the network.
    pub(crate) async fn reopen(mut self, barrier: &Arc<Barrier>, clock: Arc<dyn Clock>) -> Result<Self> {
        self.task.abort();
        // Until it has ended, it could open the port with the former keys.
        let _ = (&mut self.task).await;
        {
            let mut authorities = self.parts.authorities.lock();
            authorities.former = std::mem::take(&mut authorities.current);
        }
        let opened = Self::open(self.parts.clone(), barrier, clock).await;
        if opened.is_err() {
            self.parts.consensus.stop().await;
        }
        opened
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
        let derived = (1..=term).rev().map(|term| barrier.derive(term, AUTHORITY)).collect::<Result<_, _>>()?;
        let authorities = {
            let mut authorities = self.authorities.lock();
            authorities.current = derived;
            authorities.all()
        };
        let identity =
            PortIdentity { cluster_id: self.cluster_id.clone(), node: self.consensus.identity(), authorities };
        let transport = self.port.open(identity, self.service.clone()).await?;
        let timed = TimedTransport::new(transport, self.observed.clone());
        Ok(self.consensus.start(Arc::new(timed), self.addresses.clone()).await?)
    }
}

/// Opens the port again after each change of the keyring, and ends connections after each change of the members.
struct Follower {
    parts: ConnectionParts,
    barrier: Weak<Barrier>,
    keyring: Arc<KeyringChanges>,
    members: Option<watch::Receiver<()>>,
    clock: Arc<dyn Clock>,
    /// When the keys of the former keyring are no longer used.
    former_until: Option<Timestamp>,
}

impl Follower {
    fn new(
        parts: ConnectionParts,
        barrier: &Arc<Barrier>,
        keyring: Arc<KeyringChanges>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let has_former = !parts.authorities.lock().former.is_empty();
        let former_until = has_former.then(|| clock.now().after(FORMER_FOR));
        let members = parts.consensus.member_changes();
        Follower { parts, barrier: Arc::downgrade(barrier), keyring, members, clock, former_until }
    }

    async fn run(mut self) {
        // They may have changed since the port was opened.
        self.parts.port.members_changed();
        loop {
            tokio::select! {
                () = self.keyring.0.notified() => self.open().await,
                () = changed(self.members.as_mut()) => self.parts.port.members_changed(),
                () = reached(&*self.clock, self.former_until) => {
                    self.former_until = None;
                    self.parts.authorities.lock().former.clear();
                    self.open().await;
                }
            }
        }
    }

    /// Opens the port with the keys of the barrier, until it succeeds or the barrier is closed.
    async fn open(&self) {
        while let Some(barrier) = self.barrier.upgrade().filter(|barrier| !barrier.is_closed()) {
            let opened = self.parts.open(&barrier).await;
            drop(barrier);
            let Err(error) = opened else { return };
            report(&error);
            self.clock.sleep_until(self.clock.now().after(RETRY_PAUSE)).await;
        }
    }
}

/// Completes after the next change of the members.
async fn changed(members: Option<&mut watch::Receiver<()>>) {
    if let Some(members) = members
        && members.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Completes at this time.
async fn reached(clock: &dyn Clock, time: Option<Timestamp>) {
    match time {
        Some(time) => clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn report(error: &Error) {
    let cause = error.cause().map(ToString::to_string).unwrap_or_default();
    tracing::error!(%error, %cause, "the cluster port cannot use the current keyring, and tries again");
}
