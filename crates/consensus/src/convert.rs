//! Between our types and the structs of the crate `raft`. Our bytes travel in `Entry.context` with empty `data`, so the
//! crate copies and parses none of them.

use bytes::Bytes;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry as RaftEntry, EntryType, HardState,
    Message as RaftMessage, MessageType, Snapshot,
};

use crate::entry::{Entry, LogId, RaftId, Vote};
use crate::member::Member;
use crate::message::{Body, Message, ReadContext, Rejection};
use crate::payload::Payload;

/// The context by which the crate recognises a vote that a transfer forces.
const FORCED: &[u8] = b"CampaignTransfer";

pub(crate) fn entry_to_raft(entry: &Entry) -> RaftEntry {
    let mut raft = payload_to_raft(entry.payload.clone());
    (raft.term, raft.index) = (entry.id.term, entry.id.index);
    raft
}

/// An entry without position. A list of members has the type by which the crate notices open changes.
pub(crate) fn payload_to_raft(payload: Bytes) -> RaftEntry {
    let mut raft = RaftEntry::default();
    if Payload::is_members(&payload) {
        raft.set_entry_type(EntryType::EntryConfChangeV2);
    }
    raft.context = payload;
    raft
}

/// Of a change of members, the crate's own encoding in `data` is left behind.
pub(crate) fn entry_from_raft(raft: &RaftEntry) -> Entry {
    Entry { id: LogId { term: raft.term, index: raft.index }, payload: raft.context.clone() }
}

/// The size of an entry in memory and on the wire, roughly.
pub(crate) fn size_of(entry: &RaftEntry) -> u64 {
    entry.context.len() as u64 + 32
}

pub(crate) fn hard_state(vote: Vote, committed: u64) -> HardState {
    HardState { term: vote.term, vote: vote.candidate.0, commit: committed, ..HardState::default() }
}

pub(crate) fn conf_state(members: &[Member]) -> ConfState {
    let ids = |voters: bool| -> Vec<u64> {
        members.iter().filter(|member| member.voter == voters).map(|member| member.id.0).collect()
    };
    ConfState { voters: ids(true), learners: ids(false), ..ConfState::default() }
}

/// The changes from one list to the next: one, or none if only addresses change.
pub(crate) fn conf_changes(old: &[Member], new: &[Member]) -> Vec<ConfChangeV2> {
    let find = |list: &[Member], id: RaftId| list.iter().find(|member| member.id == id).map(|member| member.voter);
    let removed = old.iter().filter(|member| find(new, member.id).is_none());
    let removed = removed.map(|member| (ConfChangeType::RemoveNode, member.id));
    let set = new.iter().filter(|member| find(old, member.id) != Some(member.voter)).map(|member| {
        let kind = if member.voter { ConfChangeType::AddNode } else { ConfChangeType::AddLearnerNode };
        (kind, member.id)
    });
    let change = |(kind, id): (ConfChangeType, RaftId)| {
        let mut single = ConfChangeSingle { node_id: id.0, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        let mut change = ConfChangeV2::default();
        change.set_changes(vec![single].into());
        change
    };
    set.chain(removed).map(change).collect()
}

pub(crate) fn snapshot(last: LogId, members: &[Member]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (last.index, last.term);
    metadata.set_conf_state(conf_state(members));
    snapshot
}

pub(crate) fn context_to_raft(context: ReadContext) -> Vec<u8> {
    [context.epoch.to_le_bytes(), context.count.to_le_bytes()].concat()
}

pub(crate) fn context_from_raft(bytes: &[u8]) -> Option<ReadContext> {
    let (epoch, count) = bytes.split_at_checked(8)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    Some(ReadContext { epoch: number(epoch)?, count: number(count)? })
}

/// A message of a peer, as the crate takes it; `None` for one that the crate does not know.
pub(crate) fn message_to_raft(message: Message) -> Option<RaftMessage> {
    let mut raft = RaftMessage::default();
    (raft.from, raft.to, raft.term) = (message.from.0, message.to.0, message.term);
    let kind = match message.body {
        Body::Append { previous, commit, entries } => {
            (raft.index, raft.log_term, raft.commit) = (previous.index, previous.term, commit);
            raft.set_entries(entries.iter().map(entry_to_raft).collect::<Vec<_>>().into());
            MessageType::MsgAppend
        }
        Body::AppendResponse { index, commit, rejection } => {
            (raft.index, raft.commit, raft.reject) = (index, commit, rejection.is_some());
            if let Some(Rejection { hint, hint_term }) = rejection {
                (raft.reject_hint, raft.log_term) = (hint, hint_term);
            }
            MessageType::MsgAppendResponse
        }
        Body::Vote { last, commit, forced } => {
            put_candidate(&mut raft, last, commit);
            if forced {
                raft.context = Bytes::from_static(FORCED);
            }
            MessageType::MsgRequestVote
        }
        Body::PreVote { last, commit } => {
            put_candidate(&mut raft, last, commit);
            MessageType::MsgRequestPreVote
        }
        Body::VoteResponse { granted, commit } => {
            (raft.reject, raft.commit, raft.commit_term) = (!granted, commit.index, commit.term);
            MessageType::MsgRequestVoteResponse
        }
        Body::PreVoteResponse { granted, commit } => {
            (raft.reject, raft.commit, raft.commit_term) = (!granted, commit.index, commit.term);
            MessageType::MsgRequestPreVoteResponse
        }
        Body::Heartbeat { commit, read } => {
            put_heartbeat(&mut raft, commit, read);
            MessageType::MsgHeartbeat
        }
        Body::HeartbeatResponse { commit, read } => {
            put_heartbeat(&mut raft, commit, read);
            MessageType::MsgHeartbeatResponse
        }
        Body::TimeoutNow => MessageType::MsgTimeoutNow,
        Body::Snapshot { last, members } => {
            raft.set_snapshot(snapshot(last, &members));
            MessageType::MsgSnapshot
        }
        Body::Gone { .. } => return None,
    };
    raft.set_msg_type(kind);
    Some(raft)
}

fn put_candidate(raft: &mut RaftMessage, last: LogId, commit: LogId) {
    (raft.index, raft.log_term) = (last.index, last.term);
    (raft.commit, raft.commit_term) = (commit.index, commit.term);
}

fn put_heartbeat(raft: &mut RaftMessage, commit: u64, read: Option<ReadContext>) {
    raft.commit = commit;
    raft.context = read.map(context_to_raft).unwrap_or_default().into();
}

/// A message of the crate for a peer; `None` for types that have no form on the wire. Members of a snapshot are not
/// known to the crate, so that its message has none.
pub(crate) fn message_from_raft(raft: &RaftMessage) -> Option<Message> {
    let commit = LogId { term: raft.commit_term, index: raft.commit };
    let last = LogId { term: raft.log_term, index: raft.index };
    let read = || context_from_raft(&raft.context);
    let body = match raft.get_msg_type() {
        MessageType::MsgAppend => {
            let entries = raft.entries.iter().map(entry_from_raft).collect();
            Body::Append { previous: last, commit: raft.commit, entries }
        }
        MessageType::MsgAppendResponse => {
            let rejection = Rejection { hint: raft.reject_hint, hint_term: raft.log_term };
            let rejection = raft.reject.then_some(rejection);
            Body::AppendResponse { index: raft.index, commit: raft.commit, rejection }
        }
        MessageType::MsgRequestVote => Body::Vote { last, commit, forced: raft.context == FORCED },
        MessageType::MsgRequestVoteResponse => Body::VoteResponse { granted: !raft.reject, commit },
        MessageType::MsgRequestPreVote => Body::PreVote { last, commit },
        MessageType::MsgRequestPreVoteResponse => Body::PreVoteResponse { granted: !raft.reject, commit },
        MessageType::MsgHeartbeat => Body::Heartbeat { commit: raft.commit, read: read() },
        MessageType::MsgHeartbeatResponse => Body::HeartbeatResponse { commit: raft.commit, read: read() },
        MessageType::MsgTimeoutNow => Body::TimeoutNow,
        MessageType::MsgSnapshot => {
            let metadata = raft.get_snapshot().get_metadata();
            Body::Snapshot { last: LogId { term: metadata.term, index: metadata.index }, members: Vec::new() }
        }
        _ => return None,
    };
    Some(Message { from: RaftId(raft.from), to: RaftId(raft.to), term: raft.term, body })
}
