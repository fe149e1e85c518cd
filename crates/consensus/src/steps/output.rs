//! From the `Ready`s of the crate to frames and messages (obligations O3, O4, O10).
//!
//! Every `Ready` has a number. Its messages promise what its frame contains (an acknowledgement its entries, a vote its
//! term), so they leave when that frame and each earlier one is synced. A leader's messages promise nothing of its own
//! and leave at once, beside its own sync (Ongaro §10.2.1), unless its term or vote is not synced: only then could it
//! lead the same term twice, with other entries at the same positions.

use std::collections::VecDeque;

use raft::eraftpb::Message as RaftMessage;
use raft::{Ready, StateRole};

use super::{Effect, Input, Settings, Steps};
use crate::convert;
use crate::entry::{LogId, Mono, RaftId, Vote};
use crate::frame::Frame;
use crate::member::Member;
use crate::message::{Body, Message};
use crate::payload::Payload;

/// A `Ready` that is not complete.
struct Held {
    number: u64,
    /// Whether its frame has something to sync, and since when it is under way.
    unsynced_since: Option<Mono>,
    has_vote: bool,
    messages: Vec<RaftMessage>,
}

/// The most `Ready`s that wait for a sync. While it hangs, messages beyond it are lost.
const MAX_HELD: usize = 4096;

struct Installing {
    ready: Box<Ready>,
    last: LogId,
    members: Vec<Member>,
}

/// What is collected, and what waits for a sync.
pub(super) struct Output {
    frame: Frame,
    vote: Vote,
    held: VecDeque<Held>,
    synced: u64,
    committed: u64,
    /// The members of the snapshot that the crate is about to accept.
    received: Option<Vec<Member>>,
    installing: Option<Installing>,
    /// A vote that a planted bug writes with the next frame.
    #[cfg(any(test, feature = "suite"))]
    late_vote: Option<Vote>,
}

impl Output {
    pub(super) fn new(vote: Vote) -> Self {
        Self {
            frame: Frame::default(),
            vote,
            held: VecDeque::new(),
            synced: 0,
            committed: 0,
            received: None,
            installing: None,
            #[cfg(any(test, feature = "suite"))]
            late_vote: None,
        }
    }

    pub(super) fn persisted(&mut self, number: u64) {
        self.synced = self.synced.max(number);
    }

    /// The index up to which entries were handed out as committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn receive(&mut self, members: Vec<Member>) {
        self.received = Some(members);
    }

    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Whether too much waits for a sync.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= MAX_HELD
    }

    /// Since when the oldest frame waits for its sync.
    pub(super) fn oldest_unsynced(&self) -> Option<Mono> {
        self.held.iter().find_map(|held| held.unsynced_since)
    }

    /// Emits the frame of this step, one for all its `Ready`s.
    pub(super) fn emit(&mut self, settings: &Settings, out: &mut Vec<Effect>) {
        let mut frame = std::mem::take(&mut self.frame);
        if planted!(settings, NoCommitInFrame) {
            frame.committed = 0;
        }
        #[cfg(any(test, feature = "suite"))]
        if planted!(settings, VoteInLaterFrame) && !frame.is_empty() {
            frame.vote = std::mem::replace(&mut self.late_vote, frame.vote);
            out.push(Effect::Persist(frame));
            return;
        }
        if !frame.is_empty() {
            out.push(Effect::Persist(frame));
        }
    }

    /// Whether a term or vote is not synced.
    pub(super) fn is_vote_unsynced(&self) -> bool {
        self.held.iter().any(|held| held.has_vote)
    }
}

impl Steps {
    /// Takes every `Ready` of the crate.
    pub(super) fn collect(&mut self, out: &mut Vec<Effect>) {
        self.release(out);
        while self.node.has_ready() {
            let ready = self.node.ready();
            if ready.snapshot().is_empty() {
                self.take(ready, out);
                self.release(out);
            } else {
                self.begin_install(ready, out);
                return;
            }
        }
        self.output.received = None;
    }

    fn take(&mut self, mut ready: Ready, out: &mut Vec<Effect>) {
        let number = ready.number();
        for read in ready.take_read_states() {
            self.note_read(&read.request_ctx, read.index, out);
        }
        let entries = ready.take_entries();
        let vote = self.new_vote(&ready);
        let has_frame = vote.is_some() || !entries.is_empty();
        self.node.mut_store().append(&entries);
        if has_frame {
            self.note_lists(&entries);
            let committed = self.node.raft.raft_log.committed;
            let entries = entries.iter().map(convert::entry_from_raft).collect();
            self.output.frame.merge(Frame { number, vote, entries, committed });
        }
        let immediate = ready.take_messages();
        let mut messages = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        self.node.advance_append_async(ready);
        let is_vote_unsynced = vote.is_some() || self.output.is_vote_unsynced();
        if is_vote_unsynced && !planted!(self.settings, LeaderSendsBeforeVote) {
            messages.extend(immediate);
        } else {
            send(immediate, out);
        }
        if planted!(self.settings, AckBeforeSync) {
            send(std::mem::take(&mut messages), out);
        }
        let unsynced_since = has_frame.then_some(self.now);
        self.output.held.push_back(Held { number, unsynced_since, has_vote: vote.is_some(), messages });
        if let Some(last) = committed.last() {
            for entry in committed.iter().filter(|entry| Payload::is_members(&entry.context)) {
                // Lists are decoded when they arrive, at the start and when they are proposed.
                if let Ok(Payload::Members(list)) = Payload::decode(&entry.context) {
                    self.unapplied.push_back((entry.index, list));
                }
            }
            self.output.committed = last.index;
            out.push(Effect::Commit(last.index));
        }
    }

    fn new_vote(&mut self, ready: &Ready) -> Option<Vote> {
        let hard = ready.hs()?;
        let vote = Vote { term: hard.term, candidate: RaftId(hard.vote) };
        (std::mem::replace(&mut self.output.vote, vote) != vote).then_some(vote)
    }

    fn note_lists(&mut self, entries: &[raft::eraftpb::Entry]) {
        let lists = entries.iter().filter(|entry| Payload::is_members(&entry.context));
        self.newest_list = lists.map(|entry| entry.index).fold(self.newest_list, u64::max);
    }

    /// Completes each `Ready` whose frame, and each earlier one, is synced.
    fn release(&mut self, out: &mut Vec<Effect>) {
        let mut complete = 0;
        while let Some(held) = self.output.held.front() {
            if held.unsynced_since.is_some() && held.number > self.output.synced {
                break;
            }
            let Some(held) = self.output.held.pop_front() else { break };
            complete = held.number;
            send(held.messages, out);
        }
        if complete > 0 {
            self.node.on_persist_ready(complete);
        }
    }

    /// The crate has accepted a snapshot. Nothing else happens until the state of this node is that of the snapshot: the
    /// crate panics when it applies or persists in between (obligation O4).
    fn begin_install(&mut self, ready: Ready, out: &mut Vec<Effect>) {
        let metadata = ready.snapshot().get_metadata();
        let last = LogId { term: metadata.term, index: metadata.index };
        let members = self.output.received.take().unwrap_or_default();
        let vote = self.new_vote(&ready).unwrap_or(self.output.vote);
        // What was collected in this step belongs to the frames before.
        self.output.emit(&self.settings, out);
        out.push(Effect::Install { number: ready.number(), vote, last, members: members.clone() });
        self.output.installing = Some(Installing { ready: Box::new(ready), last, members });
    }

    /// Of what arrives meanwhile only syncs count; callers learn that they are not served.
    pub(super) fn step_while_installing(&mut self, input: &Input, out: &mut Vec<Effect>) {
        match input {
            Input::Installed => self.installed(out),
            Input::Persisted(number) => self.output.persisted(*number),
            input => super::refuse(input, out),
        }
    }

    fn installed(&mut self, out: &mut Vec<Effect>) {
        let Some(Installing { mut ready, last, members }) = self.output.installing.take() else { return };
        let number = ready.number();
        let counted = self.settings.counted(&members);
        self.node.mut_store().reset(last, counted);
        let mut messages: Vec<RaftMessage> = self.output.held.drain(..).flat_map(|held| held.messages).collect();
        messages.extend(ready.take_messages());
        messages.extend(ready.take_persisted_messages());
        self.node.advance_append_async(*ready);
        self.node.on_persist_ready(number);
        self.node.advance_apply_to(last.index);
        self.output.persisted(number);
        self.output.committed = last.index;
        (self.applied, self.members, self.newest_list) = (last.index, members, 0);
        self.unapplied.clear();
        send(messages, out);
        debug_assert_ne!(self.node.raft.state, StateRole::Leader);
    }
}

fn send(messages: Vec<RaftMessage>, out: &mut Vec<Effect>) {
    out.extend(messages.iter().filter_map(convert::message_from_raft).map(|message| match message {
        Message { to, term, body: Body::Snapshot { last, .. }, .. } => {
            Effect::SendSnapshot { to, term, at_least: last.index }
        }
        message => Effect::Send(message),
    }));
}
