//! The cluster that a node is about to join, in memory.

use std::sync::Arc;

use bytes::Bytes;
use keepfast_framework::{Error, Result};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::client::JoinTarget;
use crate::cluster::membership::Membership;
use crate::seal::SealConfig;

/// The most requests with `retry` whose leaders are tried at a time; the oldest are dropped first.
const MAX_INTENTS: usize = 8;

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
    /// The attempt that receives the records of the cluster.
    pub(super) attempt: Mutex<Attempt>,
    retried: Mutex<Retried>,
}

/// An attempt to join.
#[derive(Default)]
pub(super) struct Attempt {
    /// Counts those that were ended, so that one which has no task yet begins none.
    pub(super) ended: u64,
    pub(super) task: Option<JoinHandle<()>>,
}

/// The leaders that are tried again and again.
#[derive(Default)]
struct Retried {
    is_running: bool,
    /// Those of the configuration, which no request replaces.
    configured: Option<Intent>,
    /// Those of requests.
    intents: Vec<Intent>,
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

    /// Refuses a caller without a token that would end a join whose shares were accepted: it could be anybody.
    pub(crate) fn check_not_completing(&self) -> Result<()> {
        if !self.is_completing() {
            return Ok(());
        }
        let text = "the shares were accepted and the server joins its cluster; stop its process to end that";
        Err(Error::invalid(text))
    }

    /// Adds the leaders of the configuration to those that are tried. Returns whether the attempts begin with them.
    pub(super) fn begin_configured(&self, intent: Intent) -> bool {
        let mut retried = self.retried.lock();
        retried.configured = Some(intent);
        !std::mem::replace(&mut retried.is_running, true)
    }

    /// The same for leaders of a request.
    pub(super) fn begin_retry(&self, intent: Intent) -> bool {
        let mut retried = self.retried.lock();
        retried.intents.retain(|known| !known.is_same(&intent));
        retried.intents.push(intent);
        let excess = retried.intents.len().saturating_sub(MAX_INTENTS);
        retried.intents.drain(..excess);
        !std::mem::replace(&mut retried.is_running, true)
    }

    /// The leaders to try.
    pub(super) fn retried(&self) -> Vec<Intent> {
        let retried = self.retried.lock();
        retried.configured.iter().chain(&retried.intents).cloned().collect()
    }

    /// Ends the attempts.
    pub(super) fn end_retry(&self) {
        *self.retried.lock() = Retried::default();
    }

    /// Ends a join whose records have not arrived, when the process ends: the node leaves the network and stays sealed.
    pub(crate) async fn end(&self, membership: &Membership) {
        let task = {
            let mut attempt = self.attempt.lock();
            attempt.ended += 1;
            attempt.task.take().filter(|task| !task.is_finished())
        };
        let Some(task) = task else { return };
        task.abort();
        // Until it has ended, it could unseal the node.
        if task.await.is_ok() {
            return;
        }
        tracing::warn!("the join of a cluster was ended before its records have arrived");
        *self.pending.lock() = None;
        if let Some(consensus) = membership.consensus() {
            consensus.stop().await;
        }
        if let Some(port) = membership.port() {
            port.close().await;
        }
    }
}

impl Intent {
    fn is_same(&self, other: &Self) -> bool {
        let addresses = |intent: &Self| intent.targets.iter().map(|target| target.api_addr.clone()).collect::<Vec<_>>();
        addresses(self) == addresses(other)
    }
}
