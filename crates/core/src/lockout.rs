//! Too many failed logins at a user lock the user out for a while.
//!
//! A lock is stored, so that a restart does not open it: one write when it begins, one when it ends early. Failed logins
//! before it are counted in memory. Locks that another node has stored are followed. Failed logins at users are kept apart from those at unknown names
//! ([`names::FailedNames`]): strangers who send endless names evict no lock and no count of a user.

mod names;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keepfast_crypto::hash::sha256;
use keepfast_framework::reply::ClaimedAlias;
use keepfast_framework::{Error, Records, Result, Status, Timestamp};
use keepfast_storage::{Barrier, Page, ReadTx, Tx, View};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::names::FailedNames;
pub(crate) use self::names::NameHash;
use crate::damaged;
use crate::follow::{Applied, Follower};
use crate::mount::MountEntry;
use crate::mount::entry::or_inherited;
use crate::namespace::NamespaceId;
use crate::settings::{LockoutSettings, Settings};

/// Users with failed logins before those that are over are forgotten for the first time.
const FIRST_PRUNING: usize = 1024;

/// How many stored locks one transaction looks at.
const PAGE: usize = 500;

/// Locks by the accessor of the mount and a hash of the alias's name, which may have any characters.
const LOCKS: Records<Lock> = Records::at("lockout/");
/// Locks of unknown names, by the accessor of the mount and a hash, in a fixed number of places for each mount: a lock
/// takes the place of another. They outlive a restart as those of users do, and their writes take as long.
const UNKNOWN: Records<Lock> = Records::at("lockout-unknown/");

/// Failed attempts at users, by the accessor of the mount and the name of the alias.
pub(crate) struct Lockout {
    /// The namespace whose records these are.
    pub(crate) namespace: NamespaceId,
    barrier: Arc<Barrier>,
    view: View,
    failed: Mutex<Counts>,
    /// The lock that this node is storing, by the name of its record: memory is ahead of that record.
    own: Mutex<Option<String>>,
    /// Held while what is stored of a user is brought up to date, so that the last to write has seen the last change.
    storing: tokio::sync::Mutex<()>,
}

/// Failed logins in memory.
#[derive(Default)]
struct Counts {
    /// By user. Bounded by the users that there are.
    users: HashMap<(String, String), Failed>,
    /// The names of users with stored locks, by the name of the record.
    names_of_records: HashMap<String, String>,
    /// Counts the changes of stored locks that were applied.
    changes: u64,
    /// At how many users those that are over are forgotten, when there are more than [`FIRST_PRUNING`].
    prune_at: usize,
    /// By accessor of the mount: names, whether a user has them or not. An attack at one mount fills no other's table.
    names: HashMap<String, FailedNames>,
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
    /// The namespace that it belongs to.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    namespace: NamespaceId,
    name: String,
    failed: Failed,
}

/// What comes of an attempt.
pub(crate) struct Verdict<T> {
    /// The outcome of the attempt, or the refusal.
    pub(crate) outcome: Result<T>,
    /// What has to be stored, by [`Lockout::store`].
    pub(crate) changed: Option<Change>,
}

/// A change of what is stored.
pub(crate) enum Change {
    /// The lock of the user with this name begins or ends.
    User(String),
    /// The lock of a name that no user has begins.
    Unknown(NameHash),
}

impl Failed {
    /// No failed logins yet.
    fn none(rules: &LockoutSettings, now: Timestamp) -> Self {
        Failed { times: 0, last: now, rules: rules.clone(), stored: false }
    }

    /// Counts a failed login; returns whether it begins a lock.
    fn fail(&mut self, rules: &LockoutSettings, now: Timestamp) -> bool {
        if now.since(self.last) >= rules.counter_reset {
            self.times = 0;
        }
        (self.times, self.last, self.rules) = (self.times.saturating_add(1), now, rules.clone());
        self.is_locked(now)
    }

    fn is_locked(&self, now: Timestamp) -> bool {
        self.times >= self.rules.threshold && now.since(self.last) < self.rules.duration
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.last) >= names::lasts(&self.rules)
    }
}

/// The rules of a mount: what was tuned there, else what the configuration says of its type, else of all.
pub(crate) fn rules(entry: &MountEntry, settings: &Settings) -> LockoutSettings {
    let lockouts = &settings.user_lockout;
    let mut rules = lockouts.get(&entry.engine).or_else(|| lockouts.get("all")).cloned().unwrap_or_default();
    if let Some(own) = &entry.config.user_lockout {
        rules.duration = or_inherited(own.duration, rules.duration);
        rules.counter_reset = or_inherited(own.counter_reset, rules.counter_reset);
        rules.threshold = if own.threshold == 0 { rules.threshold } else { own.threshold };
        rules.disabled = own.disable;
    }
    rules
}

impl Lockout {
    /// No locks yet; stores them in `view`.
    pub(crate) fn new(barrier: &Arc<Barrier>, view: View) -> Self {
        Lockout {
            namespace: NamespaceId::root(),
            barrier: barrier.clone(),
            view,
            failed: Mutex::default(),
            own: Mutex::default(),
            storing: tokio::sync::Mutex::default(),
        }
    }

    /// Reads the stored locks.
    pub(crate) async fn load(&self, tx: &mut ReadTx, now: Timestamp) -> Result<()> {
        loop {
            let seen = self.failed.lock().changes;
            let mut counts = self.stored_locks(tx, now).await?;
            let mut present = self.failed.lock();
            if present.changes == seen {
                counts.changes = seen;
                *present = counts;
                return Ok(());
            }
        }
    }

    /// The stored locks that have not ended.
    async fn stored_locks(&self, tx: &mut ReadTx, now: Timestamp) -> Result<Counts> {
        let (mut counts, view) = (Counts::default(), &self.view);
        for (records, is_known) in [(&LOCKS, true), (&UNKNOWN, false)] {
            for folder in records.list_in(tx, view, "", &Page::default()).await? {
                let Some(accessor) = folder.strip_suffix('/') else { continue };
                for name in records.list_in(tx, view, &folder, &Page::default()).await? {
                    let at = format!("{folder}{name}");
                    // A record that cannot be read locks nobody.
                    let lock = damaged::read((records, "lock of a user"), tx, view, &at).await?.readable();
                    let Some(lock) = lock.filter(|lock| self.owns(lock) && lock.failed.is_locked(now)) else {
                        continue;
                    };
                    if is_known {
                        counts.names_of_records.insert(at, lock.name.clone());
                        counts.users.insert((accessor.to_owned(), lock.name), Failed { stored: true, ..lock.failed });
                    } else if let Some(name) = NameHash::parse(&lock.name) {
                        counts.names.entry(accessor.to_owned()).or_default().restore(name, lock.failed);
                    }
                }
            }
        }
        Ok(counts)
    }

    /// Deletes the stored locks that have ended, each page of them in a transaction of its own.
    ///
    /// Fails when storage fails; what was deleted by then stays deleted.
    pub(crate) async fn delete_ended(barrier: &Arc<Barrier>, view: &View, now: Timestamp) -> Result<()> {
        for records in [&LOCKS, &UNKNOWN] {
            let mut folders = vec![String::new()];
            while let Some(folder) = folders.pop() {
                let mut page = Page::first(PAGE);
                loop {
                    let names = records.list_in(&mut barrier.begin_read(), view, &folder, &page).await?;
                    let is_last = names.len() < PAGE;
                    page.after = names.last().cloned();
                    let places = names.iter().map(|name| format!("{folder}{name}"));
                    let (below, locks): (Vec<_>, Vec<_>) = places.partition(|at| at.ends_with('/'));
                    folders.extend(below);
                    delete_ended_of(records, &locks, barrier, view, now).await?;
                    if is_last {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The outcome of a login, or a refusal (403) when the name is locked. A wrong secret (400) counts, a right one clears the
    /// count. An unknown name is locked as a known one is.
    pub(crate) fn check<T>(
        &self,
        entry: &MountEntry,
        alias: ClaimedAlias,
        settings: &Settings,
        now: Timestamp,
        outcome: Result<T>,
    ) -> Verdict<T> {
        let rules = rules(entry, settings);
        if rules.disabled {
            return Verdict { outcome, changed: None };
        }
        let refused = |changed| Verdict { outcome: Err(Error::denied().because("the user is locked out")), changed };
        let key = (entry.accessor.clone(), alias.name);
        let mut counts = self.failed.lock();
        if counts.users.get(&key).is_some_and(|f| f.is_locked(now)) {
            counts.names_of(&key.0, now).fail(NameHash::of(&key.0, &key.1), &rules, now);
            return refused(None);
        }
        match &outcome {
            Ok(_) => {
                let changed = counts.users.remove(&key).is_some_and(|f| f.stored);
                Verdict { outcome, changed: changed.then_some(Change::User(key.1)) }
            }
            Err(error) if error.status() == Status::BAD_REQUEST => {
                let name = NameHash::of(&key.0, &key.1);
                let at_name = counts.names_of(&key.0, now).fail(name, &rules, now);
                let (is_refused, changed) = if alias.is_known {
                    // The user's own count was checked above.
                    let begins_lock = counts.fail(&key, &rules, now);
                    (at_name.refuses_all, begins_lock.then_some(Change::User(key.1)))
                } else {
                    (at_name.is_refused(), at_name.begins_lock.then_some(Change::Unknown(name)))
                };
                if is_refused { refused(changed) } else { Verdict { outcome, changed } }
            }
            Err(_) => Verdict { outcome, changed: None },
        }
    }

    /// Stores how it stands with a name: the lock, or that there is none.
    ///
    /// Fails when storage fails; the lock holds in memory all the same.
    pub(crate) async fn store(&self, accessor: &str, change: Change, now: Timestamp) -> Result<()> {
        let _alone = self.storing.lock().await;
        let mut tx = self.barrier.begin();
        let at = match change {
            Change::User(name) => {
                let at = format!("{accessor}/{}", hex::encode(&sha256(name.as_bytes())[..16]));
                let key = (accessor.to_owned(), name);
                let locked = self.failed.lock().users.get(&key).filter(|f| f.is_locked(now)).cloned();
                match locked {
                    Some(failed) => LOCKS.put_in(&mut tx, &self.view, &at, &self.lock(key.1, failed))?,
                    None => LOCKS.delete_in(&mut tx, &self.view, &at),
                }
                at
            }
            Change::Unknown(name) => {
                let failed = self.failed.lock().names.get(accessor).and_then(|names| names.get(name)).cloned();
                let Some(failed) = failed else { return Ok(()) };
                let at = format!("{accessor}/{}", name.slot());
                UNKNOWN.put_in(&mut tx, &self.view, &at, &self.lock(name.hex(), failed))?;
                at
            }
        };
        let _own = OwnRecord::of(self, at);
        tx.commit().await?;
        Ok(())
    }

    /// A lock as it is stored.
    fn lock(&self, name: String, failed: Failed) -> Lock {
        Lock { namespace: self.namespace.clone(), name, failed }
    }

    /// Whether a lock is of this namespace.
    fn owns(&self, lock: &Lock) -> bool {
        lock.namespace == self.namespace
    }

    /// The locked users, by the accessor of their mount.
    pub(crate) fn locked(&self, now: Timestamp) -> BTreeMap<String, Vec<String>> {
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((accessor, name), failed) in self.failed.lock().users.iter() {
            if failed.is_locked(now) {
                out.entry(accessor.clone()).or_default().push(name.clone());
            }
        }
        out.values_mut().for_each(|names| names.sort_unstable());
        out
    }

    /// How many users are locked.
    pub(crate) fn count_locked(&self, now: Timestamp) -> usize {
        self.failed.lock().users.values().filter(|failed| failed.is_locked(now)).count()
    }

    /// Lets a user in again.
    pub(crate) async fn unlock(&self, accessor: &str, name: &str, now: Timestamp) -> Result<()> {
        let removed = self.failed.lock().users.remove(&(accessor.to_owned(), name.to_owned()));
        if removed.is_some_and(|f| f.stored) {
            self.store(accessor, Change::User(name.to_owned()), now).await?;
        }
        Ok(())
    }
}

/// Deletes those of these locks that have ended.
async fn delete_ended_of(
    records: &Records<Lock>,
    locks: &[String],
    barrier: &Arc<Barrier>,
    view: &View,
    now: Timestamp,
) -> Result<()> {
    let attempt = |mut tx: Tx| async move {
        for at in locks {
            // A record that cannot be read locks nobody; it is written anew with the name's next lock.
            let lock = damaged::read((records, "lock of a user"), &mut tx, view, at).await?.readable();
            // An older version did not store the mount.
            if !at.contains('/') || lock.is_some_and(|lock| !lock.failed.is_locked(now)) {
                records.delete_in(&mut tx, view, at);
            }
        }
        Ok((tx, ()))
    };
    barrier.transact(attempt).await
}

/// Marks the record that this node is storing, until it is dropped.
struct OwnRecord<'a>(&'a Lockout);

impl<'a> OwnRecord<'a> {
    fn of(lockout: &'a Lockout, at: String) -> Self {
        *lockout.own.lock() = Some(at);
        OwnRecord(lockout)
    }
}

impl Drop for OwnRecord<'_> {
    fn drop(&mut self) {
        *self.0.own.lock() = None;
    }
}

/// Follows the locks of users.
impl Follower for Lockout {
    fn applied(&self, change: &Applied<'_>) {
        let Some((accessor, _)) = change.key.split_once('/') else { return };
        let is_own = self.own.lock().as_deref() == Some(change.key);
        let lock = change.record::<Lock>("lock of a user").readable().filter(|lock| self.owns(lock));
        let mut counts = self.failed.lock();
        counts.changes += 1;
        match lock {
            Some(Lock { name, failed, .. }) => {
                counts.names_of_records.insert(change.key.to_owned(), name.clone());
                if !is_own {
                    counts.users.insert((accessor.to_owned(), name), Failed { stored: true, ..failed });
                }
            }
            None => {
                let Some(name) = counts.names_of_records.remove(change.key) else { return };
                let key = (accessor.to_owned(), name);
                if !is_own && counts.users.get(&key).is_some_and(|failed| failed.stored) {
                    counts.users.remove(&key);
                }
            }
        }
    }
}

/// Follows the locks of names that no user has. They end by themselves: a record that is deleted is over, or its place was
/// taken by another.
pub(crate) struct UnknownNames(pub(crate) Arc<Lockout>);

impl Follower for UnknownNames {
    fn applied(&self, change: &Applied<'_>) {
        let Some((accessor, _)) = change.key.split_once('/') else { return };
        let is_own = self.0.own.lock().as_deref() == Some(change.key);
        let lock = change.record::<Lock>("lock of a name").readable().filter(|lock| self.0.owns(lock));
        let Some(lock) = lock else { return };
        let mut counts = self.0.failed.lock();
        counts.changes += 1;
        if let Some(name) = NameHash::parse(&lock.name).filter(|_| !is_own) {
            counts.names.entry(accessor.to_owned()).or_default().restore(name, lock.failed);
        }
    }
}

impl Counts {
    /// The names of a mount.
    fn names_of(&mut self, accessor: &str, now: Timestamp) -> &mut FailedNames {
        if !self.names.contains_key(accessor) {
            // Those of mounts that are gone, among others.
            self.names.retain(|_, names| !names.is_idle(now));
        }
        self.names.entry(accessor.to_owned()).or_default()
    }

    /// Counts a failed login at a user; returns whether it begins a lock.
    fn fail(&mut self, key: &(String, String), rules: &LockoutSettings, now: Timestamp) -> bool {
        if self.users.len() >= self.prune_at.max(FIRST_PRUNING) && !self.users.contains_key(key) {
            self.users.retain(|_, failed| !failed.is_over(now));
            self.prune_at = self.users.len() * 2;
        }
        let failed = self.users.entry(key.clone()).or_insert_with(|| Failed::none(rules, now));
        let begins_lock = failed.fail(rules, now);
        failed.stored |= begins_lock;
        begins_lock
    }
}
