//! The verdict of a quota as HTTP: 429, and headers that show what is left.

use http::header::RETRY_AFTER;
use http::{HeaderName, StatusCode};
use keepfast_framework::CanonicalPath;

use super::answer::{Answer, Told};
use crate::kernel::QuotaVerdict;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Refuses a request when its quota is spent. `told` gets the headers for the response, whatever it is.
pub(crate) fn apply(path: &CanonicalPath, verdict: QuotaVerdict, told: &mut Told) -> Result<(), Answer> {
    if verdict.with_headers {
        told.headers.push((LIMIT, verdict.limit.into()));
        told.headers.push((REMAINING, verdict.remaining.into()));
        told.headers.push((RESET, verdict.reset.into()));
        if verdict.refused {
            told.headers.push((RETRY_AFTER, verdict.retry_after.into()));
        }
    }
    if !verdict.refused {
        return Ok(());
    }
    let path = path.as_str();
    Err(Answer::error(StatusCode::TOO_MANY_REQUESTS, format!("request path {path:?}: rate limit quota exceeded")))
}
