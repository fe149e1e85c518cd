//! The input of a handler: captures of the path, the query and the JSON body, as one object.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;
use keepfast_json::{Kind, Tokens};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

use crate::error::{Error, Result, conversion_text, is_conversion_text};
use crate::field_value::{Fault, Null, TextValue};
use crate::file_body::FileBody;
use crate::json_error;
use crate::name::Name;
use crate::path::Captures;
use crate::query::{Query, QueryValue};

/// The JSON object of a request body. Its fields stay raw text until a handler reads them.
///
/// Not `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub struct Body {
    raw: Bytes,
    fields: Vec<(Box<str>, Range<usize>)>,
    unparsed: RawBody,
}

/// A body that is no JSON. Not `Debug`: it may hold secrets.
#[derive(Clone)]
pub enum RawBody {
    /// One in memory; empty for a body that is JSON.
    Bytes(Bytes),
    /// One that is too large for memory.
    File(FileBody),
}

impl Default for RawBody {
    fn default() -> Self {
        RawBody::Bytes(Bytes::new())
    }
}

impl Body {
    /// Splits a JSON object into its fields.
    ///
    /// An empty or `null` text is an empty object, as clients of Vault expect. The last of several fields with the same
    /// name counts, for policies and handlers alike: they see the same value.
    ///
    /// # Errors
    /// 400 when the text is not exactly one JSON object.
    // recursion: bounded by two calls: for the encoding and for repeated names, each once
    pub fn parse(raw: Bytes) -> Result<Self> {
        if raw.iter().all(u8::is_ascii_whitespace) || raw.trim_ascii() == b"null" {
            return Ok(Self::default());
        }
        // Invalid UTF-8 is replaced, as in OpenBao; every later reader of the body sees the same text.
        if std::str::from_utf8(&raw).is_err() {
            return Self::parse(String::from_utf8_lossy(&raw).into_owned().into());
        }
        let base = raw.as_ptr() as usize;
        let entries: Entries<'_> = serde_json::from_slice(&raw)
            .map_err(|_| Error::invalid(format!("failed to decode JSON input: {}", json_error::of(&raw))))?;
        if json_error::has_endless_number(&raw) {
            return Err(Error::invalid(format!("failed to decode JSON input: {}", json_error::ENDLESS)));
        }
        if has_raw_value_name(&raw) {
            return Err(Error::invalid(format!("failed to decode JSON input: the name {RAW_VALUE:?} is reserved")));
        }
        if let Some(single) = entries.without_repetition() {
            return Self::parse(single);
        }
        let mut fields = Vec::with_capacity(entries.0.len());
        for (name, value) in entries.0 {
            let start = value.get().as_ptr() as usize - base;
            fields.push((name, start..start + value.get().len()));
        }
        Ok(Body { raw, fields, ..Body::default() })
    }

    /// A body that is no JSON, for a row declared `.raw_body()`. It has no fields.
    pub fn of_bytes(bytes: Bytes) -> Self {
        Body { unparsed: RawBody::Bytes(bytes), ..Body::default() }
    }

    /// A body in a file, for a row declared `.raw_body()`. It has no fields.
    pub fn of_file(file: FileBody) -> Self {
        Body { unparsed: RawBody::File(file), ..Body::default() }
    }

    /// The bytes of a body that is no JSON and in memory; empty for any other.
    pub fn bytes(&self) -> &[u8] {
        match &self.unparsed {
            RawBody::Bytes(bytes) => bytes,
            RawBody::File(_) => &[],
        }
    }

    /// A body that is no JSON.
    pub fn unparsed(&self) -> &RawBody {
        &self.unparsed
    }

    /// The whole text; empty without a body, and for one that is no JSON.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The fields in the order of the text, each with its raw JSON.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, range)| (&**name, std::str::from_utf8(&self.raw[range.clone()]).unwrap_or("null")))
    }

    /// The raw JSON of one field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields().find(|(n, _)| *n == name).map(|(_, raw)| raw)
    }

    /// The body without the fields of this name, in any letter case, because another value replaces them.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// The name by which `serde_json` passes on raw text: it reads an object with this name as the value in the text. A policy
/// would evaluate that value, and the engine would store the object.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Whether an object at any depth has the name [`RAW_VALUE`], in any spelling.
fn has_raw_value_name(json: &[u8]) -> bool {
    // Most bodies have neither the character nor an escape.
    if memchr::memchr2(b'$', b'\\', json).is_none() {
        return false;
    }
    let is_raw_value = |text: &[u8]| serde_json::from_slice::<String>(text).is_ok_and(|name| name == RAW_VALUE);
    let mut last_is_raw_value = false;
    Tokens::new(json).any(|token| {
        let is_name = last_is_raw_value && token.kind == Kind::Colon;
        last_is_raw_value = match token.kind {
            Kind::String { escaped: false } => token.inside() == RAW_VALUE.as_bytes(),
            Kind::String { escaped: true } => token.text.len() <= 6 * RAW_VALUE.len() + 2 && is_raw_value(token.text),
            _ => false,
        };
        is_name
    })
}

/// The entries of an object in order, duplicates included.
struct Entries<'a>(Vec<(Box<str>, &'a RawValue)>);

impl Entries<'_> {
    /// The object with only the last field of each name; `None` when no name is repeated.
    fn without_repetition(&self) -> Option<Bytes> {
        let last: HashMap<Name<'_>, usize> =
            self.0.iter().enumerate().map(|(at, (name, _))| (Name(name), at)).collect();
        if last.len() == self.0.len() {
            return None;
        }
        let kept = self.0.iter().enumerate().filter(|(at, (name, _))| last[&Name(name)] == *at);
        let mut object = String::from("{");
        for (_, (name, value)) in kept {
            let comma = if object.len() > 1 { "," } else { "" };
            object.extend([comma, &serde_json::Value::from(&**name).to_string(), ":", value.get()]);
        }
        object.push('}');
        Some(object.into())
    }
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Box<str>, &'de RawValue)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    out.push((name.into_boxed_str(), map.next_value()?));
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(Collect).map(Entries)
    }
}

/// The name of the field by which a request type takes the whole JSON object of the body unchanged: `#[serde(rename =
/// "$body")] data: RawObject`. A field of that name in the body stays inside that object.
pub const WHOLE_BODY: &str = "$body";

/// The largest number of names for which a linear search is faster than a set.
const FEW: usize = 16;

/// Captures, query and body of a request, from which the request type of a handler is read. A capture takes precedence.
#[derive(Clone, Default)]
pub struct Input {
    /// The captures of the route's pattern.
    pub captures: Captures,
    /// Query parameters.
    pub query: Query,
    /// The JSON body.
    pub body: Body,
}

impl Input {
    /// Deserializes a handler's request type.
    ///
    /// # Errors
    /// 400 naming the field whose value does not fit.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(Merged { input: self }).map_err(|Fault(text)| match is_conversion_text(&text) {
            true => Error::of_field(text),
            false => Error::invalid(text),
        })
    }

    /// Names of the body and query that the route does not know, sorted, for a warning.
    pub fn unknown(&self, known: impl Fn(&str) -> bool) -> Vec<&str> {
        let mut out: Vec<&str> = self.names().filter(|n| !known(n)).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Names of the body or query that the path's captures replaced, sorted, for a warning. `null` counts as absent, as
    /// does a part that the path omits.
    pub fn replaced(&self) -> Vec<&str> {
        let replaces = |name: &str| {
            let mut captures = self.captures.iter();
            let text = captures.find(|(captured, _)| captured == name).map(|(_, text)| text);
            text.is_some_and(|text| !text.is_empty() || self.body.field(name) != Some("null"))
        };
        let mut out: Vec<&str> = self.names().filter(|name| replaces(name)).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.body.fields().map(|(n, _)| n).chain(self.query.iter().map(|(n, _)| n))
    }

    /// The whole object of the body, `{}` without a body.
    fn whole(&self) -> &str {
        let text = std::str::from_utf8(&self.body.raw).unwrap_or_default().trim_ascii();
        if text.is_empty() || text == "null" { "{}" } else { text }
    }

    /// Each name once, with the first of its sources: the path, then the body, then the query.
    fn entries(&self) -> Vec<(&str, Source<'_>)> {
        let captures = self.captures.iter().map(|(name, value)| (&**name, Source::Text(value)));
        let fields = self.body.fields().map(|(name, raw)| (name, Source::Json(raw)));
        let query = self.query.iter().map(|(name, value)| match value {
            QueryValue::One(value) => (name, Source::Text(value)),
            QueryValue::Repeated { json, .. } => (name, Source::Json(json)),
        });
        let most = self.captures.len() + self.body.fields.len() + self.query.len();
        let mut out: Vec<(&str, Source<'_>)> = Vec::with_capacity(most);
        // Clients choose the number of names, so a linear search per name is used only for a few.
        let mut names = (most > FEW).then(|| HashSet::with_capacity(most));
        for (name, source) in captures.chain(fields).chain(query) {
            let is_first = match &mut names {
                Some(names) => names.insert(Name(name)),
                None => !out.iter().any(|(known, _)| Name(known) == Name(name)),
            };
            if is_first {
                out.push((name, source));
            }
        }
        out
    }
}

enum Source<'a> {
    Text(&'a str),
    Json(&'a str),
}

struct Merged<'a> {
    input: &'a Input,
}

impl<'de> Deserializer<'de> for Merged<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Walk { entries: self.input.entries().into_iter(), current: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let mut entries = self.input.entries();
        if fields.contains(&WHOLE_BODY) {
            entries.retain(|(name, _)| *name != WHOLE_BODY);
            entries.push((WHOLE_BODY, Source::Json(self.input.whole())));
        }
        visitor.visit_map(Walk { entries: entries.into_iter(), current: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Walk<'a> {
    entries: std::vec::IntoIter<(&'a str, Source<'a>)>,
    current: Option<(&'a str, Source<'a>)>,
}

impl<'de> MapAccess<'de> for Walk<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.next();
        match &self.current {
            None => Ok(None),
            Some((name, _)) => seed.deserialize(StrDeserializer::<Fault>::new(name)).map(Some),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((name, source)) = self.current.take() else {
            return Err(Fault("a value without a name".into()));
        };
        let outcome = match source {
            Source::Text(text) => seed.deserialize(TextValue::Text(text)),
            Source::Json("null") => seed.deserialize(Null),
            Source::Json(raw) => match TextValue::of_number(raw) {
                Some(number) => seed.deserialize(number),
                None => seed.deserialize(&mut serde_json::Deserializer::from_str(raw)).map_err(Fault::from),
            },
        };
        outcome.map_err(|Fault(why)| {
            let why = why.replace(crate::fields::FIELD, name);
            Fault(conversion_text(name, why))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Int, Text};
    use crate::name::comparisons;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Request {
        name: Text,
        count: Option<Int>,
        data: Option<Box<RawValue>>,
    }

    fn input(captured: &str, query: &[(&str, &str)], body: &str) -> Result<Input> {
        Ok(Input {
            captures: vec![("name".into(), captured.to_owned())],
            query: query.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            body: Body::parse(Bytes::copy_from_slice(body.as_bytes()))?,
        })
    }

    #[test]
    fn sec_a_name_that_stands_for_raw_text_is_refused_in_every_spelling() {
        let escaped = r#"\u0024serde_json::private::RawValue"#;
        for name in [RAW_VALUE, escaped] {
            for body in [format!(r#"{{"{name}":"1"}}"#), format!(r#"{{"data":{{"a":[{{"{name}" : "{{}}"}}]}}}}"#)] {
                assert!(Body::parse(body.clone().into()).is_err(), "{body}");
            }
            assert!(Body::parse(format!(r#"{{"a":"{name}"}}"#).into()).is_ok(), "a value");
        }
        assert!(Body::parse(r#"{"$serde_json":"\\","$":{"b\n":1}}"#.into()).is_ok());
    }

    #[test]
    fn captures_win_over_body_and_query_and_raw_values_stay_as_sent() {
        let input = input("a", &[("count", "3")], r#"{"name":"b","data":{"n": 1.10},"foo":1}"#).unwrap();
        let request: Request = input.read().unwrap();
        assert_eq!((&*request.name, request.count.map(|c| c.0)), ("a", Some(3)));
        assert_eq!(request.data.unwrap().get(), r#"{"n": 1.10}"#);
        assert_eq!(input.unknown(|n| ["name", "count", "data"].contains(&n)), ["foo"]);
        assert_eq!(input.replaced(), ["name"]);
    }

    #[test]
    fn a_text_field_gets_the_original_spelling_of_a_number() {
        #[derive(Deserialize)]
        struct Inner {
            flat: Option<Text>,
        }
        #[derive(Deserialize)]
        struct Outer {
            name: Text,
            count: Option<Int>,
            ttl: Option<crate::fields::SignedSeconds>,
            list: Option<crate::fields::CommaList>,
            data: Option<Box<RawValue>>,
            #[serde(flatten)]
            inner: Inner,
        }
        let read = |body: &str| Input { captures: Vec::new(), ..input("", &[], body).unwrap() }.read::<Outer>();
        for number in ["1e3", "2.0", "1E+2", "99999999999999999999", "9223372036854775808", "-0", "-1.50", "7"] {
            let body = format!(r#"{{"name":{number},"list":{number},"data":{number},"flat":{number}}}"#);
            let Outer { name, list, data, inner, .. } = read(&body).unwrap();
            assert_eq!((&*name, &*inner.flat.unwrap(), data.unwrap().get()), (number, number, number));
            assert_eq!(list.unwrap().0, [number]);
        }
        let zero = read(r#"{"name":"a","count":-0,"ttl":-0}"#).unwrap();
        assert_eq!((zero.count, zero.ttl.map(|ttl| ttl.0)), (Some(Int(0)), Some(0)));
        for (body, why) in [
            (r#"{"name":"a","ttl":1e3}"#, "\"ttl\": time: unknown unit \"e\" in duration \"1e3\""),
            (r#"{"name":"a","count":2.0}"#, "\"count\": '' cannot parse value as 'int'"),
        ] {
            let error = read(body).err().unwrap();
            assert!(error.public().contains(why), "{}", error.public());
        }
    }

    #[test]
    fn a_request_type_can_take_the_whole_body_as_sent() {
        #[derive(Deserialize)]
        struct Whole {
            name: Text,
            #[serde(rename = "$body")]
            body: Box<RawValue>,
        }
        for (sent, expected) in [
            (" {\"name\": \"b\", \"n\":1.10} ", "{\"name\": \"b\", \"n\":1.10}"),
            (r#"{"$body":1}"#, r#"{"$body":1}"#),
            ("", "{}"),
            ("null", "{}"),
        ] {
            let whole: Whole = input("a", &[], sent).unwrap().read().unwrap();
            assert_eq!((&*whole.name, whole.body.get()), ("a", expected));
        }
    }

    #[test]
    fn sec_kf50_the_first_source_of_a_name_counts_among_many_names() {
        for more in [0, 2 * FEW] {
            let others = |from: &str| (0..more).map(|n| format!("{from}{n}")).collect::<Vec<_>>();
            let body: String = others("b").iter().map(|name| format!("\"{name}\":1,")).collect();
            let of_query = others("q");
            let mut query: Vec<(&str, &str)> = of_query.iter().map(|name| (name.as_str(), "1")).collect();
            query.extend([("name", "c"), ("count", "2"), ("data", "3")]);
            let input = input("a", &query, &format!("{{{body}\"name\":\"b\",\"count\":1}}")).unwrap();
            assert_eq!(input.entries().len(), 3 + 2 * more);
            let request: Request = input.read().unwrap();
            assert_eq!((&*request.name, request.count.map(|c| c.0)), ("a", Some(1)));
            assert_eq!(request.data.unwrap().get(), "\"3\"");
        }
    }

    #[test]
    fn sec_kf50_many_names_take_comparisons_in_proportion() {
        const COUNT: usize = 10_000;
        let names = |from: &str, value: &str| (0..COUNT).map(|n| format!("\"{from}{n}\":{value},")).collect::<String>();
        let of_query: Vec<String> = (0..COUNT).map(|n| format!("q{n}")).collect();
        let mut query: Vec<(&str, &str)> = of_query.iter().map(|name| (name.as_str(), "1")).collect();
        query.push(("count", "2"));
        let body = format!("{{{}{}{}\"count\":1}}", names("n", "1"), names("n", "2"), names("q", "3"));
        let compared = comparisons::during(|| {
            let input = input("a", &query, &body).unwrap();
            assert_eq!(input.entries().len(), 2 + 2 * COUNT);
            assert_eq!(input.read::<Request>().unwrap().count.map(|c| c.0), Some(1));
        });
        // Each name is looked up a few times; hash collisions add some comparisons.
        assert!((COUNT..20 * COUNT).contains(&compared), "{compared}");
    }

    #[test]
    fn sec_kf52_a_repeated_parameter_is_no_single_value() {
        let error = input("a", &[("count", "1"), ("count", "2")], "").unwrap().read::<Request>().err().unwrap();
        assert!(error.public().starts_with("error converting input for field \"count\":"), "{}", error.public());
        let request: Request = input("a", &[("data", "1"), ("data", "2")], "").unwrap().read().unwrap();
        assert_eq!(request.data.unwrap().get(), r#"["1","2"]"#);
    }

    #[test]
    fn a_wrong_type_names_the_field_and_not_the_value() {
        let error = input("a", &[], r#"{"count":"s3cr3t"}"#).unwrap().read::<Request>().err().unwrap();
        assert!(error.public().starts_with("error converting input for field \"count\":"), "{}", error.public());
        assert!(!error.public().contains("s3cr3t"));
    }

    #[test]
    fn sec_ac10_of_duplicate_fields_every_reader_sees_the_last() {
        let body = Body::parse(Bytes::from_static(br#"{"count":1,"name":"x","count":2}"#)).unwrap();
        assert_eq!(body.fields().collect::<Vec<_>>(), [("name", "\"x\""), ("count", "2")]);
        assert_eq!((body.field("count"), &body.raw()[..]), (Some("2"), &br#"{"name":"x","count":2}"#[..]));
        let input = Input { body, ..Input::default() };
        assert_eq!(input.read::<Request>().unwrap().count.map(|c| c.0), Some(2));
    }

    #[test]
    fn sec_ac10_trailing_data_and_non_objects_are_refused() {
        for bad in [r#"{"a":1}x"#, "[1]", "abc", r#"{"a":"#, "5"] {
            assert_eq!(Body::parse(Bytes::copy_from_slice(bad.as_bytes())).err().unwrap().status().0, 400, "{bad}");
        }
        for empty in ["", "  \n", "null", "{}"] {
            assert!(Body::parse(Bytes::copy_from_slice(empty.as_bytes())).unwrap().is_empty());
        }
    }
}
