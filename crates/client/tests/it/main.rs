//! The client against scripted servers: its requests, its results, its trust.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../../../outbound/tests/it/authority.rs"]
mod authority;
mod responses;
mod server;
mod tls;
