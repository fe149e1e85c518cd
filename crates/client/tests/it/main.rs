//! The client against scripted servers: what it sends, what it makes of answers, whom it trusts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod answers;
#[path = "../../../outbound/tests/it/authority.rs"]
mod authority;
mod server;
mod tls;
