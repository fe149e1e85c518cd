//! The calls of a member: commits, reads, changes, transfers, its start and its end.

use keepfast_consensus::{Change, Input, LogId, MAX_ENTRY, NodeId, Refusal, Steps};

use super::{Driver, NO_ROLE, SystemChance};
use crate::{
    Index, Joined, StorageError,
    local::{disk::has_room, layout::Layout, log::ReadLog},
    raft::{
        boot, clock,
        event::{Proposal, Reply, Request},
        published::Numbers,
        waiting::Until,
    },
};

/// One proposal has at most so many batches or bytes; the batch that exceeds them is the last.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 4 << 20;
/// How long commits wait for the sync of a frame before them, in microseconds.
const MOST_GATHERED: u64 = 10_000;
/// How long a transfer may take, in microseconds.
const TRANSFER: u64 = 3_000_000;
/// How long a node that leaves waits for a successor, in microseconds.
const LEAVE: u64 = 2_000_000;

impl Driver {
    /// Proposes commits that wait. Those for which there is no room yet stay.
    pub(super) fn propose_queue(&mut self) {
        while !self.queue.is_empty() && self.gathers().is_none() {
            let group = self.next_group();
            if group.is_empty() {
                continue;
            }
            let payloads = group.iter().filter_map(|request| match &request.proposal {
                Proposal::Payload(payload, _) => Some(payload.clone()),
                Proposal::Batch(_) => None,
            });
            let payloads = payloads.collect();
            match self.input(Input::Propose(payloads)) {
                Some(Ok(first)) => {
                    let now = clock::now();
                    for (index, request) in (first.index..).zip(group) {
                        self.waiting.add(LogId { index, ..first }, now, Until::Applied, request.result);
                    }
                }
                Some(Err(Refusal::Busy | Refusal::Transferring)) => {
                    group.into_iter().rev().for_each(|request| self.queue.push_front(request));
                    return;
                }
                response => {
                    let error = refused(response.and_then(Result::err).unwrap_or(Refusal::NotLeader));
                    group.into_iter().for_each(|request| drop(request.result.send(Err(error.clone()))));
                }
            }
        }
    }

    /// How long, in microseconds, commits still wait for the sync of the frame before them. Their own frame would wait for
    /// it, too; so those that arrive meanwhile share one, and one message to each member. A disk that is slower than that
    /// holds up none: the others may be a majority without it.
    pub(super) fn gathers(&self) -> Option<u64> {
        let since = self.progress.syncs_since().filter(|_| !self.queue.is_empty())?;
        let rest = (since + MOST_GATHERED).since(clock::now());
        (rest > 0 && self.node.published.view.borrow().accepts).then_some(rest)
    }

    /// The commits of the next proposal. Those for which the device has no room fail.
    pub(super) fn next_group(&mut self) -> Vec<Request> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP
            && bytes < GROUP_BYTES
            && let Some(Request { proposal, result }) = self.queue.pop_front()
        {
            bytes += proposal.size();
            group.push(Request { proposal: proposal.encoded(), result });
        }
        if has_room(&*self.node.disk, self.node.options.reserve_bytes, bytes as u64) {
            return group;
        }
        let (without, fitting): (Vec<_>, Vec<_>) = group.into_iter().partition(|request| request.proposal.puts());
        without.into_iter().for_each(|request| drop(request.result.send(Err(StorageError::Full))));
        fitting
    }

    pub(super) fn read(&mut self, reply: Option<Reply<Index>>) {
        let id = self.waiting.read(reply);
        if self.steps.is_none() || !self.is_running {
            self.waiting.read_ready(id, Err(StorageError::NoLeader));
            return;
        }
        self.pass(Input::ReadIndex(id));
    }

    pub(super) fn change(&mut self, change: Change, reply: Reply<Index>) {
        match self.input(Input::Change(change)) {
            Some(Ok(id)) => self.waiting.add(id, clock::now(), Until::Effective, reply),
            response => {
                let refusal = response.and_then(Result::err).unwrap_or(Refusal::NotLeader);
                let _ = reply.send(Err(refused(refusal)));
            }
        }
    }

    pub(super) fn transfer(&mut self, to: Option<NodeId>, reply: Reply<()>) {
        match self.input(Input::Transfer(to)) {
            Some(Err(refusal)) => drop(reply.send(Err(refused(refusal)))),
            _ if self.steps.is_none() => drop(reply.send(Err(StorageError::NotLeader))),
            _ => self.waiting.transfer(clock::now() + TRANSFER, reply),
        }
    }

    /// Begins or goes on to exchange messages.
    pub(super) fn start(&mut self) -> Result<(), StorageError> {
        if let Some(error) = self.node.applier.stopped() {
            return Err(error);
        }
        if self.steps.is_none() {
            let layout = self.node.layout.read(Layout::clone);
            if layout.removed {
                return Err(StorageError::Removed);
            }
            let boot = match layout.joining {
                true => boot::joining(&layout, &self.threads.log)?,
                false => boot::member_of(&layout, &self.threads.log, &self.node.applier.state())?,
            };
            self.progress.handed = boot.applied;
            let steps = Steps::new(self.settings.clone(), boot, clock::now(), &mut SystemChance);
            let mut steps = steps.map_err(|error| StorageError::corrupt(error.to_string()))?;
            if !layout.joining {
                let (base, terms) = self.threads.log.terms();
                steps.set_stored(base, &terms);
            }
            self.steps = Some(steps);
        }
        self.is_running = true;
        self.progress.tick = clock::now();
        self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
        self.follow_ups.leads |= self.node.published.view.borrow().is_leading;
        Ok(())
    }

    /// Leaves the network once another node leads, or after a time.
    pub(super) fn stop(&mut self, reply: Reply<()>) {
        let leads = self.node.published.view.borrow().accepts;
        let transfers = leads && self.is_running && matches!(self.input(Input::Transfer(None)), None | Some(Ok(_)));
        self.waiting.leave(clock::now() + if transfers { LEAVE } else { 0 }, reply);
        if !transfers || !self.node.published.view.borrow().accepts {
            self.leave();
        }
    }

    pub(super) fn leave(&mut self) {
        self.pass(Input::StepDown);
        self.is_running = false;
        self.node.published.set_lease(None, self.node.published.committed(), 0);
        *self.node.published.numbers.lock() = Numbers::default();
        self.end(&StorageError::NoLeader);
        self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
        self.waiting.left();
    }

    /// Stores the cluster that this node joins. A node that has begun to join it before goes on.
    pub(super) fn join(&mut self, joined: &Joined) -> Result<(), StorageError> {
        let layout = self.node.layout.read(Layout::clone);
        if !layout.joining {
            return Err(StorageError::Layout("it belongs to a cluster already".into()));
        }
        if layout.cluster_id.as_ref() != Some(&joined.cluster_id) {
            return Err(StorageError::Layout("it has begun to join another cluster; empty it first".into()));
        }
        if self.steps.is_some() { Ok(()) } else { self.node.store_join(joined) }
    }
}

fn refused(refusal: Refusal) -> StorageError {
    match refusal {
        Refusal::NotLeader => StorageError::NotLeader,
        Refusal::Transferring | Refusal::Busy => StorageError::NoLeader,
        Refusal::TooLarge => {
            let limit = MAX_ENTRY;
            StorageError::TooLarge { size: limit + 1, limit }
        }
        Refusal::Kind => StorageError::corrupt("an entry of this kind cannot be proposed"),
        Refusal::ChangeOpen => StorageError::ChangeOpen,
        Refusal::NoTarget => StorageError::NoTarget,
        Refusal::Change(error) => StorageError::Change(error),
    }
}
