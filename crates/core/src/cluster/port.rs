//! The interface of the cluster port, which the server implements: connections between unsealed nodes.

use std::sync::Arc;

use async_trait::async_trait;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Incoming, Result, Timestamp};
use keepfast_storage::{Backend, Member, Origin, PeerKind, Transport, WrapKeys};

use crate::Response;

/// The identity of a node on the cluster port, and the keys that only unsealed nodes have.
pub struct PortIdentity {
    /// The id of the cluster.
    pub cluster_id: String,
    /// The name and the data directory of this node.
    pub node: Origin,
    /// The address at which other nodes reach this one: one that has no list with it gets it by this.
    pub cluster_addr: String,
    /// The seeds of the certificate authorities of the cluster that are accepted now, each of a term of the keyring, the
    /// newest first. The certificate of this node is issued by the first; a peer's may be issued by any.
    pub authorities: Vec<Key256>,
}

/// The use of the keys of the barrier that are the seeds of these authorities.
pub(crate) const AUTHORITY: &str = "certificate authority of the cluster port";

/// The longest [`ComingRoot::seal`], in bytes.
pub const MAX_SEAL_KEY: usize = 1024;

/// The beginning of [`ComingRoot::seal`] with wrap keys.
const WRAP_KEYS: &[u8] = b"kf wrap keys 2 ";

/// A root key that is about to encrypt the keyring, or wrap keys that are about to be in the seal record.
pub struct ComingRoot {
    /// The SHA-256 of the seal record that is committed with the keyring.
    pub record: [u8; 32],
    /// The root key.
    pub root: Key256,
    /// Empty: the record has the keys of its slots under the root key. Earlier versions send the unseal key, and refuse a
    /// root key without it. Otherwise the wrap keys of the record, whose root key is the current one. At most
    /// [`MAX_SEAL_KEY`] bytes.
    pub seal: SecretBytes,
}

impl ComingRoot {
    /// [`seal`](Self::seal) with these wrap keys.
    pub(crate) fn of_wrap_keys(keys: &WrapKeys) -> SecretBytes {
        SecretBytes::new([WRAP_KEYS, keys.to_bytes().expose()].concat())
    }

    /// The wrap keys; `None` for a root key.
    pub(crate) fn wrap_keys(&self) -> Option<WrapKeys> {
        WrapKeys::from_bytes(self.seal.expose().strip_prefix(WRAP_KEYS)?)
    }
}

/// The cluster port of a process.
#[async_trait]
pub trait ClusterPort: std::fmt::Debug + Send + Sync + 'static {
    /// Accepts and opens connections with this identity until [`close`](Self::close). A later call replaces the
    /// identity: connections whose peers it still accepts stay.
    ///
    /// # Errors
    /// When the address cannot be bound or a certificate cannot be issued.
    async fn open(&self, identity: PortIdentity, service: Arc<dyn PeerService>) -> Result<Arc<dyn Transport>>;

    /// Closes all connections and stops to listen. Erases the keys.
    async fn close(&self);

    /// Passes a request to another node, which handles it as its own. Returns its response.
    ///
    /// # Errors
    /// See [`NotForwarded`].
    async fn forward(
        &self,
        to: &Member,
        request: Box<Incoming>,
    ) -> std::result::Result<ForwardedResponse, NotForwarded>;

    /// Gives a coming root key to another member. Returns within a few seconds whether it has taken it.
    async fn announce_root(&self, to: &Member, coming: &ComingRoot) -> bool;

    /// Sends another member the clock of this leader. Returns its clock; `None` without a response within a few seconds.
    async fn exchange_clock(&self, _to: &Member, _own: Timestamp) -> Option<Timestamp> {
        None
    }

    /// Asks another member which slots of the seal record with this SHA-256 it opens; see [`PeerService::open_slots`].
    /// `None` without a response within a few seconds.
    async fn open_slots(&self, _to: &Member, _record: &[u8; 32]) -> Option<u64> {
        None
    }

    /// Ends the connections that nodes may no longer have after a change of the members.
    fn members_changed(&self);
}

/// What another node returned for a request.
pub struct ForwardedResponse {
    /// The status that the caller gets.
    pub status: u16,
    /// The status that metrics count.
    pub decided: u16,
    /// The `Content-Type`.
    pub content_type: String,
    /// The body; wiped after it was sent.
    pub body: bytes::Bytes,
    /// The index of the log after the request there.
    pub index: u64,
}

/// Why a request was not forwarded.
pub enum NotForwarded {
    /// The other node did nothing: it does not lead, is sealed, or was not reached. Another node may get the request,
    /// which is returned.
    Elsewhere(Box<Incoming>),
    /// Nothing was done: too many requests of callers that nothing has proved wait for the other node.
    Busy(Box<Incoming>),
    /// Nothing was done: the request is longer than the other node accepts.
    TooLong(Box<Incoming>),
    /// The connection was lost after the request was sent: whether it took effect is not known. The request is for audit
    /// entries only.
    Lost(Box<Incoming>),
}

/// What the other members of the cluster use of this node. Calls come only from peers whose certificates are valid.
#[async_trait]
pub trait PeerService: Send + Sync + 'static {
    /// The backend, with [`Backend::consensus`].
    fn backend(&self) -> Arc<dyn Backend>;

    /// What this node knows of a node with this name and data directory.
    fn peer_kind(&self, origin: &Origin) -> PeerKind;

    /// Whether such a node is a member.
    fn is_member(&self, origin: &Origin) -> bool {
        self.peer_kind(origin) == PeerKind::Member
    }

    /// Keeps a root key that this node's leader is about to commit, until its record is applied or 30 seconds have
    /// passed. Returns false when this node is sealed or has another leader.
    fn expect_root(&self, from: &Origin, coming: ComingRoot) -> bool;

    /// Takes the clock of this node's leader, and returns that of this node; `None` for another member.
    fn exchange_clock(&self, _from: &Origin, _leader: Timestamp) -> Option<Timestamp> {
        None
    }

    /// Which slots of the seal record with this SHA-256 this node opens by its seals, for its leader: bit `n` for the slot
    /// at `n`. The last bit is set when no seal of its configuration is enabled. `None` when this node is sealed, has
    /// another record or another leader.
    async fn open_slots(&self, _from: &Origin, _record: &[u8; 32]) -> Option<u64> {
        None
    }

    /// Handles a request that another member has received, if this node leads.
    ///
    /// # Errors
    /// The request, when this node does not lead; nothing was done.
    async fn handle_forwarded(
        &self,
        from: &Origin,
        request: Box<Incoming>,
    ) -> std::result::Result<(Response, u64), Box<Incoming>>;
}
