//! Caches of stored records follow the commits of every node.
//!
//! One [`Watch`] passes each committed key to its owners, before the commit is acknowledged. An owner applies a small
//! record at once, or marks its cache entries as stale. So the next request sees the change, on the committing node and
//! on every other, and no handler updates a cache.
//!
//! | key | owner | does |
//! |---|---|---|
//! | `barrier/keyring` | the barrier itself | uses the new keyring; under another root key it closes, and the node seals |
//! | `sys/mount/` | `Mounts`; the expiry queue | rebuilds the router; drops the queue entries of a removed mount |
//! | `logical/`, `auth/` | the open engine of the mount | `Engine::invalidate` |
//! | `sys/config/`, `sys/quotas/` | `StoredRules` | applies the rules of admission |
//! | `sys/quotas/` | `LeaseQuotas` | counts new leases by the changed quotas |
//! | `sys/policy/` | `Policies` | invalidates compiled policies |
//! | `identity/` | `Changes` | invalidates the effective identity of an entity; at a change of a group, of all entities in groups |
//! | `identity/oidc/` | `OidcState` | drops the key sets and the time of the next rotation of a key |
//! | `identity/mfa/enforcement/` | `MfaRules` | drops the knowledge that there is no login enforcement |
//! | `token/id/`, `token/` | `Tokens`, `Leases` | drops the token; updates the expiry queue, counts and quarantine |
//! | `sys/lockout/`, `sys/lockout-unknown/` | `Lockout` | locks and unlocks |
//! | `sys/external-key/config/` | `ExternalKeys` | closes the connection of the config |
//! | `ns/rec/`, `ns/dir/` | `Directory` | reads the namespaces again |
//! | `ns/<id>/` | the owners of that namespace, if it is open | the same as for root |
//! | `audit/device/` | `StoredDevices` | opens or removes the device before the next entry |
//!
//! An owner is registered before it reads the stored records, and reads again if a record changed in the meantime.

use std::collections::HashMap;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use keepfast_framework::Result;
use keepfast_storage::{Barrier, Index, ReadTx, StorageError, Watch, Write};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard, RwLock};
use serde::de::DeserializeOwned;

use crate::layout::NAMESPACES;
use crate::namespace::NamespaceId;
use crate::unreadable::Stored;

/// The owner of caches of the records below a prefix.
pub(crate) trait CacheOwner: Send + Sync {
    /// Applies a commit that wrote or deleted a record. Called in the order of the commits by the thread that applies
    /// them, so it must be fast and must not wait for the backend.
    fn applied(&self, change: &CommittedChange<'_>);

    /// Drops the caches, because [`applied`](Self::applied) has panicked, so that they are read again at the next use.
    /// Returns false if that is impossible: then the node seals.
    fn drop_stale(&self, _change: &CommittedChange<'_>) -> bool {
        false
    }
}

/// A committed change of one record.
pub(crate) struct CommittedChange<'a> {
    /// The key below the prefix of the owner.
    pub(crate) key: &'a str,
    write: &'a Write,
    barrier: &'a Barrier,
}

impl CommittedChange<'_> {
    /// Whether the record exists now.
    pub(crate) fn exists(&self) -> bool {
        matches!(self.write, Write::Put { .. })
    }

    /// The current record. An unreadable one is logged as `what`.
    pub(crate) fn record<T: DeserializeOwned>(&self, what: &'static str) -> Stored<T> {
        let Write::Put { key, value } = self.write else { return Stored::Absent };
        let read =
            |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| StorageError::corrupt(error.to_string()));
        match self.barrier.open_applied(key, value).and_then(|bytes| read(&bytes)) {
            Ok(record) => Stored::Record(record),
            Err(error) => {
                tracing::error!(record = what, name = self.key, %error, "a committed record cannot be read");
                Stored::Unreadable
            }
        }
    }
}

/// State in memory that is read from storage and then follows the commits.
#[derive(Default)]
pub(crate) struct Followed<T>(Mutex<Counted<T>>);

#[derive(Default)]
struct Counted<T> {
    state: T,
    /// The number of applied commits.
    applied: u64,
}

impl<T> Followed<T> {
    /// The state before it is read.
    pub(crate) fn new(state: T) -> Self {
        Followed(Mutex::new(Counted { state, applied: 0 }))
    }

    /// The state.
    pub(crate) fn lock(&self) -> MappedMutexGuard<'_, T> {
        MutexGuard::map(self.0.lock(), |counted| &mut counted.state)
    }

    /// The state, to apply a commit to it.
    pub(crate) fn follow(&self) -> MappedMutexGuard<'_, T> {
        let mut counted = self.0.lock();
        counted.applied += 1;
        MutexGuard::map(counted, |counted| &mut counted.state)
    }

    /// Replaces the state by that which `read` reads for `owner`, again if a commit was applied meanwhile. Returns the
    /// locked state.
    pub(crate) async fn load<O: Sync>(
        &self,
        owner: &O,
        tx: &mut ReadTx,
        read: for<'a> fn(&'a O, &'a mut ReadTx) -> BoxFuture<'a, Result<T>>,
    ) -> Result<MappedMutexGuard<'_, T>> {
        loop {
            let before = self.0.lock().applied;
            let state = read(owner, tx).await?;
            let mut counted = self.0.lock();
            if counted.applied == before {
                counted.state = state;
                return Ok(MutexGuard::map(counted, |counted| &mut counted.state));
            }
        }
    }
}

/// Passes committed keys to their owners.
pub(crate) struct Invalidator {
    barrier: Arc<Barrier>,
    /// The owners of records of the root namespace.
    owners: Owners,
    /// Those of the open namespaces besides root, by the id.
    namespaces: RwLock<HashMap<String, Arc<Owners>>>,
}

/// The owners of cached records of one namespace.
#[derive(Default)]
pub(crate) struct Owners(RwLock<Vec<Entry>>);

impl Owners {
    /// Registers the owner of the records below `prefix` in a storage, before it reads them.
    pub(crate) fn add(&self, storage: &'static str, prefix: &'static str, owner: Arc<dyn CacheOwner>) {
        self.0.write().push(Entry { storage, prefix, owner });
    }
}

/// An owner, and the storage and the prefix in it of its records.
struct Entry {
    storage: &'static str,
    prefix: &'static str,
    owner: Arc<dyn CacheOwner>,
}

impl Invalidator {
    /// Gets the commits that the backend of this barrier applies, until it is dropped or the barrier is closed.
    pub(crate) fn new(barrier: Arc<Barrier>) -> Arc<Self> {
        let invalidator = Arc::new(Invalidator { barrier, owners: Owners::default(), namespaces: RwLock::default() });
        let watcher: Arc<dyn Watch> = invalidator.clone();
        invalidator.barrier.watch(Arc::downgrade(&watcher));
        invalidator
    }

    /// The owners of records of the root namespace.
    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Registers a namespace whose services are being opened, without owners yet.
    pub(crate) fn add_namespace(&self, id: &NamespaceId) -> Arc<Owners> {
        let owners = Arc::<Owners>::default();
        self.namespaces.write().insert(id.as_str().to_owned(), owners.clone());
        owners
    }

    /// Forgets the owners of a namespace whose services are dropped.
    pub(crate) fn remove_namespace(&self, id: &NamespaceId) {
        self.namespaces.write().remove(id.as_str());
    }

    /// Passes a write to the owners of its key, which is `path` in their namespace.
    fn pass_write(&self, owners: &Owners, path: &str, write: &Write) {
        for entry in owners.0.read().iter() {
            let within = path.strip_prefix(entry.storage).and_then(|name| name.strip_prefix(entry.prefix));
            if let Some(key) = within {
                self.pass(entry, &CommittedChange { key, write, barrier: &self.barrier });
            }
        }
    }

    /// Passes a change to an owner. A panic in the owner must not end the storage thread, on which all commits depend:
    /// the owner drops its caches, or the barrier fails closed.
    fn pass(&self, Entry { storage, prefix, owner }: &Entry, change: &CommittedChange<'_>) {
        if catch_unwind(AssertUnwindSafe(|| owner.applied(change))).is_ok() {
            return;
        }
        let is_dropped = catch_unwind(AssertUnwindSafe(|| owner.drop_stale(change))).unwrap_or(false);
        if is_dropped {
            tracing::error!(
                storage,
                prefix,
                key = change.key,
                "a panic during the invalidation of a cache: the engine is reopened"
            );
        } else {
            tracing::error!(
                storage,
                prefix,
                key = change.key,
                "a panic during the invalidation of a cache: this node seals"
            );
            self.barrier.fail_closed();
        }
    }
}

/// The barrier of an unsealed server. While this is held, caches follow the commits.
pub(crate) struct WatchedBarrier {
    barrier: Arc<Barrier>,
    invalidator: Arc<Invalidator>,
}

impl WatchedBarrier {
    /// The barrier that `invalidator` follows.
    pub(crate) fn new(invalidator: Arc<Invalidator>) -> Self {
        WatchedBarrier { barrier: invalidator.barrier.clone(), invalidator }
    }

    /// The same barrier, for another namespace.
    pub(crate) fn share(&self) -> Self {
        Self::new(self.invalidator.clone())
    }

    /// Passes commits to the owners of caches.
    pub(crate) fn invalidator(&self) -> &Arc<Invalidator> {
        &self.invalidator
    }
}

impl Deref for WatchedBarrier {
    type Target = Arc<Barrier>;

    fn deref(&self) -> &Arc<Barrier> {
        &self.barrier
    }
}

impl Watch for Invalidator {
    fn applied(&self, _: Index, writes: &[Write]) {
        for write in writes {
            if self.barrier.is_closed() {
                return;
            }
            let path = write.key().as_str();
            self.pass_write(&self.owners, path, write);
            if let Some((id, within)) = path.strip_prefix(NAMESPACES).and_then(|rest| rest.split_once('/')) {
                let owners = self.namespaces.read().get(id).cloned();
                owners.iter().for_each(|owners| self.pass_write(owners, within, write));
            }
        }
    }

    /// The barrier has closed, and no owner is used any more: [`Lifecycle`](crate::lifecycle::Lifecycle) opens all
    /// services again.
    fn replaced(&self, _: Index) {}
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use keepfast_crypto::random;
    use keepfast_storage::MemoryBackend;

    use super::*;

    /// An owner that panics. Its caches can be dropped or not.
    struct Panicking {
        can_drop: bool,
    }

    impl CacheOwner for Panicking {
        fn applied(&self, _: &CommittedChange<'_>) {
            panic!("during the invalidation");
        }

        fn drop_stale(&self, _: &CommittedChange<'_>) -> bool {
            self.can_drop
        }
    }

    #[tokio::test]
    async fn a_commit_during_a_read_is_read_again() {
        let (backend, root) = (Arc::new(MemoryBackend::new()), random::key());
        Barrier::create(backend.clone(), &root, "seal".into(), 0).await.unwrap();
        let tx = &mut Barrier::open(backend, &root).await.unwrap().begin_read();
        let followed = Followed::new(0);
        let read = |followed: &'_ Followed<u32>, _: &mut ReadTx| {
            let read = *followed.lock();
            if read < 2 {
                // A commit after the read.
                *followed.follow() += 1;
            }
            async move { Ok(10 + read) }.boxed()
        };
        assert_eq!(*followed.load(&followed, tx, read).await.unwrap(), 12);
        let failing = |_: &'_ (), _: &mut ReadTx| async { Err(keepfast_framework::Error::sealed()) }.boxed();
        assert!(followed.load(&(), tx, failing).await.is_err());
        assert_eq!(*followed.lock(), 12, "after an error it stays");
    }

    #[tokio::test]
    async fn a_panic_of_an_owner_fails_no_commit_and_leaves_nothing_stale() {
        for can_drop in [true, false] {
            let (backend, root) = (Arc::new(MemoryBackend::new()), random::key());
            Barrier::create(backend.clone(), &root, "seal".into(), 0).await.unwrap();
            let barrier = Barrier::open(backend, &root).await.unwrap();
            let invalidator = Invalidator::new(barrier.clone());
            invalidator.owners().add("t/", "k/", Arc::new(Panicking { can_drop }));
            let mut tx = barrier.begin();
            tx.put(&barrier.view("t/"), "k/1", "v".into());
            tx.commit().await.unwrap();
            assert_eq!(barrier.is_closed(), !can_drop);
            assert_eq!(barrier.has_failed_closed(), !can_drop);
        }
    }
}
