//! `sys/rotate/config`: when the keyring is rotated by itself.

use std::time::Duration;

use keepfast_framework::fields::{Flag, Int, Seconds};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Records, Result, Routes, Timestamp, duration};
use keepfast_storage::{KeyStatus, MAX_ENCRYPTIONS};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::System;
use crate::layout::SYSTEM_STORAGE;
use crate::unsealed::Unsealed;

const CONFIG: Help = Help {
    synopsis: "When the keyring is rotated by itself.",
    description: "A key that has sealed as many values as random nonces allow is replaced in any case.",
};

/// The fewest encryptions after which a key may be set to be replaced.
const LEAST_OPERATIONS: u64 = 1_000_000;
/// The shortest time after which a key may be set to be replaced, in seconds.
const LEAST_INTERVAL: u64 = 24 * 60 * 60;

const ROTATION: Records<Rotation> = Records::at("rotation");

pub(super) fn routes(r: &mut Routes<System>) {
    r.paths(["rotate/config", "rotate/keyring/config"], CONFIG).read(read).update(write);
}

/// When a key is replaced.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rotation {
    enabled: bool,
    /// Seconds since the key was installed; 0 for any.
    interval: u64,
    max_operations: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { enabled: true, interval: 0, max_operations: MAX_ENCRYPTIONS }
    }
}

impl Rotation {
    /// Why the key is to be replaced now, if it is.
    pub(crate) fn is_due(&self, key: &KeyStatus, now: Timestamp) -> Option<&'static str> {
        // NIST SP 800-38D, section 8.3: nobody can switch this off.
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

impl Unsealed {
    /// Adds a term to the keyring when the present one has been used as much, or as long, as it may.
    pub(crate) async fn rotate_worn_key(&self, now: Timestamp) -> Result<()> {
        let view = self.barrier.view(SYSTEM_STORAGE);
        let rotation = ROTATION.get_in(&mut self.barrier.begin_read(), &view, "").await?.unwrap_or_default();
        let Some(why) = rotation.is_due(&self.barrier.key_status()?, now) else { return Ok(()) };
        let term = self.barrier.rotate(now.unix()).await?;
        tracing::info!(term, "the keyring was rotated, because {why}");
        Ok(())
    }
}

#[derive(Deserialize, JsonSchema)]
struct Change {
    /// Whether the keyring is rotated by itself.
    enabled: Option<Flag>,
    /// How long after its installation a key is replaced; 0 for never, otherwise at least 24 hours.
    interval: Option<Seconds>,
    /// How many values a key seals before it is replaced.
    max_operations: Option<Int>,
}

#[derive(Serialize)]
struct Shown {
    enabled: bool,
    interval: Value,
    max_operations: u64,
}

async fn read(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Shown>> {
    let Rotation { enabled, interval, max_operations } = ROTATION.get(cx, "").await?.unwrap_or_default();
    let interval = match interval {
        0 => Value::from(0),
        seconds => Value::from(duration::format(Duration::from_secs(seconds))),
    };
    Ok(Data(Shown { enabled, interval, max_operations }))
}

async fn write(_: &System, cx: &mut Cx, change: Change) -> Result<()> {
    let mut rotation = ROTATION.get(cx, "").await?.unwrap_or_default();
    if let Some(Int(operations)) = change.max_operations {
        rotation.max_operations = u64::try_from(operations)
            .ok()
            .filter(|operations| (LEAST_OPERATIONS..=MAX_ENCRYPTIONS).contains(operations))
            .ok_or_else(|| {
                let range = format!("[{LEAST_OPERATIONS},{MAX_ENCRYPTIONS}]");
                Error::invalid(format!("max_operations must be in the range {range}"))
            })?;
    }
    if let Some(Seconds(interval)) = change.interval {
        if interval > 0 && interval < LEAST_INTERVAL {
            return Err(Error::invalid("interval must be greater or equal to 24h0m0s"));
        }
        rotation.interval = interval;
    }
    if let Some(Flag(enabled)) = change.enabled {
        rotation.enabled = enabled;
    }
    ROTATION.put(cx, "", &rotation)
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
