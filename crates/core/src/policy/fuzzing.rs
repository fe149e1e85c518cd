//! Entry points for fuzz targets to what is private here.

use serde_json::Value;

use super::reading::{self, Scope};

/// Whether a value of `denied_parameters` denies the value of a request. `is_declared` says whether the route declares the
/// parameter: its handler then reads texts as lists, pairs, JSON or base64.
pub fn is_denied(denied: &Value, given: &Value, is_declared: bool) -> bool {
    reading::reaches(denied, given, if is_declared { Scope::Declared } else { Scope::Data })
}
