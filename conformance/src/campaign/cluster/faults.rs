//! The faults of the campaign, each with the recovery from it.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::links::Slowness;
use crate::nodes::Nodes;
use crate::rng::Rng;

/// The seconds of a step of a clock. Certificates of nodes are valid an hour before they are created.
const STEP: i64 = 50 * 60;
/// The ways in which a disk fails.
const DISKS: [&str; 5] = ["write-full", "sync-broken", "write-short", "sync-full", "write-broken"];

/// The node that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Leader,
    Follower,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// kill -9 of its process.
    Killed,
    /// kill -9 of all processes.
    AllKilled,
    /// SIGSTOP, and later SIGCONT.
    Paused,
    /// No bytes between it and any other node.
    CutOff,
    /// No bytes from it to others.
    Mute,
    /// No bytes from others to it.
    Deaf,
    /// No bytes between it and one other node; the third node reaches both.
    CutFromOne,
    /// All its connections to other nodes close, again and again.
    Reset,
    /// All links are slow, and lose packets.
    Slow,
    /// Writes or syncs of its data directory fail.
    DiskBroken,
    /// Syncs of its data directory do not return.
    DiskStuck,
    /// An operator asks it to give up the leadership.
    SteppedDown,
    /// An operator seals it.
    Sealed,
    /// Its wall clock jumps forward, and later back.
    ClockAhead,
    /// Its wall clock jumps back, and later forward.
    ClockBehind,
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    event: Event,
    victim: Victim,
    name: &'static str,
}

const fn fault(event: Event, victim: Victim, name: &'static str) -> Fault {
    Fault { event, victim, name }
}

/// All faults, in the order of the rounds. Those of the leader come twice as often where an election follows.
const FAULTS: [Fault; 26] = [
    fault(Event::Killed, Victim::Leader, "kill of the leader"),
    fault(Event::CutOff, Victim::Leader, "cut of the leader"),
    fault(Event::Paused, Victim::Leader, "pause of the leader"),
    fault(Event::Killed, Victim::Follower, "kill of a follower"),
    fault(Event::Mute, Victim::Leader, "cut from the leader"),
    fault(Event::DiskBroken, Victim::Leader, "failed disk of the leader"),
    fault(Event::ClockAhead, Victim::Leader, "clock of the leader ahead"),
    fault(Event::Killed, Victim::Leader, "kill of the leader"),
    fault(Event::Deaf, Victim::Leader, "cut to the leader"),
    fault(Event::Paused, Victim::Follower, "pause of a follower"),
    fault(Event::Reset, Victim::Leader, "connections of the leader reset"),
    fault(Event::ClockBehind, Victim::Follower, "clock of a follower behind"),
    fault(Event::AllKilled, Victim::Leader, "kill of all nodes"),
    fault(Event::SteppedDown, Victim::Leader, "step-down of the leader"),
    fault(Event::CutFromOne, Victim::Leader, "cut between the leader and one follower"),
    fault(Event::DiskStuck, Victim::Leader, "stuck disk of the leader"),
    fault(Event::Killed, Victim::Leader, "kill of the leader"),
    fault(Event::Slow, Victim::Leader, "slow and lossy links"),
    fault(Event::CutOff, Victim::Follower, "cut of a follower"),
    fault(Event::ClockBehind, Victim::Leader, "clock of the leader behind"),
    fault(Event::Paused, Victim::Leader, "pause of the leader"),
    fault(Event::Sealed, Victim::Leader, "seal of the leader"),
    fault(Event::DiskBroken, Victim::Follower, "failed disk of a follower"),
    fault(Event::Mute, Victim::Follower, "cut from a follower"),
    fault(Event::ClockAhead, Victim::Follower, "clock of a follower ahead"),
    fault(Event::Deaf, Victim::Follower, "cut to a follower"),
];

/// Steps the leader down. While a busy machine keeps the followers from responding in time, the leader refuses.
fn step_down(nodes: &mut Nodes, at: usize) -> Result<()> {
    for _ in 0..50 {
        match nodes.call(at, "PUT", "sys/step-down", None) {
            Err(error) if format!("{error:#}").contains("no other node of the cluster can become the leader") => {
                std::thread::sleep(Duration::from_millis(100));
            }
            other => return other.map(drop),
        }
    }
    bail!("no node could become the leader for five seconds")
}

impl Fault {
    /// The fault of a round.
    pub(super) fn of(round: u64) -> Self {
        FAULTS[round as usize % FAULTS.len()]
    }

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// Whether another node must lead afterwards.
    pub(super) fn ends_leadership(self) -> bool {
        use Event::{ClockAhead, ClockBehind, CutFromOne, Reset, Slow};
        self.victim == Victim::Leader && !matches!(self.event, ClockAhead | ClockBehind | CutFromOne | Reset | Slow)
    }

    /// Whether it changes a clock, which ends no leadership.
    pub(super) fn is_of_a_clock(self) -> bool {
        matches!(self.event, Event::ClockAhead | Event::ClockBehind)
    }

    /// The node that it hits.
    pub(super) fn victim(self, leader: usize, nodes: usize, rng: &mut Rng) -> usize {
        match self.victim {
            Victim::Leader => leader,
            Victim::Follower => (leader + 1 + rng.below(nodes - 1)) % nodes,
        }
    }

    /// Begins.
    pub(super) fn strike(self, nodes: &mut Nodes, at: usize, rng: &mut Rng) -> Result<()> {
        let others = (0..nodes.count()).filter(|other| *other != at);
        match self.event {
            Event::Killed => nodes.kill(at)?,
            Event::AllKilled => {
                for node in 0..nodes.count() {
                    nodes.kill(node)?;
                }
                for node in 0..nodes.count() {
                    nodes.restart(node)?;
                }
            }
            Event::Paused => nodes.server(at).pause()?,
            Event::CutOff => {
                let links = &nodes.faults()?.links;
                others.for_each(|other| links.cut_both(at, other));
            }
            Event::Mute => {
                let links = &nodes.faults()?.links;
                others.for_each(|other| links.cut(at, other));
            }
            Event::Deaf => {
                let links = &nodes.faults()?.links;
                others.for_each(|other| links.cut(other, at));
            }
            Event::CutFromOne => nodes.faults()?.links.cut_both(at, (at + 1 + rng.below(2)) % nodes.count()),
            Event::Reset => {
                for _ in 0..5 {
                    nodes.faults()?.links.reset(at);
                    std::thread::sleep(Duration::from_millis(20 + rng.below(150) as u64));
                }
            }
            Event::Slow => nodes.faults()?.links.slow(Slowness {
                delay: Duration::from_millis(10),
                spread: Duration::from_millis(40),
                lost: 10,
            }),
            Event::DiskBroken => break_disk(nodes, at, DISKS[rng.below(DISKS.len())])?,
            Event::DiskStuck => break_disk(nodes, at, "sync-stuck")?,
            Event::SteppedDown => step_down(nodes, at)?,
            Event::Sealed => drop(nodes.call(at, "PUT", "sys/seal", None)?),
            Event::ClockAhead => nodes.faults()?.set_clock(at, STEP)?,
            Event::ClockBehind => nodes.faults()?.set_clock(at, -STEP)?,
        }
        Ok(())
    }

    /// Ends.
    pub(super) fn heal(self, nodes: &mut Nodes, at: usize, rng: &mut Rng) -> Result<()> {
        match self.event {
            Event::Killed => nodes.restart(at)?,
            Event::Paused => nodes.server(at).resume()?,
            Event::CutOff | Event::Mute | Event::Deaf | Event::CutFromOne | Event::Slow => nodes.faults()?.links.heal(),
            Event::AllKilled | Event::Reset | Event::SteppedDown => {}
            Event::Sealed => nodes.unseal(at)?,
            Event::DiskStuck => nodes.faults()?.mend_disk(at)?,
            Event::DiskBroken => {
                // The storage stopped at the failure: what the disk holds is known when it is opened again.
                anyhow::ensure!(nodes.is_running(at), "the node has exited: {}", nodes.server(at).log());
                nodes.faults()?.mend_disk(at)?;
                match rng.below(2) {
                    0 => nodes.kill(at)?,
                    _ => nodes.terminate(at)?,
                }
                nodes.restart(at)?;
            }
            Event::ClockAhead | Event::ClockBehind => nodes.faults()?.set_clock(at, 0)?,
        }
        Ok(())
    }
}

fn break_disk(nodes: &Nodes, at: usize, mode: &str) -> Result<()> {
    nodes.faults()?.break_disk(at, mode, &nodes.server(at).directory().join("data/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_follower_never_hits_the_leader() {
        let mut rng = Rng::of(1, 0);
        for round in 0..FAULTS.len() as u64 {
            let fault = Fault::of(round);
            let victim = fault.victim(1, 3, &mut rng);
            assert_eq!(victim == 1, fault.victim == Victim::Leader, "{}", fault.name());
            assert!(!fault.ends_leadership() || victim == 1, "{}", fault.name());
        }
    }
}
