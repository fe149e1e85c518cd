//! Linearizable reads of a follower: all that wait share the next request to the leader, and one is under way.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::published::Published;
use crate::{Index, Member, StorageError};

/// The most callers that wait.
const MAX_WAITING: usize = 65_536;
/// The least time after which another request is sent.
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
                    let found = timeout(request_timeout(&leader), network.transport.read_index(&leader)).await;
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

/// The time after which another request is sent. The response needs a round trip to a majority, for which a leader on slow
/// links may take up to its election timeout: a shorter time would leave the read without a response.
fn request_timeout(leader: &Member) -> Duration {
    Duration::from_millis(leader.election_ms.into()).max(REQUEST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use keepfast_consensus::RaftId;

    use super::*;

    #[test]
    fn a_leader_has_its_election_timeout_to_confirm_a_read() {
        let leader = |election_ms| Member {
            id: RaftId(1),
            node: "n1".to_owned(),
            incarnation: [1; 16],
            cluster_addr: String::new(),
            api_addr: String::new(),
            voter: true,
            wants_vote: true,
            election_ms,
            version: String::new(),
        };
        for (election_ms, expected) in [(100, 500), (600, 600), (6000, 6000)] {
            assert_eq!(request_timeout(&leader(election_ms)), Duration::from_millis(expected));
        }
    }
}
