//! Settings of a node and its start.

use raft::{Config, RawNode, ReadOnlyOption};

use super::departures::Departures;
use super::lease::{Lease, Promise};
use super::lost_entries::LostEntries;
use super::output::Output;
use super::propose::Proposals;
use super::reads::Reads;
use super::tick::Timer;
use super::{Chance, Role, Steps};
use crate::convert;
use crate::entry::{Entry, LogId, Mono, RaftId, Vote};
use crate::log_view::LogView;
use crate::member::Member;
use crate::payload::Payload;

/// Times and bounds. Times are in microseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The unit in which the crate counts time.
    pub tick: u64,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks of the shortest election timeout. The longest is just below the double (Ongaro §3.9).
    pub election_ticks: usize,
    /// The most bytes of entries in a message; one entry may have more.
    pub max_message_bytes: u64,
    /// The most messages with entries that are under way to a member.
    pub max_inflight: usize,
    /// The most bytes of entries that wait for their commit or to be applied, above which none is proposed.
    pub max_unapplied_bytes: u64,
    /// Whether a leader serves reads from its lease.
    pub read_lease: bool,
    /// The time after which callers that wait begin another ReadIndex round.
    pub read_retry: u64,
    /// The time after which a call is lost.
    pub read_deadline: u64,
    /// A bug for the simulator to find.
    #[cfg(any(test, feature = "suite"))]
    pub planted: Option<crate::planted::Bug>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick: 20_000,
            heartbeat_ticks: 5,
            election_ticks: 30,
            max_message_bytes: 4 * 1024 * 1024,
            max_inflight: 64,
            max_unapplied_bytes: 32 * 1024 * 1024,
            read_lease: true,
            read_retry: 500_000,
            read_deadline: 2_000_000,
            #[cfg(any(test, feature = "suite"))]
            planted: None,
        }
    }
}

impl Settings {
    /// The shortest election timeout.
    pub(super) fn election(&self) -> u64 {
        self.tick.saturating_mul(self.election_ticks as u64)
    }

    /// The members as quorums count them.
    pub(super) fn counted(&self, members: &[Member]) -> Vec<Member> {
        let counts_all = planted!(self, LearnerCounts);
        members.iter().map(|member| Member { voter: member.voter || counts_all, ..member.clone() }).collect()
    }

    fn config(&self, id: RaftId, applied: u64) -> Config {
        Config {
            id: id.0,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: self.max_message_bytes,
            max_inflight_msgs: self.max_inflight,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            // See `send_commit.rs`.
            skip_bcast_commit: true,
            ..Config::default()
        }
    }
}

/// What a node knows when its process starts.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its id.
    pub id: RaftId,
    /// The list of members at `applied`. A joiner has the list that the leader gave it.
    pub members: Vec<Member>,
    /// The term and vote on the disk.
    pub vote: Vote,
    /// The entry before the first of the log; the last of a snapshot, or index 1 of a new cluster, so that a joiner,
    /// which has nothing, begins with a snapshot (obligation O8).
    pub before: LogId,
    /// The log.
    pub entries: Vec<Entry>,
    /// The committed index of the newest frame.
    pub committed: u64,
    /// The applied index of the state.
    pub applied: u64,
    /// A number that no other start of this node has, for the names of ReadIndex rounds.
    pub epoch: u64,
    /// The longest election timeout of this node, in milliseconds, that it has ever announced: it is durable before a
    /// change or a join with it is proposed. See [`Steps::announced_ms`].
    pub announced_ms: u32,
    /// The last index of the log at the recovery that has given the node its list of members; 0 without one. The members
    /// of a recovered cluster begin with logs that may differ up to there.
    pub recovered: u64,
}

/// State from which no node can start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The state contains entries that the log lacks, or lacks entries before the log.
    #[error("the state is at {applied}, and the log has {first} to {last}")]
    Apart {
        /// The applied index.
        applied: u64,
        /// The first index of the log.
        first: u64,
        /// The last index of the log.
        last: u64,
    },
    /// The indexes of the log have a gap.
    #[error("the log has a gap at {0}")]
    Gap(u64),
    /// The terms of the log decrease.
    #[error("the terms of the log decrease at {0}")]
    Terms(u64),
    /// The log begins with index 1, or the id is 0.
    #[error("the log begins too early, or the node has no id")]
    Beginning,
    /// A list of members in the log cannot be read.
    #[error("the list of members at {0} cannot be read")]
    List(u64),
    /// The crate refuses it.
    #[error("{0}")]
    Refused(String),
}

impl Steps {
    /// Starts a node at `now`.
    ///
    /// # Errors
    ///
    /// A log and a state that do not belong together.
    pub fn new(settings: Settings, boot: Boot, now: Mono, chance: &mut dyn Chance) -> Result<Self, BootError> {
        let newest_list = check(&boot)?;
        let last = boot.before.index + boot.entries.len() as u64;
        let last_term = boot.entries.last().map_or(boot.before.term, |entry| entry.id.term);
        // A crash within an install may have left a log of a later term than the vote.
        let vote = if boot.vote.term < last_term { Vote { term: last_term, ..Vote::default() } } else { boot.vote };
        // The hint may be older than the state, and of a torn log newer than its last entry (obligation O8).
        let committed = boot.committed.max(boot.applied).min(last);
        let mut view = LogView::new(boot.before, vote, committed, boot.before, settings.counted(&boot.members));
        view.append(&boot.entries.iter().map(convert::entry_to_raft).collect::<Vec<_>>());
        let term = view.term_at(boot.applied).unwrap_or_default();
        view.set_applied(LogId { term, index: boot.applied });
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&settings.config(boot.id, boot.applied), view, &logger)
            .map_err(|error| BootError::Refused(error.to_string()))?;
        let is_forgotten = planted!(settings, PromiseForgotten);
        let promise = Promise::of(if is_forgotten { 0 } else { boot.announced_ms });
        let mut steps = Self {
            timer: Timer::new(now),
            id: boot.id,
            unapplied: std::collections::VecDeque::new(),
            newest_list,
            applied: boot.applied,
            promise,
            lease: Lease::of(None, now),
            reads: Reads::new(boot.epoch),
            proposals: Proposals::default(),
            output: Output::new(vote),
            departures: Departures::of(boot.id, &boot.members),
            members: boot.members,
            lost_entries: LostEntries::default(),
            recovered: boot.recovered,
            fault: None,
            sent_commit: 0,
            role: Role::Following { leader: None, term: vote.term },
            now,
            settings,
            node,
        };
        if !planted!(steps.settings, NoVotePauseAfterRestart) {
            // This node may have acknowledged a heartbeat just before it stopped: its promise is older than its memory.
            steps.promise.renew(now, steps.promised());
        }
        steps.redraw(chance, true);
        Ok(steps)
    }

    /// The time for which this node grants no vote after contact with a leader: its own election timeout, or what a
    /// leader may take for it by a list that is current or may become so.
    pub(super) fn promised(&self) -> u64 {
        let own = self.known_members().filter(|member| member.id == self.id);
        let listed = own.map(|member| member.election_ms).max().unwrap_or(0);
        self.settings.election().max(u64::from(listed.max(self.promise.announced())) * 1000)
    }

    /// The longest election timeout of this node that a leader may still count by, of those that it has announced. The
    /// driver may store a lower value than before once this is lower.
    #[must_use]
    pub fn announced_ms(&self) -> u32 {
        self.promise.announced()
    }
}

/// Checks that log and state belong together. Returns the index of the newest list in the log, or 0.
fn check(boot: &Boot) -> Result<u64, BootError> {
    let (first, last) = (boot.before.index + 1, boot.before.index + boot.entries.len() as u64);
    if boot.applied < boot.before.index || boot.applied > last {
        return Err(BootError::Apart { applied: boot.applied, first, last });
    }
    if boot.id.0 == 0 || (boot.before.index == 0 && !boot.entries.is_empty()) {
        return Err(BootError::Beginning);
    }
    let (mut newest_list, mut term) = (0, boot.before.term);
    for (expected, entry) in (first..).zip(&boot.entries) {
        if entry.id.index != expected {
            return Err(BootError::Gap(expected));
        }
        if entry.id.term < term {
            return Err(BootError::Terms(expected));
        }
        term = entry.id.term;
        if Payload::is_members(&entry.payload) {
            Payload::decode(&entry.payload).map_err(|_| BootError::List(expected))?;
            newest_list = expected;
        }
    }
    Ok(newest_list)
}
