//! The edge: the only crate that speaks HTTP and reads configuration.
//!
//! A connection is accepted by `listener`, a request becomes a [`keepfast_core::Incoming`] in `http::request`, the
//! kernel's answer leaves through `http::response`. Nothing here knows what a path means.

mod args;
pub mod config;
mod telemetry;

pub use args::{DevArgs, ServerArgs};
