//! Black-box conformance: scenarios, comparisons and campaigns that know a server by its URL only.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for developers: its output is its product")]
#![allow(clippy::disallowed_methods, reason = "it measures a running server by the real clock")]

pub mod campaign;
pub mod canary;
pub mod compare;
pub mod database;
pub mod dice;
pub mod http;
pub mod mariadb;
pub mod matching;
pub mod play;
pub mod postgres;
pub mod record;
pub mod redis;
pub mod run;
pub mod scenario;
pub mod servers;
pub mod surface;
