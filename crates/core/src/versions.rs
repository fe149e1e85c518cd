//! Which versions of the server have served this storage, and since when.

use keepfast_framework::{Records, Result, Timestamp};
use keepfast_storage::{Page, ReadTx, Tx, View};

use crate::damaged::{self, Stored};

/// The version of the engines, as mounts and audit entries show it.
pub(crate) const BUILT_IN: &str = concat!("v", env!("CARGO_PKG_VERSION"), "+builtin.keepfast");

/// When this version was released. Clients read it from `sys/seal-status`.
pub(crate) const RELEASED: &str = "2026-11-23T00:00:00Z";

/// When a version was first unsealed, by version.
const VERSIONS: Records<Timestamp> = Records::at("version-history/");

/// Notes the version that runs, if it is new here.
pub(crate) async fn note(tx: &mut Tx, view: &View, version: &str, now: Timestamp) -> Result<()> {
    if let Stored::Absent = damaged::read((&VERSIONS, "version"), tx, view, version).await? {
        VERSIONS.put_in(tx, view, version, &now)?;
    }
    Ok(())
}

/// All of them, in the order in which they came.
pub(crate) async fn all(tx: &mut ReadTx, view: &View) -> Result<Vec<(String, Timestamp)>> {
    let mut out = Vec::new();
    for version in VERSIONS.list_in(tx, view, "", &Page::default()).await? {
        if let Stored::Record(at) = damaged::read((&VERSIONS, "version"), tx, view, &version).await? {
            out.push((version, at));
        }
    }
    out.sort_by_key(|(_, at)| *at);
    Ok(out)
}
