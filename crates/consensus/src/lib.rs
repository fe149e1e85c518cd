//! Raft as a pure state machine: the crate `raft`, the rules around it without which it is not safe in a server that
//! serves reads from a lease and stores asynchronously, the form of messages between nodes, and a simulator.
//!
//! Nothing here performs I/O, reads a clock, draws random numbers of its own or knows a task: [`Steps::step`] takes one
//! input with the time at which it arrived, and returns effects, which the driver in `storage` performs. It is a crate of
//! its own, not a module of `storage`, because it builds in seconds and cannot reach a disk or a socket.
//!
//! Only `steps`, `log_view`, `stored` and `convert` name the crate `raft`, and no type of it is public here.

#[macro_use]
mod planted;

mod convert;
mod entry;
mod frame;
mod log_view;
mod member;
mod message;
#[cfg(test)]
mod message_tests;
mod payload;
#[cfg(any(test, feature = "suite"))]
pub mod sim;
mod steps;
mod stored;
mod wire;

pub use entry::{Entry, LogId, Mono, RaftId, Vote};
pub use frame::Frame;
pub use member::{Change, ChangeError, ELECTION_MS, Incarnation, MAX_MEMBERS, Member, NodeId};
pub use message::{Body, MAX_MESSAGE, Message, ReadContext, Rejection};
pub use payload::{Kind, MAX_ENTRY, Payload};
#[cfg(any(test, feature = "suite"))]
pub use planted::Bug;
pub use steps::{Boot, BootError, Chance, Effect, Input, Origin, PeerProgress, Refusal, Role, Settings, Status, Steps};
pub use wire::WireError;
