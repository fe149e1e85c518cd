//! Batches that the leader commits for a standby, by the row whose handler wrote them. Requests that write run at the
//! leader, so there are few: reservations of counts, and records that an engine writes when it is opened.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

use super::Labelled;

/// The rows of a mount, for the labels of a metric.
pub(crate) trait MountRows: Send + Sync {
    /// The pattern of a row, and the type of the engine.
    fn labels(&self, row: usize) -> (&str, &str);
}

tokio::task_local! {
    /// The row whose handler runs, on a standby.
    static ROW: RefCell<Option<(Arc<dyn MountRows>, usize)>>;
}

/// Runs the stages of a request on a standby.
pub(crate) async fn of_request<T>(stages: impl Future<Output = T>) -> T {
    ROW.scope(RefCell::default(), stages).await
}

/// Notes the row whose handler is about to run. Does nothing on other nodes.
pub(crate) fn runs<M: MountRows + 'static>(mounted: &Arc<M>, row: usize) {
    let _ = ROW.try_with(|noted| *noted.borrow_mut() = Some((mounted.clone() as Arc<dyn MountRows>, row)));
}

/// Counts a batch of the running handler; without one the labels are empty.
pub(super) fn count(batches: &Labelled) {
    let row = ROW.try_with(|noted| noted.borrow().clone()).ok().flatten();
    let Some((mounted, row)) = row else { return batches.add(&[("path", ""), ("type", "")]) };
    let (path, engine) = mounted.labels(row);
    batches.add(&[("path", path), ("type", engine)]);
}
