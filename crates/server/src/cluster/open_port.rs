//! The port while it is open: what its connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keepfast_core::cluster::port::PeerService;
use keepfast_framework::clock::Clock;
use keepfast_storage::{Member, Origin, PeerKind};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::connection::{Connection, Connections, Credentials};
use super::frames::{Hello, Kind};
use super::identity::Identity;
use super::members::{Members, Recipient};
use super::unknown::UnknownNodes;

/// The most calls, and the most requests, of all members at a time. One member sends fewer.
const MAX_RUNNING: u32 = 2048;

/// The port between `open` and `close`.
pub(super) struct OpenPort {
    session: RwLock<Option<Arc<Session>>>,
    /// Counts the sessions.
    session_number: AtomicU64,
    pub(super) members: Members,
    unknown: UnknownNodes,
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
    /// Where other nodes reach this one.
    pub(super) cluster_addr: String,
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
            session_number: AtomicU64::new(0),
            members: Members::default(),
            unknown: UnknownNodes::default(),
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

    /// The number of the present session, or of the one before while it is being replaced.
    pub(super) fn session_number(&self) -> u64 {
        self.session_number.load(Ordering::Acquire)
    }

    /// Replaces the session, and ends the connections that it does not accept.
    pub(super) fn replace(&self, session: Session) {
        let session = Arc::new(session);
        *self.session.write() = Some(session.clone());
        self.session_number.fetch_add(1, Ordering::AcqRel);
        self.accepted.retain(|other, _| session.accepts(other));
        self.dialled.retain(|other, _| session.accepts(other));
        self.members_changed();
    }

    /// Ends the connections that nodes may no longer have: those of removed nodes, and of unknown ones that are silent. Calls
    /// that run get their answers, the request for the removal itself among them; each later one is refused.
    pub(super) fn members_changed(&self) {
        let Some(session) = self.session() else { return };
        let now = self.clock.now();
        self.unknown.retain(now, |origin| session.service.peer_kind(origin) == PeerKind::Unknown);
        self.accepted.retain(|other, kind| kind.drains() || self.allows(&session, &other.origin, kind));
        self.members.retain(|origin| self.allows(&session, origin, Kind::Messages));
    }

    /// Whether a node may have a connection of this kind. One that no list here has sends only what Raft needs.
    fn allows(&self, session: &Session, origin: &Origin, kind: Kind) -> bool {
        match session.service.peer_kind(origin) {
            PeerKind::Member => true,
            PeerKind::Unknown => kind.is_of_raft() && self.unknown.contains(origin, self.clock.now()),
            PeerKind::Removed => false,
        }
    }

    /// Whether a node that shows only that it is alive may keep its connection.
    pub(super) fn keeps(&self, origin: &Origin, kind: Kind) -> bool {
        self.session().is_some_and(|session| self.allows(&session, origin, kind))
    }

    /// Notes a message of a node.
    pub(super) fn heard(&self, origin: &Origin) {
        self.unknown.heard(origin, self.clock.now());
    }

    /// The member that messages are sent to, or the node that has sent some and that no list here has. `None` when the
    /// port is closed.
    pub(super) fn recipient(&self, to: &Member) -> Option<Arc<Recipient>> {
        let recipient = self.members.get(to)?;
        if to.cluster_addr.is_empty()
            && let Some(address) = self.unknown.address(&recipient.origin)
        {
            recipient.set_address(&address);
        }
        Some(recipient)
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

    /// Adds an accepted connection. `None` for a node that may not have it.
    pub(super) fn accepted(&self, other: Credentials, hello: Hello, address: &str) -> Option<Connection> {
        let session = self.session()?;
        if hello.kind.is_of_raft() && session.service.peer_kind(&other.origin) == PeerKind::Unknown {
            // Those that have become silent make room.
            self.members_changed();
            if !self.unknown.admit(&other.origin, address, self.clock.now()) {
                return None;
            }
        }
        let connection = self.accepted.add(other, hello)?;
        // The check follows the addition: a session that is replaced in between checks the connection, or is seen here.
        let (session, other) = (self.session()?, connection.credentials());
        (session.accepts(other) && self.allows(&session, &other.origin, hello.kind)).then_some(connection)
    }

    /// Adds a dialled connection.
    pub(super) fn dialled(&self, other: Credentials, hello: Hello) -> Option<Connection> {
        let connection = self.dialled.add(other, hello)?;
        self.session()?.accepts(connection.credentials()).then_some(connection)
    }
}

impl Session {
    fn accepts(&self, other: &Credentials) -> bool {
        self.identity.accepts(&other.certificate, &other.origin, other.verified)
    }
}
