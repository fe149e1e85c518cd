//! Values as words in a line of text.

use keepfast_client::duration;
use serde_json::{Number, Value};

use crate::exact;

/// The longest line of a remark.
const WIDTH: usize = 76;

/// A value without quotes or commas, as these command lines have always shown it: `map[a:1 b:[x y]]`,
/// `<nil>` for null.
// recursion: bounded by serde_json, which reads 128 levels
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(n) => number(n),
        Value::String(text) => exact::number(text).unwrap_or(text).to_owned(),
        Value::Array(values) => format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// A number as the API writes it: plain digits between 1e-6 and 1e21, else with a signed exponent.
pub(crate) fn number(number: &Number) -> String {
    let text = number.to_string();
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with(['-', '+']) => {
            format!("{}e+{exponent}", digits.trim_end_matches(".0"))
        }
        Some((digits, exponent)) => format!("{}e{exponent}", digits.trim_end_matches(".0")),
        None => text.strip_suffix(".0").map_or(text.clone(), str::to_owned),
    }
}

/// The value of a field of data. Seconds under a name that says so are shown as a duration.
pub(crate) fn of_field(name: &str, value: &Value) -> String {
    let is_time = matches!(name, "ttl" | "period" | "duration" | "lease_max" | "ttl_max")
        || ["_ttl", "_period", "_duration"].iter().any(|end| name.ends_with(end));
    match value.as_i64() {
        Some(seconds) if is_time => duration::format_short(seconds),
        _ => plain(value),
    }
}

/// Names in quotes: `["default" "app"]`.
pub(crate) fn quoted_list(names: Option<&[String]>) -> String {
    let quoted: Vec<String> = names.unwrap_or_default().iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// A remark as a list item, broken into lines between words.
pub(crate) fn bullet(remark: &str) -> String {
    let mut lines = vec!["  *".to_owned()];
    for word in remark.split_whitespace() {
        let line = lines.last_mut().map(|line| (line.chars().count(), line));
        match line {
            Some((length, line)) if length + 1 + word.chars().count() <= WIDTH || line == "  *" => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n  ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn nested_values_in_one_line() {
        let value = json!({"b": [1, "a", {"q": null}], "a": {"x": true}});
        assert_eq!(plain(&value), "map[a:map[x:true] b:[1 a map[q:<nil>]]]");
    }

    #[test]
    fn numbers() {
        for (text, shown) in [
            ("1", "1"),
            ("1.0", "1"),
            ("1.5", "1.5"),
            ("1e30", "1e+30"),
            ("1e-7", "1e-7"),
            ("-3", "-3"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(number(&serde_json::from_str(text).unwrap()), shown);
        }
    }

    #[test]
    fn times_by_name() {
        assert_eq!(of_field("token_ttl", &json!(1200)), "20m");
        assert_eq!(of_field("creation_time", &json!(1200)), "1200");
        assert_eq!(of_field("ttl", &json!("5m")), "5m");
    }

    #[test]
    fn remarks_are_broken_between_words() {
        let shown = bullet(&"word ".repeat(30));
        assert!(
            shown.lines().count() > 1 && shown.lines().all(|line| line.starts_with("  ") && line.len() <= WIDTH + 2),
            "{shown}"
        );
    }
}
