//! Batches that the leader commits for a standby, by the row whose handler wrote them. Requests that write run at the
//! leader, so there are few: reservations of counts, and records that an engine writes when it is opened.

use std::future::Future;
use std::sync::Arc;

use super::Labelled;
use crate::mount::Mounted;

tokio::task_local! {
    /// The row whose handler runs.
    static ROW: (Arc<Mounted>, usize);
}

/// Runs the handler of a row of a mount.
pub(crate) async fn of_row<T>(mounted: &Arc<Mounted>, row: usize, work: impl Future<Output = T>) -> T {
    ROW.scope((mounted.clone(), row), work).await
}

/// Counts a batch of the running handler; without one the labels are empty.
pub(super) fn count(batches: &Labelled) {
    let counted = ROW.try_with(|(mounted, row)| {
        let pattern = mounted.table.rows().get(*row).and_then(|row| row.patterns.first());
        batches.add(&[("path", pattern.map_or("", |pattern| pattern.source())), ("type", &mounted.entry.engine)]);
    });
    if counted.is_err() {
        batches.add(&[("path", ""), ("type", "")]);
    }
}
