//! The client: calls, retries, redirects.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use keepfast_crypto::secret::SecretString;
use keepfast_outbound::{CallError, Failure, Outbound, Payload};
use serde_json::{Map, Value, json};

use crate::error::{ResponseError, tls_reason};
use crate::rate_limit::Bucket;
use crate::request::{Method, Request};
use crate::secret::is_envelope;
use crate::timer::{elapsed, pause};
use crate::{Config, DEFAULT_ADDRESS, Error, Secret, duration, retry, transport};

/// The most bytes of an unknown error body that an error quotes.
const MAX_RAW_ERROR: usize = 4 << 10;
/// The default wrapping TTL of `sys/wrapping/wrap`, whose response must be wrapped.
const DEFAULT_WRAP_TTL: &str = "5m";
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const WRAP_TTL: HeaderName = HeaderName::from_static("x-vault-wrap-ttl");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// A connection pool to one server, with a token. Cloning is cheap and shares the pool.
#[derive(Clone)]
pub struct Client {
    config: Config,
    outbound: Outbound,
    limiter: Option<Arc<Bucket>>,
}

/// A raw HTTP response.
#[derive(Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The HTTP headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// Creates a client from `config` without sending anything.
    ///
    /// # Errors
    /// When the TLS settings or the namespace cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        // Without its header, a request would go to the root namespace.
        if namespace_header(&config.namespace).is_none() && !canonical(&config.namespace).is_empty() {
            return Err(Error::Config("the namespace contains characters that are invalid in a header".to_owned()));
        }
        let outbound =
            Outbound::new(&transport::settings(&config)?).map_err(|error| Error::Config(error.to_string()))?;
        let limiter = config.rate_limit.map(|limit| Arc::new(Bucket::full(limit, elapsed())));
        Ok(Self { config, outbound, limiter })
    }

    /// The configuration in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same client with another token, or without one.
    #[must_use]
    pub fn with_token(&self, token: Option<SecretString>) -> Self {
        let mut other = self.clone();
        other.config.token = token;
        other
    }

    /// Reads a path; `None` when it has no value.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error.
    pub async fn read(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Get, path)).await
    }

    /// Lists one level below a path; `None` when it has no entries. The names are in `data.keys`.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error.
    pub async fn list(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Get, path).with_query("list", "true")).await
    }

    /// Lists all levels below a path.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error.
    pub async fn scan(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Get, path).with_query("scan", "true")).await
    }

    /// Writes to a path; `None` when the response is empty.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error.
    pub async fn write(&self, path: &str, data: Map<String, Value>) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Put, path).with_body(Value::Object(data))).await
    }

    /// Applies a merge patch (RFC 7396) to the value at a path.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error, which it does when the path has no value.
    pub async fn patch(&self, path: &str, data: Map<String, Value>) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Patch, path).with_body(Value::Object(data))).await
    }

    /// Deletes a path.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error.
    pub async fn delete(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Delete, path)).await
    }

    /// Unwraps a wrapping token; `None` unwraps the client's own token.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error: the token is used, expired or not a wrapping token.
    pub async fn unwrap(&self, token: Option<&SecretString>) -> Result<Option<Secret>, Error> {
        let (client, request) = self.unwrapping(token);
        client.secret(&request).await
    }

    /// The request that unwraps a token, and the client to send it with: a client without a token authenticates
    /// with the wrapping token itself.
    pub fn unwrapping(&self, token: Option<&SecretString>) -> (Self, Request) {
        let request = Request { may_wrap: false, ..Request::new(Method::Put, "sys/wrapping/unwrap") };
        match (token, &self.config.token) {
            (Some(token), Some(own)) if own.expose() != token.expose() => {
                (self.clone(), request.with_body(json!({ "token": token.expose() })))
            }
            (Some(token), None) => (self.with_token(Some(token.clone())), request),
            _ => (self.clone(), request),
        }
    }

    /// Sends any request whose response is the common envelope. Returns `None` for a 404 with an empty list of errors
    /// (the path has no value), unless the response has warnings.
    ///
    /// # Errors
    /// When the call fails, the server returns an error, or the response has no envelope.
    pub async fn secret(&self, request: &Request) -> Result<Option<Secret>, Error> {
        self.interpret(request, &self.raw(request).await?)
    }

    /// Converts a response of [`Client::raw`] to the result of [`Client::secret`].
    ///
    /// # Errors
    /// When the response is an error or has no envelope. A 404 of another program (a wrong address, a proxy's page) is
    /// an error, and so is any 404 where [`Request::must_exist`] is set.
    pub fn interpret(&self, request: &Request, response: &Response) -> Result<Option<Secret>, Error> {
        if response.status == 404 {
            // The wrapped response can be a 404 with warnings.
            let reads = request.method == Method::Get || request.path == "sys/wrapping/unwrap";
            let body = serde_json::from_slice::<Map<String, Value>>(&response.body).unwrap_or_default();
            if !reads || request.must_exist || !(is_envelope(&body) || is_empty_refusal(&body)) {
                return Err(self.refusal(request, response));
            }
            let secret = Secret::parse(&response.body).ok();
            return Ok(secret.filter(|secret| is_envelope(&body) && secret.has_content()));
        }
        let secret =
            response.secret().map_err(|error| self.unexpected_response(request, response, &error.to_string()))?;
        let empty = secret.is_none() && response.status == 200 && request.method == Method::Get;
        if empty || (secret.is_none() && request.must_exist) {
            return Err(self.unexpected_response(request, response, "the response is empty"));
        }
        Ok(secret)
    }

    /// The error for a response that does not come from a server of this API.
    pub fn unexpected_response(&self, request: &Request, response: &Response, reason: &str) -> Error {
        let kind =
            response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        Error::Decode(format!(
            "{} {} returned {} ({kind}), which is not of this API: {reason}. Does VAULT_ADDR name the server?",
            request.method.as_str(),
            self.url(request),
            response.status,
        ))
    }

    /// Sends any request. Retries and follows one redirect. A 404 is returned as a response, every other status of 400
    /// or above as an error.
    ///
    /// # Errors
    /// When the call fails, or the server returns an error other than 404.
    pub async fn raw(&self, request: &Request) -> Result<Response, Error> {
        let mut attempt = 0;
        loop {
            if let Some(limiter) = &self.limiter {
                pause(limiter.take(elapsed())).await;
            }
            let outcome = self.once(request).await;
            let again = match &outcome {
                Ok(response) => retry::is_worthwhile(response.status),
                Err(Error::Transport { .. }) => true,
                Err(_) => false,
            };
            if !again || !request.may_retry || attempt >= self.config.max_retries {
                let response = outcome?;
                return if response.status < 400 || response.status == 404 {
                    Ok(response)
                } else {
                    Err(self.refusal(request, &response))
                };
            }
            attempt += 1;
            let [chance] = keepfast_crypto::random::bytes::<1>();
            pause(retry::pause(self.config.retry_wait, attempt, chance)).await;
        }
    }

    /// The URL of a request.
    pub fn url(&self, request: &Request) -> String {
        self.config.address.base() + &request.target()
    }

    /// The headers of a request without the token.
    pub fn headers(&self, request: &Request) -> HeaderMap {
        let mut headers = self.config.headers.clone();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(value) = namespace_header(&self.config.namespace) {
            headers.insert(NAMESPACE, value);
        }
        let wraps = request.path == "sys/wrapping/wrap" && matches!(request.method, Method::Put | Method::Post);
        let wrap_ttl =
            self.config.wrap_ttl.as_deref().or(wraps.then_some(DEFAULT_WRAP_TTL)).filter(|_| request.may_wrap);
        if let Some(Ok(value)) = wrap_ttl.map(HeaderValue::from_str) {
            headers.insert(WRAP_TTL, value);
        }
        match request.method {
            Method::Patch => {
                drop(headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json")))
            }
            _ if request.body.is_some() => {
                drop(headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json")))
            }
            _ => {}
        }
        headers.extend(request.headers.clone());
        headers
    }

    /// Sends a request once, following one redirect.
    async fn once(&self, request: &Request) -> Result<Response, Error> {
        let url = self.url(request);
        let response = self.send(request, &url).await?;
        let Some(next) = self.redirect(&url, &response)? else { return Ok(response) };
        self.send(request, &next).await
    }

    async fn send(&self, request: &Request, url: &str) -> Result<Response, Error> {
        let response =
            self.outbound.transfer(self.outgoing(request, url)?, request.sink.as_deref()).await.map_err(|error| {
                Error::Transport {
                    method: request.method.as_str().to_owned(),
                    url: url.to_owned(),
                    reason: self.reason(&error, url),
                }
            })?;
        let (head, body) = response.into_parts();
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Why there is no response, with a hint for known causes.
    fn reason(&self, error: &CallError, url: &str) -> String {
        let reason = match &error.failure {
            Failure::Tls(error) => tls_reason(error),
            Failure::Timeout(limit) => {
                format!("no response within {} (set VAULT_CLIENT_TIMEOUT to wait longer)", duration::format(*limit))
            }
            other => other.to_string(),
        };
        if url.starts_with("http://") && reason.contains("invalid HTTP version") {
            return format!("{reason}: if the server speaks TLS, its address begins with https://");
        }
        if self.config.address.base() == DEFAULT_ADDRESS && reason.contains("connection refused") {
            return format!("{reason} ({DEFAULT_ADDRESS} is the default; VAULT_ADDR names another server)");
        }
        reason
    }

    fn outgoing(&self, request: &Request, url: &str) -> Result<http::Request<Payload>, Error> {
        let text = || Payload::Bytes(request.body.clone().unwrap_or_default().into());
        let body = request.bytes.clone().unwrap_or_else(text);
        let mut outgoing = http::Request::builder()
            .method(request.method.as_str())
            .uri(url)
            .body(body)
            .map_err(|error| Error::Config(format!("cannot call {url}: {error}")))?;
        *outgoing.headers_mut() = self.headers(request);
        if let Some(token) = self.config.token.as_ref().filter(|token| !token.expose().is_empty()) {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| Error::Config("the token contains characters that no token has".to_owned()))?;
            value.set_sensitive(true);
            outgoing.headers_mut().insert(TOKEN, value);
        }
        Ok(outgoing)
    }

    /// The target of a redirect, such as that of a standby to its leader.
    fn redirect(&self, url: &str, response: &Response) -> Result<Option<String>, Error> {
        let moved = matches!(response.status, 301 | 302 | 307 | 308);
        let location = response.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(next) = location.filter(|_| moved && self.config.follow_redirects) else { return Ok(None) };
        if next.starts_with('/') {
            return Ok(Some(self.config.address.base() + next));
        }
        // A server must not make the client send its token in the clear.
        if url.starts_with("https://") && !next.starts_with("https://") {
            return Err(Error::Config("redirect would cause protocol downgrade".to_owned()));
        }
        Ok(Some(next.to_owned()))
    }

    /// The error for a response with an error status.
    pub fn refusal(&self, request: &Request, response: &Response) -> Error {
        #[derive(serde::Deserialize)]
        struct Body {
            #[serde(default)]
            errors: Option<Vec<String>>,
            #[serde(default)]
            warnings: Option<Vec<String>>,
        }
        // A KV engine explains a wrong path in warnings instead of errors.
        let body = serde_json::from_slice::<Body>(&response.body).ok();
        let errors = body.and_then(|body| body.errors.or(body.warnings)).unwrap_or_default();
        Error::Response(Box::new(ResponseError {
            method: request.method.as_str().to_owned(),
            namespace: canonical(&self.config.namespace),
            url: self.url(request),
            status: response.status,
            errors,
            raw: String::from_utf8_lossy(&response.body[..response.body.len().min(MAX_RAW_ERROR)]).into_owned(),
        }))
    }
}

impl Response {
    /// The common envelope; `None` for an empty body.
    ///
    /// # Errors
    /// When the body has no envelope.
    pub fn secret(&self) -> Result<Option<Secret>, Error> {
        if self.status == StatusCode::NO_CONTENT.as_u16() || self.body.trim_ascii().is_empty() {
            return Ok(None);
        }
        Secret::parse(&self.body)
            .map(Some)
            .map_err(|error| Error::Decode(format!("the response is not of this API: {error}")))
    }
}

/// A namespace with a slash at its end only; empty for the root namespace.
fn canonical(namespace: &str) -> String {
    match namespace.trim_matches('/') {
        "" => String::new(),
        namespace => format!("{namespace}/"),
    }
}

/// The header of a namespace, in UTF-8; `None` for the root namespace and for text that no header can have.
fn namespace_header(namespace: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(canonical(namespace).as_bytes()).ok().filter(|value| !value.is_empty())
}

/// Whether an object is `{"errors": []}`, which means that the path has no value.
fn is_empty_refusal(body: &Map<String, Value>) -> bool {
    body.len() == 1 && body.get("errors").is_some_and(|errors| errors.as_array().is_some_and(Vec::is_empty))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn moved(location: &'static str) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static(location));
        Response { status: 307, headers, body: Bytes::new() }
    }

    fn interpreted(path: &str, status: u16, body: &'static str) -> Result<Option<Secret>, Error> {
        let client = Client::new(Config::new("http://h:8200").unwrap()).unwrap();
        let response = Response { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) };
        let request = Request::new(Method::Get, path);
        client.interpret(&if path.starts_with("sys/") { request.required() } else { request }, &response)
    }

    #[test]
    fn a_404_is_none_only_with_an_empty_list_of_errors() {
        assert!(interpreted("kv/a", 404, "{\"errors\":[]}").unwrap().is_none());
        let deleted = interpreted("kv/a", 404, "{\"data\":{\"data\":null}}").unwrap();
        assert!(deleted.is_some_and(|secret| secret.data_field("data").is_some()));
        for other in
            ["<html>nope</html>", "404 page not found", "", "{\"message\":\"no\"}", "{\"errors\":[\"x\"]}", "[]"]
        {
            assert!(matches!(interpreted("kv/a", 404, other), Err(Error::Response(_))), "{other}");
        }
    }

    #[test]
    fn a_required_path_is_never_none() {
        for body in ["{\"errors\":[]}", "{\"data\":{}}", "<html>", ""] {
            assert!(matches!(interpreted("sys/mounts", 404, body), Err(Error::Response(_))), "{body}");
        }
        let empty = interpreted("sys/mounts", 200, "").unwrap_err().to_string();
        assert!(empty.contains("http://h:8200/v1/sys/mounts returned 200") && empty.contains("VAULT_ADDR"), "{empty}");
        assert!(matches!(interpreted("sys/mounts", 200, "<html>ok</html>"), Err(Error::Decode(_))));
    }

    #[test]
    fn a_redirect_never_sends_the_token_without_tls() {
        let client = Client::new(Config::new("https://h:8200").unwrap()).unwrap();
        let next = |location| client.redirect("https://h:8200/v1/a", &moved(location));
        assert_eq!(next("https://leader:8200/v1/a").unwrap().as_deref(), Some("https://leader:8200/v1/a"));
        assert_eq!(next("/v1/b").unwrap().as_deref(), Some("https://h:8200/v1/b"));
        assert!(matches!(next("http://leader:8200/v1/a"), Err(Error::Config(_))));
        assert!(next("//elsewhere/v1/a").unwrap().is_some_and(|url| url.starts_with("https://h:8200/")));
    }
}
