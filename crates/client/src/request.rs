//! A request as a value.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use keepfast_outbound::Payload;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Characters of a path that are not percent-encoded.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');
/// Characters of query names and values that are not percent-encoded.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The operations of the API. Lists and scans are `GET` with a parameter, which every proxy forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Write.
    Put,
    /// Write; some clients use it to create.
    Post,
    /// Merge patch (RFC 7396).
    Patch,
    /// Delete.
    Delete,
}

impl Method {
    /// The HTTP name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A request: an operation on a path, with query, body and headers.
#[derive(Clone)]
pub struct Request {
    /// The operation.
    pub method: Method,
    /// The path below `/v1/`, not encoded.
    pub path: String,
    /// Query parameters, not encoded.
    pub query: Vec<(String, String)>,
    /// The body, as JSON text.
    pub body: Option<String>,
    /// A body that is no JSON; it replaces `body`.
    pub bytes: Option<Payload>,
    /// The file that receives the body of a response with a status of 2xx.
    pub sink: Option<Arc<File>>,
    /// Headers of this request only.
    pub headers: HeaderMap,
    /// Whether the client's wrapping TTL applies; preparatory requests set it to false.
    pub may_wrap: bool,
    /// Whether the request is sent again when it fails, as often as the client is set to; false for one that must not run
    /// twice.
    pub may_retry: bool,
    /// Whether every server has this path, so that a 404 or an empty response is an error.
    pub must_exist: bool,
}

impl Request {
    /// A request without query, body and headers.
    pub fn new(method: Method, path: impl AsRef<str>) -> Self {
        let path = path.as_ref().trim_matches('/').to_owned();
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            bytes: None,
            sink: None,
            headers: HeaderMap::new(),
            may_wrap: true,
            may_retry: true,
            must_exist: false,
        }
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn with_query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Makes a 404 and an empty response an error: for paths that every server has.
    #[must_use]
    pub fn required(self) -> Self {
        Self { must_exist: true, ..self }
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: Value) -> Self {
        self.body = Some(body.to_string());
        self
    }

    /// Sets a body that is no JSON.
    #[must_use]
    pub fn with_bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.bytes = Some(Payload::Bytes(bytes.into()));
        self
    }

    /// Sets a file as the body.
    #[must_use]
    pub fn with_file(mut self, file: File) -> Self {
        self.bytes = Some(Payload::File(Arc::new(file)));
        self
    }

    /// The path and query of its URL.
    pub fn target(&self) -> String {
        let mut target = format!("/v1/{}", utf8_percent_encode(&self.path, PATH));
        let mut query: Vec<_> = self.query.iter().collect();
        query.sort_by(|a, b| a.0.cmp(&b.0));
        for (at, (name, value)) in query.into_iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(&utf8_percent_encode(name, QUERY).to_string());
            target.push('=');
            target.push_str(&utf8_percent_encode(value, QUERY).to_string());
        }
        target
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn encodes_once_and_sorts_the_query() {
        let request =
            Request::new(Method::Get, "/secret/a b%/ü?x/").with_query("list", "true").with_query("after", "a&b");
        assert_eq!(request.target(), "/v1/secret/a%20b%25/%C3%BC%3Fx?after=a%26b&list=true");
    }

    #[test]
    fn dot_segments_are_sent_for_the_server_to_refuse() {
        assert_eq!(Request::new(Method::Get, "a/../b").target(), "/v1/a/../b");
    }
}
