//! The stored configs and keys.

use std::collections::BTreeMap;
use std::fmt;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Records;
use keepfast_framework::fields::RawObject;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// Configs, in the storage of `sys/`.
pub(crate) const CONFIGS: Records<ConfigRecord> = Records::at(CONFIG_FOLDER);
/// Their prefix.
pub(crate) const CONFIG_FOLDER: &str = "external-key/config/";
/// Keys, by `CONFIG/KEY`.
pub(crate) const KEYS: Records<KeyRecord> = Records::at("external-key/key/");

/// The name of the record of a key.
pub(crate) fn key_name(config: &str, key: &str) -> String {
    format!("{config}/{key}")
}

/// A config: a plugin with its parameters.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct ConfigRecord {
    /// A random id that every change replaces.
    pub(crate) revision: String,
    pub(crate) plugin: String,
    pub(crate) parameters: Values,
}

impl ConfigRecord {
    pub(crate) fn new(plugin: String, parameters: Values) -> Self {
        ConfigRecord { revision: random::uuid(), plugin, parameters }
    }
}

/// A key of a config, with the mounts that may use it.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct KeyRecord {
    /// A random id that every change of the parameters replaces.
    pub(crate) revision: String,
    pub(crate) parameters: Values,
    /// The uuids of mounts by their paths, each with its final slash. `None`, where no mount had the path when the grant was
    /// written, permits nothing.
    #[serde(default)]
    pub(crate) grants: BTreeMap<String, Option<String>>,
}

impl KeyRecord {
    pub(crate) fn new(parameters: Values) -> Self {
        KeyRecord { revision: random::uuid(), parameters, grants: BTreeMap::new() }
    }

    /// Whether the key is granted to this mount, and not to another one that had its path before.
    pub(crate) fn is_granted(&self, path: &str, uuid: &str) -> bool {
        self.grants.get(path).is_some_and(|granted| granted.as_deref() == Some(uuid))
    }
}

/// The values of parameters, by name. Only the barrier may use their `Serialize`.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Values(pub(crate) BTreeMap<String, StoredValue>);

/// A value of a parameter. Any text may be a secret.
#[derive(Clone)]
pub(crate) enum StoredValue {
    Null,
    Flag(bool),
    Number(serde_json::Number),
    Text(SecretString),
    /// A list, refused by every parameter.
    List,
    /// An object, refused by every parameter.
    Object,
}

impl Values {
    /// The members of an object; `None` for one with texts that are not Unicode or with endless nesting.
    pub(crate) fn of(body: &RawObject) -> Option<Self> {
        serde_json::from_str::<Option<Values>>(body.0.get()).ok().map(Option::unwrap_or_default)
    }

    /// Applies a JSON merge patch (RFC 7396): null removes.
    pub(crate) fn patch(&mut self, patch: Values) {
        for (name, value) in patch.0 {
            match value {
                StoredValue::Null => drop(self.0.remove(&name)),
                value => drop(self.0.insert(name, value)),
            }
        }
    }
}

/// Compares secrets, too: those of a patch with those that are stored. Its time depends on the values.
impl PartialEq for StoredValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (StoredValue::Null, StoredValue::Null) => true,
            (StoredValue::Flag(one), StoredValue::Flag(two)) => one == two,
            (StoredValue::Number(one), StoredValue::Number(two)) => one == two,
            (StoredValue::Text(one), StoredValue::Text(two)) => one.expose() == two.expose(),
            _ => false,
        }
    }
}

impl Serialize for StoredValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            StoredValue::Null => serializer.serialize_unit(),
            StoredValue::Flag(flag) => serializer.serialize_bool(*flag),
            StoredValue::Number(number) => number.serialize(serializer),
            StoredValue::Text(text) => serializer.serialize_str(text.expose()),
            StoredValue::List => Vec::<()>::new().serialize(serializer),
            StoredValue::Object => BTreeMap::<String, ()>::new().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StoredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

/// Reads a value without a copy of a text.
struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = StoredValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<StoredValue, E> {
        Ok(StoredValue::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<StoredValue, E> {
        Ok(StoredValue::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<StoredValue, E> {
        Ok(StoredValue::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<StoredValue, E> {
        Ok(StoredValue::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<StoredValue, E> {
        Ok(serde_json::Number::from_f64(number).map_or(StoredValue::Null, StoredValue::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<StoredValue, E> {
        Ok(StoredValue::Text(SecretString::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<StoredValue, E> {
        Ok(StoredValue::Text(SecretString::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StoredValue, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(StoredValue::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<StoredValue, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(StoredValue::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_stored_in_their_form_and_null_in_a_patch_removes() {
        let text = r#"{"a":"x","b":true,"c":7,"d":null,"e":-1.5}"#;
        let mut values: Values = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&values).unwrap(), text);
        values.patch(serde_json::from_str(r#"{"a":null,"b":"y","f":[1,{"g":2}],"h":{}}"#).unwrap());
        assert_eq!(serde_json::to_string(&values).unwrap(), r#"{"b":"y","c":7,"d":null,"e":-1.5,"f":[],"h":{}}"#);
    }

    #[test]
    fn a_body_that_cannot_be_read_is_not_an_empty_one() {
        let of = |text: String| Values::of(&serde_json::from_str(&text).unwrap()).map(|values| values.0.len());
        assert_eq!(of("{}".to_owned()), Some(0));
        assert_eq!(of(r#"{"a":[[1]],"b":2}"#.to_owned()), Some(2));
        assert_eq!(of(r#"{"a":"\ud800"}"#.to_owned()), None);
    }

    #[test]
    fn a_key_without_grants_is_read() {
        let record: KeyRecord = serde_json::from_str(r#"{"revision":"r","parameters":{"name":"k"}}"#).unwrap();
        assert!(record.grants.is_empty() && record.parameters.0.contains_key("name"));
    }
}
