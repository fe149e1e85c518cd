//! Finds the mount and the row of its table that answer a path.

use std::sync::Arc;

use keepfast_framework::Operation;
use keepfast_framework::routes::{Access, Match};
use keepfast_framework::rows::RowInfo;

use super::incoming::Incoming;
use crate::mount::Mounted;
use crate::namespace::NamespaceId;
use crate::unsealed::Unsealed;

/// A request with what its path leads to.
///
/// A path that leads nowhere is not refused here: whoever has no token must not learn which mounts there are, so the
/// refusal waits until the caller is known.
pub struct Routed {
    /// The request.
    pub incoming: Incoming,
    /// The namespace that it names; `None` for one that does not exist.
    pub namespace: Option<NamespaceId>,
    /// The mount, and the path within it.
    pub mount: Option<(Arc<Mounted>, String)>,
    /// The row of the mount's table.
    pub row: Option<Match>,
}

impl Routed {
    /// The row's declaration.
    pub fn info(&self) -> Option<&RowInfo> {
        let (mounted, _) = self.mount.as_ref()?;
        mounted.table.rows().get(self.row.as_ref()?.row)
    }

    /// Whether the row needs no token for this operation.
    pub fn is_open(&self) -> bool {
        self.info().is_some_and(|row| {
            row.access == Access::Unauthenticated && row.operation(self.incoming.operation).is_some()
        })
    }

    /// The path as policies see it: lists end in a slash.
    pub fn judged_path(&self) -> String {
        match self.incoming.operation {
            Operation::List | Operation::Scan => self.incoming.path.as_folder().as_str().to_owned(),
            _ => self.incoming.path.as_str().to_owned(),
        }
    }
}

impl Unsealed {
    /// Finds the mount and the row that answer a request.
    pub(super) fn route(&self, incoming: Incoming) -> Routed {
        let router = self.mounts.router();
        let namespace = NamespaceId::of_header(&incoming.namespace);
        let mount = router.find(incoming.path.as_str()).map(|(mounted, within)| (mounted.clone(), within.to_owned()));
        let row = mount.as_ref().and_then(|(mounted, within)| match incoming.operation {
            // A list is of what is below, with or without the final slash in the request.
            Operation::List | Operation::Scan if !within.is_empty() && !within.ends_with('/') => {
                mounted.table.find(incoming.operation, &format!("{within}/"))
            }
            operation => mounted.table.find(operation, within),
        });
        Routed { incoming, namespace, mount, row }
    }
}
