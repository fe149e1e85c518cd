//! The cluster port: connections between the unsealed nodes of a cluster. `frames.rs` has the form of a connection.
//!
//! Two nodes have up to three lasting connections in each direction: messages of Raft, calls of the storage, and requests
//! of clients, so that none waits behind a larger one. A snapshot has a connection of its own. The node that dials sends;
//! the other one only responds. `identity.rs` decides which node is at the other end.

mod accept;
mod address;
mod back_off;
mod calls;
mod certificates;
mod coming_root;
mod connection;
mod connector;
mod dial;
mod failure;
mod frames;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod identity;
pub(crate) mod join_client;
mod members;
mod messages;
mod open_port;
mod port;
mod request;
mod serve;
mod snapshot;
#[cfg(test)]
mod tests;
mod unknown;

pub(crate) use port::{Port, RequestLimits};
