//! The cluster port, and the client by which a node joins a cluster.

pub(crate) mod join_client;
