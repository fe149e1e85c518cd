//! The last stage: converts a response to HTTP, with the headers of all responses of this server.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use keepfast_framework::FileBody;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinHandle, spawn_blocking};

use super::edge_response::EdgeResponse;
use crate::config::CustomHeader;
use crate::connections::Charge;

/// The bytes of a file that are read at once.
const FILE_PART: usize = 256 << 10;

/// The body of a response.
pub(crate) enum ResponseBody {
    /// Bytes in memory; `None` once they are sent.
    Bytes(Option<Data>),
    /// A file.
    File(FileParts),
}

/// The bytes of a body, with the memory that the request holds until they are sent.
pub(crate) struct Data {
    bytes: Bytes,
    _held: Option<Charge>,
}

/// The parts of a file, of which one is read or sent at a time.
pub(crate) struct FileParts {
    file: FileBody,
    /// Where the next part begins.
    at: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    _held: Charge,
    /// The permit of the file: its bytes stay on the disk until they are sent.
    _download: Option<OwnedSemaphorePermit>,
}

impl FileParts {
    fn is_over(&self) -> bool {
        self.at >= self.file.length()
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_over() {
            return Poll::Ready(None);
        }
        let (file, at) = (&self.file, self.at);
        let reading = self.reading.get_or_insert_with(|| {
            let file = file.clone();
            spawn_blocking(move || file.read_at(at, FILE_PART))
        });
        let read = ready!(Pin::new(reading).poll(cx)).unwrap_or_else(|error| Err(io::Error::other(error)));
        self.reading = None;
        match &read {
            Ok(part) => self.at += part.len() as u64,
            Err(_) => self.at = self.file.length(),
        }
        Poll::Ready(Some(read))
    }
}

impl ResponseBody {
    fn new(bytes: Bytes, mut held: Charge) -> Self {
        held.add(bytes.len());
        ResponseBody::Bytes((!bytes.is_empty()).then_some(Data { bytes, _held: Some(held) }))
    }

    fn of_file(file: FileBody, mut held: Charge, download: Option<OwnedSemaphorePermit>) -> Self {
        held.add(FILE_PART);
        ResponseBody::File(FileParts { file, at: 0, reading: None, _held: held, _download: download })
    }
}

impl Body for ResponseBody {
    type Data = Data;
    /// A file that cannot be read: the connection ends before the announced length.
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Data>>>> {
        match &mut *self {
            ResponseBody::Bytes(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            ResponseBody::File(parts) => {
                let part = ready!(parts.poll_part(cx));
                Poll::Ready(part.map(|part| part.map(|bytes| Frame::data(Data { bytes, _held: None }))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Bytes(data) => data.is_none(),
            ResponseBody::File(parts) => parts.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            ResponseBody::Bytes(data) => data.as_ref().map_or(0, |data| data.bytes.len() as u64),
            ResponseBody::File(parts) => parts.file.length().saturating_sub(parts.at),
        })
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

/// Creates the HTTP response. The headers of the operator's configuration come last and replace ours of the same name.
pub(crate) fn to_http(
    response: EdgeResponse,
    extras: Vec<(HeaderName, HeaderValue)>,
    custom: &[CustomHeader],
    held: Charge,
    download: Option<OwnedSemaphorePermit>,
) -> Response<ResponseBody> {
    let status = response.status;
    // Responses with these statuses have no content (RFC 9110 section 6.4.1), also where a caller chose the status. As on
    // OpenBao, the Content-Type of a 204 stays.
    let (body, file, content_type) = match status {
        StatusCode::NO_CONTENT => (Bytes::new(), None, response.content_type),
        StatusCode::NOT_MODIFIED => (Bytes::new(), None, None),
        _ => (response.body, response.file, response.content_type),
    };
    let mut headers = HeaderMap::with_capacity(6 + extras.len() + custom.len());
    if !response.headers.iter().any(|(name, _)| *name == CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some(kind) = content_type {
        let is_text = kind.starts_with("text/");
        let value = match kind {
            Cow::Borrowed(kind) => Ok(HeaderValue::from_static(kind)),
            Cow::Owned(kind) => HeaderValue::try_from(kind),
        };
        if let Ok(value) = value {
            headers.insert(CONTENT_TYPE, value);
        }
        if is_text {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
    }
    headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains"));
    headers.extend(response.headers);
    headers.extend(extras);
    for header in custom.iter().filter(|h| h.when.include(status.as_u16())) {
        headers.insert(header.name.clone(), header.value.clone());
    }
    let body = match file {
        None => ResponseBody::new(body, held),
        Some(file) => ResponseBody::of_file(file, held, download),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::io::Write as _;

    use keepfast_framework::file_body::FileBodyWriter;

    use super::*;
    use crate::connections::{Connections, Source};
    use crate::http::body::BodyMemory;

    /// A client that does not receive a file keeps it on the disk.
    #[test]
    fn sec_the_permit_of_a_file_is_held_until_it_is_sent() {
        let (memory, place) = (BodyMemory::new(1), Connections::new(1).admit(Source::default()).unwrap());
        let send = |is_file: bool| {
            let mut writer = FileBodyWriter::new(&std::env::temp_dir(), 1).unwrap();
            writer.write_all(b"x").unwrap();
            let file = is_file.then(|| writer.finish().unwrap());
            let response = EdgeResponse { file, ..EdgeResponse::bare(StatusCode::OK) };
            let permit = memory.download();
            permit.map(|permit| to_http(response, Vec::new(), &[], Charge::new(place.peer(), 0), Some(permit)))
        };
        let stalled = [send(true).unwrap(), send(true).unwrap()];
        assert!(send(true).is_none());
        drop(stalled);
        let refusals = [send(false), send(false), send(false)];
        assert!(refusals.iter().all(Option::is_some), "a response in memory holds none");
    }

    #[test]
    fn a_status_without_content_sends_no_content() {
        let place = Connections::new(1).admit(Source::default()).unwrap();
        let cases = [(200, false, true), (204, true, true), (205, false, true), (304, true, false), (400, false, true)];
        for (status, is_empty, has_type) in cases {
            let response = EdgeResponse {
                status: StatusCode::from_u16(status).unwrap(),
                ..EdgeResponse::bare(StatusCode::BAD_REQUEST)
            };
            let response = to_http(response, Vec::new(), &[], Charge::new(place.peer(), 0), None);
            let typed = response.headers().contains_key(CONTENT_TYPE);
            assert_eq!((response.body().is_end_stream(), typed), (is_empty, has_type), "{status}");
        }
    }
}
