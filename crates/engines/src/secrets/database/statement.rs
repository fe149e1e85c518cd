//! Statements of roles, whose placeholders are filled with values that cannot end a literal or an identifier.

use keepfast_framework::Timestamp;

/// Fills `{{name}}` and its like.
///
/// Every value has to be [`plain`], so that it stays inside of whatever quotes the statement puts around it.
pub(super) fn fill(statement: &str, values: &[(&str, &str)]) -> String {
    let mut out = statement.to_owned();
    for (name, value) in values {
        out = out.replace(&format!("{{{{{name}}}}}"), value);
    }
    out
}

/// Whether a value can stand in any literal and identifier: it has no quote, backslash, backtick, control character.
pub(super) fn plain(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(|c| matches!(c, '\'' | '"' | '\\' | '`' | '\0') || c.is_control())
}

/// An end as databases read it: `2026-11-23 13:02:27+0000`.
pub(super) fn expiration(end: Timestamp) -> String {
    let text = end.rfc3339_seconds();
    format!("{}+0000", text.trim_end_matches('Z').replacen('T', " ", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_times_are_written_for_sql() {
        let filled = fill("CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'", &[("name", "v-x"), ("password", "p")]);
        assert_eq!(filled, "CREATE ROLE \"v-x\" PASSWORD 'p'");
        assert_eq!(expiration(Timestamp::from_unix(1_795_438_947)), "2026-11-23 13:02:27+0000");
    }

    #[test]
    fn sec_se03_no_value_can_leave_its_quotes() {
        for value in ["a'b", "a\"b", "a\\b", "a`b", "a\nb", "a\0b", ""] {
            assert!(!plain(value), "{value:?}");
        }
        assert!(plain("v-token-ö-1.x@y:$ ;%--"));
    }
}
