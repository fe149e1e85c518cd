//! What the process knows of the self-initialization. Until it is finished, all other requests are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use keepfast_framework::{Error, Result, Status};
use keepfast_storage::Barrier;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::plan::{ReadOnce, SelfInitPlan};
use super::state::SelfInitState;

/// The phase of the self-initialization of this storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// There is none, or it is finished.
    Off,
    /// Requests are sent, or will be.
    InProgress,
    /// A request has failed; an operator must repair it.
    Failed,
}

/// The self-initialization of this process.
pub(crate) struct SelfInit {
    plan: Mutex<Arc<SelfInitPlan>>,
    phase: AtomicU8,
    /// Begins an attempt: after an unseal, and when this node becomes the leader.
    pub(crate) wake: Notify,
    /// Begins an attempt although the last one failed.
    pub(crate) retry: Notify,
    /// What was read from pipes, until the end.
    pub(super) read_once: Mutex<ReadOnce>,
    /// Whether the init of this process has failed and may take effect later: it does no other one.
    pub(super) may_take_effect: AtomicBool,
}

impl SelfInit {
    /// With the stanzas of the configuration.
    pub(crate) fn new(plan: Arc<SelfInitPlan>) -> Arc<Self> {
        let (plan, phase) = (Mutex::new(plan), AtomicU8::new(Phase::Off as u8));
        let (wake, retry, read_once, may_take_effect) = Default::default();
        Arc::new(SelfInit { plan, phase, wake, retry, read_once, may_take_effect })
    }

    /// The stanzas.
    pub(crate) fn plan(&self) -> Arc<SelfInitPlan> {
        self.plan.lock().clone()
    }

    /// Begins an attempt with these stanzas, or the current ones.
    pub(crate) fn begin_attempt(&self, plan: Option<Arc<SelfInitPlan>>) {
        if let Some(plan) = plan {
            *self.plan.lock() = plan;
        }
        self.retry.notify_one();
    }

    /// The phase that this process knows.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            1 => Phase::InProgress,
            2 => Phase::Failed,
            _ => Phase::Off,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The phase for `sys/health`; `None` when all requests are handled.
    pub(crate) fn status(&self) -> Option<&'static str> {
        match self.phase() {
            Phase::Off => None,
            Phase::InProgress => Some("in progress"),
            Phase::Failed => Some("failed"),
        }
    }

    /// Reads the phase of a storage, before the first request to it is handled.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn observe(&self, barrier: &Arc<Barrier>) -> Result<()> {
        let state = SelfInitState::load(barrier).await?;
        let phase = match state.is_some_and(|state| state.is_unfinished()) {
            true => Phase::InProgress,
            false => Phase::Off,
        };
        self.set_phase(phase);
        Ok(())
    }

    /// Why a request is refused, if it is.
    pub(crate) async fn refusal(&self, barrier: &Arc<Barrier>) -> Option<Error> {
        if self.phase() == Phase::Off {
            return None;
        }
        // Another node may have finished it.
        match SelfInitState::load(barrier).await {
            Ok(state) if !state.as_ref().is_some_and(SelfInitState::is_unfinished) => {
                self.set_phase(Phase::Off);
                None
            }
            Ok(_) => Some(in_progress()),
            Err(error) => Some(error),
        }
    }
}

/// The error of all requests until the end.
pub(crate) fn in_progress() -> Error {
    Error::new(Status::UNAVAILABLE, "self-initialization is in progress")
}
