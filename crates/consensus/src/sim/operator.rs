//! An operator: transfers leadership, adds, promotes, demotes and removes members, replaces lost disks.

use super::checks::Broken;
use super::node::{Node, Place};
use super::world::{Event, TICK_MS, World};
use crate::entry::RaftId;
use crate::member::{Change, Member};
use crate::steps::{Chance, Input, Role};

impl World {
    /// One operation.
    pub(super) fn operate(&mut self) -> Result<(), Broken> {
        let delay = self.rng.below(2 * self.weather.operate_every);
        self.after(delay, Event::Operate);
        self.place_nodes();
        if self.is_calm {
            return Ok(());
        }
        let leading = self.running().find(|number| {
            let process = self.nodes[*number].process.as_ref();
            let role = process.map(|process| process.steps.role());
            matches!(role, Some(Role::Leading { .. })) && self.time >= self.nodes[*number].paused_until
        });
        let Some(leader) = leading else { return Ok(()) };
        // A transfer ends the lease of its term.
        if self.rng.hits(if self.weather.aims_at_leases { 0 } else { 1000 }) {
            let to = if self.rng.hits(5000) { None } else { self.any_member().map(|member| member.node) };
            self.report.faults += 1;
            return self.step(leader, Input::Transfer(to));
        }
        if self.weather.loses_disks && self.rng.hits(1000) {
            self.lose_some_disk();
            return Ok(());
        }
        if self.rng.hits(300) {
            let input = if self.rng.hits(5000) { Input::StepDown } else { Input::VoidLease };
            return self.step(leader, input);
        }
        if !self.weather.changes_members {
            return Ok(());
        }
        match self.choose_change(leader) {
            Some(change) => self.propose(leader, Input::Change(change), 1),
            None => Ok(()),
        }
    }

    fn any_member(&mut self) -> Option<Member> {
        let list = self.checks.newest_list().map(|(_, list)| list.to_vec())?;
        self.rng.pick(&list).cloned()
    }

    /// A change that the cluster survives: those voters that have their disk stay a majority.
    fn choose_change(&mut self, leader: usize) -> Option<Change> {
        let list = self.nodes[leader].process.as_ref()?.steps.members().to_vec();
        // A member without its disk first.
        if let Some(lost) = list.iter().find(|member| !self.has_disk(member))
            && self.rng.hits(6000)
        {
            return Some(Change::Remove(lost.node.clone()));
        }
        let member = self.rng.pick(&list)?.clone();
        match self.rng.below(10) {
            0..=2 => {
                let spares: Vec<usize> = (0..self.nodes.len())
                    .filter(|number| self.nodes[*number].place == Place::Spare)
                    .filter(|number| list.iter().all(|member| Node::number_of(member) != *number))
                    .collect();
                let spare = *self.rng.pick(&spares)?;
                Some(Change::AddLearner(self.nodes[spare].member(RaftId(1), false)))
            }
            3..=5 => {
                let learner = list.iter().find(|member| !member.voter && self.has_disk(member))?;
                Some(Change::Promote(learner.node.clone()))
            }
            6 if self.can_spare(&list, &member) => Some(Change::Demote(member.node)),
            7 | 8 if self.can_spare(&list, &member) => Some(Change::Remove(member.node)),
            9 => Some(Change::Update(self.update(leader, member))),
            _ => None,
        }
    }

    /// Another version, and the election timeout of the leader, which it may have got by a restart: a node announces its
    /// own when it leads.
    fn update(&mut self, leader: usize, member: Member) -> Member {
        let node = &self.nodes[leader];
        let election_ms = if node.is_listed(&member) { node.election_ticks * TICK_MS } else { member.election_ms };
        Member { version: format!("{}", self.rng.below(9)), election_ms, ..member }
    }

    fn has_disk(&self, member: &Member) -> bool {
        self.nodes[Node::number_of(member)].is_listed(member)
    }

    /// Whether a majority with disks is left without this voter.
    fn can_spare(&self, list: &[Member], without: &Member) -> bool {
        let rest = list.iter().filter(|member| member.voter && member.id != without.id);
        let (all, healthy) =
            rest.fold((0, 0), |(all, healthy), member| (all + 1, healthy + usize::from(self.has_disk(member))));
        !without.voter || healthy * 2 > all
    }

    /// A voter may lose its disk if the others with disks are a majority of every list that may take effect.
    fn lose_some_disk(&mut self) {
        let Some(victim) = self.any_member() else { return };
        let Some((at, list)) = self.checks.newest_list() else { return };
        let is_open = self.nodes.iter().any(|node| {
            let in_log = node.disk.entries.iter().any(|entry| is_newer_list(entry, at.index));
            let waiting = node.process.as_ref().is_some_and(|process| {
                let frames = process.syncing.iter().chain(&process.waiting);
                frames.flat_map(|frame| &frame.entries).any(|entry| is_newer_list(entry, at.index))
            });
            in_log || waiting
        });
        // They also know that the list is committed; under the list before they might be too few.
        let healthy =
            list.iter().filter(|m| m.voter && m.id != victim.id && self.has_disk(m) && self.has_on_disk(m, at.index));
        let healthy = healthy.count();
        let voters = list.iter().filter(|member| member.voter).count();
        if !is_open && victim.voter && self.has_disk(&victim) && healthy * 2 > voters {
            self.lose_disk(Node::number_of(&victim));
        }
    }

    /// Nodes that were added start as joiners; those that were removed are wiped, but not before the removal is on a
    /// majority of the disks that are left (obligation O7).
    fn place_nodes(&mut self) {
        let Some((at, list)) = self.checks.newest_list() else { return };
        let list = list.to_vec();
        let voters: Vec<&Member> = list.iter().filter(|member| member.voter).collect();
        let durable = voters.iter().filter(|member| self.has_disk(member) && self.has_on_disk(member, at.index));
        let is_durable = durable.count() * 2 > voters.len();
        for number in 0..self.nodes.len() {
            // Some learn from a leader that they were removed.
            let is_wiped = is_durable && (self.rng.hits(3000) || self.nodes[number].disk.is_removed);
            let node = &mut self.nodes[number];
            let listed = list.iter().find(|member| node.is_listed(member));
            match (node.place, listed) {
                (Place::Spare, Some(member)) => {
                    node.place = Place::Member;
                    node.id = member.id;
                    node.disk.members = list.clone();
                    let run = node.run;
                    self.after(10_000, Event::Start { node: number, run });
                }
                (Place::Member, None) if is_wiped => self.wipe(number),
                (Place::Impostor, None) if is_wiped && list.iter().all(|m| Node::number_of(m) != number) => {
                    self.wipe(number);
                }
                _ => {}
            }
        }
    }

    /// Whether an entry at an index, and so everything before it, is on the disk of a member.
    fn has_on_disk(&self, member: &Member, index: u64) -> bool {
        let disk = &self.nodes[Node::number_of(member)].disk;
        let committed = disk.committed.max(disk.applied);
        committed >= index && disk.before.index + disk.entries.len() as u64 >= index
    }

    fn wipe(&mut self, number: usize) {
        self.stop(number);
        let node = &mut self.nodes[number];
        node.incarnation += 1;
        node.place = Place::Spare;
        // A leader that has not applied the removal still counts what this disk acknowledged.
        node.lost = Some(std::mem::take(&mut node.disk));
    }
}

fn is_newer_list(entry: &crate::entry::Entry, than: u64) -> bool {
    entry.id.index > than && crate::payload::Payload::is_members(&entry.payload)
}
