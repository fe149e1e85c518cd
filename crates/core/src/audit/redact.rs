//! JSON with its secrets replaced by HMACs, in one pass over the text.
//!
//! The rule is an allow-list: every string and every number is replaced, at any depth and under any name, except
//! top-level fields that the operator or the route declared public. Names of fields, booleans and null stay.

use std::borrow::Cow;

use keepfast_crypto::hmac::HmacKey;
use keepfast_json::{Kind, Token, Tokens};

/// Prefix of a hashed value, as Vault writes it.
pub(crate) const PREFIX: &str = "hmac-sha256:";

/// Appends `raw`, which is valid JSON, to `out` with its secrets hashed.
///
/// `public` decides by the name of a top-level field whether its value stays in clear.
pub(crate) fn json(raw: &str, key: &HmacKey, public: &dyn Fn(&str) -> bool, out: &mut Vec<u8>) {
    let mut walk = Walk { tokens: Tokens::new(raw.as_bytes()), key, out, recent: Recent::default() };
    walk.value(public);
}

/// Appends the hash of one text as a JSON string.
pub(crate) fn text(value: &str, key: &HmacKey, out: &mut Vec<u8>) {
    out.push(b'"');
    hash(value.as_bytes(), key, out);
    out.push(b'"');
}

/// Appends the hash of one text without quotes.
pub(crate) fn hash(value: &[u8], key: &HmacKey, out: &mut Vec<u8>) {
    out.extend_from_slice(&hashed(value, key));
}

/// A hash in its written form.
type Hashed = [u8; PREFIX.len() + 64];

fn hashed(value: &[u8], key: &HmacKey) -> Hashed {
    let mut text = [0; PREFIX.len() + 64];
    let (prefix, digits) = text.split_at_mut(PREFIX.len());
    prefix.copy_from_slice(PREFIX.as_bytes());
    // Without a table and without branches the compiler converts many digits at once.
    let digit = |nibble: u8| nibble + if nibble > 9 { b'a' - 10 } else { b'0' };
    for (pair, byte) in digits.chunks_exact_mut(2).zip(key.mac(value)) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 15);
    }
    text
}

/// The hashes of the last short values: the version of a key or an empty text occurs in every item of a batch.
#[derive(Default)]
struct Recent {
    known: [Option<(usize, [u8; SHORT], Hashed)>; 2],
    next: usize,
}

/// The longest value in this cache, in bytes.
const SHORT: usize = 8;

impl Recent {
    fn hashed(&mut self, value: &[u8], key: &HmacKey) -> Hashed {
        if value.len() > SHORT {
            return hashed(value, key);
        }
        let same = |(length, known, _): &&(usize, [u8; SHORT], Hashed)| known[..*length] == *value;
        if let Some((_, _, text)) = self.known.iter().flatten().find(same) {
            return *text;
        }
        let text = hashed(value, key);
        let mut kept = [0; SHORT];
        kept[..value.len()].copy_from_slice(value);
        self.known[self.next] = Some((value.len(), kept, text));
        self.next = 1 - self.next;
        text
    }
}

/// Appends JSON unchanged but on one line, so that no value can look like another entry.
pub(crate) fn one_line(raw: &[u8], out: &mut Vec<u8>) {
    // A line feed occurs only between values: in a string it is escaped.
    out.extend(raw.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
}

/// The nesting beyond which a value is hashed as a whole; the edge refuses deeper bodies.
pub(super) const DEEPEST: usize = 512;

struct Walk<'a> {
    tokens: Tokens<'a>,
    key: &'a HmacKey,
    out: &'a mut Vec<u8>,
    recent: Recent,
}

impl Walk<'_> {
    // recursion: bounded by DEEPEST
    fn value(&mut self, public: &dyn Fn(&str) -> bool) {
        if self.tokens.depth() >= DEEPEST && matches!(self.tokens.peek(), Some(b'{' | b'[')) {
            return self.hashed_whole();
        }
        let Some(token) = self.tokens.next() else { return self.out.extend_from_slice(b"null") };
        match token.kind {
            Kind::BeginObject => self.object(public),
            Kind::BeginArray => self.array(),
            Kind::String { escaped: false } => self.hashed(token.inside()),
            Kind::String { escaped: true } => self.hashed(unescaped(&token).as_bytes()),
            _ if matches!(token.text, [b't' | b'f' | b'n', ..]) => self.out.extend_from_slice(token.text),
            _ => self.hashed(token.text),
        }
    }

    /// Writes an object, after its brace.
    // recursion: bounded by DEEPEST, which `value` checks
    fn object(&mut self, public: &dyn Fn(&str) -> bool) {
        let is_outermost = self.tokens.depth() == 1;
        let mut separator = b'{';
        while let Some(name) = self.tokens.next()
            && matches!(name.kind, Kind::String { .. })
        {
            self.out.push(separator);
            separator = b',';
            self.out.extend_from_slice(name.text);
            self.out.push(b':');
            self.tokens.skip_separator(b':');
            if is_outermost && public(&unescaped(&name)) {
                one_line(self.tokens.skip_value(), self.out);
            } else {
                self.value(&|_| false);
            }
            self.tokens.skip_separator(b',');
        }
        self.out.extend_from_slice(if separator == b'{' { b"{}" } else { b"}" });
    }

    /// Writes an array, after its bracket.
    // recursion: bounded by DEEPEST, which `value` checks
    fn array(&mut self) {
        let mut separator = b'[';
        loop {
            self.tokens.skip_separator(b',');
            if matches!(self.tokens.peek(), Some(b']') | None) {
                break;
            }
            self.out.push(separator);
            separator = b',';
            self.value(&|_| false);
        }
        self.tokens.next();
        self.out.extend_from_slice(if separator == b'[' { b"[]" } else { b"]" });
    }

    /// Hashes the source text of one value.
    fn hashed_whole(&mut self) {
        let mut line = Vec::new();
        one_line(self.tokens.skip_value(), &mut line);
        self.out.push(b'"');
        hash(&line, self.key, self.out);
        self.out.push(b'"');
    }

    fn hashed(&mut self, value: &[u8]) {
        let text = self.recent.hashed(value, self.key);
        self.out.push(b'"');
        self.out.extend_from_slice(&text);
        self.out.push(b'"');
    }
}

/// The text of a string. Escapes are decoded, so that equal values have equal hashes.
fn unescaped<'a>(token: &Token<'a>) -> Cow<'a, str> {
    match token.kind {
        Kind::String { escaped: false } => Cow::Borrowed(std::str::from_utf8(token.inside()).unwrap_or_default()),
        _ => Cow::Owned(serde_json::from_slice(token.text).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn redacted(raw: &str, public: &[&str]) -> Value {
        let mut out = Vec::new();
        json(raw, &HmacKey::new(b"salt"), &|name| public.contains(&name), &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    fn hashed(value: &str) -> Value {
        let mut out = Vec::new();
        text(value, &HmacKey::new(b"salt"), &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn sec_al02_every_string_and_number_is_hashed_but_for_declared_fields() {
        let out = redacted(
            r#" {"a":"x\ny", "n": 12.5,"b":true,"o":{"ttl":1,"l":["s",null]}, "ttl": 60,"e":{} ,"z":[]} "#,
            &["ttl"],
        );
        assert_eq!(out["a"], hashed("x\ny"));
        assert_eq!(out["n"], hashed("12.5"));
        assert_eq!(out["b"], true);
        assert_eq!(out["o"]["ttl"], hashed("1"));
        assert_eq!(out["o"]["l"][0], hashed("s"));
        assert_eq!(out["o"]["l"][1], Value::Null);
        assert_eq!(out["ttl"], 60);
    }

    #[test]
    fn deeply_nested_json_is_hashed_as_a_whole() {
        for length in [64 * 1024, 500_000] {
            json(&("[".repeat(length) + &"]".repeat(length)), &HmacKey::new(b"salt"), &|_| false, &mut Vec::new());
        }
        let deep = format!("{}{}{}", "[".repeat(600), r#"{"k":["a","canary"]}"#, "]".repeat(600));
        let mut out = Vec::new();
        json(&deep, &HmacKey::new(b"salt"), &|_| false, &mut out);
        assert!(!String::from_utf8(out).unwrap().contains("canary"));
    }

    #[test]
    fn sec_al01_a_public_value_cannot_fake_an_entry() {
        let mut out = Vec::new();
        json("{\"open\":\n{\"type\":\"request\"}\r\n}", &HmacKey::new(b"salt"), &|_| true, &mut out);
        assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn check(before: &Value, after: &Value) {
        match (before, after) {
            (Value::Object(b), Value::Object(a)) => {
                assert_eq!(b.len(), a.len());
                b.iter().for_each(|(k, v)| check(v, &a[k]));
            }
            (Value::Array(b), Value::Array(a)) => {
                assert_eq!(b.len(), a.len());
                b.iter().zip(a).for_each(|(b, a)| check(b, a));
            }
            (Value::String(s), a) => assert_eq!(a, &hashed(s)),
            (Value::Number(n), a) => assert_eq!(a, &hashed(&n.to_string())),
            (b, a) => assert_eq!(b, a),
        }
    }

    proptest! {
        #[test]
        fn any_json_keeps_its_shape_and_no_value(value in any_json()) {
            check(&value, &redacted(&value.to_string(), &[]));
            check(&value, &redacted(&serde_json::to_string_pretty(&value).unwrap(), &[]));
        }
    }
}
