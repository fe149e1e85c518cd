//! The loop of events.

use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::checks::{Broken, Checks};
use super::network::Network;
use super::node::{Clock, Node, Place, Process};
use super::rng::{Rng, Trace};
use super::schedule::Schedule;
use super::weather::Weather;
use super::{Plan, Report};
use crate::entry::{Entry, LogId, Mono, RaftId};
use crate::member::{Incarnation, Member};
use crate::message::Message;
use crate::planted::Bug;
use crate::steps::{Boot, Chance, Effect, Input, Role, Settings, Steps};

/// The shortest election timeout of a new node, in ticks.
const ELECTION_TICKS: u32 = 12;
/// The time of a tick, in milliseconds.
pub(super) const TICK_MS: u32 = 50;

/// The index at which the cluster begins: above the ids of its members.
const FIRST: u64 = 10;

/// The time without faults at the end, in microseconds.
const CALM: u64 = 12_000_000;

/// What happens at a time.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Tick { node: usize, run: u32 },
    Arrive { from: usize, sender: Incarnation, to: usize, target: Incarnation, generation: u32, message: Message },
    Call { from: usize, to: usize, generation: u32, floor: u64 },
    Synced { node: usize, run: u32 },
    Forge { node: usize, run: u32 },
    Apply { node: usize, run: u32 },
    ReadLog { node: usize, run: u32, first: u64, end: u64, bytes: u64 },
    Snapshot { from: usize, run: u32, to: usize, target: Incarnation, message: Message },
    SnapshotDone { node: usize, run: u32, to: RaftId, ok: bool },
    Unreachable { node: usize, peer: usize },
    Crash { node: usize, run: u32 },
    Start { node: usize, run: u32 },
    Resume { node: usize },
    Write,
    Read,
    Operate,
    Fault,
    Calm,
}

/// Everything.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) weather: Weather,
    pub(super) rng: Rng,
    pub(super) time: u64,
    schedule: Schedule<Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) checks: Checks,
    pub(super) trace: Trace,
    pub(super) report: Report,
    pub(super) next_call: u64,
    pub(super) is_calm: bool,
    /// What was acknowledged and read since the faults ceased.
    pub(super) calm_writes: u64,
    pub(super) calm_reads: u64,
    effects: Vec<Effect>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let weather = Weather::draw(&mut rng, plan.scene);
        let nodes = (0..weather.nodes).map(|number| {
            let clock = Clock {
                offset: rng.below(1 << 40),
                rate: 1_000_000 - weather.drift + rng.below(2 * weather.drift + 1),
            };
            Node {
                number,
                incarnation: 0,
                place: Place::Spare,
                id: RaftId(0),
                disk: super::disk::Disk::default(),
                lost: None,
                clock,
                process: None,
                run: 0,
                paused_until: 0,
                election_ticks: ELECTION_TICKS,
                backlog: std::collections::VecDeque::new(),
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut world = Self {
            network: Network::new(weather.nodes),
            plan,
            weather,
            rng,
            time: 0,
            schedule: Schedule::default(),
            nodes,
            checks: Checks::default(),
            trace: Trace::default(),
            report: Report::default(),
            next_call: 0,
            is_calm: false,
            calm_writes: 0,
            calm_reads: 0,
            effects: Vec::new(),
        };
        world.form_cluster();
        world
    }

    /// The first members begin with the same state at one index, as a restored backup would.
    fn form_cluster(&mut self) {
        let count = self.weather.voters + self.weather.learners;
        let first = |node: &Node| node.member(RaftId(node.number as u64 + 1), node.number < self.weather.voters);
        let members: Vec<Member> = self.nodes[..count].iter().map(first).collect();
        let before = LogId { term: 1, index: FIRST };
        for node in &mut self.nodes[..count] {
            node.place = Place::Member;
            node.id = RaftId(node.number as u64 + 1);
            node.disk.install(crate::entry::Vote { term: 1, candidate: RaftId(0) }, before, members.clone());
        }
        self.checks.lists.insert(FIRST, (1, members));
        for node in 0..count {
            self.at(node as u64 * 1000, Event::Start { node, run: 0 });
        }
        for event in [Event::Write, Event::Read, Event::Operate, Event::Fault] {
            self.at(500_000, event);
        }
        self.at(self.plan.seconds * 1_000_000 - CALM, Event::Calm);
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.schedule.add(time.max(self.time), event);
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.time + delay, event);
    }

    /// Runs to the end or to the first broken rule.
    pub(super) fn run(mut self) -> Report {
        let end = self.plan.seconds * 1_000_000;
        let mut result = Ok(());
        while let Some((time, event)) = self.schedule.pop() {
            if time > end {
                break;
            }
            self.time = time;
            self.report.events += 1;
            result = self.happen(event);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| self.check_liveness());
        self.report.broken = result.err().map(|what| format!("{what} ({} us)", self.time));
        self.report.faults += self.network.faults;
        self.report.commits = self.checks.committed.index;
        self.report.changes = self.checks.lists.len() as u64 - 1;
        self.report.trace = self.trace.finish();
        self.report
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Write => self.client_writes(),
            Event::Read => self.client_reads(),
            Event::Operate => self.operate(),
            Event::Fault => self.fault(),
            Event::Calm => {
                self.calm();
                Ok(())
            }
            Event::Start { node, run } => self.start(node, run),
            Event::Crash { node, run } if self.is_run(node, run) && !self.is_calm => self.crash(node, false),
            Event::Crash { .. } => Ok(()),
            Event::Resume { node } => self.resume(node),
            event => {
                let node = addressee(&event);
                if self.time < self.nodes[node].paused_until {
                    self.nodes[node].backlog.push_back(event);
                    return Ok(());
                }
                self.happen_to(node, event)
            }
        }
    }

    fn resume(&mut self, node: usize) -> Result<(), Broken> {
        while self.time >= self.nodes[node].paused_until {
            let Some(event) = self.nodes[node].backlog.pop_front() else { break };
            self.happen_to(node, event)?;
        }
        Ok(())
    }

    fn happen_to(&mut self, node: usize, event: Event) -> Result<(), Broken> {
        match event {
            Event::Tick { run, .. } if self.is_run(node, run) => {
                let delay = self.rng.range(45_000, 52_000);
                self.after(delay, Event::Tick { node, run });
                self.step(node, Input::Tick)
            }
            Event::Arrive { from, sender, target, generation, message, .. } => {
                self.arrive(from, sender, node, target, generation, message)
            }
            Event::Call { from, generation, floor, .. } => {
                if !self.network.receives(from, node, generation, false) {
                    return Ok(());
                }
                self.call(node, floor)
            }
            Event::Unreachable { peer, .. } => {
                let id = self.nodes[peer].id;
                self.step(node, Input::Unreachable(id))
            }
            Event::Synced { run, .. } if self.is_run(node, run) => self.synced(node),
            Event::Forge { run, .. } if self.is_run(node, run) => self.forge_votes(node),
            Event::Apply { run, .. } if self.is_run(node, run) => self.apply(node),
            Event::ReadLog { run, first, end, bytes, .. } if self.is_run(node, run) => {
                self.read_log(node, first, end, bytes)
            }
            Event::Snapshot { from, run, target, message, .. } => {
                self.receive_snapshot(from, run, node, target, message)
            }
            Event::SnapshotDone { run, to, ok, .. } if self.is_run(node, run) => {
                self.step(node, Input::SnapshotDone { to, ok })
            }
            _ => Ok(()),
        }
    }

    fn is_run(&self, node: usize, run: u32) -> bool {
        self.nodes[node].run == run && self.nodes[node].process.is_some()
    }

    /// The local time of a node.
    pub(super) fn now(&self, node: usize) -> Mono {
        self.nodes[node].clock.read(self.time)
    }

    /// Starts the process of a node from its disk.
    fn start(&mut self, number: usize, run: u32) -> Result<(), Broken> {
        let now = self.now(number);
        let node = &mut self.nodes[number];
        if node.run != run || node.process.is_some() || node.place == Place::Spare || node.disk.is_removed {
            return Ok(());
        }
        node.disk.announced = node.disk.announced.max(node.election_ticks * TICK_MS);
        let disk = &node.disk;
        // As much as a member that is behind may need stays on the disk.
        let before = disk.id_at(disk.applied.saturating_sub(20).max(disk.before.index));
        let entries = disk.entries.iter().filter(|entry| entry.id.index > before.index).cloned();
        let entries: Vec<Entry> = entries.collect();
        let boot = Boot {
            id: node.id,
            members: disk.members.clone(),
            vote: disk.vote,
            before,
            entries,
            committed: disk.committed,
            applied: disk.applied,
            epoch: self.rng.draw(),
            announced_ms: disk.announced,
            recovered: 0,
        };
        let mut steps = Steps::new(settings(self.plan.planted, node.election_ticks), boot, now, &mut self.rng)
            .map_err(|e| e.to_string())?;
        steps.set_stored(disk.before, &disk.terms());
        let status = steps.status();
        node.process = Some(Process {
            waiting: None,
            syncing: None,
            commit: disk.applied,
            applied: disk.applied,
            members: disk.members.clone(),
            senders: std::collections::HashMap::new(),
            is_applying: false,
            proposed: std::collections::VecDeque::new(),
            calls: std::collections::HashMap::new(),
            term: status.term,
            committed: status.committed,
            steps,
        });
        let delay = self.rng.below(50_000);
        self.after(delay, Event::Tick { node: number, run });
        Ok(())
    }

    /// Gives a node an input, performs the effects and checks the rules.
    pub(super) fn step(&mut self, node: usize, input: Input) -> Result<(), Broken> {
        let now = self.now(node);
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let mut effects = std::mem::take(&mut self.effects);
        process.steps.step(now, input, &mut self.rng, &mut effects);
        (self.time, node).hash(&mut self.trace);
        effects.hash(&mut self.trace);
        let mut result = self.check_step(node);
        for effect in effects.drain(..) {
            if result.is_ok() {
                result = self.perform(node, effect);
            }
        }
        self.effects = effects;
        result
    }

    /// What must hold for a node after a step, and what a new commit must not contradict.
    fn check_step(&mut self, number: usize) -> Result<(), Broken> {
        let Some(process) = self.nodes[number].process.as_mut() else { return Ok(()) };
        let status = process.steps.status();
        if status.term < process.term || status.committed < process.committed {
            return Err(format!("node {number} goes back to {status:?}"));
        }
        (process.term, process.committed) = (status.term, status.committed);
        let is_leader = !matches!(status.role, Role::Following { .. });
        if !is_leader {
            return Ok(());
        }
        if let Some(peer) = process.steps.progress().find(|peer| peer.next <= peer.matched) {
            return Err(format!("node {number} would send again what {peer:?} has"));
        }
        let id = process.steps.id();
        if !process.steps.members().iter().any(|member| member.id == id && member.voter) {
            return Err(format!("node {number} leads and is no voter"));
        }
        if status.committed > self.checks.committed.index {
            return self.check_commit(number, status.committed, status.term);
        }
        Ok(())
    }

    /// A commit is on a majority of disks.
    fn check_commit(&mut self, number: usize, index: u64, term: u64) -> Result<(), Broken> {
        let Some(process) = self.nodes[number].process.as_ref() else { return Ok(()) };
        let entry = process.steps.entry(index);
        let id = entry.map_or(process.steps.before(), |entry| entry.id);
        let voters: Vec<&Member> = process.steps.members().iter().filter(|member| member.voter).collect();
        let on_disk = voters.iter().filter(|member| {
            let disk = self.nodes[Node::number_of(member)].disk_of(member);
            disk.is_some_and(|disk| disk.has(id))
        });
        let count = on_disk.count();
        if count * 2 <= voters.len() {
            return Err(format!("node {number} commits {id:?} with {count} of {} disks", voters.len()));
        }
        self.check_leases(number, term)?;
        self.checks.committed = id;
        Ok(())
    }

    /// No other node has a lease of an earlier term.
    pub(super) fn check_leases(&self, number: usize, term: u64) -> Result<(), Broken> {
        for other in self.nodes.iter().filter(|node| node.number != number) {
            let Some(process) = other.process.as_ref() else { continue };
            if process.term < term && process.steps.holds_lease_at(other.clock.read(self.time)) {
                return Err(format!("node {number} leads term {term} while node {} has a lease", other.number));
            }
        }
        Ok(())
    }

    /// Payloads of clients, all different.
    pub(super) fn payload(&mut self) -> Bytes {
        let body = self.rng.draw().to_le_bytes();
        crate::payload::Payload::Batch(Bytes::copy_from_slice(&body)).encode()
    }

    pub(super) fn planted(&self, bug: Bug) -> bool {
        self.plan.planted == Some(bug)
    }
}

/// The settings of every node. Small messages, so that entries need several.
fn settings(planted: Option<Bug>, election_ticks: u32) -> Settings {
    Settings {
        tick: u64::from(TICK_MS) * 1000,
        heartbeat_ticks: 2,
        election_ticks: election_ticks as usize,
        max_message_bytes: 200,
        max_inflight: 8,
        max_unapplied_bytes: 4000,
        read_lease: true,
        read_retry: 500_000,
        read_deadline: 2_000_000,
        planted,
    }
}

/// The node that an event happens to.
fn addressee(event: &Event) -> usize {
    match event {
        Event::Tick { node, .. } | Event::Synced { node, .. } | Event::Apply { node, .. } => *node,
        Event::Forge { node, .. } | Event::ReadLog { node, .. } => *node,
        Event::SnapshotDone { node, .. } | Event::Start { node, .. } => *node,
        Event::Crash { node, .. } | Event::Resume { node } | Event::Unreachable { node, .. } => *node,
        Event::Arrive { to, .. } | Event::Call { to, .. } | Event::Snapshot { to, .. } => *to,
        Event::Write | Event::Read | Event::Operate | Event::Fault | Event::Calm => 0,
    }
}
