//! The port while it is open: what its connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keepfast_core::cluster::port::PeerService;
use keepfast_framework::clock::Clock;
use keepfast_storage::Origin;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::connection::{Connection, Connections, Credentials};
use super::frames::{Hello, Kind};
use super::identity::Identity;
use super::members::Members;

/// The most calls, and the most requests, of all members at a time. One member sends fewer.
const MAX_RUNNING: u32 = 2048;

/// The port between `open` and `close`.
pub(super) struct OpenPort {
    session: RwLock<Option<Arc<Session>>>,
    pub(super) members: Members,
    accepted: Arc<Connections>,
    dialled: Arc<Connections>,
    stop: watch::Sender<bool>,
    pub(super) clock: Arc<dyn Clock>,
    /// For tasks that a thread of the storage starts.
    pub(super) runtime: Handle,
    process: [u8; 16],
    generation: AtomicU64,
    pub(super) running: Running,
    /// The longest request that this node reads, in bytes.
    pub(super) largest: usize,
}

/// The identity of this node and the service behind the port. Later calls of `open` replace it.
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) service: Arc<dyn PeerService>,
}

/// The calls of all members that run at a time. A call may outlive its connection.
pub(super) struct Running {
    pub(super) calls: Arc<Semaphore>,
    pub(super) requests: Arc<Semaphore>,
}

impl Default for Running {
    fn default() -> Self {
        let room = || Arc::new(Semaphore::new(MAX_RUNNING as usize));
        Self { calls: room(), requests: room() }
    }
}

impl Running {
    /// Waits until the requests that run have ended, or `bound` completes. From now on none begins. Returns whether all
    /// have ended.
    pub(super) async fn end_requests(&self, bound: impl Future<Output = ()>) -> bool {
        // The permits of requests that end stay with this call: no other request gets them.
        let all = tokio::select! {
            biased;
            all = self.requests.acquire_many(MAX_RUNNING) => all.ok(),
            () = bound => None,
        };
        self.requests.close();
        all.is_some()
    }
}

impl OpenPort {
    /// Must be called in a runtime.
    pub(super) fn new(session: Session, clock: Arc<dyn Clock>, largest: usize) -> Arc<Self> {
        Arc::new(Self {
            session: RwLock::new(Some(Arc::new(session))),
            members: Members::default(),
            accepted: Arc::default(),
            dialled: Arc::default(),
            stop: watch::Sender::new(false),
            clock,
            runtime: Handle::current(),
            process: keepfast_crypto::random::bytes(),
            generation: AtomicU64::new(0),
            running: Running::default(),
            largest,
        })
    }

    /// The present session; `None` after `close`.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.read().clone()
    }

    /// Replaces the session, and ends the connections that it does not accept.
    pub(super) fn replace(&self, session: Session) {
        let session = Arc::new(session);
        *self.session.write() = Some(session.clone());
        self.accepted.retain(|other| session.accepts(other) && session.service.is_member(&other.origin));
        self.dialled.retain(|other| session.accepts(other));
        self.members.retain(|member| session.service.is_member(member));
    }

    /// Ends the connections of nodes that are no longer members.
    pub(super) fn members_changed(&self) {
        let Some(session) = self.session() else { return };
        self.accepted.retain(|other| session.service.is_member(&other.origin));
        self.members.retain(|member| session.service.is_member(member));
    }

    /// Ends all connections and drops the keys.
    pub(super) fn close(&self) {
        *self.session.write() = None;
        self.stop.send_replace(true);
        self.accepted.close();
        self.dialled.close();
        self.members.close();
    }

    /// Completes when the port is closed.
    pub(super) async fn closed(&self) {
        // The sender lives as long as the port.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// The hello of a new connection.
    pub(super) fn hello(&self, kind: Kind) -> Hello {
        Hello { kind, process: self.process, generation: self.generation.fetch_add(1, Ordering::Relaxed) }
    }

    /// Adds an accepted connection of a member.
    pub(super) fn accepted(&self, other: Credentials, hello: Hello) -> Option<Connection> {
        self.checked(self.accepted.add(other, hello)?, |session, origin| session.service.is_member(origin))
    }

    /// Adds a dialled connection.
    pub(super) fn dialled(&self, other: Credentials, hello: Hello) -> Option<Connection> {
        self.checked(self.dialled.add(other, hello)?, |_, _| true)
    }

    /// The check follows the addition: a session that is replaced in between checks the connection, or is seen here.
    fn checked(&self, connection: Connection, is_allowed: fn(&Session, &Origin) -> bool) -> Option<Connection> {
        let (session, other) = (self.session()?, connection.credentials());
        (session.accepts(other) && is_allowed(&session, &other.origin)).then_some(connection)
    }
}

impl Session {
    fn accepts(&self, other: &Credentials) -> bool {
        self.identity.accepts(&other.certificate, &other.origin, other.verified)
    }
}
