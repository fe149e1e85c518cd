//! Entry points for fuzz targets to private functions of the server.

pub use crate::cluster::fuzzing::{coming_root, failure, frames, greeting, request, response};
