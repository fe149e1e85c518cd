//! Who guesses at a user's secret too often locks that user out for a while, so that nobody guesses on.
//!
//! Only attempts at users that exist are remembered, and only so many. A lock is stored, so that a restart does not open
//! it: one write when it begins, one when it ends early. Attempts before it are counted in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::hash::sha256;
use keepfast_framework::cx::Claim;
use keepfast_framework::{Error, Records, Result, Status, Timestamp};
use keepfast_storage::{Barrier, Page, View};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::mount::MountEntry;
use crate::settings::{LockoutSettings, Settings};

/// How many users with failed attempts are remembered.
const MOST: usize = 100_000;

/// Locks by the accessor of the mount and a hash of the alias's name, which may have any characters.
const LOCKS: Records<Lock> = Records::at("lockout/");

/// Failed attempts at users, by the accessor of the mount and the name of the alias.
pub struct Lockout {
    barrier: Arc<Barrier>,
    view: View,
    failed: Mutex<HashMap<(String, String), Failed>>,
    /// Held while what is stored of a user is brought up to date, so that the last to write has seen the last change.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Failed {
    times: u64,
    last: Timestamp,
    rules: LockoutSettings,
    /// Whether a lock of this user may be stored.
    #[serde(skip)]
    stored: bool,
}

/// A lock as it is stored.
#[derive(Serialize, Deserialize)]
struct Lock {
    name: String,
    failed: Failed,
}

/// What comes of an attempt.
pub struct Verdict<T> {
    /// The outcome of the attempt, or the refusal.
    pub outcome: Result<T>,
    /// The name of the user when what is stored has to be brought up to date, by [`Lockout::store`].
    pub changed: Option<String>,
}

impl Failed {
    fn is_locked(&self, now: Timestamp) -> bool {
        self.times >= self.rules.threshold && now.since(self.last) < self.rules.duration
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.last) >= self.rules.counter_reset.max(self.rules.duration)
    }
}

/// The rules of a mount: what was tuned there, else what the configuration says of its type, else of all.
pub fn rules(entry: &MountEntry, settings: &Settings) -> LockoutSettings {
    let lockouts = &settings.user_lockout;
    let mut rules = lockouts.get(&entry.engine).or_else(|| lockouts.get("all")).cloned().unwrap_or_default();
    if let Some(own) = &entry.config.user_lockout {
        let seconds = |own: u64, system: Duration| if own == 0 { system } else { Duration::from_secs(own) };
        rules.duration = seconds(own.duration, rules.duration);
        rules.counter_reset = seconds(own.counter_reset, rules.counter_reset);
        rules.threshold = if own.threshold == 0 { rules.threshold } else { own.threshold };
        rules.disabled = own.disable;
    }
    rules
}

impl Lockout {
    /// With the locks that are stored in `view`. Those that have ended are removed.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn open(barrier: &Arc<Barrier>, view: View, now: Timestamp) -> Result<Self> {
        let mut failed = HashMap::new();
        let mut tx = barrier.begin();
        for accessor in LOCKS.list_in(&mut tx, &view, "", &Page::default()).await? {
            for name in LOCKS.list_in(&mut tx, &view, &accessor, &Page::default()).await? {
                let at = format!("{accessor}{name}");
                // A record that cannot be read locks nobody; it is written anew with the user's next lock.
                let Ok(Some(lock)) = LOCKS.get_in(&mut tx, &view, &at).await else { continue };
                if lock.failed.is_locked(now) {
                    let accessor = accessor.trim_end_matches('/').to_owned();
                    failed.insert((accessor, lock.name), Failed { stored: true, ..lock.failed });
                } else {
                    LOCKS.delete_in(&mut tx, &view, &at);
                }
            }
        }
        if tx.is_dirty() {
            tx.commit().await?;
        }
        let barrier = barrier.clone();
        Ok(Lockout { barrier, view, failed: Mutex::new(failed), storing: tokio::sync::Mutex::default() })
    }

    /// What comes of an attempt to log in: the outcome, or a refusal (403) when the user is locked. A wrong secret
    /// (400) counts, a right one clears the count.
    pub fn judge<T>(
        &self,
        entry: &MountEntry,
        claim: Claim,
        settings: &Settings,
        now: Timestamp,
        outcome: Result<T>,
    ) -> Verdict<T> {
        let rules = rules(entry, settings);
        if rules.disabled {
            return Verdict { outcome, changed: None };
        }
        let key = (entry.accessor.clone(), claim.name);
        let mut failed = self.failed.lock();
        if failed.get(&key).is_some_and(|f| f.is_locked(now)) {
            return Verdict { outcome: Err(Error::denied()), changed: None };
        }
        let mut changed = false;
        match &outcome {
            // Looked for like the others, so that the time tells nothing.
            _ if !claim.is_known => {}
            Ok(_) => changed = failed.remove(&key).is_some_and(|f| f.stored),
            Err(error) if error.status() == Status::BAD_REQUEST => {
                make_room(&mut failed, &key, now);
                let first = || Failed { times: 0, last: now, rules: rules.clone(), stored: false };
                let entry = failed.entry(key.clone()).or_insert_with(first);
                if now.since(entry.last) >= rules.counter_reset {
                    entry.times = 0;
                }
                (entry.times, entry.last, entry.rules) = (entry.times + 1, now, rules);
                changed = entry.is_locked(now);
                entry.stored |= changed;
            }
            Err(_) => {}
        }
        Verdict { outcome, changed: changed.then_some(key.1) }
    }

    /// Stores how it stands with a user: the lock, or that there is none.
    ///
    /// # Errors
    /// When storage fails; the lock holds in memory all the same.
    pub async fn store(&self, accessor: &str, name: &str, now: Timestamp) -> Result<()> {
        let _alone = self.storing.lock().await;
        let key = (accessor.to_owned(), name.to_owned());
        let locked = self.failed.lock().get(&key).filter(|f| f.is_locked(now)).cloned();
        let at = format!("{accessor}/{}", hex::encode(&sha256(name.as_bytes())[..16]));
        let mut tx = self.barrier.begin();
        match locked {
            Some(failed) => LOCKS.put_in(&mut tx, &self.view, &at, &Lock { name: key.1, failed })?,
            None => LOCKS.delete_in(&mut tx, &self.view, &at),
        }
        tx.commit().await?;
        Ok(())
    }

    /// The locked users, by the accessor of their mount.
    pub fn locked(&self, now: Timestamp) -> BTreeMap<String, Vec<String>> {
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((accessor, name), failed) in self.failed.lock().iter() {
            if failed.is_locked(now) {
                out.entry(accessor.clone()).or_default().push(name.clone());
            }
        }
        out.values_mut().for_each(|names| names.sort_unstable());
        out
    }

    /// Lets a user in again.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn unlock(&self, accessor: &str, name: &str, now: Timestamp) -> Result<()> {
        let removed = self.failed.lock().remove(&(accessor.to_owned(), name.to_owned()));
        if removed.is_some_and(|f| f.stored) {
            self.store(accessor, name, now).await?;
        }
        Ok(())
    }
}

/// Sees to it that one more user can be remembered.
fn make_room(failed: &mut HashMap<(String, String), Failed>, key: &(String, String), now: Timestamp) {
    if failed.len() < MOST || failed.contains_key(key) {
        return;
    }
    failed.retain(|_, f| !f.is_over(now));
    // Full of users that are under attack at this moment: those who are not locked yet are forgotten.
    if failed.len() >= MOST {
        failed.retain(|_, f| f.is_locked(now));
    }
}
