//! How a node becomes a member: see [`exchange`] for what both sides prove, [`leader`] and [`joiner`] for what they
//! do, and [`rejoin`] for a member that has missed a rotation of the keyring.

pub(crate) mod admission;
pub mod client;
pub(crate) mod exchange;
pub(crate) mod joiner;
pub(crate) mod leader;
mod pause;
pub(crate) mod pending;
pub(crate) mod proven;
pub(crate) mod rejoin;
mod responses;
pub(crate) mod retry;
mod service;
