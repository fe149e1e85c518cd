//! Values in a line of text.

use keepfast_client::duration;
use serde_json::{Number, Value};

use crate::exact_numbers;

/// The maximum width of a line of a warning.
const WIDTH: usize = 76;

/// A value without quotes or commas, like Go's `%v` in Vault's command line: `map[a:1 b:[x y]]`,
/// `<nil>` for null.
// recursion: bounded by serde_json, which reads 128 levels
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(n) => number(n),
        Value::String(text) => exact_numbers::number(text).unwrap_or(text).to_owned(),
        Value::Array(values) => format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// A number in the format of the API: plain digits between 1e-6 and 1e21, else with a signed exponent.
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

/// The value of a data field. A number of seconds under a known name is printed as a duration.
pub(crate) fn of_field(name: &str, value: &Value) -> String {
    let is_time = matches!(name, "ttl" | "period" | "duration" | "lease_max" | "ttl_max")
        || ["_ttl", "_period", "_duration"].iter().any(|end| name.ends_with(end));
    match value.as_i64() {
        Some(seconds) if is_time => duration::format_short(seconds),
        _ => plain(value),
    }
}

/// Quoted names: `["default" "app"]`.
pub(crate) fn quoted_list(names: Option<&[String]>) -> String {
    let quoted: Vec<String> = names.unwrap_or_default().iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// A warning as a list item, with line breaks between words.
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
    fn nested_values_are_one_line() {
        let value = json!({"b": [1, "a", {"q": null}], "a": {"x": true}});
        assert_eq!(plain(&value), "map[a:map[x:true] b:[1 a map[q:<nil>]]]");
    }

    #[test]
    fn numbers_have_the_format_of_the_api() {
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
    fn known_names_are_durations() {
        assert_eq!(of_field("token_ttl", &json!(1200)), "20m");
        assert_eq!(of_field("creation_time", &json!(1200)), "1200");
        assert_eq!(of_field("ttl", &json!("5m")), "5m");
    }

    #[test]
    fn warnings_are_broken_between_words() {
        let shown = bullet(&"word ".repeat(30));
        assert!(
            shown.lines().count() > 1 && shown.lines().all(|line| line.starts_with("  ") && line.len() <= WIDTH + 2),
            "{shown}"
        );
    }
}
