//! The last stage: an answer as HTTP, with the headers that every answer of this server has.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body, Frame, SizeHint};

use super::answer::Answer;
use crate::config::CustomHeader;
use crate::connections::Charge;

/// The body of an answer.
pub(crate) struct Reply(Option<Data>);

/// The bytes of an answer's body, with what the request holds until they are sent.
pub(crate) struct Data {
    bytes: Bytes,
    _held: Charge,
}

impl Reply {
    fn new(bytes: Bytes, mut held: Charge) -> Self {
        held.add(bytes.len());
        Reply((!bytes.is_empty()).then_some(Data { bytes, _held: held }))
    }
}

impl Body for Reply {
    type Data = Data;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Data>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.bytes.len() as u64))
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

/// Dresses an answer. The operator's headers come last and replace ours of the same name.
pub(crate) fn dress(
    answer: Answer,
    told: Vec<(HeaderName, HeaderValue)>,
    custom: &[CustomHeader],
    held: Charge,
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
    let mut response = Response::new(Reply::new(answer.body, held));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
