//! Mounting, unmounting, moving, tuning.

use keepfast_framework::{Error, Kind, Result};
use keepfast_storage::{Page, StorageError, View};

use super::entry::MountEntry;
use crate::lease::revoke::How;
use crate::unsealed::Unsealed;

/// Records that one transaction of an unmount deletes.
const BATCH: usize = 200;

impl Unsealed {
    /// Mounts an engine and opens it, so that a mount that cannot work is refused.
    ///
    /// # Errors
    /// 400 when the path collides with another mount; what opening fails with.
    pub async fn mount(&self, entry: MountEntry) -> Result<()> {
        let _changing = self.mounts.changing.lock().await;
        if let Some(other) = self.mounts.router().collides(&entry.path) {
            return Err(Error::invalid(format!("path is already in use at {}", other.entry.path)));
        }
        let mut tx = self.barrier.begin();
        self.mounts.save(&mut tx, &entry)?;
        tx.commit().await?;
        self.mounts.reload().await?;
        let mounted = self.mounts.router().at(&entry.path).cloned();
        if let Some(mounted) = mounted
            && let Err(error) = mounted.engine(self).await
        {
            let mut tx = self.barrier.begin();
            self.mounts.delete(&mut tx, &entry);
            tx.commit().await?;
            self.mounts.reload().await?;
            return Err(error);
        }
        Ok(())
    }

    /// Writes a changed entry and follows it.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn change_mount(&self, entry: &MountEntry) -> Result<()> {
        let _changing = self.mounts.changing.lock().await;
        let mut tx = self.barrier.begin();
        self.mounts.save(&mut tx, entry)?;
        tx.commit().await?;
        self.mounts.reload().await
    }

    /// Takes a mount away: it answers no more at once, then its tokens and its data are deleted, page by page. A crash
    /// in between is taken up again at the next unseal.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn unmount(&self, entry: &MountEntry) -> Result<()> {
        {
            let _changing = self.mounts.changing.lock().await;
            let mut leaving = entry.clone();
            leaving.leaving = true;
            let mut tx = self.barrier.begin();
            self.mounts.save(&mut tx, &leaving)?;
            tx.commit().await?;
            self.mounts.reload().await?;
        }
        match self.end_issued(entry).await {
            Ok(()) => self.clear(entry).await,
            Err(error) => {
                // What it has leased is still out: the mount stays, so that it can be taken back.
                self.change_mount(entry).await?;
                Err(error)
            }
        }
    }

    /// Ends what a mount has issued: its leases, then the tokens of its logins.
    async fn end_issued(&self, entry: &MountEntry) -> Result<()> {
        if let Some(mounted) = self.mount_of(&entry.uuid).await? {
            self.end_leases_of(&mounted).await?;
        }
        self.revoke_prefix(&entry.path, How::Now).await
    }

    /// Takes up unmounts that an earlier process left half done.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn resume_unmounts(&self) -> Result<()> {
        let mut outcome = Ok(());
        for entry in self.mounts.leaving().await? {
            let one = match self.end_issued(&entry).await {
                Ok(()) => self.clear(&entry).await,
                Err(error) => Err(error),
            };
            outcome = outcome.and(one);
        }
        outcome
    }

    async fn clear(&self, entry: &MountEntry) -> Result<()> {
        let view = self.barrier.view(entry.storage_prefix());
        while self.clear_page(&view).await? {}
        let mut tx = self.barrier.begin();
        self.mounts.delete(&mut tx, entry);
        tx.commit().await?;
        Ok(())
    }

    /// Deletes one page of a view; whether there may be more.
    async fn clear_page(&self, view: &View) -> Result<bool> {
        let mut tx = self.barrier.begin();
        let mut folders = vec![String::new()];
        let mut deleted = 0;
        while let Some(folder) = folders.pop() {
            for name in tx.list(view, &folder, &Page { after: None, limit: Some(BATCH) }).await? {
                let path = format!("{folder}{name}");
                if name.ends_with('/') {
                    folders.push(path);
                } else {
                    tx.delete(view, &path);
                    deleted += 1;
                }
                if deleted >= BATCH {
                    folders.clear();
                    break;
                }
            }
        }
        match tx.commit().await {
            Ok(_) => Ok(deleted > 0),
            Err(StorageError::Conflict) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The full path of a mount from what a caller names, with its final slash.
    pub fn mount_path(kind: Kind, given: &str) -> String {
        let bare = given.trim_matches('/');
        match kind {
            Kind::Auth => format!("auth/{bare}/"),
            Kind::Secrets => format!("{bare}/"),
        }
    }
}
