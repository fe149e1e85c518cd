//! What an engine offers for a limited time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_storage::Tx;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::error::Result;

/// The terms under which an engine leases something; core makes the lease in the same transaction.
#[derive(Clone, Debug, Default)]
pub struct LeaseOffer {
    /// How long, before the mount's and the token's bounds; zero asks for the mount's default.
    pub ttl: Duration,
    /// The longest that renewals may reach, counted from issue; zero leaves it to the mount.
    pub max_ttl: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// What the engine needs to renew or revoke; stored encrypted, never shown.
    pub internal: Value,
    /// What the engine needs beside that to undo an intent; forgotten when the lease is confirmed.
    pub until_confirmed: Value,
    /// What only one lease of the mount may hold at a time, from its intent until it is gone.
    pub claim: Option<LeaseClaim>,
}

/// Something that only one lease of a mount may hold at a time, such as the name of a user where names may come again.
#[derive(Clone, Debug)]
pub struct LeaseClaim {
    /// Names it within the mount.
    pub key: String,
    /// What a caller is told while another lease holds it.
    pub taken: String,
}

/// New terms at a renewal.
#[derive(Clone, Debug, Default)]
pub struct LeaseTerms {
    /// How long from now, before bounds; zero asks for the mount's default.
    pub ttl: Duration,
    /// The longest from issue; zero leaves it to the mount.
    pub max_ttl: Duration,
}

/// A lease as its engine sees it again at renewal or revocation.
#[derive(Clone)]
pub struct HeldLease {
    /// The path within the mount that issued it, such as `creds/readonly`.
    pub path: String,
    /// What the engine stored with the offer.
    pub internal: Value,
    /// What it stored until the confirmation; null once the lease was confirmed.
    pub until_confirmed: Value,
    /// What the caller asks for at a renewal; zero when it asks for nothing.
    pub increment: Duration,
    /// Where core's bounds put the end of a renewal under such terms.
    pub bound: Bound,
}

/// The rule by which core turns an engine's terms into an end.
pub type Bound = Arc<dyn Fn(&LeaseTerms) -> Timestamp + Send + Sync>;

impl HeldLease {
    /// When the lease will end if the engine answers a renewal with these terms.
    pub fn end_under(&self, terms: &LeaseTerms) -> Timestamp {
        (self.bound)(terms)
    }
}

/// A lease that is registered but not yet confirmed. Once [`crate::Cx::checkpoint`] has made it durable the engine may
/// act: whatever happens from then on, core takes the lease back unless it is answered with [`crate::reply::Intended`].
pub struct Intent {
    id: String,
    ends: Timestamp,
    guard: Box<dyn Watched>,
}

/// Core's hand on an intent: an intent that is dropped without having been kept is taken back.
pub trait Watched: Send + Sync {
    /// The lease is confirmed and committed.
    fn keep(&self);
}

impl Intent {
    /// Core's door.
    pub fn new(id: String, ends: Timestamp, guard: Box<dyn Watched>) -> Self {
        Intent { id, ends, guard }
    }

    /// The lease's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the lease ends, after all bounds; for an expiry that the other system enforces too.
    pub fn ends(&self) -> Timestamp {
        self.ends
    }

    /// Core's door: the lease is confirmed and committed.
    pub fn keep(&self) {
        self.guard.keep();
    }
}

/// Who makes the leases of one request: core.
#[async_trait]
pub trait Lessor: Send + Sync {
    /// Registers a lease as pending, in the request's transaction. Returns what to warn of beside it.
    ///
    /// # Errors
    /// 403 when the token is gone; 400 when another lease holds what it claims; when storage fails.
    async fn intend(&self, tx: &mut Tx, offer: &LeaseOffer) -> Result<(Intent, Vec<String>)>;

    /// Forgets a pending lease, in the request's transaction: nothing is undone.
    ///
    /// # Errors
    /// When storage fails.
    async fn withdraw(&self, tx: &mut Tx, intent: &Intent) -> Result<()>;
}
