//! Ending tokens: at once and with all their descendants.
//!
//! A token lives only while its ancestors do ([`Tokens::find`]), so deleting one record ends the whole tree below it. The
//! records of the descendants and what the tokens had stored are then collected, at once and page by page; the notes of
//! what there is to collect survive restarts.

use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::{Page, ReadTx, Tx};

use super::create::child_key;
use super::id::TokenKey;
use super::record::{Life, TokenRecord};
use super::store::Tokens;
use crate::damaged::unreadable;
use crate::lease::index;
use crate::mount::delete_some;

/// Notes of trees whose descendants are still to be collected.
const PENDING: &str = "pending/";
/// Notes of tokens' own storage that is still to be cleared.
const SPENT: &str = "spent/";
/// How many records one transaction touches.
const BATCH: usize = 100;

impl Tokens {
    /// Ends a token and all that descend from it. Returns whether there was one.
    ///
    /// When this returns, none of them is accepted any more, and their records and storage are gone.
    pub(crate) async fn revoke(&self, key: &TokenKey) -> Result<bool> {
        let begun = self.now();
        let outcome = self.revoke_if(key, |_| true).await;
        self.metrics().tokens.revoke_tree.record(self.now().since(begun));
        outcome
    }

    /// Ends a token whose time has come by `now`. `second` is the one under which the index of ends has it; an entry that
    /// no token stands behind is taken out, or it would come up for ever.
    pub(crate) async fn revoke_due(&self, key: &TokenKey, second: i64, now: Timestamp) -> Result<()> {
        let begun = self.now();
        match self.revoke_if(key, |record| !record.lives_at(now)).await {
            Ok(true) => {
                let took = self.now().since(begun);
                self.metrics().tokens.revoke_tree.record(took);
                self.metrics().leases.revoke.record(took);
                self.metrics().leases.expired.add();
                return Ok(());
            }
            Ok(false) => {}
            Err(error) if unreadable(&error) => return self.end_damaged(key, second).await,
            Err(error) => return Err(error),
        }
        let take_out = |mut tx: Tx| async move {
            match self.record(&mut tx, key).await? {
                Some(TokenRecord { life: Life::Until(end), .. }) if index::second_of(end) == second => {}
                _ => tx.delete(&self.view, &index::expiry_key(second, key)),
            }
            Ok((tx, ()))
        };
        self.barrier.transact(take_out).await
    }

    /// Ends a token whose record cannot be read, at the end that the index has of it, with everything below it.
    async fn end_damaged(&self, key: &TokenKey, second: i64) -> Result<()> {
        tracing::error!("the record of a token cannot be read; the token and what it created end");
        let mut tx = self.barrier.begin();
        tx.delete(&self.view, &format!("id/{}", key.as_str()));
        tx.delete(&self.view, &index::expiry_key(second, key));
        tx.put(&self.view, &pending(key), bytes::Bytes::new());
        tx.commit().await?;
        self.collect(key).await
    }

    async fn revoke_if(&self, key: &TokenKey, wanted: impl Fn(&TokenRecord) -> bool) -> Result<bool> {
        let wanted = &wanted;
        let end = |mut tx: Tx| async move {
            let Some(record) = self.record(&mut tx, key).await?.filter(|r| wanted(r)) else {
                return Ok::<_, Error>((tx, None));
            };
            let mut spent = Vec::new();
            self.delete(&mut tx, key, &record, &mut spent).await?;
            if self.leaves_something(&mut tx, key).await? {
                tx.put(&self.view, &pending(key), bytes::Bytes::new());
            }
            Ok((tx, Some(spent)))
        };
        let Some(spent) = self.barrier.transact(end).await? else { return Ok(false) };
        self.clear(spent).await?;
        self.collect(key).await?;
        Ok(true)
    }

    /// Ends a token that can have no children, in a transaction of the caller's.
    pub(crate) async fn end_childless(&self, tx: &mut Tx, key: &TokenKey, record: &TokenRecord) -> Result<()> {
        self.delete(tx, key, record, &mut Vec::new()).await
    }

    /// Ends a token and leaves its children alive as orphans. Returns whether there was one.
    ///
    /// Many children become orphans page by page, and the token ends with the last page: a failure in between leaves the
    /// token alive.
    pub(crate) async fn revoke_orphan(&self, key: &TokenKey) -> Result<bool> {
        let begun = self.now();
        let outcome = self.end_alone(key).await;
        self.metrics().tokens.revoke.record(self.now().since(begun));
        outcome
    }

    async fn end_alone(&self, key: &TokenKey) -> Result<bool> {
        loop {
            match self.barrier.transact(|tx| self.end_alone_in(tx, key)).await? {
                Orphaned::NoToken => return Ok(false),
                Orphaned::Some => {}
                Orphaned::All { spent } => {
                    self.clear(spent).await?;
                    self.collect(key).await?;
                    return Ok(true);
                }
            }
        }
    }

    /// Makes a page of children orphans; with the last page the token ends.
    async fn end_alone_in(&self, mut tx: Tx, key: &TokenKey) -> Result<(Tx, Orphaned)> {
        let Some(record) = self.record(&mut tx, key).await? else { return Ok((tx, Orphaned::NoToken)) };
        let children = self.children(&mut tx, key, &Page::first(BATCH)).await?;
        for child in &children {
            if let Some(mut orphan) = self.record(&mut tx, child).await? {
                orphan.parent = None;
                self.save(&mut tx, child, &orphan)?;
            }
            tx.delete(&self.view, &child_key(key, child));
        }
        if children.len() == BATCH {
            return Ok((tx, Orphaned::Some));
        }
        let mut spent = Vec::new();
        self.delete(&mut tx, key, &record, &mut spent).await?;
        if !self.leases.held(&mut tx, key, 1).await?.is_empty() {
            tx.put(&self.view, &pending(key), bytes::Bytes::new());
        }
        Ok((tx, Orphaned::All { spent }))
    }

    /// Ends what an earlier process left half collected.
    pub(crate) async fn resume_collection(&self) -> Result<()> {
        let mut page = Page::first(BATCH);
        while let Some(spent) = self.next_notes(SPENT, &mut page).await? {
            self.clear(spent).await?;
        }
        let mut page = Page::first(BATCH);
        while let Some(pending) = self.next_notes(PENDING, &mut page).await? {
            for key in pending.iter().filter_map(|name| TokenKey::parse(name)) {
                self.collect(&key).await?;
            }
        }
        Ok(())
    }

    /// The names of a page of notes; the page then stands behind them.
    async fn next_notes(&self, folder: &str, page: &mut Page) -> Result<Option<Vec<String>>> {
        let names = self.barrier.begin_read().list(&self.view, folder, page).await?;
        page.after = names.last().cloned();
        Ok(Some(names).filter(|names| !names.is_empty()))
    }

    /// Whether descendants of an earlier token of this place are still under collection.
    pub(super) async fn is_under_collection(&self, tx: &mut ReadTx, key: &TokenKey) -> Result<bool> {
        Ok(tx.get(&self.view, &pending(key)).await?.is_some())
    }

    /// Deletes the records of everything below `root`, whose own record is gone, and marks their leases as due.
    async fn collect(&self, root: &TokenKey) -> Result<()> {
        let mut below = vec![root.clone()];
        while let Some(parent) = below.last().cloned() {
            let Collected { more, grandparents, spent } =
                self.barrier.transact(|tx| self.collect_in(tx, &parent)).await?;
            self.clear(spent).await?;
            self.leases.wake.notify_one();
            if !more {
                below.retain(|k| *k != parent);
            }
            below.extend(grandparents);
        }
        Ok(())
    }

    /// Collects a page of the children and leases of a token that has ended.
    async fn collect_in(&self, mut tx: Tx, parent: &TokenKey) -> Result<(Tx, Collected)> {
        let begun = self.now();
        let more_leases = self.leases.end_held(&mut tx, parent, BATCH).await?;
        self.metrics().leases.revoke_by_token.record(self.now().since(begun));
        let children = self.children(&mut tx, parent, &Page::first(BATCH)).await?;
        let more = more_leases || children.len() == BATCH;
        let (mut grandparents, mut spent) = (Vec::new(), Vec::new());
        for child in &children {
            if self.leaves_something(&mut tx, child).await? {
                tx.put(&self.view, &pending(child), bytes::Bytes::new());
                grandparents.push(child.clone());
            }
            match self.record(&mut tx, child).await {
                Ok(Some(record)) => self.delete(&mut tx, child, &record, &mut spent).await?,
                // Nobody can use a token whose record cannot be read; its end does not wait for it.
                Err(error) if unreadable(&error) => tx.delete(&self.view, &format!("id/{}", child.as_str())),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            tx.delete(&self.view, &child_key(parent, child));
        }
        if !more {
            tx.delete(&self.view, &pending(parent));
        }
        Ok((tx, Collected { more, grandparents, spent }))
    }

    /// Takes everything that is stored of one token out, but for what it has stored itself: that can be more than one
    /// transaction takes, so its name is noted and goes to `spent`, for [`Tokens::clear`] after the commit.
    async fn delete(&self, tx: &mut Tx, key: &TokenKey, record: &TokenRecord, spent: &mut Vec<String>) -> Result<()> {
        tx.delete(&self.view, &format!("id/{}", key.as_str()));
        if let Some(parent) = &record.parent {
            tx.delete(&self.view, &child_key(parent, key));
        }
        if let Life::Until(end) = record.life {
            index::remove_token(tx, &self.view, &record.path, key, end);
        }
        let store = self.ids.store_of(&record.hash);
        if !tx.list_verified(&self.cubbyhole, &format!("{store}/"), &Page::first(1)).await?.is_empty() {
            tx.put(&self.view, &format!("{SPENT}{store}"), bytes::Bytes::new());
            spent.push(store);
        }
        Ok(())
    }

    /// Clears tokens' own storage, page by page.
    async fn clear(&self, stores: Vec<String>) -> Result<()> {
        for store in stores {
            while self.barrier.transact(|tx| self.clear_some(tx, &store)).await? == BATCH {}
        }
        Ok(())
    }

    /// Deletes some of what a token has stored, and with the last of it the note. Returns how many records.
    async fn clear_some(&self, mut tx: Tx, store: &str) -> Result<(Tx, usize)> {
        let deleted = delete_some(&mut tx, &self.cubbyhole, &format!("{store}/"), BATCH).await?;
        if deleted < BATCH {
            tx.delete(&self.view, &format!("{SPENT}{store}"));
        }
        Ok((tx, deleted))
    }

    /// Whether a token has children or leases, which outlive its record for a moment.
    async fn leaves_something(&self, tx: &mut ReadTx, key: &TokenKey) -> Result<bool> {
        Ok(!self.children(tx, key, &Page::first(1)).await?.is_empty()
            || !self.leases.held(tx, key, 1).await?.is_empty())
    }

    /// Children as they will still be at the commit: one that is made meanwhile is not overlooked.
    async fn children(&self, tx: &mut ReadTx, key: &TokenKey, page: &Page) -> Result<Vec<TokenKey>> {
        let names = tx.list_verified(&self.view, &format!("child/{}/", key.as_str()), page).await?;
        Ok(names.iter().filter_map(|name| TokenKey::parse(name)).collect())
    }

    /// Moves a token's end: renewal.
    ///
    /// The index of ends is moved with it, in the same transaction.
    pub(crate) fn extend(&self, tx: &mut Tx, key: &TokenKey, record: &mut TokenRecord, end: Timestamp) -> Result<()> {
        if let Life::Until(old) = record.life {
            index::move_token(tx, &self.view, key, old, end);
            record.life = Life::Until(end);
        }
        self.save(tx, key, record)
    }
}

/// What became of the children of a token that ends alone.
enum Orphaned {
    /// There is no such token.
    NoToken,
    /// A page of them are orphans; the token is still alive.
    Some,
    /// All are orphans and the token has ended. `spent`: what [`Tokens::clear`] has to clear.
    All { spent: Vec<String> },
}

/// A page of what was below a token that has ended.
struct Collected {
    more: bool,
    /// Children that have children or leases themselves.
    grandparents: Vec<TokenKey>,
    spent: Vec<String>,
}

fn pending(key: &TokenKey) -> String {
    format!("{PENDING}{}", key.as_str())
}
