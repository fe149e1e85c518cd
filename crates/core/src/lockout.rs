//! Who guesses at a user's secret too often locks that user out for a while, so that nobody guesses on.
//!
//! Only attempts at users that exist are remembered, and only so many.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use keepfast_framework::cx::Claim;
use keepfast_framework::{Error, Result, Status, Timestamp};
use parking_lot::Mutex;

use crate::mount::MountEntry;
use crate::settings::{LockoutSettings, Settings};

/// How many users with failed attempts are remembered.
const MOST: usize = 100_000;

/// Failed attempts at users, by the accessor of the mount and the name of the alias.
#[derive(Default)]
pub struct Lockout {
    failed: Mutex<HashMap<(String, String), Failed>>,
}

struct Failed {
    times: u64,
    last: Timestamp,
    rules: LockoutSettings,
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
    /// What comes of an attempt to log in: the outcome, or a refusal when the user is locked. A wrong secret
    /// (400) counts, a right one clears the count.
    ///
    /// # Errors
    /// 403 for a locked user; the outcome's own.
    pub fn judge<T>(
        &self,
        entry: &MountEntry,
        claim: Claim,
        settings: &Settings,
        now: Timestamp,
        outcome: Result<T>,
    ) -> Result<T> {
        let rules = rules(entry, settings);
        if rules.disabled {
            return outcome;
        }
        let key = (entry.accessor.clone(), claim.name);
        let mut failed = self.failed.lock();
        if failed.get(&key).is_some_and(|f| f.is_locked(now)) {
            return Err(Error::denied());
        }
        match &outcome {
            // Looked for like the others, so that the time tells nothing.
            _ if !claim.is_known => {}
            Ok(_) => drop(failed.remove(&key)),
            Err(error) if error.status() == Status::BAD_REQUEST => {
                if failed.len() >= MOST && !failed.contains_key(&key) {
                    failed.retain(|_, f| !f.is_over(now));
                    // Full of users that are under attack at this moment: those who are not locked yet are forgotten.
                    if failed.len() >= MOST {
                        failed.retain(|_, f| f.is_locked(now));
                    }
                }
                let entry = failed.entry(key).or_insert(Failed { times: 0, last: now, rules: rules.clone() });
                if now.since(entry.last) >= rules.counter_reset {
                    entry.times = 0;
                }
                (entry.times, entry.last, entry.rules) = (entry.times + 1, now, rules);
            }
            Err(_) => {}
        }
        outcome
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
    pub fn unlock(&self, accessor: &str, name: &str) {
        self.failed.lock().remove(&(accessor.to_owned(), name.to_owned()));
    }
}
