//! Black-box conformance tests: scenarios, comparisons and campaigns that use only the URL of a server.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer tool prints its results")]
#![allow(clippy::disallowed_methods, reason = "it measures a running server with the system clock")]

pub mod balancer;
pub mod campaign;
pub mod canary;
pub mod compare;
pub mod database;
pub mod http;
pub mod links;
pub mod mariadb;
pub mod matching;
pub mod node_faults;
pub mod nodes;
pub mod one_node;
pub mod play;
pub mod postgres;
pub mod record;
pub mod redis;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod seal_canary;
pub mod seals;
pub mod served;
pub mod servers;
pub mod slow_proxy;
pub mod surface;
pub mod totp;
