//! Numbers of a JSON body as they were written: `1e3` is the text `1e3` to a field that takes texts.

use serde::de::{Deserializer, IntoDeserializer as _, Visitor};
use serde::forward_to_deserialize_any;

/// A number that `serde_json` would write in another way than it was sent: one with a fraction or an exponent, and one beyond
/// 64 bits. Lenient field types read a number and its text alike, so they get the text; raw JSON values get the JSON.
pub(crate) struct WrittenNumber<'a>(&'a str);

impl<'a> WrittenNumber<'a> {
    /// The number, if the value is such a one.
    pub(crate) fn of(raw: &'a str) -> Option<Self> {
        let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let is_kept = raw != "-0" && (raw.parse::<i64>().is_ok() || raw.parse::<u64>().is_ok());
        (is_number && !is_kept).then_some(WrittenNumber(raw))
    }
}

impl<'de> Deserializer<'de> for WrittenNumber<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if name == "$serde_json::private::RawValue" {
            return (&mut serde_json::Deserializer::from_str(self.0)).deserialize_newtype_struct(name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.into_deserializer().deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}
