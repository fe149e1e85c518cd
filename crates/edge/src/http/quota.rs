//! Quotas in HTTP: 429, and headers with the remaining requests.

use http::header::RETRY_AFTER;
use http::{HeaderName, StatusCode};
use keepfast_framework::CanonicalPath;

use super::edge_response::{EdgeResponse, ResponseExtras};
use crate::kernel::QuotaResult;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Refuses a request when its quota is exceeded. `extras` receives the headers of the response, whatever its status.
pub(crate) fn apply(
    path: &CanonicalPath,
    verdict: QuotaResult,
    extras: &mut ResponseExtras,
) -> Result<(), EdgeResponse> {
    if verdict.with_headers {
        extras.headers.push((LIMIT, verdict.limit.into()));
        extras.headers.push((REMAINING, verdict.remaining.into()));
        extras.headers.push((RESET, verdict.reset.into()));
        if verdict.refused {
            extras.headers.push((RETRY_AFTER, verdict.retry_after.into()));
        }
    }
    if !verdict.refused {
        return Ok(());
    }
    let path = path.as_str();
    Err(EdgeResponse::error(StatusCode::TOO_MANY_REQUESTS, format!("request path {path:?}: rate limit quota exceeded")))
}
