//! Time: ticks of the crate, election timeouts from a seeded source, and when a node campaigns.

use raft::StateRole;

use super::{Chance, Effect, Steps};
use crate::entry::Mono;

/// Where time stands.
pub(super) struct Timer {
    /// When the crate had its last tick.
    ticked: Mono,
    /// The current election timeout in ticks.
    timeout: usize,
    /// The term and state for which it was drawn.
    drawn_for: (u64, StateRole),
}

impl Timer {
    pub(super) fn new(now: Mono) -> Self {
        Self { ticked: now, timeout: 0, drawn_for: (0, StateRole::Follower) }
    }
}

impl Steps {
    /// Gives the crate the ticks that are due. After a long pause it gets one election timeout, no more: a follower
    /// campaigns, and a leader learns that it has lost its quorum.
    pub(super) fn tick(&mut self, chance: &mut dyn Chance, out: &mut Vec<Effect>) {
        self.expire_reads(out);
        self.remind_departed(out);
        self.demote_without_entries();
        self.send_commit();
        let due = self.now.since(self.timer.ticked) / self.settings.tick;
        let most = self.settings.election_ticks as u64;
        self.timer.ticked = if due > most { self.now } else { self.timer.ticked + due * self.settings.tick };
        for _ in 0..due.min(most) {
            self.tick_once(chance);
        }
    }

    fn tick_once(&mut self, chance: &mut dyn Chance) {
        if self.is_leader() {
            // Its entries are on no disk that it can vouch for, and its heartbeats keep others from leading (etcd
            // #15247). The only voter stays: nobody else could lead.
            if self.output.oldest_unsynced().is_some_and(|since| self.now.since(since) > self.settings.election() / 2)
                && !self.is_only_voter()
            {
                self.step_down();
                self.redraw(chance, false);
                return;
            }
        } else if self.waits() {
            return;
        } else if self.is_alone() && self.is_promotable() {
            // Nobody else can lead, or has heard of a leader.
            let _ = self.node.campaign();
            self.redraw(chance, true);
            return;
        }
        self.node.tick();
        let campaigned = !self.is_leader() && self.node.raft.election_elapsed == 0;
        self.redraw(chance, campaigned);
    }

    /// Whether a node that does not lead lets a tick pass.
    fn waits(&self) -> bool {
        // The crate takes for granted that a winner has synced its log, and the only voter wins at once (O5).
        if self.is_only_voter() && self.output.oldest_unsynced().is_some() {
            return true;
        }
        // A vote for itself breaks a promise, too, and a tick can come just after the contact that it counts from.
        let raft = &self.node.raft;
        let would_campaign = raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        would_campaign && self.promise.holds(self.now) && !self.is_alone()
    }

    fn is_promotable(&self) -> bool {
        self.node.raft.promotable()
    }

    /// Sets the election timeout of the crate, which draws it from a generator that cannot be seeded whenever its term
    /// or state changes. Another one is drawn for each term, state and campaign.
    pub(super) fn redraw(&mut self, chance: &mut dyn Chance, is_new: bool) {
        let current = (self.node.raft.term, self.node.raft.state);
        if is_new || current != self.timer.drawn_for {
            let range = self.settings.election_ticks;
            self.timer.timeout = range + usize::try_from(chance.below(range as u64)).unwrap_or(0);
            self.timer.drawn_for = current;
        }
        self.node.raft.set_randomized_election_timeout(self.timer.timeout);
    }
}
