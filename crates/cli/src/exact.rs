//! Numbers as they were written.
//!
//! A number in a secret may have more digits than a machine number holds, or a form such as `1.10` that means
//! something to its reader. Between the wire and the terminal such a number travels as a string behind a mark,
//! a code point that is no character and stands in no text; everything else is ordinary JSON.

use serde_json::{Number, Value};

use crate::output::number_text;

/// U+10FFFF, which Unicode reserves for a program's own use inside.
const MARK: char = '\u{10ffff}';

/// Puts numbers that would change behind the mark. What is no JSON stays as it is.
pub(crate) fn keep(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut at = 0;
    while at < json.len() {
        let end = match json[at] {
            b'"' => end_of_string(json, at),
            b'-' | b'0'..=b'9' => at + json[at..].iter().take_while(|byte| is_numeric(**byte)).count(),
            _ => at + 1,
        };
        let token = &json[at..end];
        match std::str::from_utf8(token) {
            Ok(text) if is_numeric(token[0]) && changes(text) => {
                out.extend(Value::from(format!("{MARK}{text}")).to_string().bytes())
            }
            _ => out.extend_from_slice(token),
        }
        at = end;
    }
    out
}

/// The number that a marked string stands for.
pub(crate) fn number(text: &str) -> Option<&str> {
    text.strip_prefix(MARK).filter(|number| serde_json::from_str::<Number>(number).is_ok())
}

/// Takes the marks in a JSON text away again. Only whole strings are looked at, so that no text can pass for
/// a mark.
pub(crate) fn restore(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        let end = end_of_string(rest.as_bytes(), start);
        let token = &rest[start..end];
        out.push_str(&rest[..start]);
        out.push_str(token.strip_prefix('"').and_then(|text| number(text.strip_suffix('"')?)).unwrap_or(token));
        rest = &rest[end..];
    }
    out + rest
}

/// The position behind a string that begins at `start`.
fn end_of_string(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() && json[at] != b'"' {
        at += if json[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(json.len())
}

fn is_numeric(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether a number would come out otherwise than it went in.
fn changes(text: &str) -> bool {
    serde_json::from_str::<Number>(text).is_ok_and(|number| number_text(&number) != text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const LONG: &str = r#"{"a":12345678901234567890123,"b":[1.10,1,-0.5,1e30],"c":"1.10 \" 2.20\\","d":{"e":100000000000000000000.1}}"#;

    #[test]
    fn numbers_come_back_as_they_were() {
        let kept: Value = serde_json::from_slice(&keep(LONG.as_bytes())).unwrap();
        assert_eq!(restore(&kept.to_string()), LONG);
        assert_eq!(number(kept["a"].as_str().unwrap()), Some("12345678901234567890123"));
        assert_eq!((kept["b"][1].as_i64(), kept["b"][2].as_f64()), (Some(1), Some(-0.5)));
        assert_eq!(kept["c"], "1.10 \" 2.20\\");
    }

    #[test]
    fn only_a_number_loses_its_mark() {
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
    fn what_is_no_json_stays() {
        for text in ["", "\"", "\"a\\", "1.2.3", "--", "not json 1.10x \u{e9}"] {
            let kept = keep(text.as_bytes());
            assert!(kept == text.as_bytes() || text.contains("1.10"), "{text}");
        }
    }
}
