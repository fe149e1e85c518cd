//! Faults of nodes and links, and their end.

use super::checks::Broken;
use super::links::Links;
use super::node::{Node, Place, Process};
use super::world::{Event, World};
use crate::entry::LogId;
use crate::member::Member;
use crate::message::{Body, Message};
use crate::steps::{Chance, Input, Origin};

impl World {
    /// One fault.
    pub(super) fn fault(&mut self) -> Result<(), Broken> {
        if self.is_calm {
            return Ok(());
        }
        let delay = self.rng.below(2 * self.weather.fault_every);
        self.after(delay, Event::Fault);
        let weights = [self.weather.crashes, self.weather.cuts, self.weather.resets, self.weather.pauses];
        let sum = weights.iter().sum::<u64>();
        if sum == 0 {
            return Ok(());
        }
        let mut drawn = self.rng.below(sum);
        let kind = weights.iter().position(|weight| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        // Half of the faults hit a leader: it matters most.
        let all: Vec<usize> = self.running().collect();
        let leaders: Vec<usize> = all.iter().copied().filter(|node| self.is_leader(*node)).collect();
        let victims = if self.rng.hits(5000) && !leaders.is_empty() { &leaders } else { &all };
        let Some(&victim) = self.rng.pick(victims) else { return Ok(()) };
        self.report.faults += 1;
        if self.weather.aims_at_leases
            && self.rng.hits(7000)
            && let Some(leader) = self.rng.pick(&leaders).copied()
        {
            return self.aim_at_lease(leader, victim);
        }
        match kind {
            Some(0) => {
                let is_synced = self.rng.hits(5000);
                self.crash(victim, is_synced)?;
            }
            Some(1) => self.cut(victim),
            Some(2) => {
                let other = self.rng.below(self.weather.nodes as u64) as usize;
                self.network.links.reset(victim, other);
                if self.rng.hits(5000) {
                    self.network.links.reset(other, victim);
                }
                if self.rng.hits(5000) {
                    let id = self.nodes[other].id;
                    self.step(victim, Input::Unreachable(id))?;
                }
            }
            _ => {
                let pause = self.rng.range(20_000, 3_000_000);
                self.pause(victim, pause);
            }
        }
        Ok(())
    }

    /// Votes that nobody has given reach a candidate whose own vote is not synced, and which has requested none.
    pub(super) fn forge_votes(&mut self, number: usize) -> Result<(), Broken> {
        let process = self.nodes[number].process.as_ref().filter(|process| process.syncing.is_some());
        let Some(process) = process else { return Ok(()) };
        let (to, term) = (process.steps.id(), process.steps.status().term);
        let others: Vec<Member> = process.steps.members().iter().filter(|member| member.id != to).cloned().collect();
        for member in others {
            self.report.faults += 1;
            let body = Body::VoteResponse { granted: true, commit: LogId::default() };
            let origin = Origin { node: member.node, incarnation: member.incarnation };
            let message = Message { from: member.id, to, term, body };
            self.step(number, Input::Message { origin, message })?;
        }
        Ok(())
    }

    /// A follower that does not hear the leader campaigns at others, which have just started again.
    fn aim_at_lease(&mut self, leader: usize, victim: usize) -> Result<(), Broken> {
        if victim != leader && self.rng.hits(7000) {
            let down = self.rng.range(1_000, 60_000);
            return self.crash_for(victim, true, down);
        }
        let until = self.time + self.rng.range(2_000_000, 8_000_000);
        let cut_off = self.rng.below(self.weather.nodes as u64) as usize;
        self.network.links.cut(leader, cut_off, until);
        self.network.links.cut(cut_off, leader, until);
        Ok(())
    }

    /// One direction between two nodes, all directions of a node, or one kind of them.
    fn cut(&mut self, victim: usize) {
        let until = self.time + self.rng.range(50_000, 6_000_000);
        let other = self.rng.below(self.weather.nodes as u64) as usize;
        let kind = self.rng.below(Links::CUTS);
        self.network.links.cut_some(kind, victim, other, until);
    }

    fn pause(&mut self, victim: usize, time: u64) {
        let node = &mut self.nodes[victim];
        node.paused_until = node.paused_until.max(self.time + time);
        let until = node.paused_until;
        self.at(until, Event::Resume { node: victim });
    }

    /// The process ends. The frame that is being synced may have reached the disk; what waits has not.
    pub(super) fn crash(&mut self, victim: usize, is_synced: bool) -> Result<(), Broken> {
        let longest = if self.rng.hits(4000) { 100_000 } else { 4_000_000 };
        let down = self.rng.range(1_000, longest);
        self.crash_for(victim, is_synced, down)
    }

    fn crash_for(&mut self, victim: usize, is_synced: bool, down: u64) -> Result<(), Broken> {
        let process = self.stop(victim);
        if let Some(frame) = process.and_then(|process| process.syncing).filter(|_| is_synced) {
            self.write(victim, frame)?;
        }
        if self.rng.hits(self.weather.changes_times) {
            self.nodes[victim].election_ticks = [8, 12, 24][self.rng.below(3) as usize];
        }
        let run = self.nodes[victim].run;
        self.after(down, Event::Start { node: victim, run });
        Ok(())
    }

    /// Ends a process without a chance to do anything more.
    pub(super) fn stop(&mut self, victim: usize) -> Option<Process> {
        let node = &mut self.nodes[victim];
        node.run += 1;
        let backlog = std::mem::take(&mut node.backlog);
        let process = node.process.take();
        // The sender of a snapshot sees that its connection ends.
        for event in backlog {
            if let Event::Snapshot { from, run, message, .. } = event {
                self.after(1000, Event::SnapshotDone { node: from, run, to: message.to, ok: false });
            }
        }
        self.network.links.reset_all(victim);
        process
    }

    /// A voter loses its disk, if the others can do without it. It starts again and takes itself for what it was.
    pub(super) fn lose_disk(&mut self, victim: usize) {
        self.report.faults += 1;
        self.stop(victim);
        let members = self.checks.newest_list().map(|(_, list)| list.to_vec()).unwrap_or_default();
        let node = &mut self.nodes[victim];
        node.incarnation += 1;
        node.place = Place::Impostor;
        let announced = node.disk.announced;
        let empty = super::disk::Disk { members, announced, ..Default::default() };
        node.lost = Some(std::mem::replace(&mut node.disk, empty));
        let run = node.run;
        self.after(100_000, Event::Start { node: victim, run });
    }

    /// The faults cease.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.weather.calm();
        self.network.links.heal();
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            if node.paused_until > self.time {
                node.paused_until = self.time;
                self.at(self.time, Event::Resume { node: number });
            }
            let run = self.nodes[number].run;
            self.at(self.time + 1000, Event::Start { node: number, run });
        }
    }

    /// At the end callers are served, and every member that has its disk has applied what the others have.
    pub(super) fn check_liveness(&self) -> Result<(), Broken> {
        let Some((_, list)) = self.checks.newest_list() else { return Ok(()) };
        if self.calm_writes == 0 || self.calm_reads == 0 {
            return Err(format!("{} writes and {} reads in peace", self.calm_writes, self.calm_reads));
        }
        for member in list {
            let node = &self.nodes[Node::number_of(member)];
            let applied = node.process.as_ref().map_or(0, |process| process.applied);
            if node.is_listed(member) && applied + 20 < self.checks.committed.index {
                let committed = self.checks.committed.index;
                return Err(format!("node {} is at {applied} of {committed} after peace", node.number));
            }
        }
        Ok(())
    }
}
