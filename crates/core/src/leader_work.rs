//! The tasks that only the leader runs, and what it does before them.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use keepfast_framework::{Error, Result};
use parking_lot::Mutex;

use crate::background::BackgroundTasks;
use crate::cluster::autopilot_task::AutopilotTask;
use crate::cluster::clock_task::ClockTask;
use crate::cluster::lead::LeaderWork;
use crate::cluster::snapshots::scheduled::SnapshotTask;
use crate::lifecycle::{Lifecycle, term};
use crate::unseal::rolling::RollingMigration;
use crate::unsealed::Unsealed;

/// The work of the leader of this server.
pub(crate) struct WorkOfLeader {
    lifecycle: Weak<Lifecycle>,
    unsealed: Arc<Unsealed>,
    background: Mutex<Option<BackgroundTasks>>,
    autopilot: Mutex<Option<AutopilotTask>>,
    snapshots: Mutex<Option<SnapshotTask>>,
    clocks: Mutex<Option<ClockTask>>,
    migration: Mutex<Option<RollingMigration>>,
}

impl WorkOfLeader {
    /// For a server that has unsealed; nothing is started.
    pub(crate) fn new(lifecycle: Weak<Lifecycle>, unsealed: Arc<Unsealed>) -> Self {
        let (background, autopilot) = (Mutex::default(), Mutex::default());
        let (snapshots, clocks, migration) = (Mutex::default(), Mutex::default(), Mutex::default());
        WorkOfLeader { lifecycle, unsealed, background, autopilot, snapshots, clocks, migration }
    }

    fn set_taken_over(&self, has_taken_over: bool) {
        if let Some(lifecycle) = self.lifecycle.upgrade() {
            lifecycle.parts.membership.taken_over.set(has_taken_over);
            lifecycle.parts.membership.clocks.change_role();
        }
    }
}

#[async_trait]
impl LeaderWork for WorkOfLeader {
    fn term(&self) -> u64 {
        self.lifecycle.upgrade().map_or(0, |lifecycle| term(&lifecycle.parts))
    }

    async fn take_over(&self) -> Result<()> {
        let lifecycle = self.lifecycle.upgrade().ok_or_else(Error::sealed)?;
        lifecycle.parts.take_over(&self.unsealed.barrier).await
    }

    fn start(&self) {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return };
        lifecycle.administration.autopilot.reset();
        self.set_taken_over(true);
        let parts = &lifecycle.parts;
        *self.clocks.lock() = ClockTask::start(&parts.membership, parts.clock.clone());
        let clocks = parts.membership.clocks.clone();
        *self.background.lock() = Some(BackgroundTasks::start(self.unsealed.clone(), clocks));
        *self.autopilot.lock() = Some(AutopilotTask::start(self.lifecycle.clone()));
        *self.snapshots.lock() = SnapshotTask::start(self.lifecycle.clone());
        lifecycle.self_init.wake.notify_one();
        *self.migration.lock() = RollingMigration::start(&parts.membership, &lifecycle.seals, &self.unsealed);
    }

    fn stop(&self) {
        self.set_taken_over(false);
        *self.background.lock() = None;
        *self.autopilot.lock() = None;
        *self.snapshots.lock() = None;
        *self.clocks.lock() = None;
        *self.migration.lock() = None;
        self.unsealed.current_seal.drop_ceremonies();
    }

    fn is_removed(&self) -> bool {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return false };
        lifecycle.parts.membership.consensus().is_some_and(|consensus| consensus.is_removed())
    }

    fn seal(&self) {
        let lifecycle = self.lifecycle.clone();
        // In its own task: the seal ends the one that follows the role.
        tokio::spawn(async move {
            if let Some(lifecycle) = lifecycle.upgrade() {
                lifecycle.seal().await;
            }
        });
    }
}
