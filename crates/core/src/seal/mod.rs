//! Custody of the root key: shares of an unseal key that people hold.

pub mod config;
pub mod shares;

pub use config::{SealConfig, SealShape};
pub use shares::Unsealing;
