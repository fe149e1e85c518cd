//! Ending tokens: at once and with all their descendants.
//!
//! A token lives only while its ancestors do ([`Tokens::find`]), so deleting one record ends the whole tree below it. The
//! records of the descendants are then collected: at once if they are few, and the note that there is something to
//! collect survives restarts.

use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Page, StorageError, Tx};

use super::create::child_key;
use super::id::TokenKey;
use super::record::{Life, TokenRecord};
use super::store::Tokens;
use crate::lease::index;

/// Notes of trees whose descendants are still to be collected.
const PENDING: &str = "pending/";
/// How many records one transaction touches.
const BATCH: usize = 100;

impl Tokens {
    /// Ends a token and all that descend from it. Returns whether there was one.
    ///
    /// When this returns, none of them is accepted any more; records of descendants may still be under collection.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn revoke(&self, key: &TokenKey) -> Result<bool> {
        loop {
            let mut tx = self.barrier.begin();
            let Some(record) = self.record(&mut tx, key).await? else { return Ok(false) };
            self.delete(&mut tx, key, &record).await?;
            if self.leaves_something(&mut tx, key).await? {
                tx.put(&self.view, &format!("{PENDING}{}", key.as_str()), bytes::Bytes::new());
            }
            match tx.commit().await {
                Ok(_) => break,
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.collect(key).await?;
        Ok(true)
    }

    /// Ends a token and leaves its children alive as orphans. Returns whether there was one.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn revoke_orphan(&self, key: &TokenKey) -> Result<bool> {
        loop {
            let mut tx = self.barrier.begin();
            let Some(record) = self.record(&mut tx, key).await? else { return Ok(false) };
            let children = self.children(&mut tx, key, &Page::all()).await?;
            for child in &children {
                if let Some(mut orphan) = self.record(&mut tx, child).await? {
                    orphan.parent = None;
                    self.save(&mut tx, child, &orphan)?;
                }
                tx.delete(&self.view, &child_key(key, child));
            }
            self.delete(&mut tx, key, &record).await?;
            if !self.leases.held(&mut tx, key, 1).await?.is_empty() {
                tx.put(&self.view, &format!("{PENDING}{}", key.as_str()), bytes::Bytes::new());
            }
            match tx.commit().await {
                Ok(_) => break,
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.collect(key).await?;
        Ok(true)
    }

    /// Takes a token whose record cannot be read out of the index of ends, of which `names` is the beginning, so that it
    /// holds up no other. Nobody can act as it: what cannot be read is not found alive.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn set_aside(&self, key: &TokenKey, names: &[String]) -> Result<()> {
        tracing::error!(token = key.as_str(), "the record of a token cannot be read; it is left behind");
        let mut tx = self.barrier.begin();
        for name in names.iter().filter(|n| n.ends_with(key.as_str())) {
            tx.delete(&self.view, &format!("{}{name}", index::EXPIRY));
        }
        tx.commit().await?;
        Ok(())
    }

    /// Ends what an earlier process left half collected.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn resume_collection(&self) -> Result<()> {
        let pending = self.barrier.begin_read().list(&self.view, PENDING, &Page::all()).await?;
        for key in pending.iter().filter_map(|name| TokenKey::parse(name)) {
            self.collect(&key).await?;
        }
        Ok(())
    }

    /// Deletes the records of everything below `root`, whose own record is gone, and marks their leases as due.
    async fn collect(&self, root: &TokenKey) -> Result<()> {
        let mut below = vec![root.clone()];
        while let Some(parent) = below.last().cloned() {
            let mut tx = self.barrier.begin();
            let page = Page { after: None, limit: Some(BATCH) };
            let more_leases = self.leases.end_held(&mut tx, &parent, BATCH).await?;
            let children = self.children(&mut tx, &parent, &page).await?;
            let more = more_leases || children.len() == BATCH;
            let mut grandparents = Vec::new();
            for child in &children {
                if self.leaves_something(&mut tx, child).await? {
                    tx.put(&self.view, &format!("{PENDING}{}", child.as_str()), bytes::Bytes::new());
                    grandparents.push(child.clone());
                }
                if let Some(record) = self.record(&mut tx, child).await? {
                    self.delete(&mut tx, child, &record).await?;
                }
                tx.delete(&self.view, &child_key(&parent, child));
            }
            if !more {
                tx.delete(&self.view, &format!("{PENDING}{}", parent.as_str()));
            }
            match tx.commit().await {
                Ok(_) => {}
                Err(StorageError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            }
            self.leases.wake.notify_one();
            if !more {
                below.retain(|k| *k != parent);
            }
            below.extend(grandparents);
        }
        Ok(())
    }

    /// Takes everything that is stored of one token out.
    async fn delete(&self, tx: &mut Tx, key: &TokenKey, record: &TokenRecord) -> Result<()> {
        tx.delete(&self.view, &format!("id/{}", key.as_str()));
        if let Some(parent) = &record.parent {
            tx.delete(&self.view, &child_key(parent, key));
        }
        if let Life::Until(end) = record.life {
            index::remove_token(tx, &self.view, &record.path, key, end);
        }
        let store = self.ids.store_of(&record.hash);
        crate::mount::delete_tree(tx, &self.cubbyhole, &format!("{store}/")).await
    }

    /// Whether a token has children or leases, which outlive its record for a moment.
    async fn leaves_something(&self, tx: &mut Tx, key: &TokenKey) -> Result<bool> {
        let page = Page { after: None, limit: Some(1) };
        Ok(!self.children(tx, key, &page).await?.is_empty() || !self.leases.held(tx, key, 1).await?.is_empty())
    }

    async fn children(&self, tx: &mut Tx, key: &TokenKey, page: &Page) -> Result<Vec<TokenKey>> {
        let names = tx.list(&self.view, &format!("child/{}/", key.as_str()), page).await?;
        Ok(names.iter().filter_map(|name| TokenKey::parse(name)).collect())
    }

    /// Moves a token's end: renewal.
    ///
    /// The index of ends is moved with it, in the same transaction.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn extend(&self, tx: &mut Tx, key: &TokenKey, record: &mut TokenRecord, end: Timestamp) -> Result<()> {
        if let Life::Until(old) = record.life {
            index::move_token(tx, &self.view, &record.path, key, old, end);
            record.life = Life::Until(end);
        }
        self.save(tx, key, record)
    }
}
