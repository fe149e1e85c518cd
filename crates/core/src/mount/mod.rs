//! Mounts: which engine answers below which path.

pub mod change;
pub mod entry;
pub mod router;
pub mod table;

use keepfast_framework::Result;
use keepfast_storage::{Page, Tx, View};

pub use entry::{MountConfig, MountEntry};
pub use router::{Mounted, Router};
pub use table::Mounts;

/// Deletes everything below `folder` (ending in `/`) of a view, in one transaction: for small trees.
///
/// # Errors
/// When storage fails.
pub async fn delete_tree(tx: &mut Tx, view: &View, folder: &str) -> Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for name in tx.list(view, &folder, &Page::all()).await? {
            let path = format!("{folder}{name}");
            if name.ends_with('/') {
                folders.push(path);
            } else {
                tx.delete(view, &path);
            }
        }
    }
    Ok(())
}
