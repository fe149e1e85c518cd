//! The cluster port of an unsealed node: its keys are those of the keyring, so that only unsealed nodes have them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keepfast_framework::{Clock, Error, Result, Timestamp};
use keepfast_storage::{Addresses, Barrier, Consensus, Index, KeyStatus, Watch, Write};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::join::rejoin::{GivenAuthority, Rejoin};
use super::port::{ClusterPort, PeerService, PortIdentity};

/// The use of the derived keys.
const PURPOSE: &str = "certificate authority of the cluster port";
/// The record of the keyring.
const KEYRING: &str = "barrier/keyring";
/// The pause before the port is opened again after an error.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long an authority is accepted after this node has applied the rotation that replaces it: the other members apply
/// it later.
const ACCEPTED_FOR: Duration = Duration::from_secs(60);
/// The most authorities that are accepted besides the newest one.
const MAX_EARLIER: usize = 4;

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
    /// Gets the keys that this node has missed; `None` for a server that cannot join.
    pub(crate) rejoin: Option<Rejoin>,
}

/// The connection of an unsealed node to the other members. When the keyring changes, the port gets the new keys.
pub(crate) struct Connection {
    parts: ConnectionParts,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Notices each change of the keyring. Its barrier has switched to the new one before.
#[derive(Default)]
struct KeyringChanges {
    changed: Notify,
    /// The authority of a newer term, until the keyring has it.
    given: Mutex<Option<GivenAuthority>>,
}

impl KeyringChanges {
    fn give(&self, given: Option<GivenAuthority>) {
        *self.given.lock() = given;
        self.changed.notify_one();
    }
}

/// The authorities that the port accepts.
struct Accepted {
    /// The newest term of the keyring.
    term: u32,
    /// Earlier terms, and until when each is accepted.
    earlier: Vec<(u32, Timestamp)>,
}

impl Accepted {
    /// Those at an unseal: the rotation was applied at the latest when the key was installed.
    fn new(status: &KeyStatus, now: Timestamp) -> Self {
        let mut accepted = Accepted { term: status.term, earlier: Vec::new() };
        let until = Timestamp::from_unix(status.installed_unix).after(ACCEPTED_FOR).min(now.after(ACCEPTED_FOR));
        accepted.earlier.extend(status.term.checked_sub(1).filter(|term| *term > 0).map(|term| (term, until)));
        accepted.update(status.term, now);
        accepted
    }

    fn update(&mut self, term: u32, now: Timestamp) {
        self.earlier.extend((self.term..term).map(|replaced| (replaced, now.after(ACCEPTED_FOR))));
        self.term = self.term.max(term);
        self.earlier.retain(|(_, until)| *until > now);
        self.earlier.drain(..self.earlier.len().saturating_sub(MAX_EARLIER));
    }

    /// When the next one is no longer accepted.
    fn ends(&self) -> Option<Timestamp> {
        self.earlier.iter().map(|(_, until)| *until).min()
    }
}

impl Watch for KeyringChanges {
    fn applied(&self, _: Index, writes: &[Write]) {
        if writes.iter().any(|write| write.key().as_str() == KEYRING) {
            self.changed.notify_one();
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
        let mut accepted = Accepted::new(&barrier.key_status()?, clock.now());
        if let Err(error) = parts.open(barrier, &mut accepted, None, clock.now()).await {
            parts.port.close().await;
            return Err(error);
        }
        let mut tasks = Vec::new();
        if let Some(rejoin) = parts.rejoin.clone() {
            let changes = changes.clone();
            tasks.push(tokio::spawn(
                rejoin.run(Arc::downgrade(barrier), clock.clone(), move |given| changes.give(given)),
            ));
        }
        tasks.push(tokio::spawn(follow(parts.clone(), Arc::downgrade(barrier), changes, accepted, clock)));
        Ok(Connection { parts, tasks })
    }

    /// Transfers leadership if this node leads, leaves the network, and closes the port.
    pub(crate) async fn close(mut self) {
        for task in &mut self.tasks {
            task.abort();
            // Until it has ended, it could open the port again.
            let _ = task.await;
        }
        self.parts.consensus.stop().await;
        self.parts.port.close().await;
    }
}

impl ConnectionParts {
    /// Opens the port with the current keys, and starts the exchange of messages or gives it the new transport.
    async fn open(
        &self,
        barrier: &Barrier,
        accepted: &mut Accepted,
        given: Option<GivenAuthority>,
        now: Timestamp,
    ) -> Result<()> {
        accepted.update(barrier.key_status()?.term, now);
        let terms = std::iter::once(accepted.term).chain(accepted.earlier.iter().rev().map(|(term, _)| *term));
        let authorities = match given.filter(|given| given.term > accepted.term) {
            // The other members accept nothing else.
            Some(given) => vec![given.seed],
            None => terms.map(|term| barrier.derive(term, PURPOSE)).collect::<Result<_, _>>()?,
        };
        let identity =
            PortIdentity { cluster_id: self.cluster_id.clone(), node: self.consensus.identity(), authorities };
        let transport = self.port.open(identity, self.service.clone()).await?;
        Ok(self.consensus.start(transport, self.addresses.clone()).await?)
    }
}

/// Opens the port again after each change of the keyring, and when an earlier authority is no longer accepted.
async fn follow(
    parts: ConnectionParts,
    barrier: Weak<Barrier>,
    changes: Arc<KeyringChanges>,
    mut accepted: Accepted,
    clock: Arc<dyn Clock>,
) {
    loop {
        let ends = accepted.ends();
        let ended = async {
            match ends {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.changed.notified() => {}
            () = ended => {}
        }
        while let Some(barrier) = barrier.upgrade().filter(|barrier| !barrier.is_closed()) {
            let given = changes.given.lock().clone();
            let opened = parts.open(&barrier, &mut accepted, given, clock.now()).await;
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
