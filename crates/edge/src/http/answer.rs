//! What becomes an HTTP response: the kernel's answers and the edge's own refusals.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use keepfast_framework::{Error, Incoming, error_body};

/// What is sent for a request. Its body may hold secrets, so that `Debug` shows the status only.
pub struct Answer {
    /// The status of the response.
    pub status: StatusCode,
    /// The status that is counted: the caller may have chosen another one.
    pub decided: StatusCode,
    /// `None` sends no `Content-Type`.
    pub content_type: Option<&'static str>,
    /// The body; a status without content sends none.
    pub body: Bytes,
    /// The target of a redirect.
    pub location: Option<HeaderValue>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What goes with an answer, whatever it is.
#[derive(Default)]
pub(crate) struct Told {
    /// What quotas and the rules for origins tell.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// A request that a quota has refused and that is to be recorded.
    pub(crate) refused: Option<Box<Incoming>>,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    /// `{"errors":["text"]}`
    pub fn error(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        let text: Cow<'static, str> = text.into();
        let body = error_body(&text, &[]).into();
        Answer { status, decided: status, content_type: Some(JSON), body, location: None }
    }

    /// `{"errors":[]}`
    pub fn bare(status: StatusCode) -> Self {
        Answer::error(status, "")
    }

    /// Nothing but the status.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Answer { status, decided: status, content_type: None, body: Bytes::new(), location: None }
    }

    /// A line of text.
    pub(crate) fn text(status: StatusCode, text: &'static str) -> Self {
        Answer {
            status,
            decided: status,
            content_type: Some(TEXT),
            body: Bytes::from_static(text.as_bytes()),
            location: None,
        }
    }

    /// 307 to a path of this server.
    pub(crate) fn redirect(location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(location) => Answer {
                status: StatusCode::TEMPORARY_REDIRECT,
                decided: StatusCode::TEMPORARY_REDIRECT,
                content_type: None,
                body: Bytes::new(),
                location: Some(location),
            },
            Err(_) => Answer::bare(StatusCode::BAD_REQUEST),
        }
    }
}

impl Answer {
    /// The same with a page that links to the target of the redirect, as OpenBao answers a read.
    pub(crate) fn with_page(mut self) -> Self {
        if let Some(location) = self.location.as_ref().and_then(|location| location.to_str().ok()) {
            self.body = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escaped(location)).into();
            self.content_type = Some("text/html; charset=utf-8");
        }
        self
    }
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    let escapes = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;"), ("'", "&#39;")];
    escapes.iter().fold(text.to_owned(), |text, (what, by)| text.replace(what, by))
}

impl From<Error> for Answer {
    /// For faults of the body, which are found with the framework's own parser.
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.status().0).unwrap_or(StatusCode::BAD_REQUEST);
        Answer::error(status, error.public().to_owned())
    }
}
