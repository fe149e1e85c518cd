//! Calls with timeouts and a response limit.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::uri::Uri;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connect::Connector;
use crate::error::{CallError, Failure, SettingsError};
use crate::{Proxies, Settings};

/// The most idle connections that are kept for each host.
const IDLE_PER_HOST: usize = 16;

/// Sends requests and keeps connections for later ones. A clone is cheap and shares the connections.
#[derive(Clone)]
pub struct Outbound {
    pool: Pool<Connector, Full<Bytes>>,
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
    pub async fn call(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let host = self.host(request.uri());
        self.authorize_to_proxy(&mut request);
        let exchange = self.exchange(request.map(Full::new));
        let outcome = match self.timeout {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(Failure::Timeout(limit))),
        };
        outcome.map_err(|failure| CallError { host, failure })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure> {
        let response = self.pool.request(request).await.map_err(|error| Failure::of(&error, !error.is_connect()))?;
        let (head, body) = response.into_parts();
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
    fn authorize_to_proxy(&self, request: &mut Request<Bytes>) {
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
