//! The differences between the clocks of the members. The leader compares its clock with those of the others every few
//! seconds; each node compares its wall clock with the time since the start of the machine.

use std::time::Duration;

use keepfast_framework::Timestamp;
use parking_lot::Mutex;

/// A standby that differs from its leader by more serves no reads.
const MAX_STANDBY: Duration = Duration::from_secs(2);
/// A leader that differs from the other voters by more revokes nothing.
const MAX_LEADER: Duration = Duration::from_secs(10);
/// How long nothing is revoked after the wall clock has jumped, unless other voters confirm it.
const HOLD: Duration = Duration::from_secs(600);

/// What this node knows of clocks.
#[derive(Default)]
pub(crate) struct Clocks(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The clock of the leader minus that of this standby, in nanoseconds.
    leader: Option<i64>,
    /// The clocks of the other voters minus that of this leader.
    voters: Vec<i64>,
    /// The wall clock minus the time since the start of the machine, at the last look.
    base: Option<i64>,
    /// Until when nothing is revoked, as a time since the start of the machine.
    held_until: Option<Duration>,
}

impl Clocks {
    /// Notes the clock of the leader at `now`.
    pub(super) fn note_leader(&self, leader: Timestamp, now: Timestamp) {
        self.0.lock().leader = Some(difference(leader, now));
    }

    /// Notes the clocks of the other voters minus that of this leader, in nanoseconds.
    pub(super) fn note_voters(&self, differences: Vec<i64>) {
        self.0.lock().voters = differences;
    }

    /// This node leads, or ceases to.
    pub(crate) fn change_role(&self) {
        let mut known = self.0.lock();
        (known.leader, known.voters) = (None, Vec::new());
    }

    /// How far this standby is from its leader, if it is too far to serve reads.
    pub(crate) fn skew(&self) -> Option<Duration> {
        let skew = Duration::from_nanos(self.0.lock().leader?.unsigned_abs());
        (skew > MAX_STANDBY).then_some(skew)
    }

    /// Why the leader must not revoke by its clock, if that is so. `boot` is the time since the start of the machine.
    pub(crate) fn holds(&self, now: Timestamp, boot: Option<Duration>) -> Option<&'static str> {
        let mut known = self.0.lock();
        if let Some(boot) = boot {
            let base = now.nanos().saturating_sub(nanos(boot));
            let ran_ahead = known.base.is_some_and(|before| base.saturating_sub(before) > nanos(MAX_LEADER));
            known.base = Some(base);
            if ran_ahead {
                known.held_until = Some(boot.saturating_add(HOLD));
                // Those of before the jump say nothing.
                known.voters.clear();
            }
        }
        if !known.voters.is_empty() {
            if median(&known.voters).unsigned_abs() > MAX_LEADER.as_nanos() as u64 {
                return Some("the clock of this leader differs from those of the other voters");
            }
            known.held_until = None;
        }
        let is_held = known.held_until.zip(boot).is_some_and(|(until, boot)| boot < until);
        is_held.then_some("the clock of this machine has jumped ahead")
    }
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// One clock minus the other, in nanoseconds.
pub(super) fn difference(theirs: Timestamp, own: Timestamp) -> i64 {
    theirs.nanos().saturating_sub(own.nanos())
}

/// The median of these differences and that of this node, 0. Of two in the middle it is the greater: which one is right
/// is not known.
fn median(others: &[i64]) -> i64 {
    let mut all = others.to_vec();
    all.push(0);
    all.sort_unstable();
    let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
    if low.unsigned_abs() > high.unsigned_abs() { low } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(second)
    }

    fn seconds(second: u64) -> Option<Duration> {
        Some(Duration::from_secs(second))
    }

    #[test]
    fn a_standby_more_than_two_seconds_off_has_a_skew() {
        let clocks = Clocks::default();
        assert_eq!(clocks.skew(), None);
        for (leader, expected) in [(102, None), (103, seconds(3)), (97, seconds(3)), (98, None)] {
            clocks.note_leader(at(leader), at(100));
            assert_eq!(clocks.skew(), expected, "{leader}");
        }
        clocks.note_leader(at(0), at(100));
        clocks.change_role();
        assert_eq!(clocks.skew(), None);
    }

    #[test]
    fn rl10_a_leader_off_the_median_of_its_voters_revokes_nothing() {
        let clocks = Clocks::default();
        let holds = |offsets: &[i64]| {
            clocks.0.lock().voters = offsets.iter().map(|second| second * 1_000_000_000).collect();
            clocks.holds(at(0), None).is_some()
        };
        assert!(!holds(&[]) && !holds(&[10]) && !holds(&[-10, 10]));
        assert!(holds(&[-11]) && holds(&[3600]), "of two clocks either one can be wrong");
        assert!(holds(&[-3600, -3601]) && holds(&[11, 12]));
        assert!(!holds(&[3600, 1]) && !holds(&[-3600, 0, 1, 3600]), "another one is off");
    }

    #[test]
    fn rl10_after_a_jump_of_the_clock_nothing_is_revoked_for_a_while() {
        let clocks = Clocks::default();
        let holds = |wall, boot| clocks.holds(at(wall), seconds(boot)).is_some();
        assert!(!holds(1000, 0) && !holds(1100, 90), "it ran 10 seconds ahead");
        assert!(holds(5000, 100) && holds(5001, 101) && holds(5598, 699));
        assert!(!holds(5600, 700), "ten minutes have passed");
        assert!(holds(9000, 701));
        clocks.0.lock().voters = vec![0, 1];
        assert!(!holds(9001, 702), "the other voters have the same time");
        assert!(holds(20_000, 703), "another jump makes their clocks worthless");
        assert!(Clocks::default().holds(at(0), None).is_none());
        // A clock that was set back revokes later by itself.
        let clocks = Clocks::default();
        assert!(clocks.holds(at(5000), seconds(0)).is_none() && clocks.holds(at(0), seconds(1)).is_none());
    }
}
