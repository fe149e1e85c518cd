//! Entry points for fuzz targets to private functions of the storage.

pub use crate::local::fuzzing::{OpenedLog, open_log};
