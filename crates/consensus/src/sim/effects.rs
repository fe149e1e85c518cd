//! What a driver does with effects: disks that sync late, a state machine that applies late, messages, snapshots.

use std::borrow::Cow;

use super::checks::Broken;
use super::network::Sent;
use super::node::Node;
use super::world::{Event, TICK_MS, World};
use crate::entry::{LogId, RaftId, Vote};
use crate::frame::Frame;
use crate::member::{Incarnation, Member};
use crate::message::{Body, Message};
use crate::planted::Bug;
use crate::steps::{Chance, Effect, Input, Origin, Role};

/// The bytes of entries that stay in memory: about 20 entries of clients.
const WINDOW: u64 = 820;

impl World {
    pub(super) fn perform(&mut self, node: usize, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Persist(frame) => self.persist(node, frame),
            Effect::Send(message) => self.send(node, message),
            Effect::Commit(index) => {
                if let Some(process) = self.nodes[node].process.as_mut() {
                    process.commit = index;
                }
                self.schedule_apply(node);
                Ok(())
            }
            Effect::ReadReady { id, index } => self.read_ready(node, id, index),
            Effect::ReadLost(id) => {
                if let Some(process) = self.nodes[node].process.as_mut() {
                    process.calls.remove(&id);
                }
                Ok(())
            }
            Effect::Role(role) => self.role(node, role),
            Effect::ReadLog { first, end, bytes } => {
                let (run, delay) = (self.nodes[node].run, self.rng.range(100, 20_000));
                self.after(delay, Event::ReadLog { node, run, first, end, bytes });
                Ok(())
            }
            Effect::SendSnapshot { to, term, .. } => {
                self.send_snapshot(node, to, term);
                Ok(())
            }
            Effect::Install { vote, last, members, .. } => self.install(node, vote, last, members),
            Effect::Removed { .. } => self.removed(node),
            Effect::Broken(why) => Err(format!("node {node} stops: {why}")),
            Effect::Proposed { .. } | Effect::Refused(_) => Ok(()),
            Effect::LostEntries { of, last, acknowledged } => self.lost_entries(node, of, last, acknowledged),
        }
    }

    /// The disks of the simulator lose no entry that was synced, except with all others. Only a leader of an earlier term
    /// may think so: the entries of a later one have replaced its own.
    fn lost_entries(&self, number: usize, of: RaftId, last: u64, acknowledged: u64) -> Result<(), Broken> {
        let term = self.nodes[number].process.as_ref().map_or(0, |process| process.steps.status().term);
        let is_former = self.nodes.iter().any(|node| node.disk.vote.term > term);
        match is_former {
            true => Ok(()),
            false => Err(format!("member {of} ends at {last} and had acknowledged {acknowledged}")),
        }
    }

    fn persist(&mut self, number: usize, frame: Frame) -> Result<(), Broken> {
        let Some(process) = self.nodes[number].process.as_mut() else { return Ok(()) };
        let campaigns = frame.vote.is_some_and(|vote| vote.candidate == process.steps.id());
        match process.waiting.as_mut() {
            Some(waiting) => waiting.merge(frame),
            None => process.waiting = Some(frame),
        }
        if process.syncing.is_none() {
            self.begin_sync(number);
        }
        if campaigns && self.rng.hits(self.weather.forges) {
            let run = self.nodes[number].run;
            self.after(10, Event::Forge { node: number, run });
        }
        Ok(())
    }

    fn begin_sync(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_mut() else { return };
        process.syncing = process.waiting.take();
        if process.syncing.is_none() {
            return;
        }
        let run = node.run;
        let mut delay = self.rng.range(100, 3000);
        if self.rng.hits(self.weather.stall) {
            self.report.faults += 1;
            delay += self.rng.below(self.weather.longest_stall);
            // A machine that stalls is often about to die.
            if self.rng.hits(2000) {
                let death = self.rng.below(delay);
                self.after(death, Event::Crash { node: number, run });
            }
        }
        self.after(delay, Event::Synced { node: number, run });
    }

    pub(super) fn synced(&mut self, number: usize) -> Result<(), Broken> {
        let process = self.nodes[number].process.as_mut();
        let Some(frame) = process.and_then(|process| process.syncing.take()) else { return Ok(()) };
        let persisted = frame.number;
        self.write(number, frame)?;
        self.begin_sync(number);
        self.step(number, Input::Persisted(persisted))
    }

    /// A frame reaches the disk. What was only in the memory of a node that crashed never was in its log.
    pub(super) fn write(&mut self, number: usize, frame: Frame) -> Result<(), Broken> {
        let disk = &mut self.nodes[number].disk;
        disk.write(frame.vote, frame.committed, &frame.entries);
        match frame.entries.first() {
            Some(first) => self.checks.appends(number, disk.id_at(first.id.index - 1), &frame.entries),
            None => Ok(()),
        }
    }

    fn schedule_apply(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_mut() else { return };
        if process.is_applying || process.applied >= process.commit {
            return;
        }
        process.is_applying = true;
        let run = node.run;
        let delay = match self.rng.hits(self.weather.slow_apply) {
            true => self.rng.below(400_000),
            false => self.rng.range(20, 1500),
        };
        self.after(delay, Event::Apply { node: number, run });
    }

    /// Applies some committed entries, flushes the state now and then, and drops a part of the log.
    pub(super) fn apply(&mut self, number: usize) -> Result<(), Broken> {
        let (flushes, purges, at_once) = (self.rng.hits(1500), self.rng.hits(1000), self.rng.hits(8000));
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_mut() else { return Ok(()) };
        process.is_applying = false;
        let until = if at_once { process.commit } else { process.commit.min(process.applied + 1) };
        for index in process.applied + 1..=until {
            let entry = process.steps.entry(index).ok_or(format!("node {number} lacks the committed entry {index}"))?;
            self.checks.applies(number, &entry)?;
            if let Some((_, list)) = self.checks.lists.get(&index) {
                process.members = list.clone();
            }
            while process.proposed.front().is_some_and(|id| id.index <= index) {
                // With another term there, the proposal was never committed.
                if process.proposed.pop_front() == Some(entry.id) {
                    self.checks.acknowledged = self.checks.acknowledged.max(index);
                    self.calm_writes += u64::from(self.is_calm);
                }
            }
        }
        process.applied = until.max(process.applied);
        if flushes {
            (node.disk.applied, node.disk.members) = (process.applied, process.members.clone());
        }
        if purges {
            // In every other cluster the disk has no more than the memory.
            let kept = if self.plan.seed.is_multiple_of(2) { 20 } else { 200 };
            node.disk.purge(process.applied.saturating_sub(kept));
            process.steps.trim_log(WINDOW);
            process.steps.purge_stored(node.disk.before.index);
        }
        let applied = process.applied;
        self.schedule_apply(number);
        self.step(number, Input::Applied(applied))?;
        let node = &mut self.nodes[number];
        if let Some(process) = node.process.as_ref() {
            let needed = process.steps.announced_ms().max(node.election_ticks * TICK_MS);
            node.disk.announced = node.disk.announced.min(needed);
        }
        Ok(())
    }

    fn role(&mut self, number: usize, role: Role) -> Result<(), Broken> {
        let Role::Elected { term } = role else { return Ok(()) };
        self.report.elections += 1;
        self.checks.leads(number, term)?;
        // A lease excludes other leaders.
        self.check_leases(number, term)?;
        let Some(process) = self.nodes[number].process.as_ref() else { return Ok(()) };
        // Leader completeness (Ongaro figure 3.2): what is committed is in the log of each later leader.
        let committed = self.checks.committed;
        let has = committed.index <= process.steps.before().index
            || process.steps.entry(committed.index).is_some_and(|entry| entry.id == committed);
        if committed.term < term && !has {
            return Err(format!("node {number} leads term {term} without the committed {committed:?}"));
        }
        Ok(())
    }

    fn send(&mut self, from: usize, message: Message) -> Result<(), Broken> {
        match &message.body {
            Body::VoteResponse { granted: true, .. } => self.checks.votes(message.from, message.term, message.to)?,
            Body::Append { previous, entries, .. } => self.checks.appends(from, *previous, entries)?,
            Body::Vote { .. } => self.checks.votes(message.from, message.term, message.from)?,
            _ => {}
        }
        let Some((to, target)) = self.address(from, message.to) else { return Ok(()) };
        let sent = self.network.send(from, to, self.time, &self.weather, &mut self.rng);
        let Sent { generation, times, is_replaced } = sent;
        if is_replaced {
            self.after(1, Event::Unreachable { node: to, peer: from });
        }
        let sender = Node::incarnation(from, self.nodes[from].incarnation);
        for time in times.into_iter().filter(|time| *time > 0) {
            let message = message.clone();
            self.at(time, Event::Arrive { from, sender, to, target, generation, message });
        }
        Ok(())
    }

    /// The node of a member, and the incarnation that has to be there: from the list of the sender, or from the message
    /// to which it responds. A voter that lacks a part of the log does not know a candidate that was added meanwhile.
    fn address(&self, from: usize, to: RaftId) -> Option<(usize, Incarnation)> {
        let process = self.nodes[from].process.as_ref()?;
        let member = process.members.iter().find(|member| member.id == to).cloned();
        let member = member.or_else(|| process.steps.member(to).map(Cow::into_owned));
        let listed = member.map(|member| (Node::number_of(&member), member.incarnation));
        listed.or_else(|| process.senders.get(&to).copied())
    }

    /// A message arrives. A connection leads to the incarnation that the sender has in its list.
    pub(super) fn arrive(
        &mut self,
        from: usize,
        sender: Incarnation,
        to: usize,
        target: Incarnation,
        generation: u32,
        message: Message,
    ) -> Result<(), Broken> {
        let takes_old = self.planted(Bug::OldConnection);
        let is_other = target != Node::incarnation(to, self.nodes[to].incarnation);
        if is_other && !self.planted(Bug::IncarnationIgnored) {
            return Ok(());
        }
        if !self.network.receives(from, to, generation, takes_old) {
            return Ok(());
        }
        if let Some(process) = self.nodes[to].process.as_mut() {
            process.senders.insert(message.from, (from, sender));
        }
        let origin = Origin { node: Node::name(from), incarnation: sender };
        self.step(to, Input::Message { origin, message })
    }

    /// A leader streams its state at the time of sending.
    fn send_snapshot(&mut self, from: usize, to: RaftId, in_term: u64) {
        let address = self.address(from, to);
        let node = &self.nodes[from];
        let Some(process) = node.process.as_ref() else { return };
        let term = process.steps.entry(process.applied).map_or(process.steps.before().term, |entry| entry.id.term);
        let body = Body::Snapshot { last: LogId { term, index: process.applied }, members: process.members.clone() };
        let message = Message { from: process.steps.id(), to, term: in_term, body };
        let run = node.run;
        let delay = self.rng.range(5_000, 400_000);
        match address.filter(|_| !self.rng.hits(self.weather.drop * 4)) {
            Some((to, target)) => self.after(delay, Event::Snapshot { from, run, to, target, message }),
            None => {
                self.report.faults += 1;
                self.after(delay, Event::SnapshotDone { node: from, run, to, ok: false });
            }
        }
    }

    /// Reads entries for a member that is behind; now and then the disk does not have them any more, or
    /// cannot be read.
    pub(super) fn read_log(&mut self, number: usize, first: u64, end: u64, bytes: u64) -> Result<(), Broken> {
        let (is_purged, has_failed) = (self.rng.hits(500), self.rng.hits(50));
        let disk = &self.nodes[number].disk;
        let entries = if is_purged { Vec::new() } else { disk.read(first, end, bytes) };
        let entries = (!has_failed).then_some(entries);
        self.report.read_entries += entries.as_ref().map_or(0, Vec::len) as u64;
        self.step(number, Input::LogRead { first, entries })
    }

    pub(super) fn receive_snapshot(
        &mut self,
        from: usize,
        run: u32,
        number: usize,
        target: Incarnation,
        message: Message,
    ) -> Result<(), Broken> {
        let node = &self.nodes[number];
        let is_there = node.process.is_some() && target == Node::incarnation(number, node.incarnation);
        let done = Event::SnapshotDone { node: from, run, to: message.to, ok: is_there };
        let delay = self.rng.range(200, 5000);
        self.after(delay, done);
        if !is_there {
            return Ok(());
        }
        let sender = Node::incarnation(from, self.nodes[from].incarnation);
        let origin = Origin { node: Node::name(from), incarnation: sender };
        self.step(number, Input::Snapshot { origin, message })
    }

    /// A node learns that it was removed, and ends for good.
    fn removed(&mut self, number: usize) -> Result<(), Broken> {
        let node = &self.nodes[number];
        if self.checks.newest_list().is_some_and(|(_, list)| list.iter().any(|member| node.is_listed(member))) {
            return Err(format!("node {number} ends, and is a member"));
        }
        self.nodes[number].disk.is_removed = true;
        self.report.departures += 1;
        self.stop(number);
        Ok(())
    }

    /// All earlier frames, then state, log and vote in one piece. A crash may come before or after.
    fn install(&mut self, number: usize, vote: Vote, last: LogId, members: Vec<Member>) -> Result<(), Broken> {
        let (dies_before, dies_after) = (self.rng.hits(300), self.rng.hits(300));
        if dies_before && !self.is_calm {
            return self.crash(number, false);
        }
        self.checks.installs(number, last)?;
        self.report.snapshots += 1;
        let Some(process) = self.nodes[number].process.as_mut() else { return Ok(()) };
        for frame in process.syncing.take().into_iter().chain(process.waiting.take()) {
            self.write(number, frame)?;
        }
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_mut() else { return Ok(()) };
        node.disk.install(vote, last, members.clone());
        (process.applied, process.commit, process.members) = (last.index, last.index, members);
        // The order is that of the positions; what became of those that the snapshot covers stays unknown.
        process.proposed.retain(|id| id.index > last.index);
        if dies_after && !self.is_calm {
            return self.crash(number, false);
        }
        self.step(number, Input::Installed)
    }
}
