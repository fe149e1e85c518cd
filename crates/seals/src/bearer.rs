//! Access tokens of OAuth 2.0 (RFC 6749), as Google and Azure issue them.

use std::time::Duration;

use http::{Request, StatusCode};
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Timestamp;
use keepfast_framework::seal::SealError;
use serde::Deserialize;

use crate::call::{Reply, denied, form_body, invalid_request, printable_code, secret_header};
use crate::credentials::Fresh;

/// An access token.
pub(crate) struct Bearer(SecretString);

impl Bearer {
    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> Result<http::HeaderValue, SealError> {
        let value = SecretString::new(format!("Bearer {}", self.0.expose()));
        secret_header(value.expose())
    }

    pub(crate) fn new(token: String) -> Self {
        Bearer(SecretString::new(token))
    }
}

/// The request of a token with these fields.
pub(crate) fn token_request(url: &str, fields: &[(&str, &str)]) -> Result<Request<SecretBytes>, SealError> {
    let request = Request::post(url).header("content-type", "application/x-www-form-urlencoded");
    request.header("accept", "application/json").body(form_body(fields)).map_err(invalid_request)
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    /// Seconds, which Azure's managed identities write as text.
    expires_in: Option<Seconds>,
    /// Seconds since the epoch, from Azure's App Service instead of `expires_in`.
    expires_on: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

#[derive(Deserialize, Default)]
struct ErrorResponse {
    #[serde(default)]
    error: String,
}

/// The token in a response; `what` issued it, for errors.
pub(crate) fn token_of(reply: &Reply, what: &str, now: Timestamp) -> Result<Fresh<Bearer>, SealError> {
    if reply.status != StatusCode::OK {
        return Err(refusal(reply, what));
    }
    let TokenResponse { access_token, expires_in, expires_on } = reply.json()?;
    let value = Bearer::new(access_token);
    let expires = match (expires_in, expires_on) {
        (Some(within), _) => now.after(Duration::from_secs(within.number())),
        (None, Some(at)) => Timestamp::from_unix(i64::try_from(at.number()).unwrap_or(i64::MAX)),
        (None, None) => now,
    };
    Ok(Fresh { value, expires: Some(expires) })
}

impl Seconds {
    /// The number; 0, which is expired, for other text.
    fn number(&self) -> u64 {
        match self {
            Seconds::Number(number) => *number,
            Seconds::Text(text) => text.trim().parse().unwrap_or(0),
        }
    }
}

/// The error of a response without a token.
pub(crate) fn refusal(reply: &Reply, what: &str) -> SealError {
    let ErrorResponse { error } = reply.json().unwrap_or_default();
    let code = printable_code(&error);
    let refused = || denied(format!("{what}: status {} {code}", reply.status.as_u16()));
    reply.general_error(&code).unwrap_or_else(refused)
}
