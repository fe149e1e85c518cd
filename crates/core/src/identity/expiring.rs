//! Records that expire: authorization codes and pending logins. Each is stored under a keyed hash, and listed under its
//! entity in the order of expiry, so that the records of an entity are bounded and expired ones are found.
//!
//! Tests: `tests/oidc.rs` and `tests/mfa.rs`.

use std::sync::Arc;

use keepfast_framework::{Error, Page, Records, Result, Timestamp};
use keepfast_storage::{Barrier, Tx, View};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::Mark;

/// The number of names per read.
const PAGE: usize = 500;

/// Records of one type that expire.
pub(super) struct ExpiringRecords<T> {
    /// The records by keyed hash.
    pub(super) records: Records<T>,
    /// The records of an entity: `<entity>/<expiry in hex>-<keyed hash>`.
    of_entity: Records<Mark>,
    /// The maximum number of records of an entity.
    most: usize,
}

/// The place of a record.
pub(super) struct Place<'a> {
    /// The keyed hash of its id.
    pub(super) hash: &'a str,
    /// The entity.
    pub(super) entity: &'a str,
    /// The expiry.
    pub(super) expires: Timestamp,
}

impl<T: Serialize + DeserializeOwned> ExpiringRecords<T> {
    /// Records under the prefix `records` that are listed under the prefix `of_entity`, at most `most` for each entity.
    pub(super) const fn at(records: &'static str, of_entity: &'static str, most: usize) -> Self {
        ExpiringRecords { records: Records::at(records), of_entity: Records::at(of_entity), most }
    }

    /// Stores a record. It replaces the oldest ones of its entity beyond the maximum, which requests at the same time may
    /// exceed until the next one.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn put(&self, tx: &mut Tx, view: &View, place: &Place<'_>, record: &T) -> Result<()> {
        let folder = format!("{}/", place.entity);
        let known = self.of_entity.list_in(tx, view, &folder, &Page::all()).await?;
        for old in known.iter().take((known.len() + 1).saturating_sub(self.most)) {
            self.delete_entry(tx, view, &folder, old);
        }
        self.records.put_in(tx, view, place.hash, record)?;
        self.of_entity.put_in(tx, view, &format!("{folder}{}", entry(place)), &Mark {})
    }

    /// Deletes a record, with the commit of this transaction.
    pub(super) fn delete(&self, tx: &mut Tx, view: &View, place: &Place<'_>) {
        self.delete_entry(tx, view, &format!("{}/", place.entity), &entry(place));
    }

    /// Deletes the expired records of all entities, in transactions of at most a page of one entity.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn delete_expired(&self, barrier: &Arc<Barrier>, view: &View, now: Timestamp) -> Result<()> {
        let mut page = Page::first(PAGE);
        loop {
            let folders = self.of_entity.list_in(&mut barrier.begin_read(), view, "", &page).await?;
            for folder in &folders {
                while self.delete_page(barrier, view, folder, now).await? == PAGE {}
            }
            page.after = folders.last().cloned();
            if folders.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Deletes the expired records among the first page of an entity. Returns their number.
    async fn delete_page(&self, barrier: &Arc<Barrier>, view: &View, folder: &str, now: Timestamp) -> Result<usize> {
        let entries = self.of_entity.list_in(&mut barrier.begin_read(), view, folder, &Page::first(PAGE)).await?;
        let expired: Vec<&String> = entries.iter().filter(|entry| is_expired(entry, now)).collect();
        if expired.is_empty() {
            return Ok(0);
        }
        let mut tx = barrier.begin();
        for entry in &expired {
            self.delete_entry(&mut tx, view, folder, entry);
        }
        tx.commit().await.map_err(Error::from)?;
        Ok(expired.len())
    }

    fn delete_entry(&self, tx: &mut Tx, view: &View, folder: &str, entry: &str) {
        self.records.delete_in(tx, view, entry.split_once('-').map_or("", |(_, hash)| hash));
        self.of_entity.delete_in(tx, view, &format!("{folder}{entry}"));
    }
}

/// The name of a record under its entity. Names are sorted by the expiry.
fn entry(place: &Place<'_>) -> String {
    format!("{:010x}-{}", place.expires.unix().max(0), place.hash)
}

fn is_expired(entry: &str, now: Timestamp) -> bool {
    let expiry = entry.split_once('-').and_then(|(expiry, _)| i64::from_str_radix(expiry, 16).ok());
    expiry.is_some_and(|expiry| expiry < now.unix())
}
