//! Leases and the expiry of tokens: issue, renewal, expiry, revocation.

pub(crate) mod count;
mod expire;
pub(crate) mod expiry_queue;
pub(crate) mod index;
pub(crate) mod intent;
pub(crate) mod quarantine;
mod quota_counter;
pub(crate) mod quotas;
pub(crate) mod record;
pub(crate) mod recount;
pub(crate) mod renew;
pub(crate) mod revoke;
mod revoke_by_path;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod tidy;

pub(crate) use expire::ExpiryWorker;
pub(crate) use renew::Renewer;
pub(crate) use revoke::LeaseRevoker;
pub(crate) use revoke_by_path::PathRevoker;
pub(crate) use store::{DeletedMounts, Leases};
pub(crate) use tidy::IndexTidier;
