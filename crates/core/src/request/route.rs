//! Finds the mount and the row of its table that answer a path.

use std::sync::Arc;

use keepfast_framework::routes::{Access, Match};
use keepfast_framework::rows::{OperationInfo, RowInfo};
use keepfast_framework::{Error, ErrorKind, Operation};

use super::incoming::Incoming;
use crate::mount::Mounted;
use crate::namespace::NamespaceId;
use crate::unsealed::Unsealed;

/// What is shown in place of a segment of a path that not everybody may see.
pub(crate) const MASK: &str = "***";

/// A request with what its path leads to.
///
/// A path that leads nowhere is not refused here: whoever has no token must not learn which mounts there are, so the
/// refusal waits until the caller is known.
pub(crate) struct Routed {
    /// The request.
    pub(crate) incoming: Box<Incoming>,
    /// The namespace that it names; `None` for one that does not exist.
    pub(crate) namespace: Option<NamespaceId>,
    /// The mount, and the path within it.
    pub(crate) mount: Option<(Arc<Mounted>, String)>,
    /// The row of the mount's table.
    pub(crate) row: Option<Match>,
    /// Whether the row is that of the path without its final slash.
    without_slash: bool,
}

impl Routed {
    /// The row's declaration.
    pub(crate) fn info(&self) -> Option<&RowInfo> {
        let (mounted, _) = self.mount.as_ref()?;
        mounted.table.rows().get(self.row.as_ref()?.row)
    }

    /// Whether anyone may call this path; as with the peer whatever the operation is, and though no row answers it.
    pub(crate) fn is_open(&self) -> bool {
        let Some((mounted, within)) = &self.mount else { return false };
        match self.info() {
            Some(row) => row.access == Access::Unauthenticated,
            None if self.lists() => mounted.table.is_open(&format!("{}/", within.trim_end_matches('/'))),
            None => mounted.table.is_open(within),
        }
    }

    /// Whether the body is data as a whole, of which no part is a parameter.
    pub(super) fn takes_whole_body(&self) -> bool {
        self.info().and_then(|row| row.operation(self.incoming.operation)).is_some_and(OperationInfo::takes_whole_body)
    }

    /// Whether help of the whole mount is asked for, which needs no row.
    pub(super) fn asks_for_root_help(&self) -> bool {
        self.incoming.operation == Operation::Help && self.mount.as_ref().is_some_and(|(_, within)| within.is_empty())
    }

    fn lists(&self) -> bool {
        self.incoming.operation.lists()
    }

    /// The refusal of a path that the mount does not have, or not for this operation; `None` if it does.
    pub(super) fn unsupported(&self) -> Option<Error> {
        let asked = self.incoming.operation;
        Some(self.plainly(match self.info() {
            None if self.asks_for_root_help() => return None,
            Some(row) if asked == Operation::Help || row.operation(asked).is_some() => return None,
            Some(_) => Error::unsupported_operation(),
            None => Error::unsupported_path(),
        }))
    }

    /// A refusal as it is worded here: where anyone may call, the peer says it without the frame of the check that was
    /// not made.
    pub(super) fn plainly(&self, refusal: Error) -> Error {
        let is_unsupported = matches!(refusal.kind(), ErrorKind::UnsupportedPath | ErrorKind::UnsupportedOperation);
        if is_unsupported && self.is_open() { refusal.without_frame() } else { refusal }
    }

    /// The path as policies see it: lists end in a slash.
    pub(crate) fn judged_path(&self) -> String {
        match self.incoming.operation {
            operation if operation.lists() => self.incoming.path.as_folder().as_str().to_owned(),
            // What is done is judged, however it is written.
            _ if self.without_slash => self.incoming.path.as_str().trim_end_matches('/').to_owned(),
            _ => self.incoming.path.as_str().to_owned(),
        }
    }
}

impl Routed {
    /// The path as a wrapped answer names it: that of a mount ends in a slash.
    pub(super) fn wrapped_path(&self) -> String {
        let mut path = self.judged_path();
        let is_mount = self.mount.as_ref().is_some_and(|(_, within)| within.is_empty());
        if is_mount && !path.ends_with('/') {
            path.push('/');
        }
        path
    }
}

/// What a path leads to.
struct Destination {
    mount: Option<(Arc<Mounted>, String)>,
    row: Option<Match>,
    without_slash: bool,
}

impl Unsealed {
    /// Finds the mount and the row that answer a request.
    pub(super) fn route(&self, incoming: Box<Incoming>) -> Routed {
        let namespace = NamespaceId::of_header(&incoming.namespace);
        let Destination { mount, row, without_slash } = self.destination(incoming.operation, incoming.path.as_str());
        Routed { incoming, namespace, mount, row, without_slash }
    }

    fn destination(&self, operation: Operation, path: &str) -> Destination {
        let router = self.mounts.router();
        let mount = router.find(path).map(|(mounted, within)| (mounted.clone(), within.to_owned()));
        let row = mount.as_ref().and_then(|(mounted, within)| match operation {
            // A list is of what is below, with or without the final slash in the request.
            operation if operation.lists() && !within.is_empty() && !within.ends_with('/') => {
                mounted.table.find(operation, &format!("{within}/"))
            }
            operation => mounted.table.find(operation, within),
        });
        let named = mount.as_ref().filter(|(mounted, _)| mounted.entry.engine == "system");
        let named = named.and_then(|(mounted, within)| named_row(mounted, operation, within, row.as_ref()));
        let named = named.or_else(|| {
            let (mounted, within) = mount.as_ref().filter(|_| row.is_none())?;
            row_without_slash(mounted, operation, within)
        });
        let without_slash = named.is_some();
        Destination { mount, row: named.or(row), without_slash }
    }

    /// A path with the mount and the literal segments of its route, and `shown` in place of each captured segment. What no
    /// route has is [`MASK`]: it could be anything, also a token.
    pub(crate) fn masked_path(&self, operation: Operation, path: &str, shown: impl Fn(&str) -> String) -> String {
        let Destination { mount: Some((mounted, within)), row, .. } = self.destination(operation, path) else {
            return MASK.to_owned();
        };
        let mount = &mounted.entry.path;
        if within.is_empty() {
            return if path.ends_with('/') { mount.clone() } else { mount.trim_end_matches('/').to_owned() };
        }
        let patterns = row.and_then(|row| mounted.table.rows().get(row.row)).map_or(&[][..], |row| &row.patterns);
        // The row may be that of the path with or without its final slash.
        let (plain, folder) = (within.trim_end_matches('/'), format!("{}/", within.trim_end_matches('/')));
        let spellings = [within.as_str(), plain, folder.as_str()];
        let masked = spellings.iter().find_map(|path| patterns.iter().find_map(|p| p.masked(path, &shown)));
        format!("{mount}{}", masked.as_deref().unwrap_or(MASK))
    }
}

/// The row of the path without its final slash, which a list has in any case, where the row says that it changes nothing.
fn row_without_slash(mounted: &Mounted, operation: Operation, within: &str) -> Option<Match> {
    let lists = operation.lists();
    let plain = within.trim_end_matches('/');
    if !lists && plain == within {
        return None;
    }
    mounted.table.find(operation, plain).filter(|found| mounted.table.rows()[found.row].takes_final_slash(found))
}

/// The row of what has a path for a name: mounts, devices, policies. As with the peer such a name may end in a slash.
fn named_row(mounted: &Mounted, operation: Operation, within: &str, found: Option<&Match>) -> Option<Match> {
    let lists = operation.lists();
    let plain = within.trim_end_matches('/');
    let named = ["mounts/", "auth/", "audit/", "policies/acl/", "policy/", "internal/ui/mounts/"]
        .iter()
        .any(|p| plain.starts_with(p));
    let listed = plain.starts_with("policies/password/");
    let of_a_name = named || lists && (listed || matches!(plain, "loggers" | "plugins/catalog"));
    let answers = |found: &Match| mounted.table.rows()[found.row].operation(operation).is_some();
    let unanswered = match found {
        Some(found) => !lists && within.ends_with('/') && !answers(found),
        None => lists || within.ends_with('/'),
    };
    if !unanswered || !(of_a_name || within == "policy/") {
        return None;
    }
    mounted.table.find(operation, plain)
}
