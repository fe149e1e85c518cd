//! The node with the edge, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../edge/src/tests/exchange.rs"]
mod exchange;
mod rules;
mod whole;
