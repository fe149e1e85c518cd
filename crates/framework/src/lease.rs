//! What an engine offers for a limited time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_storage::Tx;
use serde::{Deserialize, Serialize};
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
    /// How taking it back is tried again; `None` for [`BackOff::default`].
    pub back_off: Option<BackOff>,
    /// What only one lease of the mount may hold at a time, from its intent until it is gone.
    pub claim: Option<LeaseClaim>,
}

/// How taking a lease back is tried again when its engine fails, before it is set aside as irrevocable. Stored as three
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u64)", into = "(u32, u64, u64)")]
pub struct BackOff {
    /// How often it is tried in all; at least once.
    pub attempts: u32,
    /// The pause after the first try, in seconds; it doubles with each.
    pub pause: u64,
    /// The longest pause, in seconds.
    pub longest: u64,
}

impl Default for BackOff {
    /// Six times within about five minutes.
    fn default() -> Self {
        BackOff { attempts: 6, pause: 10, longest: 3600 }
    }
}

impl BackOff {
    /// The pause when `failed` tries have failed; `None` when that was the last one.
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
