//! Routing: finds the mount of a path, and the row of its table that has the handler.

use std::sync::Arc;

use keepfast_framework::cx::Request;
use keepfast_framework::routes::{Access, Match};
use keepfast_framework::rows::{NamespaceScope, OperationInfo, RowInfo, RunsIn};
use keepfast_framework::{Error, Incoming, Operation, Status};

use crate::mount::{Mounted, Mounts};

/// Replaces a segment of a path that the caller may not see.
pub(crate) const MASK: &str = "***";

/// A request with the target of its path: a [`Destination`], and once it is authorized a [`Target`].
///
/// A path without a mount is not refused here: a caller without a token must not learn which mounts exist, so the
/// refusal waits until the caller is known.
pub(crate) struct Routed<D = Destination> {
    /// The request.
    pub(crate) incoming: Box<Incoming>,
    /// The destination of the path.
    pub(crate) destination: D,
    /// The callers that may use the path.
    pub(crate) access: Access,
    /// The path for policies, where it differs from that of the request.
    policy_path: Option<Box<str>>,
    /// The start of the path within the mount.
    within: usize,
}

/// The destination of a path.
pub(crate) enum Destination {
    /// A mount.
    Mount(Target),
    /// No mount.
    Nowhere,
}

/// The target of a path in a mount.
pub(crate) enum Target {
    /// A row with the operation.
    Row(Call),
    /// The help of the row at this place of the table.
    RowHelp(Arc<Mounted>, usize),
    /// The help of the whole mount.
    MountHelp(Arc<Mounted>),
    /// The row at this place of the table, which lacks the operation.
    UnsupportedOperation(Arc<Mounted>, usize),
    /// No row.
    UnsupportedPath(Arc<Mounted>),
}

/// A call of an engine; its input is that of the [`Incoming`].
pub(crate) struct Call {
    /// The mount.
    pub(crate) mounted: Arc<Mounted>,
    /// The place of the row in the table.
    pub(crate) row: usize,
    /// The place of the operation in the row.
    operation: usize,
    /// The request as engines see it.
    pub(crate) request: Arc<Request>,
}

impl Call {
    /// The row's declaration.
    pub(crate) fn row(&self) -> &RowInfo {
        &self.mounted.table.rows()[self.row]
    }

    /// The declaration of the operation.
    pub(crate) fn operation(&self) -> &OperationInfo {
        &self.row().operations[self.operation]
    }
}

impl Target {
    /// The declaration of the row, whether it has the operation or not.
    fn declared_row(&self) -> Option<&RowInfo> {
        match self {
            Target::Row(call) => Some(call.row()),
            Target::RowHelp(mounted, row) | Target::UnsupportedOperation(mounted, row) => {
                mounted.table.rows().get(*row)
            }
            Target::MountHelp(_) | Target::UnsupportedPath(_) => None,
        }
    }

    /// The mount.
    pub(crate) fn mounted(&self) -> &Arc<Mounted> {
        match self {
            Target::Row(call) => &call.mounted,
            Target::RowHelp(mounted, _)
            | Target::MountHelp(mounted)
            | Target::UnsupportedOperation(mounted, _)
            | Target::UnsupportedPath(mounted) => mounted,
        }
    }
}

impl Destination {
    /// The mount, if there is one.
    pub(crate) fn mounted(&self) -> Option<&Arc<Mounted>> {
        match self {
            Destination::Mount(target) => Some(target.mounted()),
            Destination::Nowhere => None,
        }
    }

    /// The declaration of the row that the path leads to, whether it has the operation or not.
    pub(super) fn row(&self) -> Option<&RowInfo> {
        match self {
            Destination::Mount(target) => target.declared_row(),
            Destination::Nowhere => None,
        }
    }

    /// The call, if a row has the operation.
    pub(super) fn call(&self) -> Option<&Call> {
        match self {
            Destination::Mount(Target::Row(call)) => Some(call),
            _ => None,
        }
    }
}

impl<D> Routed<D> {
    /// Whether the path needs no token. As on OpenBao this applies to every operation of the path, also to unsupported ones.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.access == Access::Unauthenticated
    }

    /// The path for policies: lists end in a slash.
    pub(crate) fn policy_path(&self) -> &str {
        self.policy_path.as_deref().unwrap_or(self.incoming.path.as_str())
    }

    /// The path within the mount.
    pub(super) fn path_within(&self) -> &str {
        &self.incoming.path.as_str()[self.within..]
    }

    /// The path in the `wrap_info` of a wrapped response: that of a mount ends in a slash.
    pub(super) fn wrapped_path(&self) -> String {
        let path = self.policy_path();
        let slash = if self.path_within().is_empty() && !path.ends_with('/') { "/" } else { "" };
        format!("{path}{slash}")
    }

    /// The error with the text that OpenBao returns here: on unauthenticated paths without the "1 error occurred" frame.
    pub(super) fn reword(&self, refusal: Error) -> Error {
        if self.is_unauthenticated() { refusal.without_frame() } else { refusal }
    }
}

impl Routed {
    /// A request that no mount gets.
    pub(super) fn nowhere(incoming: Box<Incoming>) -> Self {
        let destination = Destination::Nowhere;
        Routed { incoming, destination, access: Access::Policy, policy_path: None, within: 0 }
    }

    /// The request for the leader, with which nothing was done here.
    pub(super) fn for_leader(self) -> Box<Incoming> {
        let is_unproven = self.is_unauthenticated();
        let mut incoming = self.incoming;
        incoming.input.captures = Default::default();
        incoming.cluster.get_or_insert_default().is_unproven = is_unproven;
        incoming
    }

    /// The request with its target, or the request and its refusal.
    ///
    /// An open path without a row is refused only when it runs: its first audit entry has no error, as on OpenBao.
    pub(super) fn into_target(self) -> Result<Routed<Target>, Box<(Routed, Error)>> {
        let is_unauthenticated = self.is_unauthenticated();
        let Routed { incoming, destination, access, policy_path, within } = self;
        let error = match destination {
            Destination::Mount(target) if is_unauthenticated || !matches!(target, Target::UnsupportedPath(_)) => {
                return Ok(Routed { incoming, destination: target, access, policy_path, within });
            }
            Destination::Mount(_) => Error::unsupported_path(),
            Destination::Nowhere => no_handler(&incoming),
        };
        Err(Box::new((Routed { incoming, destination, access, policy_path, within }, error)))
    }
}

impl Routed<Target> {
    /// The request as it was before it was authorized.
    pub(super) fn into_routed(self) -> Routed {
        let Routed { incoming, destination, access, policy_path, within } = self;
        Routed { incoming, destination: Destination::Mount(destination), access, policy_path, within }
    }
}

fn no_handler(incoming: &Incoming) -> Error {
    let path = incoming.path.as_str();
    // The path of a namespace itself is empty, as on OpenBao.
    let is_list = incoming.operation.lists() && (!path.is_empty() || incoming.namespace.is_empty());
    let folder = is_list.then(|| format!("{}/", path.trim_end_matches('/')));
    let path = folder.as_deref().unwrap_or(path);
    Error::new(Status::NOT_FOUND, format!("no handler for route {path:?}. route entry not found."))
}

/// The mount and the row of a path.
struct Found {
    mounted: Arc<Mounted>,
    /// The start of the path within the mount.
    within: usize,
    row: Option<Match>,
    /// Whether the row is that of the path without its final slash.
    without_slash: bool,
}

/// Finds the mount and the row of a request.
pub(super) fn route(mounts: &Mounts, mut incoming: Box<Incoming>) -> Routed {
    let (operation, path) = (incoming.operation, incoming.path.as_str());
    let Some(Found { mounted, within, row, without_slash }) = find(mounts, operation, path) else {
        let (policy_path, within) = (policy_path(operation, path, false), 0);
        let destination = Destination::Nowhere;
        return Routed { incoming, destination, access: Access::Policy, policy_path, within };
    };
    let policy_path = policy_path(operation, path, without_slash);
    let access = access(&mounted, operation, &path[within..], row.as_ref());
    let target = match row {
        _ if operation == Operation::Help && within == path.len() => Target::MountHelp(mounted),
        None => Target::UnsupportedPath(mounted),
        Some(found) if operation == Operation::Help => Target::RowHelp(mounted, found.row),
        Some(Match { row, captures }) => {
            let operations = &mounted.table.rows()[row].operations;
            match operations.iter().position(|info| info.operation == operation) {
                None => Target::UnsupportedOperation(mounted, row),
                Some(operation) => {
                    let request = Arc::new(request_of(&incoming));
                    incoming.input.captures = captures;
                    Target::Row(Call { mounted, row, operation, request })
                }
            }
        }
    };
    Routed { incoming, destination: Destination::Mount(target), access, policy_path, within }
}

/// Whether the path of a request needs no token; see [`Routed::is_unauthenticated`].
pub(crate) fn is_unauthenticated(mounts: &Mounts, operation: Operation, path: &str) -> bool {
    let Some(Found { mounted, within, row, .. }) = find(mounts, operation, path) else { return false };
    access(&mounted, operation, &path[within..], row.as_ref()) == Access::Unauthenticated
}

/// Whether the row of a request reads its `Authorization` header.
pub(crate) fn takes_authorization(mounts: &Mounts, operation: Operation, path: &str) -> bool {
    has_row(mounts, operation, path, |row| row.takes_authorization)
}

/// Whether a path is that of a login, which reads the MFA credentials of its request.
pub(crate) fn is_login(mounts: &Mounts, operation: Operation, path: &str) -> bool {
    has_row(mounts, operation, path, |row| row.login)
}

fn has_row(mounts: &Mounts, operation: Operation, path: &str, is: impl Fn(&RowInfo) -> bool) -> bool {
    let found = find(mounts, operation, path);
    found.is_some_and(|found| found.row.is_some_and(|row| found.mounted.table.rows().get(row.row).is_some_and(is)))
}

/// A property of the row of a path of an engine of core; its default for any other path.
fn core_row<T: Default>(mounts: &Mounts, operation: Operation, path: &str, of: impl Fn(&RowInfo) -> T) -> T {
    let router = mounts.router();
    let found = router.find(path).filter(|(mounted, _)| mounted.traits.in_core);
    let row = found.and_then(|(mounted, within)| mounted.table.rows().get(mounted.table.find(operation, within)?.row));
    row.map(of).unwrap_or_default()
}

/// The namespaces that have the row of a path, and the namespace in which it runs.
pub(crate) fn namespaces_of(mounts: &Mounts, operation: Operation, path: &str) -> (NamespaceScope, RunsIn) {
    core_row(mounts, operation, path, |row| (row.namespace_scope, row.runs_in))
}

/// The route of a path without a request, for explanations.
pub(crate) struct FoundRoute {
    /// The mount.
    pub(crate) mounted: Arc<Mounted>,
    /// The operation.
    pub(crate) operation: Operation,
    /// The place of the row in the table.
    pub(crate) row: Option<usize>,
    /// The callers that may use the path.
    pub(crate) access: Access,
    /// The path for policies.
    pub(crate) policy_path: String,
}

/// The route of a path; none without a mount.
pub(crate) fn found_route(mounts: &Mounts, operation: Operation, path: &str) -> Option<FoundRoute> {
    let Found { mounted, within, row, without_slash } = find(mounts, operation, path)?;
    let access = access(&mounted, operation, path.get(within..).unwrap_or_default(), row.as_ref());
    let policy_path = policy_path(operation, path, without_slash).map_or_else(|| path.to_owned(), String::from);
    Some(FoundRoute { mounted, operation, row: row.map(|found| found.row), access, policy_path })
}

fn find(mounts: &Mounts, operation: Operation, path: &str) -> Option<Found> {
    let router = mounts.router();
    let (mounted, within) = router.find(path)?;
    // The path of a list is a folder, with or without the final slash in the request.
    let row = if operation.lists() && !within.is_empty() && !within.ends_with('/') {
        mounted.table.find(operation, &format!("{within}/"))
    } else {
        mounted.table.find(operation, within)
    };
    let other = row_without_slash(mounted, operation, within, row.as_ref());
    let without_slash = other.is_some();
    let within = path.len() - within.len();
    Some(Found { mounted: mounted.clone(), within, row: other.or(row), without_slash })
}

/// A path with the mount and the literal segments of its route; `shown` renders each captured segment. A path without a
/// route becomes [`MASK`], because it could contain a token.
pub(crate) fn masked_path(mounts: &Mounts, operation: Operation, path: &str, shown: impl Fn(&str) -> String) -> String {
    let Some(Found { mounted, within, row, .. }) = find(mounts, operation, path) else { return MASK.to_owned() };
    let within = &path[within..];
    let mount = &mounted.entry.path;
    if within.is_empty() {
        return if path.ends_with('/') { mount.clone() } else { mount.trim_end_matches('/').to_owned() };
    }
    let patterns = row.and_then(|row| mounted.table.rows().get(row.row)).map_or(&[][..], |row| &row.patterns);
    // The row may be that of the path with or without its final slash.
    let (plain, folder) = (within.trim_end_matches('/'), format!("{}/", within.trim_end_matches('/')));
    let spellings = [within, plain, folder.as_str()];
    let masked = spellings.iter().find_map(|path| patterns.iter().find_map(|p| p.masked(path, &shown)));
    format!("{mount}{}", masked.as_deref().unwrap_or(MASK))
}

fn request_of(incoming: &Incoming) -> Request {
    Request {
        id: incoming.id.clone(),
        operation: incoming.operation,
        path: incoming.path.as_str().to_owned(),
        remote: incoming.remote.map(|address| address.ip()),
        tls: incoming.tls.clone(),
    }
}

/// The path for policies, where it is not the path itself.
fn policy_path(operation: Operation, path: &str, without_slash: bool) -> Option<Box<str>> {
    if operation.lists() {
        return (!path.is_empty() && !path.ends_with('/')).then(|| format!("{path}/").into());
    }
    // Policies apply to the effect of the request, in any spelling of its path.
    without_slash.then(|| path.trim_end_matches('/').into())
}

/// The access of a path: that of its row; without a row, a path below an open one is open.
fn access(mounted: &Mounted, operation: Operation, within: &str, row: Option<&Match>) -> Access {
    let is_unauthenticated = match row {
        Some(found) => return mounted.table.rows()[found.row].access,
        None if operation.lists() => mounted.table.is_unauthenticated(&format!("{}/", within.trim_end_matches('/'))),
        None => mounted.table.is_unauthenticated(within),
    };
    if is_unauthenticated { Access::Unauthenticated } else { Access::Policy }
}

/// The row of the path without its final slash (a list always has one), where that row ignores the slash and no row has the
/// path with it.
fn row_without_slash(mounted: &Mounted, operation: Operation, within: &str, found: Option<&Match>) -> Option<Match> {
    let lists = operation.lists();
    let plain = within.trim_end_matches('/');
    if !lists && plain == within {
        return None;
    }
    let rows = mounted.table.rows();
    if found.is_some_and(|found| lists || rows[found.row].operation(operation).is_some()) {
        return None;
    }
    let other = mounted.table.find(operation, plain)?;
    let row = &rows[other.row];
    let takes_slash = found.is_none() && row.takes_final_slash(&other);
    (takes_slash || row.name_may_end_in_slash || lists && row.found_by_lists).then_some(other)
}
