//! Whether a request runs at the node that receives it or at the leader of its cluster.

use keepfast_framework::Operation;
use keepfast_framework::rows::{RowInfo, Runs};

/// The place of a node in its cluster, for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// The leader, or a node without a cluster: it runs every request.
    Leader,
    /// Another node.
    Standby {
        /// Whether the leader also runs what this node could run (`disable_standby_reads`, `X-Vault-Forward`).
        forwards_all: bool,
    },
}

/// The properties of a request that decide where it runs.
pub(crate) struct Placed<'a> {
    /// The row that has the operation; `None` where the path has no such row, so that the request is refused.
    pub(crate) row: Option<&'a RowInfo>,
    /// The operation.
    pub(crate) operation: Operation,
    /// Whether the response is wrapped, which creates a token.
    pub(crate) is_wrapped: bool,
    /// Whether the request counts a use of its token.
    pub(crate) counts_use: bool,
}

impl Site {
    /// Whether this node passes the request to the leader.
    pub(crate) fn forwards(self, request: &Placed<'_>) -> bool {
        let Site::Standby { forwards_all } = self else { return false };
        let runs = request.row.map_or(Runs::Here, |row| row.runs(request.operation));
        match runs {
            Runs::OwnNode => false,
            Runs::Leader => true,
            Runs::Here => forwards_all || request.is_wrapped || request.counts_use,
        }
    }
}

#[cfg(test)]
mod tests {
    use keepfast_framework::routes::{Compiled, Help, Nothing, Routes};
    use keepfast_framework::{Cx, Result};

    use super::*;

    async fn run(_: &(), _: &mut Cx, _: Nothing) -> Result<()> {
        Ok(())
    }

    /// Whether a standby forwards an operation of the row that `declare` declares.
    fn forwards(row: &str, operation: Operation, change: fn(Placed<'_>) -> Placed<'_>) -> bool {
        let mut r: Routes<()> = Routes::new();
        let help = Help { synopsis: "", description: "" };
        r.path("plain", help).read(run).list(run).update(run).patch(run).delete(run);
        r.path("here", help).update(run).here();
        r.path("forwarded", help).read(run).update(run).forwarded();
        r.path("own", help).read(run).update(run).of_own_node();
        r.path("once", help).read(run).once();
        r.path("login", help).read(run).login();
        let compiled = Compiled::new(r);
        let found = compiled.table().find(operation, row).map(|found| &compiled.table().rows()[found.row]);
        let placed = Placed { row: found, operation, is_wrapped: false, counts_use: false };
        let placed = change(placed);
        assert!(!Site::Leader.forwards(&placed), "the leader forwards nothing");
        Site::Standby { forwards_all: false }.forwards(&placed)
    }

    #[test]
    fn reads_run_everywhere_and_writes_at_the_leader() {
        let plain = |operation| forwards("plain", operation, |placed| placed);
        assert!(!plain(Operation::Read) && !plain(Operation::List) && !plain(Operation::Help));
        assert!(plain(Operation::Update) && plain(Operation::Patch) && plain(Operation::Delete));
        assert!(!forwards("none", Operation::Update, |placed| placed), "it is refused here");
    }

    #[test]
    fn a_declared_row_decides_for_all_its_operations() {
        assert!(!forwards("here", Operation::Update, |placed| placed));
        assert!(forwards("forwarded", Operation::Read, |placed| placed));
        assert!(forwards("once", Operation::Read, |placed| placed));
        assert!(!forwards("once", Operation::Help, |placed| placed));
        assert!(forwards("login", Operation::Read, |placed| placed));
        assert!(!forwards("own", Operation::Update, |placed| placed));
    }

    #[test]
    fn a_read_that_must_write_runs_at_the_leader() {
        fn wrapped(placed: Placed<'_>) -> Placed<'_> {
            Placed { is_wrapped: true, ..placed }
        }
        fn counted(placed: Placed<'_>) -> Placed<'_> {
            Placed { counts_use: true, ..placed }
        }
        for (row, operation) in [("plain", Operation::Read), ("plain", Operation::List), ("here", Operation::Update)] {
            assert!(forwards(row, operation, wrapped), "{row}");
            assert!(forwards(row, operation, counted), "{row}");
        }
        assert!(forwards("none", Operation::Read, counted), "a refused request counts a use as well");
        assert!(!forwards("own", Operation::Read, counted));
    }

    #[test]
    fn a_standby_without_reads_runs_only_what_acts_on_itself() {
        let site = Site::Standby { forwards_all: true };
        let mut r: Routes<()> = Routes::new();
        let help = Help { synopsis: "", description: "" };
        r.path("plain", help).read(run);
        r.path("own", help).read(run).of_own_node();
        let compiled = Compiled::new(r);
        let of = |at: usize| Placed {
            row: compiled.table().rows().get(at),
            operation: Operation::Read,
            is_wrapped: false,
            counts_use: false,
        };
        assert!(site.forwards(&of(0)) && !site.forwards(&of(1)));
    }
}
