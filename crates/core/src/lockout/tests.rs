//! When counts and locks begin and end, and when counts of users are dropped.

use std::time::Duration;

use keepfast_framework::Clock;

use super::*;
use crate::mount::entry::{LockoutConfig, MountConfig};
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::tokens::stored;

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
fn rules_of_a_mount_come_before_those_of_its_type_and_of_all() {
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
        counts.fail(&user(number), &short(), at(0), false);
    }
    // A user with a count needs no room.
    counts.fail(&user(0), &short(), at(119), false);
    assert_eq!(counts.users.len(), FIRST_PRUNING);
    counts.fail(&user(FIRST_PRUNING), &short(), at(120), false);
    assert_eq!(counts.users.len(), 2, "that of user 0 and the new one");
}

#[test]
fn counts_of_users_are_not_searched_again_before_they_have_doubled() {
    let mut counts = Counts::default();
    for number in 0..=FIRST_PRUNING {
        counts.fail(&user(number), &short(), at(0), false);
    }
    // The first search found 1024 live counts.
    for number in FIRST_PRUNING + 1..2 * FIRST_PRUNING {
        counts.fail(&user(number), &short(), at(1000), false);
    }
    assert_eq!(counts.users.len(), 2 * FIRST_PRUNING);
    counts.fail(&user(2 * FIRST_PRUNING), &short(), at(1000), false);
    assert_eq!(counts.users.len(), FIRST_PRUNING, "1023 of the second half and the new one");
}

#[test]
fn a_failure_that_begins_a_lock_marks_the_count_as_stored_for_good() {
    let mut counts = Counts::default();
    let stored = |counts: &mut Counts, second: u64| {
        let begins = counts.fail(&user(0), &short(), at(second), false);
        (begins, counts.users[&user(0)].stored)
    };
    assert_eq!([0, 1, 2].map(|second| stored(&mut counts, second)), [(false, false), (false, false), (true, true)]);
    // The record stays until it is deleted, also while a new count is below the threshold.
    assert_eq!(stored(&mut counts, 1000), (false, true));
}

#[test]
fn a_new_mount_drops_the_idle_tables_of_others_only() {
    let mut counts = Counts::default();
    counts.names_of("a", at(0)).fail(NameHash::of("a", "x"), &short(), at(0));
    counts.names_of("b", at(60));
    assert_eq!(counts.names.get("a").map(FailedLogins::len), Some(1), "its count is live");
    counts.names_of("c", at(120));
    assert!(!counts.names.contains_key("a") && counts.names.contains_key("c"));
}

/// A server whose mount at `auth/up/` locks users out, without the cost of passwords.
struct Logins {
    server: TestServer,
    entry: MountEntry,
}

impl Logins {
    async fn new() -> Self {
        let server = TestServer::new().await;
        server.post("sys/auth/up", ROOT, serde_json::json!({ "type": "userpass" })).await.ok();
        let entry = server.unsealed().engines.mounts.router().at("auth/up/").unwrap().entry.clone();
        Logins { server, entry }
    }

    /// A login with this outcome; returns the status of its response.
    async fn attempt(&self, name: &str, is_known: bool, outcome: Result<()>) -> u16 {
        let (lockout, now) = (self.server.unsealed().access.lockout.clone(), self.server.clock.now());
        let alias = ClaimedAlias { name: name.to_owned(), is_known };
        let verdict = lockout.check(&self.entry, alias, &self.server.settings, now, outcome);
        if let Some(change) = verdict.changed {
            lockout.store(&self.entry.accessor, change, now).await.unwrap();
        }
        verdict.outcome.map_or_else(|error| error.status().0, |()| 200)
    }

    async fn fail(&self, name: &str, is_known: bool, times: usize) {
        for _ in 0..times {
            self.attempt(name, is_known, Err(Error::invalid("wrong"))).await;
        }
    }

    fn locked(&self) -> usize {
        self.server.unsealed().access.lockout.count_locked(self.server.clock.now())
    }

    async fn stored(&self, records: &str) -> usize {
        stored(&self.server, &format!("sys/{records}")).await.len()
    }
}

#[tokio::test]
async fn only_a_wrong_secret_counts_as_a_failed_login() {
    let logins = Logins::new().await;
    for _ in 0..9 {
        assert_eq!(logins.attempt("anna", true, Err(Error::denied())).await, 403);
        assert_eq!(logins.attempt("anna", true, Err(Error::internal("storage"))).await, 500);
    }
    assert_eq!(logins.attempt("anna", true, Ok(())).await, 200);
    logins.fail("anna", true, 5).await;
    assert_eq!((logins.locked(), logins.attempt("anna", true, Ok(())).await), (1, 403));
}

#[tokio::test]
async fn locks_are_read_after_a_restart_except_those_of_other_namespaces() {
    let mut logins = Logins::new().await;
    for name in ["anna", "otto"] {
        logins.fail(name, true, 5).await;
    }
    logins.fail("nobody", false, 5).await;
    assert_eq!((logins.stored("lockout/").await, logins.stored("lockout-unknown/").await), (2, 1));
    let unsealed = logins.server.unsealed();
    let mut tx = unsealed.barrier.begin();
    let failed = Failed { times: 5, ..Failed::none(&short(), logins.server.clock.now()) };
    let namespace = serde_json::from_value("elsewhere".into()).unwrap();
    let elsewhere = Lock { namespace, name: "other".to_owned(), failed };
    LOCKS.put_in(&mut tx, &unsealed.barrier.view("sys/"), &format!("{}/1", logins.entry.accessor), &elsewhere).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(logins.locked(), 2);
    logins.server.restarted().await;
    assert_eq!(logins.locked(), 2);
    assert_eq!(logins.attempt("nobody", false, Err(Error::invalid("wrong"))).await, 403);
    assert_eq!(logins.attempt("other", true, Err(Error::invalid("wrong"))).await, 400);
    let locked = logins.server.unsealed().access.lockout.locked(logins.server.clock.now());
    assert_eq!(locked, BTreeMap::from([(logins.entry.accessor.clone(), vec!["anna".to_owned(), "otto".to_owned()])]));
}

#[tokio::test]
async fn an_unlock_and_a_right_secret_delete_the_stored_lock() {
    let logins = Logins::new().await;
    for name in ["anna", "otto"] {
        logins.fail(name, true, 5).await;
    }
    let lockout = logins.server.unsealed().access.lockout.clone();
    lockout.unlock(&logins.entry.accessor, "anna", logins.server.clock.now()).await.unwrap();
    assert_eq!((logins.locked(), logins.stored("lockout/").await), (1, 1));
    logins.server.clock.advance(MINUTE * 15);
    assert_eq!((logins.locked(), logins.stored("lockout/").await), (0, 1), "it has ended and is still stored");
    assert_eq!(logins.attempt("otto", true, Ok(())).await, 200);
    assert_eq!(logins.stored("lockout/").await, 0);
}

#[tokio::test]
async fn ended_locks_are_deleted_and_live_ones_kept() {
    let logins = Logins::new().await;
    for (name, is_known) in [("anna", true), ("nobody", false)] {
        logins.fail(name, is_known, 5).await;
    }
    logins.server.clock.advance(MINUTE * 14);
    for (name, is_known) in [("otto", true), ("no-one", false)] {
        logins.fail(name, is_known, 5).await;
    }
    let unsealed = logins.server.unsealed();
    let view = unsealed.barrier.view("sys/");
    let delete = async || {
        Lockout::delete_ended(&unsealed.barrier, &view, logins.server.clock.now()).await.unwrap();
        (logins.stored("lockout/").await, logins.stored("lockout-unknown/").await)
    };
    assert_eq!(delete().await, (2, 2));
    logins.server.clock.advance(MINUTE);
    assert_eq!(delete().await, (1, 1));
    logins.server.clock.advance(MINUTE * 14);
    assert_eq!(delete().await, (0, 0));
}

#[tokio::test]
async fn a_right_secret_deletes_the_lock_that_another_node_stored() {
    let logins = Logins::new().await;
    let unsealed = logins.server.unsealed();
    let mut tx = unsealed.barrier.begin();
    let failed = Failed { times: 3, ..Failed::none(&short(), logins.server.clock.now()) };
    let at = format!("{}/{}", logins.entry.accessor, hex::encode(&sha256(b"anna")[..16]));
    let lock = unsealed.access.lockout.lock("anna".to_owned(), failed);
    LOCKS.put_in(&mut tx, &unsealed.barrier.view("sys/"), &at, &lock).unwrap();
    tx.commit().await.unwrap();
    assert_eq!((logins.locked(), logins.attempt("anna", true, Ok(())).await), (1, 403));
    logins.server.clock.advance(MINUTE * 2);
    assert_eq!(logins.attempt("anna", true, Ok(())).await, 200);
    assert_eq!(logins.stored("lockout/").await, 0);
}
