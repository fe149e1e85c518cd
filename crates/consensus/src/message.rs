//! Messages between nodes: our own binary form, version 1. Nothing that a node receives is parsed by protobuf.
//!
//! ```text
//! message = version:u8 (1) kind:u8 from:u64 to:u64 term:u64 body       numbers are little-endian, at most 2^62
//! 1 append            index log_term commit count:u32, then count × (term:u64 length:u32 bytes); indexes follow `index`
//! 2 append response   index commit rejected:flag, then if rejected hint hint_term
//! 3 vote              index log_term commit commit_term forced:flag
//! 4 vote response     granted:flag commit commit_term
//! 5 pre-vote, 6 pre-vote response   as 3 (never forced) and 4
//! 7 heartbeat         commit read:flag, then if read epoch:u64 count:u64
//! 8 heartbeat response   as 7
//! 9 timeout now       nothing
//! 10 snapshot         index log_term members: the head of a snapshot, on the connection that carries the snapshot
//! 11 gone             commit incarnation:16
//! ```

use bytes::Bytes;

use crate::entry::{Entry, LogId, RaftId};
use crate::member::{self, Incarnation, Member};
use crate::payload::MAX_ENTRY;
use crate::wire::{MAX_NUMBER, Reader, WireError, put_u32, put_u64};

/// The most bytes of a message: one entry of the largest size, or some entries of 4 MiB in sum.
pub const MAX_MESSAGE: usize = MAX_ENTRY + 64 * 1024;

const VERSION: u8 = 1;
const APPEND: u8 = 1;
const APPEND_RESPONSE: u8 = 2;
const VOTE: u8 = 3;
const VOTE_RESPONSE: u8 = 4;
const PRE_VOTE: u8 = 5;
const PRE_VOTE_RESPONSE: u8 = 6;
const HEARTBEAT: u8 = 7;
const HEARTBEAT_RESPONSE: u8 = 8;
const TIMEOUT_NOW: u8 = 9;
const SNAPSHOT: u8 = 10;
const GONE: u8 = 11;

/// A message between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The sender.
    pub from: RaftId,
    /// The receiver.
    pub to: RaftId,
    /// The term of the sender; of a pre-vote and its granted response, the term that the candidate would begin.
    pub term: u64,
    /// The rest.
    pub body: Body,
}

/// What a message says. Types of messages that the crate `raft` has for use inside a process (propose, read index,
/// transfer, reports) have no form here, so no peer can send one (obligation O9).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// AppendEntries (Ongaro §3.5).
    Append {
        /// The entry before the first of `entries`.
        previous: LogId,
        /// The committed index of the leader.
        commit: u64,
        /// Entries without gaps from `previous.index + 1`.
        entries: Vec<Entry>,
    },
    /// The response to `Append`, and to an installed snapshot.
    AppendResponse {
        /// The last index that agrees with the leader; of a rejection, the index that was refused.
        index: u64,
        /// The committed index of the follower.
        commit: u64,
        /// Why the entries do not fit.
        rejection: Option<Rejection>,
    },
    /// RequestVote (Ongaro §3.4).
    Vote {
        /// The last entry of the candidate.
        last: LogId,
        /// The last entry that the candidate knows to be committed.
        commit: LogId,
        /// Whether the leader itself has requested the election (Ongaro §3.10).
        forced: bool,
    },
    /// The response to `Vote`.
    VoteResponse {
        /// Whether the vote is granted.
        granted: bool,
        /// The last entry that the voter knows to be committed; zero when the vote is granted.
        commit: LogId,
    },
    /// The vote before the vote (Ongaro §9.6).
    PreVote {
        /// The last entry of the candidate.
        last: LogId,
        /// The last entry that the candidate knows to be committed.
        commit: LogId,
    },
    /// The response to `PreVote`.
    PreVoteResponse {
        /// Whether a vote would be granted.
        granted: bool,
        /// The last entry that the voter knows to be committed; zero when the vote is granted.
        commit: LogId,
    },
    /// A sign of life of the leader.
    Heartbeat {
        /// The committed index, as far as the receiver has the log.
        commit: u64,
        /// The newest ReadIndex round (Ongaro §6.4, step 3).
        read: Option<ReadContext>,
    },
    /// The response to `Heartbeat`.
    HeartbeatResponse {
        /// The committed index of the follower.
        commit: u64,
        /// That of the heartbeat.
        read: Option<ReadContext>,
    },
    /// Begin an election now: leadership is transferred (Ongaro §3.10).
    TimeoutNow,
    /// The head of a snapshot (Ongaro §5).
    Snapshot {
        /// The last entry that the snapshot contains.
        last: LogId,
        /// The members at this entry.
        members: Vec<Member>,
    },
    /// The receiver was removed from the cluster.
    Gone {
        /// An index at which the committed list lacks the receiver.
        commit: u64,
        /// The data directory of the member that was removed.
        incarnation: Incarnation,
    },
}

/// Where the log of a follower ceases to agree with that of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// The last index at which both may agree.
    pub hint: u64,
    /// The term of the follower's entry there.
    pub hint_term: u64,
}

/// The name of a ReadIndex round. The epoch differs for each start of a process, so no response belongs to two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadContext {
    /// Drawn at each start.
    pub epoch: u64,
    /// Counts the rounds.
    pub count: u64,
}

impl Message {
    /// The bytes of the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.size_of_entries());
        out.extend([VERSION, self.body.kind()]);
        put_u64(&mut out, self.from.0);
        put_u64(&mut out, self.to.0);
        put_u64(&mut out, self.term);
        self.body.encode(&mut out);
        out.into()
    }

    /// A message from its bytes; entries share their memory.
    ///
    /// # Errors
    ///
    /// Bytes that [`Self::encode`] does not write, and more than [`MAX_MESSAGE`].
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(WireError::Bound("a message"));
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let kind = reader.u8()?;
        let (from, to, term) = (RaftId(reader.number()?), RaftId(reader.number()?), reader.number()?);
        let body = Body::decode(kind, &mut reader)?;
        reader.end()?;
        Ok(Self { from, to, term, body })
    }

    fn size_of_entries(&self) -> usize {
        match &self.body {
            Body::Append { entries, .. } => entries.iter().map(|entry| 12 + entry.payload.len()).sum(),
            _ => 0,
        }
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Append { .. } => APPEND,
            Self::AppendResponse { .. } => APPEND_RESPONSE,
            Self::Vote { .. } => VOTE,
            Self::VoteResponse { .. } => VOTE_RESPONSE,
            Self::PreVote { .. } => PRE_VOTE,
            Self::PreVoteResponse { .. } => PRE_VOTE_RESPONSE,
            Self::Heartbeat { .. } => HEARTBEAT,
            Self::HeartbeatResponse { .. } => HEARTBEAT_RESPONSE,
            Self::TimeoutNow => TIMEOUT_NOW,
            Self::Snapshot { .. } => SNAPSHOT,
            Self::Gone { .. } => GONE,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Append { previous, commit, entries } => {
                put_position(out, *previous);
                put_u64(out, *commit);
                put_entries(out, entries);
            }
            Self::AppendResponse { index, commit, rejection } => {
                put_u64(out, *index);
                put_u64(out, *commit);
                out.push(u8::from(rejection.is_some()));
                if let Some(Rejection { hint, hint_term }) = rejection {
                    put_u64(out, *hint);
                    put_u64(out, *hint_term);
                }
            }
            Self::Vote { last, commit, forced } => {
                put_position(out, *last);
                put_position(out, *commit);
                out.push(u8::from(*forced));
            }
            Self::PreVote { last, commit } => {
                put_position(out, *last);
                put_position(out, *commit);
            }
            Self::VoteResponse { granted, commit } | Self::PreVoteResponse { granted, commit } => {
                out.push(u8::from(*granted));
                put_position(out, *commit);
            }
            Self::Heartbeat { commit, read } | Self::HeartbeatResponse { commit, read } => {
                put_u64(out, *commit);
                out.push(u8::from(read.is_some()));
                if let Some(ReadContext { epoch, count }) = read {
                    put_u64(out, *epoch);
                    put_u64(out, *count);
                }
            }
            Self::TimeoutNow => {}
            Self::Snapshot { last, members } => {
                put_position(out, *last);
                member::encode_list(members, out);
            }
            Self::Gone { commit, incarnation } => {
                put_u64(out, *commit);
                out.extend(incarnation);
            }
        }
    }

    fn decode(kind: u8, reader: &mut Reader) -> Result<Self, WireError> {
        Ok(match kind {
            APPEND => {
                let (previous, commit) = (position(reader)?, reader.number()?);
                Self::Append { previous, commit, entries: entries(reader, previous.index)? }
            }
            APPEND_RESPONSE => {
                let (index, commit) = (reader.number()?, reader.number()?);
                let rejection = match reader.flag()? {
                    true => Some(Rejection { hint: reader.number()?, hint_term: reader.number()? }),
                    false => None,
                };
                Self::AppendResponse { index, commit, rejection }
            }
            VOTE => Self::Vote { last: position(reader)?, commit: position(reader)?, forced: reader.flag()? },
            VOTE_RESPONSE => Self::VoteResponse { granted: reader.flag()?, commit: position(reader)? },
            PRE_VOTE => Self::PreVote { last: position(reader)?, commit: position(reader)? },
            PRE_VOTE_RESPONSE => Self::PreVoteResponse { granted: reader.flag()?, commit: position(reader)? },
            HEARTBEAT => Self::Heartbeat { commit: reader.number()?, read: read_context(reader)? },
            HEARTBEAT_RESPONSE => Self::HeartbeatResponse { commit: reader.number()?, read: read_context(reader)? },
            TIMEOUT_NOW => Self::TimeoutNow,
            SNAPSHOT => Self::Snapshot { last: position(reader)?, members: member::decode_list(reader)? },
            GONE => Self::Gone { commit: reader.number()?, incarnation: reader.array()? },
            other => return Err(WireError::Kind(other)),
        })
    }
}

fn put_position(out: &mut Vec<u8>, LogId { term, index }: LogId) {
    put_u64(out, index);
    put_u64(out, term);
}

fn position(reader: &mut Reader) -> Result<LogId, WireError> {
    let (index, term) = (reader.number()?, reader.number()?);
    Ok(LogId { term, index })
}

fn read_context(reader: &mut Reader) -> Result<Option<ReadContext>, WireError> {
    Ok(match reader.flag()? {
        true => Some(ReadContext { epoch: reader.u64()?, count: reader.u64()? }),
        false => None,
    })
}

fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    put_u32(out, u32::try_from(entries.len()).unwrap_or(u32::MAX));
    for entry in entries {
        put_u64(out, entry.id.term);
        put_u32(out, u32::try_from(entry.payload.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&entry.payload);
    }
}

/// Entries after `previous`. The vector grows with what is read, not with the count that the sender claims.
fn entries(reader: &mut Reader, previous: u64) -> Result<Vec<Entry>, WireError> {
    let count = u64::from(reader.u32()?);
    if previous + count > MAX_NUMBER {
        return Err(WireError::Bound("an index"));
    }
    let mut entries = Vec::new();
    for index in previous + 1..=previous + count {
        let term = reader.number()?;
        let length = reader.u32()? as usize;
        if length > MAX_ENTRY {
            return Err(WireError::Bound("an entry"));
        }
        entries.push(Entry { id: LogId { term, index }, payload: reader.take(length)? });
    }
    Ok(entries)
}
