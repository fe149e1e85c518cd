//! The last stage: what may be sent.

use bytes::Bytes;
use keepfast_framework::Status;

/// What may be sent: an audit device has it, or its path is on the short list of exempt ones.
///
/// Its fields are private; only core makes one.
pub struct Response {
    status: Status,
    content_type: &'static str,
    body: Bytes,
}

impl Response {
    pub(crate) fn json(status: Status, body: impl Into<Bytes>) -> Self {
        Response { status, content_type: "application/json", body: body.into() }
    }

    pub(crate) fn raw(status: Status, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Response { status, content_type, body: body.into() }
    }

    /// The status code.
    pub fn status(&self) -> Status {
        self.status
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
