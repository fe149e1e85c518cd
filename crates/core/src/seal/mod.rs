//! Custody of the root key: shares of an unseal key that people hold.

pub mod config;
pub mod custody;
pub mod generation;
pub mod rotation;
pub mod shares;

pub use config::{SealConfig, SealShape};
pub use custody::Custody;
pub use shares::Unsealing;
