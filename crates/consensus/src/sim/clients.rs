//! Clients: they write at the leader and read at every node.

use super::checks::{Broken, Checks};
use super::network::Sent;
use super::node::Call;
use super::world::{Event, World};
use crate::entry::{LogId, RaftId};
use crate::steps::{Input, Role};

impl World {
    /// Writes at a node that leads, or at any.
    pub(super) fn client_writes(&mut self) -> Result<(), Broken> {
        let delay = self.rng.range(10_000, self.weather.write_every);
        self.after(delay, Event::Write);
        let leaders: Vec<usize> = self.running().filter(|node| self.is_leader(*node)).collect();
        let all: Vec<usize> = self.running().collect();
        let chosen = if self.rng.hits(9500) { self.rng.pick(&leaders) } else { self.rng.pick(&all) };
        let Some(&number) = chosen.or(self.rng.pick(&all)) else { return Ok(()) };
        if self.time < self.nodes[number].paused_until {
            return Ok(());
        }
        let count = self.rng.range(1, 5);
        let payloads = (0..count).map(|_| self.payload()).collect();
        self.propose(number, Input::Propose(payloads), count)
    }

    /// Gives a node an input that appends `count` entries, and remembers their positions.
    pub(super) fn propose(&mut self, number: usize, input: Input, count: u64) -> Result<(), Broken> {
        let before = self.nodes[number].process.as_ref().map_or(0, |process| process.steps.status().last.index);
        let is_leader = self.is_leader(number);
        self.step(number, input)?;
        let Some(process) = self.nodes[number].process.as_mut() else { return Ok(()) };
        let status = process.steps.status();
        // The effect says the same; the state is easier to read here.
        if is_leader && status.last.index == before + count {
            let ids = (before + 1..=before + count).map(|index| LogId { term: status.term, index });
            process.proposed.retain(|id| id.index <= before);
            process.proposed.extend(ids);
        }
        Ok(())
    }

    /// Reads at any node: a leader serves them itself, another node sends them to the leader that it knows.
    pub(super) fn client_reads(&mut self) -> Result<(), Broken> {
        let delay = self.rng.range(5_000, 120_000);
        self.after(delay, Event::Read);
        let all: Vec<usize> = self.running().collect();
        let Some(&number) = self.rng.pick(&all) else { return Ok(()) };
        if self.time < self.nodes[number].paused_until {
            return Ok(());
        }
        let floor = self.checks.acknowledged;
        let Some(process) = self.nodes[number].process.as_ref() else { return Ok(()) };
        let leader = match process.steps.role() {
            Role::Following { leader, .. } => leader,
            _ => return self.call(number, floor),
        };
        let Some(to) = leader.and_then(|leader| self.number_of(number, leader)) else { return Ok(()) };
        let Sent { generation, times, .. } = self.network.send(number, to, self.time, &self.weather, &mut self.rng);
        if times[0] > 0 {
            self.at(times[0], Event::Call { from: number, to, generation, floor });
        }
        Ok(())
    }

    /// A call reaches a node.
    pub(super) fn call(&mut self, number: usize, floor: u64) -> Result<(), Broken> {
        self.next_call += 1;
        let id = self.next_call;
        let Some(process) = self.nodes[number].process.as_mut() else { return Ok(()) };
        process.calls.insert(id, Call { floor });
        self.step(number, Input::ReadIndex(id))
    }

    pub(super) fn read_ready(&mut self, number: usize, id: u64, index: u64) -> Result<(), Broken> {
        let call = self.nodes[number].process.as_mut().and_then(|process| process.calls.remove(&id));
        let Call { floor } = call.ok_or_else(|| format!("node {number} responds to call {id} twice"))?;
        self.report.reads += 1;
        self.calm_reads += u64::from(self.is_calm);
        Checks::reads(number, index, floor)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = usize> {
        self.nodes.iter().filter(|node| node.process.is_some()).map(|node| node.number)
    }

    pub(super) fn is_leader(&self, number: usize) -> bool {
        let role = self.nodes[number].process.as_ref().map(|process| process.steps.role());
        role.is_some_and(|role| !matches!(role, Role::Following { .. }))
    }

    fn number_of(&self, from: usize, id: RaftId) -> Option<usize> {
        let process = self.nodes[from].process.as_ref()?;
        process.members.iter().find(|member| member.id == id).map(super::node::Node::number_of)
    }
}
