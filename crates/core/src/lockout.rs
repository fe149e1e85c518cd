//! User lockout: too many failed logins of a user lock the user for a time.
//!
//! A lock is stored, so that it survives a restart: one write at its start, one if it ends early. Failed logins before
//! it are counted in memory. In a cluster each count is stored before the failed login is refused, so that the next
//! leader goes on with it; counts that wait for the same commit share one. What another node has stored is followed.
//! Failed logins of users are counted apart from those of unknown names ([`failed_logins::FailedLogins`]): logins with
//! many different names evict no lock and no count of a user.

mod failed_logins;
mod unstored;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use keepfast_crypto::hash::sha256;
use keepfast_framework::reply::ClaimedAlias;
use keepfast_framework::{Clock, Error, Records, Result, Status, Timestamp};
use keepfast_storage::{Barrier, Consensus, Page, ReadTx, Tx, View};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::failed_logins::FailedLogins;
pub(crate) use self::failed_logins::NameHash;
use self::unstored::Unstored;
use crate::invalidation::{CacheOwner, CommittedChange, Followed};
use crate::layout;
use crate::mount::MountEntry;
use crate::mount::entry::or_inherited;
use crate::namespace::NamespaceId;
use crate::settings::{LockoutSettings, Settings};
use crate::unreadable;

/// The number of users with failed logins at which ended counts are first removed.
const FIRST_PRUNING: usize = 1024;

/// The number of stored locks that one transaction checks.
const PAGE: usize = 500;

/// Locks by the accessor of the mount and a hash of the alias name, which may have any characters.
const LOCKS: Records<Lock> = Records::at(layout::LOCKS);
/// Locks of unknown names, by the accessor of the mount and a hash, in a fixed number of slots for each mount: a lock
/// replaces the former one of its slot. They survive a restart as those of users do, and their writes take as long.
const UNKNOWN: Records<Lock> = Records::at(layout::UNKNOWN_LOCKS);

/// Failed logins of users, by the accessor of the mount and the name of the alias.
pub(crate) struct Lockout {
    /// The namespace of the records.
    pub(crate) namespace: NamespaceId,
    barrier: Arc<Barrier>,
    view: View,
    /// The cluster whose next leader needs the counts; `None` without one.
    cluster: Option<Arc<dyn Consensus>>,
    failed: Followed<Counts>,
    /// The keys of the records that this node is writing: memory is more recent than they are.
    own: Mutex<HashSet<String>>,
    /// Changes that are not stored yet.
    unstored: Unstored,
}

/// The failed logins in memory.
#[derive(Default)]
struct Counts {
    /// By user. Bounded by the number of users.
    users: HashMap<(String, String), Failed>,
    /// The names of users with stored locks, by the key of the record.
    names_of_records: HashMap<String, String>,
    /// The number of users at which ended counts are removed, if above [`FIRST_PRUNING`].
    prune_at: usize,
    /// By accessor of the mount: names, known or not. An attack at one mount does not fill the table of another.
    names: HashMap<String, FailedLogins>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Failed {
    times: u64,
    last: Timestamp,
    rules: LockoutSettings,
    /// Whether storage may have a lock of this user.
    #[serde(skip)]
    stored: bool,
}

/// The stored record of a lock.
#[derive(Serialize, Deserialize)]
struct Lock {
    /// The namespace of the lock.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    namespace: NamespaceId,
    name: String,
    failed: Failed,
}

/// The result of a login attempt.
pub(crate) struct LoginResult<T> {
    /// The outcome of the attempt, or the refusal.
    pub(crate) outcome: Result<T>,
    /// The change to be stored by [`Lockout::store`].
    pub(crate) changed: Option<Change>,
}

/// A change of a stored lock or count.
#[derive(Clone)]
pub(crate) enum Change {
    /// The lock or the count of the user with this name.
    User(String),
    /// The lock or the count of a name without a user.
    Unknown(NameHash),
}

impl Failed {
    /// A count without failed logins.
    fn none(rules: &LockoutSettings, now: Timestamp) -> Self {
        Failed { times: 0, last: now, rules: rules.clone(), stored: false }
    }

    /// Counts a failed login. Returns whether it starts a lock.
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
        now.since(self.last) >= failed_logins::lasts(&self.rules)
    }
}

/// The lockout settings of a mount: its tuned values, else those of the configuration for its type, else those for all
/// types.
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
    /// A lockout without locks, which stores them in `view`. In a `cluster` with other members it also stores counts.
    pub(crate) fn new(
        namespace: NamespaceId,
        barrier: &Arc<Barrier>,
        view: View,
        cluster: Option<Arc<dyn Consensus>>,
    ) -> Self {
        Lockout {
            namespace,
            barrier: barrier.clone(),
            view,
            cluster,
            failed: Followed::default(),
            own: Mutex::default(),
            unstored: Unstored::default(),
        }
    }

    /// Reads the stored locks.
    pub(crate) async fn load(&self, tx: &mut ReadTx, now: Timestamp) -> Result<()> {
        let owner = (self, now);
        self.failed.load(&owner, tx, |(lockout, now), tx| Box::pin(lockout.stored_locks(tx, *now))).await.map(drop)
    }

    /// The stored locks and counts that are not over.
    async fn stored_locks(&self, tx: &mut ReadTx, now: Timestamp) -> Result<Counts> {
        let (mut counts, view) = (Counts::default(), &self.view);
        for (records, is_known) in [(&LOCKS, true), (&UNKNOWN, false)] {
            for folder in records.list_in(tx, view, "", &Page::default()).await? {
                let Some(accessor) = folder.strip_suffix('/') else { continue };
                for name in records.list_in(tx, view, &folder, &Page::default()).await? {
                    let at = format!("{folder}{name}");
                    // An unreadable record locks no user.
                    let lock = unreadable::read((records, "lock of a user"), tx, view, &at).await?.readable();
                    let Some(lock) = lock.filter(|lock| self.owns(lock) && !lock.failed.is_over(now)) else {
                        continue;
                    };
                    if is_known {
                        counts.names_of_records.insert(at, lock.name.clone());
                        counts.users.insert((accessor.to_owned(), lock.name), Failed { stored: true, ..lock.failed });
                    } else if let Some(name) = NameHash::parse(&lock.name) {
                        counts.names.entry(accessor.to_owned()).or_default().restore(name, lock.failed, now);
                    }
                }
            }
        }
        Ok(counts)
    }

    /// Deletes the stored locks and counts that are over, each page in its own transaction.
    ///
    /// Fails when storage fails; completed pages stay deleted.
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
                    if !locks.is_empty() {
                        delete_ended_of(records, &locks, barrier, view, now).await?;
                    }
                    if is_last {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The outcome of a login, or a refusal (403) when the name is locked. A wrong secret (400) is counted; a correct
    /// one clears the count. An unknown name is locked in the same way as a known one.
    pub(crate) fn check<T>(
        &self,
        entry: &MountEntry,
        alias: ClaimedAlias,
        settings: &Settings,
        now: Timestamp,
        outcome: Result<T>,
    ) -> LoginResult<T> {
        let rules = rules(entry, settings);
        if rules.disabled {
            return LoginResult { outcome, changed: None };
        }
        let refused =
            |changed| LoginResult { outcome: Err(Error::denied().because("the user is locked out")), changed };
        let key = (entry.accessor.clone(), alias.name);
        let stores_counts = self.stores_counts();
        let mut counts = self.failed.lock();
        if counts.users.get(&key).is_some_and(|f| f.is_locked(now)) {
            counts.names_of(&key.0, now).fail(NameHash::of(&key.0, &key.1), &rules, now);
            return refused(None);
        }
        match &outcome {
            Ok(_) => {
                let changed = counts.users.remove(&key).is_some_and(|f| f.stored);
                LoginResult { outcome, changed: changed.then_some(Change::User(key.1)) }
            }
            Err(error) if error.status() == Status::BAD_REQUEST => {
                let name = NameHash::of(&key.0, &key.1);
                let at_name = counts.names_of(&key.0, now).fail(name, &rules, now);
                let (is_refused, changed) = if alias.is_known {
                    // The own count of the user was checked above.
                    let is_stored = stores_counts && !at_name.refuses_all;
                    let is_changed = counts.fail(&key, &rules, now, is_stored);
                    (at_name.refuses_all, is_changed.then_some(Change::User(key.1)))
                } else {
                    let is_stored = stores_counts && !at_name.is_refused();
                    let is_changed = at_name.begins_lock || is_stored;
                    (at_name.is_refused(), is_changed.then_some(Change::Unknown(name)))
                };
                if is_refused { refused(changed) } else { LoginResult { outcome, changed } }
            }
            Err(_) => LoginResult { outcome, changed: None },
        }
    }

    /// Whether counts are stored, and not only locks.
    fn stores_counts(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| !cluster.is_alone())
    }

    /// Stores the state of a name: writes its lock or count, or deletes it. Changes that wait for a commit of others are
    /// stored by the next one together.
    ///
    /// Fails when storage fails; the state in memory remains.
    pub(crate) async fn store(&self, accessor: &str, change: Change, now: Timestamp) -> Result<()> {
        self.unstored.store((accessor.to_owned(), change), |changes| self.store_all(changes, now)).await
    }

    /// Stores the current state of these names in one transaction.
    async fn store_all(&self, changes: Vec<(String, Change)>, now: Timestamp) -> Result<()> {
        let mut tx = self.barrier.begin();
        let mut own = OwnRecords { of: self, keys: Vec::new() };
        for (accessor, change) in &changes {
            own.add(self.put(&mut tx, accessor, change, now)?);
        }
        tx.commit().await?;
        Ok(())
    }

    /// Writes the current state of a name. Returns the key of its record, if there is one.
    fn put(&self, tx: &mut Tx, accessor: &str, change: &Change, now: Timestamp) -> Result<Option<String>> {
        match change {
            Change::User(name) => {
                let at = format!("{accessor}/{}", hex::encode(&sha256(name.as_bytes())[..16]));
                let key = (accessor.to_owned(), name.clone());
                let failed = self.failed.lock().users.get(&key).filter(|f| f.stored && !f.is_over(now)).cloned();
                match failed {
                    Some(failed) => LOCKS.put_in(tx, &self.view, &at, &self.lock(key.1, failed))?,
                    None => LOCKS.delete_in(tx, &self.view, &at),
                }
                Ok(Some(at))
            }
            Change::Unknown(name) => {
                let failed = self.failed.lock().names.get(accessor).and_then(|names| names.get(*name)).cloned();
                let Some(failed) = failed else { return Ok(None) };
                let at = format!("{accessor}/{}", name.slot());
                UNKNOWN.put_in(tx, &self.view, &at, &self.lock(name.hex(), failed))?;
                Ok(Some(at))
            }
        }
    }

    /// The record of a lock.
    fn lock(&self, name: String, failed: Failed) -> Lock {
        Lock { namespace: self.namespace.clone(), name, failed }
    }

    /// Whether a lock belongs to this namespace.
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

    /// The number of locked users.
    pub(crate) fn count_locked(&self, now: Timestamp) -> usize {
        self.failed.lock().users.values().filter(|failed| failed.is_locked(now)).count()
    }

    /// Unlocks a user.
    pub(crate) async fn unlock(&self, accessor: &str, name: &str, now: Timestamp) -> Result<()> {
        let removed = self.failed.lock().users.remove(&(accessor.to_owned(), name.to_owned()));
        if removed.is_some_and(|f| f.stored) {
            self.store(accessor, Change::User(name.to_owned()), now).await?;
        }
        Ok(())
    }
}

/// Deletes those of `locks` that are over.
async fn delete_ended_of(
    records: &Records<Lock>,
    locks: &[String],
    barrier: &Arc<Barrier>,
    view: &View,
    now: Timestamp,
) -> Result<()> {
    let attempt = |mut tx: Tx| async move {
        for at in locks {
            // An unreadable record locks no user; the next lock of the name overwrites it.
            let lock = unreadable::read((records, "lock of a user"), &mut tx, view, at).await?.readable();
            // An older version did not store the mount.
            if !at.contains('/') || lock.is_some_and(|lock| lock.failed.is_over(now)) {
                records.delete_in(&mut tx, view, at);
            }
        }
        Ok((tx, ()))
    };
    barrier.transact(attempt).await
}

/// Marks the records that this node is writing, until it is dropped.
struct OwnRecords<'a> {
    of: &'a Lockout,
    keys: Vec<String>,
}

impl OwnRecords<'_> {
    fn add(&mut self, key: Option<String>) {
        if let Some(key) = key {
            self.of.own.lock().insert(key.clone());
            self.keys.push(key);
        }
    }
}

impl Drop for OwnRecords<'_> {
    fn drop(&mut self) {
        let mut own = self.of.own.lock();
        self.keys.iter().for_each(|key| {
            own.remove(key);
        });
    }
}

/// Follows the locks of users.
impl CacheOwner for Lockout {
    fn applied(&self, change: &CommittedChange<'_>) {
        let Some((accessor, _)) = change.key.split_once('/') else { return };
        let is_own = self.own.lock().contains(change.key);
        let lock = change.record::<Lock>("lock of a user").readable().filter(|lock| self.owns(lock));
        let mut counts = self.failed.follow();
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

/// Follows the locks of names without a user. They end by time: a deleted record has ended, or another lock replaced
/// it.
pub(crate) struct UnknownNames {
    /// The lockout that follows them.
    pub(crate) lockout: Arc<Lockout>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
}

impl CacheOwner for UnknownNames {
    fn applied(&self, change: &CommittedChange<'_>) {
        let Some((accessor, _)) = change.key.split_once('/') else { return };
        let is_own = self.lockout.own.lock().contains(change.key);
        let lock = change.record::<Lock>("lock of a name").readable().filter(|lock| self.lockout.owns(lock));
        let Some(lock) = lock else { return };
        let mut counts = self.lockout.failed.follow();
        if let Some(name) = NameHash::parse(&lock.name).filter(|_| !is_own) {
            counts.names.entry(accessor.to_owned()).or_default().restore(name, lock.failed, self.clock.now());
        }
    }
}

impl Counts {
    /// The failed names of a mount.
    fn names_of(&mut self, accessor: &str, now: Timestamp) -> &mut FailedLogins {
        if !self.names.contains_key(accessor) {
            // Includes the tables of deleted mounts.
            self.names.retain(|_, names| !names.is_idle(now));
        }
        self.names.entry(accessor.to_owned()).or_default()
    }

    /// Counts a failed login of a user. Returns whether it must be stored: it starts a lock, or `is_stored` states it.
    fn fail(&mut self, key: &(String, String), rules: &LockoutSettings, now: Timestamp, is_stored: bool) -> bool {
        if self.users.len() >= self.prune_at.max(FIRST_PRUNING) && !self.users.contains_key(key) {
            self.users.retain(|_, failed| !failed.is_over(now));
            self.prune_at = self.users.len() * 2;
        }
        let failed = self.users.entry(key.clone()).or_insert_with(|| Failed::none(rules, now));
        let is_stored = failed.fail(rules, now) || is_stored;
        failed.stored |= is_stored;
        is_stored
    }
}

#[cfg(test)]
mod tests;
