//! The operator: adds, promotes, removes and replaces members, transfers leadership, rotates keys, and begins restores
//! that fail.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_consensus::Chance;
use tokio::time::timeout;

use super::{
    node::{Damage, Done, Node, Work},
    world::{Event, Stage, World},
};
use crate::{
    Addresses, Barrier, Change, ClusterStatus, Consensus, Index, Joined, Member, Origin, RaftId, SnapshotParts,
    StorageError, local::sim_disk::SimDisk,
};

/// How long an operation may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A snapshot that ends too early, after a time.
struct Cut(Duration);

#[async_trait]
impl SnapshotParts for Cut {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let _ = timeout(self.0, std::future::pending::<()>()).await;
        Err(StorageError::NoLeader)
    }
}

fn addresses(number: usize) -> Addresses {
    let (api_addr, cluster_addr) = (format!("api-{number}"), format!("cluster-{number}"));
    Addresses { api_addr, cluster_addr, version: "1".into() }
}

fn changed(result: Result<Index, StorageError>) -> Done {
    if result.is_ok() { Done::Changed } else { Done::Nothing }
}

impl World {
    /// The node that leads, as it knows, with its status.
    fn leader(&mut self) -> Option<(usize, ClusterStatus)> {
        let time = self.time;
        let up: Vec<usize> = self.nodes.iter().filter(|node| node.is_up(time)).map(|node| node.number).collect();
        let mut leaders = Vec::new();
        for number in up {
            let status = self.with(number, |process| process.cluster_status()).flatten();
            leaders.extend(status.filter(|status| status.is_leading).map(|status| (number, status)));
        }
        // A spare node leads itself.
        leaders.retain(|(number, _)| !self.nodes[*number].is_spare);
        leaders.into_iter().max_by_key(|(_, status)| status.term)
    }

    /// Begins to exchange messages, after a start.
    pub(super) fn begin(&mut self, number: usize) {
        let is_first = number == 0 && self.stage == Stage::Forming && self.nodes[0].run == 0;
        let root = self.root.clone();
        self.note_place(number);
        let is_spare = self.nodes[number].is_spare;
        self.with(number, |process| {
            let Some(consensus) = process.consensus().filter(|_| !is_spare) else { return };
            let (transport, backend) = (process.port.clone(), process.backend.clone());
            process.spawn(Work::Begin, async move {
                let started = consensus.start(transport, addresses(number)).await;
                if is_first && let Err(error) = Barrier::create(backend, &root, "seal".into(), 0).await {
                    return Done::Failed(error.to_string());
                }
                match started {
                    Err(StorageError::Corrupt(error)) => Done::Failed(error.to_string()),
                    _ => Done::Nothing,
                }
            });
        });
    }

    /// A directory that has a list of members, or joins, belongs to a cluster.
    fn note_place(&mut self, number: usize) {
        let belongs = self.with(number, |process| {
            let is_joining = process.cluster_status().is_some_and(|status| status.is_joining);
            is_joining || process.backend.image().is_ok_and(|image| image.members.is_some())
        });
        self.nodes[number].is_spare &= belongs != Some(true);
    }

    /// One operation.
    pub(super) fn operate(&mut self) {
        let delay = self.rng.range(self.weather.operate_every / 2, self.weather.operate_every * 2);
        self.after(delay, Event::Operate);
        if self.stage == Stage::Quiet {
            return;
        }
        let Some((leader, status)) = self.leader() else { return };
        let is_busy = self.with(leader, |process| process.does(Work::Operate)).unwrap_or(true);
        if is_busy || self.complete(leader, &status) {
            return;
        }
        match self.stage {
            Stage::Forming if self.is_formed(&status) => self.formed(),
            Stage::Forming => {}
            Stage::Faults => self.disturb(leader, &status),
            Stage::Peace | Stage::Quiet => {}
        }
    }

    /// Whether all nodes are members that serve.
    fn is_formed(&self, status: &ClusterStatus) -> bool {
        let is_open = |node: &Node| node.process.as_ref().is_some_and(|process| process.open_barrier().is_some());
        let voters = status.members.iter().filter(|member| member.voter).count();
        voters == self.weather.voters && self.nodes.iter().all(is_open)
    }

    /// Does the next step towards a complete cluster. Returns whether there was one.
    fn complete(&mut self, leader: usize, status: &ClusterStatus) -> bool {
        for number in 0..self.nodes.len() {
            let node = &self.nodes[number];
            let Some(origin) = node.origin.clone() else { continue };
            let named = status.members.iter().find(|member| member.node == origin.node);
            let listed = named.filter(|member| member.incarnation == origin.incarnation);
            let is_listed = listed.is_some();
            if !is_listed && !node.is_spare {
                self.depart(leader, origin);
                return true;
            }
            if (named.is_some() && !is_listed) || (node.damage.is_found && is_listed) {
                if self.can_do_without(number, status) {
                    self.change(leader, Change::Remove(origin.node));
                    return true;
                }
                continue;
            }
            if !node.is_up(self.time) {
                continue;
            }
            match listed {
                None => {
                    self.change(leader, Change::AddLearner(member(&origin, number)));
                    return true;
                }
                Some(_) if node.is_spare => {
                    self.join(number, status.members.clone());
                    return true;
                }
                Some(member) if !member.voter && self.is_wanted(number, status) => {
                    self.change(leader, Change::Promote(origin.node));
                    return true;
                }
                Some(_) => {}
            }
        }
        false
    }

    /// Whether a learner becomes a voter: it has what the leader has, and voters are missing.
    fn is_wanted(&mut self, number: usize, status: &ClusterStatus) -> bool {
        let voters = status.members.iter().filter(|member| member.voter).count();
        let own = self.with(number, |process| process.cluster_status()).flatten();
        let is_ready = own.is_some_and(|own| !own.is_joining && own.applied + 20 >= status.applied);
        voters < self.weather.voters && is_ready
    }

    /// Whether a majority of the other voters is up.
    fn can_do_without(&self, number: usize, status: &ClusterStatus) -> bool {
        let (up, others) = self.other_voters(number, status);
        up * 2 > others
    }

    /// Whether the other voters can remove a node that is lost.
    pub(super) fn can_lose(&mut self, number: usize) -> bool {
        let Some((leader, status)) = self.leader() else { return false };
        // A change that is under way may leave fewer voters.
        if self.with(leader, |process| process.does(Work::Operate)) != Some(false) {
            return false;
        }
        let (up, others) = self.other_voters(number, &status);
        up * 2 > others + 1
    }

    /// The voters beside a node that are up, and all of them.
    fn other_voters(&self, number: usize, status: &ClusterStatus) -> (usize, usize) {
        let name = Node::name(number);
        let others: Vec<_> = status.members.iter().filter(|member| member.voter && member.node != name).collect();
        let is_up = |member: &&&Member| {
            let node = self.nodes.get(Node::number_of(&member.node));
            node.is_some_and(|node| node.is_up(self.time) && node.damage == Damage::default())
        };
        (others.iter().filter(is_up).count(), others.len())
    }

    fn change(&mut self, leader: usize, change: Change) {
        self.at_leader(leader, |consensus, _| async move { changed(consensus.change(change).await) });
    }

    /// Asks the leader to prove that a directory is no member.
    fn depart(&mut self, leader: usize, origin: Origin) {
        self.at_leader(leader, |consensus, _| async move {
            match consensus.departed(origin.incarnation).await {
                Ok(index) => Done::Departed(origin, index),
                Err(_) => Done::Nothing,
            }
        });
    }

    /// Starts an operation at the leader.
    fn at_leader<F: Future<Output = Done> + Send + 'static>(
        &mut self,
        leader: usize,
        act: impl FnOnce(Arc<dyn Consensus>, Option<Arc<Barrier>>) -> F,
    ) {
        self.with(leader, |process| {
            let Some(consensus) = process.consensus() else { return };
            let future = act(consensus, process.open_barrier());
            process.spawn(Work::Operate, async move { timeout(TIMEOUT, future).await.unwrap_or(Done::Nothing) });
        });
        self.wake(leader);
    }

    /// Lets a node join the cluster whose leader has added it.
    fn join(&mut self, number: usize, members: Vec<Member>) {
        let joined = Joined { cluster_id: "c".into(), members };
        self.note_place(number);
        let is_spare = self.nodes[number].is_spare;
        self.with(number, |process| {
            let Some(consensus) = process.consensus().filter(|_| is_spare && !process.does(Work::Begin)) else {
                return;
            };
            let transport = process.port.clone();
            process.spawn(Work::Begin, async move {
                if consensus.join(joined).await.is_ok() {
                    let _ = consensus.start(transport, addresses(number)).await;
                }
                Done::Nothing
            });
        });
        self.wake(number);
    }

    /// The leader has proved that a directory is no member: the node ends, and gets an empty one.
    pub(super) fn departed(&mut self, origin: &Origin, index: Index) {
        let number = Node::number_of(&origin.node);
        if self.nodes.get(number).is_none_or(|node| node.origin.as_ref() != Some(origin) || node.is_spare) {
            return;
        }
        self.with(number, |process| {
            if let Some(consensus) = process.consensus() {
                process.spawn(Work::Begin, async move {
                    let _ = consensus.leave(index).await;
                    Done::Nothing
                });
            }
        });
        self.wake(number);
        let delay = self.rng.range(10_000, 800_000);
        let run = self.nodes[number].run;
        self.after(delay, Event::Wipe { node: number, run });
    }

    pub(super) fn wipe(&mut self, number: usize) {
        let seed = self.rng.draw();
        let node = &mut self.nodes[number];
        node.end(self.time);
        (node.disk, node.damage, node.origin, node.is_spare) = (SimDisk::new(seed), Damage::default(), None, true);
        node.voted = None;
        let run = node.run;
        self.after(10_000, Event::Start { node: number, run });
    }

    /// A random operation, while there are faults.
    fn disturb(&mut self, leader: usize, status: &ClusterStatus) {
        let other = self.rng.below(self.nodes.len() as u64) as usize;
        let kind = if self.weather.changes_members { self.rng.below(5) } else { 2 + self.rng.below(3) };
        let name = Node::name(other);
        let is_removable = self.can_do_without(other, status) && status.members.len() > 2;
        match kind {
            0 if is_removable => self.change(leader, Change::Remove(name)),
            1 if is_removable => self.change(leader, Change::Demote(name)),
            2 => {
                let to = self.rng.hits(5000).then_some(name);
                self.at_leader(leader, |consensus, _| async move {
                    let _ = consensus.transfer(to).await;
                    Done::Nothing
                });
            }
            3 => self.at_leader(leader, |_, barrier| async move {
                if let Some(barrier) = barrier {
                    let _ = barrier.rotate(0).await;
                }
                Done::Nothing
            }),
            4 => {
                let time = Duration::from_millis(self.rng.range(1, 1_000));
                self.at_leader(leader, |consensus, _| async move {
                    let restored = match consensus.snapshot() {
                        Ok((head, _)) => consensus.restore(head, &mut Cut(time), Bytes::new()).await,
                        Err(error) => Err(error),
                    };
                    match restored {
                        Ok(_) => Done::Failed("a snapshot without an end was restored".to_owned()),
                        Err(_) => Done::Nothing,
                    }
                });
            }
            _ => {}
        }
    }
}

/// The entry of a node that is added.
fn member(origin: &Origin, number: usize) -> Member {
    let Addresses { api_addr, cluster_addr, version } = addresses(number);
    Member {
        id: RaftId(0),
        node: origin.node.clone(),
        incarnation: origin.incarnation,
        cluster_addr,
        api_addr,
        voter: false,
        wants_vote: true,
        election_ms: super::node::ELECTION.as_millis() as u32,
        version,
    }
}
