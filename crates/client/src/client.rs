//! The client: calls, retries, redirections.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use keepfast_crypto::secret::SecretString;
use keepfast_outbound::{CallError, Failure, Outbound};
use serde_json::{Map, Value, json};

use crate::error::{ResponseError, tls_reason};
use crate::patience::{elapsed, pause};
use crate::rate::Bucket;
use crate::request::{Method, Request};
use crate::secret::is_envelope;
use crate::{Config, DEFAULT_ADDRESS, Error, Secret, duration, retry, transport};

/// The most of a body that is no refusal of this API that an error quotes.
const LONGEST_RAW: usize = 4 << 10;
/// How long what `sys/wrapping/wrap` is given stays wrapped, when nothing else is said: it has to be wrapped.
const WRAPPED_FOR: &str = "5m";
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

/// An answer as it came.
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
    /// A client after `config`. Nothing is sent yet.
    ///
    /// # Errors
    /// The TLS part of the configuration cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        let outbound =
            Outbound::new(&transport::settings(&config)?).map_err(|error| Error::Config(error.to_string()))?;
        let limiter = config.rate_limit.map(|limit| Arc::new(Bucket::full(limit, elapsed())));
        Ok(Self { config, outbound, limiter })
    }

    /// The configuration in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same client with another token, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<SecretString>) -> Self {
        let mut other = self.clone();
        other.config.token = token;
        other
    }

    /// Reads a path; `None` when nothing is there.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn read(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Get, path)).await
    }

    /// Lists a path, one level; `None` when nothing is there. The names are in `data.keys`.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn list(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Get, path).with_query("list", "true")).await
    }

    /// Lists a path, all levels.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn scan(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Get, path).with_query("scan", "true")).await
    }

    /// Writes to a path; `None` when it answers nothing.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn write(&self, path: &str, data: Map<String, Value>) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Put, path).with_body(Value::Object(data))).await
    }

    /// Merges into what is at a path (RFC 7396).
    ///
    /// # Errors
    /// No answer, or a refusal; there being nothing to merge into is one.
    pub async fn patch(&self, path: &str, data: Map<String, Value>) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Patch, path).with_body(Value::Object(data))).await
    }

    /// Deletes a path.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn delete(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.secret(&Request::new(Method::Delete, path)).await
    }

    /// Unwraps a wrapping token; `None` unwraps the client's own token.
    ///
    /// # Errors
    /// No answer, or a refusal: the token is used up, expired, or not one.
    pub async fn unwrap(&self, token: Option<&SecretString>) -> Result<Option<Secret>, Error> {
        let (client, request) = self.unwrapping(token);
        client.secret(&request).await
    }

    /// The call that unwraps a token, and the client to make it: without a token of its own, the wrapping
    /// token itself is who it is.
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

    /// Any call whose answer is the common envelope. A read of nothing, which is a 404 with an empty list of errors, is `None`,
    /// unless the server gives warnings with it.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that is no envelope.
    pub async fn secret(&self, request: &Request) -> Result<Option<Secret>, Error> {
        self.interpret(request, &self.raw(request).await?)
    }

    /// What [`Client::secret`] returns for an answer of [`Client::raw`].
    ///
    /// # Errors
    /// A refusal, or an answer that is no envelope. A 404 of another program (a wrong address, a proxy's page) is a refusal, as is
    /// any 404 where [`Request::must_exist`] is set.
    pub fn interpret(&self, request: &Request, response: &Response) -> Result<Option<Secret>, Error> {
        if response.status == 404 {
            // A wrapped answer may itself have been a 404 with warnings.
            let reads = request.method == Method::Get || request.path == "sys/wrapping/unwrap";
            let body = serde_json::from_slice::<Map<String, Value>>(&response.body).unwrap_or_default();
            if !reads || request.must_exist || !(is_envelope(&body) || is_empty_refusal(&body)) {
                return Err(self.refusal(request, response));
            }
            let secret = Secret::parse(&response.body).ok();
            return Ok(secret.filter(|secret| is_envelope(&body) && secret.has_content()));
        }
        let secret = response.secret().map_err(|error| self.not_of_this_api(request, response, &error.to_string()))?;
        let empty = secret.is_none() && response.status == 200 && request.method == Method::Get;
        if empty || (secret.is_none() && request.must_exist) {
            return Err(self.not_of_this_api(request, response, "the answer is empty"));
        }
        Ok(secret)
    }

    /// The error for an answer that no server of this API gives.
    pub fn not_of_this_api(&self, request: &Request, response: &Response, reason: &str) -> Error {
        let kind =
            response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        Error::Decode(format!(
            "{} {} answered {} ({kind}), which is not of this API: {reason}. Does VAULT_ADDR name the server?",
            request.method.as_str(),
            self.url(request),
            response.status,
        ))
    }

    /// Any call. Retries and follows one redirection; a 404 is an answer here, every other failing status
    /// an error.
    ///
    /// # Errors
    /// No answer, or a refusal.
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
            if !again || attempt >= self.config.max_retries {
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

    /// The URL a request goes to.
    pub fn url(&self, request: &Request) -> String {
        self.config.address.base() + &request.target()
    }

    /// The headers a request carries, the token's apart.
    pub fn headers(&self, request: &Request) -> HeaderMap {
        let mut headers = self.config.headers.clone();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        let namespace = self.config.namespace.trim_matches('/');
        if let (false, Ok(value)) = (namespace.is_empty(), HeaderValue::from_str(&format!("{namespace}/"))) {
            headers.insert(NAMESPACE, value);
        }
        let wraps = request.path == "sys/wrapping/wrap" && matches!(request.method, Method::Put | Method::Post);
        let wrap_ttl = self.config.wrap_ttl.as_deref().or(wraps.then_some(WRAPPED_FOR)).filter(|_| request.may_wrap);
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

    /// Sends once, following one redirection.
    async fn once(&self, request: &Request) -> Result<Response, Error> {
        let url = self.url(request);
        let response = self.send(request, &url).await?;
        let Some(next) = self.redirection(&url, &response)? else { return Ok(response) };
        self.send(request, &next).await
    }

    async fn send(&self, request: &Request, url: &str) -> Result<Response, Error> {
        let response = self.outbound.call(self.outgoing(request, url)?).await.map_err(|error| Error::Transport {
            method: request.method.as_str().to_owned(),
            url: url.to_owned(),
            reason: self.reason(&error, url),
        })?;
        let (head, body) = response.into_parts();
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Why there is no response, with a hint where one helps.
    fn reason(&self, error: &CallError, url: &str) -> String {
        let reason = match &error.failure {
            Failure::Tls(error) => tls_reason(error),
            Failure::Timeout(limit) => {
                format!("no answer within {} (set VAULT_CLIENT_TIMEOUT to wait longer)", duration::format(*limit))
            }
            other => other.to_string(),
        };
        if url.starts_with("http://") && reason.contains("invalid HTTP version") {
            return format!("{reason}: the server may speak TLS, then the address begins with https://");
        }
        if self.config.address.base() == DEFAULT_ADDRESS && reason.contains("connection refused") {
            return format!("{reason} ({DEFAULT_ADDRESS} is the default; VAULT_ADDR names another server)");
        }
        reason
    }

    fn outgoing(&self, request: &Request, url: &str) -> Result<http::Request<Bytes>, Error> {
        let body = Bytes::from(request.body.clone().unwrap_or_default());
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

    /// Where to go instead, if the answer says so: a standby names its leader.
    fn redirection(&self, url: &str, response: &Response) -> Result<Option<String>, Error> {
        let moved = matches!(response.status, 301 | 302 | 307 | 308);
        let location = response.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(next) = location.filter(|_| moved && self.config.follow_redirects) else { return Ok(None) };
        if next.starts_with('/') {
            return Ok(Some(self.config.address.base() + next));
        }
        // The token must not travel in the clear because a server says so.
        if url.starts_with("https://") && !next.starts_with("https://") {
            return Err(Error::Config("redirect would cause protocol downgrade".to_owned()));
        }
        Ok(Some(next.to_owned()))
    }

    /// An answer as the error that its status makes it.
    pub fn refusal(&self, request: &Request, response: &Response) -> Error {
        #[derive(serde::Deserialize)]
        struct Body {
            #[serde(default)]
            errors: Option<Vec<String>>,
            #[serde(default)]
            warnings: Option<Vec<String>>,
        }
        // A refusal may say what it has to say as warnings (a wrong path of a KV engine does).
        let body = serde_json::from_slice::<Body>(&response.body).ok();
        let errors = body.and_then(|body| body.errors.or(body.warnings)).unwrap_or_default();
        Error::Response(Box::new(ResponseError {
            method: request.method.as_str().to_owned(),
            url: self.url(request),
            status: response.status,
            errors,
            raw: String::from_utf8_lossy(&response.body[..response.body.len().min(LONGEST_RAW)]).into_owned(),
        }))
    }
}

impl Response {
    /// The common envelope; `None` for an empty body.
    ///
    /// # Errors
    /// The body is something else.
    pub fn secret(&self) -> Result<Option<Secret>, Error> {
        if self.status == StatusCode::NO_CONTENT.as_u16() || self.body.trim_ascii().is_empty() {
            return Ok(None);
        }
        Secret::parse(&self.body)
            .map(Some)
            .map_err(|error| Error::Decode(format!("the answer is not of this API: {error}")))
    }
}

/// Whether an object is `{"errors": []}`, which stands for nothing at a path.
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
    fn only_an_empty_list_of_errors_is_nothing() {
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
    fn a_path_that_must_exist_is_never_nothing() {
        for body in ["{\"errors\":[]}", "{\"data\":{}}", "<html>", ""] {
            assert!(matches!(interpreted("sys/mounts", 404, body), Err(Error::Response(_))), "{body}");
        }
        let empty = interpreted("sys/mounts", 200, "").unwrap_err().to_string();
        assert!(empty.contains("http://h:8200/v1/sys/mounts answered 200") && empty.contains("VAULT_ADDR"), "{empty}");
        assert!(matches!(interpreted("sys/mounts", 200, "<html>ok</html>"), Err(Error::Decode(_))));
    }

    #[test]
    fn a_redirection_never_takes_the_token_out_of_tls() {
        let client = Client::new(Config::new("https://h:8200").unwrap()).unwrap();
        let next = |location| client.redirection("https://h:8200/v1/a", &moved(location));
        assert_eq!(next("https://leader:8200/v1/a").unwrap().as_deref(), Some("https://leader:8200/v1/a"));
        assert_eq!(next("/v1/b").unwrap().as_deref(), Some("https://h:8200/v1/b"));
        assert!(matches!(next("http://leader:8200/v1/a"), Err(Error::Config(_))));
        assert!(next("//elsewhere/v1/a").unwrap().is_some_and(|url| url.starts_with("https://h:8200/")));
    }
}
