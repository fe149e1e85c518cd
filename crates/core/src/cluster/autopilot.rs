//! Autopilot: the leader promotes learners that keep up with it, and removes members that have been silent for long.
//!
//! Fields and defaults are Vault's (<https://developer.hashicorp.com/vault/docs/concepts/integrated-storage/autopilot>).
//! A tick is a pure function of the state of the cluster, the configuration, the time and what earlier ticks have seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{Records, Result, Timestamp};
use keepfast_storage::{Barrier, Change, ClusterStatus, Member, RaftId};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::members::silence;
use crate::layout::SYSTEM_STORAGE;

/// The stored configuration.
pub(crate) const CONFIG: Records<AutopilotConfig> = Records::at("raft/autopilot");

/// The longest time between two ticks that counts as the time that has passed: a clock that was set ahead must not make a
/// member old. So no pause is longer.
const MAX_STEP: Duration = Duration::from_secs(30);
/// The shortest pause before the tick that promotes a learner.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// The pause while a learner that wants a vote is not healthy.
const LEARNER_PAUSE: Duration = Duration::from_secs(2);
/// The shortest silence after which a member may be removed.
pub(crate) const LEAST_DEAD: u64 = 60;
/// The smallest number of voters below which no member may be removed.
pub(crate) const LEAST_QUORUM: u64 = 3;

/// The configuration. Durations are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AutopilotConfig {
    /// Whether members that are silent for long are removed.
    pub(crate) cleanup_dead_servers: bool,
    /// After which silence.
    pub(crate) dead_server_last_contact_threshold: u64,
    /// The silence after which a member is not healthy.
    pub(crate) last_contact_threshold: u64,
    /// The number of log entries that a healthy member may lack.
    pub(crate) max_trailing_logs: u64,
    /// The number of voters that remain when members are removed.
    pub(crate) min_quorum: u64,
    /// How long a learner is healthy before it is promoted.
    pub(crate) server_stabilization_time: u64,
}

impl Default for AutopilotConfig {
    fn default() -> Self {
        AutopilotConfig {
            cleanup_dead_servers: false,
            dead_server_last_contact_threshold: 24 * 3600,
            last_contact_threshold: 10,
            max_trailing_logs: 1000,
            min_quorum: 0,
            server_stabilization_time: 10,
        }
    }
}

impl AutopilotConfig {
    /// The configuration that applies.
    pub(crate) async fn load(barrier: &Arc<Barrier>) -> Result<Self> {
        let view = barrier.view(SYSTEM_STORAGE);
        Ok(CONFIG.get_in(&mut barrier.begin_read(), &view, "").await?.unwrap_or_default())
    }
}

/// What the ticks of one leadership have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The term of the leadership.
    term: Option<u64>,
    /// The time of the last tick.
    last: Timestamp,
    /// The time of this leadership, without jumps of the clock.
    leading_for: Duration,
    /// The members that are healthy, and since when.
    healthy: BTreeMap<RaftId, HealthySince>,
    /// The configuration of the last tick.
    config: AutopilotConfig,
}

#[derive(Clone, Copy, Debug)]
struct HealthySince {
    /// By the clock, for display.
    time: Timestamp,
    /// By the time of the leadership.
    at: Duration,
}

impl Memory {
    /// How long this node has led, as far as ticks have seen it.
    pub(crate) fn leading_for(&self) -> Duration {
        self.leading_for
    }

    /// The configuration of the last tick; before the first one, the default.
    pub(crate) fn config(&self) -> AutopilotConfig {
        self.config
    }

    /// Since when a member is healthy.
    pub(crate) fn healthy_since(&self, member: &Member) -> Option<Timestamp> {
        self.healthy.get(&member.id).map(|since| since.time)
    }

    /// Notes the time and the health of the members.
    fn observe(&mut self, status: &ClusterStatus, config: &AutopilotConfig, now: Timestamp) {
        if self.term == Some(status.term) {
            self.leading_for += now.since(self.last).min(MAX_STEP);
        } else {
            *self = Memory { term: Some(status.term), ..Memory::default() };
        }
        self.last = now;
        self.config = *config;
        let since = HealthySince { time: now, at: self.leading_for };
        let is_healthy = |member: &&Member| is_healthy(status, config, member);
        let ids: Vec<RaftId> = status.members.iter().filter(is_healthy).map(|member| member.id).collect();
        self.healthy.retain(|id, _| ids.contains(id));
        for id in ids {
            self.healthy.entry(id).or_insert(since);
        }
    }

    /// The time until a member is stable; zero when it is, `None` while it is not healthy.
    fn unstable_for(&self, member: &Member, config: &AutopilotConfig) -> Option<Duration> {
        let needed = Duration::from_secs(config.server_stabilization_time);
        self.healthy.get(&member.id).map(|since| needed.saturating_sub(self.leading_for.saturating_sub(since.at)))
    }

    /// Whether a member is silent, and this node has led, for as long as a dead member is.
    fn is_dead(&self, status: &ClusterStatus, config: &AutopilotConfig, member: &Member) -> bool {
        let threshold = Duration::from_secs(config.dead_server_last_contact_threshold.max(LEAST_DEAD));
        let is_silent = silence(status, member).is_none_or(|silence| silence >= threshold);
        is_silent && self.leading_for >= threshold
    }
}

/// Whether a member was heard lately and has nearly the log of the leader.
pub(crate) fn is_healthy(status: &ClusterStatus, config: &AutopilotConfig, member: &Member) -> bool {
    let within = Duration::from_secs(config.last_contact_threshold);
    silence(status, member).is_some_and(|silence| silence <= within)
        && lacks(status, member) <= config.max_trailing_logs
}

/// The number of entries of the log that a member lacks.
pub(crate) fn lacks(status: &ClusterStatus, member: &Member) -> u64 {
    status.last.saturating_sub(matched(status, member))
}

/// The number of voters that may fail while a quorum stays healthy.
pub(crate) fn failure_tolerance(status: &ClusterStatus, config: &AutopilotConfig) -> usize {
    let voters = status.members.iter().filter(|member| member.voter);
    let healthy = voters.clone().filter(|member| is_healthy(status, config, member)).count();
    healthy.saturating_sub(voters.count() / 2 + 1)
}

/// The last index of the log of a member that agrees with that of the leader.
pub(crate) fn matched(status: &ClusterStatus, member: &Member) -> u64 {
    if status.id == Some(member.id) {
        return status.last;
    }
    status.peers.iter().find(|peer| peer.id == member.id).map_or(0, |peer| peer.matched)
}

/// Returns the next change of the members, if any. One at a time: another one would be refused while it is open. A standby
/// drops what it has seen.
pub(crate) fn tick(
    status: &ClusterStatus,
    config: &AutopilotConfig,
    now: Timestamp,
    memory: &mut Memory,
) -> Option<Change> {
    if !status.is_leading {
        *memory = Memory::default();
        return None;
    }
    memory.observe(status, config, now);
    let dead = config.cleanup_dead_servers.then(|| dead(status, config, memory)).flatten();
    let next = dead.map(|member| Change::Remove(member.node.clone()));
    next.or_else(|| ready(status, config, memory).map(|member| Change::Promote(member.node.clone())))
}

/// The pause before the next tick: the interval, or less while a learner waits for its vote.
pub(crate) fn pause(status: &ClusterStatus, memory: &Memory, interval: Duration) -> Duration {
    let left = waiting(status).map(|member| memory.unstable_for(member, &memory.config).unwrap_or(LEARNER_PAUSE)).min();
    left.map_or(interval, |left| left.max(LEAST_PAUSE).min(interval)).min(MAX_STEP)
}

/// The learners that want a vote.
fn waiting(status: &ClusterStatus) -> impl Iterator<Item = &Member> {
    status.members.iter().filter(|member| member.wants_vote && !member.voter)
}

/// A dead member that can be removed: enough voters remain, and a quorum of them is healthy.
fn dead<'a>(status: &'a ClusterStatus, config: &AutopilotConfig, memory: &Memory) -> Option<&'a Member> {
    status.members.iter().filter(|member| Some(member.id) != status.id).find(|member| {
        let left = status.members.iter().filter(|other| other.voter && other.id != member.id);
        let healthy = left.clone().filter(|other| is_healthy(status, config, other)).count();
        let left = left.count();
        let is_enough = !member.voter || left as u64 >= config.min_quorum.max(LEAST_QUORUM);
        is_enough && healthy > left / 2 && memory.is_dead(status, config, member)
    })
}

/// The learner that wants a vote and is stable for the longest time.
fn ready<'a>(status: &'a ClusterStatus, config: &AutopilotConfig, memory: &Memory) -> Option<&'a Member> {
    let stable = waiting(status).filter(|member| memory.unstable_for(member, config) == Some(Duration::ZERO));
    stable.min_by_key(|member| (memory.healthy.get(&member.id).map(|since| since.at), member.id))
}

/// What autopilot has seen, shared by its ticks and `sys/storage/raft/autopilot/state`.
#[derive(Default)]
pub(crate) struct Autopilot(Mutex<Memory>);

impl Autopilot {
    /// What the last tick has seen.
    pub(crate) fn memory(&self) -> Memory {
        self.0.lock().clone()
    }

    /// Drops what was seen, at the start of a leadership.
    pub(crate) fn reset(&self) {
        *self.0.lock() = Memory::default();
    }

    /// What was seen, for a tick.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock()
    }

    /// Notes the state of the cluster now and returns what was seen, without a change: for a response between two ticks.
    pub(crate) fn observed(&self, status: &ClusterStatus, config: &AutopilotConfig, now: Timestamp) -> Memory {
        let mut memory = self.0.lock();
        if status.is_leading {
            memory.observe(status, config, now);
        }
        memory.clone()
    }
}

#[cfg(test)]
mod tests {
    use keepfast_storage::PeerStatus;

    use super::*;
    use crate::cluster::fake::{member, status};

    /// A member in a test: its number, whether it votes, its silence in seconds and how many entries it lacks.
    struct Peer(u64, bool, Option<u64>, u64);

    fn cluster(peers: &[Peer]) -> ClusterStatus {
        let mut status = ClusterStatus { last: 5000, ..status(&[1]) };
        for Peer(number, voter, silence, lacks) in peers {
            status.members.push(Member { voter: *voter, ..member(*number) });
            let last_contact = silence.map(Duration::from_secs);
            status.peers.push(PeerStatus { id: RaftId(*number), matched: 5000 - lacks, last_contact });
        }
        status
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(1_000_000 + second)
    }

    /// The change of a tick, after one every ten seconds before.
    fn ticks(status: &ClusterStatus, config: &AutopilotConfig, until: i64) -> Option<Change> {
        let mut memory = Memory::default();
        (0..until / 10).for_each(|n| drop(tick(status, config, at(n * 10), &mut memory)));
        tick(status, config, at(until), &mut memory)
    }

    fn promotes(number: u64) -> Option<Change> {
        Some(Change::Promote(member(number).node))
    }

    fn removes(number: u64) -> Option<Change> {
        Some(Change::Remove(member(number).node))
    }

    #[test]
    fn a_learner_in_contact_with_the_log_is_promoted_once_it_is_stable() {
        let config = AutopilotConfig::default();
        for (peer, at_second, expected) in [
            (Peer(2, false, Some(0), 0), 0, None),
            (Peer(2, false, Some(0), 0), 10, promotes(2)),
            (Peer(2, false, Some(10), 1000), 10, promotes(2)),
            (Peer(2, false, Some(11), 0), 600, None),
            (Peer(2, false, Some(0), 1001), 600, None),
            (Peer(2, false, None, 0), 600, None),
            (Peer(2, true, Some(0), 0), 600, None),
        ] {
            assert_eq!(ticks(&cluster(&[peer]), &config, at_second), expected, "{at_second}");
        }
        let mut unwilling = cluster(&[Peer(2, false, Some(0), 0)]);
        unwilling.members[1].wants_vote = false;
        assert_eq!(ticks(&unwilling, &config, 600), None);
        let slow = AutopilotConfig { server_stabilization_time: 60, ..config };
        let learner = cluster(&[Peer(2, false, Some(0), 0)]);
        assert_eq!((ticks(&learner, &slow, 50), ticks(&learner, &slow, 60)), (None, promotes(2)));
    }

    #[test]
    fn a_learner_that_was_out_of_contact_waits_again() {
        let (config, mut memory) = (AutopilotConfig::default(), Memory::default());
        let good = cluster(&[Peer(2, false, Some(0), 0)]);
        let silent = cluster(&[Peer(2, false, Some(20), 0)]);
        for (second, status, expected) in
            [(0, &good, None), (9, &good, None), (10, &silent, None), (20, &good, None), (30, &good, promotes(2))]
        {
            assert_eq!(tick(status, &config, at(second), &mut memory), expected, "{second}");
        }
    }

    #[test]
    fn one_change_at_a_time_and_the_longest_stable_learner_first() {
        let (config, mut memory) = (AutopilotConfig::default(), Memory::default());
        let first = cluster(&[Peer(3, false, Some(0), 0)]);
        let both = cluster(&[Peer(2, false, Some(0), 0), Peer(3, false, Some(0), 0)]);
        assert_eq!(tick(&first, &config, at(0), &mut memory), None);
        assert_eq!(tick(&both, &config, at(5), &mut memory), None);
        assert_eq!(tick(&both, &config, at(20), &mut memory), promotes(3));
    }

    #[test]
    fn a_dead_voter_is_removed_when_enough_healthy_ones_remain() {
        let day = 24 * 3600;
        let config = AutopilotConfig { cleanup_dead_servers: true, min_quorum: 3, ..AutopilotConfig::default() };
        let voters = |silences: &[Option<u64>]| {
            let peers: Vec<Peer> =
                silences.iter().enumerate().map(|(at, silence)| Peer(at as u64 + 2, true, *silence, 0)).collect();
            cluster(&peers)
        };
        let (alive, dead) = (Some(0), Some(day));
        let four = voters(&[alive, alive, dead]);
        assert_eq!(ticks(&four, &config, day as i64), removes(4));
        assert_eq!(ticks(&four, &config, day as i64 - 10), None, "since the start of the leadership");
        let off = AutopilotConfig { cleanup_dead_servers: false, ..config };
        assert_eq!(ticks(&four, &off, day as i64), None);
        assert_eq!(ticks(&voters(&[alive, dead]), &config, day as i64), None, "two voters would remain");
        assert_eq!(ticks(&voters(&[alive, alive, Some(day - 1)]), &config, day as i64), None);
        assert_eq!(ticks(&voters(&[alive, alive, None]), &config, day as i64), removes(4));
        let min = AutopilotConfig { min_quorum: 4, ..config };
        assert_eq!(ticks(&four, &min, day as i64), None);
        assert_eq!(ticks(&voters(&[alive, dead, dead, dead]), &config, day as i64), None, "two of four are no quorum");
        assert_eq!(ticks(&voters(&[alive, alive, dead, dead]), &config, day as i64), removes(4), "one at a time");
    }

    #[test]
    fn a_dead_learner_is_removed_whatever_the_number_of_voters() {
        let config = AutopilotConfig {
            cleanup_dead_servers: true,
            min_quorum: 3,
            dead_server_last_contact_threshold: 60,
            ..AutopilotConfig::default()
        };
        assert_eq!(ticks(&cluster(&[Peer(2, false, Some(60), 0)]), &config, 60), removes(2));
        let without_quorum = cluster(&[Peer(2, false, Some(60), 0), Peer(3, true, Some(60), 0)]);
        assert_eq!(ticks(&without_quorum, &config, 600), None);
    }

    #[test]
    fn no_member_is_dead_within_a_minute() {
        let config = AutopilotConfig {
            cleanup_dead_servers: true,
            dead_server_last_contact_threshold: 1,
            ..AutopilotConfig::default()
        };
        let status = cluster(&[Peer(2, false, Some(59), 0)]);
        assert_eq!(ticks(&status, &config, 600), None);
        let status = cluster(&[Peer(2, false, Some(60), 0)]);
        assert_eq!((ticks(&status, &config, 50), ticks(&status, &config, 60)), (None, removes(2)));
    }

    #[test]
    fn the_next_tick_is_when_a_learner_becomes_stable() {
        let seconds = Duration::from_secs;
        let learner = cluster(&[Peer(2, false, Some(0), 0)]);
        let pause_at = |status: &ClusterStatus, second: i64, interval: u64| {
            let mut memory = Memory::default();
            tick(status, &AutopilotConfig::default(), at(0), &mut memory);
            tick(status, &AutopilotConfig::default(), at(second), &mut memory);
            pause(status, &memory, seconds(interval))
        };
        assert_eq!([0, 3, 9, 10].map(|second| pause_at(&learner, second, 60).as_secs()), [10, 7, 1, 1]);
        assert_eq!(pause_at(&learner, 0, 5), seconds(5));
        // One that is not heard yet may soon be healthy.
        assert_eq!(pause_at(&cluster(&[Peer(2, false, None, 0)]), 0, 60), LEARNER_PAUSE);
        let voter = cluster(&[Peer(2, true, None, 0)]);
        assert_eq!([10, 60].map(|interval| pause_at(&voter, 0, interval)), [seconds(10), MAX_STEP]);
        let mut unwilling = learner;
        unwilling.members[1].wants_vote = false;
        assert_eq!(pause_at(&unwilling, 0, 10), seconds(10));
    }

    #[test]
    fn a_jump_of_the_clock_makes_no_member_dead_and_no_learner_stable() {
        let config = AutopilotConfig {
            cleanup_dead_servers: true,
            server_stabilization_time: 3600,
            ..AutopilotConfig::default()
        };
        let status = cluster(&[Peer(2, false, None, 0), Peer(3, false, Some(0), 0)]);
        let mut memory = Memory::default();
        for second in [0, 10_000_000, -5, 20_000_000] {
            assert_eq!(tick(&status, &config, at(second), &mut memory), None, "{second}");
        }
        assert_eq!(memory.leading_for(), 2 * MAX_STEP);
    }

    #[test]
    fn another_leadership_and_a_standby_begin_from_nothing() {
        let (config, mut memory) = (AutopilotConfig::default(), Memory::default());
        let status = cluster(&[Peer(2, false, Some(0), 0)]);
        tick(&status, &config, at(0), &mut memory);
        let next_term = ClusterStatus { term: status.term + 1, ..status.clone() };
        assert_eq!(tick(&next_term, &config, at(10), &mut memory), None);
        assert_eq!(tick(&next_term, &config, at(20), &mut memory), promotes(2));
        let standby = ClusterStatus { is_leading: false, ..status };
        assert_eq!(tick(&standby, &config, at(30), &mut memory), None);
        assert!(memory.term.is_none() && memory.healthy.is_empty());
    }
}
