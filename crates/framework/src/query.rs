//! The query of a request, with unique names.

use std::collections::HashMap;

use serde_json::Value;

/// Query parameters in the order of the first occurrence of their names.
///
/// A repeated name is one parameter with the list of its values, as in OpenBao: a handler that expects a single value
/// refuses it. Policies, handlers and audit read this type, so all see the same value.
///
/// Not `Debug`: a client may have put a secret into it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, QueryValue)>);

/// The value of a query parameter.
#[derive(Clone, PartialEq, Eq)]
pub enum QueryValue {
    /// The name occurs once.
    One(String),
    /// The name occurs several times.
    Repeated {
        /// The first value.
        first: String,
        /// All values, as a JSON array of strings.
        json: String,
    },
}

impl Query {
    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &QueryValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&QueryValue> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Replaces all parameters of this name, in any letter case, by one value.
    pub fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.0.push((name.to_owned(), QueryValue::One(value)));
    }
}

impl QueryValue {
    /// The value, or the first of several.
    pub fn first(&self) -> &str {
        match self {
            QueryValue::One(first) | QueryValue::Repeated { first, .. } => first,
        }
    }

    /// The size in memory, in bytes.
    pub fn length(&self) -> usize {
        match self {
            QueryValue::One(value) => value.len(),
            QueryValue::Repeated { first, json } => first.len() + json.len(),
        }
    }

    /// A text, or a list of texts for a repeated name.
    pub fn to_json(&self) -> Value {
        match self {
            QueryValue::One(value) => Value::from(value.as_str()),
            QueryValue::Repeated { json, .. } => serde_json::from_str(json).unwrap_or_default(),
        }
    }
}

impl FromIterator<(String, String)> for Query {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(parameters: I) -> Self {
        let mut grouped: Vec<(String, Vec<String>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (name, value) in parameters {
            match places.get(&name) {
                Some(place) => grouped[*place].1.push(value),
                None => {
                    places.insert(name.clone(), grouped.len());
                    grouped.push((name, vec![value]));
                }
            }
        }
        let value = |mut values: Vec<String>| match values.len() {
            1 => QueryValue::One(values.swap_remove(0)),
            _ => {
                let json = Value::from(values.as_slice()).to_string();
                QueryValue::Repeated { first: values.swap_remove(0), json }
            }
        };
        Query(grouped.into_iter().map(|(name, values)| (name, value(values))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Query {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn sec_kf52_a_repeated_parameter_is_one_list() {
        let query = query(&[("a", "1"), ("b", "x"), ("a", "2\""), ("A", "3")]);
        let read: Vec<_> = query.iter().map(|(name, value)| (name, value.to_json())).collect();
        assert_eq!(read, [("a", Value::from(vec!["1", "2\""])), ("b", "x".into()), ("A", "3".into())]);
        assert_eq!((query.len(), query.get("a").map(QueryValue::first)), (3, Some("1")));
        assert!(query.get("c").is_none() && Query::default().is_empty());
    }

    #[test]
    fn a_set_value_replaces_every_spelling_of_the_name() {
        let mut query = query(&[("limit", "1"), ("LIMIT", "2"), ("limit", "3"), ("a", "")]);
        query.set("limit", "7".to_owned());
        let read: Vec<_> = query.iter().map(|(name, value)| (name, value.first())).collect();
        assert_eq!(read, [("a", ""), ("limit", "7")]);
    }
}
