//! `sys/storage/raft/snapshot-auto/`: the automatic snapshots. Only the configuration file sets them, because it alone
//! names directories of the server.

use keepfast_framework::fields::Text;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Keys, Result, Routes, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::snapshots::directory::{PREFIX, StoredSnapshot};
use crate::cluster::snapshots::history::Attempts;
use crate::settings::SnapshotSettings;
use crate::sys::system::{System, consensus};

const CONFIG: Help = Help {
    synopsis: "Returns the configuration of the automatic snapshots.",
    description: "The stanza `snapshots` of the configuration file sets it.",
};
const STATUS: Help =
    Help { synopsis: "Returns what became of the automatic snapshots of the leader.", description: "" };

/// The name of the only configuration.
const NAME: &str = "default";

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/snapshot-auto/config/", CONFIG).list(list).forwarded().sudo().not_in_namespaces();
    r.path("storage/raft/snapshot-auto/config/{name}", CONFIG)
        .names_only()
        .read(config)
        .forwarded()
        .sudo()
        .not_in_namespaces();
    r.path("storage/raft/snapshot-auto/status/{name}", STATUS)
        .names_only()
        .read(status)
        .forwarded()
        .not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct ConfigPath {
    /// Name of the configuration: `default`.
    name: Text,
}

/// The configuration with Vault's names.
#[derive(Serialize, JsonSchema)]
struct ConfigResponse {
    interval: u64,
    retain: usize,
    path_prefix: String,
    file_prefix: &'static str,
    storage_type: &'static str,
}

/// The status with Vault's names.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct StatusResponse {
    consecutive_errors: u32,
    last_snapshot_end: Option<String>,
    last_snapshot_error: String,
    last_snapshot_start: Option<String>,
    last_snapshot_url: Option<String>,
    next_snapshot_start: Option<String>,
    snapshot_start: Option<String>,
    /// The files, the newest first.
    available_snapshots: Vec<AvailableSnapshot>,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct AvailableSnapshot {
    url: String,
    size: u64,
    taken: String,
}

/// The settings of this name.
fn settings(sys: &System, name: &str) -> Result<Option<SnapshotSettings>> {
    consensus(sys)?;
    Ok(sys.lifecycle()?.parts.settings.snapshots.clone().filter(|_| name == NAME))
}

async fn list(sys: &System, _: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(settings(sys, NAME)?.map(|_| NAME.to_owned()).into_iter().collect()))
}

async fn config(sys: &System, _: &mut Cx, req: ConfigPath) -> Result<Option<Data<ConfigResponse>>> {
    let found = settings(sys, &req.name)?;
    Ok(found.map(|SnapshotSettings { directory, interval, retain }| {
        Data(ConfigResponse {
            interval: interval.as_secs(),
            retain,
            path_prefix: directory.display().to_string(),
            file_prefix: PREFIX,
            storage_type: "local",
        })
    }))
}

async fn status(sys: &System, _: &mut Cx, req: ConfigPath) -> Result<Option<Data<StatusResponse>>> {
    let found = settings(sys, &req.name)?;
    let attempts = sys.lifecycle()?.administration.automatic_snapshots.attempts();
    Ok(found.map(|_| Data(of(attempts))))
}

fn of(attempts: Attempts) -> StatusResponse {
    let text = |time: Timestamp| time.rfc3339();
    let url = |snapshot: &StoredSnapshot| format!("file://{}", snapshot.path.display());
    let available = |stored: &StoredSnapshot| AvailableSnapshot {
        url: url(stored),
        size: stored.size,
        taken: stored.taken.rfc3339(),
    };
    StatusResponse {
        consecutive_errors: attempts.failures,
        last_snapshot_end: attempts.last.map(|(_, end)| text(end)),
        last_snapshot_error: attempts.error,
        last_snapshot_start: attempts.last.map(|(start, _)| text(start)),
        last_snapshot_url: attempts.stored.last().map(url),
        next_snapshot_start: attempts.next.map(text),
        snapshot_start: attempts.current.map(text),
        available_snapshots: attempts.stored.iter().rev().map(available).collect(),
    }
}
