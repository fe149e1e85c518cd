//! `sys/rotate/config`: the automatic rotation of the keyring.

use std::time::Duration;

use keepfast_framework::fields::{Flag, Int, Seconds};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes, duration};
use keepfast_storage::MAX_ENCRYPTIONS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::System;
use crate::keyring_rotation::{ROTATION, Rotation};

const CONFIG: Help = Help {
    synopsis: "When the keyring is rotated by itself.",
    description: "A key that has sealed as many values as random nonces allow is replaced in any case.",
};

/// The minimum of `max_operations`, in encryptions.
const LEAST_OPERATIONS: u64 = 1_000_000;
/// The minimum of `interval`, in seconds.
const LEAST_INTERVAL: u64 = 24 * 60 * 60;

pub(super) fn routes(r: &mut Routes<System>) {
    r.paths(["rotate/config", "rotate/keyring/config"], CONFIG).read(read).update(write);
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
struct RotationResponse {
    enabled: bool,
    interval: Value,
    max_operations: u64,
}

async fn read(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<RotationResponse>> {
    let Rotation { enabled, interval, max_operations } = ROTATION.get(cx, "").await?.unwrap_or_default();
    let interval = match interval {
        0 => Value::from(0),
        seconds => Value::from(duration::format(Duration::from_secs(seconds))),
    };
    Ok(Data(RotationResponse { enabled, interval, max_operations }))
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
