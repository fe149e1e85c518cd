//! `required_parameters`, `allowed_parameters` and `denied_parameters`, judged on parsed values.
//!
//! What is allowed is compared strictly: a value passes only as the type that the policy names. What is denied is
//! compared widely: in any spelling that a handler could read as the denied value (a number or a duration as text, one
//! element of a list, a comma list, a nested value).

use std::collections::{BTreeMap, BTreeSet};

use keepfast_framework::fields::parse_duration;
use serde_json::{Map, Value};

/// The parameters of a request: the fields of its body, or of its query.
pub type Parameters = Map<String, Value>;

/// Names that stand for every parameter.
const ANY: &str = "*";

/// Constraints on the parameters of a request. Names are kept in lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Parameters that must be there, under exactly these names.
    pub required: BTreeSet<String>,
    /// If not empty, the only parameters that may be there, and their values; no values means any.
    pub allowed: BTreeMap<String, Vec<Value>>,
    /// Parameters that must not be there, or not with these values; no values means any.
    pub denied: BTreeMap<String, Vec<Value>>,
}

impl Constraints {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.allowed.is_empty() && self.denied.is_empty()
    }

    /// Whether the parameters satisfy them.
    pub fn permit(&self, parameters: &Parameters) -> bool {
        self.required.iter().all(|name| parameters.contains_key(name))
            && !parameters.iter().any(|(name, value)| self.denies(&name.to_lowercase(), value))
            && parameters.iter().all(|(name, value)| self.allows(&name.to_lowercase(), value))
    }

    fn denies(&self, name: &str, value: &Value) -> bool {
        if self.denied.contains_key(ANY) {
            return true;
        }
        let denied = self.denied.get(name);
        denied.is_some_and(|values| values.is_empty() || values.iter().any(|denied| reaches(denied, value)))
    }

    fn allows(&self, name: &str, value: &Value) -> bool {
        if self.allowed.is_empty() {
            return true;
        }
        match self.allowed.get(name) {
            Some(values) => values.is_empty() || values.iter().any(|allowed| is_literally(allowed, value)),
            None => self.allowed.contains_key(ANY),
        }
    }

    /// Unites with the constraints of another rule for the same path.
    pub(crate) fn unite(&mut self, other: &Self) {
        self.required.extend(other.required.iter().cloned());
        unite_values(&mut self.allowed, &other.allowed);
        unite_values(&mut self.denied, &other.denied);
    }
}

/// No values means any, and any with some is any.
fn unite_values(ours: &mut BTreeMap<String, Vec<Value>>, theirs: &BTreeMap<String, Vec<Value>>) {
    for (name, values) in theirs {
        match ours.get_mut(name) {
            None => drop(ours.insert(name.clone(), values.clone())),
            Some(old) if old.is_empty() || values.is_empty() => old.clear(),
            Some(old) => old.extend(values.iter().cloned()),
        }
    }
}

/// Whether a request's value is the one that the policy allows.
fn is_literally(allowed: &Value, given: &Value) -> bool {
    match (allowed, given) {
        // Every part of what a handler may read as a comma list must match, or `*.a` would allow `b,c.a`.
        (Value::String(pattern), Value::String(text)) => {
            pattern == text || is_glob(pattern) && parts(pattern, text).all(|part| glob(pattern, part))
        }
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        _ => equal(allowed, given),
    }
}

/// Whether a handler could read the request's value, or a part of it, as the one that the policy denies.
fn reaches(denied: &Value, given: &Value) -> bool {
    if equal(denied, given) {
        return true;
    }
    if let Value::Array(list) = denied {
        return as_list(given).is_some_and(|given| {
            given.len() == list.len() && given.iter().zip(list).all(|(given, denied)| reaches(denied, given))
        });
    }
    match given {
        Value::Array(list) => list.iter().any(|element| reaches(denied, element)),
        Value::Object(object) => object.values().any(|value| reaches(denied, value)),
        Value::String(text) => {
            reaches_text(denied, text) || text.split(',').any(|part| reaches_text(denied, part.trim()))
        }
        Value::Null => reaches_text(denied, ""),
        scalar => reaches_text(denied, &scalar.to_string()),
    }
}

/// Whether a text, as a handler could read it, is the denied scalar.
fn reaches_text(denied: &Value, text: &str) -> bool {
    let spelled = match denied {
        Value::String(pattern) if pattern == ANY || is_glob(pattern) && glob(pattern, text) => return true,
        Value::String(spelled) => spelled.clone(),
        Value::Bool(value) => return truth(text) == Some(*value),
        Value::Number(number) => number.to_string(),
        _ => return false,
    };
    if spelled == text {
        return true;
    }
    match (spelled.parse::<f64>(), text.parse::<f64>()) {
        (Ok(a), Ok(b)) => same_float(a, b),
        _ => matches!((parse_duration(&spelled), parse_duration(text)), (Ok(a), Ok(b)) if a == b),
    }
}

/// A value as the list that a handler could read it as.
fn as_list(given: &Value) -> Option<Vec<Value>> {
    match given {
        Value::Array(list) => Some(list.clone()),
        Value::String(text) if text.is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect()),
        Value::Object(_) | Value::Null => None,
        scalar => Some(vec![scalar.clone()]),
    }
}

fn parts<'a>(pattern: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let separator = if pattern.contains(',') { '\0' } else { ',' };
    text.split(separator).map(str::trim)
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

fn same_number(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if same_float(a, b))
}

fn same_float(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_eq() || a == b
}

/// The texts that are read as truth values.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "" | "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// Whether a pattern has a `*` at an end, and something beside it: a lone `*` is only itself.
fn is_glob(pattern: &str) -> bool {
    pattern.len() > 1 && (pattern.starts_with('*') || pattern.ends_with('*'))
}

fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), Some(_)) => text.contains(rest.strip_suffix('*').unwrap_or(rest)),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}
