//! Timings of the engine of each mount, by operation.

use std::sync::OnceLock;
use std::time::Duration;

use keepfast_framework::Operation;

use super::{Item, Timing, Value};

/// The operation of an engine, under Vault's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Vault's own")]
pub(crate) enum RouteOperation {
    Create,
    Read,
    Update,
    Patch,
    Delete,
    List,
    Scan,
    Renew,
    Revoke,
}

const NAMES: [&str; 9] = ["create", "read", "update", "patch", "delete", "list", "scan", "renew", "revoke"];

impl RouteOperation {
    /// The operation of a request. `creates` states whether an update created its object. Help and HEAD reach no
    /// engine.
    pub(crate) fn of(operation: Operation, creates: bool) -> Option<Self> {
        Some(match operation {
            Operation::Update if creates => RouteOperation::Create,
            Operation::Update => RouteOperation::Update,
            Operation::Read => RouteOperation::Read,
            Operation::Patch => RouteOperation::Patch,
            Operation::Delete => RouteOperation::Delete,
            Operation::List => RouteOperation::List,
            Operation::Scan => RouteOperation::Scan,
            Operation::Help | Operation::Head => return None,
        })
    }
}

/// The timings of one mount. One takes some kilobytes, so each is allocated at its first use.
#[derive(Default)]
pub(crate) struct RouteTimings([OnceLock<Box<Timing>>; NAMES.len()]);

impl RouteTimings {
    /// Records one call of the engine.
    pub(crate) fn record(&self, operation: RouteOperation, took: Duration) {
        self.0[operation as usize].get_or_init(Box::default).record(took);
    }

    /// Ends an interval.
    pub(super) fn turn_all(&self) {
        self.0.iter().filter_map(OnceLock::get).for_each(|timing| timing.turn());
    }

    /// The timings that are not empty, with the mount path in their names, as in Vault.
    pub(super) fn items(&self, mount: &str) -> Vec<Item> {
        let mount = mount.replace('/', "-");
        let item = |(name, timing): (&&str, &OnceLock<Box<Timing>>)| {
            Some(Item::new(format!("route.{name}.{mount}"), Value::Summary(timing.get()?.read())))
        };
        NAMES.iter().zip(&self.0).filter_map(item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_vaults() {
        let timings = RouteTimings::default();
        timings.record(RouteOperation::Revoke, Duration::ZERO);
        timings.record(RouteOperation::of(Operation::Update, true).unwrap(), Duration::ZERO);
        timings.record(RouteOperation::of(Operation::Scan, false).unwrap(), Duration::ZERO);
        let names: Vec<_> = timings.items("auth/team/").into_iter().map(|i| i.name).collect();
        assert_eq!(names, ["route.create.auth-team-", "route.scan.auth-team-", "route.revoke.auth-team-"]);
        assert!(timings.items("x/").len() == 3 && RouteOperation::of(Operation::Help, false).is_none());
    }
}
