//! The rotation of the keyring: when a key has encrypted enough values or has reached a maximum age.

use std::sync::Arc;

use keepfast_framework::{Records, Result, Timestamp};
use keepfast_storage::{Barrier, KeyStatus, MAX_ENCRYPTIONS};
use serde::{Deserialize, Serialize};

use crate::layout::SYSTEM_STORAGE;

/// The stored limits.
pub(crate) const ROTATION: Records<Rotation> = Records::at("rotation");

/// The limits after which a key of the keyring is replaced.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rotation {
    /// Whether limits besides that of random nonces apply.
    pub(crate) enabled: bool,
    /// The maximum age in seconds; 0 for no limit.
    pub(crate) interval: u64,
    /// The maximum number of values that a key encrypts.
    pub(crate) max_operations: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { enabled: true, interval: 0, max_operations: MAX_ENCRYPTIONS }
    }
}

impl Rotation {
    /// The reason why the key must be replaced now; `None` if it need not.
    fn is_due(&self, key: &KeyStatus, now: Timestamp) -> Option<&'static str> {
        // NIST SP 800-38D, section 8.3: no configuration disables this limit.
        if key.encryptions >= MAX_ENCRYPTIONS {
            return Some("its key had sealed as many values as it may");
        }
        if !self.enabled {
            return None;
        }
        if key.encryptions >= self.max_operations {
            return Some("its key had sealed as many values as sys/rotate/config allows");
        }
        let age = u64::try_from(now.unix().saturating_sub(key.installed_unix)).unwrap_or(0);
        (self.interval > 0 && age >= self.interval).then_some("its key was as old as sys/rotate/config allows")
    }
}

/// Adds a term to the keyring when the current key has reached its limit of use or age.
pub(crate) async fn rotate_worn_key(barrier: &Arc<Barrier>, now: Timestamp) -> Result<()> {
    let view = barrier.view(SYSTEM_STORAGE);
    let rotation = ROTATION.get_in(&mut barrier.begin_read(), &view, "").await?.unwrap_or_default();
    let Some(why) = rotation.is_due(&barrier.key_status()?, now) else { return Ok(()) };
    let term = barrier.rotate(now.unix()).await?;
    tracing::info!(term, "the keyring was rotated, because {why}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_by_use_by_age_and_at_the_limit_of_its_nonces() {
        let key = |encryptions| KeyStatus { term: 1, installed_unix: 1_000, encryptions };
        let at = |seconds: i64| Timestamp::from_unix(1_000 + seconds);
        let due = |rotation: Rotation, encryptions, seconds| rotation.is_due(&key(encryptions), at(seconds)).is_some();
        let standard = Rotation::default();
        assert!(!due(standard, MAX_ENCRYPTIONS - 1, 1_000_000_000) && due(standard, MAX_ENCRYPTIONS, 0));
        let set = Rotation { interval: 86_400, max_operations: 2_000_000, ..standard };
        assert!(!due(set, 1_999_999, 86_399) && due(set, 2_000_000, 0) && due(set, 0, 86_400));
        let off = Rotation { enabled: false, ..set };
        assert!(!due(off, 2_000_000, 86_400) && due(off, MAX_ENCRYPTIONS, 0));
    }
}
