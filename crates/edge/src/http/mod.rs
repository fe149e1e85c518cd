//! HTTP between a connection and the kernel.

pub(crate) mod body;
mod cors;
mod discard_body;
pub(crate) mod edge_response;
mod headers;
mod json_limits;
mod path;
mod query;
mod quota;
mod request;
mod response;
mod run_to_end;
mod upload;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use keepfast_framework::{CanonicalPath, Incoming, Operation, QueryValue};
use tokio::sync::OwnedSemaphorePermit;

use self::body::BodyMemory;
use self::edge_response::{EdgeResponse, ResponseExtras};
use self::request::{Admitted, Admitting, Rules};
use self::response::ResponseBody;
use self::run_to_end::FinishOnDrop;
use crate::config::{CustomHeader, Limits, ListenerConfig};
use crate::connections::{Charge, Peer};
use crate::kernel::Kernel;

/// The memory of the task that drops the rest of a body, in bytes.
const DISCARD_MEMORY: usize = 12 << 10;
/// The most concurrent requests without a live token of a connection before its first request with a live one.
const FIRST_STREAMS: u32 = 32;

/// The settings of a listener and its kernel.
pub struct Edge<K> {
    kernel: Arc<K>,
    memory: Arc<BodyMemory>,
    rules: Rules,
    /// `custom_response_headers`.
    headers: Vec<CustomHeader>,
    /// Whether `sys/metrics` needs no token.
    open_metrics: bool,
    /// Whether `sys/in-flight-req` needs no token.
    open_in_flight: bool,
}

impl<K: Kernel> Edge<K> {
    /// Creates the edge of a listener. The bodies of all listeners share `memory`.
    pub fn new(kernel: Arc<K>, memory: Arc<BodyMemory>, listener: &ListenerConfig) -> Arc<Self> {
        let rules = Rules { limits: listener.limits, forwarded: listener.forwarded.clone(), open: listener.open };
        Arc::new(Edge {
            kernel,
            memory,
            rules,
            headers: listener.headers.clone(),
            open_metrics: listener.open_metrics,
            open_in_flight: listener.open_in_flight,
        })
    }

    /// The limits of the connections of this listener.
    pub(crate) fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    /// The most connections of an address; `quarter` is a quarter of all connections. `None`, for a proxy, is no limit.
    pub(crate) fn connections_per_source(&self, address: IpAddr, quarter: usize) -> Option<usize> {
        if self.rules.forwarded.authorized.iter().any(|net| net.contains(&address)) {
            return None;
        }
        match self.rules.limits.connections_per_source {
            0 => Some(quarter),
            usize::MAX => None,
            most => Some(most),
        }
    }

    /// Handles one request, from its head to its response. `held` is the memory that the request counts against the limit
    /// of its connection, until the response is sent.
    pub(crate) async fn serve(
        &self,
        request: Request<hyper::body::Incoming>,
        peer: &Arc<Peer>,
        mut held: Charge,
    ) -> Response<ResponseBody> {
        let mut extras = ResponseExtras::default();
        if peer.is_closing() {
            // No client reads a response any more, and the memory of the request is needed.
            let refusal = EdgeResponse::error(StatusCode::SERVICE_UNAVAILABLE, "the connection is being closed");
            return response::to_http(refusal, extras.headers, &self.headers, held, None);
        }
        let mut download = None;
        let (response, held) = match self.admit(request, peer, &mut held, &mut extras).await {
            Ok(admitted) if self.open_metrics && is_metrics_request(&admitted.incoming) => {
                let format = admitted.incoming.input.query.get("format").map_or("", QueryValue::first);
                (self.kernel.metrics(format, admitted.incoming.accepts_prometheus), held)
            }
            Ok(admitted) if self.open_in_flight && admitted.incoming.path.as_str() == "sys/in-flight-req" => {
                match admitted.incoming.method {
                    "GET" => (self.kernel.in_flight(&admitted.incoming), held),
                    _ => (EdgeResponse::bare(StatusCode::METHOD_NOT_ALLOWED), held),
                }
            }
            Ok(admitted) => match self.download(&admitted.incoming).await {
                Ok(permit) => {
                    let (response, held, permit) = self.run(admitted, (held, permit), peer).await;
                    download = permit;
                    (response, held)
                }
                Err(refusal) => (refusal, held),
            },
            Err(refusal) => (refusal, held),
        };
        self.kernel.count_response(response.decided);
        response::to_http(response, extras.headers, &self.headers, held, download)
    }

    /// The permit of a request whose response is a file. A caller without a live token, whom the kernel refuses, takes none.
    async fn download(&self, incoming: &Incoming) -> Result<Option<OwnedSemaphorePermit>, EdgeResponse> {
        let Some(token) = incoming.token.as_ref().filter(|_| is_snapshot_request(incoming)) else { return Ok(None) };
        if !self.kernel.is_live_token(token, incoming.remote.map(|address| address.ip())).await {
            return Ok(None);
        }
        let text = "other snapshots are being downloaded";
        let permit = self.memory.download();
        permit.map(Some).ok_or_else(|| EdgeResponse::error(StatusCode::SERVICE_UNAVAILABLE, text))
    }

    async fn admit(
        &self,
        request: Request<hyper::body::Incoming>,
        peer: &Arc<Peer>,
        held: &mut Charge,
        extras: &mut ResponseExtras,
    ) -> Result<Admitted, EdgeResponse> {
        let admitting = Admitting { kernel: &*self.kernel, rules: &self.rules, memory: &self.memory, peer, held };
        let admitted = request::admit(request, admitting, extras).await;
        // A request that a quota refused and that the quota configuration requires to be audited.
        if let Some(refused) = extras.refused.take() {
            self.kernel.audit_refusal(refused).await;
        }
        admitted
    }

    /// Returns the kernel's response and what it holds: memory, and the permit of a file. A request continues, and counts,
    /// when its client disconnects.
    async fn run(
        &self,
        admitted: Admitted,
        (held, permit): (Charge, Option<OwnedSemaphorePermit>),
        peer: &Arc<Peer>,
    ) -> (EdgeResponse, Charge, Option<OwnedSemaphorePermit>) {
        let kernel = self.kernel.clone();
        let Admitted { incoming, share, upload } = admitted;
        let work = FinishOnDrop::new(async move {
            // A panic fails its request only. Its message could contain secrets, so neither log nor response contain
            // it.
            let outcome = AssertUnwindSafe(kernel.handle(incoming)).catch_unwind().await;
            drop((share, upload));
            let response =
                outcome.unwrap_or_else(|_| EdgeResponse::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
            (response, held, permit)
        });
        match peer.timer.limit(self.rules.limits.duration, work).await {
            Some(outcome) => outcome,
            None => {
                let text = "the request took longer than max_request_duration";
                (EdgeResponse::error(StatusCode::SERVICE_UNAVAILABLE, text), Charge::new(peer, DISCARD_MEMORY), None)
            }
        }
    }
}

fn is_metrics_request(incoming: &Incoming) -> bool {
    incoming.operation == Operation::Read && is_metrics_path(&incoming.path)
}

/// Whether the response may be a file.
fn is_snapshot_request(incoming: &Incoming) -> bool {
    incoming.operation == Operation::Read && incoming.path.as_str().trim_end_matches('/') == "sys/storage/raft/snapshot"
}

fn is_metrics_path(path: &CanonicalPath) -> bool {
    path.as_str() == "sys/metrics"
}
