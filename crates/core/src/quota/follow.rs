//! Quotas follow the mounts and namespaces that they apply to: they move with a mount, and are deleted with it.

use keepfast_framework::{Page, Result};
use keepfast_storage::{Tx, View};

use super::target::Target;
use crate::admission::stored::RATE_LIMITS;
use crate::lease::quotas::{self, QUOTAS};
use crate::namespace::NamespaceId;
use crate::unreadable;

/// Deletes the quotas of a mount that is unmounted, and of paths in it.
///
/// # Errors
/// When storage fails.
pub(crate) async fn unmounted(tx: &mut Tx, system: &View, namespace: &NamespaceId, mount: &str) -> Result<()> {
    change(tx, system, |target| if target.is_in(namespace, mount) { Fate::Deleted } else { Fate::Kept }).await
}

/// Moves the quotas of a mount, and of paths in it.
///
/// # Errors
/// When storage fails.
pub(crate) async fn moved(tx: &mut Tx, system: &View, namespace: &NamespaceId, (from, to): (&str, &str)) -> Result<()> {
    let fate = |target: &Target| match target.is_in(namespace, from) {
        true => Fate::Moved(target.moved(from, to)),
        false => Fate::Kept,
    };
    change(tx, system, fate).await
}

/// Deletes the quotas of a namespace that is deleted, of its mounts and of paths in them.
///
/// # Errors
/// When storage fails.
pub(crate) async fn namespace_deleted(tx: &mut Tx, system: &View, namespace: &NamespaceId) -> Result<()> {
    change(tx, system, |target| if target.namespace == *namespace { Fate::Deleted } else { Fate::Kept }).await
}

enum Fate {
    Kept,
    Moved(Target),
    Deleted,
}

async fn change(tx: &mut Tx, system: &View, fate: impl Fn(&Target) -> Fate) -> Result<()> {
    for name in RATE_LIMITS.list_in(tx, system, "", &Page::all()).await? {
        let read = unreadable::read((&RATE_LIMITS, "rate limit quota"), tx, system, &name).await?;
        let Some(mut limit) = read.readable() else { continue };
        match fate(&limit.target) {
            Fate::Kept => {}
            Fate::Deleted => RATE_LIMITS.delete_in(tx, system, &name),
            Fate::Moved(target) => {
                limit.target = target;
                RATE_LIMITS.put_in(tx, system, &name, &limit)?;
            }
        }
    }
    for name in QUOTAS.list_in(tx, system, "", &Page::all()).await? {
        let read = unreadable::read((&QUOTAS, "lease count quota"), tx, system, &name).await?;
        let Some(mut quota) = read.readable() else { continue };
        match fate(&quota.target) {
            Fate::Kept => {}
            Fate::Deleted => quotas::delete(tx, system, &name).await?,
            Fate::Moved(target) => {
                quota.target = target;
                quotas::put(tx, system, quota).await?;
            }
        }
    }
    Ok(())
}
