//! YAML output: block style, sorted keys, strings quoted where YAML would read another type.
//!
//! Own code and not `serde-saphyr`, because scripts compare this output and its bytes are those of OpenBao, which uses
//! Go's yaml.v3: the tests here and in `tests/it/formats.rs` contain what `bao` writes. Of the same values
//! `serde-saphyr` writes `"- a"` for `'- a'`, `1.0e-7` for `1e-07`, `|+` for `|2+` and a plain emoji for an escaped one.
//! Only `=` and `<<`, which YAML 1.1 does not read as strings, are quoted here and plain in OpenBao.

use serde_json::Value;

use super::text::number;
use crate::exact_numbers;

/// Words that some YAML reader takes for a boolean, for null, or for a directive.
const RESERVED: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<", "="];
/// Characters with a meaning at the start of a plain scalar.
const INDICATORS: &str = "-?:,[]{}#&*!|>'\"%@`";

/// A value as a document with a final newline.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(value, 0, &mut out),
        Value::Array(values) if !values.is_empty() => sequence(values, 0, &mut out),
        other => {
            out.push_str(&scalar(other, 0));
            out.push('\n');
        }
    }
    out
}

/// Writes the entries of a map, one per line; the output ends where the first key goes.
// recursion: bounded by serde_json, which reads 128 levels
fn mapping(map: &Value, depth: usize, out: &mut String) {
    let mut entries: Vec<_> = map.as_object().into_iter().flatten().collect();
    entries.sort_by(|a, b| natural(a.0, b.0));
    for (at, (key, value)) in entries.into_iter().enumerate() {
        if at > 0 {
            indent(depth, out);
        }
        out.push_str(&string(key, depth, true));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(depth + 1, out);
                mapping(value, depth + 1, out);
            }
            Value::Array(values) if !values.is_empty() => {
                out.push('\n');
                indent(depth, out);
                sequence(values, depth, out);
            }
            value => {
                out.push(' ');
                out.push_str(&scalar(value, depth + 1));
                out.push('\n');
            }
        }
    }
}

/// Writes the items of a list, one per line; the output ends where the first dash goes.
// recursion: bounded by serde_json, which reads 128 levels
fn sequence(values: &[Value], depth: usize, out: &mut String) {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            indent(depth, out);
        }
        out.push_str("- ");
        match value {
            Value::Object(inner) if !inner.is_empty() => mapping(value, depth + 1, out),
            Value::Array(inner) if !inner.is_empty() => sequence(inner, depth + 1, out),
            value => {
                out.push_str(&scalar(value, depth + 1));
                out.push('\n');
            }
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    out.push_str(&"  ".repeat(depth));
}

fn scalar(value: &Value, depth: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(n) => exponent_of_two_digits(&number(n)),
        Value::String(text) => exact_numbers::number(text).map_or_else(|| string(text, depth, false), str::to_owned),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

/// `1e-7` as `1e-07`.
fn exponent_of_two_digits(number: &str) -> String {
    match number.split_once("e-").or_else(|| number.split_once("e+")) {
        Some((digits, exponent)) if exponent.len() == 1 => {
            let sign = if number.contains("e-") { '-' } else { '+' };
            format!("{digits}e{sign}0{exponent}")
        }
        _ => number.to_owned(),
    }
}

/// A string in the simplest style that reads back as the same string.
fn string(text: &str, depth: usize, is_key: bool) -> String {
    let special = text.chars().any(|c| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}')
            || u32::from(c) > 0xffff
    });
    if special || text.is_empty() || looks_like_another_type(text) {
        return double_quoted(text);
    }
    if text.contains('\n') {
        return if is_key { double_quoted(text) } else { block(text, depth) };
    }
    if needs_quotes(text) { format!("'{}'", text.replace('\'', "''")) } else { text.to_owned() }
}

/// A string of several lines as a literal block (`|`).
fn block(text: &str, depth: usize) -> String {
    let body = text.trim_end_matches('\n');
    let ends = text.len() - body.len();
    let keep = match (ends, body.is_empty()) {
        (0, _) => "-",
        (1, false) => "",
        _ => "+",
    };
    // A reader derives the indentation from the first line, unless that begins with a blank.
    let hint = if text.starts_with([' ', '\n']) { "2" } else { "" };
    let mut out = format!("|{hint}{keep}");
    let lines = if ends > 0 { &text[..text.len() - 1] } else { text };
    for line in lines.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(depth, &mut out);
            out.push_str(line);
        }
    }
    out
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) > 0xffff => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c if u32::from(c) < 0x100 && c.is_control() => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a reader would take the plain text for a boolean, a number, null or a date.
fn looks_like_another_type(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let in_one_case = text == lower || text == text.to_ascii_uppercase() || text.get(1..) == lower.get(1..);
    if in_one_case && RESERVED.contains(&lower.as_str()) {
        return true;
    }
    let unsigned = lower.trim_start_matches(['+', '-']);
    if lower.len() - unsigned.len() <= 1 {
        let number = unsigned.replace('_', "");
        let radix = [("0x", 16), ("0b", 2), ("0o", 8)].iter().any(|(prefix, radix)| {
            number.strip_prefix(prefix).is_some_and(|digits| i128::from_str_radix(digits, *radix).is_ok())
        });
        let decimal = number.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && number.contains(|c: char| c.is_ascii_digit())
            && number.parse::<f64>().is_ok();
        if radix || decimal || matches!(unsigned, ".inf" | ".nan") {
            return true;
        }
    }
    is_date_or_sexagesimal(text)
}

/// `2020-01-01`, with or without a time behind it; `12:30`, which YAML 1.1 reads as a number.
fn is_date_or_sexagesimal(text: &str) -> bool {
    let date = text.as_bytes();
    let is_date = date.len() >= 10
        && date[..10]
            .iter()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() })
        && (date.len() == 10
            || (matches!(date[10], b'T' | b't' | b' ') && date[11..].first().is_some_and(u8::is_ascii_digit)));
    let groups: Vec<&str> = text.trim_start_matches(['+', '-']).split(':').collect();
    let is_sexagesimal = groups.len() > 1
        && groups.iter().all(|group| {
            !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'_')
        });
    is_date || is_sexagesimal
}

/// Whether the plain text would be read as structure.
fn needs_quotes(text: &str) -> bool {
    let mut letters = text.chars();
    let first = letters.next().unwrap_or(' ');
    let second = letters.next();
    let leads = match first {
        // These begin a plain scalar when the next character is not a blank.
        '-' | '?' | ':' => second.is_none_or(|c| c == ' '),
        first => INDICATORS.contains(first),
    };
    leads
        || text.starts_with(' ')
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text.starts_with("---")
        || text.starts_with("...")
}

/// Natural order of keys: other characters before letters, runs of digits by number.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (a, b) = (a.chars().collect::<Vec<_>>(), b.chars().collect::<Vec<_>>());
    let differ = a.iter().zip(&b).position(|(x, y)| x != y);
    let Some(at) = differ else { return a.len().cmp(&b.len()) };
    let (x, y) = (a[at], b[at]);
    if x.is_alphabetic() && y.is_alphabetic() {
        return x.cmp(&y);
    }
    if x.is_alphabetic() || y.is_alphabetic() {
        return if y.is_alphabetic() { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
    }
    let run = |text: &[char]| -> (u128, usize) {
        let digits: String = text[at..].iter().take_while(|c| c.is_ascii_digit()).collect();
        (digits.parse().unwrap_or(0), digits.len())
    };
    match (run(&a), run(&b)) {
        (x_run, y_run) if x_run.1 > 0 && y_run.1 > 0 && x_run.0 != y_run.0 => x_run.0.cmp(&y_run.0),
        _ => x.cmp(&y),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn maps_and_lists_are_nested_blocks() {
        let value = json!({"list": [[], {}, [[1, 2], [3]], [{"a": 1, "b": [1]}]], "a": {"b": {}}, "n": null});
        assert_eq!(
            document(&value),
            "a:\n  b: {}\nlist:\n- []\n- {}\n- - - 1\n    - 2\n  - - 3\n- - a: 1\n    b:\n    - 1\n\"n\": null\n"
        );
        assert_eq!(document(&json!(["x", "y"])), "- x\n- \"y\"\n");
        assert_eq!(document(&json!("v")), "v\n");
    }

    #[test]
    fn strings_that_look_like_another_type_are_quoted() {
        for text in [
            "true",
            "No",
            "ON",
            "12",
            "-3",
            "1.5",
            "1e3",
            "0x1F",
            "0b11",
            "1_000",
            ".5",
            "5.",
            ".inf",
            "~",
            "",
            "2020-01-01",
            "12:30",
            "+1",
            "y",
            "2001-12-14 21:59:43",
        ] {
            assert_eq!(string(text, 0, false), format!("\"{text}\""));
        }
        for text in ["- a", " lead", "t ", "a: b", "a #b", "a:", "*x", "@x", "`x", "[x", "-", "---", "..."] {
            assert_eq!(string(text, 0, false), format!("'{text}'"));
        }
        for text in ["a:b", "-a", "?x", "it's", "say \"hi\"", "1.2.3", "_", ".", "é∞", "a\\b", "==", "word"] {
            assert_eq!(string(text, 0, false), text);
        }
        assert_eq!(string("a\tb", 0, false), "\"a\\tb\"");
        assert_eq!(string("😀", 0, false), "\"\\U0001F600\"");
    }

    #[test]
    fn numbers_and_the_order_of_keys_are_those_of_openbao() {
        assert_eq!(document(&json!({"k10": 1e-7, "k9": 1.5, "y": 5})), "k9: 1.5\nk10: 1e-07\n\"y\": 5\n");
    }

    #[test]
    fn several_lines_are_a_literal_block() {
        assert_eq!(document(&json!({"a": "x\ny\n"})), "a: |\n  x\n  y\n");
        assert_eq!(document(&json!({"a": "x\ny"})), "a: |-\n  x\n  y\n");
        assert_eq!(document(&json!({"a": "x\n\n y\n\n"})), "a: |+\n  x\n\n   y\n\n");
        assert_eq!(document(&json!({"a": " x\ny"})), "a: |2-\n   x\n  y\n");
        assert_eq!(document(&json!({"a": "\n"})), "a: |2+\n\n");
        assert_eq!(document(&json!({"a": "\nx"})), "a: |2-\n\n  x\n");
    }
}
