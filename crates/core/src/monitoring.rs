//! Monitoring for the process and for listeners that allow it: metrics and requests in flight.

use std::sync::Arc;

use keepfast_framework::Incoming;

use crate::lifecycle::Lifecycle;
use crate::metrics::{Item, gather, usage};
use crate::request::Response;
use crate::sys::in_flight;
use crate::sys::metrics::OpenMetrics;

/// The metrics and the requests in flight.
pub struct Monitoring {
    lifecycle: Arc<Lifecycle>,
    /// The metrics for listeners with `unauthenticated_metrics_access`.
    open_metrics: OpenMetrics,
}

impl Monitoring {
    pub(crate) fn new(lifecycle: Arc<Lifecycle>) -> Self {
        Monitoring { lifecycle, open_metrics: OpenMetrics::default() }
    }

    /// All metrics, by name.
    pub fn gather(&self) -> Vec<Item> {
        gather::gather(&self.lifecycle)
    }

    /// Ends the intervals of the metrics and counts usage, until it is dropped.
    pub async fn keep_metrics(&self) {
        usage::keep(&self.lifecycle).await;
    }

    /// Counts a response by its status code.
    pub fn count_response(&self, status: u16) {
        self.lifecycle.parts.metrics.responses.add(status);
    }

    /// The metrics, for a listener with `unauthenticated_metrics_access`. They contain no name of a user. The request
    /// is not audited.
    pub fn open_metrics(&self, format: &str, accepts_prometheus: bool) -> Response {
        self.open_metrics.answer(&self.lifecycle, format, accepts_prometheus)
    }

    /// The requests in flight, for a listener with `unauthenticated_in_flight_requests_access`. Names in their paths
    /// are masked, because the caller has no token. The request is not audited.
    pub fn open_in_flight(&self, request: &Incoming) -> Response {
        in_flight::open(&self.lifecycle, request)
    }
}
