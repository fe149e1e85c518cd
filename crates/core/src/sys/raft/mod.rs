//! `sys/storage/raft/`: the members of the cluster, joining, autopilot and snapshots.

mod autopilot_config;
mod autopilot_state;
mod bootstrap;
mod join;
mod peers;
mod snapshot;

use std::sync::Arc;

use keepfast_framework::{Error, Result, Routes};
use keepfast_storage::Consensus;

use super::System;

pub(super) fn routes(r: &mut Routes<System>) {
    peers::routes(r);
    join::routes(r);
    bootstrap::routes(r);
    autopilot_config::routes(r);
    autopilot_state::routes(r);
    snapshot::routes(r);
}

/// The members and the log of this node. Without a cluster OpenBao does not have the paths.
fn consensus(sys: &System) -> Result<Arc<dyn Consensus>> {
    sys.lifecycle()?.parts.backend.consensus().ok_or_else(Error::unsupported_path)
}
