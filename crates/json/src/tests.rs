//! Tokens and pieces, compared with the results of `serde_json`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::hash::{BuildHasher, Hasher};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value};

use super::*;

/// Runs a property with a seed, printed on failure; `KEEPFAST_TEST_SEED` (64 hexadecimal digits) repeats a run.
fn holds<T: std::fmt::Debug>(values: impl Strategy<Value = T>, property: impl Fn(T)) {
    let seed = std::env::var("KEEPFAST_TEST_SEED").unwrap_or_else(|_| {
        let word = || format!("{:016x}", std::hash::RandomState::new().build_hasher().finish());
        (0..4).map(|_| word()).collect()
    });
    println!("repeat with KEEPFAST_TEST_SEED={seed}");
    let bytes: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&seed[at..at + 2], 16).unwrap()).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let test = |value| {
        property(value);
        Ok(())
    };
    TestRunner::new_with_rng(config, rng).run(&values, test).unwrap();
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "[\"\\\\/\n\t\u{1}{}:,\\[\\]aé€😀]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,4}", inner), 0..5).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

/// Writes every character of a text as an escape.
fn escaped(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect()
}

fn decoded(inside: &[u8]) -> String {
    let mut units = Vec::new();
    for piece in Pieces::new(inside) {
        match piece {
            Piece::Plain(bytes) => units.extend(std::str::from_utf8(bytes).unwrap().encode_utf16()),
            Piece::Byte(byte) => units.push(u16::from(byte)),
            Piece::Unit(unit) => units.push(unit),
            Piece::Invalid(bytes) => panic!("{bytes:?} is no escape"),
        }
    }
    String::from_utf16(&units).unwrap()
}

/// Parses the value that begins with `token`.
fn value(tokens: &mut Tokens<'_>, token: Token<'_>) -> Value {
    match token.kind {
        Kind::String { escaped } => {
            assert_eq!(escaped, token.text.contains(&b'\\'));
            Value::from(decoded(token.inside()))
        }
        Kind::Word => serde_json::from_slice(token.text).unwrap(),
        Kind::BeginArray => {
            let mut items = Vec::new();
            loop {
                let token = tokens.next().unwrap();
                match token.kind {
                    Kind::EndArray => return Value::from(items),
                    Kind::Comma => {}
                    _ => items.push(value(tokens, token)),
                }
            }
        }
        Kind::BeginObject => {
            let mut members = Map::new();
            loop {
                let token = tokens.next().unwrap();
                match token.kind {
                    Kind::EndObject => return Value::Object(members),
                    Kind::Comma => {}
                    _ => {
                        assert_eq!(tokens.next().unwrap().kind, Kind::Colon);
                        let first = tokens.next().unwrap();
                        members.insert(decoded(token.inside()), value(tokens, first));
                    }
                }
            }
        }
        kind => panic!("no value begins with {kind:?}"),
    }
}

#[test]
fn tokens_build_the_value_that_serde_parses() {
    holds((any_json(), any::<bool>()), |(expected, pretty)| {
        let text = if pretty { serde_json::to_string_pretty(&expected) } else { serde_json::to_string(&expected) };
        let text = text.unwrap();
        // Parsed by serde again: serde may read a float as its neighbour.
        let expected: Value = serde_json::from_str(&text).unwrap();
        let mut tokens = Tokens::new(text.as_bytes());
        let first = tokens.next().unwrap();
        assert_eq!(value(&mut tokens, first), expected, "{text}");
        assert_eq!((tokens.depth(), tokens.next(), tokens.end()), (0, None, text.len()));
        let mut whole = Tokens::new(text.as_bytes());
        assert_eq!((whole.skip_value(), whole.depth(), whole.next()), (text.as_bytes(), 0, None));
    });
}

#[test]
fn decoded_len_counts_the_bytes_of_escaped_characters() {
    holds(".{0,20}", |text| {
        for inside in [escaped(&text), serde_json::to_string(&text).unwrap()] {
            let inside = inside.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&inside);
            assert_eq!(decoded(inside.as_bytes()), text);
            assert_eq!(decoded_len(inside.as_bytes()), text.len(), "{inside}");
        }
    });
}

#[test]
fn any_bytes_are_tokenised_without_loss() {
    let bytes = prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[],: \nu0a"[..])], 0..200);
    holds(bytes, |bytes| {
        let mut behind = 0;
        let mut tokens = Tokens::new(&bytes);
        while let Some(token) = tokens.next() {
            assert!(bytes[behind..token.start].iter().all(|byte| is_blank(*byte)));
            assert_eq!((token.text, token.end()), (&bytes[token.start..token.end()], tokens.end()));
            assert!(!token.text.is_empty());
            if let Kind::String { .. } = token.kind {
                let quotes = if token.is_terminated() { 2 } else { 1 };
                assert_eq!(token.inside().len() + quotes, token.text.len());
                assert!(token.is_terminated() || token.end() == bytes.len(), "only the end cuts a string off");
                let length = |piece: &Piece<'_>| match piece {
                    Piece::Plain(text) | Piece::Invalid(text) => text.len(),
                    Piece::Byte(_) => 2,
                    Piece::Unit(_) => 6,
                };
                let pieces = Pieces::new(token.inside());
                assert_eq!(pieces.map(|piece| length(&piece)).sum::<usize>(), token.inside().len());
            }
            behind = token.end();
        }
        assert!(bytes[behind..].iter().all(|byte| is_blank(*byte)));
        assert!(Tokens::new(&bytes).skip_value().len() <= bytes.len());
    });
}

#[test]
fn an_escaped_quote_does_not_end_a_string() {
    for (text, inside, terminated) in [
        (r#""""#, "", true),
        (r#""a"#, "a", false),
        (r#"""#, "", false),
        (r#""a\""#, r#"a\""#, false),
        (r#""a\"b""#, r#"a\"b"#, true),
        (r#""a\\""#, r#"a\\"#, true),
        (r#""\"#, r"\", false),
        (r#""\\\""#, r#"\\\""#, false),
    ] {
        let token = Tokens::new(text.as_bytes()).next().unwrap();
        assert_eq!((token.text, token.inside()), (text.as_bytes(), inside.as_bytes()), "{text}");
        assert_eq!(token.is_terminated(), terminated, "{text}");
    }
}

#[test]
fn an_invalid_escape_is_a_piece_of_two_bytes() {
    for (inside, pieces) in [
        (r"\u12", vec![Piece::Invalid(br"\u"), Piece::Plain(b"12")]),
        (r"\u+123", vec![Piece::Invalid(br"\u"), Piece::Plain(b"+123")]),
        (r"a\q\u00e9", vec![Piece::Plain(b"a"), Piece::Invalid(br"\q"), Piece::Unit(0xe9)]),
        (r"\n\", vec![Piece::Byte(b'\n'), Piece::Invalid(br"\")]),
    ] {
        assert_eq!(Pieces::new(inside.as_bytes()).collect::<Vec<_>>(), pieces, "{inside}");
    }
}

#[test]
fn skip_value_skips_one_value_and_resume_at_splits_a_word() {
    let mut tokens = Tokens::new(br#" {"a":[1,{}]} ,[ 2 "#);
    assert_eq!((tokens.skip_value(), tokens.depth()), (&br#"{"a":[1,{}]}"#[..], 0));
    assert_eq!(tokens.skip_value(), b"", "a comma begins no value");
    assert_eq!(tokens.next().map(|token| token.kind), Some(Kind::Comma));
    assert_eq!((tokens.skip_value(), tokens.depth()), (&b"[ 2"[..], 1));
    let mut tokens = Tokens::new(b"1x]");
    let word = tokens.next().unwrap();
    tokens.resume_at(word.start + 1);
    assert_eq!((tokens.peek(), tokens.next().map(|token| token.text)), (Some(b'x'), Some(&b"x"[..])));
}
