//! The cluster port of an unsealed node: its keys are those of the keyring, so that only unsealed nodes have them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keepfast_crypto::compare;
use keepfast_crypto::locked::Key256;
use keepfast_framework::{Clock, Error, Result, Timestamp};
use keepfast_storage::{Addresses, Barrier, Consensus, Index, KeyStatus, Watch, Write};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::join::rejoin::{GivenAuthority, Rejoin};
use super::port::{AUTHORITY, ClusterPort, PeerService, PortIdentity};
use crate::metrics::transport::{Observed, TimedTransport};

/// The record of the keyring.
const KEYRING: &str = "barrier/keyring";
/// The time in which the other members open a storage whose records were replaced.
const FORMER_FOR: Duration = Duration::from_secs(60);
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
    /// Notes an authority. The port is opened again for one of another term only, because that ends connections.
    fn give(&self, given: GivenAuthority) {
        let mut current = self.given.lock();
        if current.as_ref().is_none_or(|current| current.term != given.term) {
            *current = Some(given);
            self.changed.notify_one();
        }
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
        let follower = Follower::new(parts.clone(), barrier, changes, accepted, clock);
        tasks.push(tokio::spawn(follower.run()));
        Ok(Connection { parts, tasks })
    }

    /// Goes on with the keyring of another barrier after all records were replaced. The port stays open, and connections
    /// with the keys of the former keyring stay for a minute.
    ///
    /// # Errors
    /// As for [`open`](Self::open). This node has then left the network.
    pub(crate) async fn reopen(mut self, barrier: &Arc<Barrier>, clock: Arc<dyn Clock>) -> Result<Self> {
        self.end_tasks().await;
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

    /// Ends the tasks, which could open the port with the current keys until then.
    async fn end_tasks(&mut self) {
        for task in &mut self.tasks {
            task.abort();
            let _ = task.await;
        }
    }

    /// Transfers leadership if this node leads, leaves the network, and closes the port.
    pub(crate) async fn close(mut self) {
        self.end_tasks().await;
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
        let current = match given.filter(|given| given.term > accepted.term) {
            // The other members accept nothing else.
            Some(given) => vec![given.seed],
            None => terms.map(|term| barrier.derive(term, AUTHORITY)).collect::<Result<_, _>>()?,
        };
        let authorities = {
            let mut authorities = self.authorities.lock();
            authorities.current = current;
            authorities.all()
        };
        let identity = PortIdentity {
            cluster_id: self.cluster_id.clone(),
            node: self.consensus.identity(),
            cluster_addr: self.addresses.cluster_addr.clone(),
            authorities,
        };
        let transport = self.port.open(identity, self.service.clone()).await?;
        let timed = TimedTransport::new(transport, self.observed.clone());
        Ok(self.consensus.start(Arc::new(timed), self.addresses.clone()).await?)
    }
}

/// Opens the port again after each change of the keyring, and when an earlier authority is no longer accepted. Ends
/// connections after each change of the members.
struct Follower {
    parts: ConnectionParts,
    barrier: Weak<Barrier>,
    keyring: Arc<KeyringChanges>,
    members: Option<watch::Receiver<()>>,
    clock: Arc<dyn Clock>,
    accepted: Accepted,
    /// When the keys of the former keyring are no longer used.
    former_until: Option<Timestamp>,
}

impl Follower {
    fn new(
        parts: ConnectionParts,
        barrier: &Arc<Barrier>,
        keyring: Arc<KeyringChanges>,
        accepted: Accepted,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let has_former = !parts.authorities.lock().former.is_empty();
        let former_until = has_former.then(|| clock.now().after(FORMER_FOR));
        let members = parts.consensus.member_changes();
        Follower { parts, barrier: Arc::downgrade(barrier), keyring, members, clock, accepted, former_until }
    }

    async fn run(mut self) {
        // They may have changed since the port was opened.
        self.parts.port.members_changed();
        loop {
            let ends = self.accepted.ends();
            tokio::select! {
                () = self.keyring.changed.notified() => self.open().await,
                () = changed(self.members.as_mut()) => self.parts.port.members_changed(),
                () = reached(&*self.clock, ends) => self.open().await,
                () = reached(&*self.clock, self.former_until) => {
                    self.former_until = None;
                    self.parts.authorities.lock().former.clear();
                    self.open().await;
                }
            }
        }
    }

    /// Opens the port with the keys of the barrier, until it succeeds or the barrier is closed.
    async fn open(&mut self) {
        while let Some(barrier) = self.barrier.upgrade().filter(|barrier| !barrier.is_closed()) {
            let given = self.keyring.given.lock().clone();
            let opened = self.parts.open(&barrier, &mut self.accepted, given, self.clock.now()).await;
            drop(barrier);
            let Err(error) = opened else { return };
            report(&error);
            self.clock.sleep_until(self.clock.now().after(RETRY_PAUSE)).await;
        }
    }
}

/// Completes after the next change of the members.
pub(super) async fn changed(members: Option<&mut watch::Receiver<()>>) {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use keepfast_crypto::random;

    use super::*;

    #[test]
    fn the_port_is_opened_again_only_for_an_authority_of_another_term() {
        let changes = KeyringChanges::default();
        let opens = |term| {
            changes.give(GivenAuthority { term, seed: random::key() });
            changes.changed.notified().now_or_never().is_some()
        };
        assert_eq!([2, 2, 3, 3].map(opens), [true, false, true, false]);
    }
}
