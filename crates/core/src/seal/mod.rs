//! The seal: the record with the ways to the root key ([`record`], [`slots`]), the seals of the configuration ([`set`],
//! [`access`]), and how shares are collected, kept, replaced and encrypted ([`current`], [`shares`], [`rekey`], [`pgp`]).

pub(crate) mod access;
pub(crate) mod counts;
pub(crate) mod current;
pub(crate) mod generate_root;
pub(crate) mod guard;
mod known_keys;
mod metered;
pub(crate) mod pgp;
pub(crate) mod planted;
pub(crate) mod proven;
pub(crate) mod record;
mod record_v1;
pub(crate) mod rekey;
pub(crate) mod rolling;
mod set;
mod shape;
pub(crate) mod share_key;
pub(crate) mod shares;
pub(crate) mod slots;
#[cfg(test)]
pub(crate) mod slots_model;
#[cfg(test)]
pub(crate) mod test_seal;
pub(crate) mod wrap_rotation;
pub(crate) mod wrapped_slot;

pub(crate) use access::{SealAccess, Seals};
pub(crate) use current::CurrentSeal;
pub(crate) use record::{BreakGlass, SealConfig, WayIn};
pub use set::{ConfiguredSeal, MAX_SEALS, SealSet, SealSetError, SealTiming};
pub(crate) use shape::SealShape;
pub(crate) use shares::Unsealing;
