//! The versions of the server that have served this storage, with the time of their first unseal.

use keepfast_framework::{Records, Result, Timestamp};
use keepfast_storage::{Page, ReadTx, Tx, View};

use crate::unreadable::{self, Stored};

/// The version of the engines in mounts and audit entries.
pub(crate) const BUILT_IN: &str = concat!("v", env!("CARGO_PKG_VERSION"), "+builtin.keepfast");

/// The release date of this version, which clients read from `sys/seal-status`.
pub(crate) const RELEASED: &str = "2026-11-23T00:00:00Z";

/// The time of the first unseal of a version, by version.
const VERSIONS: Records<Timestamp> = Records::at("version-history/");

/// Stores the running version, if storage does not have it.
pub(crate) async fn note(tx: &mut Tx, view: &View, version: &str, now: Timestamp) -> Result<()> {
    if let Stored::Absent = unreadable::read((&VERSIONS, "version"), tx, view, version).await? {
        VERSIONS.put_in(tx, view, version, &now)?;
    }
    Ok(())
}

/// All versions, in the order of their first unseal.
pub(crate) async fn all(tx: &mut ReadTx, view: &View) -> Result<Vec<(String, Timestamp)>> {
    let mut out = Vec::new();
    for version in VERSIONS.list_in(tx, view, "", &Page::default()).await? {
        if let Stored::Record(at) = unreadable::read((&VERSIONS, "version"), tx, view, &version).await? {
            out.push((version, at));
        }
    }
    out.sort_by_key(|(_, at)| *at);
    Ok(out)
}
