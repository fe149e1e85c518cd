//! The response of the edge before it is converted to HTTP.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use keepfast_framework::{Error, FileBody, Incoming, error_body};

/// The response to a request. Its body may contain secrets, so that `Debug` prints the status only.
pub struct EdgeResponse {
    /// The status of the response.
    pub status: StatusCode,
    /// The status that metrics count; a caller may have chosen another `status`.
    pub decided: StatusCode,
    /// `None` sends no `Content-Type`.
    pub content_type: Option<Cow<'static, str>>,
    /// The body; a status without content sends none.
    pub body: Bytes,
    /// A body that is too large for memory, instead of `body`.
    pub file: Option<FileBody>,
    /// Further headers, such as the target of a redirect; empty for most responses.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl fmt::Debug for EdgeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Headers that are added to every response to a request, refusals included.
#[derive(Default)]
pub(crate) struct ResponseExtras {
    /// The headers of quotas and CORS.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// A request that a quota refuses and that is to be audited.
    pub(crate) refused: Option<Box<Incoming>>,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl EdgeResponse {
    /// `{"errors":["text"]}`
    pub fn error(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        let text: Cow<'static, str> = text.into();
        let body = error_body(&text, &[]).into();
        EdgeResponse {
            status,
            decided: status,
            content_type: Some(Cow::Borrowed(JSON)),
            body,
            file: None,
            headers: Vec::new(),
        }
    }

    /// `{"errors":[]}`
    pub fn bare(status: StatusCode) -> Self {
        EdgeResponse::error(status, "")
    }

    /// A response with a status only.
    pub(crate) fn empty(status: StatusCode) -> Self {
        EdgeResponse {
            status,
            decided: status,
            content_type: None,
            body: Bytes::new(),
            file: None,
            headers: Vec::new(),
        }
    }

    /// A response with a line of text.
    pub(crate) fn text(status: StatusCode, text: &'static str) -> Self {
        EdgeResponse {
            status,
            decided: status,
            content_type: Some(Cow::Borrowed(TEXT)),
            body: Bytes::from_static(text.as_bytes()),
            file: None,
            headers: Vec::new(),
        }
    }

    /// A 307 redirect to a path of this server.
    pub(crate) fn redirect(location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(location) => EdgeResponse {
                status: StatusCode::TEMPORARY_REDIRECT,
                decided: StatusCode::TEMPORARY_REDIRECT,
                content_type: None,
                body: Bytes::new(),
                file: None,
                headers: vec![(LOCATION, location)],
            },
            Err(_) => EdgeResponse::bare(StatusCode::BAD_REQUEST),
        }
    }
}

impl EdgeResponse {
    /// The target of a redirect.
    pub(crate) fn location(&self) -> Option<&str> {
        let location = self.headers.iter().find(|(name, _)| *name == LOCATION);
        location.and_then(|(_, location)| location.to_str().ok())
    }

    /// Adds the HTML page with a link that OpenBao sends with redirects of reads.
    pub(crate) fn with_page(mut self) -> Self {
        if let Some(location) = self.location() {
            self.body = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escaped(location)).into();
            self.content_type = Some(Cow::Borrowed("text/html; charset=utf-8"));
        }
        self
    }
}

/// Escapes text for HTML.
fn escaped(text: &str) -> String {
    let escapes = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;"), ("'", "&#39;")];
    escapes.iter().fold(text.to_owned(), |text, (what, by)| text.replace(what, by))
}

impl From<Error> for EdgeResponse {
    /// For errors of the body, which the framework's parser finds.
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.status().0).unwrap_or(StatusCode::BAD_REQUEST);
        EdgeResponse::error(status, error.public().to_owned())
    }
}
