//! The extent to which an audit entry holds a request and its response.
//!
//! A hashed value has 78 bytes however short the value is, so the hashed form of a JSON text can be 40 times as long as
//! the text. The length is counted before any value is hashed; beyond its bound a text becomes one hash of the whole.

use keepfast_crypto::hmac::HmacKey;
use keepfast_json::{Kind, Tokens};

use super::redact;

/// Bytes of one hashed value with its quotes.
const HASHED: usize = redact::PREFIX.len() + 64 + 2;

/// The most bytes per byte of JSON: `1,` becomes a hash and a comma.
const MOST_PER_BYTE: usize = HASHED.div_ceil(2) + 1;

/// The highest bound in bytes, for a request without an accepted token, on each of body, query, headers and response.
pub(crate) const STRANGER: usize = 16 << 10;

/// The bound for a short text of such a request, enough for the fields of a login: this, and [`STRANGER_PER_BYTE`]
/// times its length.
const STRANGER_LEAST: usize = 1 << 10;

/// See [`STRANGER_LEAST`]. Two entries repeat the text.
const STRANGER_PER_BYTE: usize = 2;

/// The bound for a request with an accepted token: this, and [`TOKEN_PER_BYTE`] times the length of the text.
const TOKEN: usize = 1 << 20;

/// See [`TOKEN`].
const TOKEN_PER_BYTE: usize = 4;

/// The class of the caller, on which the size of its entries depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// No token was accepted: any client can send such a request.
    Stranger,
    /// A token was accepted.
    Token,
}

impl Extent {
    /// The most bytes of an entry for a text of `length` bytes.
    #[must_use]
    pub(crate) fn bound(self, length: usize) -> usize {
        match self {
            Extent::Stranger => STRANGER.min(STRANGER_LEAST.saturating_add(length.saturating_mul(STRANGER_PER_BYTE))),
            Extent::Token => TOKEN.saturating_add(length.saturating_mul(TOKEN_PER_BYTE)),
        }
    }

    /// Whether the hashed form of the JSON text `raw` is within the bound. `clear` is whether some of its values may
    /// stay in clear.
    #[must_use]
    pub(crate) fn admits(self, raw: &str, clear: bool) -> bool {
        let bound = self.bound(raw.len());
        raw.len().saturating_mul(MOST_PER_BYTE) <= bound
            || roughly(raw.as_bytes()) <= bound
            || longest(raw.as_bytes(), clear, bound) <= bound
    }
}

/// A higher upper bound than [`longest`] that takes less time: it also counts bytes within strings that could begin a
/// value.
fn roughly(raw: &[u8]) -> usize {
    let values = memchr::memchr3_iter(b',', b':', b'[', raw).count() + 1;
    raw.len().saturating_add(values.saturating_mul(HASHED))
}

/// An upper bound on the length of the hashed form of a JSON text; the count ends beyond `enough`.
fn longest(raw: &[u8], clear: bool, enough: usize) -> usize {
    let kept = |length: usize| if clear { HASHED.max(length) } else { HASHED };
    let (mut tokens, mut total, mut behind) = (Tokens::new(raw), 0_usize, 0);
    while total <= enough
        && let Some(token) = tokens.next()
    {
        if clear {
            // Values in clear keep their blanks.
            total += token.start - behind;
        }
        behind = token.end();
        let length = token.text.len();
        total += match token.kind {
            // A string before a colon is a name, which stays.
            Kind::String { .. } if tokens.peek() == Some(b':') => length,
            Kind::String { .. } => kept(length),
            // A more deeply nested value is hashed as a whole.
            Kind::BeginObject | Kind::BeginArray if tokens.depth() > redact::DEEPEST => HASHED,
            Kind::BeginObject | Kind::BeginArray | Kind::EndObject | Kind::EndArray | Kind::Comma | Kind::Colon => 1,
            Kind::Word if matches!(token.text, [b't' | b'f' | b'n', ..]) => length,
            Kind::Word => kept(length),
        };
    }
    total
}

/// Appends the hash of a whole text and its length as two members: `,"NAME_hmac":"hmac-sha256:…","NAME_length":N`.
pub(crate) fn whole(name: &str, raw: &str, key: &HmacKey, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(",\"{name}_hmac\":").as_bytes());
    redact::text(raw, key, out);
    out.extend_from_slice(format!(",\"{name}_length\":{}", raw.len()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn redacted(raw: &str, public: &[&str]) -> usize {
        let mut out = Vec::new();
        redact::json(raw, &HmacKey::new(b"salt"), &|name| public.contains(&name), &mut out);
        out.len()
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            Just(Value::from(-0.0)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,200}".prop_map(Value::from)
        ];
        leaf.prop_recursive(6, 60, 12, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..12)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn sec_al08_the_count_is_never_less_than_the_hashed_form(value in any_json(), pretty in any::<bool>()) {
            let raw = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let names: Vec<&str> = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            prop_assert!(redacted(&raw, &[]) <= longest(raw.as_bytes(), false, usize::MAX));
            prop_assert!(redacted(&raw, &names) <= longest(raw.as_bytes(), true, usize::MAX));
            prop_assert!(longest(raw.as_bytes(), false, usize::MAX) <= raw.len() * MOST_PER_BYTE + HASHED);
            prop_assert!(longest(raw.as_bytes(), true, usize::MAX) <= roughly(raw.as_bytes()));
        }
    }

    #[test]
    fn blanks_of_what_stays_in_clear_are_counted() {
        let blanks = " ".repeat(1000);
        let raw = format!("{{\"open\":[\"a\"{blanks},{blanks}1{blanks}]}}");
        let count = longest(raw.as_bytes(), true, usize::MAX);
        assert!(redacted(&raw, &["open"]) <= count && count < 3500, "{count}");
    }

    #[test]
    fn the_count_covers_what_is_nested_too_deeply() {
        let row = vec!["[]"; 50].join(",");
        for depth in 505..520 {
            let raw = format!("{}{row}{}", "[".repeat(depth), "]".repeat(depth));
            assert!(redacted(&raw, &[]) <= longest(raw.as_bytes(), false, usize::MAX), "{depth}");
        }
    }

    #[test]
    fn sec_al08_many_small_values_are_beyond_the_bound_and_few_are_not() {
        let of = |item: &str, n: usize| format!("{{\"a\":[{}]}}", vec![item; n].join(","));
        for item in ["1", "\"\"", "-0", "1e5"] {
            assert!(Extent::Stranger.admits(&of(item, 12), false), "{item}");
            assert!(!Extent::Stranger.admits(&of(item, 20), false), "{item}");
            assert!(Extent::Token.admits(&of(item, 10_000), false), "{item}");
            assert!(!Extent::Token.admits(&of(item, 100_000), false), "{item}");
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
        assert!(Extent::Stranger.admits(&long, false));
        assert!(!Extent::Stranger.admits(&long, true), "what may stay in clear counts whole");
        let name = format!("{{\"{}\":1}}", "x".repeat(1 << 20));
        assert!(!Extent::Stranger.admits(&name, false) && Extent::Token.admits(&name, false));
    }
}
