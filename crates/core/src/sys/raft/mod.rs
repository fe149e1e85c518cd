//! `sys/storage/raft/`: the members of the cluster, joining, autopilot and snapshots.

mod automatic_snapshots;
mod autopilot_config;
mod autopilot_state;
mod bootstrap;
mod dry_run;
mod join;
mod peers;
mod snapshot;

use keepfast_framework::Routes;

use super::System;

pub(super) fn routes(r: &mut Routes<System>) {
    peers::routes(r);
    join::routes(r);
    bootstrap::routes(r);
    autopilot_config::routes(r);
    autopilot_state::routes(r);
    snapshot::routes(r);
    automatic_snapshots::routes(r);
}
