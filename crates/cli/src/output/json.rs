//! JSON output: two spaces per level, keys in the given order, `<`, `>` and `&` escaped like Go's encoder.

use serde_json::Value;

use super::text::number;
use crate::exact_numbers;

/// Formats a value over several lines.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

// recursion: bounded by serde_json, which reads 128 levels
fn write(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number(n)),
        Value::String(text) => out.push_str(&exact_numbers::number(text).map_or_else(|| string(text), str::to_owned)),
        Value::Array(values) => sequence(values.iter().map(|value| (None, value)), ('[', ']'), depth, out),
        Value::Object(map) => sequence(map.iter().map(|(key, value)| (Some(key), value)), ('{', '}'), depth, out),
    }
}

// recursion: bounded by serde_json, which reads 128 levels
fn sequence<'a>(
    items: impl ExactSizeIterator<Item = (Option<&'a String>, &'a Value)>,
    ends: (char, char),
    depth: usize,
    out: &mut String,
) {
    out.push(ends.0);
    let count = items.len();
    for (at, (key, value)) in items.enumerate() {
        new_line(depth + 1, out);
        if let Some(key) = key {
            out.push_str(&string(key));
            out.push_str(": ");
        }
        write(value, depth + 1, out);
        if at + 1 < count {
            out.push(',');
        }
    }
    if count > 0 {
        new_line(depth, out);
    }
    out.push(ends.1);
}

fn new_line(depth: usize, out: &mut String) {
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
}

/// A quoted string; characters that end a script element or a line in a browser are escaped too.
fn string(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    let mut escaped = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn shape_and_escapes() {
        let shown = pretty(&json!({"b": [], "a": {"x": [1, "<&>\n\""]}, "c": {}}));
        assert_eq!(
            shown,
            "{\n  \"b\": [],\n  \"a\": {\n    \"x\": [\n      1,\n      \"\\u003c\\u0026\\u003e\\n\\\"\"\n    ]\n  },\n  \"c\": {}\n}"
        );
    }
}
