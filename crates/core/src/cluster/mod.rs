//! The node as a member of a cluster: see `ARCHITECTURE.md`.

pub(crate) mod forward;
pub(crate) mod keys;
pub(crate) mod lead;
pub(crate) mod membership;
pub(crate) mod place;
pub mod port;
pub(crate) mod service;
