//! The node as a member of a cluster: see `ARCHITECTURE.md`.

pub(crate) mod administration;
pub(crate) mod announce;
pub(crate) mod announced;
pub(crate) mod autopilot;
pub(crate) mod autopilot_task;
pub(crate) mod clock_task;
pub(crate) mod clocks;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod forward;
pub mod join;
pub(crate) mod keys;
pub(crate) mod lead;
pub(crate) mod members;
pub(crate) mod membership;
pub(crate) mod place;
pub mod port;
pub(crate) mod restored;
pub(crate) mod service;
pub mod snapshots;
pub(crate) mod taken_over;
pub(crate) mod uploads;
