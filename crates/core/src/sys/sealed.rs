//! Handles the rows of `sys/` that work on a sealed server, outside the request pipeline: without a token, and without
//! audit, because a sealed server has no audit devices.
//!
//! These are health, seal-status, init, unseal and leader, `sys/seal` on a sealed server, and a step-down on a server
//! without a cluster. Such a row also refuses an unsupported method here, with 405, whether or not its own methods pass
//! through the stages.

use std::sync::{Arc, LazyLock};

use keepfast_framework::routes::Compiled;
use keepfast_framework::rows::NamespaceScope;
use keepfast_framework::{Error, Incoming, Operation, Status};

use super::System;
use crate::layout::SYSTEM_MOUNT;
use crate::request::Response;

static TABLE: LazyLock<Arc<Compiled<System>>> = LazyLock::new(|| Arc::new(Compiled::of_engine()));

/// The rows that work on a sealed server, by their paths within the mount.
static ROWS: LazyLock<Vec<(&'static str, usize)>> = LazyLock::new(|| {
    let rows = TABLE.table().rows().iter().enumerate().filter(|(_, row)| row.sealed);
    rows.flat_map(|(at, row)| row.patterns.iter().map(move |pattern| (pattern.source(), at))).collect()
});

/// The rows whose bodies are bytes, by their paths within the mount.
static RAW: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let rows = TABLE.table().rows().iter().filter(|row| row.raw_body);
    rows.flat_map(|row| row.patterns.iter().map(|pattern| pattern.source())).collect()
});

/// The rows that run without a leader, by their paths within the mount.
static WITHOUT_LEADER: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let rows = TABLE.table().rows().iter().filter(|row| row.without_leader);
    rows.flat_map(|row| row.patterns.iter().map(|pattern| pattern.source())).collect()
});

/// The table of `sys/`, which is compiled once.
pub(crate) fn table() -> Arc<Compiled<System>> {
    TABLE.clone()
}

/// Whether a path works on a sealed server, without a token and without audit.
pub fn is_served_sealed(path: &str) -> bool {
    row(path).is_some()
}

/// Whether a path ends in one that works on a sealed server, after a namespace.
pub(crate) fn ends_in_served_sealed(path: &str) -> bool {
    let after_namespace =
        |source: &str| path.strip_suffix(source)?.strip_suffix(SYSTEM_MOUNT)?.strip_suffix('/').map(drop);
    ROWS.iter().any(|(source, _)| after_namespace(source).is_some())
}

/// Whether the body of an update of this path is bytes and no JSON.
pub fn takes_raw_body(path: &str) -> bool {
    let Some(within) = path.strip_prefix(SYSTEM_MOUNT) else { return false };
    RAW.contains(&within)
}

/// Whether a node that has no leader runs this path on its own state.
pub(crate) fn runs_without_leader(path: &str) -> bool {
    let Some(within) = path.strip_prefix(SYSTEM_MOUNT) else { return false };
    WITHOUT_LEADER.contains(&within)
}

fn row(path: &str) -> Option<usize> {
    let within = path.strip_prefix(SYSTEM_MOUNT)?;
    ROWS.iter().find(|(source, _)| *source == within).map(|(_, row)| *row)
}

/// Handles a request that needs no unsealed server; `None` for any other. Help is not handled here: it is audited, and
/// that of `sys/seal` needs a token.
pub(crate) async fn answer(system: &System, incoming: &Incoming) -> Option<Response> {
    let row = row(incoming.path.as_str())?;
    let operation = incoming.operation;
    if operation == Operation::Help {
        return None;
    }
    let scope = TABLE.table().rows()[row].namespace_scope;
    if let (NamespaceScope::NotInNamespaces, Some(text), false) =
        (scope, scope.refusal(), incoming.namespace.is_empty())
    {
        return Some(Response::failed(&Error::invalid(text)));
    }
    let Some(answer) = TABLE.handle_sealed(system, row, operation, &incoming.input) else {
        return Some(Response::failed(&Error::new(Status::METHOD_NOT_ALLOWED, "")));
    };
    match answer.await {
        Ok(reply) => reply.map(Response::exempt),
        Err(error) => Some(Response::failed(&error)),
    }
}
