//! What engines run on: storage, time, and the services that they may ask for.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::cx::{Caller, Request};
use keepfast_framework::engine::Registry;
use keepfast_framework::services::Services;
use keepfast_framework::{Clock, Cx, Operation};
use keepfast_storage::Barrier;

use super::router::Mounted;

/// What engines run on. It makes the contexts of work that no request asks for.
pub(crate) struct EngineHost {
    /// The only way to storage.
    pub(crate) barrier: Arc<Barrier>,
    /// The only source of time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What engines may ask for.
    pub(crate) services: Arc<dyn Services>,
    /// The engines that the server was built with.
    pub(crate) registry: Arc<Registry>,
}

impl EngineHost {
    /// A context for background work on a mount, without a caller.
    pub(crate) fn context(&self, mounted: &Mounted, operation: Operation, path: String) -> Cx {
        let request = Request { id: random::request_id(), operation, path, remote: None, tls: None };
        Cx::new(
            self.barrier.clone(),
            self.barrier.begin(),
            mounted.view.clone(),
            mounted.info.clone(),
            self.clock.clone(),
            Arc::new(Caller::default()),
            Arc::new(request),
        )
        .with_services(self.services.clone())
    }
}
