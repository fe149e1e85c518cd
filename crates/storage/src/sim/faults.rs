//! Faults of nodes, disks, clocks and links.

use keepfast_consensus::{Chance, sim::Links};

use super::{
    node::Damage,
    world::{Event, Stage, World},
};
use crate::local::{
    disk::Disk,
    scanned::Scanned,
    segment_files,
    sim_disk::{Fault, SimDisk},
    state,
};

impl World {
    /// One fault.
    pub(super) fn fault(&mut self) {
        if self.stage != Stage::Faults {
            return;
        }
        let delay = self.rng.below(2 * self.weather.fault_every);
        self.after(delay, Event::Fault);
        let sum = self.weather.weights.iter().sum::<u64>();
        if sum == 0 {
            return;
        }
        let mut drawn = self.rng.below(sum);
        let kind = self.weather.weights.iter().position(|weight| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        let Some(victim) = self.victim() else { return };
        self.report.faults += 1;
        match kind {
            Some(0) => self.fail(victim, Fault::Crash),
            Some(1) => self.crash(victim, true),
            Some(2) => self.fail(victim, Fault::Error),
            Some(3) => self.cut(victim),
            Some(4) => self.reset(victim),
            Some(5) => self.pause(victim, false),
            Some(6) => self.pause(victim, true),
            Some(7) => self.disturb_clock_or_room(victim),
            _ => self.change_bit(victim),
        }
    }

    /// A node that is up; every other time a leader, where it matters most.
    fn victim(&mut self) -> Option<usize> {
        let time = self.time;
        let up: Vec<usize> = self.nodes.iter().filter(|node| node.is_up(time)).map(|node| node.number).collect();
        let is_leading = |world: &mut Self, number| {
            let status = world.with(number, |process| process.cluster_status()).flatten();
            status.is_some_and(|status| status.is_leading)
        };
        let leaders: Vec<usize> = up.iter().copied().filter(|number| is_leading(self, *number)).collect();
        let victims = if self.rng.hits(5000) && !leaders.is_empty() { &leaders } else { &up };
        self.rng.pick(victims).copied()
    }

    /// The disk fails at one of its next operations. Without power, the machine ends soon after that.
    fn fail(&mut self, victim: usize, fault: Fault) {
        let at = self.rng.below(20) as usize;
        let node = &self.nodes[victim];
        node.disk.fail_at(node.disk.operations() + at, fault);
        if fault == Fault::Crash {
            let (run, delay) = (node.run, self.rng.range(100, 100_000));
            self.after(delay, Event::Crash { node: victim, run, keeps_unsynced: false });
        }
    }

    /// The process ends; what the disk has of writes that were not synced is kept, or not.
    pub(super) fn crash(&mut self, victim: usize, keeps_unsynced: bool) {
        let longest = if self.rng.hits(5000) { 100_000 } else { 3_000_000 };
        let down = self.rng.range(1_000, longest);
        let node = &mut self.nodes[victim];
        node.end(self.time);
        if keeps_unsynced {
            node.disk.heal();
        } else {
            node.disk.lose_power();
        }
        self.network.links.reset_all(victim);
        let run = self.nodes[victim].run;
        self.after(down, Event::Start { node: victim, run });
    }

    /// One direction between two nodes, both, or all directions of a node.
    fn cut(&mut self, victim: usize) {
        let until = self.time + self.rng.range(50_000, 4_000_000);
        let other = self.rng.below(self.nodes.len() as u64) as usize;
        let kind = self.rng.below(Links::CUTS);
        self.network.links.cut_some(kind, victim, other, until);
    }

    fn reset(&mut self, victim: usize) {
        let other = self.rng.below(self.nodes.len() as u64) as usize;
        self.network.links.reset(victim, other);
        if self.rng.hits(5000) {
            self.network.links.reset(other, victim);
        }
    }

    /// A node does nothing for a time. Frozen, its clock that counts from the start stops, too.
    fn pause(&mut self, victim: usize, is_frozen: bool) {
        let pause = match is_frozen {
            // Up to about the time of an election.
            true if self.rng.hits(6000) => self.rng.range(1_000, 600_000),
            true => self.rng.range(1_000, 3_000_000),
            false => self.rng.range(10_000, 3_000_000),
        };
        self.nodes[victim].paused_until = self.time + pause;
        self.nodes[victim].frozen_since = is_frozen.then_some(self.time);
        self.after(pause, Event::Resume { node: victim });
    }

    /// A step of the wall clock, a write that is cut short, or one without room.
    fn disturb_clock_or_room(&mut self, victim: usize) {
        match self.rng.below(3) {
            0 => self.fail(victim, Fault::Short),
            1 => {
                let is_short = self.rng.hits(5000);
                self.fail(victim, if is_short { Fault::FullOnce } else { Fault::Full });
                let (run, time) = (self.nodes[victim].run, self.rng.range(10_000, 2_000_000));
                self.after(time, Event::Room { node: victim, run });
            }
            _ => {
                let step = self.rng.below(20_000_000) as i64 - 10_000_000;
                self.nodes[victim].clock.steps += step;
            }
        }
    }

    /// A bit changes on the disk of a node that ends and starts again; of one member at a time, if the others can do
    /// without it. The last frame of the log is spared: without it the node has lost what it has acknowledged, and does
    /// not know.
    fn change_bit(&mut self, victim: usize) {
        let is_whole = self.nodes.iter().all(|node| node.damage == Damage::default() && !node.is_spare);
        if !is_whole || !self.can_lose(victim) {
            return;
        }
        self.crash(victim, true);
        let places = places(&self.nodes[victim].disk);
        let Some((name, bytes)) = self.rng.pick(&places).cloned() else { return };
        let bit = self.rng.below(8 * bytes);
        let node = &mut self.nodes[victim];
        node.disk.flip(&name, bit);
        node.damage.is_possible = true;
    }

    /// A node has found that its disk is damaged, and ends for good.
    pub(super) fn finds_damage(&mut self, victim: usize) {
        let node = &mut self.nodes[victim];
        node.damage.is_found = true;
        node.end(self.time);
    }
}

/// The files in which a changed bit is found, with the bytes of each that are.
fn places(disk: &SimDisk) -> Vec<(String, u64)> {
    let length = |name: &str| disk.open(name, false).ok().flatten().and_then(|file| file.len().ok()).unwrap_or(0);
    let mut places = vec![(state::FILE.to_owned(), length(state::FILE))];
    if let (Ok(segments), Ok(Some(scanned))) = (segment_files::list(disk), Scanned::read(disk)) {
        for (number, name) in segments {
            let path = segment_files::path(&name);
            let bytes = if number < scanned.current.number { length(&path) } else { scanned.last_frame };
            places.push((path, bytes));
        }
    }
    places.retain(|(_, bytes)| *bytes > 0);
    places
}
