//! How a node becomes a member: see [`exchange`] for what both sides prove, [`leader`] and [`joiner`] for what they do.

pub(crate) mod admission;
pub mod client;
pub(crate) mod exchange;
pub(crate) mod joiner;
pub(crate) mod leader;
pub(crate) mod pending;
pub(crate) mod retry;
mod service;
