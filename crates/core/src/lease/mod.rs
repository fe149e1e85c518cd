//! Leases: what ends when, on disk in the order of its end; what engines have leased, and how it is taken back.

pub(crate) mod count;
pub(crate) mod horizon;
pub(crate) mod index;
pub(crate) mod intent;
pub(crate) mod quarantine;
pub(crate) mod record;
pub(crate) mod renew;
pub(crate) mod revoke;
mod revoker;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod tidy;

pub(crate) use revoker::Revoker;
pub(crate) use store::{EndsOfMounts, Leases};
