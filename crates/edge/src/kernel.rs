//! What stands behind the edge.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Incoming;

use crate::Answer;

/// What handles requests: the node, an agent, or in tests a kernel that returns what arrived.
pub trait Kernel: Admission {
    /// Handles a request. Runs to its end even when the client is gone.
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

    /// Counts a response by the status that the server decided.
    fn count_answer(&self, _status: StatusCode) {}

    /// The requests in flight, for a listener with `unauthenticated_in_flight_requests_access`.
    fn in_flight(&self, _caller: &Incoming) -> Answer {
        Answer::bare(StatusCode::NOT_FOUND)
    }
}

/// What is known of a request before it is read.
pub trait Admission: Send + Sync + 'static {
    /// Whether a path is served on a sealed server, without a token: such a path has no choices in its query, and its response is
    /// never wrapped.
    fn answers_sealed(&self, path: &str) -> bool;

    /// The headers that audit devices record, in lower case, and whether as HMAC.
    fn recorded_headers(&self) -> Arc<BTreeMap<String, bool>>;

    /// Counts a request against its quota; `None` where no quota applies.
    fn count_request(&self, _path: &str, _remote: Option<IpAddr>) -> Option<QuotaVerdict> {
        None
    }

    /// Whether an origin may call (CORS); `None` is an `Origin` header that is not text.
    fn check_origin(&self, _origin: Option<&str>) -> OriginCheck {
        OriginCheck::NoRules
    }

    /// The headers that an allowed origin may send, as a preflight lists them.
    fn origin_headers(&self) -> String {
        String::new()
    }
}

/// Whether an origin may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginCheck {
    /// There are no rules on origins: responses have no headers of CORS.
    NoRules,
    /// It may.
    Allowed,
    /// It may not.
    Denied,
}

/// What a quota says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaVerdict {
    /// Whether the request is refused.
    pub refused: bool,
    /// How many requests an interval has.
    pub limit: u64,
    /// How many of them are left.
    pub remaining: u64,
    /// Seconds until the next interval.
    pub reset: u64,
    /// Seconds until a new attempt may succeed.
    pub retry_after: u64,
    /// Whether the response has these numbers as headers.
    pub with_headers: bool,
    /// Whether a refusal is recorded.
    pub audits_refusal: bool,
}
