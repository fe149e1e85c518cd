//! The node as a member of a cluster: which node handles a request, its connections to the other nodes, and joining.

pub mod port;
