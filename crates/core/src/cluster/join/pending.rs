//! The cluster that a node is about to join, in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::client::JoinTarget;
use crate::seal::SealConfig;

/// The leaders to join, and as what.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    /// The leaders, of which the first that responds is joined.
    pub(crate) targets: Vec<JoinTarget>,
    /// Whether the node gets no vote.
    pub(crate) non_voter: bool,
}

/// The cluster that this node is about to join: in memory, until its records are here.
#[derive(Default)]
pub(crate) struct Joining {
    pub(super) pending: Mutex<Option<Pending>>,
    /// Held while shares are used.
    pub(super) completing: Arc<tokio::sync::Mutex<()>>,
    is_retrying: AtomicBool,
}

/// A leader that has responded.
#[derive(Clone)]
pub(super) struct Pending {
    pub(super) intent: Intent,
    pub(super) seal: SealConfig,
    pub(super) seal_record: Bytes,
}

impl Joining {
    /// The seal of the cluster, whose shares unseal this node.
    pub(crate) fn seal_config(&self) -> Option<SealConfig> {
        self.pending.lock().as_ref().map(|pending| pending.seal.clone())
    }

    /// Whether shares were accepted and the records of the cluster are on their way.
    pub(crate) fn is_completing(&self) -> bool {
        self.completing.try_lock().is_err()
    }

    /// Begins a sequence of attempts, if there is none.
    pub(super) fn begin_retry(&self) -> bool {
        !self.is_retrying.swap(true, Ordering::AcqRel)
    }

    /// Ends it.
    pub(super) fn end_retry(&self) {
        self.is_retrying.store(false, Ordering::Release);
    }
}
