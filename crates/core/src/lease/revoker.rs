//! The service that ends, renews and tidies leases.

use std::sync::Arc;

use super::Leases;
use crate::metrics::Metrics;
use crate::mount::{EngineHost, Mounts};
use crate::token::Tokens;

/// Ends, renews and tidies leases and the tokens among them. Its methods stand in `revoke.rs`, `renew.rs`, `tidy.rs` and
/// `duties.rs`.
pub(crate) struct Revoker {
    /// What the engines of leases run on.
    pub(crate) host: Arc<EngineHost>,
    /// The mounts that made the leases.
    pub(crate) mounts: Arc<Mounts>,
    /// All leases.
    pub(crate) leases: Arc<Leases>,
    /// All tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}
