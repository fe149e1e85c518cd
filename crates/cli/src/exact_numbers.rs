//! Numbers with all their digits.
//!
//! A number in a secret may have more digits than a machine number, or a form such as `1.10` that has a meaning
//! for its reader. Between the wire and the terminal such a number is a string with a prefix, a noncharacter
//! that no text contains; everything else is ordinary JSON.

use keepfast_json::{Kind, Tokens};
use serde_json::{Number, Value};

use crate::output::number_text;

/// U+10FFFF, which Unicode reserves for internal use of a program.
const MARK: char = '\u{10ffff}';

/// Replaces numbers that parsing would change by marked strings. Text that is not JSON is returned unchanged.
pub(crate) fn keep(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut behind = 0;
    for token in Tokens::new(json) {
        out.extend_from_slice(&json[behind..token.start]);
        behind = token.end();
        match std::str::from_utf8(token.text) {
            Ok(text) if token.kind == Kind::Word && changes(text) => {
                out.extend(Value::from(format!("{MARK}{text}")).to_string().bytes());
            }
            _ => out.extend_from_slice(token.text),
        }
    }
    out.extend_from_slice(&json[behind..]);
    out
}

/// The number of a marked string.
pub(crate) fn number(text: &str) -> Option<&str> {
    text.strip_prefix(MARK).filter(|number| serde_json::from_str::<Number>(number).is_ok())
}

/// Replaces marked strings in a JSON text by their numbers. Only whole strings are replaced, so no text can be
/// taken for a number.
pub(crate) fn restore(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut behind = 0;
    for token in Tokens::new(json.as_bytes()).filter(|token| matches!(token.kind, Kind::String { .. })) {
        let marked = std::str::from_utf8(token.inside()).ok().filter(|_| token.is_terminated());
        let Some(number) = marked.and_then(number) else { continue };
        out.push_str(&json[behind..token.start]);
        out.push_str(number);
        behind = token.end();
    }
    out + &json[behind..]
}

/// Whether parsing and formatting would change a number.
fn changes(text: &str) -> bool {
    serde_json::from_str::<Number>(text).is_ok_and(|number| number_text(&number) != text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const LONG: &str = r#"{"a":12345678901234567890123,"b":[1.10,1,-0.5,1e30],"c":"1.10 \" 2.20\\","d":{"e":100000000000000000000.1}}"#;

    #[test]
    fn numbers_keep_all_their_digits() {
        let kept: Value = serde_json::from_slice(&keep(LONG.as_bytes())).unwrap();
        assert_eq!(restore(&kept.to_string()), LONG);
        assert_eq!(number(kept["a"].as_str().unwrap()), Some("12345678901234567890123"));
        assert_eq!((kept["b"][1].as_i64(), kept["b"][2].as_f64()), (Some(1), Some(-0.5)));
        assert_eq!(kept["c"], "1.10 \" 2.20\\");
    }

    #[test]
    fn only_marked_numbers_are_restored() {
        for text in [
            "{\"a\":\"\u{10ffff}x\"}",
            "{\"a\":\"\u{10ffff}1,\\\"b\\\":2\"}",
            "{\"a\":\"x\\\"\u{10ffff}1\"}",
            "\"\u{10ffff}",
            "plain",
            "",
        ] {
            assert_eq!(restore(text), text);
        }
        assert_eq!(number("1.10"), None);
    }

    #[test]
    fn text_that_is_not_json_is_unchanged() {
        for text in ["", "\"", "\"a\\", "1.2.3", "--", " not json 1.10x \u{e9} "] {
            assert_eq!(keep(text.as_bytes()), text.as_bytes(), "{text}");
        }
        assert_eq!(keep(&[0xff, b' ', b'1']), [0xff, b' ', b'1']);
    }
}
