//! Secrets engines.

pub mod cubbyhole;
pub mod database;
pub mod kv;
mod raw_json;
pub mod transit;
mod tree;
mod whole_body;
