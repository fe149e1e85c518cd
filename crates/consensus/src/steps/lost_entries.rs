//! Members that have lost entries which they had acknowledged to this leader: a last frame that the device has damaged
//! looks like a torn one after a restart. The crate would never send such a member what it lacks, and its vote could elect
//! a leader that lacks what is committed. It gets its log again from where it ends, and has no vote until it is promoted
//! again (obligation O13).

use std::collections::BTreeSet;

use super::{Effect, Steps};
use crate::entry::RaftId;
use crate::member::Change;
use crate::message::{Body, Message};

/// The voters that a leader demotes.
#[derive(Default)]
pub(super) struct LostEntries(BTreeSet<RaftId>);

impl LostEntries {
    /// Another leadership begins: a new leader has no acknowledgement yet.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Steps {
    /// Notes at the leader that the log of a member ends before an entry that it had acknowledged.
    pub(super) fn note_lost_entries(&mut self, message: &Message, out: &mut Vec<Effect>) {
        let raft = &mut self.node.raft;
        if raft.state != raft::StateRole::Leader {
            return;
        }
        let last = match &message.body {
            Body::AppendResponse { rejection: Some(rejection), .. } if message.term == raft.term => rejection.hint,
            // A later leader may have replaced the entries of this one.
            Body::Vote { last, .. } | Body::PreVote { last, .. } if last.term <= raft.term => last.index,
            _ => return,
        };
        let Some(progress) = raft.mut_prs().get_mut(message.from.0) else { return };
        let acknowledged = progress.matched;
        if last >= acknowledged || planted!(self.settings, LostEntriesKept) {
            return;
        }
        progress.matched = 0;
        progress.become_probe();
        progress.next_idx = last + 1;
        self.lost_entries.0.insert(message.from);
        out.push(Effect::LostEntries { of: message.from, last, acknowledged });
    }

    /// Proposes that members without their entries have no vote, at each tick until it is so.
    pub(super) fn demote_without_entries(&mut self) {
        let Some(id) = self.lost_entries.0.first().copied() else { return };
        let voter =
            self.members.iter().find(|member| member.id == id && member.voter).map(|member| member.node.clone());
        // One change is open at a time, and the last voter stays one.
        match voter {
            Some(node) => drop(self.change(&Change::Demote(node))),
            None => drop(self.lost_entries.0.remove(&id)),
        }
    }
}
