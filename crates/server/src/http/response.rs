//! The last stage: an answer as HTTP, with the headers that every answer of this server has.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::answer::Answer;
use crate::config::CustomHeader;
use crate::connections::Charge;

/// The body of an answer, with what its request holds until hyper has taken the body.
pub(crate) struct Reply {
    body: Full<Bytes>,
    _held: Option<Charge>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Dresses an answer. The operator's headers come last and replace ours of the same name.
pub(crate) fn dress(
    answer: Answer,
    told: Vec<(HeaderName, HeaderValue)>,
    custom: &[CustomHeader],
    held: Option<Charge>,
) -> Response<Reply> {
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
    let mut response = Response::new(Reply { body: Full::new(answer.body), _held: held });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
