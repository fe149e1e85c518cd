//! What an engine offers for a limited time.

use std::time::Duration;

use serde_json::Value;

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
#[derive(Clone, Debug)]
pub struct HeldLease {
    /// The path within the mount that issued it, such as `creds/readonly`.
    pub path: String,
    /// What the engine stored with the offer.
    pub internal: Value,
    /// What the caller asks for at a renewal; zero when it asks for nothing.
    pub increment: Duration,
}
