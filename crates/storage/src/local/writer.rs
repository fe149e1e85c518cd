//! The single writer thread.
//!
//! It takes all waiting commits, checks and applies them in order to an uncommitted change of the state, appends those
//! that passed to the log as one frame, commits the change, calls the watchers, and sends the results. The check before
//! the append keeps conflicts out of the log; a replay evaluates the batches again. A failed write or sync stops it
//! permanently: nothing is acknowledged afterwards.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use keepfast_consensus::{Change as MembersChange, Payload};

use super::{
    apply::{Applier, Decision, Group, Notice},
    entry::{Entry, FOUNDING, HardState},
    log::{AppendError, Keep, Log, ReadLog},
    segment::Frame,
    state::{Change, Position},
};
use crate::{
    ChangeError, Index, StorageError, Write,
    raft::{
        event::{Event, Proposal, Request},
        node::Node,
    },
};

/// A group is closed at this size in bytes; the batch that exceeds it is the last.
const GROUP_BYTES: usize = 4 << 20;

type CommitResult = Result<Index, StorageError>;

pub(crate) struct Writer<L> {
    pub(crate) applier: Arc<Applier>,
    pub(crate) log: L,
    /// The group that is being written.
    pub(crate) frame: Frame,
    /// The vote for this node, which is the only voter.
    pub(crate) hard: HardState,
    pub(crate) flush_interval: Duration,
    pub(crate) flush_bytes: u64,
    pub(crate) reserve_bytes: u64,
    /// Bytes logged since the last flush.
    pub(crate) unflushed: u64,
    /// An event of another kind behind the last group.
    pub(crate) next: Option<Event>,
}

/// Why a node is lone no more.
pub(crate) enum Next {
    /// It has written the first list of members; the change that needs them follows.
    Founded(Event),
    /// It joins a cluster.
    Joins,
}

/// Why a group was not committed.
enum Failure {
    /// No space; nothing has changed.
    Full,
    /// No further write is allowed.
    Broken(StorageError),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Broken(error)
    }
}

impl<L: Log> Writer<L> {
    /// Runs until the end, or until this node has other members; commits that wait then stay in `events`. Makes the state
    /// durable.
    pub(crate) fn run(&mut self, node: &Node, events: &Receiver<Event>) -> Option<Next> {
        self.abort_restore();
        loop {
            // An idle store waits without a timer.
            let received = match (self.next.take(), self.unflushed) {
                (Some(event), _) => Ok(event),
                (None, 0) => events.recv().map_err(RecvTimeoutError::from),
                (None, _) => events.recv_timeout(self.flush_interval),
            };
            if let ControlFlow::Break(next) = self.turn(node, received, events) {
                return next;
            }
        }
    }

    /// Handles an event with the commits that wait behind it, or what follows from none.
    pub(crate) fn turn(
        &mut self,
        node: &Node,
        received: Result<Event, RecvTimeoutError>,
        events: &Receiver<Event>,
    ) -> ControlFlow<Option<Next>> {
        match received {
            Ok(Event::Commit(first)) => {
                let (group, other) = gather(first, events);
                self.commit(group);
                self.next = other;
            }
            Ok(Event::Close) | Err(RecvTimeoutError::Disconnected) => {
                self.flush();
                return ControlFlow::Break(None);
            }
            Ok(event) => {
                if let Some(next) = self.other(node, event) {
                    self.flush();
                    return ControlFlow::Break(Some(next));
                }
            }
            Err(RecvTimeoutError::Timeout) => self.flush(),
        }
        if self.unflushed >= self.flush_bytes {
            self.flush();
        }
        ControlFlow::Continue(())
    }

    /// Drops the restore that a process before this one has begun: no batch could pass.
    pub(crate) fn abort_restore(&mut self) {
        if self.applier.state().is_restoring() {
            let (result, _) = tokio::sync::oneshot::channel();
            self.commit(vec![Request { proposal: Proposal::other(&Payload::RestoreAbort), result }]);
        }
    }

    /// Handles what is no commit.
    fn other(&mut self, node: &Node, event: Event) -> Option<Next> {
        match event {
            Event::Read(reply) => drop(reply.send(Ok(*self.applier.applied.borrow()))),
            Event::Change(change, reply) => {
                let founded = match &*change {
                    MembersChange::AddLearner(_) => self.found(node),
                    MembersChange::Demote(name) | MembersChange::Remove(name) if *name == node.origin().node => {
                        Err(ChangeError::LastVoter.into())
                    }
                    _ => Err(ChangeError::Unknown.into()),
                };
                match founded {
                    Ok(()) => return Some(Next::Founded(Event::Change(change, reply))),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            // All that a lone node has applied is on its disk, and no list of others has it.
            Event::Departed(incarnation, reply) => {
                let is_own = incarnation == node.origin().incarnation;
                let applied = *self.applier.applied.borrow();
                let _ = reply.send(if is_own { Err(StorageError::NoLeader) } else { Ok(applied) });
            }
            Event::Leave(_, reply) => drop(reply.send(Err(StorageError::NotLeader))),
            Event::Transfer(_, reply) => drop(reply.send(Err(StorageError::NoTarget))),
            Event::Start(reply) => {
                node.publish_lone(self.hard.vote.term);
                let _ = reply.send(Ok(()));
            }
            Event::Stop(reply) => drop(reply.send(Ok(()))),
            Event::Join(joined, reply) => {
                let prepared = self.is_empty().and_then(|()| node.store_join(&joined));
                let is_prepared = prepared.is_ok();
                let _ = reply.send(prepared);
                return is_prepared.then_some(Next::Joins);
            }
            Event::Snapshot(received) => received.refuse(),
            // Nothing of a cluster concerns a lone node.
            _ => {}
        }
        None
    }

    /// Writes the first list of members, unless there is one.
    fn found(&mut self, node: &Node) -> Result<(), StorageError> {
        if let Some(error) = self.applier.stopped() {
            return Err(error);
        }
        let Some(list) = node.first_list()? else { return Ok(()) };
        let (result, mut receiver) = tokio::sync::oneshot::channel();
        let proposal = Proposal::other(&Payload::Members(list));
        self.commit(vec![Request { proposal, result }]);
        receiver.try_recv().unwrap_or(Err(StorageError::Closed)).map(drop)
    }

    /// Whether nothing was ever committed here.
    fn is_empty(&self) -> Result<(), StorageError> {
        let is_new = self.applier.state().position().id == FOUNDING && self.log.reader().last() == FOUNDING;
        if is_new { Ok(()) } else { Err(StorageError::Layout("it has data".into())) }
    }

    /// Commits a group and sends the result of each request.
    fn commit(&mut self, mut group: Vec<Request>) {
        let results = match self.applier.stopped() {
            Some(error) => Err(error),
            None => self.try_commit(&mut group).map_err(|failure| match failure {
                Failure::Full => StorageError::Full,
                Failure::Broken(error) => self.stop(&error),
            }),
        };
        match results {
            Ok(results) => {
                for (request, result) in group.into_iter().zip(results) {
                    // The receiver may be dropped; the commit remains valid.
                    let _ = request.result.send(result);
                }
            }
            Err(error) => {
                for request in group {
                    let _ = request.result.send(Err(error.clone()));
                }
            }
        }
    }

    fn try_commit(&mut self, group: &mut [Request]) -> Result<Vec<CommitResult>, Failure> {
        let applier = self.applier.clone();
        let state = applier.state();
        let change = state.begin()?;
        let mut replaced = None;
        let (results, position) = self.apply(&change, group, &mut replaced)?;
        if self.frame.count() == 0 {
            change.abort()?;
            return Ok(results);
        }
        // The only voter: what is durable here is committed.
        self.frame.hard.committed = position.id.index;
        match self.log.append(&mut self.frame) {
            Ok(bytes) => self.unflushed += bytes,
            Err(AppendError::Full) => {
                change.abort()?;
                return Err(Failure::Full);
            }
            Err(AppendError::Broken(error)) => return Err(error.into()),
        }
        applier.publish(change, position, |applier| {
            for (request, result) in group.iter().zip(&results) {
                match (&request.proposal, result) {
                    (Proposal::Batch(batch), Ok(index)) if !batch.writes.is_empty() => {
                        applier.watchers.notify(*index, &batch.writes);
                    }
                    (Proposal::Payload(..), Ok(index)) if replaced == Some(*index) => {
                        applier.watchers.notify_replaced(*index);
                    }
                    _ => {}
                }
            }
        })?;
        Ok(results)
    }

    /// Checks each batch; applies it and adds it to the frame when it passes. A batch sees the earlier batches of the
    /// group. Returns the results, and the position after the last applied batch. Sets the index of a restore that has
    /// replaced all records, if there is one.
    fn apply(
        &mut self,
        change: &Change,
        requests: &mut [Request],
        replaced: &mut Option<Index>,
    ) -> Result<(Vec<CommitResult>, Position), StorageError> {
        let state = self.applier.state();
        let mut group = Group::begin(&state, change)?;
        let mut last = state.position().id.index;
        self.frame.begin(last + 1, self.hard);
        let bytes: usize = requests.iter().map(|request| request.proposal.size()).sum();
        let has_room = self.log.has_room(self.reserve_bytes, bytes as u64);
        let mut results = Vec::with_capacity(requests.len());
        for Request { proposal, .. } in requests {
            let is_encoded = matches!(proposal, Proposal::Payload(..));
            if is_encoded {
                // Of a caller that took this node for a member.
                *proposal = std::mem::replace(proposal, Proposal::NOTHING).decoded()?;
            }
            let batch = match proposal {
                Proposal::Batch(batch) => batch,
                Proposal::Payload(payload, puts) if has_room || !*puts => {
                    let id = self.frame.push(self.hard.vote.term, payload);
                    let (decision, notice) = group.entry(Entry { id, payload: payload.clone() })?;
                    last = id.index;
                    if matches!(notice, Some(Notice::Replaced)) {
                        *replaced = Some(Index(last));
                    }
                    results.push(match decision {
                        Decision::Passed => Ok(Index(last)),
                        _ => Err(StorageError::corrupt("an entry of the restore does not fit")),
                    });
                    continue;
                }
                Proposal::Payload(..) => {
                    results.push(Err(StorageError::Full));
                    continue;
                }
            };
            if !group.holds(&batch.reads)? {
                results.push(Err(StorageError::Conflict));
                continue;
            }
            if !has_room && batch.writes.iter().any(|write| matches!(write, Write::Put { .. })) {
                results.push(Err(StorageError::Full));
                continue;
            }
            if !batch.writes.is_empty() {
                let id = self.frame.push_batch(self.hard.vote.term, batch);
                group.write(id, &batch.writes)?;
                last = id.index;
            }
            results.push(Ok(Index(last)));
        }
        Ok((results, group.end()?))
    }

    /// Makes the state durable, so that the log before it is no longer needed.
    fn flush(&mut self) {
        if self.applier.stopped.get().is_some() {
            self.unflushed = 0;
            return;
        }
        if let Err(error) = self.applier.state().flush() {
            self.stop(&error);
            return;
        }
        self.unflushed = 0;
        let flushed = self.applier.state().position().id.index;
        if let Err(error) = self.log.purge(flushed, Keep::NOTHING) {
            self.stop(&error);
        }
    }

    /// Stops all writes and logs the reason.
    fn stop(&mut self, error: &StorageError) -> StorageError {
        self.unflushed = 0;
        self.applier.stop(error)
    }
}

/// The given request and those that wait behind it, and an event of another kind behind those.
fn gather(first: Request, events: &Receiver<Event>) -> (Vec<Request>, Option<Event>) {
    let mut bytes = first.proposal.size();
    let mut group = vec![first];
    while bytes < GROUP_BYTES
        && let Ok(event) = events.try_recv()
    {
        let Event::Commit(next) = event else { return (group, Some(event)) };
        bytes += next.proposal.size();
        group.push(next);
    }
    (group, None)
}
