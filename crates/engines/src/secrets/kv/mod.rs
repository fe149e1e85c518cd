//! Key/value secrets: version 1 keeps one value at each path, version 2 keeps several versions of it.
//!
//! A mount is of version 2 with the option `version=2`. Setting that option on a mount of version 1 turns each of its
//! secrets into version 1 of itself, without an interruption ([`v2`] has how).

pub mod v1;
pub mod v2;

pub use v1::V1;
pub use v2::V2;

/// Where version 1 keeps its secrets: the prefix, then the path. Version 2 finds them there when a mount is upgraded.
const PLAIN: &str = "plain/";
