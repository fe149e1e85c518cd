//! The seal: the wrapping of the root key ([`wrap`]), and how the shares of its key are collected, kept and replaced
//! ([`current`], [`shares`], [`rekey`]).

pub(crate) mod by_shares;
pub(crate) mod config;
pub(crate) mod current;
pub(crate) mod generate_root;
mod in_use;
mod kind;
pub(crate) mod rekey;
mod set;
mod shamir;
mod shape;
pub(crate) mod shares;
#[cfg(test)]
mod suite;
mod wrap;

pub(crate) use config::SealConfig;
pub(crate) use current::CurrentSeal;
pub use kind::SealKind;
pub use set::{ConfiguredSeal, MAX_SEALS, SealSet, SealSetError, SealTiming};
pub(crate) use shape::SealShape;
pub(crate) use shares::Unsealing;
pub(crate) use wrap::Seal;
