//! The records of leases.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::lease::LeaseClaim;
use keepfast_framework::{Clock, Error, Records, Result, Timestamp};
use keepfast_storage::{Barrier, OwnedReadTx, Page, ReadTx, Tx, View};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::count::LeaseCount;
use super::expiry_queue::{self, ExpiryQueue, folder_of};
use super::index;
use super::quarantine::{self, QuarantineFlag};
use super::quotas::LeaseQuotas;
use super::record::{LeaseId, LeaseRecord, State};
use crate::invalidation::{CacheOwner, CommittedChange};
use crate::metrics::Metrics;
use crate::namespace::NamespaceId;
use crate::settings::DataDirectory;
use crate::token::TokenKey;
use crate::unreadable::unreadable;

const RECORDS: Records<LeaseRecord> = Records::at("secret/");
/// The timeout of the confirmation of a pending lease. After it the lease is revoked, unless its request is in flight.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of leases of all mounts that are revoked concurrently.
const AT_ONCE: usize = 64;

/// The records of all leases that engines issued.
pub(crate) struct Leases {
    pub(super) barrier: Arc<Barrier>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) view: View,
    /// Pending leases whose requests are in flight on this node.
    pub(super) under_way: Mutex<HashSet<LeaseId>>,
    /// Pending leases whose requests have failed.
    pub(super) abandoned: Mutex<Vec<LeaseId>>,
    /// Locks of leases under revocation.
    ending: Mutex<HashMap<LeaseId, Arc<tokio::sync::Mutex<()>>>>,
    pub(super) quarantined: QuarantineFlag,
    /// The place of the storage of this node, if known.
    pub(super) data_directory: Option<DataDirectory>,
    pub(super) permits: Semaphore,
    /// The number of leases and tokens.
    pub(crate) counts: LeaseCount,
    /// Counts leases and tokens by the lease count quotas.
    pub(crate) quotas: Arc<LeaseQuotas>,
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// The expiry queue.
    pub(crate) expiry_queue: ExpiryQueue,
    /// Held while the index is tidied.
    pub(crate) tidying: tokio::sync::Mutex<()>,
    /// Wakes the worker when an entry may be due before its planned time.
    pub(crate) wake: Notify,
}

impl Leases {
    /// The leases under `view`, on a node at `data_directory`. Reads nothing; no lease is revoked before [`Leases::load`].
    pub(crate) fn new(
        barrier: &Arc<Barrier>,
        view: View,
        data_directory: Option<DataDirectory>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        quotas: Arc<LeaseQuotas>,
    ) -> Arc<Self> {
        Arc::new(Leases {
            expiry_queue: ExpiryQueue::new(barrier.clone(), view.clone(), expiry_queue::ROOM),
            barrier: barrier.clone(),
            clock,
            view,
            under_way: Mutex::default(),
            abandoned: Mutex::default(),
            ending: Mutex::default(),
            quarantined: QuarantineFlag::default(),
            data_directory,
            permits: Semaphore::new(AT_ONCE),
            counts: LeaseCount::default(),
            quotas,
            metrics,
            tidying: tokio::sync::Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Reads whether leases are under quarantine. Loads no lease.
    pub(crate) async fn load(&self, tx: &mut ReadTx) -> Result<()> {
        self.quarantined.load(tx, &self.view).await
    }

    /// A read transaction.
    pub(crate) fn begin_read(&self) -> OwnedReadTx {
        self.barrier.begin_read()
    }

    /// Locks a lease against concurrent revocation until the lock is dropped.
    pub(super) async fn lock(self: &Arc<Self>, id: &LeaseId) -> LeaseLock {
        let lock = self.ending.lock().entry(id.clone()).or_default().clone();
        let held = lock.lock_owned().await;
        LeaseLock { leases: self.clone(), id: id.clone(), held: Some(held) }
    }

    /// Registers a lease that exists once `tx` is committed.
    ///
    /// Fails with 429 when the lease count quota of its path is exceeded.
    pub(crate) async fn register(&self, tx: &mut Tx, id: &LeaseId, record: &mut LeaseRecord) -> Result<()> {
        record.counter = self.quotas.count(tx, &record.namespace, &record.path).await?;
        index::add_lease(tx, &self.view, id, record);
        RECORDS.put_in(tx, &self.view, id.as_str(), record)
    }

    /// Checks that a claim is free, in the transaction that registers the lease: of two concurrent claims one
    /// conflicts. Returns the key of the claim.
    ///
    /// Fails with 400 while another lease has the claim.
    pub(super) async fn claim(&self, tx: &mut Tx, mount: &str, claim: &LeaseClaim) -> Result<String> {
        let key = index::claim_key(mount, &claim.key);
        match tx.get(&self.view, &key).await? {
            Some(_) => Err(Error::invalid(claim.taken.clone())),
            None => Ok(key),
        }
    }

    /// The time at which a pending lease that is created at `now` is revoked unless it is confirmed.
    pub(super) fn confirmation_deadline(now: Timestamp) -> Timestamp {
        now.after(CONFIRMATION_TIMEOUT)
    }

    /// The record of a lease of any namespace.
    pub(crate) async fn record(&self, tx: &mut ReadTx, id: &LeaseId) -> Result<Option<LeaseRecord>> {
        RECORDS.get_in(tx, &self.view, id.as_str()).await
    }

    /// The lease of this id, if it is of this namespace and its path is `path`.
    pub(crate) async fn at(&self, namespace: &NamespaceId, path: &str, id: &LeaseId) -> Result<Option<LeaseRecord>> {
        let mut tx = self.barrier.begin_read();
        Ok(self.record(&mut tx, id).await?.filter(|r| r.namespace == *namespace && r.path == path))
    }

    /// Writes a changed record and moves it in the index. `change` gets the stored record.
    pub(super) fn change(
        &self,
        tx: &mut Tx,
        id: &LeaseId,
        record: &mut LeaseRecord,
        change: impl FnOnce(&mut LeaseRecord),
    ) -> Result<()> {
        let before = index::place_of(id, record);
        change(record);
        index::move_lease(tx, &self.view, id, record, &before);
        RECORDS.put_in(tx, &self.view, id.as_str(), record)
    }

    /// Deletes a lease.
    pub(super) async fn remove(&self, tx: &mut Tx, id: &LeaseId, record: &LeaseRecord) -> Result<()> {
        if let Some(counter) = &record.counter {
            self.quotas.release(tx, counter).await?;
        }
        index::remove_lease(tx, &self.view, id, record);
        RECORDS.delete_in(tx, &self.view, id.as_str());
        Ok(())
    }

    /// Counts a lease by the current quotas.
    pub(crate) async fn recount(&self, tx: &mut Tx, id: &LeaseId) -> Result<()> {
        let Some(mut record) = self.record(tx, id).await? else { return Ok(()) };
        let place = (&record.namespace, record.path.as_str());
        let Some(counter) = self.quotas.recount(tx, place, record.counter.as_deref()).await? else { return Ok(()) };
        record.counter = counter;
        RECORDS.put_in(tx, &self.view, id.as_str(), &record)
    }

    /// Marks a lease as expired, in `tx`. An unreadable lease is set aside instead and causes no error.
    pub(crate) async fn end_soon(&self, tx: &mut Tx, id: &LeaseId) -> Result<()> {
        let now = self.clock.now();
        let Some(mut record) = self.readable(tx, id).await? else { return Ok(()) };
        self.change(tx, id, &mut record, |r| {
            // One second earlier, because entries are due when their second has passed.
            r.due = Timestamp::from_unix(now.unix() - 1).min(r.due);
            r.end = r.end.min(now);
            r.state = State::Ending { attempts: 0 };
        })
    }

    /// Marks at most `limit` leases of a token as expired, in `tx`. Returns whether there may be more.
    pub(crate) async fn end_held(&self, tx: &mut Tx, owner: &TokenKey, limit: usize) -> Result<bool> {
        let ids = self.held(tx, owner, limit).await?;
        for id in &ids {
            self.end_soon(tx, id).await?;
            tx.delete(&self.view, &index::held_key(owner, id));
        }
        Ok(ids.len() == limit)
    }

    /// The leases that a token owns, at most `limit`.
    pub(crate) async fn held(&self, tx: &mut ReadTx, owner: &TokenKey, limit: usize) -> Result<Vec<LeaseId>> {
        let folder = format!("{}{}/", index::HELD, owner.as_str());
        let names = tx.list(&self.view, &folder, &Page::first(limit)).await?;
        Ok(names.iter().filter_map(|n| LeaseId::parse(n)).collect())
    }

    /// As [`Leases::record`], but an unreadable record counts as absent: the worker sets it aside later.
    async fn readable(&self, tx: &mut ReadTx, id: &LeaseId) -> Result<Option<LeaseRecord>> {
        match self.record(tx, id).await {
            Err(error) if unreadable(&error) => Ok(None),
            other => other,
        }
    }

    /// The mounts that have irrevocable leases.
    pub(crate) async fn irrevocable_mounts(&self) -> Result<Vec<String>> {
        let mut names = self.barrier.begin_read().list(&self.view, index::IRREVOCABLE, &Page::all()).await?;
        names.iter_mut().for_each(|n| n.truncate(n.len().saturating_sub(1)));
        Ok(names)
    }

    /// The first leases of a mount that are due at `now`.
    pub(crate) async fn due(&self, mount: &str, now: Timestamp, limit: usize) -> Result<Vec<(String, LeaseId)>> {
        let names = self.expiry_queue.due(&folder_of(mount), now, "", limit).await?;
        Ok(names.into_iter().filter_map(|name| index::parse_end(&name).map(|(_, id)| (name, id))).collect())
    }

    /// All leases of a mount, page by page: those with an expiry or the irrevocable ones, by `folder`.
    pub(crate) async fn of_mount(&self, folder: &str, mount: &str, page: &Page) -> Result<Vec<String>> {
        Ok(self.barrier.begin_read().list(&self.view, &format!("{folder}{mount}/"), page).await?)
    }

    /// The names one level below a path of a namespace: leases, tokens, and folders (with a trailing `/`).
    pub(crate) async fn below(&self, namespace: &NamespaceId, path: &str, page: &Page) -> Result<Vec<String>> {
        let slash = if path.is_empty() { "" } else { "/" };
        let folder = format!("{}{path}{slash}", index::leases_of(namespace));
        Ok(self.barrier.begin_read().list(&self.view, &folder, page).await?)
    }

    /// Whether a path of a namespace has issued a lease or token of this name.
    pub(crate) async fn is_listed(&self, namespace: &NamespaceId, path: &str, name: &str) -> Result<bool> {
        let key = format!("{}{path}/{name}", index::leases_of(namespace));
        Ok(self.barrier.begin_read().get(&self.view, &key).await?.is_some())
    }

    /// Sets aside a lease with an unreadable record: it becomes irrevocable.
    pub(super) async fn set_aside(&self, mount: &str, place: &str, id: &LeaseId) -> Result<()> {
        let mut tx = self.barrier.begin();
        tx.delete(&self.view, &format!("{}{mount}/{place}", index::ENDS));
        tx.put(&self.view, &index::irrevocable_key(mount, id), bytes::Bytes::new());
        tx.commit().await?;
        Ok(())
    }

    /// Deletes an index entry without a record.
    pub(super) async fn drop_entry(&self, folder: &str, mount: &str, name: &str) -> Result<()> {
        let mut tx = self.barrier.begin();
        tx.delete(&self.view, &format!("{folder}{mount}/{name}"));
        tx.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
impl Leases {
    /// The number of leases with a lock.
    pub(super) fn locked(&self) -> usize {
        self.ending.lock().len()
    }
}

/// Follows the records below the token view: the expiry queue, the counts and the quarantine.
impl CacheOwner for Leases {
    fn applied(&self, change: &CommittedChange<'_>) {
        let (key, exists) = (change.key, change.exists());
        self.counts.applied(key, exists);
        let is_sooner = self.expiry_queue.applied(key, exists);
        let is_quarantine = key == quarantine::RECORD;
        if is_quarantine {
            self.quarantined.set(exists);
        }
        if is_sooner || is_quarantine {
            self.wake.notify_one();
        }
    }
}

/// Removes the leases of deleted mounts from the expiry queue.
pub(crate) struct DeletedMounts(pub(crate) Arc<Leases>);

impl CacheOwner for DeletedMounts {
    fn applied(&self, change: &CommittedChange<'_>) {
        if !change.exists() {
            self.0.expiry_queue.forget(change.key);
        }
    }
}

/// See [`Leases::lock`].
pub(super) struct LeaseLock {
    leases: Arc<Leases>,
    id: LeaseId,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for LeaseLock {
    fn drop(&mut self) {
        let mut ending = self.leases.ending.lock();
        drop(self.held.take());
        // Only the map has the lock: no task waits for it.
        if ending.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            ending.remove(&self.id);
        }
    }
}
