//! Mounts, unmounts, moves and tunes engines.

use std::sync::Arc;

use keepfast_framework::{Error, Kind, Result};
use keepfast_storage::{Tx, View};

use super::delete_some;
use super::entry::MountEntry;
use super::host::EngineHost;
use super::table::Mounts;
use crate::layout::SYSTEM_STORAGE;
use crate::lease::PathRevoker;
use crate::lease::revoke::RevokeMode;
use crate::namespace::directory::Directory;
use crate::quota::follow;

/// The number of records that one transaction of an unmount deletes.
const BATCH: usize = 200;

/// Mounts, unmounts, moves and tunes engines.
pub(crate) struct MountChanges {
    /// The host of the engines.
    pub(crate) host: Arc<EngineHost>,
    /// The mounts and the router.
    pub(crate) mounts: Arc<Mounts>,
    /// Revokes the leases and tokens that an unmounted engine has issued.
    pub(crate) revoker: Arc<PathRevoker>,
    /// The records of namespaces, for work that the leader resumes.
    pub(crate) directory: Arc<Directory>,
    /// Held during a pass of the deletion of the namespace.
    pub(crate) deleting: tokio::sync::Mutex<()>,
}

impl MountChanges {
    /// Mounts an engine and opens it, so that a mount whose engine does not open is refused.
    ///
    /// Fails with 400 when the path collides with another mount, and with the error of the opening.
    pub(crate) async fn mount(&self, entry: MountEntry) -> Result<()> {
        let _changing = self.mounts.changing.lock().await;
        if let Some(other) = self.mounts.router().collides(&entry.path) {
            // `sys/auth` shows paths without the prefix that all its mounts have.
            let path = if entry.auth { other.entry.shown_path() } else { &other.entry.path };
            return Err(Error::invalid(format!("path is already in use at {path}")));
        }
        self.refuse_namespace(&entry.path).await?;
        let mut tx = self.host.barrier.begin();
        self.directory.fence(&mut tx, &self.mounts.namespace).await?;
        self.mounts.save(&mut tx, &entry)?;
        tx.commit().await?;
        let mounted = self.mounts.router().at(&entry.path).cloned();
        if let Some(mounted) = mounted
            && let Err(error) = mounted.engine(&self.host).await
        {
            let mut tx = self.host.barrier.begin();
            self.mounts.delete(&mut tx, &entry);
            tx.commit().await?;
            return Err(error);
        }
        Ok(())
    }

    /// Refuses the path of a mount that a namespace has.
    async fn refuse_namespace(&self, path: &str) -> Result<()> {
        match self.directory.namespace_at(&self.mounts.namespace, path).await? {
            Some(taken) => Err(Error::invalid(format!("existing mount at {}{taken}", self.mounts.namespace_path()))),
            None => Ok(()),
        }
    }

    /// Changes the entry of the mount at `path`. Returns `None` without such a mount.
    ///
    /// Fails with the error of `change`, and when storage fails.
    pub(crate) async fn change_mount(
        &self,
        path: &str,
        change: impl FnOnce(&mut MountEntry) -> Result<()>,
    ) -> Result<Option<()>> {
        // The entry is read under the lock: an entry that was read before it could restore a mount that is being
        // unmounted.
        let _changing = self.mounts.changing.lock().await;
        let Some(mut entry) = self.mounts.router().at(path).map(|m| m.entry.clone()) else { return Ok(None) };
        let before = entry.path.clone();
        change(&mut entry)?;
        if entry.path != before {
            self.refuse_namespace(&entry.path).await?;
        }
        let mut tx = self.host.barrier.begin();
        self.directory.fence(&mut tx, &self.mounts.namespace).await?;
        self.directory.note_due(&mut tx, &self.mounts.namespace).await?;
        if entry.path != path {
            let paths = (path, entry.path.as_str());
            follow::moved(&mut tx, &self.root_system(), &self.mounts.namespace, paths).await?;
        }
        self.mounts.save(&mut tx, &entry)?;
        tx.commit().await?;
        // Opening may write, such as the start of an upgrade. It does so before another node reads the mount.
        let changed = self.mounts.router().at(&entry.path).cloned();
        if let Some(changed) = changed
            && let Err(error) = changed.engine(&self.host).await
        {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::error!(path = entry.path, %error, %cause, "the engine of a changed mount cannot be opened");
        }
        Ok(Some(()))
    }

    /// Unmounts an engine. Requests on its path fail from now on; then its leases, tokens and data are deleted, page by
    /// page. The next unseal resumes an unmount that a crash has interrupted.
    pub(crate) async fn unmount(&self, entry: &MountEntry) -> Result<()> {
        {
            let _changing = self.mounts.changing.lock().await;
            let current =
                self.mounts.router().at(&entry.path).filter(|m| m.entry.uuid == entry.uuid).map(|m| m.entry.clone());
            let Some(mut leaving) = current else { return Ok(()) };
            leaving.leaving = true;
            let mut tx = self.host.barrier.begin();
            self.directory.note_due(&mut tx, &self.mounts.namespace).await?;
            self.mounts.save(&mut tx, &leaving)?;
            tx.commit().await?;
        }
        match self.revoke_issued(entry).await {
            Ok(()) => self.clear(entry).await,
            Err(error) => {
                // Leases remain: the mount stays, so that they can be revoked.
                let _changing = self.mounts.changing.lock().await;
                let mut tx = self.host.barrier.begin();
                self.mounts.save(&mut tx, entry)?;
                tx.commit().await?;
                Err(error)
            }
        }
    }

    /// Revokes the leases of a mount, then the tokens of its logins.
    async fn revoke_issued(&self, entry: &MountEntry) -> Result<()> {
        if let Some(mounted) = self.mounts.with_leaving(&entry.uuid) {
            self.revoker.revoke_mount(&mounted).await?;
        }
        self.revoker.revoke_prefix(&entry.path, RevokeMode::Now).await
    }

    /// Finishes the unmounts that an earlier process began.
    pub(crate) async fn resume_unmounts(&self) -> Result<()> {
        let mut outcome = Ok(());
        for entry in self.mounts.leaving() {
            let one = match self.revoke_issued(&entry).await {
                Ok(()) => self.clear(&entry).await,
                Err(error) => Err(error),
            };
            outcome = outcome.and(one);
        }
        outcome
    }

    async fn clear(&self, entry: &MountEntry) -> Result<()> {
        let view = self.host.barrier.view(entry.own_storage());
        while self.clear_page(&view).await? {}
        let delete = |mut tx: Tx| async move {
            follow::unmounted(&mut tx, &self.root_system(), &self.mounts.namespace, &entry.path).await?;
            self.mounts.delete(&mut tx, entry);
            Ok((tx, ()))
        };
        self.host.barrier.transact(delete).await
    }

    /// The storage of the quotas, which are those of all namespaces.
    fn root_system(&self) -> View {
        self.host.barrier.view(SYSTEM_STORAGE)
    }

    /// Deletes one page of a view. Returns whether there may be more.
    async fn clear_page(&self, view: &View) -> Result<bool> {
        let mut tx = self.host.barrier.begin();
        let deleted = delete_some(&mut tx, view, "", BATCH).await?;
        match tx.commit().await {
            Ok(_) => Ok(deleted == BATCH),
            Err(error) if error.may_run_again() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// The full path of a mount, with its trailing slash, from the path in a request.
pub(crate) fn mount_path(kind: Kind, given: &str) -> String {
    let bare = given.trim_matches('/');
    format!("{}{bare}/", kind.prefix())
}
