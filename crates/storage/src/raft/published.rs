//! What the thread that writes publishes to the rest of the process: roles, members, the lease.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use keepfast_consensus::{MAX_MEMBERS, Message, Mono, PeerProgress, Role as StepsRole};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{boot, clock};
use crate::{Addresses, Incarnation, Leader, Member, NodeId, Origin, PeerKind, PeerStatus, RaftId, Role, Transport};

/// How this node reaches the others.
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) addresses: Addresses,
    /// Where sending of snapshots runs.
    pub(crate) runtime: tokio::runtime::Handle,
}

/// The place of a node in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) id: Option<RaftId>,
    pub(crate) term: u64,
    /// Whether commits are proposed here.
    pub(crate) accepts: bool,
    /// Whether this node leads, and has applied all entries of earlier terms.
    pub(crate) is_leading: bool,
    /// The leader, which may be this node.
    pub(crate) leader: Option<Member>,
    /// The applied list.
    pub(crate) members: Arc<[Member]>,
}

/// Numbers for operators, some ticks old.
#[derive(Clone, Default)]
pub(crate) struct Numbers {
    pub(crate) last: u64,
    pub(crate) committed: u64,
    pub(crate) peers: Vec<(PeerProgress, Option<Mono>)>,
    /// The last message of the leader.
    pub(crate) contact: Option<Mono>,
}

/// What is published.
pub(crate) struct Published {
    /// Whether the node has no other members and commits without a driver.
    is_lone: AtomicBool,
    /// Whether the view has less than two members.
    is_alone: AtomicBool,
    /// The end of the lease in microseconds; 0 without one.
    lease_until: AtomicU64,
    /// The wall clock minus the other one when the lease was published: if it is another one, the machine was frozen.
    offset: AtomicI64,
    /// From when on a read renews the lease.
    renew_from: AtomicU64,
    /// The committed index.
    committed: AtomicU64,
    /// What the members were sent of it, if this node leads.
    sent_commit: AtomicU64,
    pub(crate) view: watch::Sender<View>,
    pub(crate) roles: watch::Sender<Role>,
    /// Notified after each change of the members of the view.
    pub(crate) members: watch::Sender<()>,
    /// Members of earlier lists, the newest last. The layout has them for the next start.
    removed: Mutex<Vec<Origin>>,
    pub(crate) network: Mutex<Option<Arc<Network>>>,
    pub(crate) numbers: Mutex<Numbers>,
}

/// What a read finds.
pub(crate) enum Lease {
    /// The applied state is current.
    Holds,
    /// It is, and the lease ends soon.
    EndsSoon,
    /// There is none.
    None,
}

impl Published {
    pub(crate) fn new(is_lone: bool, view: View) -> Self {
        let role = if is_lone { Role::Leading } else { Role::Following { leader: None } };
        Self {
            is_lone: is_lone.into(),
            is_alone: (view.members.len() < 2).into(),
            lease_until: 0.into(),
            offset: 0.into(),
            renew_from: 0.into(),
            committed: 0.into(),
            sent_commit: 0.into(),
            view: watch::Sender::new(view),
            roles: watch::Sender::new(role),
            members: watch::Sender::new(()),
            removed: Mutex::default(),
            network: Mutex::new(None),
            numbers: Mutex::default(),
        }
    }

    pub(crate) fn is_lone(&self) -> bool {
        self.is_lone.load(Ordering::Acquire)
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Acquire)
    }

    pub(crate) fn end_lone(&self) {
        self.is_lone.store(false, Ordering::Release);
    }

    pub(crate) fn network(&self) -> Option<Arc<Network>> {
        self.network.lock().clone()
    }

    pub(crate) fn has_network(&self) -> bool {
        self.network.lock().is_some()
    }

    /// Publishes that this node takes no part in its cluster.
    pub(super) fn withdraw(&self) {
        *self.network.lock() = None;
        self.set_lease(None, 0, 0);
        *self.numbers.lock() = Numbers::default();
        let view = self.view();
        self.set_view(View::without_leader(view.id, view.term, view.members));
    }

    /// Whether the applied state is that of the whole cluster, at this moment.
    pub(crate) fn lease(&self) -> Lease {
        if self.is_lone() {
            return Lease::Holds;
        }
        // In the reverse order of `set_lease`: an old lease never has a newer offset.
        let offset = self.offset.load(Ordering::Acquire);
        let until = self.lease_until.load(Ordering::Acquire);
        if until == 0 {
            return Lease::None;
        }
        let now = clock::now().0;
        if now >= until || clock::have_parted_since(offset) {
            return Lease::None;
        }
        // One read requests the renewal.
        let from = self.renew_from.load(Ordering::Relaxed);
        let is_first = now >= from
            && self.renew_from.compare_exchange(from, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_first { Lease::EndsSoon } else { Lease::Holds }
    }

    /// Publishes the lease and the committed index. Before anything leaves the node that ends the lease.
    pub(super) fn set_lease(&self, until: Option<Mono>, committed: u64, offset: i64) {
        self.committed.store(committed, Ordering::Release);
        let until = until.map_or(0, |until| until.0);
        let before = self.lease_until.swap(until, Ordering::AcqRel);
        self.offset.store(offset, Ordering::Release);
        if until != 0 && until != before {
            let now = clock::now().0;
            self.renew_from.store(now + until.saturating_sub(now) / 2, Ordering::Relaxed);
        }
    }

    pub(super) fn set_sent_commit(&self, index: u64) {
        self.sent_commit.store(index, Ordering::Release);
    }

    /// The committed index that the members were sent.
    pub(super) fn sent_commit(&self) -> u64 {
        self.sent_commit.load(Ordering::Acquire)
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Notifies the receivers of the role, which also check whether the node was removed.
    pub(super) fn repeat_role(&self) {
        self.roles.send_modify(|_| {});
    }

    /// What this node knows of another one.
    pub(super) fn peer_kind(&self, origin: &Origin) -> PeerKind {
        if boot::find(&self.view.borrow().members, origin).is_some() {
            return PeerKind::Member;
        }
        if self.removed.lock().contains(origin) { PeerKind::Removed } else { PeerKind::Unknown }
    }

    /// Nodes that were members, the newest last.
    pub(super) fn removed(&self) -> Vec<(NodeId, Incarnation)> {
        self.removed.lock().iter().map(|origin| (origin.node.clone(), origin.incarnation)).collect()
    }

    /// Sets them at the start.
    pub(super) fn set_removed(&self, removed: &[(NodeId, Incarnation)]) {
        let origins =
            removed.iter().map(|(node, incarnation)| Origin { node: node.clone(), incarnation: *incarnation });
        *self.removed.lock() = origins.collect();
    }

    /// Notes who is no longer a member.
    fn note_removed(&self, before: &[Member], now: &[Member]) {
        let origin = |member: &Member| Origin { node: member.node.clone(), incarnation: member.incarnation };
        let left = before.iter().map(origin).filter(|origin| boot::find(now, origin).is_none());
        let mut removed = self.removed.lock();
        removed.retain(|origin| boot::find(now, origin).is_none());
        removed.extend(left);
        let surplus = removed.len().saturating_sub(MAX_MEMBERS);
        removed.drain(..surplus);
    }

    /// Publishes a view and the role that follows from it.
    pub(super) fn set_view(&self, view: View) {
        let role = match (&view.is_leading, &view.leader) {
            (true, _) => Role::Leading,
            (false, leader) => {
                let leader = leader.as_ref().filter(|leader| Some(leader.id) != view.id);
                let leader = leader.map(|leader| {
                    let (api_addr, cluster_addr) = (leader.api_addr.clone(), leader.cluster_addr.clone());
                    Arc::new(Leader { api_addr, cluster_addr })
                });
                Role::Following { leader }
            }
        };
        self.is_alone.store(view.members.len() < 2, Ordering::Release);
        let mut has_other_members = false;
        let replace = |old: &mut View| {
            let is_other = *old != view;
            if is_other {
                has_other_members = old.members != view.members;
                if has_other_members {
                    self.note_removed(&old.members, &view.members);
                }
                *old = view;
            }
            is_other
        };
        self.view.send_if_modified(replace);
        if has_other_members {
            self.members.send_replace(());
        }
        self.roles.send_if_modified(|old| {
            let is_other = *old != role;
            if is_other {
                *old = role;
            }
            is_other
        });
    }
}

impl View {
    /// Where commits go: the term, whether they are proposed here, and the leader.
    pub(super) fn target(&self) -> (u64, bool, Option<RaftId>) {
        (self.term, self.accepts, self.leader.as_ref().map(|leader| leader.id))
    }

    /// Whether a snapshot of this node is one of the leader, as far as that is known: a node that joins may not know it.
    pub(super) fn takes_snapshot_of(&self, origin: &Origin, message: &Message) -> bool {
        let is_leader = |leader: &Member| leader.node == origin.node && leader.incarnation == origin.incarnation;
        message.term >= self.term && self.leader.as_ref().is_none_or(is_leader)
    }

    /// The view of a node without a leader.
    pub(super) fn without_leader(id: Option<RaftId>, term: u64, members: Arc<[Member]>) -> Self {
        Self { id, term, accepts: false, is_leading: false, leader: None, members }
    }

    /// The view of a node by its role in Raft.
    pub(super) fn of(role: StepsRole, id: RaftId, members: Arc<[Member]>) -> Self {
        let find = |id: RaftId| members.iter().find(|member| member.id == id).cloned();
        let (term, accepts, is_leading, leader) = match role {
            StepsRole::Following { leader, term } => (term, false, false, leader.and_then(find)),
            StepsRole::Elected { term } => (term, true, false, None),
            StepsRole::Leading { term, .. } => (term, true, true, find(id)),
        };
        Self { id: Some(id), term, accepts, is_leading, leader, members }
    }
}

impl Numbers {
    /// What a leader knows of the others.
    pub(crate) fn peer_status(&self, now: Mono) -> Vec<PeerStatus> {
        let status = |(peer, contact): &(PeerProgress, Option<Mono>)| PeerStatus {
            id: peer.id,
            matched: peer.matched,
            last_contact: contact.map(|at| since(now, at)),
        };
        self.peers.iter().map(status).collect()
    }

    pub(super) fn with_contacts(
        peers: impl Iterator<Item = PeerProgress>,
        contacts: &HashMap<RaftId, Mono>,
    ) -> Vec<(PeerProgress, Option<Mono>)> {
        peers.map(|peer| (peer, contacts.get(&peer.id).copied())).collect()
    }
}

pub(crate) fn since(now: Mono, at: Mono) -> Duration {
    Duration::from_micros(now.since(at))
}

#[cfg(test)]
mod tests {
    use keepfast_consensus::{Body, LogId};

    use super::*;

    fn member(number: u64) -> Member {
        let (node, incarnation) = (format!("n{number}"), [number as u8; 16]);
        let text = String::new;
        Member {
            id: RaftId(number),
            node,
            incarnation,
            cluster_addr: text(),
            api_addr: text(),
            voter: true,
            wants_vote: true,
            election_ms: 600,
            version: text(),
        }
    }

    #[test]
    fn sec_only_the_leader_sends_snapshots() {
        let of = |member: &Member| Origin { node: member.node.clone(), incarnation: member.incarnation };
        let message = |term| {
            let body = Body::Snapshot { last: LogId { term, index: 9 }, members: Vec::new() };
            Message { from: RaftId(1), to: RaftId(2), term, body }
        };
        let known = View { leader: Some(member(1)), ..View::without_leader(Some(RaftId(2)), 5, [].into()) };
        assert!(known.takes_snapshot_of(&of(&member(1)), &message(5)));
        assert!(!known.takes_snapshot_of(&of(&member(3)), &message(5)));
        assert!(!known.takes_snapshot_of(&of(&member(3)), &message(6)));
        assert!(!known.takes_snapshot_of(&of(&member(1)), &message(4)));
        let other_disk = Origin { incarnation: [9; 16], ..of(&member(1)) };
        assert!(!known.takes_snapshot_of(&other_disk, &message(5)));
        let unknown = View { leader: None, ..known };
        assert!(unknown.takes_snapshot_of(&of(&member(3)), &message(5)));
        assert!(!unknown.takes_snapshot_of(&of(&member(3)), &message(4)));
    }

    #[test]
    fn a_lease_of_a_machine_that_was_frozen_does_not_hold() {
        let published = Published::new(false, View::without_leader(None, 1, [].into()));
        let until = Some(clock::now() + 3_600_000_000);
        published.set_lease(until, 5, clock::offset());
        assert!(!matches!(published.lease(), Lease::None));
        for apart in [-1_000_000, -20_000, 20_000, 1_000_000] {
            published.set_lease(until, 5, clock::offset() + apart);
            assert!(matches!(published.lease(), Lease::None), "{apart}");
        }
    }
}
