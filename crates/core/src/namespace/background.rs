//! The work of the leader in the namespaces besides root: the ticks of engines, OIDC keys, and interrupted unmounts and
//! deletions. The expiry of tokens and leases is that of root, which has those of all namespaces.

use std::sync::Arc;

use keepfast_framework::{Page, Result};

use super::NamespaceId;
use super::changes::{clear_gone, delete, due};
use crate::background::{attempt, identity_view, next_rotation, tick, tidy_mfa};
use crate::identity::{delete_expired_codes, rotate_due_keys};
use crate::layout::SYSTEM_STORAGE;
use crate::lockout::Lockout;
use crate::unsealed::Unsealed;

/// The number of namespaces per read.
const PAGE: usize = 100;

/// The namespaces that have background work, for `often` only the open ones.
///
/// # Errors
/// When storage fails.
pub(crate) async fn with_work(root: &Unsealed, often: bool) -> Result<Vec<NamespaceId>> {
    let mut found = Vec::new();
    if often {
        found.extend(root.access.namespaces()?.opened().iter().map(|open| open.access.namespace.id.clone()));
        return Ok(found);
    }
    let mut page = Page::first(PAGE);
    loop {
        let ids = due(root, &page).await?;
        let is_last = ids.len() < PAGE;
        page.after = ids.last().map(|id| id.as_str().to_owned());
        found.extend(ids);
        if is_last {
            return Ok(found);
        }
    }
}

/// Runs the work of one namespace, for `often` only its frequent ticks.
///
/// # Errors
/// When its services cannot be opened; other failures are logged.
pub(crate) async fn run(root: &Unsealed, id: &NamespaceId, often: bool) -> Result<()> {
    let namespaces = root.access.namespaces()?;
    let Some(opened) = namespaces.open_any(id).await? else { return Box::pin(clear_gone(root, id)).await };
    let Some(record) = root.observability.directory.record(id).await? else { return Ok(()) };
    match (record.deleting, often) {
        (true, true) => {}
        (true, false) => Box::pin(delete_once(&opened, record.force)).await?,
        (false, true) => Box::pin(tick(&opened, true)).await,
        (false, false) => Box::pin(run_one(&opened)).await,
    }
    Ok(())
}

/// Runs a pass of the deletion of a namespace, unless one is running.
///
/// # Errors
/// See [`delete`].
pub(crate) async fn delete_once(unsealed: &Unsealed, force: bool) -> Result<()> {
    match unsealed.engines.changes.deleting.try_lock() {
        Ok(_alone) => delete(unsealed, force).await,
        Err(_) => Ok(()),
    }
}

/// Runs the work of one namespace.
async fn run_one(unsealed: &Arc<Unsealed>) {
    let now = unsealed.clock.now();
    attempt("finishing interrupted unmounts", unsealed.engines.changes.resume_unmounts()).await;
    tick(unsealed, false).await;
    if let Some(view) = identity_view(unsealed) {
        if matches!(next_rotation(unsealed).await, Ok(Some(next)) if next <= now) {
            attempt("rotating OIDC keys", rotate_due_keys(&unsealed.barrier, &view, now)).await;
        }
        attempt("deleting expired OIDC codes", delete_expired_codes(&unsealed.barrier, &view, now)).await;
    }
    tidy_mfa(unsealed, now).await;
    let system = unsealed.barrier.view(format!("{}{SYSTEM_STORAGE}", unsealed.access.namespace.storage()));
    attempt("deleting the locks of users that are over", Lockout::delete_ended(&unsealed.barrier, &system, now)).await;
}
