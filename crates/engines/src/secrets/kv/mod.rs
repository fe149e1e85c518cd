//! Key/value secrets: version 1 stores one value per path, version 2 stores several versions of it.
//!
//! The mount option `version=2` selects version 2. Setting it on a mount of version 1 makes each secret version 1 of a
//! secret of version 2, without an interruption (see [`v2`]).

pub mod v1;
pub mod v2;

pub use v1::V1;
pub use v2::V2;

/// The prefix of the secrets of version 1. Version 2 reads them there after an upgrade of the mount.
const V1_SECRETS: &str = "plain/";
