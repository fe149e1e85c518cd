//! The other members as this node sends to them.

use std::sync::Arc;

use keepfast_storage::{Member, Origin};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::calls::Caller;
use super::frames::Kind;
use super::messages::Messages;

/// Commits and reads of one member at a time.
const MAX_CALLS: usize = 256;
/// Requests of clients at one member at a time. All of them use one connection: while the body of one is written, which
/// may have many MiB, the others wait.
const MAX_REQUESTS: usize = 256;
/// Of these, requests of callers that nothing has proved: others always have room.
const MAX_UNPROVEN: usize = 64;

/// The members that this node has sent something to.
#[derive(Default)]
pub(super) struct Members(Mutex<State>);

#[derive(Default)]
struct State {
    is_closed: bool,
    /// As few as the lists have.
    known: Vec<Arc<Recipient>>,
}

/// A member with what waits for it.
pub(super) struct Recipient {
    pub(super) origin: Origin,
    address: Mutex<String>,
    pub(super) messages: Messages,
    pub(super) calls: Caller,
    pub(super) requests: Caller,
    /// The requests of callers that nothing has proved.
    pub(super) unproven: Semaphore,
    /// One snapshot at a time.
    pub(super) snapshot: tokio::sync::Mutex<()>,
    removed: watch::Sender<bool>,
}

impl Members {
    /// The member, with its present address. `None` when the port is closed.
    pub(super) fn get(&self, member: &Member) -> Option<Arc<Recipient>> {
        let mut state = self.0.lock();
        if state.is_closed {
            return None;
        }
        let known = state.known.iter().find(|known| known.is(member)).cloned();
        let recipient = known.unwrap_or_else(|| {
            let origin = Origin { node: member.node.clone(), incarnation: member.incarnation };
            let added = Arc::new(Recipient::new(origin));
            state.known.push(added.clone());
            added
        });
        // A node that no list here has comes without an address, and keeps the one that is known.
        if !member.cluster_addr.is_empty() {
            recipient.set_address(&member.cluster_addr);
        }
        Some(recipient)
    }

    /// Forgets the others.
    pub(super) fn retain(&self, is_member: impl Fn(&Origin) -> bool) {
        self.0.lock().known.retain(|recipient| {
            let stays = is_member(&recipient.origin);
            if !stays {
                recipient.removed.send_replace(true);
            }
            stays
        });
    }

    /// Forgets all, and adds no more.
    pub(super) fn close(&self) {
        self.0.lock().is_closed = true;
        self.retain(|_| false);
    }
}

impl Recipient {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            address: Mutex::default(),
            messages: Messages::default(),
            calls: Caller::new(Kind::Calls, MAX_CALLS),
            requests: Caller::new(Kind::Requests, MAX_REQUESTS),
            unproven: Semaphore::new(MAX_UNPROVEN),
            snapshot: tokio::sync::Mutex::new(()),
            removed: watch::Sender::new(false),
        }
    }

    fn is(&self, member: &Member) -> bool {
        self.origin.incarnation == member.incarnation && self.origin.node == member.node
    }

    /// Its `cluster_addr`.
    pub(super) fn address(&self) -> String {
        self.address.lock().clone()
    }

    /// Replaces its address.
    pub(super) fn set_address(&self, address: &str) {
        let mut known = self.address.lock();
        if *known != address {
            address.clone_into(&mut known);
        }
    }

    /// Completes when the node is no longer a member, or the port is closed.
    pub(super) async fn removed(&self) {
        // The sender lives as long as this.
        let _ = self.removed.subscribe().wait_for(|removed| *removed).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use keepfast_storage::RaftId;

    use super::*;

    #[test]
    fn a_member_without_an_address_keeps_the_one_that_is_known() {
        let member = |address: &str| Member {
            id: RaftId(2),
            node: "n2".to_owned(),
            incarnation: [2; 16],
            cluster_addr: address.to_owned(),
            api_addr: String::new(),
            voter: true,
            wants_vote: true,
            election_ms: 600,
            version: String::new(),
        };
        let members = Members::default();
        for (address, known) in [("", ""), ("a:1", "a:1"), ("", "a:1"), ("b:1", "b:1")] {
            assert_eq!(members.get(&member(address)).unwrap().address(), known);
        }
    }
}
