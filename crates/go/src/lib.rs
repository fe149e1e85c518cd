//! How Go reads and writes values, as far as Vault's API and tools show it: durations, whole numbers in text, and the
//! names of types in error texts.

pub mod duration;
mod quoted;

pub use quoted::Quoted;
use serde_json::Value;

/// Go's name of the type that a JSON value is decoded to, as error texts have it.
#[must_use]
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "json.Number",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
