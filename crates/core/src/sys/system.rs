//! The engine at `sys/`, and the context of its handlers.

use std::sync::{Arc, Weak};

use keepfast_framework::{Cx, Error, Result};
use keepfast_storage::Consensus;

use crate::lifecycle::Lifecycle;
use crate::request::dispatch::CoreCall;
use crate::unsealed::Unsealed;

/// The engine at `sys/`.
pub(crate) struct System {
    lifecycle: Weak<Lifecycle>,
}

impl System {
    /// The engine of this server.
    pub(crate) fn new(lifecycle: Weak<Lifecycle>) -> Self {
        System { lifecycle }
    }

    /// The server, sealed or not, for sealing it and for its metrics.
    pub(super) fn lifecycle(&self) -> Result<Arc<Lifecycle>> {
        self.lifecycle.upgrade().ok_or_else(Error::sealed)
    }
}

/// The context of the call that only core's engines have.
pub(super) fn call(cx: &Cx) -> Result<Arc<CoreCall>> {
    cx.core::<CoreCall>().ok_or_else(|| Error::internal("a system request without core's part"))
}

/// The unsealed server that authorized the call.
pub(super) fn unsealed(cx: &Cx) -> Result<Arc<Unsealed>> {
    Ok(call(cx)?.unsealed.clone())
}

/// The members and the log of this node. Without a cluster OpenBao does not have the paths that use them.
pub(super) fn consensus(sys: &System) -> Result<Arc<dyn Consensus>> {
    sys.lifecycle()?.parts.backend.consensus().ok_or_else(Error::unsupported_path)
}
