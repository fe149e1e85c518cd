//! Mounts: the engines and the paths below which they handle requests.

pub(crate) mod change;
mod engine_cell;
pub(crate) mod entry;
pub(crate) mod host;
pub(crate) mod opened;
pub(crate) mod permit;
pub(crate) mod router;
pub(crate) mod table;

use keepfast_framework::Result;
use keepfast_storage::{Page, Tx, View};

pub(crate) use change::{MountChanges, mount_path};
pub(crate) use entry::{LockoutConfig, MountConfig, MountEntry};
pub(crate) use host::EngineHost;
pub(crate) use router::{Mounted, Router};
pub(crate) use table::{EngineRecords, Mounts};

/// Deletes at most `most` records below `folder` (empty, or with a trailing `/`) of a view. Returns the number of
/// deleted records; fewer than `most` means that none is left.
pub(crate) async fn delete_some(tx: &mut Tx, view: &View, folder: &str, most: usize) -> Result<usize> {
    let mut folders = vec![folder.to_owned()];
    let mut deleted = 0;
    while let Some(folder) = folders.pop() {
        for name in tx.list(view, &folder, &Page::first(most)).await? {
            let path = format!("{folder}{name}");
            if name.ends_with('/') {
                folders.push(path);
                continue;
            }
            tx.delete(view, &path);
            deleted += 1;
            if deleted == most {
                return Ok(deleted);
            }
        }
    }
    Ok(deleted)
}
