//! Constraints on the fields inside a parameter: on rows that declare one ([`keepfast_framework::rows::RowInfo::nested`],
//! `data` of KV version 2) a rule about `data.x` is about the field `x` of the object in `data`.
//!
//! The rest of the name after the first dot is the whole name of the field, dots included. `data.*` is every field with
//! every value where fields are allowed or denied; among the required ones it is the field with the name `*`.
//! Names of fields are compared without regard to case, values as those of stored data. An operation of the row without
//! the parameter, such as a read, has no fields: it satisfies these rules.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use keepfast_framework::Operation;
use keepfast_framework::rows::OperationInfo;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::denied_values::{self, Scope};
use super::parameters::{ANY, Constraints, Parameters, Refusal, is_literally};
use super::pattern::fold;

/// The constraints of a rule on the fields of one parameter, by the folded names of the fields.
pub(super) struct Nested<'c> {
    constraints: &'c Constraints,
    parameter: &'static str,
    /// Whether the operation has the parameter.
    is_declared: bool,
    /// Whether a field that is null is deleted.
    deletes_null: bool,
    required: Vec<String>,
    allowed: BTreeMap<String, &'c [Value]>,
    denied: BTreeMap<String, &'c [Value]>,
}

impl<'c> Nested<'c> {
    /// The constraints on fields; none if there are none, or the row has no such parameter.
    pub(super) fn of(constraints: &'c Constraints, operation: Option<&OperationInfo>) -> Option<Self> {
        let operation = operation?;
        let parameter = operation.nested()?;
        let field = |name: &'c String| field_of(name, parameter).map(fold);
        let values = |rules: &'c BTreeMap<String, Vec<Value>>| -> BTreeMap<String, &'c [Value]> {
            rules.iter().filter_map(|(name, values)| Some((field(name)?, values.as_slice()))).collect()
        };
        let nested = Nested {
            constraints,
            parameter,
            is_declared: operation.declares(parameter),
            deletes_null: operation.operation == Operation::Patch,
            required: constraints.required.iter().filter_map(field).collect(),
            allowed: values(&constraints.allowed),
            denied: values(&constraints.denied),
        };
        let is_empty = nested.required.is_empty() && nested.allowed.is_empty() && nested.denied.is_empty();
        (!is_empty).then_some(nested)
    }

    /// Whether a name in a rule is that of a field.
    pub(super) fn is_field(&self, name: &str) -> bool {
        field_of(name, self.parameter).is_some()
    }

    /// Whether [`Self::refusal`] decides which values a parameter of this name, in lower case, may have.
    pub(super) fn allows_fields_of(&self, name: &str) -> bool {
        self.is_declared && name == self.parameter && !self.allowed.is_empty()
    }

    /// The first field that does not satisfy the constraints.
    pub(super) fn refused_field(&self, parameters: &Parameters) -> Option<Refusal> {
        if !self.is_declared {
            return None;
        }
        for (name, value) in parameters.iter().filter(|(name, _)| name.to_lowercase() == self.parameter) {
            // A handler may read a list of objects as one object, so only an object is one.
            let Value::Object(fields) = value else { return Some(Refusal::NoObject(name.clone())) };
            let whole = self.constraints.allows(self.parameter, value);
            if let Some(refusal) = fields.iter().find_map(|(field, value)| self.field_refusal(field, value, whole)) {
                return Some(refusal);
            }
        }
        if self.required.is_empty() {
            return None;
        }
        let fields = parameters.get(self.parameter).and_then(Value::as_object).into_iter().flatten();
        let set = fields.filter(|(_, value)| !(self.deletes_null && value.is_null()));
        let names: HashSet<String> = set.map(|(name, _)| fold(name)).collect();
        let missing = self.required.iter().find(|name| !names.contains(*name))?;
        Some(Refusal::Required(format!("{}.{missing}", self.parameter)))
    }

    /// Why a field is refused. `whole` states whether the parameter may have any fields without rules of their own.
    fn field_refusal(&self, field: &str, value: &Value, whole: bool) -> Option<Refusal> {
        let name = || format!("{}.{field}", self.parameter);
        let folded = fold(field);
        let is_denied = self.denied.get(folded.as_str()).is_some_and(|values| {
            values.is_empty()
                || denied_values::has_too_many_words(value)
                || values.iter().any(|denied| denied_values::reaches(denied, value, Scope::Data))
        });
        if is_denied || self.denied.contains_key(ANY) {
            return Some(Refusal::Denied(name()));
        }
        let is_allowed = match self.allowed.get(folded.as_str()) {
            _ if self.allowed.is_empty() => true,
            Some(values) => values.is_empty() || values.iter().any(|allowed| is_literally(allowed, value)),
            None => whole || self.allowed.contains_key(ANY),
        };
        (!is_allowed).then(|| Refusal::NotAllowed(name()))
    }
}

/// The field that a name in a rule denotes: what follows the parameter and a dot.
fn field_of<'n>(name: &'n str, parameter: &str) -> Option<&'n str> {
    name.strip_prefix(parameter)?.strip_prefix('.')
}

/// Whether the text of an object, or an object inside it, has a name twice. The text is stored as it is, and readers differ
/// in which of the values they use.
pub(crate) fn repeats_a_field(json: &str) -> bool {
    json.trim_start().starts_with('{') && serde_json::from_str::<DistinctNames>(json).is_err()
}

/// Fails to deserialize when an object has a name twice. `serde_json` reads at most 128 levels.
struct DistinctNames;

impl<'de> Deserialize<'de> for DistinctNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctNames)
    }
}

impl<'de> Visitor<'de> for DistinctNames {
    type Value = DistinctNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON whose objects have distinct names")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<DistinctNames>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some((name, DistinctNames)) = map.next_entry::<Cow<'de, str>, DistinctNames>()? {
            if !names.insert(name) {
                return Err(serde::de::Error::custom("a repeated name"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_field_is_found_in_every_spelling_of_its_name() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"b":{},"\u0061":2}"#,
            r#" {"":1,"":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[1,{"b":1,"b":2}]}"#,
        ] {
            assert!(repeats_a_field(text), "{text}");
        }
        for text in
            ["{}", r#"{"a":1,"A":2}"#, r#"{"a":{"a":1.5},"b":[{"a":null},-1,true,"a"]}"#, "[1,1]", "null", r#""{""#]
        {
            assert!(!repeats_a_field(text), "{text}");
        }
    }
}
