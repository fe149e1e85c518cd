//! The edge: the only crate that speaks HTTP and reads configuration.
//!
//! A connection is accepted by `listener`, takes a place in `connections`, a request becomes a [`keepfast_core::Incoming`] in `http::request`, the
//! kernel's answer leaves through `http::response`. Nothing here knows what a path means.

mod args;
mod banner;
pub mod config;
mod connection;
mod connections;
mod host;
mod http;
mod listener;
mod log_file;
mod log_levels;
mod own_files;
mod patience;
mod plan;
mod preflight;
mod process;
mod reload;
mod run;
mod service_manager;
mod signals;
mod socket;
mod telemetry;
mod tls;

pub use args::{DevArgs, DevKv, ServerArgs};
pub use run::{StartError, run, validate};
pub use tls::TlsError;

#[cfg(test)]
mod tests;
