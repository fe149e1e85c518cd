//! Tidy: revokes expired tokens, finishes interrupted deletions, and deletes index entries without a record.

use std::sync::Arc;

use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Barrier, Page};

use super::expire::ExpiryWorker;
use super::index::{self, LeaseName};
use super::store::Leases;
use crate::namespace::NamespaceId;
use crate::token::Tokens;
use crate::unreadable::unreadable;

/// The number of names per read.
const PAGE: usize = 500;

/// Tidies the index of tokens and leases.
pub(crate) struct IndexTidier {
    /// Revokes the expired tokens first.
    pub(crate) expiry: Arc<ExpiryWorker>,
    /// The records of leases.
    pub(crate) leases: Arc<Leases>,
    /// The records of tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// Begins the transactions.
    pub(crate) barrier: Arc<Barrier>,
}

impl IndexTidier {
    /// Revokes expired tokens, finishes interrupted deletions, and deletes index entries without a record. Returns the
    /// number of deleted entries. For expired leases it only wakes the worker.
    pub(crate) async fn tidy(&self, now: Timestamp) -> Result<usize> {
        // One at a time: it reads the tokens and leases of all namespaces.
        let Ok(_alone) = self.leases.tidying.try_lock() else { return Ok(0) };
        self.leases.wake.notify_one();
        self.expiry.revoke_expired_tokens(now).await?;
        self.tokens.resume_collection().await?;
        let folders = vec![index::leases_of(&NamespaceId::root()), index::LEASES_OF_NAMESPACES.to_owned()];
        self.drop_empty_below(folders).await
    }

    /// Deletes the index entries of a namespace without a record.
    pub(crate) async fn tidy_namespace(&self, namespace: &NamespaceId) -> Result<usize> {
        self.drop_empty_below(vec![index::leases_of(namespace)]).await
    }

    async fn drop_empty_below(&self, mut folders: Vec<String>) -> Result<usize> {
        let mut dropped = 0;
        while let Some(folder) = folders.pop() {
            let mut page = Page::first(PAGE);
            loop {
                let names = self.leases.begin_read().list(&self.leases.view, &folder, &page).await?;
                page.after = names.last().cloned();
                for name in &names {
                    if name.ends_with('/') {
                        folders.push(format!("{folder}{name}"));
                    } else {
                        dropped += usize::from(self.drop_if_empty(&folder, name).await?);
                    }
                }
                if names.len() < PAGE {
                    break;
                }
            }
        }
        Ok(dropped)
    }

    /// Deletes an entry that has no record. Returns whether it was deleted.
    async fn drop_if_empty(&self, folder: &str, name: &str) -> Result<bool> {
        let mut tx = self.barrier.begin();
        let exists = match LeaseName::parse(name) {
            Some(LeaseName::Token(key)) => self.tokens.record(&mut tx, &key).await.map(|r| r.is_some()),
            Some(LeaseName::Lease(id)) => self.leases.record(&mut tx, &id).await.map(|r| r.is_some()),
            None => Ok(false),
        };
        match exists {
            Ok(false) => {}
            Ok(true) => return Ok(false),
            // An operator must handle it: the entry stays.
            Err(error) if unreadable(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        tx.delete(&self.leases.view, &format!("{folder}{name}"));
        match tx.commit().await {
            Ok(_) => Ok(true),
            Err(error) if error.may_run_again() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
