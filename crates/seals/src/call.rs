//! Calls of services: transient failures are repeated, bodies are wiped, failures get a class.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use keepfast_crypto::secret::SecretBytes;
use keepfast_crypto::{Zeroize, random};
use keepfast_framework::Clock;
use keepfast_framework::seal::{SealError, SealErrorClass};
use keepfast_outbound::{CallError, Failure, Outbound, Settings, SettingsError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::stanza::{SealConfigError, Stanza};

/// How often a call is repeated.
const REPETITIONS: usize = 2;
/// The shortest wait before a repetition, in milliseconds.
const SHORTEST_WAIT: usize = 100;
/// The longest wait, in milliseconds.
const LONGEST_WAIT: usize = 800;
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// The longest code of an error that goes to the log.
const MAX_CODE: usize = 64;

/// All characters but the unreserved ones of RFC 3986.
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Calls services within one timeout for all repetitions. A clone shares the connections.
#[derive(Clone)]
pub(crate) struct Calls {
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

/// A response of a service.
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: SecretReply,
}

/// A body that is wiped when dropped, unless the connection still has a view of its buffer.
pub(crate) struct SecretReply(Bytes);

impl SecretReply {
    /// The bytes.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretReply {
    fn drop(&mut self) {
        if let Ok(mut owned) = std::mem::take(&mut self.0).try_into_mut() {
            owned.as_mut().zeroize();
        }
    }
}

/// The owner of the bytes of a request body: wiped with the last view of them.
struct Body(SecretBytes);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Calls {
    /// Calls with the timeout of a stanza.
    pub(crate) fn new(stanza: &Stanza<'_>, settings: &Settings) -> Result<Self, SealConfigError> {
        let calls = Calls::within(stanza.timeout(), settings, stanza.clock());
        calls.map_err(|error| stanza.refused(error.to_string()))
    }

    /// Calls with this timeout.
    ///
    /// # Errors
    /// [`SettingsError`] when the settings cannot be used.
    pub(crate) fn within(timeout: Duration, settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        Ok(Calls { outbound: Outbound::new(settings)?, clock, timeout })
    }

    /// Sends a request; repeats it when the connection fails, and for 429 and 5xx.
    ///
    /// # Errors
    /// [`SealErrorClass::Unreachable`] without a response. Every status is a response.
    pub(crate) async fn send(&self, request: Request<SecretBytes>) -> Result<Reply, SealError> {
        let request = request.map(|body| Bytes::from_owner(Body(body)));
        self.within_timeout(|| Ok(request.clone())).await
    }

    /// As [`send`](Self::send), with another request for each repetition: for services that accept a nonce once.
    ///
    /// # Errors
    /// Those of `send` and of `create`.
    pub(crate) async fn send_each(
        &self,
        create: impl Fn() -> Result<Request<SecretBytes>, SealError>,
    ) -> Result<Reply, SealError> {
        self.within_timeout(|| Ok(create()?.map(|body| Bytes::from_owner(Body(body))))).await
    }

    async fn within_timeout(&self, create: impl Fn() -> Result<Request<Bytes>, SealError>) -> Result<Reply, SealError> {
        let within = tokio::time::timeout(self.timeout, self.send_repeatedly(create)).await;
        within.unwrap_or_else(|_| Err(unreachable_because(format!("no response within {:?}", self.timeout))))
    }

    async fn send_repeatedly(
        &self,
        create: impl Fn() -> Result<Request<Bytes>, SealError>,
    ) -> Result<Reply, SealError> {
        let mut repeated = 0;
        loop {
            let outcome = self.outbound.call(create()?).await;
            if repeated == REPETITIONS || !is_transient(&outcome) {
                return outcome.map(reply).map_err(|error| unreachable_because(error.to_string()));
            }
            repeated += 1;
            let wait = SHORTEST_WAIT + random::below(LONGEST_WAIT - SHORTEST_WAIT);
            self.clock.sleep_until(self.clock.now().after(Duration::from_millis(wait as u64))).await;
        }
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

fn reply(response: Response<Bytes>) -> Reply {
    let (head, body) = response.into_parts();
    Reply { status: head.status, headers: head.headers, body: SecretReply(body) }
}

fn is_transient(outcome: &Result<Response<Bytes>, CallError>) -> bool {
    match outcome {
        Ok(response) => response.status() == StatusCode::TOO_MANY_REQUESTS || response.status().is_server_error(),
        Err(error) => matches!(error.failure, Failure::Broken(_) | Failure::Unreachable(_)),
    }
}

/// An error without a response.
pub(crate) fn unreachable_because(cause: impl Into<String>) -> SealError {
    SealError::new(SealErrorClass::Unreachable, cause)
}

/// An error of the class `misconfigured`.
pub(crate) fn misconfigured(cause: impl Into<String>) -> SealError {
    SealError::new(SealErrorClass::Misconfigured, cause)
}

/// An error of the class `denied`.
pub(crate) fn denied(cause: impl Into<String>) -> SealError {
    SealError::new(SealErrorClass::Denied, cause)
}

/// An error of the class `wrong_key`.
pub(crate) fn wrong_key(cause: impl Into<String>) -> SealError {
    SealError::new(SealErrorClass::WrongKey, cause)
}

impl Reply {
    /// Parses the body of a 200 as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, SealError> {
        // The text of the parser's error contains values.
        serde_json::from_slice(self.body.expose()).map_err(|_| unreachable_because("the response has an unknown form"))
    }

    /// The error of a status that means the same for every service, `None` for those that do not. `code` is the code of
    /// the error in the body, for the log.
    pub(crate) fn general_error(&self, code: &str) -> Option<SealError> {
        let code = printable_code(code);
        let cause = if code.is_empty() { format!("status {}", self.status.as_u16()) } else { code };
        let class = match self.status.as_u16() {
            401 | 403 => SealErrorClass::Denied,
            429 => SealErrorClass::Throttled(self.retry_after()),
            408 | 500.. => SealErrorClass::Unreachable,
            300..=399 => SealErrorClass::Misconfigured,
            _ => return None,
        };
        Some(SealError::new(class, cause))
    }

    /// The error of a response whose code is unknown. `bad_request` is the class of a 400: of a call that unwraps it is
    /// [`SealErrorClass::WrongKey`], since only the stored bytes differ from what the service accepted when it wrapped.
    pub(crate) fn unknown_error(&self, code: &str, bad_request: SealErrorClass) -> SealError {
        let class = if self.status == StatusCode::BAD_REQUEST { bad_request } else { SealErrorClass::Misconfigured };
        let unknown = || SealError::new(class, format!("status {} {code}", self.status.as_u16()));
        self.general_error(code).unwrap_or_else(unknown)
    }

    /// The time of `Retry-After` in seconds.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
    }
}

/// A code of an error, such as `AccessDenied`; empty when it is not one. Other text of a service does not reach the log.
pub(crate) fn printable_code(code: &str) -> String {
    let is_code = code.len() <= MAX_CODE && code.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if is_code { code.to_owned() } else { String::new() }
}

/// A request body of JSON, wiped when dropped.
pub(crate) fn json_body(value: &impl serde::Serialize) -> Result<SecretBytes, SealError> {
    let invalid = |_| misconfigured("the request is not JSON");
    // Its length first: a buffer that grows leaves copies behind.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_err(invalid)?;
    let mut body = SecretBytes::new(Vec::with_capacity(length.0));
    serde_json::to_writer(body.expose_mut(), value).map_err(invalid)?;
    Ok(body)
}

/// Counts the bytes that are written.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A request body of a form, wiped when dropped.
pub(crate) fn form_body(fields: &[(&str, &str)]) -> SecretBytes {
    // Enough for every byte encoded: the buffer never grows.
    let length: usize = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut body = SecretBytes::new(Vec::with_capacity(length));
    for (at, (name, value)) in fields.iter().enumerate() {
        let out = body.expose_mut();
        out.extend_from_slice(if at == 0 { "" } else { "&" }.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        utf8_percent_encode(value, UNRESERVED).for_each(|part| out.extend_from_slice(part.as_bytes()));
    }
    body
}

/// The error of a request that cannot be built: a setting has characters that a URL or a header cannot have.
pub(crate) fn invalid_request(_: http::Error) -> SealError {
    misconfigured("a setting has characters that a request cannot have")
}

/// A header value that is not printed.
pub(crate) fn secret_header(value: &str) -> Result<http::HeaderValue, SealError> {
    let mut header =
        http::HeaderValue::from_str(value).map_err(|_| misconfigured("a credential is not a header value"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The `Host` header that the client sends: with the port unless it is the default of the scheme.
pub(crate) fn host_of<T>(request: &Request<T>) -> Result<String, SealError> {
    let uri = request.uri();
    let host = uri.host().ok_or_else(|| misconfigured("the endpoint has no host"))?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Ok(match uri.port_u16() {
        Some(port) if port != default => format!("{host}:{port}"),
        _ => host.to_owned(),
    })
}
