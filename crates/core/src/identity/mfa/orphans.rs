//! The deletion of secrets whose method was deleted: there may be many, so the background tasks delete them in pages.

use keepfast_framework::{Error, Page, Result};
use keepfast_storage::View;

use super::records::{ATTEMPTS, ENROLLED, SECRETS, of_entity};
use crate::identity::store::Identity;

/// The number of names per read.
const PAGE: usize = 500;

/// Deletes the secrets of deleted methods, in transactions of at most a page of one method.
///
/// # Errors
/// When storage fails.
pub(crate) async fn delete_orphans(identity: &Identity, view: &View) -> Result<()> {
    let barrier = &identity.barrier;
    let mut page = Page::first(PAGE);
    loop {
        let folders = ENROLLED.list_in(&mut barrier.begin_read(), view, "", &page).await?;
        for folder in &folders {
            let method = folder.trim_end_matches('/');
            while delete_page(identity, view, method).await? == PAGE {}
        }
        page.after = folders.last().cloned();
        if folders.len() < PAGE {
            return Ok(());
        }
    }
}

/// Deletes a page of the secrets of a method that does not exist. Returns their number.
async fn delete_page(identity: &Identity, view: &View, method: &str) -> Result<usize> {
    let mut tx = identity.barrier.begin();
    // One that cannot be read exists. An id is never used again.
    if identity.mfa_method(&mut tx, method).await?.is_some() {
        return Ok(0);
    }
    let entities = ENROLLED.list_in(&mut tx, view, &format!("{method}/"), &Page::first(PAGE)).await?;
    for entity in &entities {
        SECRETS.delete_in(&mut tx, view, &of_entity(entity, method));
        ATTEMPTS.delete_in(&mut tx, view, &of_entity(entity, method));
        ENROLLED.delete_in(&mut tx, view, &format!("{method}/{entity}"));
    }
    tx.commit().await.map_err(Error::from)?;
    Ok(entities.len())
}
