//! The response of a request. Only `audit.rs` creates one for an audited request.

use std::borrow::Cow;

use bytes::Bytes;
use keepfast_framework::reply::{Raw, RawFile, SentStatus};
use keepfast_framework::sealed::SealedReply;
use keepfast_framework::{Error, FileBody, Status, error_body};
use keepfast_storage::{Index, StorageError};

use super::wiped;
use crate::cluster::port::ForwardedResponse;

const JSON: &str = "application/json";

/// A response that may be sent: an audit device has written it, or its path is exempt from audit.
pub struct Response {
    status: SentStatus,
    content_type: Cow<'static, str>,
    body: Bytes,
    /// A body that is too large for memory; `body` is then empty.
    file: Option<FileBody>,
    /// The index of its commit; `None` without one.
    committed: Option<Index>,
    headers: Option<Box<ResponseHeaders>>,
}

/// Further headers of a response: of a node of a cluster, or of the handler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHeaders {
    /// `X-Vault-Index`: a state that has the effects of the request.
    pub index: Option<String>,
    /// `Location`: the same request at the leader.
    pub location: Option<String>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// Headers of the handler, by their name in lower case.
    pub further: Vec<(&'static str, String)>,
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
        Self::new(status.into(), Cow::Borrowed(content_type), body)
    }

    /// A body in a file.
    pub(super) fn of_file(file: RawFile) -> Self {
        let response = Self::document(Status::OK, file.content_type, Bytes::new());
        Response { file: Some(file.file), ..response }
    }

    /// The response of another node, which has audited it.
    pub(crate) fn forwarded(response: ForwardedResponse) -> Self {
        let ForwardedResponse { status, decided, content_type, body, index } = response;
        let status = SentStatus { sent: Status(status), counted: Status(decided) };
        let committed = Some(Index(index));
        Response { committed, ..Self::new(status, Cow::Owned(content_type), body) }
    }

    /// A redirect to the same request at the leader, which audits it.
    pub(crate) fn redirect(location: String) -> Self {
        let headers = ResponseHeaders { location: Some(location), ..ResponseHeaders::default() };
        Self::document(Status::TEMPORARY_REDIRECT, JSON, Bytes::new()).with_headers(headers)
    }

    fn new(status: SentStatus, content_type: Cow<'static, str>, body: Bytes) -> Self {
        Response { status, content_type, body, file: None, committed: None, headers: None }
    }

    /// The response of an error.
    pub(crate) fn failed(error: &Error) -> Self {
        log(error);
        Self::json(error.status().into(), error_body(error.public(), error.warnings()))
    }

    /// The response with a JSON body.
    pub(super) fn json(status: SentStatus, body: Vec<u8>) -> Self {
        Self::new(status, Cow::Borrowed(JSON), wiped::body(body))
    }

    /// The response with the index of its commit.
    pub(super) fn with_commit(self, committed: Option<Index>) -> Self {
        Response { committed, ..self }
    }

    /// The response with further headers.
    pub(crate) fn with_headers(self, headers: ResponseHeaders) -> Self {
        Response { headers: Some(Box::new(headers)), ..self }
    }

    /// Whether its body, if any, is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.content_type == JSON
    }

    /// The index of its commit; `None` without one.
    pub(crate) fn committed(&self) -> Option<Index> {
        self.committed
    }

    /// Further headers.
    pub fn headers(&self) -> Option<&ResponseHeaders> {
        self.headers.as_deref()
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
    pub fn content_type(&self) -> &Cow<'static, str> {
        &self.content_type
    }

    /// The body that is too large for memory; [`Self::into_body`] is then empty.
    pub fn file(&self) -> Option<&FileBody> {
        self.file.as_ref()
    }

    /// The body; empty with 204.
    pub fn into_body(self) -> Bytes {
        self.body
    }
}

/// Logs the cause of an error, which no response contains. A request to a sealed server is no error of the server, nor one
/// to a cluster that has no leader: anybody can send any number of them.
fn log(error: &Error) {
    if is_refusal(error) {
        tracing::debug!(public = error.public(), "request refused");
    } else if error.status().0 >= 500 {
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(status = error.status().0, public = error.logged(), %cause, "request failed");
    }
}

fn is_refusal(error: &Error) -> bool {
    use StorageError::{Behind, Closed, NoLeader, NotLeader};

    let is_expected = error
        .cause()
        .is_none_or(|cause| matches!(cause.downcast_ref(), Some(NoLeader | NotLeader | Behind(_) | Closed)));
    error.status() == Status::UNAVAILABLE && is_expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_leader_is_no_error_of_the_server() {
        for error in [StorageError::NoLeader, StorageError::NotLeader, StorageError::Behind(7), StorageError::Closed] {
            assert!(is_refusal(&error.into()));
        }
        assert!(is_refusal(&Error::sealed()));
        for error in [StorageError::Full, StorageError::Unknown, StorageError::corrupt("x")] {
            assert!(!is_refusal(&error.into()));
        }
        assert!(!is_refusal(&Error::new(Status::UNAVAILABLE, "busy").caused_by(StorageError::Full)));
    }
}
