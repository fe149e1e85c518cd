//! What members get that are behind: entries of the log that are not in memory any more, and snapshots, on their way out of a
//! member and into it.

use std::{borrow::Cow, ops::Range};

use keepfast_consensus::{Body, Entry, Input, LogId, Message, RaftId, Steps, Vote};

use super::{Driver, NO_ROLE};
use crate::{
    StorageError, blocking,
    local::log::ReadLog,
    raft::{
        apply_thread::{ApplyJob, NewState},
        clock,
        event::Event,
        receive::Received,
    },
};

/// What a read of the log has found. A snapshot replaces entries that are purged or damaged, and not those that the disk does
/// not yield for the moment.
fn found(first: u64, read: Result<Vec<Entry>, StorageError>) -> Option<Vec<Entry>> {
    let error = match read {
        Ok(entries) => return Some(entries),
        Err(error) => error,
    };
    tracing::warn!(first, %error, "entries for a member that is behind cannot be read");
    matches!(error, StorageError::Corrupt(_) | StorageError::Layout(_)).then(Vec::new)
}

impl Driver {
    /// Reads entries of the log. A member that needs them gets a snapshot if the log does not have them any more.
    pub(super) fn read_log(&self, range: Range<u64>, bytes: u64) {
        let (events, log, first) = (self.events.clone(), self.threads.log.clone(), range.start);
        let Some(network) = self.node.published.network() else {
            let _ = events.send(Event::LogRead { first, entries: None });
            return;
        };
        network.runtime.spawn(async move {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let read = blocking::run(move || log.entries(range, bytes)).await;
            let entries = found(first, read.unwrap_or(Err(StorageError::Closed)));
            let _ = events.send(Event::LogRead { first, entries });
        });
    }

    /// Streams the applied state. Each requested snapshot is reported, also when there is nowhere to send it.
    /// `term` is that in which this node leads: the receiver refuses a snapshot that comes after another leader.
    pub(super) fn send_snapshot(&mut self, to: RaftId, term: u64) {
        let Some(steps) = &self.steps else { return };
        let (from, member) = (steps.id(), self.peers.address(steps, to).map(Cow::into_owned));
        let network = self.node.published.network().filter(|_| self.is_running);
        let events = self.events.clone();
        let Some((network, member)) = network.zip(member) else {
            let _ = events.send(Event::SnapshotDone { to, ok: false });
            return;
        };
        let (node, runtime) = (self.node.clone(), network.runtime.clone());
        runtime.spawn(async move {
            let sent = async {
                // It reads the tree.
                let image = blocking::run(move || node.image()).await;
                let (head, parts) = image.unwrap_or(Err(StorageError::Closed))?;
                let last = LogId { term: head.term, index: head.index.0 };
                let body = Body::Snapshot { last, members: head.members };
                let head = Message { from, to, term, body }.encode();
                network.transport.send_snapshot(&member, head, parts).await
            };
            let sent = sent.await;
            if let Err(error) = &sent {
                tracing::warn!(node = member.node, %error, "a snapshot did not arrive");
            }
            let _ = events.send(Event::SnapshotDone { to, ok: sent.is_ok() });
        });
    }

    pub(super) fn snapshot(&mut self, received: Received) {
        let is_ready = self.is_running && self.steps.is_some() && self.installing.is_none();
        if !is_ready {
            self.discard(received, Err(StorageError::NoLeader));
            return;
        }
        self.peers.note(&received.message, &received.origin, clock::now());
        let input = Input::Snapshot { origin: received.origin.clone(), message: received.message.clone() };
        self.installing = Some(received);
        self.pass(input);
        // No effect has taken it: this node has all of it, or does not want it.
        if let Some(received) = self.installing.take_if(|received| received.state.is_some()) {
            self.discard(received, Ok(()));
        }
    }

    /// Deletes a state that is not installed.
    fn discard(&self, received: Received, result: Result<(), StorageError>) {
        self.threads.apply(ApplyJob::Discard(Box::new(received), result));
    }

    pub(super) fn install(&mut self, vote: Vote, last: LogId) {
        let Some(state) = self.installing.as_mut().and_then(|received| received.state.take()) else {
            self.stop_for(&StorageError::corrupt("a snapshot is to be installed that was not received"));
            return;
        };
        // The snapshot decides on those up to there, and does not contain the decision.
        self.waiting.lose_until(last.index);
        self.progress.handed = last.index;
        self.threads.apply(ApplyJob::Install(Box::new(NewState { state, vote, last })));
    }

    pub(super) fn installed(&mut self) {
        self.progress.backlog = 0;
        self.pass(Input::Installed);
        if let Some(received) = self.installing.take() {
            received.finish(Ok(()));
        }
        self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_that_are_not_in_the_log_lead_to_a_snapshot() {
        let failed = StorageError::Io {
            action: "read log segment".into(),
            cause: std::sync::Arc::new(std::io::ErrorKind::TimedOut.into()),
        };
        for error in [failed, StorageError::Closed] {
            assert!(found(7, Err(error)).is_none());
        }
        assert_eq!(found(7, Err(StorageError::corrupt("the log has no entries 7 to 8"))).map(|it| it.len()), Some(0));
    }
}
