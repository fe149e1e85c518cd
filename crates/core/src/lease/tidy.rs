//! Tidying: what is due ends, what was begun is finished, and entries of the index that lead nowhere go.

use keepfast_framework::{Result, Timestamp};
use keepfast_storage::{Page, StorageError};

use super::index::{self, Named};
use super::revoker::Revoker;
use crate::damaged::unreadable;

/// How many names one look reads.
const PAGE: usize = 500;

impl Revoker {
    /// Ends the tokens that are due, finishes collections that were interrupted, and takes entries out that no record stands
    /// behind; how many those were. Leases that are due are the worker's, who is woken.
    pub(crate) async fn tidy_leases(&self, now: Timestamp) -> Result<usize> {
        self.leases.wake.notify_one();
        self.end_due(now).await?;
        self.tokens.resume_collection().await?;
        let (mut dropped, mut folders) = (0, vec![String::new()]);
        while let Some(folder) = folders.pop() {
            let mut page = Page::first(PAGE);
            loop {
                let names = self.leases.below(&folder, &page).await?;
                page.after = names.last().cloned();
                for name in &names {
                    match name.strip_suffix('/') {
                        Some(inner) if folder.is_empty() => folders.push(inner.to_owned()),
                        Some(inner) => folders.push(format!("{folder}/{inner}")),
                        None => dropped += usize::from(self.drop_if_empty(&folder, name).await?),
                    }
                }
                if names.len() < PAGE {
                    break;
                }
            }
        }
        Ok(dropped)
    }

    /// Takes one entry out if nothing stands behind it; whether it did.
    async fn drop_if_empty(&self, folder: &str, name: &str) -> Result<bool> {
        let mut tx = self.host.barrier.begin();
        let stands = match Named::parse(name) {
            Some(Named::Token(key)) => self.tokens.record(&mut tx, &key).await.map(|r| r.is_some()),
            Some(Named::Lease(id)) => self.leases.record(&mut tx, &id).await.map(|r| r.is_some()),
            None => Ok(false),
        };
        match stands {
            Ok(false) => {}
            Ok(true) => return Ok(false),
            // Somebody has to look at it: it stays.
            Err(error) if unreadable(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let slash = if folder.is_empty() { "" } else { "/" };
        tx.delete(&self.leases.view, &format!("{}{folder}{slash}{name}", index::LEASES));
        match tx.commit().await {
            Ok(_) => Ok(true),
            Err(StorageError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
