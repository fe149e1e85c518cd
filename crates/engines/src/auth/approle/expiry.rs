//! Removal of secret ids that have expired or whose role was deleted, in pages, without reading the others.

use keepfast_framework::reply::WithStatus;
use keepfast_framework::routes::Nothing;
use keepfast_framework::{Cx, Page, Records, Result, Status};
use serde::{Deserialize, Serialize};

use super::AppRole;
use super::secret_id::{self, ACCESSORS, EXPIRIES};

/// How many secret ids one commit removes.
const PAGE: usize = 500;

/// Stores of deleted roles.
const DELETED_STORES: Records<DeletedStore> = Records::at("doomed/");

#[derive(Serialize, Deserialize)]
struct DeletedStore {}

/// Marks the secret ids of a role that is being deleted for removal.
///
/// Creating a secret id at the same time conflicts with the deletion of the role, so the store is complete at the next
/// tick.
pub(super) fn mark_deleted(cx: &mut Cx, store: &str) -> Result<()> {
    DELETED_STORES.put(cx, store, &DeletedStore {})
}

/// POST `tidy/secret-id`: removes the first page; ticks remove the rest.
pub(super) async fn tidy(_: &AppRole, cx: &mut Cx, _: Nothing) -> Result<WithStatus<()>> {
    collect_expired_page(cx).await?;
    cx.warn("Tidy operation successfully started. Any information from the operation will be printed to Keepfast's server logs.");
    Ok(WithStatus(Status(202), ()))
}

/// At a tick: removes all expired secret ids and those of deleted roles, one page per commit.
pub(super) async fn collect(cx: &mut Cx) -> Result<()> {
    while collect_expired_page(cx).await? {
        cx.checkpoint().await?;
    }
    for store in DELETED_STORES.list(cx, "", &Page::first(PAGE)).await? {
        while collect_store_page(cx, &store).await? {
            cx.checkpoint().await?;
        }
        DELETED_STORES.delete(cx, &store);
    }
    Ok(())
}

/// Removes the secret ids that expired first; returns true when there may be more.
async fn collect_expired_page(cx: &mut Cx) -> Result<bool> {
    let now = cx.now();
    let mut removed = 0;
    for name in EXPIRIES.list(cx, "", &Page::first(PAGE)).await? {
        let Some(expires) = secret_id::moment(&name).filter(|expires| *expires <= now) else { return Ok(false) };
        // A read of the record, unlike the list, conflicts if the secret id is destroyed and registered again
        // meanwhile.
        if let Some(expired) = EXPIRIES.get(cx, &name).await? {
            secret_id::remove(cx, &expired.store, &expired.hash, &expired.accessor, Some(expires));
        }
        removed += 1;
    }
    Ok(removed == PAGE)
}

/// Removes secret ids of a deleted role; returns true when there may be more.
async fn collect_store_page(cx: &mut Cx, store: &str) -> Result<bool> {
    let accessors = ACCESSORS.list(cx, &format!("{store}/"), &Page::first(PAGE)).await?;
    for accessor in &accessors {
        if let Some(means) = secret_id::of_accessor(cx, store, accessor).await? {
            secret_id::remove(cx, store, &means.hash, accessor, means.expires);
        }
    }
    Ok(accessors.len() == PAGE)
}
