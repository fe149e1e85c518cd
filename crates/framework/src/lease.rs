//! Leases as engines offer, renew and revoke them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_storage::Tx;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::error::Result;

/// The terms under which an engine leases data; core creates the lease in the same transaction.
#[derive(Clone, Debug, Default)]
pub struct LeaseOffer {
    /// The TTL before the limits of the mount and the token; zero requests the mount's default.
    pub ttl: Duration,
    /// The maximum TTL with renewals, counted from issue; zero uses that of the mount.
    pub max_ttl: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Data that the engine needs to renew or revoke; stored encrypted, never shown.
    pub internal: Value,
    /// Additional data that the engine needs to revoke an unconfirmed intent; deleted when the lease is confirmed.
    pub until_confirmed: Value,
    /// The retries of a failed revocation; `None` for [`BackOff::default`].
    pub back_off: Option<BackOff>,
    /// A claim that only one lease of the mount may hold at a time, from its intent until the lease is deleted.
    pub claim: Option<LeaseClaim>,
}

/// The retries of a revocation that its engine fails, before the lease is marked irrevocable. Stored as three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u64)", into = "(u32, u64, u64)")]
pub struct BackOff {
    /// The total number of tries; at least one.
    pub attempts: u32,
    /// The delay after the first try, in seconds; it doubles with each try.
    pub pause: u64,
    /// The longest delay, in seconds.
    pub longest: u64,
}

impl Default for BackOff {
    /// Six tries within about five minutes.
    fn default() -> Self {
        BackOff { attempts: 6, pause: 10, longest: 3600 }
    }
}

impl BackOff {
    /// The delay after `failed` failed tries; `None` when that was the last one.
    pub fn pause_after(&self, failed: u32) -> Option<Duration> {
        let doubled = self.pause.saturating_mul(1u64.checked_shl(failed.saturating_sub(1)).unwrap_or(u64::MAX));
        (failed < self.attempts).then(|| Duration::from_secs(doubled.min(self.longest)))
    }
}

impl From<(u32, u64, u64)> for BackOff {
    fn from((attempts, pause, longest): (u32, u64, u64)) -> Self {
        BackOff { attempts, pause, longest }
    }
}

impl From<BackOff> for (u32, u64, u64) {
    fn from(back_off: BackOff) -> Self {
        (back_off.attempts, back_off.pause, back_off.longest)
    }
}

/// A claim that only one lease of a mount may hold at a time, such as the name of a user where names may repeat.
#[derive(Clone, Debug)]
pub struct LeaseClaim {
    /// The name of the claim within the mount.
    pub key: String,
    /// The error text for the caller while another lease holds the claim.
    pub taken: String,
}

/// New terms at a renewal.
#[derive(Clone, Debug, Default)]
pub struct LeaseTerms {
    /// The TTL from now, before limits; zero requests the mount's default.
    pub ttl: Duration,
    /// The maximum TTL from issue; zero uses that of the mount.
    pub max_ttl: Duration,
}

/// A stored lease as its engine receives it at renewal or revocation.
#[derive(Clone)]
pub struct HeldLease {
    /// The path within the mount that issued it, such as `creds/readonly`.
    pub path: String,
    /// The data that the engine stored with the offer.
    pub internal: Value,
    /// The data that the engine stored until the confirmation; null once the lease is confirmed.
    pub until_confirmed: Value,
    /// The TTL that the caller requests at a renewal; zero when it requests none.
    pub increment: Duration,
    /// Computes the expiry of a renewal under given terms, after core's limits.
    pub expiry_of: ExpiryOf,
}

/// The function by which core computes an expiry from an engine's terms.
pub type ExpiryOf = Arc<dyn Fn(&LeaseTerms) -> Timestamp + Send + Sync>;

impl HeldLease {
    /// The expiry of the lease if the engine returns these terms at a renewal.
    pub fn expiry_under(&self, terms: &LeaseTerms) -> Timestamp {
        (self.expiry_of)(terms)
    }
}

/// A lease that is registered but not yet confirmed. Once [`crate::Cx::checkpoint`] has made it durable the engine may
/// act. From then on core revokes the lease unless the reply is a [`crate::reply::Intended`].
pub struct Intent {
    id: String,
    ends: Timestamp,
    guard: Box<dyn IntentGuard>,
}

/// Core's guard of an intent: an intent that is dropped without a call of `keep` is revoked.
pub trait IntentGuard: Send + Sync {
    /// The lease is confirmed and committed.
    fn keep(&self);
}

impl Intent {
    /// Creates an intent. Only core calls this.
    pub fn new(id: String, ends: Timestamp, guard: Box<dyn IntentGuard>) -> Self {
        Intent { id, ends, guard }
    }

    /// The lease's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The expiry of the lease after all limits, for an expiry that the external system enforces too.
    pub fn ends(&self) -> Timestamp {
        self.ends
    }

    /// Marks the lease as confirmed and committed. Only core calls this.
    pub fn keep(&self) {
        self.guard.keep();
    }
}

/// Issues the leases of one request; implemented by core.
#[async_trait]
pub trait Lessor: Send + Sync {
    /// Registers a lease as pending, in the request's transaction. Returns the intent and warnings.
    ///
    /// # Errors
    /// 403 when the token no longer exists; 400 when another lease holds the same claim; when storage fails.
    async fn intend(&self, tx: &mut Tx, offer: &LeaseOffer) -> Result<(Intent, Vec<String>)>;

    /// Deletes a pending lease, in the request's transaction, without a revocation.
    ///
    /// # Errors
    /// When storage fails.
    async fn withdraw(&self, tx: &mut Tx, intent: &Intent) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_the_last_try_has_none() {
        let pauses = |back_off: BackOff, tries: u32| -> Vec<Option<u64>> {
            (1..=tries).map(|n| back_off.pause_after(n).map(|d| d.as_secs())).collect()
        };
        let default = [Some(10), Some(20), Some(40), Some(80), Some(160), None, None];
        assert_eq!(pauses(BackOff::default(), 7), default);
        assert_eq!(pauses(BackOff { attempts: 4, pause: 3, longest: 7 }, 4), [Some(3), Some(6), Some(7), None]);
        assert_eq!(
            BackOff { attempts: 100, pause: 86_400, longest: 604_800 }.pause_after(99).unwrap().as_secs(),
            604_800
        );
        assert_eq!(serde_json::to_string(&BackOff::default()).unwrap(), "[6,10,3600]");
        assert_eq!(serde_json::from_str::<BackOff>("[1,2,3]").unwrap(), BackOff { attempts: 1, pause: 2, longest: 3 });
    }
}
