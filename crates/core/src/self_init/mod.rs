//! Self-initialization: the `initialize` stanzas of the configuration initialize the storage and send requests to the new
//! server, once, with a root token that is revoked at the end.
//!
//! Source: <https://openbao.org/docs/configuration/self-init>.
//!
//! [`plan`] has the requests, [`value`] evaluates their values, [`history`] holds what later requests refer to, [`state`]
//! is the progress in storage, [`gate`] refuses all other requests until the end, and [`run`] does the work.

mod convert;
pub(crate) mod gate;
mod history;
mod plan;
pub(crate) mod run;
mod send;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use plan::{PlanError, PlannedRequest, Recovery, RecoveryOutput, SelfInitPlan, Sources};
pub use send::{check_operation, check_path};
pub use value::{PlannedValue, Source, SourceKind, ValueType};
