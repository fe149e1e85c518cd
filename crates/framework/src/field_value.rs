//! Deserializers for field values that are not plain JSON: a text of the path or of the query, a number in its original
//! spelling, and `null`.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, IntoDeserializer as _, Visitor};
use serde::forward_to_deserialize_any;

/// The name by which `serde_json` requests a `RawValue`.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// An error message for the caller: the name of the field and the expected type, never the value.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Fault(format!("missing {field}"))
    }
}

/// Uses the message of `serde_json` without the appended position.
impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        let mut text = error.to_string();
        if let Some(at) = text.rfind(" at line ") {
            text.truncate(at);
        }
        Fault(text)
    }
}

/// A text that also deserializes as `Some(text)`.
pub(crate) enum TextValue<'a> {
    /// A capture or a query parameter: a raw JSON field gets a JSON string.
    Text(&'a str),
    /// A number in its original spelling: a raw JSON field gets the number.
    Number(&'a str),
}

impl<'a> TextValue<'a> {
    /// Returns the number in `raw` if `serde_json` would write it differently: one with a fraction or an exponent,
    /// `-0`, and one beyond 64 bits. Lenient field types accept a number and its text alike, so they receive `1e3` as
    /// `1e3`.
    pub(crate) fn of_number(raw: &'a str) -> Option<Self> {
        let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let is_kept = raw != "-0" && (raw.parse::<i64>().is_ok() || raw.parse::<u64>().is_ok());
        (is_number && !is_kept).then_some(TextValue::Number(raw))
    }

    fn text(&self) -> &'a str {
        match self {
            TextValue::Text(text) | TextValue::Number(text) => text,
        }
    }
}

impl<'de> Deserializer<'de> for TextValue<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        if name != RAW_VALUE {
            return visitor.visit_newtype_struct(self);
        }
        match self {
            TextValue::Text(text) => {
                let json = serde_json::Value::String(text.to_owned()).to_string();
                let mut json = serde_json::Deserializer::from_reader(json.as_bytes());
                Ok((&mut json).deserialize_newtype_struct(name, visitor)?)
            }
            TextValue::Number(text) => {
                Ok((&mut serde_json::Deserializer::from_str(text)).deserialize_newtype_struct(name, visitor)?)
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let text: StrDeserializer<'_, Fault> = self.text().into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// `null` as OpenBao reads it: the parameter is present, with the zero value of its type.
pub(crate) struct Null;

impl<'de> Deserializer<'de> for Null {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        Ok(visitor.visit_some(serde_json::Value::Null)?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        let mut json = serde_json::Deserializer::from_str("null");
        Ok((&mut json).deserialize_newtype_struct(name, visitor)?)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
