//! Go's formats of values where Vault's API and tools expose them: durations, integers in text, and type names in error
//! texts.

pub mod duration;
mod quoted;

pub use quoted::Quoted;
use serde_json::Value;

/// Go's name of the type that a JSON value decodes to, for error texts.
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
