//! Unsealing by the seals of the configuration ([`by_seals`]), migration between seals and shares ([`migrate`]), and the
//! checks of the seals of an unsealed server ([`keeper`]), and the migration of a cluster ([`rolling`]).

pub(crate) mod by_seals;
pub(crate) mod keeper;
pub(crate) mod migrate;
mod opener;
#[cfg(test)]
pub(crate) mod opener_model;
pub(crate) mod rolling;
