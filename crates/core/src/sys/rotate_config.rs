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
    synopsis: "Configures the automatic rotation of the encryption key.",
    description: "A key is always rotated when it reaches the limit of AES-GCM with random nonces, even if the automatic rotation is disabled.",
};

/// The minimum of `max_operations`, in encryptions.
const LEAST_OPERATIONS: u64 = 1_000_000;
/// The minimum of `interval`, in seconds.
const LEAST_INTERVAL: u64 = 24 * 60 * 60;

pub(super) fn routes(r: &mut Routes<System>) {
    r.paths(["rotate/config", "rotate/keyring/config"], CONFIG).read(read).update(write).sealable_namespaces_only();
}

#[derive(Deserialize, JsonSchema)]
struct Change {
    /// Whether `interval` and `max_operations` apply. Default: true.
    enabled: Option<Flag>,
    /// Maximum age of a key in seconds, at least 24 hours; 0 for no limit. Default: 0.
    interval: Option<Seconds>,
    /// Maximum number of encryptions with a key.
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
