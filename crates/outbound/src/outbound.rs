//! Calls with timeouts and a response limit.

use std::error::Error;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::uri::Uri;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connect::Connector;
use crate::error::{CallError, Failure, SettingsError};
use crate::payload::{self, Payload, Sent};
use crate::{Proxies, Settings};

/// The most idle connections that are kept for each host.
const IDLE_PER_HOST: usize = 16;

/// Sends requests and keeps connections for later ones. A clone is cheap and shares the connections.
#[derive(Clone)]
pub struct Outbound {
    pool: Pool<Connector, Sent>,
    timeout: Option<Duration>,
    max_response: usize,
    proxies: Arc<Proxies>,
    /// The path of the Unix socket, for errors.
    socket: Option<Arc<str>>,
}

impl Outbound {
    /// Reads the files of the settings without sending anything.
    ///
    /// # Errors
    /// [`SettingsError`] when a file cannot be read, or its content cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let proxies = Arc::new(settings.proxies.clone());
        let connector = Connector::new(settings, proxies.clone())?;
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(connector);
        let socket = settings.socket.as_ref().map(|path| path.display().to_string().into());
        Ok(Outbound { pool, timeout: settings.timeout, max_response: settings.max_response, proxies, socket })
    }

    /// Sends a request with an absolute URL, and receives the whole response. A redirect is returned as the response.
    ///
    /// # Errors
    /// [`CallError`] when there is no response within the limits of the settings.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        self.transfer(request.map(Payload::Bytes), None).await
    }

    /// As [`Self::call`], with a body that may be a file. The body of a response whose status is 2xx is written to `sink`, and
    /// replaces what that contains. While a file is sent or received there is no timeout, and no limit of the response.
    ///
    /// # Errors
    /// [`CallError`] when there is no response within the limits of the settings; when a file cannot be read or written.
    pub async fn transfer(
        &self,
        mut request: Request<Payload>,
        sink: Option<&File>,
    ) -> Result<Response<Bytes>, CallError> {
        let host = self.host(request.uri());
        self.authorize_to_proxy(&mut request);
        let is_large = sink.is_some() || matches!(request.body(), Payload::File(_));
        let exchange = self.exchange(request, sink);
        let outcome = match self.timeout.filter(|_| !is_large) {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(Failure::Timeout(limit))),
        };
        outcome.map_err(|failure| CallError { host, failure })
    }

    async fn exchange(&self, request: Request<Payload>, sink: Option<&File>) -> Result<Response<Bytes>, Failure> {
        let unusable = |error: io::Error| Failure::Broken(format!("a file: {error}"));
        let (head, payload) = request.into_parts();
        let request = Request::from_parts(head, Sent::new(payload).map_err(unusable)?);
        let response = self.pool.request(request).await.map_err(|error| Failure::of(&error, !error.is_connect()))?;
        let (head, mut body) = response.into_parts();
        if let Some(file) = sink.filter(|_| head.status.is_success()) {
            payload::begin(file).map_err(unusable)?;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Failure::of(&error, true))?;
                if let Some(part) = frame.data_ref() {
                    payload::add(file, part).map_err(unusable)?;
                }
            }
            return Ok(Response::from_parts(head, Bytes::new()));
        }
        let body = Limited::new(body, self.max_response).collect().await.map_err(|error| self.body_failure(&*error))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    fn body_failure(&self, error: &(dyn Error + Send + Sync + 'static)) -> Failure {
        match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Failure::TooLarge(self.max_response),
            None => Failure::of(error, true),
        }
    }

    /// A proxy that reads the request needs the `Proxy-Authorization` header in it; a tunnel sends its own.
    fn authorize_to_proxy<B>(&self, request: &mut Request<B>) {
        if self.socket.is_some() || request.uri().scheme_str() != Some("http") {
            return;
        }
        let proxy = self.proxies.for_address(request.uri());
        if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization.clone()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
    }

    /// The host for errors: never the user, the path or the query of a URL.
    fn host(&self, uri: &Uri) -> String {
        match (&self.socket, uri.host(), uri.port()) {
            (Some(path), ..) => path.to_string(),
            (None, Some(host), Some(port)) => format!("{host}:{port}"),
            (None, host, _) => host.unwrap_or("a URL without a host").to_owned(),
        }
    }
}
