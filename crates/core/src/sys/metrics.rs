//! `sys/metrics`: the metrics of the server.

use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::fields::Text;
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Result, Routes, Status, Timestamp};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{System, call};
use crate::lifecycle::Lifecycle;
use crate::metrics::{format, gather};
use crate::request::Response;

const HELP: Help = Help {
    synopsis: "Returns the metrics of the server.",
    description: "In Vault's JSON format, or for Prometheus with format=prometheus or an Accept header with a format of Prometheus.",
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a metrics document is reused for unauthenticated requests.
const FRESH: Duration = Duration::from_secs(1);

/// The last metrics documents for unauthenticated requests, by format.
#[derive(Default)]
pub(crate) struct OpenMetrics {
    json: Mutex<Option<Document>>,
    prometheus: Mutex<Option<Document>>,
}

struct Document {
    at: Timestamp,
    /// Whether the server was sealed; a document of the other state is not reused.
    sealed: bool,
    status: Status,
    content_type: &'static str,
    body: Bytes,
}

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("metrics", HELP).read(metrics).of_own_node().not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct Format {
    /// `prometheus`. Default: the format of the Accept header if it is one of Prometheus, otherwise JSON.
    format: Option<Text>,
}

async fn metrics(sys: &System, cx: &mut Cx, req: Format) -> Result<Raw> {
    let format = req.format.as_deref().unwrap_or_default();
    document(&*sys.lifecycle()?, format, call(cx)?.facts.accepts_prometheus)
}

impl OpenMetrics {
    /// The metrics for a caller without a token. Each format is collected at most once in [`FRESH`], because collecting
    /// costs far more than a request.
    pub(crate) fn answer(&self, server: &Lifecycle, format: &str, accepts_prometheus: bool) -> Response {
        let documents = match (format, accepts_prometheus) {
            ("prometheus", _) | ("", true) => &self.prometheus,
            ("", false) => &self.json,
            (unknown, _) => {
                return document(server, unknown, accepts_prometheus)
                    .map_or_else(|e| Response::failed(&e), Response::unaudited);
            }
        };
        // Concurrent requests wait here for the new document.
        let mut kept = documents.lock();
        let (now, sealed) = (server.parts.clock.now(), server.is_sealed());
        let fresh = kept.take().filter(|made| made.sealed == sealed && made.at <= now && now.since(made.at) < FRESH);
        let current = match fresh {
            Some(fresh) => fresh,
            None => match document(server, format, accepts_prometheus) {
                Ok(Raw { status, content_type, body, .. }) => {
                    Document { at: now, sealed, status, content_type, body: body.into() }
                }
                Err(error) => return Response::failed(&error),
            },
        };
        let response = Response::document(current.status, current.content_type, current.body.clone());
        *kept = Some(current);
        response
    }
}

/// The metrics in this format.
fn document(server: &Lifecycle, format: &str, accepts_prometheus: bool) -> Result<Raw> {
    let telemetry = &server.parts.settings.telemetry;
    let text =
        |status, text: String| Raw { status, content_type: "text/plain", body: text.into_bytes(), headers: Vec::new() };
    let format = if format.is_empty() && accepts_prometheus { "prometheus" } else { format };
    Ok(match format {
        "" => Raw {
            status: Status::OK,
            content_type: "application/json",
            body: format::json(
                &gather::gather(server),
                &server.parts.metrics.turns.lock(),
                &telemetry.prefix,
                server.parts.clock.now(),
            )?,
            headers: Vec::new(),
        },
        "prometheus" if telemetry.prometheus_retention.is_zero() => {
            text(Status::BAD_REQUEST, "prometheus is not enabled".to_owned())
        }
        "prometheus" => Raw {
            status: Status::OK,
            content_type: PROMETHEUS,
            body: format::prometheus(&gather::gather(server), &telemetry.prefix).into_bytes(),
            headers: Vec::new(),
        },
        other => text(Status::BAD_REQUEST, format!("metric response format {other:?} unknown")),
    })
}
