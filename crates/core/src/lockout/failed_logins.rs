//! Failed logins by name, whether or not a user has the name, so that an unknown name gets the same responses as a
//! known one.
//!
//! Each mount has a table of fixed size. When it is full, every failed login at the mount is refused (403) until no
//! login has failed for as long as a lock or a count lasts. Counts that are then dropped have also ended for known
//! names, so no response distinguishes the two. Locks of users do not depend on this table.

use std::collections::HashMap;
use std::time::Duration;

use keepfast_crypto::hash::sha256;
use keepfast_framework::Timestamp;

use super::Failed;
use crate::settings::LockoutSettings;

/// The maximum number of names of a mount.
const CAPACITY: usize = 32_768;

/// The shortest time between two searches for counts that are over, when the table has no room for a stored one.
const PRUNING_PAUSE: Duration = Duration::from_secs(1);

/// A name at a mount, as a fixed-size hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NameHash([u8; 16]);

/// Failed logins at one mount, by name.
pub(super) struct FailedLogins {
    counts: HashMap<NameHash, Failed>,
    capacity: usize,
    /// The time until which every failed login is refused.
    refuses_until: Option<Timestamp>,
    /// The longest duration of a lock or count in the table.
    longest: Duration,
    /// The last search for counts that are over, for a stored one.
    pruned: Option<Timestamp>,
}

/// The effect of a failed login with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Whether the name is locked.
    pub(super) locked: bool,
    /// Whether every failed login is refused in the same way as that of a locked user.
    pub(super) refuses_all: bool,
    /// Whether this failure starts a lock.
    pub(super) begins_lock: bool,
}

impl Failure {
    /// Whether a login with an unknown name is refused in the same way as that of a locked user.
    pub(super) fn is_refused(self) -> bool {
        self.locked || self.refuses_all
    }
}

impl NameHash {
    pub(super) fn of(accessor: &str, name: &str) -> Self {
        let hash = sha256(format!("{accessor}\0{name}").as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hash[..16]);
        NameHash(short)
    }

    /// Parses the text of [`NameHash::hex`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(NameHash)
    }

    pub(super) fn hex(self) -> String {
        hex::encode(self.0)
    }

    /// One of 4096 storage slots of a mount.
    pub(super) fn slot(self) -> String {
        hex::encode(&self.0[..2]).split_off(1)
    }
}

/// The maximum duration of a lock or count.
pub(super) fn lasts(rules: &LockoutSettings) -> Duration {
    rules.counter_reset.max(rules.duration)
}

impl Default for FailedLogins {
    fn default() -> Self {
        FailedLogins {
            counts: HashMap::new(),
            capacity: CAPACITY,
            refuses_until: None,
            longest: Duration::ZERO,
            pruned: None,
        }
    }
}

impl FailedLogins {
    /// Whether everything in the table has ended.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.refuses_until.is_none_or(|until| until <= now) && self.counts.values().all(|count| count.is_over(now))
    }

    /// Restores a stored count. A new name needs room in half of the table.
    pub(super) fn restore(&mut self, name: NameHash, count: Failed, now: Timestamp) {
        let has_room = self.counts.contains_key(&name) || self.has_room_to_restore() || {
            self.prune(now);
            self.has_room_to_restore()
        };
        if has_room {
            self.longest = self.longest.max(lasts(&count.rules));
            self.counts.insert(name, count);
        }
    }

    fn has_room_to_restore(&self) -> bool {
        self.counts.len() < self.capacity / 2
    }

    /// Drops counts that are over, at most once in [`PRUNING_PAUSE`].
    fn prune(&mut self, now: Timestamp) {
        if self.pruned.is_none_or(|last| now < last || now.since(last) >= PRUNING_PAUSE) {
            self.counts.retain(|_, count| !count.is_over(now));
            self.pruned = Some(now);
        }
    }

    /// The count of a name.
    pub(super) fn get(&self, name: NameHash) -> Option<&Failed> {
        self.counts.get(&name)
    }

    /// Counts a failed login with a name. Also called for names of users, so that the table fills in the same way.
    pub(super) fn fail(&mut self, name: NameHash, rules: &LockoutSettings, now: Timestamp) -> Failure {
        self.longest = self.longest.max(lasts(rules));
        match self.refuses_until {
            Some(until) if now < until => {
                self.refuses_until = Some(until.max(now.after(self.longest)));
                return Failure { locked: false, refuses_all: true, begins_lock: false };
            }
            Some(_) => self.clear(),
            None => {}
        }
        let failure = match self.counts.get_mut(&name) {
            Some(count) if count.is_locked(now) => {
                return Failure { locked: true, refuses_all: false, begins_lock: false };
            }
            Some(count) => Failure { locked: false, refuses_all: false, begins_lock: count.fail(rules, now) },
            None => {
                let mut count = Failed::none(rules, now);
                let begins_lock = count.fail(rules, now);
                self.counts.insert(name, count);
                Failure { locked: false, refuses_all: false, begins_lock }
            }
        };
        if self.is_full() {
            self.make_room(now);
        }
        failure
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    fn is_full(&self) -> bool {
        self.counts.len() >= self.capacity
    }

    fn clear(&mut self) {
        self.counts.clear();
        self.refuses_until = None;
        self.longest = Duration::ZERO;
    }

    /// Drops counts that have ended. If more than half are live, the table stays full.
    fn make_room(&mut self, now: Timestamp) {
        let live = self.counts.values().filter(|count| !count.is_over(now)).count();
        if live <= self.capacity / 2 {
            self.counts.retain(|_, count| !count.is_over(now));
        } else {
            self.refuses_until = Some(now.after(self.longest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> LockoutSettings {
        LockoutSettings::default()
    }

    fn seconds(n: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(n))
    }

    fn table(capacity: usize) -> FailedLogins {
        FailedLogins { capacity, ..FailedLogins::default() }
    }

    fn name(n: u64) -> NameHash {
        NameHash::of("auth_userpass_1", &n.to_string())
    }

    #[test]
    fn sec_kf14_an_unknown_name_is_refused_as_a_locked_user_is() {
        let mut table = table(100);
        let mut tries = |at: u64| table.fail(name(1), &rules(), seconds(at));
        let answers: Vec<bool> = (0..8).map(|_| tries(0).is_refused()).collect();
        assert_eq!(answers, [false, false, false, false, false, true, true, true]);
        assert!(tries(899).is_refused() && !tries(900).is_refused(), "the lock ends");
        assert!((0..3).all(|_| !tries(901).begins_lock) && tries(901).begins_lock, "five failures begin the next one");
    }

    #[test]
    fn sec_kf14_endless_names_take_fixed_memory_and_are_refused_alike() {
        let mut table = table(100);
        for n in 0..10_000 {
            let failure = table.fail(name(n), &rules(), seconds(1));
            assert_eq!(failure.is_refused(), n >= 100, "{n}");
            assert!(table.len() <= 100);
        }
        // Consecutive failed logins extend the refusal; a pause as long as a lock ends it.
        assert!(table.fail(name(3), &rules(), seconds(900)).is_refused());
        assert!(table.fail(name(20_000), &rules(), seconds(1799)).is_refused());
        assert!(!table.fail(name(3), &rules(), seconds(1799 + 900)).is_refused());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn ended_counts_make_room_without_refusals() {
        let mut table = table(100);
        for n in 0..1000 {
            assert!(!table.fail(name(n), &rules(), seconds(n * 30)).is_refused(), "{n}");
        }
        assert!(table.len() <= 100);
    }

    #[test]
    fn a_full_table_keeps_its_counts_while_more_than_half_are_live() {
        let fill = |over: u64| {
            let mut table = table(10);
            (0..over).for_each(|n| {
                table.fail(name(n), &rules(), seconds(0));
            });
            (over..10).for_each(|n| {
                table.fail(name(n), &rules(), seconds(900));
            });
            (table.len(), table.fail(name(100), &rules(), seconds(900)).refuses_all)
        };
        assert_eq!((fill(4), fill(5), fill(8)), ((10, true), (5, false), (2, false)));
    }

    #[test]
    fn a_stored_count_is_restored_below_half_of_the_table_only() {
        let mut table = table(10);
        (0..8).for_each(|n| table.restore(name(n), Failed::none(&rules(), seconds(0)), seconds(0)));
        assert_eq!(table.len(), 5);
        assert!(table.get(name(4)).is_some() && table.get(name(5)).is_none());
        // The refusals last as long as the longest rules, also restored ones.
        let long = LockoutSettings { duration: Duration::from_secs(5000), ..rules() };
        let mut table = self::table(2);
        table.restore(name(0), Failed::none(&long, seconds(0)), seconds(0));
        table.fail(name(1), &rules(), seconds(0));
        assert!(table.fail(name(2), &rules(), seconds(4999)).refuses_all);
    }

    #[test]
    fn a_full_table_follows_stored_counts_of_the_names_that_it_has() {
        let mut table = table(10);
        (0..5).for_each(|n| table.restore(name(n), Failed::none(&rules(), seconds(0)), seconds(0)));
        let locked = Failed { times: 5, ..Failed::none(&rules(), seconds(10)) };
        table.restore(name(4), locked.clone(), seconds(10));
        table.restore(name(5), locked, seconds(10));
        let times = |n| table.get(name(n)).map(|count| count.times);
        assert_eq!((times(3), times(4), times(5), table.len()), (Some(0), Some(5), None, 5));
    }

    #[test]
    fn counts_that_are_over_make_room_for_stored_ones_once_a_second() {
        let mut table = table(10);
        (0..5).for_each(|n| table.restore(name(n), Failed::none(&rules(), seconds(0)), seconds(0)));
        let mut restored = |n: u64, millis: u64| {
            let now = Timestamp::EPOCH.after(Duration::from_millis(millis));
            table.restore(name(n), Failed::none(&rules(), now), now);
            (table.get(name(n)).is_some(), table.len())
        };
        assert_eq!(restored(5, 899_500), (false, 5), "no count is over");
        assert_eq!(restored(6, 900_400), (false, 5), "nothing is searched within a second");
        assert_eq!(restored(7, 900_500), (true, 1));
    }

    #[test]
    fn a_table_is_idle_when_its_counts_and_its_refusals_have_ended() {
        let mut table = table(2);
        assert!(table.is_idle(seconds(0)));
        table.fail(name(0), &rules(), seconds(0));
        assert!(!table.is_idle(seconds(899)) && table.is_idle(seconds(900)));
        table.fail(name(1), &rules(), seconds(0));
        table.fail(name(2), &rules(), seconds(500));
        assert!(!table.is_idle(seconds(900)) && !table.is_idle(seconds(1399)) && table.is_idle(seconds(1400)));
    }

    #[test]
    fn a_cleared_table_drops_the_longest_rules() {
        let long = LockoutSettings { duration: Duration::from_secs(5000), ..rules() };
        let mut table = table(2);
        (0..2).for_each(|n| {
            table.fail(name(n), &long, seconds(0));
        });
        (0..2).for_each(|n| {
            table.fail(name(n), &rules(), seconds(5000));
        });
        assert!(table.fail(name(3), &rules(), seconds(5899)).refuses_all);
        assert!(!table.fail(name(3), &rules(), seconds(5899 + 900)).refuses_all);
    }

    #[test]
    fn the_slot_of_a_name_is_one_of_4096_and_its_text_is_read_again() {
        let name = NameHash([0xab, 0xcd, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!((name.slot().as_str(), name.hex().as_str()), ("bcd", "abcd030405060708090a0b0c0d0e0f10"));
        assert!(NameHash::parse(&name.hex()).is_some_and(|read| read == name));
        assert!(NameHash::parse("abcd").is_none() && NameHash::parse("no hexadecimal digits").is_none());
    }
}
