//! Responses in the form of OAuth 2.0 (RFC 6749, 5.2) instead of Vault's.

use std::borrow::Cow;

use keepfast_framework::reply::Raw;
use keepfast_framework::{Result, Status};
use serde::Serialize;

/// 401
pub(super) const UNAUTHORIZED: Status = Status(401);

/// An error in the form of OAuth 2.0.
#[derive(Debug)]
pub(super) struct OAuthError {
    status: Status,
    error: &'static str,
    description: Cow<'static, str>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    error_description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
}

impl OAuthError {
    /// 400 with this error code and description.
    pub(super) fn new(error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self::with_status(Status::BAD_REQUEST, error, description)
    }

    /// The same with another status.
    pub(super) fn with_status(status: Status, error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        OAuthError { status, error, description: description.into() }
    }

    /// The error code.
    pub(super) fn code(&self) -> &'static str {
        self.error
    }

    /// The response. `state` is that of an authorization request; empty for none.
    pub(super) fn response(&self, state: &str, headers: Vec<(&'static str, String)>) -> Result<Raw> {
        let body = Body { error: self.error, error_description: &self.description, state };
        json(self.status, &body, headers)
    }

    /// The header `WWW-Authenticate` of a refused access token (RFC 6750, 3).
    pub(super) fn challenge(&self) -> (&'static str, String) {
        let text = self.description.replace(['"', '\\'], "'");
        ("www-authenticate", format!("Bearer error=\"{}\",error_description=\"{text}\"", self.error))
    }

    /// The status.
    pub(super) fn status(&self) -> Status {
        self.status
    }
}

/// A response with this JSON.
pub(super) fn json<T: Serialize>(status: Status, value: &T, headers: Vec<(&'static str, String)>) -> Result<Raw> {
    Ok(Raw { status, content_type: "application/json", body: serde_json::to_vec(value)?, headers })
}
