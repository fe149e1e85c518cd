//! Leases: what ends when, on disk in the order of its end; what engines have leased, and how it is taken back.

pub mod count;
pub mod horizon;
pub mod index;
pub mod intent;
pub mod quarantine;
pub mod record;
pub mod renew;
pub mod revoke;
pub mod store;
#[cfg(test)]
mod tests;
mod tidy;

pub use record::{LeaseId, LeaseRecord};
pub use store::Leases;
