//! When counts and locks begin and end, and when counts of users are dropped.

use std::time::Duration;

use super::*;
use crate::mount::entry::{LockoutConfig, MountConfig};

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Timestamp {
    Timestamp::EPOCH.after(Duration::from_secs(seconds))
}

fn short() -> LockoutSettings {
    LockoutSettings { threshold: 3, duration: MINUTE * 2, counter_reset: MINUTE, disabled: false }
}

#[test]
fn a_lock_begins_at_the_threshold_and_lasts_as_long_as_its_duration() {
    let mut failed = Failed::none(&short(), at(0));
    let begins: Vec<bool> = (0..3).map(|second| failed.fail(&short(), at(second))).collect();
    assert_eq!(begins, [false, false, true]);
    let locked: Vec<bool> = [2, 121, 122, 123].map(|second| failed.is_locked(at(second))).to_vec();
    assert_eq!(locked, [true, true, false, false]);
}

#[test]
fn a_count_restarts_after_exactly_the_reset_time() {
    let times = |pause: u64| {
        let mut failed = Failed::none(&short(), at(0));
        failed.fail(&short(), at(0));
        failed.fail(&short(), at(pause));
        failed.times
    };
    assert_eq!([times(0), times(59), times(60), times(61)], [2, 2, 1, 1]);
}

#[test]
fn a_count_is_over_when_both_the_reset_time_and_the_duration_are() {
    let over = |rules: &LockoutSettings, second: u64| Failed::none(rules, at(0)).is_over(at(second));
    let long_reset = LockoutSettings { counter_reset: MINUTE * 3, ..short() };
    assert_eq!([over(&short(), 119), over(&short(), 120)], [false, true]);
    assert_eq!([over(&long_reset, 120), over(&long_reset, 179), over(&long_reset, 180)], [false, false, true]);
}

fn entry(user_lockout: Option<LockoutConfig>) -> MountEntry {
    let stored = serde_json::json!({ "uuid": "", "path": "", "engine": "userpass", "auth": true, "accessor": "a" });
    let entry: MountEntry = serde_json::from_value(stored).unwrap();
    MountEntry { config: MountConfig { user_lockout, ..MountConfig::default() }, ..entry }
}

#[test]
fn the_rules_of_a_mount_are_its_own_then_those_of_its_type_then_those_of_all() {
    let mut settings = Settings::default();
    assert_eq!(rules(&entry(None), &settings), LockoutSettings::default());
    settings.user_lockout.insert("all".to_owned(), LockoutSettings { threshold: 9, ..short() });
    assert_eq!(rules(&entry(None), &settings).threshold, 9);
    settings.user_lockout.insert("userpass".to_owned(), LockoutSettings { disabled: true, ..short() });
    assert_eq!(rules(&entry(None), &settings), LockoutSettings { disabled: true, ..short() });
    let own = LockoutConfig { threshold: 7, duration: 8, counter_reset: 9, disable: false };
    let seconds = Duration::from_secs;
    let expected = LockoutSettings { threshold: 7, duration: seconds(8), counter_reset: seconds(9), disabled: false };
    assert_eq!(rules(&entry(Some(own)), &settings), expected);
    let unset = LockoutConfig::default();
    assert_eq!(rules(&entry(Some(unset)), &settings), short(), "zero selects the rules of the type");
}

fn user(number: usize) -> (String, String) {
    ("a".to_owned(), number.to_string())
}

#[test]
fn counts_of_users_that_are_over_are_dropped_when_there_are_many() {
    let mut counts = Counts::default();
    for number in 0..FIRST_PRUNING {
        counts.fail(&user(number), &short(), at(0));
    }
    // A user with a count needs no room.
    counts.fail(&user(0), &short(), at(119));
    assert_eq!(counts.users.len(), FIRST_PRUNING);
    counts.fail(&user(FIRST_PRUNING), &short(), at(120));
    assert_eq!(counts.users.len(), 2, "that of user 0 and the new one");
}

#[test]
fn counts_of_users_are_not_searched_again_before_they_have_doubled() {
    let mut counts = Counts::default();
    for number in 0..=FIRST_PRUNING {
        counts.fail(&user(number), &short(), at(0));
    }
    // The first search found 1024 live counts.
    for number in FIRST_PRUNING + 1..2 * FIRST_PRUNING {
        counts.fail(&user(number), &short(), at(1000));
    }
    assert_eq!(counts.users.len(), 2 * FIRST_PRUNING);
    counts.fail(&user(2 * FIRST_PRUNING), &short(), at(1000));
    assert_eq!(counts.users.len(), FIRST_PRUNING, "1023 of the second half and the new one");
}

#[test]
fn a_failure_that_begins_a_lock_marks_the_count_as_stored_for_good() {
    let mut counts = Counts::default();
    let stored = |counts: &mut Counts, second: u64| {
        let begins = counts.fail(&user(0), &short(), at(second));
        (begins, counts.users[&user(0)].stored)
    };
    assert_eq!([0, 1, 2].map(|second| stored(&mut counts, second)), [(false, false), (false, false), (true, true)]);
    // The record stays until it is deleted, also while a new count is below the threshold.
    assert_eq!(stored(&mut counts, 1000), (false, true));
}
