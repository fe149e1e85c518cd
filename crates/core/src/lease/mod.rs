//! Leases and the expiry of tokens: issue, renewal, expiry, revocation.

mod by_path;
pub(crate) mod count;
mod expire;
pub(crate) mod expiry_queue;
pub(crate) mod index;
pub(crate) mod intent;
pub(crate) mod quarantine;
pub(crate) mod record;
pub(crate) mod renew;
pub(crate) mod revoke;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod tidy;

pub(crate) use by_path::PathRevoker;
pub(crate) use expire::ExpiryWorker;
pub(crate) use renew::Renewer;
pub(crate) use revoke::LeaseRevoker;
pub(crate) use store::{EndsOfMounts, Leases};
pub(crate) use tidy::IndexTidier;
