//! `required_parameters`, `allowed_parameters` and `denied_parameters`, evaluated on parsed values.
//!
//! An allowed value is compared strictly: a value passes only as the type in the policy. A denied value is compared
//! widely: every spelling that a handler reads as the denied value is denied. Parameters that the route declares are
//! compared as its field types read them ([`super::reading`]); data that the route only stores is compared with regard
//! to case.

use std::collections::{BTreeMap, BTreeSet};

use keepfast_framework::rows::OperationInfo;
use serde_json::{Map, Value};

use super::denied_values::{self, Scope};
use super::nested::Nested;

/// The parameters of a request: the fields of its body, or of its query.
pub(crate) type Parameters = Map<String, Value>;

/// The name that means every parameter.
pub(super) const ANY: &str = "*";
/// The parameter that holds several operations.
pub(super) const BATCH: &str = "batch_input";

/// Why parameters do not satisfy constraints, with the name of one. The name of a field inside a parameter has a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A required parameter is missing.
    Required(String),
    /// A parameter, or its value, is denied.
    Denied(String),
    /// A parameter, or its value, is not among the allowed ones.
    NotAllowed(String),
    /// A parameter whose fields are constrained is no object.
    NoObject(String),
}

/// Constraints on the parameters of a request. Names are kept in lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Constraints {
    /// Required parameters, with exactly these names.
    pub(crate) required: BTreeSet<String>,
    /// If not empty, the only permitted parameters with their values; no values means any.
    pub(crate) allowed: BTreeMap<String, Vec<Value>>,
    /// Forbidden parameters, or parameters with forbidden values; no values means any.
    pub(crate) denied: BTreeMap<String, Vec<Value>>,
}

impl Constraints {
    /// Whether there are no constraints.
    pub(crate) fn is_empty(&self) -> bool {
        self.required.is_empty() && self.allowed.is_empty() && self.denied.is_empty()
    }

    /// Whether a name has a dot, and so may be that of a field inside a parameter.
    pub(super) fn has_dotted_names(&self) -> bool {
        self.required.iter().chain(self.allowed.keys()).chain(self.denied.keys()).any(|name| name.contains('.'))
    }

    /// The first parameter that does not satisfy the constraints. `operation` is the declaration of the operation that
    /// reads them.
    pub(crate) fn refusal(&self, parameters: &Parameters, operation: Option<&OperationInfo>) -> Option<Refusal> {
        let nested = Nested::of(self, operation);
        if let Some(refusal) = nested.as_ref().and_then(|nested| nested.refused_field(parameters)) {
            return Some(refusal);
        }
        let is_field = |name: &str| nested.as_ref().is_some_and(|nested| nested.is_field(name));
        let missing = |name: &&String| !parameters.contains_key(*name) && !is_field(name);
        if let Some(name) = self.required.iter().find(missing) {
            return Some(Refusal::Required(name.clone()));
        }
        if let Some((name, _)) = parameters.iter().find(|(name, value)| self.denies(name, value, operation)) {
            return Some(Refusal::Denied(name.clone()));
        }
        // The fields of a nested parameter were checked one by one.
        let is_checked = |name: &str| nested.as_ref().is_some_and(|nested| nested.allows_fields_of(name));
        let allowed = |name: &str, value: &Value| is_checked(name) || self.allows(name, value);
        let refused = parameters.iter().find(|(name, value)| !allowed(&name.to_lowercase(), value));
        refused.map(|(name, _)| Refusal::NotAllowed(name.clone()))
    }

    // recursion: bounded by two calls: a batch holds no batch
    fn denies(&self, name: &str, value: &Value, operation: Option<&OperationInfo>) -> bool {
        if self.denied.is_empty() {
            return false;
        }
        if self.denied.contains_key(ANY) {
            return true;
        }
        let scope = match operation {
            Some(operation) if operation.declares(name) => Scope::Declared,
            _ => Scope::Data,
        };
        // The comparison of a value with very many parts is expensive, so it is denied if any value of it is.
        let denied_as = |name: &str| {
            let denied = self.denied.get(name);
            denied.is_some_and(|values| {
                values.is_empty()
                    || denied_values::has_too_many_words(value)
                    || values.iter().any(|d| denied_values::reaches(d, value, scope))
            })
        };
        denied_as(&name.to_lowercase())
            || operation.is_some_and(|operation| operation.other_names(name).any(denied_as))
            || scope == Scope::Declared && name == BATCH && self.denies_in_batch(value, operation)
    }

    /// Checks the items of a batch, which have the parameters of a single operation.
    // recursion: bounded by two calls: a batch holds no batch
    fn denies_in_batch(&self, batch: &Value, operation: Option<&OperationInfo>) -> bool {
        let items = batch.as_array().map_or(std::slice::from_ref(batch), Vec::as_slice);
        let fields = items.iter().filter_map(Value::as_object).flatten();
        fields.filter(|(name, _)| *name != BATCH).any(|(name, value)| self.denies(name, value, operation))
    }

    /// Whether a parameter of this name, in lower case, may have the value.
    pub(super) fn allows(&self, name: &str, value: &Value) -> bool {
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

/// No values means any, and the union of any with some is any.
fn unite_values(ours: &mut BTreeMap<String, Vec<Value>>, theirs: &BTreeMap<String, Vec<Value>>) {
    for (name, values) in theirs {
        match ours.get_mut(name) {
            None => drop(ours.insert(name.clone(), values.clone())),
            Some(old) if old.is_empty() || values.is_empty() => old.clear(),
            Some(old) => old.extend(values.iter().cloned()),
        }
    }
}

/// Whether a value of a request is the one that the policy allows.
pub(super) fn is_literally(allowed: &Value, given: &Value) -> bool {
    match (allowed, given) {
        // Every part of a value that a handler may read as a comma list must match, or `*.a` would allow `b,c.a`.
        (Value::String(pattern), Value::String(text)) => {
            pattern == text || is_glob(pattern) && parts(pattern, text).all(|part| glob(pattern, part))
        }
        _ => equal(allowed, given),
    }
}

fn parts<'a>(pattern: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let separator = if pattern.contains(',') { '\0' } else { ',' };
    text.split(separator).map(str::trim)
}

// recursion: bounded by serde_json, which reads 128 levels
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Compares whole numbers exactly: as floats, different large ones are equal.
fn same_number(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    if a == b || !a.is_f64() && !b.is_f64() {
        return a == b;
    }
    matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if same_float(a, b))
}

pub(super) fn same_float(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_eq() || a == b
}

/// Whether a pattern has a `*` at an end and other characters: a lone `*` matches only itself.
pub(super) fn is_glob(pattern: &str) -> bool {
    pattern.len() > 1 && (pattern.starts_with('*') || pattern.ends_with('*'))
}

pub(super) fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), Some(_)) => text.contains(rest.strip_suffix('*').unwrap_or(rest)),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}
