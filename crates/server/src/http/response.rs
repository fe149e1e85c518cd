//! The last stage: an answer as HTTP, with the headers that every answer of this server has.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::Full;

use super::answer::Answer;
use crate::config::CustomHeader;

/// Dresses an answer. The operator's headers come last and replace ours of the same name.
pub(crate) fn dress(
    answer: Answer,
    told: Vec<(HeaderName, HeaderValue)>,
    custom: &[CustomHeader],
) -> Response<Full<Bytes>> {
    let status = answer.status;
    let mut headers = HeaderMap::with_capacity(6 + told.len() + custom.len());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(kind) = answer.content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if kind.starts_with("text/") {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
    }
    headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains"));
    if let Some(location) = answer.location {
        headers.insert(LOCATION, location);
    }
    headers.extend(told);
    for header in custom.iter().filter(|h| h.when.include(status.as_u16())) {
        headers.insert(header.name.clone(), header.value.clone());
    }
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
