//! Lease count quotas: the largest number of leases of engines and of service tokens with an expiry.
//!
//! The record of a lease or token has the id of the counter that has counted it, and the transaction that deletes it
//! lowers that counter. Only the most specific quota counts a lease, as of its creation; after a change of the quotas
//! [`super::recount`] moves the leases that another quota has to count.
//!
//! | key below `sys/quotas/` | contents |
//! |---|---|
//! | `lease-count/<name>` | a quota |
//! | `lease-counter/<id>/<shard>` | its counter |
//! | `lease-rules` | changes with every quota; a transaction that counts reads it |
//! | `lease-recount` | exists until the leases are counted by the current quotas |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use keepfast_crypto::random;
use keepfast_framework::{Error, Page, Records, Result, Status};
use keepfast_storage::{Barrier, ReadTx, StorageError, Tx, View};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::quota_counter::{Counted, Counter, SHARDS};
use crate::invalidation::{CacheOwner, CommittedChange, Followed};
use crate::namespace::NamespaceId;
use crate::namespace::directory::Directory;
use crate::quota::target::{Target, Targets};
use crate::unreadable::{self, Stored};

/// The folder of all records that the service follows, below `sys/`.
pub(crate) const FOLDER: &str = "quotas/";
/// The quotas by name.
pub(crate) const QUOTAS: Records<LeaseQuota> = Records::at(QUOTAS_AT);
/// The folder of the quotas.
pub(crate) const QUOTAS_AT: &str = "quotas/lease-count/";
/// The generation of the quotas.
const RULES: Records<Generation> = Records::at("quotas/lease-rules");
/// The generation by which leases are to be counted.
const RECOUNT: Records<Generation> = Records::at(RECOUNT_AT);
const RECOUNT_AT: &str = "quotas/lease-recount";
/// The length of the id of a counter, and of a generation.
const ID: usize = 16;

/// The state of all quotas, which differs after each change.
type Generation = String;

/// The stored record of a quota.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LeaseQuota {
    /// The namespace of the quota.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// Its name.
    pub(crate) name: String,
    /// What it applies to.
    #[serde(flatten)]
    pub(crate) target: Target,
    /// The largest number of leases.
    pub(crate) max_leases: u64,
    /// The id of its counter: another one for another target.
    pub(crate) counter: String,
}

/// Counts leases by the quotas. Without any quota it reads nothing.
pub(crate) struct LeaseQuotas {
    barrier: Arc<Barrier>,
    system: View,
    directory: Arc<Directory>,
    rules: Followed<Rules>,
    current: ArcSwap<Rules>,
    /// The shard of the next change of a counter.
    next: AtomicUsize,
    /// Wakes the task that recounts.
    pub(crate) changed: Notify,
}

/// The quotas of one generation.
#[derive(Clone, Default)]
struct Rules {
    generation: Generation,
    quotas: Targets<Arc<LeaseQuota>>,
    is_recounting: bool,
}

impl LeaseQuotas {
    /// The quotas behind this barrier. Reads nothing.
    pub(crate) fn new(barrier: &Arc<Barrier>, system: View, directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(LeaseQuotas {
            barrier: barrier.clone(),
            system,
            directory,
            rules: Followed::default(),
            current: ArcSwap::default(),
            next: AtomicUsize::new(0),
            changed: Notify::new(),
        })
    }

    /// Reads the quotas.
    pub(crate) async fn load(&self, tx: &mut ReadTx) -> Result<()> {
        let rules = self.rules.load(self, tx, |own, tx| Box::pin(Rules::load(tx, &own.system))).await?;
        self.current.store(Arc::new(rules.clone()));
        Ok(())
    }

    /// Counts a lease or token of this path, which exists once `tx` is committed. Returns the id of its counter; `None`
    /// without a quota.
    ///
    /// # Errors
    /// 429 when the quota is exceeded; when storage fails.
    pub(crate) async fn count(&self, tx: &mut Tx, namespace: &NamespaceId, path: &str) -> Result<Option<String>> {
        if self.current.load().quotas.is_empty() {
            return Ok(None);
        }
        Box::pin(self.count_by_quota(tx, namespace, path)).await
    }

    async fn count_by_quota(&self, tx: &mut Tx, namespace: &NamespaceId, path: &str) -> Result<Option<String>> {
        let Some(quota) = self.applying(tx, namespace, path).await? else { return Ok(None) };
        let counter = Counter { view: &self.system, id: &quota.counter };
        match counter.add(tx, &self.barrier, (quota.max_leases, false), self.next_shard()).await? {
            Counted::Yes => Ok(Some(quota.counter.clone())),
            Counted::Full => Err(exceeded(path)),
            Counted::Gone => Err(StorageError::Conflict.into()),
        }
    }

    /// Refuses a batch token of this path, which is not counted, while the quota is exceeded.
    ///
    /// # Errors
    /// 429 when the quota is exceeded; when storage fails.
    pub(crate) async fn check(&self, tx: &mut Tx, namespace: &NamespaceId, path: &str) -> Result<()> {
        if self.current.load().quotas.is_empty() {
            return Ok(());
        }
        let Some(quota) = Box::pin(self.applying(tx, namespace, path)).await? else { return Ok(()) };
        let counter = Counter { view: &self.system, id: &quota.counter };
        let total = counter.total(&mut self.barrier.begin_read()).await?;
        let is_full = total.is_some_and(|total| u64::try_from(total).is_ok_and(|total| total >= quota.max_leases));
        if is_full { Err(exceeded(path)) } else { Ok(()) }
    }

    /// Releases a lease that was counted.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn release(&self, tx: &mut Tx, counter: &str) -> Result<()> {
        Box::pin(Counter { view: &self.system, id: counter }.release(tx, self.next_shard())).await
    }

    /// Counts a lease or token that exists by the current quotas, also beyond their maximum, and releases it at its
    /// earlier counter. Returns the id of its counter, if that is another one.
    pub(crate) async fn recount(
        &self,
        tx: &mut Tx,
        (namespace, path): (&NamespaceId, &str),
        before: Option<&str>,
    ) -> Result<Option<Option<String>>> {
        let quota = self.applying(tx, namespace, path).await?;
        if quota.as_ref().map(|quota| quota.counter.as_str()) == before {
            return Ok(None);
        }
        if let Some(before) = before {
            let counter = Counter { view: &self.system, id: before };
            if quota.is_none() && counter.total(&mut self.barrier.begin_read()).await?.is_none() {
                return Ok(None);
            }
            counter.release(tx, self.next_shard()).await?;
        }
        let Some(quota) = quota else { return Ok(Some(None)) };
        let counter = Counter { view: &self.system, id: &quota.counter };
        match counter.add(tx, &self.barrier, (quota.max_leases, true), self.next_shard()).await? {
            Counted::Yes => Ok(Some(Some(quota.counter.clone()))),
            Counted::Full | Counted::Gone => Err(StorageError::Conflict.into()),
        }
    }

    /// The most specific quota of a path. The transaction conflicts with a change of the quotas.
    async fn applying(&self, tx: &mut Tx, namespace: &NamespaceId, path: &str) -> Result<Option<Arc<LeaseQuota>>> {
        let rules = self.current.load_full();
        if RULES.get_in(tx, &self.system, "").await?.unwrap_or_default() != rules.generation {
            // A commit is visible before it is followed.
            return Err(StorageError::Conflict.into());
        }
        let mut lineage = vec![namespace.clone()];
        while let Some(id) = lineage.last().filter(|id| !id.is_root())
            && let Some(record) = self.directory.record(id).await?
        {
            lineage.push(record.parent.clone());
        }
        Ok(rules.quotas.find(&lineage, path).cloned())
    }

    /// Whether leases are still to be counted by the current quotas.
    pub(crate) fn is_recounting(&self) -> bool {
        self.current.load().is_recounting
    }

    /// The generation by which leases are to be counted, once this node follows it.
    pub(super) async fn to_recount(&self) -> Result<Option<Generation>> {
        loop {
            let tx = &mut self.barrier.begin_read();
            let wanted = match unreadable::read((&RECOUNT, "recount of leases"), tx, &self.system, "").await? {
                Stored::Absent => None,
                Stored::Unreadable => Some(generation(tx, &self.system).await?),
                Stored::Record(wanted) => Some(wanted),
            };
            if wanted.as_ref().is_none_or(|wanted| *wanted == self.current.load().generation) {
                return Ok(wanted);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Notes that all leases are counted by this generation, unless it has changed.
    pub(super) async fn recounted(&self, generation: &Generation) -> Result<()> {
        let end = |mut tx: Tx| async move {
            let read = unreadable::read((&RECOUNT, "recount of leases"), &mut tx, &self.system, "").await?;
            if read.readable().is_none_or(|wanted| wanted == *generation) {
                RECOUNT.delete_in(&mut tx, &self.system, "");
            }
            Ok::<_, Error>((tx, ()))
        };
        self.barrier.transact(end).await
    }

    fn next_shard(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % SHARDS
    }
}

/// Writes a quota; `counter` of it is ignored. A quota with another target counts from the start.
///
/// # Errors
/// When storage fails.
pub(crate) async fn put(tx: &mut Tx, system: &View, mut quota: LeaseQuota) -> Result<()> {
    let before = unreadable::read((&QUOTAS, "lease count quota"), tx, system, &quota.name).await?.readable();
    let is_recounting = is_recounting(tx, system).await?;
    match before {
        Some(before) if before.target == quota.target => {
            quota.counter = before.counter;
            Counter { view: system, id: &quota.counter }.set_max(tx, quota.max_leases).await?;
            // A recount in progress begins again with this generation.
            if is_recounting {
                recount_later(tx, system)?
            } else {
                RULES.put_in(tx, system, "", &random::base62(ID))?
            }
        }
        before => {
            if let Some(before) = before {
                Counter { view: system, id: &before.counter }.delete(tx);
            }
            quota.counter = random::base62(ID);
            Counter { view: system, id: &quota.counter }.create(tx, quota.max_leases)?;
            recount_later(tx, system)?;
        }
    }
    QUOTAS.put_in(tx, system, &quota.name, &quota)
}

/// Deletes a quota and its counter.
///
/// # Errors
/// When storage fails.
pub(crate) async fn delete(tx: &mut Tx, system: &View, name: &str) -> Result<()> {
    match unreadable::read((&QUOTAS, "lease count quota"), tx, system, name).await? {
        Stored::Absent => return Ok(()),
        Stored::Unreadable => {}
        Stored::Record(quota) => Counter { view: system, id: &quota.counter }.delete(tx),
    }
    QUOTAS.delete_in(tx, system, name);
    recount_later(tx, system)
}

/// The number of leases that a quota has counted.
///
/// # Errors
/// When storage fails.
pub(crate) async fn counted(tx: &mut ReadTx, system: &View, quota: &LeaseQuota) -> Result<i64> {
    Ok(Counter { view: system, id: &quota.counter }.total(tx).await?.unwrap_or_default())
}

/// Whether leases are still to be counted.
///
/// # Errors
/// When storage fails.
pub(crate) async fn is_recounting(tx: &mut ReadTx, system: &View) -> Result<bool> {
    let read = unreadable::read((&RECOUNT, "recount of leases"), tx, system, "").await?;
    Ok(!matches!(read, Stored::Absent))
}

fn recount_later(tx: &mut Tx, system: &View) -> Result<()> {
    let generation = random::base62(ID);
    RULES.put_in(tx, system, "", &generation)?;
    RECOUNT.put_in(tx, system, "", &generation)
}

fn exceeded(path: &str) -> Error {
    Error::new(Status::TOO_MANY_REQUESTS, format!("request path {path:?}: lease count quota exceeded"))
}

/// The generation of the quotas. Without a readable one requests under a quota are refused until a quota is written.
async fn generation(tx: &mut ReadTx, system: &View) -> Result<Generation> {
    let read = unreadable::read((&RULES, "generation of lease count quotas"), tx, system, "").await?;
    Ok(read.readable().unwrap_or_default())
}

impl Rules {
    /// The stored quotas. One that cannot be read does not apply until it is written again.
    async fn load(tx: &mut ReadTx, system: &View) -> Result<Self> {
        let mut rules = Rules {
            generation: generation(tx, system).await?,
            is_recounting: is_recounting(tx, system).await?,
            ..Rules::default()
        };
        for name in QUOTAS.list_in(tx, system, "", &Page::all()).await? {
            if let Some(quota) = unreadable::read((&QUOTAS, "lease count quota"), tx, system, &name).await?.readable() {
                rules.put(quota);
            }
        }
        Ok(rules)
    }

    fn put(&mut self, quota: LeaseQuota) {
        if quota.namespace.is_root() {
            self.quotas.put(quota.name.clone(), quota.target.clone(), Arc::new(quota));
        } else {
            self.quotas.remove(&quota.name);
        }
    }
}

/// Follows the quotas and their generation. The records of one commit are followed in the order of their keys, so the
/// generation comes last.
impl CacheOwner for LeaseQuotas {
    fn applied(&self, change: &CommittedChange<'_>) {
        if !change.key.starts_with("lease-") || change.key.starts_with("lease-counter/") {
            return;
        }
        let mut rules = self.rules.follow();
        match change.key {
            "lease-rules" => {
                rules.generation = change.record("generation of lease count quotas").readable().unwrap_or_default();
            }
            "lease-recount" => rules.is_recounting = change.exists(),
            key => {
                let Some(name) = key.strip_prefix("lease-count/") else { return };
                match change.record::<LeaseQuota>("lease count quota").readable() {
                    Some(quota) => rules.put(quota),
                    None => rules.quotas.remove(name),
                }
            }
        }
        self.current.store(Arc::new(rules.clone()));
        self.changed.notify_one();
    }
}
