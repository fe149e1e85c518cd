//! The response of a request. Only `audit.rs` creates one for an audited request.

use bytes::Bytes;
use keepfast_framework::reply::{Raw, SentStatus};
use keepfast_framework::sealed::SealedReply;
use keepfast_framework::{Error, Status};

use super::envelope::{self, ResponseContent};
use super::wiped;

/// A response that may be sent: an audit device has written it, or its path is exempt from audit.
pub struct Response {
    status: SentStatus,
    content_type: &'static str,
    body: Bytes,
}

impl Response {
    /// The response of a path that works on a sealed server. These paths are exempt from audit.
    pub(crate) fn exempt(reply: SealedReply) -> Self {
        Self::json(reply.status, reply.body)
    }

    /// Bytes without an audit entry: metrics of a listener that serves them without a token.
    pub(crate) fn unaudited(raw: Raw) -> Self {
        Self::document(raw.status, raw.content_type, Bytes::from(raw.body))
    }

    /// The same without a copy of the bytes.
    pub(crate) fn document(status: Status, content_type: &'static str, body: Bytes) -> Self {
        Response { status: status.into(), content_type, body }
    }

    /// The response of an error.
    pub(crate) fn failed(error: &Error) -> Self {
        log(error);
        Self::json(error.status().into(), envelope::failure(error))
    }

    fn json(status: SentStatus, body: Vec<u8>) -> Self {
        Response { status, content_type: "application/json", body: wiped::body(body) }
    }

    /// The response of an audited request.
    pub(super) fn audited(outcome: Result<ResponseContent, Error>) -> Self {
        match outcome {
            Err(error) => Response::failed(&error),
            Ok(ResponseContent::Raw(raw)) => Response::document(raw.status, raw.content_type, wiped::body(raw.body)),
            Ok(ResponseContent::Envelope(envelope)) => {
                let is_empty = envelope.is_empty();
                let fallback = if is_empty { Status::NO_CONTENT } else { Status::OK };
                let status = envelope.status.unwrap_or(fallback.into());
                let body = if is_empty { Vec::new() } else { envelope.to_json() };
                Response::json(status, body)
            }
        }
    }

    /// The status code.
    pub fn status(&self) -> Status {
        self.status.sent
    }

    /// The status code that metrics count.
    pub fn decided(&self) -> Status {
        self.status.counted
    }

    /// The `Content-Type` of a body that is not empty.
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// The body; empty with 204.
    pub fn into_body(self) -> Bytes {
        self.body
    }
}

/// Logs the cause of an error, which no response contains. A request to a sealed server is no error of the server.
fn log(error: &Error) {
    if error.status() == Status::UNAVAILABLE && error.cause().is_none() {
        tracing::debug!(public = error.public(), "request refused");
    } else if error.status().0 >= 500 {
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(status = error.status().0, public = error.logged(), %cause, "request failed");
    }
}
