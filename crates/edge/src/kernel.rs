//! The interface of the edge to the program behind it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use http::StatusCode;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Incoming;

use crate::EdgeResponse;

/// The handler of requests: the node, an agent, or in tests a kernel that returns the request.
pub trait Kernel: Admission {
    /// Handles a request. Runs to its end even when the client disconnects.
    fn handle(&self, incoming: Box<Incoming>) -> impl Future<Output = EdgeResponse> + Send;

    /// Whether a token is valid and may be used from this address. Does not count a use of it.
    fn is_live_token(&self, token: &SecretString, remote: Option<IpAddr>) -> impl Future<Output = bool> + Send;

    /// Waits until the rules of admission that other nodes have acknowledged apply here.
    fn settle(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Where a body of bytes is received that may be larger than the memory for bodies: only of a caller who may send it.
    /// `None` for one that is received in memory; `fits` is whether its announced length is within `max_request_size`.
    fn upload(
        &self,
        _head: &Incoming,
        _fits: bool,
    ) -> impl Future<Output = Result<Option<Upload>, EdgeResponse>> + Send {
        std::future::ready(Ok(None))
    }

    /// Audits a request that a quota refuses.
    fn audit_refusal(&self, _refused: Box<Incoming>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The metrics, for a listener with `unauthenticated_metrics_access`.
    fn metrics(&self, _format: &str, _accepts_prometheus: bool) -> EdgeResponse {
        EdgeResponse::bare(StatusCode::NOT_FOUND)
    }

    /// Counts a response by the status that the server chose.
    fn count_response(&self, _status: StatusCode) {}

    /// The requests in flight, for a listener with `unauthenticated_in_flight_requests_access`.
    fn in_flight(&self, _caller: &Incoming) -> EdgeResponse {
        EdgeResponse::bare(StatusCode::NOT_FOUND)
    }
}

/// Where the body of a request is received into a file.
pub struct Upload {
    /// The directory of the file.
    pub directory: PathBuf,
    /// The longest body in bytes.
    pub longest: u64,
    /// Held until the request is handled, so that there is one such file at a time.
    pub turn: Box<dyn UploadTurn>,
}

/// The turn of an upload, which another caller may take from one that is slow.
pub trait UploadTurn: Send + Sync {
    /// Counts bytes of the body. Returns false when the turn was taken.
    fn received(&self, bytes: u64) -> bool;

    /// Ends the body: the turn cannot be taken afterwards. Returns false when it was taken before.
    fn complete(&self) -> bool;

    /// Waits until the turn is taken.
    fn taken(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The checks of a request before it is read.
pub trait Admission: Send + Sync + 'static {
    /// Whether a path is served on a sealed server, without a token: `list` and `scan` of its query do not select an
    /// operation, and its response is never wrapped.
    fn is_served_sealed(&self, path: &str) -> bool;

    /// Whether the body of an update of this path is bytes and no JSON.
    fn takes_raw_body(&self, _path: &str) -> bool {
        false
    }

    /// The names of the audited headers in lower case, and whether audit entries contain the HMAC of their values.
    fn audited_headers(&self) -> Arc<BTreeMap<String, bool>>;

    /// Whether there are quotas.
    fn has_quotas(&self) -> bool {
        false
    }

    /// Counts a request against its quota; `None` where no quota applies. `namespace` is its header.
    fn count_request(
        &self,
        _namespace: &str,
        _path: &str,
        _remote: Option<IpAddr>,
    ) -> impl Future<Output = Option<QuotaResult>> + Send {
        std::future::ready(None)
    }

    /// Whether an origin may call (CORS); `None` is an `Origin` header that is not text.
    fn check_origin(&self, _origin: Option<&str>) -> OriginCheck {
        OriginCheck::NoRules
    }

    /// The headers that an allowed origin may send, as a list for a preflight.
    fn origin_headers(&self) -> String {
        String::new()
    }
}

/// The result of the check of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginCheck {
    /// No CORS rules exist: responses have no CORS headers.
    NoRules,
    /// The origin is allowed.
    Allowed,
    /// The origin is refused.
    Denied,
}

/// The result of a quota for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaResult {
    /// Whether the request is refused.
    pub refused: bool,
    /// The number of requests in an interval.
    pub limit: u64,
    /// The number of remaining requests.
    pub remaining: u64,
    /// Seconds until the next interval.
    pub reset: u64,
    /// Seconds until a retry may succeed.
    pub retry_after: u64,
    /// Whether the response has these numbers as headers.
    pub with_headers: bool,
    /// Whether a refusal is audited.
    pub audits_refusal: bool,
}
