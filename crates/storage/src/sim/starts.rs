//! The start of a node, and the opening of its barrier.

use std::time::Duration;

use keepfast_consensus::Chance;

use super::{
    node::{Done, ELECTION, Node, Process, Work},
    world::{Event, Stage, World},
};
use crate::{Barrier, BarrierError, BarrierOptions, LocalOptions, StorageError, local::sim_disk::Fault};

impl World {
    /// Opens the directory of a node and begins to exchange messages, if it belongs to a cluster.
    pub(super) fn start(&mut self, number: usize) {
        if self.nodes[number].process.is_some() || self.nodes[number].damage.is_found {
            return;
        }
        let has_fault = self.stage == Stage::Faults && self.rng.hits(1000);
        let at = self.rng.below(60) as usize;
        self.set(number);
        let node = &mut self.nodes[number];
        if has_fault {
            // The power fails again.
            node.disk.fail_at(node.disk.operations() + at, Fault::Crash);
            self.report.faults += 1;
        }
        let options = LocalOptions {
            node_id: Some(Node::name(number)),
            clustered: true,
            cache_bytes: 1 << 20,
            verify: node.damage.is_possible,
            flush_interval: Duration::from_micros(self.weather.flush),
            flush_bytes: self.weather.segment,
            reserve_bytes: 0,
            election: ELECTION,
            ..LocalOptions::default()
        };
        let now = node.clock.read(self.time).now;
        self.report.starts += 1;
        match Process::open(&node.disk, options, node.run, now) {
            Ok(process) => {
                node.origin = Some(process.port.origin.clone());
                node.process = Some(process);
                if node.has_forgotten_vote() {
                    self.breaks(format!("node {number} has forgotten its vote"));
                }
                let node = &self.nodes[number];
                if has_fault {
                    let run = node.run;
                    let delay = self.rng.range(1_000, 60_000);
                    self.after(delay, Event::Crash { node: number, run, keeps_unsynced: false });
                }
                self.begin(number);
                self.wake(number);
            }
            Err(_) if has_fault => {
                node.disk.lose_power();
                let (run, delay) = (node.run, self.rng.range(10_000, 500_000));
                self.after(delay, Event::Start { node: number, run });
            }
            Err(_) if node.damage.is_possible => self.finds_damage(number),
            Err(error) => self.breaks(format!("node {number} does not open: {error}")),
        }
    }

    /// Opens the barrier of a node that has records.
    pub(super) fn open_barrier(&mut self, number: usize) {
        let (time, is_spare, root) = (self.time, self.nodes[number].is_spare, self.root.clone());
        let opened = self.with(number, |process| {
            let has_lost_keys = process.barrier.as_ref().is_some_and(|barrier| barrier.has_failed_closed());
            if has_lost_keys {
                process.barrier.take().filter(|barrier| !barrier.is_replaced())?;
                return Some(());
            }
            let is_joining = || process.cluster_status().is_none_or(|status| status.is_joining);
            if is_spare
                || process.barrier.is_some()
                || process.does(Work::Open)
                || time < process.opens_at
                || is_joining()
            {
                return None;
            }
            process.opens_at = time + 50_000;
            let backend = process.backend.clone();
            process.spawn(Work::Open, async move {
                match Barrier::open_with(backend, &root, &BarrierOptions { cache_bytes: 1 << 20 }).await {
                    Ok(barrier) => Done::Opened(barrier),
                    Err(error @ (BarrierError::WrongRootKey | BarrierError::Storage(StorageError::Corrupt(_)))) => {
                        Done::Failed(error.to_string())
                    }
                    Err(_) => Done::Nothing,
                }
            });
            None
        });
        if opened.flatten().is_some() {
            self.breaks(format!("node {number} has lost its keys"));
        }
    }
}
