//! `sys/metrics`: what the server counts of itself.

use keepfast_framework::fields::Text;
use keepfast_framework::reply::Raw;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Result, Routes, Status};
use schemars::JsonSchema;
use serde::Deserialize;

use super::System;
use crate::metrics::format;
use crate::node::Node;
use crate::request::Response;

const HELP: Help = Help {
    synopsis: "What the server counts of itself.",
    description: "As Vault's JSON, or with format=prometheus for Prometheus.",
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("metrics", HELP).read(metrics);
}

#[derive(Deserialize, JsonSchema)]
struct Format {
    /// `prometheus`, or empty for JSON.
    format: Option<Text>,
}

async fn metrics(sys: &System, _: &mut Cx, req: Format) -> Result<Raw> {
    sys.node()?.metrics_as(req.format.as_deref().unwrap_or_default())
}

impl Node {
    fn metrics_as(&self, format: &str) -> Result<Raw> {
        let telemetry = &self.settings.telemetry;
        let text = |status, text: String| Raw { status, content_type: "text/plain", body: text.into_bytes() };
        Ok(match format {
            "" => Raw {
                status: Status::OK,
                content_type: "application/json",
                body: format::json(&self.gather(), &telemetry.prefix, self.clock.now())?,
            },
            "prometheus" if telemetry.prometheus_retention.is_zero() => {
                text(Status::BAD_REQUEST, "prometheus is not enabled".to_owned())
            }
            "prometheus" => Raw {
                status: Status::OK,
                content_type: PROMETHEUS,
                body: format::prometheus(&self.gather(), &telemetry.prefix).into_bytes(),
            },
            other => text(Status::BAD_REQUEST, format!("metric response format {other:?} unknown")),
        })
    }

    /// The metrics for whoever asks, where a listener allows that. Nobody is named in them and no device records it.
    pub fn open_metrics(&self, format: &str) -> Response {
        match self.metrics_as(format) {
            Ok(raw) => Response::unrecorded(raw),
            Err(error) => Response::failed(&error),
        }
    }
}
