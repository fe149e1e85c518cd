//! A request that was refused before its handler ran.

use keepfast_framework::Error;

use super::authenticate::RequestCaller;
use super::route::Routed;
use crate::audit::Said;

/// A request that came no further, with what was found out about it, for its audit entries.
pub(crate) struct Refused {
    /// What was found out.
    pub(crate) routed: Routed,
    /// The caller, if authentication got that far.
    pub(crate) caller: RequestCaller,
    /// Why.
    pub(crate) error: Error,
    /// What its first audit entry says of it.
    pub(crate) said: Said,
}

impl Refused {
    /// A refusal that no device has yet.
    pub(crate) fn new(routed: Routed, caller: RequestCaller, error: Error) -> Self {
        Refused { routed, caller, error, said: Said::default() }
    }
}
