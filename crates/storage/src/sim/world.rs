//! The loop of events.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::Hasher,
    sync::Arc,
};

use keepfast_consensus::{
    Chance,
    sim::{Rng, Schedule, Trace},
};
use keepfast_crypto::random;
use parking_lot::Mutex;

use super::{
    Plan, Report,
    checks::Broken,
    clock::Clock,
    network::Network,
    node::{Damage, Done, Node, Process, Work},
    oracle::Oracle,
    phase::Waits,
    port::Packet,
    weather::Weather,
};
use crate::{
    Origin, RootKey,
    local::sim_disk::SimDisk,
    simulated::{self, Setting},
};

/// The time within which the cluster must be complete before the first fault.
const FORMS_WITHIN: u64 = 20_000_000;
/// The time without faults at the end, and the part of it without calls of clients.
const PEACE: u64 = 9_000_000;
const QUIET: u64 = 1_500_000;
/// A process with tasks runs at least this often, for their timers.
const MOST_IDLE: u64 = 20_000;

/// What happens at a time.
pub(super) enum Event {
    Wake {
        node: usize,
        run: u32,
    },
    Disk {
        node: usize,
        run: u32,
    },
    Apply {
        node: usize,
        run: u32,
    },
    Arrive {
        from: Origin,
        to: usize,
        generation: u32,
        packet: Packet,
    },
    CallFails {
        node: usize,
        run: u32,
        call: u64,
    },
    StreamFails {
        node: usize,
        run: u32,
        from: Origin,
        call: u64,
    },
    Crash {
        node: usize,
        run: u32,
        keeps_unsynced: bool,
    },
    Start {
        node: usize,
        run: u32,
    },
    Wipe {
        node: usize,
        run: u32,
    },
    Resume {
        node: usize,
    },
    /// The disk of a node has room again.
    Room {
        node: usize,
        run: u32,
    },
    Client,
    Operate,
    Fault,
    Peace,
    Quiet,
}

/// What the simulation is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The members join.
    Forming,
    Faults,
    Peace,
    /// The clients have ended.
    Quiet,
}

/// Everything.
pub(super) struct World {
    pub(super) plan: Plan,
    /// As it is now, and as it is while there are faults.
    pub(super) weather: Weather,
    pub(super) bad_weather: Weather,
    pub(super) stage: Stage,
    pub(super) rng: Rng,
    pub(super) time: u64,
    end: u64,
    schedule: Schedule<Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    /// What the entries have written, by the first node that has applied them.
    pub(super) entries: BTreeMap<u64, (Option<u64>, usize)>,
    /// Writes and reads of each node in peace.
    pub(super) served: Vec<[u64; 2]>,
    pub(super) report: Report,
    trace: Trace,
    pub(super) root: RootKey,
    broken: Option<Broken>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        simulated::seed(plan.seed);
        let bad_weather = Weather::draw(&mut rng);
        let mut weather = bad_weather.clone();
        weather.calm();
        weather.operate_every = 20_000;
        let count = weather.nodes;
        let nodes = (0..count).map(|number| {
            let drift = weather.drift;
            let rate = 1_000_000 - drift + rng.below(2 * drift + 1);
            Node {
                number,
                disk: SimDisk::new(rng.draw()),
                clock: Clock { start: 1 + rng.below(1 << 40), rate, frozen: 0, steps: 0 },
                process: None,
                run: 0,
                paused_until: 0,
                frozen_since: None,
                backlog: VecDeque::new(),
                damage: Damage::default(),
                origin: None,
                voted: None,
                is_spare: number > 0,
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut world = Self {
            plan,
            network: Network::new(count),
            oracle: Arc::new(Mutex::new(Oracle::new(weather.registers))),
            weather,
            bad_weather,
            stage: Stage::Forming,
            rng,
            time: 0,
            end: FORMS_WITHIN,
            schedule: Schedule::default(),
            nodes,
            entries: BTreeMap::new(),
            served: vec![[0, 0]; count],
            report: Report::default(),
            trace: Trace::default(),
            root: random::key(),
            broken: None,
        };
        for node in 0..count {
            world.at(0, Event::Start { node, run: 0 });
        }
        world.at(1_000, Event::Operate);
        world.at(100_000, Event::Client);
        world
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.schedule.add(time.max(self.time), event);
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.time + delay, event);
    }

    /// Runs to the end or to the first broken rule.
    pub(super) fn run(mut self) -> Report {
        while let Some((time, event)) = self.schedule.pop() {
            if time > self.end || self.broken.is_some() {
                break;
            }
            self.time = time;
            self.report.events += 1;
            self.happen(event);
            let broken = self.oracle.lock().broken.take();
            if let Some(broken) = broken {
                self.breaks(broken);
            }
        }
        if self.broken.is_none() && self.stage != Stage::Quiet {
            self.breaks("the cluster does not form".to_owned());
        }
        if self.broken.is_none()
            && let Err(broken) = self.check_end()
        {
            self.breaks(broken);
        }
        self.end_all();
        let oracle = self.oracle.lock();
        self.report.broken = self.broken;
        self.report.faults += self.network.lost;
        (self.report.writes, self.report.reads) = (oracle.writes, oracle.reads);
        self.trace.write_u64(oracle.writes << 32 | oracle.reads);
        self.report.trace = self.trace.finish();
        self.report
    }

    fn end_all(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.end(self.time));
    }

    /// Notes the first broken rule.
    pub(super) fn breaks(&mut self, what: Broken) {
        let time = self.time;
        self.broken.get_or_insert_with(|| format!("{what} ({time} us)"));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Client if self.stage != Stage::Quiet => self.client(),
            Event::Client => {}
            Event::Operate => self.operate(),
            Event::Fault => self.fault(),
            Event::Peace => self.make_peace(),
            Event::Quiet => self.stage = Stage::Quiet,
            Event::Start { node, run } if self.nodes[node].run == run => self.start(node),
            Event::Crash { node, run, keeps_unsynced } if self.nodes[node].run == run => {
                self.crash(node, keeps_unsynced)
            }
            Event::Wipe { node, run } if self.nodes[node].run == run => self.wipe(node),
            Event::Room { node, run } if self.nodes[node].run == run => self.nodes[node].disk.heal(),
            Event::Start { .. } | Event::Crash { .. } | Event::Wipe { .. } | Event::Room { .. } => {}
            Event::Resume { node } => self.resume(node),
            event => {
                let node = addressee(&event);
                if self.nodes[node].is_paused(self.time) {
                    self.nodes[node].backlog.push_back(event);
                } else {
                    self.happen_to(node, event);
                }
            }
        }
    }

    fn resume(&mut self, number: usize) {
        if self.nodes[number].is_paused(self.time) {
            return;
        }
        self.nodes[number].resume(self.time);
        if self.rng.hits(5000) {
            // Callers run before what has arrived is read.
            self.turn(number);
        }
        while let Some(event) = self.nodes[number].backlog.pop_front() {
            self.happen_to(number, event);
        }
        self.wake(number);
    }

    fn happen_to(&mut self, number: usize, event: Event) {
        let node = &mut self.nodes[number];
        let run = node.run;
        let Some(process) = node.process.as_mut() else { return };
        let is_due = |due: &mut Option<u64>| due.take_if(|due| *due <= self.time).is_some();
        match event {
            Event::Wake { run: of, .. } if of == run && is_due(&mut process.due.wake) => {}
            Event::Disk { run: of, .. } if of == run && is_due(&mut process.due.disk) => {
                self.with(number, |process| process.phase.run_disk());
            }
            Event::Apply { run: of, .. } if of == run && is_due(&mut process.due.apply) => {
                self.with(number, |process| process.phase.run_apply());
            }
            Event::Arrive { from, generation, packet, .. } => {
                if !self.network.receives(Node::number_of(&from.node), number, generation) {
                    return;
                }
                self.arrive(number, from, packet);
            }
            Event::CallFails { run: of, call, .. } if of == run => process.port.fail(call),
            Event::StreamFails { run: of, from, call, .. } if of == run => {
                process.port.close_stream(from.incarnation, call);
            }
            _ => return,
        }
        self.turn(number);
    }

    /// Sets the clocks that the code of a node reads.
    pub(super) fn set(&self, number: usize) {
        let clocks = self.nodes[number].clock.read(self.time);
        simulated::set(Some(Setting { clocks, window: self.weather.window, planted: self.plan.planted }));
    }

    /// Runs something as a part of a process.
    pub(super) fn with<T>(&mut self, number: usize, act: impl FnOnce(&mut Process) -> T) -> Option<T> {
        self.set(number);
        self.nodes[number].process.as_mut().map(act)
    }

    /// Runs a node soon: a task was added.
    pub(super) fn wake(&mut self, number: usize) {
        if !self.nodes[number].is_paused(self.time) {
            self.turn(number);
        }
    }

    /// Lets a node do what it can do now.
    fn turn(&mut self, number: usize) {
        let now = self.nodes[number].clock.read(self.time).now;
        let ended = self.with(number, |process| {
            process.run_until(now);
            (process.ended(), process.port.take())
        });
        let Some((ended, sent)) = ended else { return };
        if let Err(broken) = self.check_applied(number) {
            self.breaks(broken);
        }
        for (work, done) in ended {
            self.done(number, work, done);
        }
        for packet in sent {
            self.send(number, packet);
        }
        self.open_barrier(number);
        self.schedule(number);
        self.note(number);
    }

    /// Adds what a node has done to the trace.
    fn note(&mut self, number: usize) {
        let Some(process) = self.nodes[number].process.as_ref() else { return };
        self.trace.write_u64(self.time);
        self.trace.write_u64(number as u64);
        self.trace.write_u64(process.applied);
        self.trace.write_u64(self.nodes[number].disk.operations() as u64);
    }

    fn done(&mut self, number: usize, work: Work, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Called { is_write } => self.served[number][usize::from(!is_write)] += 1,
            Done::Opened(barrier) => drop(self.with(number, |process| process.barrier = Some(barrier))),
            Done::Departed(origin, index) => self.departed(&origin, index),
            Done::Changed => self.report.changes += 1,
            Done::Failed(_) if self.nodes[number].damage.is_possible => self.finds_damage(number),
            Done::Failed(error) => self.breaks(format!("node {number}, {work:?}: {error}")),
        }
    }

    /// Schedules what the threads of a node wait for.
    fn schedule(&mut self, number: usize) {
        let (run, time) = (self.nodes[number].run, self.time);
        let Some((disk, apply, tick, has_tasks, ends)) = self.with(number, |process| {
            let (disk, apply) = (process.phase.disk(), process.phase.apply());
            let tick = process.phase.until_tick();
            let needs_barrier = process.barrier.is_none();
            let is_stopped = process.backend.stopped().is_some();
            let ends = is_stopped && !std::mem::replace(&mut process.ends, is_stopped);
            (disk, apply, tick, process.has_tasks() || needs_barrier, ends)
        }) else {
            return;
        };
        if ends {
            // An operator starts it again.
            let delay = self.rng.range(20_000, 500_000);
            self.after(delay, Event::Crash { node: number, run, keeps_unsynced: true });
        }
        let sync = match disk {
            Waits::Job if self.rng.hits(self.weather.stall) => Some(self.rng.below(self.weather.longest_stall)),
            Waits::Job => Some(self.rng.range(300, 6_000)),
            Waits::Time => Some(500_000),
            Waits::Forever => None,
        };
        let apply = match apply {
            Waits::Job => Some(self.rng.range(50, self.weather.slowest_apply)),
            Waits::Time => Some(self.weather.flush),
            Waits::Forever => None,
        };
        let idle = has_tasks.then_some(MOST_IDLE);
        let wake = tick.map(|tick| tick.as_micros() as u64 + 1).into_iter().chain(idle).min();
        let Some(process) = self.nodes[number].process.as_mut() else { return };
        let due = &mut process.due;
        let earlier = |due: &mut Option<u64>, delay: Option<u64>| {
            let at = time + delay?;
            let is_earlier = due.is_none_or(|known| at < known);
            is_earlier.then(|| *due.insert(at))
        };
        let due = [earlier(&mut due.wake, wake), earlier(&mut due.disk, sync), earlier(&mut due.apply, apply)];
        let events =
            [Event::Wake { node: number, run }, Event::Disk { node: number, run }, Event::Apply { node: number, run }];
        for (at, event) in due.into_iter().zip(events) {
            if let Some(at) = at {
                self.at(at, event);
            }
        }
    }
}

/// The node at which something happens.
fn addressee(event: &Event) -> usize {
    match event {
        Event::Wake { node, .. }
        | Event::Disk { node, .. }
        | Event::Apply { node, .. }
        | Event::CallFails { node, .. }
        | Event::StreamFails { node, .. } => *node,
        Event::Arrive { to, .. } => *to,
        _ => 0,
    }
}

impl World {
    /// The members of the newest list, as far as they have their directories.
    pub(super) fn members(&self) -> Vec<usize> {
        let running = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let newest = running.max_by_key(|process| process.backend.applied());
        let list = newest.and_then(Process::cluster_status).map(|status| status.members).unwrap_or_default();
        let is_node = |node: &&Node| {
            let origin = node.origin.as_ref();
            !node.damage.is_found
                && list.iter().any(|member| origin.is_some_and(|it| it.incarnation == member.incarnation))
        };
        self.nodes.iter().filter(is_node).map(|node| node.number).collect()
    }

    /// All are members: the faults begin.
    pub(super) fn formed(&mut self) {
        self.stage = Stage::Faults;
        self.weather = self.bad_weather.clone();
        let peace = self.time + self.plan.seconds * 1_000_000;
        self.end = peace + PEACE;
        self.at(peace, Event::Peace);
        self.at(self.end - QUIET, Event::Quiet);
        self.after(50_000, Event::Fault);
    }

    /// The faults cease.
    fn make_peace(&mut self) {
        self.stage = Stage::Peace;
        self.weather.calm();
        self.network.links.heal();
        self.served.iter_mut().for_each(|served| *served = [0, 0]);
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            if node.is_paused(self.time) {
                node.paused_until = self.time;
                self.after(0, Event::Resume { node: number });
            }
            let node = &self.nodes[number];
            if node.process.is_some() {
                node.disk.heal();
            }
            let run = node.run;
            self.after(1_000, Event::Start { node: number, run });
        }
    }
}
