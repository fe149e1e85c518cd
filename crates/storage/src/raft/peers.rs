//! Where the other members are, and when they sent their last message.

use std::{borrow::Cow, collections::HashMap};

use keepfast_consensus::{MAX_MEMBERS, Message, Mono, Steps};

use crate::{Member, Origin, RaftId};

#[derive(Default)]
pub(super) struct Peers {
    /// The last message of each member.
    pub(super) contacts: HashMap<RaftId, Mono>,
    /// The sender of the messages under an id: the list may lack a leader that was added lately.
    senders: HashMap<RaftId, Origin>,
}

impl Peers {
    pub(super) fn note(&mut self, message: &Message, origin: &Origin, now: Mono) {
        let is_known = self.senders.contains_key(&message.from);
        if !is_known && self.senders.len() >= 2 * MAX_MEMBERS {
            (self.senders, self.contacts) = Default::default();
        }
        self.contacts.insert(message.from, now);
        if self.senders.get(&message.from) != Some(origin) {
            self.senders.insert(message.from, origin.clone());
        }
    }

    /// The member with an id, from any list that this node knows. One that all of them lack has sent messages, and has no
    /// addresses: see [`Transport::send`](crate::Transport::send).
    pub(super) fn address<'s>(&self, steps: &'s Steps, id: RaftId) -> Option<Cow<'s, Member>> {
        if let Some(member) = steps.member(id) {
            return Some(member);
        }
        let origin = self.senders.get(&id)?;
        Some(Cow::Owned(Member {
            id,
            node: origin.node.clone(),
            incarnation: origin.incarnation,
            cluster_addr: String::new(),
            api_addr: String::new(),
            voter: false,
            wants_vote: false,
            election_ms: 1,
            version: String::new(),
        }))
    }
}
