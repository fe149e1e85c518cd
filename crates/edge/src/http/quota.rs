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
    result: QuotaResult,
    extras: &mut ResponseExtras,
) -> Result<(), EdgeResponse> {
    if result.with_headers {
        extras.headers.push((LIMIT, result.limit.into()));
        extras.headers.push((REMAINING, result.remaining.into()));
        extras.headers.push((RESET, result.reset.into()));
        if result.refused {
            extras.headers.push((RETRY_AFTER, result.retry_after.into()));
        }
    }
    if !result.refused {
        return Ok(());
    }
    let path = path.as_str();
    Err(EdgeResponse::error(StatusCode::TOO_MANY_REQUESTS, format!("request path {path:?}: rate limit quota exceeded")))
}
