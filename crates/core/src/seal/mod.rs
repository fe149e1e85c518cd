//! Custody of the root key: shares of an unseal key that people hold.

pub(crate) mod config;
pub(crate) mod custody;
pub(crate) mod generation;
pub(crate) mod rotation;
pub(crate) mod shares;

pub(crate) use config::{SealConfig, SealShape};
pub(crate) use custody::Custody;
pub(crate) use shares::Unsealing;
