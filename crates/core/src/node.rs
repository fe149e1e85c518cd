//! The composition root: puts together one server. Only `lib.rs` imports it.

use std::net::IpAddr;
use std::sync::Arc;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::engine::{Registered, Registry};
use keepfast_framework::{Clock, Error, Incoming, Result};
use keepfast_storage::Backend;

use crate::admission::Admission;
use crate::lifecycle::Lifecycle;
use crate::metrics::storage::Timed;
use crate::metrics::{Item, Metrics, gather, usage};
use crate::request::Response;
use crate::settings::Settings;
use crate::sys::System;
use crate::sys::metrics::OpenMetrics;
use crate::sys::{in_flight, sealed};
use crate::token::TokenAuth;
use crate::unsealed::Unsealed;
use crate::{DevMount, Initialized, init};

/// One server: uninitialised, sealed or unsealed.
pub struct Node {
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// The metrics for listeners with `unauthenticated_metrics_access`.
    open_metrics: OpenMetrics,
    /// Answers what needs no unsealed server.
    system: System,
}

impl Node {
    /// A server on this storage. It starts sealed, or uninitialised.
    pub fn new(backend: Arc<dyn Backend>, engines: Registry, clock: Arc<dyn Clock>, settings: Settings) -> Arc<Self> {
        let metrics = Arc::<Metrics>::default();
        let backend: Arc<dyn Backend> = Arc::new(Timed::new(backend, clock.clone(), metrics.clone()));
        let admission = Arc::new(Admission::new(clock.clone(), metrics.clone()));
        let lifecycle = Arc::new_cyclic(|lifecycle| {
            let this = lifecycle.clone();
            let system = Registered::with_table(sealed::table(), move |_cx| {
                let system = System::new(this.clone());
                Box::pin(async move { Ok(system) })
            });
            let token = Registered::with(|_cx| Box::pin(async { Ok(TokenAuth) }));
            let engines = Arc::new(engines.preceded_by(vec![system, token]));
            Lifecycle::new(backend, clock, Arc::new(settings), engines, admission, metrics, lifecycle.clone())
        });
        let system = System::new(Arc::downgrade(&lifecycle));
        Arc::new(Node { lifecycle, open_metrics: OpenMetrics::default(), system })
    }

    /// Answers one request.
    pub async fn handle(&self, incoming: Box<Incoming>) -> Response {
        // Boxed, as are all steps that few requests take: a future holds what it may wait for, and the whole journey is
        // moved to its place in memory with each request.
        if sealed::answers_sealed(incoming.path.as_str())
            && let Some(response) = Box::pin(sealed::answer(&self.system, &incoming)).await
        {
            return response;
        }
        match self.unsealed() {
            Some(unsealed) => unsealed.handle(incoming).await,
            None => Response::failed(&Error::sealed()),
        }
    }

    /// The unsealed server, if it is.
    pub(crate) fn unsealed(&self) -> Option<Arc<Unsealed>> {
        self.lifecycle.unsealed()
    }

    /// Whether the server is unsealed and its leases are under quarantine.
    pub fn has_quarantine(&self) -> bool {
        self.lifecycle.has_quarantine()
    }

    /// Whether it is sealed or uninitialised.
    pub fn is_sealed(&self) -> bool {
        self.lifecycle.is_sealed()
    }

    /// Whether the storage is initialised.
    ///
    /// # Errors
    /// When storage fails or the record of the seal is damaged.
    pub async fn is_initialized(&self) -> Result<bool> {
        Ok(self.lifecycle.seal_config().await?.is_some())
    }

    /// Initialises and unseals a development server with one share, and mounts an engine.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn init_dev(&self, root_token: Option<SecretString>, mount: Option<DevMount>) -> Result<Initialized> {
        init::init_dev(&self.lifecycle, root_token, mount).await
    }

    /// What is decided before a request is read.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.lifecycle.admission
    }

    /// Whether a token is alive and may be used from this address. Counts no use of it; false while sealed.
    pub async fn knows_token(&self, token: &SecretString, remote: Option<IpAddr>) -> bool {
        let Some(unsealed) = self.unsealed() else { return false };
        let found = unsealed.tokens.find_anywhere(token.expose(), self.lifecycle.clock.now()).await;
        found.is_ok_and(|found| found.is_some_and(|token| token.record.allows_from(remote)))
    }

    /// Records a request that a quota has refused before it was read.
    pub async fn record_refusal(&self, refused: Box<Incoming>) {
        if let Some(unsealed) = self.unsealed() {
            unsealed.record_refusal(refused).await;
        }
    }

    /// All metrics, by name.
    pub fn gather(&self) -> Vec<Item> {
        gather::gather(&self.lifecycle)
    }

    /// Ends the intervals of the metrics and counts usage, until it is dropped.
    pub async fn keep_metrics(&self) {
        usage::keep(&self.lifecycle).await;
    }

    /// Counts an answer by its status code.
    pub fn count_answer(&self, status: u16) {
        self.lifecycle.metrics.responses.add(status);
    }

    /// The metrics, for a listener with `unauthenticated_metrics_access`. They name no user; the request is not audited.
    pub fn open_metrics(&self, format: &str, accepts_prometheus: bool) -> Response {
        self.open_metrics.answer(&self.lifecycle, format, accepts_prometheus)
    }

    /// The requests in flight, for a listener with `unauthenticated_in_flight_requests_access`. Their paths show no names,
    /// because only callers that may read a path may know them. The request is not audited.
    pub fn open_in_flight(&self, asking: &Incoming) -> Response {
        in_flight::open(&self.lifecycle, asking)
    }

    /// Seals before the process ends.
    pub async fn shutdown(&self) {
        self.lifecycle.seal().await;
    }

    /// Opens the audit devices' targets anew.
    pub fn reopen_audit(&self) {
        if let Some(unsealed) = self.unsealed() {
            unsealed.audit.reopen();
        }
    }
}
