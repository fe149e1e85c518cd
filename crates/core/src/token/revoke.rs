//! Revocation of tokens: immediate, with all descendants.
//!
//! A token is valid only while its ancestors are ([`Tokens::find`]), so deleting one record revokes the whole tree
//! below it. The records and the storage of the descendants are then deleted, at once and page by page. The notes of
//! data that is still to be deleted survive restarts.

use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::{Page, ReadTx, Tx};

use super::create::child_key;
use super::id::TokenKey;
use super::record::{TokenExpiry, TokenRecord};
use super::store::Tokens;
use crate::lease::index;
use crate::mount::delete_some;
use crate::namespace::{NamespaceId, split_suffix};
use crate::unreadable::unreadable;

/// Notes of trees whose descendants are still to be deleted.
const PENDING: &str = "pending/";
/// Notes of the storage of tokens that is still to be deleted.
const SPENT: &str = "spent/";
/// Notes of the namespaces besides its own in which a token has stored something.
const ELSEWHERE: &str = "elsewhere/";
/// The number of records that one transaction changes.
const BATCH: usize = 100;
/// The most namespaces besides its own in which a token can store something.
const ELSEWHERE_MOST: usize = 1000;

impl Tokens {
    /// Revokes a token and all its descendants. Returns whether the token existed.
    ///
    /// When this returns, none of them is accepted any more, and their records and storage are deleted.
    pub(crate) async fn revoke(&self, key: &TokenKey) -> Result<bool> {
        let started = self.now();
        let outcome = self.revoke_if(key, |_| true).await;
        self.metrics().tokens.revoke_tree.record(self.now().since(started));
        outcome
    }

    /// Revokes a token that has expired at `now`. `second` is that of its entry in the expiry index. An entry without a
    /// token is deleted, or it would stay expired forever.
    pub(crate) async fn revoke_expired(&self, key: &TokenKey, second: i64, now: Timestamp) -> Result<()> {
        let started = self.now();
        match self.revoke_if(key, |record| !record.is_valid_at(now)).await {
            Ok(true) => {
                let took = self.now().since(started);
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
                Some(TokenRecord { expiry: TokenExpiry::At(end), .. }) if index::second_of(end) == second => {}
                _ => tx.delete(&self.view, &index::expiry_key(second, key)),
            }
            Ok((tx, ()))
        };
        self.barrier.transact(take_out).await
    }

    /// Revokes a token with an unreadable record, and all its descendants, at the second of its entry in the expiry
    /// index.
    async fn end_damaged(&self, key: &TokenKey, second: i64) -> Result<()> {
        tracing::error!("the record of a token cannot be read; the token, its children and its leases are revoked");
        let delete = |mut tx: Tx| async move {
            self.delete_damaged(&mut tx, key).await?;
            tx.delete(&self.view, &index::expiry_key(second, key));
            tx.put(&self.view, &pending(key), bytes::Bytes::new());
            Ok::<_, Error>((tx, ()))
        };
        self.barrier.transact(delete).await?;
        self.collect(key).await
    }

    /// Deletes an unreadable record. The token is no longer counted.
    async fn delete_damaged(&self, tx: &mut Tx, key: &TokenKey) -> Result<()> {
        tx.delete(&self.view, &format!("id/{}", key.as_str()));
        let counter = tx.get(&self.view, &index::counted_key(key)).await?;
        if let Some(counter) = counter.as_deref().and_then(|counter| std::str::from_utf8(counter).ok()) {
            self.leases.quotas.release(tx, counter).await?;
            tx.delete(&self.view, &index::counted_key(key));
        }
        Ok(())
    }

    /// Counts a token by the current lease count quotas.
    pub(crate) async fn recount(&self, tx: &mut Tx, key: &TokenKey) -> Result<()> {
        let Some(mut record) = self.record(tx, key).await? else { return Ok(()) };
        let place = (&record.namespace, record.path.as_str());
        let before = record.counter.as_deref();
        let Some(counter) = self.leases.quotas.recount(tx, place, before).await? else { return Ok(()) };
        record.counter = counter;
        tx.delete(&self.view, &index::counted_key(key));
        index::note_counter(tx, &self.view, key, record.counter.as_deref());
        self.save(tx, key, &record)
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

    /// Revokes a token that can have no children, in the transaction of the caller.
    pub(crate) async fn end_childless(&self, tx: &mut Tx, key: &TokenKey, record: &TokenRecord) -> Result<()> {
        self.delete(tx, key, record, &mut Vec::new()).await
    }

    /// Revokes a token and leaves its children valid as orphans. Returns whether the token existed.
    ///
    /// Many children become orphans page by page, and the token is revoked with the last page: a failure before it
    /// leaves the token valid.
    pub(crate) async fn revoke_orphan(&self, key: &TokenKey) -> Result<bool> {
        let started = self.now();
        let outcome = self.end_alone(key).await;
        self.metrics().tokens.revoke.record(self.now().since(started));
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

    /// Makes a page of children orphans; revokes the token with the last page.
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

    /// Completes the deletions that an earlier process began.
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

    /// The names of a page of notes. Advances `page` past them.
    async fn next_notes(&self, folder: &str, page: &mut Page) -> Result<Option<Vec<String>>> {
        let names = self.barrier.begin_read().list(&self.view, folder, page).await?;
        page.after = names.last().cloned();
        Ok(Some(names).filter(|names| !names.is_empty()))
    }

    /// Whether descendants of an earlier token with this key are still being deleted.
    pub(super) async fn is_under_collection(&self, tx: &mut ReadTx, key: &TokenKey) -> Result<bool> {
        Ok(tx.get(&self.view, &pending(key)).await?.is_some())
    }

    /// Deletes the records of all descendants of `root`, whose own record is deleted, and marks their leases as
    /// expired.
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

    /// Deletes a page of the children of a revoked token and marks a page of its leases as expired.
    async fn collect_in(&self, mut tx: Tx, parent: &TokenKey) -> Result<(Tx, Collected)> {
        let started = self.now();
        let more_leases = self.leases.end_held(&mut tx, parent, BATCH).await?;
        self.metrics().leases.revoke_by_token.record(self.now().since(started));
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
                // A token with an unreadable record cannot be used; its deletion does not wait for an operator.
                Err(error) if unreadable(&error) => self.delete_damaged(&mut tx, child).await?,
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

    /// Deletes all stored data of one token except its own storage, which can be more than one transaction can delete.
    /// The name of that storage is noted and added to `spent`, for [`Tokens::clear`] after the commit.
    async fn delete(&self, tx: &mut Tx, key: &TokenKey, record: &TokenRecord, spent: &mut Vec<String>) -> Result<()> {
        tx.delete(&self.view, &format!("id/{}", key.as_str()));
        if let Some(parent) = &record.parent {
            tx.delete(&self.view, &child_key(parent, key));
        }
        if let TokenExpiry::At(end) = record.expiry {
            index::remove_token(tx, &self.view, record, key, end);
        }
        if let Some(counter) = &record.counter {
            self.leases.quotas.release(tx, counter).await?;
            tx.delete(&self.view, &index::counted_key(key));
        }
        let store = self.ids.store_of(&record.hash);
        let mut namespaces = vec![record.namespace.clone()];
        for name in tx.list_verified(&self.view, &elsewhere(&store, ""), &Page::first(ELSEWHERE_MOST)).await? {
            tx.delete(&self.view, &elsewhere(&store, &name));
            namespaces.extend(NamespaceId::parse(&name));
        }
        for namespace in namespaces {
            let view = self.cubbyhole_of(&namespace);
            if !tx.list_verified(&view, &format!("{store}/"), &Page::first(1)).await?.is_empty() {
                let note = format!("{store}{}", namespace.suffix());
                tx.put(&self.view, &format!("{SPENT}{note}"), bytes::Bytes::new());
                spent.push(note);
            }
        }
        Ok(())
    }

    /// Deletes the storage of tokens, page by page.
    async fn clear(&self, stores: Vec<String>) -> Result<()> {
        for store in stores {
            while self.barrier.transact(|tx| self.clear_some(tx, &store)).await? == BATCH {}
        }
        Ok(())
    }

    /// Deletes a page of the storage of a token, and the note with the last page. Returns the number of records.
    async fn clear_some(&self, mut tx: Tx, note: &str) -> Result<(Tx, usize)> {
        let (store, namespace) = split_suffix(note);
        let namespace = namespace.and_then(NamespaceId::parse).unwrap_or_default();
        let view = self.cubbyhole_of(&namespace);
        let deleted = delete_some(&mut tx, &view, &format!("{store}/"), BATCH).await?;
        if deleted < BATCH {
            tx.delete(&self.view, &format!("{SPENT}{note}"));
        }
        Ok((tx, deleted))
    }

    /// Whether a token has children or leases, which exist for a short time after its record.
    async fn leaves_something(&self, tx: &mut ReadTx, key: &TokenKey) -> Result<bool> {
        Ok(!self.children(tx, key, &Page::first(1)).await?.is_empty()
            || !self.leases.held(tx, key, 1).await?.is_empty())
    }

    /// The children as of the commit: a child that is created concurrently causes a conflict.
    async fn children(&self, tx: &mut ReadTx, key: &TokenKey, page: &Page) -> Result<Vec<TokenKey>> {
        let names = tx.list_verified(&self.view, &format!("child/{}/", key.as_str()), page).await?;
        Ok(names.iter().filter_map(|name| TokenKey::parse(name)).collect())
    }

    /// Notes that a token stores something in a namespace that is not its own, where its revocation deletes it.
    ///
    /// # Errors
    /// 400 when it has stored something in too many namespaces.
    pub(crate) async fn note_elsewhere(&self, tx: &mut Tx, store: &str, namespace: &NamespaceId) -> Result<()> {
        let key = elsewhere(store, namespace.as_str());
        if tx.get(&self.view, &key).await?.is_some() {
            return Ok(());
        }
        let known = tx.list_verified(&self.view, &elsewhere(store, ""), &Page::first(ELSEWHERE_MOST)).await?;
        if known.len() >= ELSEWHERE_MOST {
            return Err(Error::invalid("the token has stored data in too many namespaces"));
        }
        tx.put(&self.view, &key, bytes::Bytes::new());
        Ok(())
    }

    /// Deletes the notes that tokens of namespaces above have stored something in this one, whose storage is deleted.
    pub(crate) async fn forget_elsewhere(&self, namespace: &NamespaceId) -> Result<()> {
        let mut page = Page::first(BATCH);
        while let Some(folders) = self.next_notes(ELSEWHERE, &mut page).await? {
            let folders = &folders;
            let forget = |mut tx: Tx| async move {
                for folder in folders {
                    let key = elsewhere(folder.trim_end_matches('/'), namespace.as_str());
                    if tx.get(&self.view, &key).await?.is_some() {
                        tx.delete(&self.view, &key);
                    }
                }
                Ok::<_, Error>((tx, ()))
            };
            self.barrier.transact(forget).await?;
        }
        Ok(())
    }

    /// Changes the expiry of a token.
    ///
    /// The expiry index changes in the same transaction.
    pub(crate) fn extend(&self, tx: &mut Tx, key: &TokenKey, record: &mut TokenRecord, end: Timestamp) -> Result<()> {
        if let TokenExpiry::At(old) = record.expiry {
            index::move_token(tx, &self.view, key, old, end);
            record.expiry = TokenExpiry::At(end);
        }
        self.save(tx, key, record)
    }
}

/// The result of a step that makes children of a token orphans.
enum Orphaned {
    /// The token does not exist.
    NoToken,
    /// A page of children are orphans; the token is still valid.
    Some,
    /// All children are orphans and the token is revoked. `spent` is the storage that [`Tokens::clear`] must delete.
    All { spent: Vec<String> },
}

/// The result of a page of deletions below a revoked token.
struct Collected {
    more: bool,
    /// Children that have children or leases.
    grandparents: Vec<TokenKey>,
    spent: Vec<String>,
}

/// The key of the note that a token has stored something in a namespace that is not its own.
fn elsewhere(store: &str, namespace: &str) -> String {
    format!("{ELSEWHERE}{store}/{namespace}")
}

fn pending(key: &TokenKey) -> String {
    format!("{PENDING}{}", key.as_str())
}
