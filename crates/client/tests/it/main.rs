//! The client against scripted servers: its requests, its results, its trust.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod proxy;
mod responses;
mod server;
mod tls;
