//! Two sides of one promise. A voter that heard from a leader grants no vote for an election timeout (Ongaro §4.2.3),
//! and a leader that a quorum has heard serves reads without another round for 0.8 of the shortest of these timeouts
//! (Ongaro §6.4.1). Both sides measure with their own clocks, which may differ in rate by a fifth.

use crate::entry::{Mono, RaftId};

/// The side of the voter (obligation O1). The crate has this check, too, but only while it knows a leader: a restarted
/// node knows none, and a late rejection of a pre-vote lets it forget.
#[derive(Default)]
pub(super) struct Promise {
    until: Mono,
    /// The longest election timeout of this node, in milliseconds, that a list may have: a leader may take it for the
    /// time of the promise, although this node has a shorter one now.
    announced: u32,
    /// The leader of the newest term that this node has heard.
    leader: Option<(u64, RaftId)>,
}

impl Promise {
    pub(super) fn of(announced: u32) -> Self {
        Self { announced, ..Self::default() }
    }

    pub(super) fn announced(&self) -> u32 {
        self.announced
    }

    /// A list with a shorter timeout is applied. This node has proposed it after each longer one.
    pub(super) fn lower(&mut self, announced: u32) {
        self.announced = announced;
    }

    pub(super) fn leader(&self) -> Option<(u64, RaftId)> {
        self.leader
    }

    pub(super) fn note_leader(&mut self, term: u64, leader: RaftId) {
        self.leader = Some((term, leader));
    }

    /// This node hears from a leader, or starts.
    pub(super) fn renew(&mut self, now: Mono, span: u64) {
        self.until = self.until.max(now + span);
    }

    /// Whether this node grants no vote, to others or itself.
    pub(super) fn holds(&self, now: Mono) -> bool {
        now < self.until
    }
}

/// The side of the leader.
pub(super) struct Lease {
    /// The term that this node leads.
    term: Option<u64>,
    /// When the newest round was started that a quorum has acknowledged.
    started: Option<Mono>,
    /// Rounds that were started earlier do not count.
    not_before: Mono,
    is_barred: bool,
}

impl Lease {
    pub(super) fn of(term: Option<u64>, now: Mono) -> Self {
        Self { term, started: None, not_before: now, is_barred: false }
    }

    pub(super) fn term(&self) -> Option<u64> {
        self.term
    }

    /// A quorum has heard from this leader after `started`.
    pub(super) fn confirm(&mut self, started: Mono) {
        if started >= self.not_before {
            self.started = self.started.max(Some(started));
        }
    }

    /// Ends the lease for the rest of the term: a transfer makes voters break their promise (obligation O2). It may
    /// do so long after it was given up, since its messages may be late.
    pub(super) fn bar(&mut self) {
        self.is_barred = true;
    }

    /// Ends the lease; rounds that begin after `now` give another one.
    pub(super) fn void(&mut self, now: Mono) {
        self.started = None;
        self.not_before = now + 1;
    }

    /// Whether no other leader can commit at `now`. `shortest` is the shortest promise of a voter.
    pub(super) fn holds(&self, now: Mono, shortest: u64) -> bool {
        !self.is_barred && self.term.is_some() && self.end(shortest).is_some_and(|end| now < end)
    }

    /// When it ends, unless something else ends it before.
    pub(super) fn end(&self, shortest: u64) -> Option<Mono> {
        Some(self.started? + shortest / 5 * 4)
    }

    /// Whether half of the lease is over.
    pub(super) fn is_old(&self, now: Mono, shortest: u64) -> bool {
        !self.holds(now + shortest / 5 * 2, shortest)
    }

    /// Whether another round can give a lease.
    pub(super) fn can_renew(&self) -> bool {
        !self.is_barred && self.term.is_some()
    }
}
