//! Statements of roles. What is put in place of a placeholder is quoted for the place where it stands, so that no value can
//! end a literal or an identifier, whatever it is made of.

use keepfast_framework::Timestamp;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::Strings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::connection::DatabaseError;

/// Statements as they are given: a list, or one text; null and an empty text are none.
pub(super) struct Statements(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Statements {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        if value.as_str().is_some_and(str::is_empty) {
            return Ok(Statements(Vec::new()));
        }
        Strings::deserialize(value).map(|Strings(all)| Statements(all)).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Statements {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Strings::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Strings::json_schema(generator)
    }
}

/// The statements that are run: as documented, each of those given may be base64 or a JSON list of statements, or both.
pub(super) fn written_out(given: &[String]) -> Vec<String> {
    let each = |text: &String| {
        let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = decoded.unwrap_or_else(|| text.clone());
        serde_json::from_str::<Vec<String>>(&text).unwrap_or_else(|_| vec![text])
    };
    given.iter().flat_map(each).filter(|statement| !statement.trim().is_empty()).collect()
}

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// PostgreSQL's.
    Postgres,
    /// MySQL's and MariaDB's.
    MySql,
}

/// Where in a statement a piece of it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Outside of all quotes.
    Bare,
    /// Between single quotes, where a backslash is a letter.
    Literal,
    /// Between quotes where a backslash begins an escape.
    Escaped(char),
    /// Between double quotes or backticks, where the quote is written twice.
    Identifier(char),
    Comment,
}

/// A piece of a statement that stands in one place.
#[derive(Clone, Copy)]
struct Piece<'a> {
    place: Place,
    /// The dollar quote around it, as PostgreSQL has them; what is in one is read as a statement too.
    dollars: Option<&'a str>,
    text: &'a str,
}

/// Fills `{{name}}` and its like.
///
/// # Errors
/// When a value cannot stand where its placeholder stands; the text names the placeholder.
pub(super) fn fill(dialect: Dialect, statement: &str, values: &[(&str, &str)]) -> Result<String, DatabaseError> {
    let mut out = String::with_capacity(statement.len() + 64);
    for piece in pieces(dialect, statement) {
        let mut rest = piece.text;
        while let Some(at) = rest.find("{{") {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let found = from[2..].split_once("}}").and_then(|(name, after)| {
                values.iter().find(|(known, _)| *known == name.trim()).map(|(name, value)| (*name, *value, after))
            });
            rest = match found {
                Some((name, value, after)) => {
                    out.push_str(&quoted(piece, value).ok_or_else(|| refusal(name))?);
                    after
                }
                None => {
                    out.push_str("{{");
                    &from[2..]
                }
            };
        }
        out.push_str(rest);
    }
    Ok(out)
}

/// Whether a statement has the placeholder of this name, wherever it stands.
pub(super) fn mentions(statement: &str, name: &str) -> bool {
    let found = |rest: &str| rest.split_once("}}").is_some_and(|(found, _)| found.trim() == name);
    statement.match_indices("{{").any(|(at, _)| found(&statement[at + 2..]))
}

fn refusal(name: &str) -> DatabaseError {
    DatabaseError(format!(
        "the value of {{{{{name}}}}} has characters that cannot stand where the statement has its placeholder"
    ))
}

/// A value as it is written in a piece; `None` where it cannot be.
fn quoted(piece: Piece<'_>, value: &str) -> Option<String> {
    let ends_dollars = |tag: &str| value.contains(tag) || value.starts_with('$') || value.ends_with('$');
    if value.is_empty() || value.contains('\0') || piece.dollars.is_some_and(ends_dollars) {
        return None;
    }
    match piece.place {
        Place::Bare => value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| value.to_owned()),
        // Whether a backslash is a letter is up to a setting of the server.
        Place::Literal => (!value.contains('\\')).then(|| value.replace('\'', "''")),
        Place::Escaped(quote) => Some(value.replace('\\', "\\\\").replace(quote, &format!("{quote}{quote}"))),
        Place::Identifier(quote) => Some(value.replace(quote, &format!("{quote}{quote}"))),
        Place::Comment => plain(value).then(|| value.replace("*/", "* /")),
    }
}

/// A statement in pieces, all of it. The quotes themselves are bare.
fn pieces(dialect: Dialect, statement: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let piece = |place, text| Piece { place, dollars: None, text };
    let (mut begun, mut at) = (0, 0);
    while let Some(c) = statement[at..].chars().next() {
        let (before, rest) = statement.split_at(at);
        if let Some(tag) = dollar_tag(dialect, before, rest) {
            let from = at + tag.len();
            let to = statement[from..].find(tag).map_or(statement.len(), |end| from + end);
            out.push(piece(Place::Bare, &statement[begun..from]));
            out.extend(pieces(dialect, &statement[from..to]).into_iter().map(|p| Piece { dollars: Some(tag), ..p }));
            (begun, at) = (to, (to + tag.len()).min(statement.len()));
            continue;
        }
        let Some((place, opening)) = opens(dialect, before, rest) else {
            at += c.len_utf8();
            continue;
        };
        let from = at + opening;
        let to = from + end(place, rest.starts_with("/*"), &statement[from..]);
        out.push(piece(Place::Bare, &statement[begun..from]));
        out.push(piece(place, &statement[from..to]));
        // What ends a piece is one character of ASCII, or two for some comments, whose second one means nothing alone.
        (begun, at) = (to, (to + 1).min(statement.len()));
    }
    out.push(piece(Place::Bare, &statement[begun..]));
    out
}

/// What begins here, and with how many bytes.
fn opens(dialect: Dialect, before: &str, rest: &str) -> Option<(Place, usize)> {
    let is_mysql = dialect == Dialect::MySql;
    match rest.chars().next()? {
        '\'' => Some((literal(dialect, before), 1)),
        '"' if is_mysql => Some((Place::Escaped('"'), 1)),
        '"' => Some((Place::Identifier('"'), 1)),
        '`' if is_mysql => Some((Place::Identifier('`'), 1)),
        '#' if is_mysql => Some((Place::Comment, 1)),
        '-' => {
            let after = rest.strip_prefix("--")?;
            (!is_mysql || !after.starts_with(|c: char| !c.is_whitespace())).then_some((Place::Comment, 2))
        }
        '/' => {
            let after = rest.strip_prefix("/*")?;
            // MySQL runs what is in these.
            let runs = is_mysql && (after.starts_with('!') || after.starts_with("M!"));
            (!runs).then_some((Place::Comment, 2))
        }
        _ => None,
    }
}

/// The `$tag$` that begins here.
fn dollar_tag<'a>(dialect: Dialect, before: &str, rest: &'a str) -> Option<&'a str> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    if dialect != Dialect::Postgres || !rest.starts_with('$') || before.ends_with(is_letter) {
        return None;
    }
    let name = rest[1..].split_once('$')?.0;
    let is_name = name.chars().all(is_letter) && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name.then(|| &rest[..name.len() + 2])
}

/// What single quotes mean behind this text: PostgreSQL has a prefix for those with escapes.
fn literal(dialect: Dialect, before: &str) -> Place {
    let mut back = before.chars().rev();
    let prefixed =
        matches!(back.next(), Some('e' | 'E')) && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if dialect == Dialect::MySql || prefixed { Place::Escaped('\'') } else { Place::Literal }
}

/// How far a piece goes.
fn end(place: Place, is_block: bool, text: &str) -> usize {
    let quote = match place {
        Place::Comment if is_block => return text.find("*/").unwrap_or(text.len()),
        Place::Comment | Place::Bare => return text.find('\n').unwrap_or(text.len()),
        Place::Literal => '\'',
        Place::Escaped(quote) | Place::Identifier(quote) => quote,
    };
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if c == '\\' && matches!(place, Place::Escaped(_)) {
            characters.next();
        } else if c == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at;
        }
    }
    text.len()
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

/// Whether nothing is said, so that the kind's own statements are run.
pub(super) fn are_blank(statements: &[String]) -> bool {
    statements.iter().all(|statement| statement.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(dialect: Dialect, statement: &str, value: &str) -> Option<String> {
        fill(dialect, statement, &[("name", value)]).ok()
    }

    #[test]
    fn placeholders_are_filled_once_and_times_are_written_for_sql() {
        let values = [("name", "v-x"), ("password", "{{name}}")];
        let text = fill(Dialect::Postgres, "CREATE ROLE \"{{name}}\" PASSWORD '{{ password }}' {{other}}", &values);
        assert_eq!(text.unwrap(), "CREATE ROLE \"v-x\" PASSWORD '{{name}}' {{other}}");
        assert!(mentions("a {{ {{ password }}'", "password") && !mentions("password {{passwords}}", "password"));
        assert_eq!(expiration(Timestamp::from_unix(1_795_438_947)), "2026-11-23 13:02:27+0000");
    }

    #[test]
    fn statements_may_be_base64_or_json() {
        let of = |text: &str| written_out(&[text.to_owned()]);
        assert_eq!(of("SELECT 1; SELECT 2"), ["SELECT 1; SELECT 2"]);
        assert_eq!(of("U0VMRUNUIDE="), ["SELECT 1"]);
        assert_eq!(of("[\"SELECT 1\", \"SELECT 2\"]"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(of("WyJhIiwgImI7YyIsICIiXQ=="), ["a", "b;c"]);
        assert_eq!(of("[1]"), ["[1]"]);
        assert!(of(" ").is_empty());
    }

    #[test]
    fn sec_se03_a_value_is_quoted_for_the_place_where_it_stands() {
        use Dialect::{MySql, Postgres};
        for (dialect, statement, value, expected) in [
            (Postgres, "x '{{name}}'", "a'; b", Some("x 'a''; b'")),
            (Postgres, "x '{{name}}'", "a\\", None),
            (Postgres, "x E'{{name}}'", "a\\'", Some("x E'a\\\\'''")),
            (Postgres, "x \"{{name}}\"", "a\"b\\", Some("x \"a\"\"b\\\"")),
            (Postgres, "x {{name}}", "a_1", Some("x a_1")),
            (Postgres, "x {{name}}", "a; DROP", None),
            (Postgres, "x {{name}}", "a--b", None),
            (Postgres, "x 'it''s {{name}}' \"{{name}}\"", "'\"", Some("x 'it''s ''\"' \"'\"\"\"")),
            (Postgres, "-- it's\n'{{name}}'", "'", Some("-- it's\n''''")),
            (Postgres, "/* it's */ '{{name}}'", "'", Some("/* it's */ ''''")),
            (Postgres, "DO $$ x '{{name}}'; END $$ \"{{name}}\"", "a'", Some("DO $$ x 'a'''; END $$ \"a'\"")),
            (Postgres, "x $a$it's$a$ {{name}}", "a; b", None),
            (Postgres, "x $a$it's {{name}}$a$", "$a$", None),
            (Postgres, "x $$ '{{name}}$' $$", "a$", None),
            (Postgres, "x $$'{{name}}'$$", "S$4096:a$b", Some("x $$'S$4096:a$b'$$")),
            (MySql, "x /*! {{name}} */", "a; b", None),
            (MySql, "x '{{name}}'@'%'", "a\\'", Some("x 'a\\\\'''@'%'")),
            (MySql, "x '\\'{{name}}'", "'", Some("x '\\''''")),
            (MySql, "x \"{{name}}\"", "\"\\", Some("x \"\"\"\\\\\"")),
            (MySql, "x `{{name}}`", "`\\'", Some("x ```\\'`")),
            (MySql, "# it's\n'{{name}}'", "'", Some("# it's\n''''")),
        ] {
            assert_eq!(filled(dialect, statement, value).as_deref(), expected, "{statement} {value}");
        }
        for place in ["'{{name}}'", "\"{{name}}\"", "{{name}}", "E'{{name}}'"] {
            assert_eq!(filled(Postgres, place, "a\0b"), None);
            assert_eq!(filled(Postgres, place, ""), None);
        }
    }

    #[test]
    fn plain_values_have_nothing_that_ends_a_quote() {
        for value in ["a'b", "a\"b", "a\\b", "a`b", "a\nb", "a\0b", ""] {
            assert!(!plain(value), "{value:?}");
        }
        assert!(plain("v-token-ö-1.x@y:$ ;%--"));
    }
}
