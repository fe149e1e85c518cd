//! Reads the records of namespaces, and keeps them until a commit changes one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keepfast_framework::{Error, Page, Result, Status};
use keepfast_storage::{Barrier, ReadTx, Tx, View};
use parking_lot::Mutex;

use super::NamespaceId;
use super::record::{DIRECTORY, DUE, NamespaceRecord, RECORDS, directory_key};
use crate::invalidation::{CacheOwner, CommittedChange};
use crate::layout::NAMESPACES;

/// The most records and names that are kept.
const MOST_KEPT: usize = 4096;

/// The records of namespaces.
pub(crate) struct Directory {
    barrier: Arc<Barrier>,
    pub(super) view: View,
    kept: Mutex<Kept>,
    /// Whether there is a namespace besides root, as far as this node knows.
    has_any: AtomicBool,
    /// Namespaces whose records were deleted, and whose services are to be closed.
    deleted: Mutex<Vec<NamespaceId>>,
}

/// What was read since the last change of a record.
#[derive(Default)]
struct Kept {
    /// The number of changes.
    changes: u64,
    records: HashMap<NamespaceId, Arc<NamespaceRecord>>,
    names: HashMap<(NamespaceId, String), NamespaceId>,
}

impl Directory {
    /// The records behind this barrier. Reads nothing.
    pub(crate) fn new(barrier: &Arc<Barrier>) -> Self {
        let view = barrier.view(NAMESPACES);
        Directory {
            barrier: barrier.clone(),
            view,
            kept: Mutex::default(),
            has_any: AtomicBool::new(false),
            deleted: Mutex::default(),
        }
    }

    /// Reads whether there are namespaces besides root.
    pub(crate) async fn load(&self, tx: &mut ReadTx) -> Result<()> {
        if !RECORDS.list_in(tx, &self.view, "", &Page::first(1)).await?.is_empty() {
            self.has_any.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The namespaces that were deleted since the last call.
    pub(super) fn take_deleted(&self) -> Vec<NamespaceId> {
        std::mem::take(&mut *self.deleted.lock())
    }

    /// Whether there may be a namespace besides root.
    pub(crate) fn has_any(&self) -> bool {
        self.has_any.load(Ordering::Acquire)
    }

    /// The record of a namespace.
    pub(crate) async fn record(&self, id: &NamespaceId) -> Result<Option<Arc<NamespaceRecord>>> {
        let changes = {
            let kept = self.kept.lock();
            if let Some(record) = kept.records.get(id) {
                return Ok(Some(record.clone()));
            }
            kept.changes
        };
        let mut tx = self.barrier.begin_read();
        let Some(record) = RECORDS.get_in(&mut tx, &self.view, id.as_str()).await? else { return Ok(None) };
        let record = Arc::new(record);
        let mut kept = self.kept.lock();
        if kept.changes == changes && kept.records.len() < MOST_KEPT {
            kept.records.insert(id.clone(), record.clone());
        }
        Ok(Some(record))
    }

    /// The ids of all namespaces besides root, a page of them.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn ids(&self, page: &Page) -> Result<Vec<NamespaceId>> {
        let names = RECORDS.list_in(&mut self.barrier.begin_read(), &self.view, "", page).await?;
        Ok(names.iter().filter_map(|name| NamespaceId::parse(name)).collect())
    }

    /// The namespace of this name below `parent`.
    pub(crate) async fn child(&self, parent: &NamespaceId, name: &str) -> Result<Option<Arc<NamespaceRecord>>> {
        let key = (parent.clone(), name.to_owned());
        let (found, changes) = {
            let kept = self.kept.lock();
            (kept.names.get(&key).cloned(), kept.changes)
        };
        if let Some(id) = found {
            return self.record(&id).await;
        }
        let mut tx = self.barrier.begin_read();
        let Some(id) = DIRECTORY.get_in(&mut tx, &self.view, &directory_key(parent, name)).await? else {
            return Ok(None);
        };
        {
            let mut kept = self.kept.lock();
            if kept.changes == changes && kept.names.len() < MOST_KEPT {
                kept.names.insert(key, id.clone());
            }
        }
        self.record(&id).await
    }

    /// The path that conflicts with a new mount whose first segment is the name of a namespace below `parent`: as in
    /// OpenBao the namespace, or its mount of tokens if the path is the whole name. The caller holds the lock of the
    /// changes of mounts, as each creation of a namespace does.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn namespace_at(&self, parent: &NamespaceId, path: &str) -> Result<Option<String>> {
        if !self.has_any() {
            return Ok(None);
        }
        let name = path.split('/').next().unwrap_or_default();
        let is_whole = path.trim_end_matches('/') == name;
        let shown = |name: &str| if is_whole { format!("{name}/auth/token/") } else { format!("{name}/") };
        Ok(self.child(parent, name).await?.map(|found| shown(&found.name)))
    }

    /// Makes a transaction conflict with the deletion of a namespace: nothing is written into one that is being deleted.
    ///
    /// # Errors
    /// 404 when the namespace is being deleted or does not exist; when storage fails.
    pub(crate) async fn fence(&self, tx: &mut Tx, id: &NamespaceId) -> Result<()> {
        if id.is_root() {
            return Ok(());
        }
        match RECORDS.get_in(tx, &self.view, id.as_str()).await? {
            Some(record) if !record.deleting => Ok(()),
            _ => Err(not_found()),
        }
    }

    /// Notes that the leader opens a namespace for background work.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn note_due(&self, tx: &mut Tx, id: &NamespaceId) -> Result<()> {
        if !id.is_root() && DUE.get_in(tx, &self.view, id.as_str()).await?.is_none() {
            DUE.put_in(tx, &self.view, id.as_str(), &())?;
        }
        Ok(())
    }
}

/// The names of the namespaces directly below this one, a page of them.
pub(crate) async fn children(
    directory: &Directory,
    tx: &mut ReadTx,
    parent: &NamespaceId,
    page: &Page,
) -> Result<Vec<String>> {
    DIRECTORY.list_in(tx, &directory.view, &directory_key(parent, ""), page).await
}

/// The error of a request in a namespace that does not exist or is being deleted.
pub(super) fn not_found() -> Error {
    Error::new(Status::NOT_FOUND, "namespace not found")
}

/// Follows the records: everything that was read is read again after a change.
impl CacheOwner for Directory {
    fn applied(&self, change: &CommittedChange<'_>) {
        if !change.key.starts_with("rec/") && !change.key.starts_with("dir/") {
            return;
        }
        if change.exists() {
            self.has_any.store(true, Ordering::Release);
        } else if let Some(id) = change.key.strip_prefix("rec/").and_then(NamespaceId::parse) {
            self.deleted.lock().push(id);
        }
        let mut kept = self.kept.lock();
        *kept = Kept { changes: kept.changes + 1, ..Kept::default() };
    }

    fn drop_stale(&self, change: &CommittedChange<'_>) -> bool {
        self.applied(change);
        true
    }
}
