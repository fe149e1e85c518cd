//! Linearizable reads of a follower: all that wait share the next request to the leader, and one is under way.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::published::Published;
use crate::{Index, StorageError};

/// The most callers that wait.
const MAX_WAITING: usize = 65_536;
/// The time after which another request is sent.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

type ReadResult = Result<Index, StorageError>;

/// The callers that wait.
#[derive(Default)]
pub(crate) struct ReadBatch(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    callers: Vec<oneshot::Sender<ReadResult>>,
    /// Whether a task sends requests.
    is_requesting: bool,
}

impl ReadBatch {
    /// An index from the leader that was confirmed after this call.
    pub(crate) async fn index(self: &Arc<Self>, published: &Arc<Published>) -> ReadResult {
        let (caller, result) = oneshot::channel();
        let is_first = {
            let mut waiting = self.0.lock();
            if waiting.callers.len() >= MAX_WAITING {
                return Err(StorageError::NoLeader);
            }
            waiting.callers.push(caller);
            !std::mem::replace(&mut waiting.is_requesting, true)
        };
        if is_first {
            // A task of its own: the first caller may be dropped.
            let (batch, published) = (self.clone(), published.clone());
            tokio::spawn(async move { batch.request(&published).await });
        }
        result.await.unwrap_or(Err(StorageError::NoLeader))
    }

    async fn request(&self, published: &Published) {
        loop {
            let callers = {
                let mut waiting = self.0.lock();
                if waiting.callers.is_empty() {
                    waiting.is_requesting = false;
                    return;
                }
                std::mem::take(&mut waiting.callers)
            };
            let leader = published.view.borrow().leader.clone();
            let result = match (published.network(), leader) {
                (Some(network), Some(leader)) => {
                    let found = timeout(REQUEST_TIMEOUT, network.transport.read_index(&leader)).await;
                    found.unwrap_or(Err(StorageError::NoLeader))
                }
                _ => Err(StorageError::NoLeader),
            };
            for caller in callers {
                let _ = caller.send(result.clone());
            }
        }
    }
}
