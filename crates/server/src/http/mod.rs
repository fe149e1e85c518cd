//! HTTP: everything between a connection's bytes and the kernel.

pub(crate) mod answer;
pub(crate) mod body;
mod budget;
mod cors;
mod finish;
mod headers;
mod path;
mod query;
mod quota;
mod request;
mod response;
mod unread;

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use keepfast_core::Incoming;
use keepfast_core::admission::Admission;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{CanonicalPath, Operation, QueryValue};

use self::answer::{Answer, Told};
use self::body::BodyMemory;
use self::finish::Finish;
use self::request::{Admitted, Admitting, Rules};
use self::response::Reply;
use crate::config::{CustomHeader, Limits, ListenerConfig};
use crate::connections::{Charge, Peer};

/// What the task holds that drops the rest of a body, in bytes.
const UNREAD: usize = 12 << 10;
/// How many requests without a token that is alive a connection may have open at once before its first one with such a
/// token.
const FIRST_STREAMS: u32 = 32;

/// What answers requests: the node, or in tests something that tells what arrived.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// Answers one request. Runs to its end even when the client is gone.
    fn handle(&self, incoming: Box<Incoming>) -> impl Future<Output = Answer> + Send;

    /// Whether a token is alive and may come from this address. Counts no use of it.
    fn knows(&self, token: &SecretString, remote: Option<IpAddr>) -> impl Future<Output = bool> + Send;

    /// Records a request that a quota has refused.
    fn record_refusal(&self, _refused: Box<Incoming>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The metrics, for a listener with `unauthenticated_metrics_access`.
    fn metrics(&self, _format: &str, _accepts_prometheus: bool) -> Answer {
        Answer::bare(StatusCode::NOT_FOUND)
    }

    /// Counts an answer by the status that the server decided.
    fn count_answer(&self, _status: StatusCode) {}

    /// The requests in flight, for a listener with `unauthenticated_in_flight_requests_access`.
    fn in_flight(&self, _asking: &Incoming) -> Answer {
        Answer::bare(StatusCode::NOT_FOUND)
    }
}

/// One listener's edge: its rules and the kernel behind them.
pub(crate) struct Edge<K> {
    kernel: Arc<K>,
    admission: Arc<Admission>,
    memory: Arc<BodyMemory>,
    rules: Rules,
    headers: Vec<CustomHeader>,
    open_metrics: bool,
    open_in_flight: bool,
}

impl<K: Kernel> Edge<K> {
    pub(crate) fn new(
        kernel: Arc<K>,
        admission: Arc<Admission>,
        memory: Arc<BodyMemory>,
        listener: &ListenerConfig,
    ) -> Arc<Self> {
        let rules = Rules { limits: listener.limits, forwarded: listener.forwarded.clone(), open: listener.open };
        Arc::new(Edge {
            kernel,
            admission,
            memory,
            rules,
            headers: listener.headers.clone(),
            open_metrics: listener.open_metrics,
            open_in_flight: listener.open_in_flight,
        })
    }

    /// The limits that connections of this listener live under.
    pub(crate) fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    /// How many connections an address may have, of which `quarter` is a quarter of all; `None` for a proxy.
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

    /// One request, from its head to its answer. `held` is what it holds until the answer is sent.
    pub(crate) async fn serve(
        &self,
        request: Request<hyper::body::Incoming>,
        peer: &Arc<Peer>,
        mut held: Charge,
    ) -> Response<Reply> {
        let mut told = Told::default();
        if peer.is_closing() {
            // Nobody will read an answer, and what the request holds is wanted back.
            let refusal = Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the connection is being closed");
            return response::dress(refusal, told.headers, &self.headers, held);
        }
        let (answer, held) = match self.admit(request, peer, &mut held, &mut told).await {
            Ok(admitted) if self.open_metrics && asks_for_metrics(&admitted.incoming) => {
                let format = admitted.incoming.input.query.get("format").map_or("", QueryValue::first);
                (self.kernel.metrics(format, admitted.incoming.accepts_prometheus), held)
            }
            Ok(admitted) if self.open_in_flight && admitted.incoming.path.as_str() == "sys/in-flight-req" => {
                match admitted.incoming.method {
                    "GET" => (self.kernel.in_flight(&admitted.incoming), held),
                    _ => (Answer::bare(StatusCode::METHOD_NOT_ALLOWED), held),
                }
            }
            Ok(admitted) => self.run(admitted, held, peer).await,
            Err(refusal) => (refusal, held),
        };
        self.kernel.count_answer(answer.decided);
        response::dress(answer, told.headers, &self.headers, held)
    }

    async fn admit(
        &self,
        request: Request<hyper::body::Incoming>,
        peer: &Arc<Peer>,
        held: &mut Charge,
        told: &mut Told,
    ) -> Result<Admitted, Answer> {
        let admitting = Admitting {
            kernel: &*self.kernel,
            rules: &self.rules,
            memory: &self.memory,
            admission: &self.admission,
            peer,
            held,
        };
        let admitted = request::admit(request, admitting, told).await;
        if let Some(refused) = told.refused.take() {
            self.kernel.record_refusal(refused).await;
        }
        admitted
    }

    /// The kernel's answer, and what counts for it. A request goes on, and counts, when its client does not wait for it.
    async fn run(&self, admitted: Admitted, held: Charge, peer: &Arc<Peer>) -> (Answer, Charge) {
        let kernel = self.kernel.clone();
        let Admitted { incoming, share } = admitted;
        let work = Finish::new(async move {
            // A panic ends its request only. Its message could hold anything, so neither log nor answer repeat it.
            let outcome = AssertUnwindSafe(kernel.handle(incoming)).catch_unwind().await;
            drop(share);
            let answer = outcome.unwrap_or_else(|_| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
            (answer, held)
        });
        match tokio::time::timeout(self.rules.limits.duration, work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let text = "the request took longer than max_request_duration";
                (Answer::error(StatusCode::SERVICE_UNAVAILABLE, text), Charge::new(peer, UNREAD))
            }
        }
    }
}

fn asks_for_metrics(incoming: &Incoming) -> bool {
    incoming.operation == Operation::Read && names_metrics(&incoming.path)
}

fn names_metrics(path: &CanonicalPath) -> bool {
    path.as_str() == "sys/metrics"
}
