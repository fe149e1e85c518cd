//! The work of the leader in the namespaces besides root: the ticks of engines, OIDC keys, and interrupted unmounts and
//! deletions. The expiry of tokens and leases is that of root, which has those of all namespaces.

use std::sync::Arc;

use keepfast_framework::{Page, Result};

use super::changes::{delete, due};
use crate::background::{attempt, identity_view, next_rotation, tick, tidy_mfa};
use crate::identity::{delete_expired_codes, rotate_due_keys};
use crate::layout::SYSTEM_STORAGE;
use crate::lockout::Lockout;
use crate::unsealed::Unsealed;

/// The number of namespaces per read.
const PAGE: usize = 100;

/// Runs the work of all namespaces that have any, or `often` only the frequent ticks of the open ones.
///
/// # Errors
/// When storage fails before the work begins; a failure of one namespace is logged.
pub(crate) async fn run(root: &Unsealed, often: bool) -> Result<()> {
    let namespaces = root.access.namespaces()?;
    let open = namespaces.opened();
    if often {
        for namespace in open {
            tick(namespace.server(), true).await;
        }
        return Ok(());
    }
    for namespace in open {
        // Those that are deleted are closed.
        namespaces.open_any(&namespace.namespace().id).await?;
    }
    let mut page = Page::first(PAGE);
    loop {
        let ids = due(root, &page).await?;
        for id in &ids {
            let opened = namespaces.open_any(id).await?;
            let record = root.observability.directory.record(id).await?;
            let (Some(opened), Some(record)) = (opened, record) else { continue };
            if record.deleting {
                attempt("deleting a namespace", delete(opened.server())).await;
            } else {
                run_one(opened.server()).await;
            }
        }
        match ids.last() {
            Some(last) if ids.len() == PAGE => page.after = Some(last.as_str().to_owned()),
            _ => return Ok(()),
        }
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
