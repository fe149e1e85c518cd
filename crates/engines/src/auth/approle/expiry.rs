//! Collecting secret ids that have expired or whose role is gone, in pages, without looking at the others.

use keepfast_framework::reply::WithStatus;
use keepfast_framework::routes::Nothing;
use keepfast_framework::{Cx, Page, Records, Result, Status};
use serde::{Deserialize, Serialize};

use super::AppRole;
use super::secret_id::{self, ACCESSORS, EXPIRIES};

/// How many secret ids are removed in one commit.
const PAGE: usize = 500;

/// Stores of deleted roles.
const DOOMED: Records<Doomed> = Records::at("doomed/");

#[derive(Serialize, Deserialize)]
struct Doomed {}

/// Marks the secret ids of a role that is being deleted.
///
/// Only marks: a secret id that is made at the same time conflicts with the role's deletion, so at the next tick the
/// store is complete.
pub(super) fn doom(cx: &mut Cx, store: &str) -> Result<()> {
    DOOMED.put(cx, store, &Doomed {})
}

/// POST `tidy/secret-id`: removes the first page now; ticks remove the rest.
pub(super) async fn tidy(_: &AppRole, cx: &mut Cx, _: Nothing) -> Result<WithStatus<()>> {
    collect_expired_page(cx).await?;
    cx.warn("Tidy operation successfully started. Any information from the operation will be printed to Keepfast's server logs.");
    Ok(WithStatus(Status(202), ()))
}

/// At a tick: everything that is due, a page in a commit.
pub(super) async fn collect(cx: &mut Cx) -> Result<()> {
    while collect_expired_page(cx).await? {
        cx.checkpoint().await?;
    }
    for store in DOOMED.list(cx, "", &Page::first(PAGE)).await? {
        while collect_store_page(cx, &store).await? {
            cx.checkpoint().await?;
        }
        DOOMED.delete(cx, &store);
    }
    Ok(())
}

/// Removes the secret ids that expired first; true when there may be more.
async fn collect_expired_page(cx: &mut Cx) -> Result<bool> {
    let now = cx.now();
    let mut removed = 0;
    for name in EXPIRIES.list(cx, "", &Page::first(PAGE)).await? {
        let Some(expires) = secret_id::moment(&name).filter(|expires| *expires <= now) else { return Ok(false) };
        // Read and not merely listed, so that a secret id which is destroyed and registered anew meanwhile conflicts.
        if let Some(due) = EXPIRIES.get(cx, &name).await? {
            secret_id::remove(cx, &due.store, &due.hash, &due.accessor, Some(expires));
        }
        removed += 1;
    }
    Ok(removed == PAGE)
}

/// Removes secret ids of a deleted role; true when there may be more.
async fn collect_store_page(cx: &mut Cx, store: &str) -> Result<bool> {
    let accessors = ACCESSORS.list(cx, &format!("{store}/"), &Page::first(PAGE)).await?;
    for accessor in &accessors {
        if let Some(means) = secret_id::of_accessor(cx, store, accessor).await? {
            secret_id::remove(cx, store, &means.hash, accessor, means.expires);
        }
    }
    Ok(accessors.len() == PAGE)
}
