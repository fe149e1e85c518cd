//! A request that was refused before its handler ran.

use keepfast_framework::{Error, Incoming};

use super::authenticate::RequestCaller;
use super::route::Routed;
use crate::audit::SerializedRequest;

/// A refused request with the results of earlier stages, for its audit entries.
pub(crate) struct Refused {
    /// The request with its destination.
    pub(crate) routed: Routed,
    /// The caller, if authentication got that far.
    pub(crate) caller: RequestCaller,
    /// The error of the response.
    pub(crate) error: Error,
    /// The request as its first audit entry has it.
    pub(crate) serialized: SerializedRequest,
}

impl Refused {
    /// A refusal that no audit device has yet.
    pub(crate) fn new(routed: Routed, caller: RequestCaller, error: Error) -> Self {
        Refused { routed, caller, error, serialized: SerializedRequest::default() }
    }
}

/// A request that leaves the pipeline before it is authorized.
pub(crate) enum Departure {
    /// It is refused.
    Refused(Box<Refused>),
    /// The leader of the cluster must run it: nothing was done.
    ToLeader(Box<Incoming>),
}

impl From<Box<Refused>> for Departure {
    fn from(refused: Box<Refused>) -> Self {
        Departure::Refused(refused)
    }
}
