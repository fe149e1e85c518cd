//! The server: the only crate that reads its configuration and connects storage, engines, kernel and edge.
//!
//! [`run`] reads the configuration, binds sockets, opens the storage and the node, and serves until a signal stops it.
//! `kernel` adapts the node to the edge.

mod args;
mod banner;
mod cluster;
pub mod config;
pub mod diagnose;
mod effective_config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host_gauges;
mod kernel;
mod log_file;
mod log_levels;
mod logging;
mod own_files;
mod preflight;
mod process;
mod reload;
mod run;
mod self_init;
mod service_manager;
mod signals;
mod snapshot_contents;
mod storage;

pub use args::{DevArgs, DevKv, ServerArgs};
pub use keepfast_core::cluster::snapshots;
pub use keepfast_core::policy_analysis;
pub use keepfast_edge::TlsError;
pub use run::{StartError, downgrade_storage, run, validate};
pub use snapshot_contents::{read_kv, unseal_snapshot};

/// The route tables of this build, for tools that read policies. `mounts` are all mounts of a server, if they are known.
pub fn engine_tables(mounts: Option<Vec<policy_analysis::KnownMount>>) -> policy_analysis::EngineTables {
    policy_analysis::EngineTables::new(keepfast_engines::all(), mounts)
}

#[cfg(test)]
mod tests;
