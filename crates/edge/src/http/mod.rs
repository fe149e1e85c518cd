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

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use keepfast_framework::{CanonicalPath, Incoming, Operation, QueryValue};

use self::answer::{Answer, Told};
use self::body::BodyMemory;
use self::finish::Finish;
use self::request::{Admitted, Admitting, Rules};
use self::response::Reply;
use crate::config::{CustomHeader, Limits, ListenerConfig};
use crate::connections::{Charge, Peer};
use crate::kernel::Kernel;

/// What the task holds that drops the rest of a body, in bytes.
const UNREAD: usize = 12 << 10;
/// How many requests without a token that is alive a connection may have open at once before its first one with such a
/// token.
const FIRST_STREAMS: u32 = 32;

/// The rules of a listener, and the kernel behind them.
pub struct Edge<K> {
    kernel: Arc<K>,
    memory: Arc<BodyMemory>,
    rules: Rules,
    headers: Vec<CustomHeader>,
    open_metrics: bool,
    open_in_flight: bool,
}

impl<K: Kernel> Edge<K> {
    /// The edge of a listener. `memory` is what the bodies of all listeners share.
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
        let admitting = Admitting { kernel: &*self.kernel, rules: &self.rules, memory: &self.memory, peer, held };
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
