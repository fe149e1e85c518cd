//! The trusted kernel: authorization and auditing of each request, in one transaction. It has no HTTP and refers to no
//! engine by name.
//!
//! The public items are those that the server needs: a [`Node`] that handles [`keepfast_framework::Incoming`] requests,
//! and the rules that apply before a request is read. All other items are private to this crate, so that no caller
//! outside it can run an engine, read through the barrier or bypass the audit log:
//!
//! ```
//! use keepfast_core::{Node, Response};
//! use keepfast_framework::Incoming;
//! async fn handle(node: &Node, incoming: Box<Incoming>) -> Response {
//!     node.handle(incoming).await
//! }
//! ```
//!
//! The unsealed server with its mounts and its barrier is not accessible:
//!
//! ```compile_fail,E0616
//! use keepfast_core::Node;
//! fn reach(node: &Node) -> bool {
//!     node.lifecycle.unsealed().is_some()
//! }
//! ```
//!
//! The engine of a mount is not accessible either, not even to a caller that has the mount:
//!
//! ```compile_fail,E0603
//! use keepfast_core::mount::Mounted;
//! ```
//!
//! ```compile_fail,E0603
//! use keepfast_core::mount::OpenedEngine;
//! ```
//!
//! A response without an audit entry cannot be created:
//!
//! ```compile_fail,E0451
//! use keepfast_core::Response;
//! use keepfast_framework::Status;
//! fn forge() -> Response {
//!     let (content_type, body) = ("text/plain".into(), Default::default());
//!     Response { status: Status::OK.into(), content_type, body, committed: None, headers: None }
//! }
//! ```
//!
//! ```compile_fail,E0624
//! use keepfast_core::Response;
//! use keepfast_framework::Status;
//! fn forge() -> Response {
//!     Response::exempt(Status::OK, "")
//! }
//! ```

pub mod admission;
pub mod audit;
mod background;
pub mod cluster;
mod control_group;
mod dev;
mod external_keys;
#[cfg(feature = "test-support")]
pub mod for_tests;
mod identity;
mod init;
mod invalidation;
mod keyring_rotation;
mod layout;
mod lease;
mod lifecycle;
mod lockout;
pub mod metrics;
mod monitoring;
mod mount;
mod namespace;
mod node;
mod operator_error;
mod parts;
mod policy;
pub mod policy_analysis;
mod preliminaries;
mod quota;
mod request;
mod rewrap;
mod seal;
pub mod self_init;
mod services;
pub mod settings;
mod stamps;
mod sys;
mod takeover;
#[cfg(test)]
mod tests;
mod token;
mod unreadable;
mod unseal;
mod unsealed;
mod version_history;
mod wrapping;

pub use cluster::uploads::UploadTurn;
pub use dev::{DevMount, init_dev};
pub use init::Initialized;
pub use monitoring::Monitoring;
pub use node::{Node, NodeSettings, ServingState};
pub use preliminaries::Preliminaries;
pub use request::{Response, ResponseHeaders};
pub use seal::{ConfiguredSeal, MAX_SEALS, SealSet, SealSetError, SealTiming};
pub use settings::Settings;
pub use sys::sealed::{is_served_sealed, takes_raw_body};
