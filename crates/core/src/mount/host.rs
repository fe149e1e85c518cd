//! The host of engines: storage, time, and the services that core offers.

use std::sync::Arc;

use keepfast_crypto::random;
use keepfast_framework::cx::{Caller, Request};
use keepfast_framework::engine::Registry;
use keepfast_framework::services::Services;
use keepfast_framework::{Clock, Cx, Operation};
use keepfast_storage::{Barrier, Tx};

use super::router::Mounted;

/// The host of engines. It creates their contexts.
pub(crate) struct EngineHost {
    /// The only way to storage.
    pub(crate) barrier: Arc<Barrier>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The services that core offers to engines.
    pub(crate) services: Arc<dyn Services>,
    /// The engines that the server was built with.
    pub(crate) registry: Arc<Registry>,
}

impl EngineHost {
    /// The context of a request on a mount.
    pub(crate) fn request_context(&self, mounted: &Mounted, request: Arc<Request>, tx: Tx, caller: Arc<Caller>) -> Cx {
        let (view, info) = (mounted.view.clone(), mounted.info.clone());
        Cx::new(self.barrier.clone(), tx, view, info, self.clock.clone(), caller, request)
    }

    /// A context for background work on a mount, without a caller.
    pub(crate) fn context(&self, mounted: &Mounted, operation: Operation, path: String) -> Cx {
        let request = Request { id: random::request_id(), operation, path, remote: None, tls: None };
        self.request_context(mounted, Arc::new(request), self.barrier.begin(), Arc::default())
            .with_services(self.services.clone())
    }
}
