//! Statements of roles. The value of a placeholder is quoted for its context in the statement, so no value can end a
//! literal or an identifier.

use keepfast_framework::Timestamp;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::Result as FrameworkResult;
use keepfast_framework::fields::Strings;
use keepfast_framework::text_limits::{
    DOLLAR_QUOTE_DEPTH, ExceedsLimit, STATEMENT_BYTES, STATEMENTS, STATEMENTS_BYTES,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::connection::DatabaseError;

/// The maximum length in bytes of a stored list of statements in use: sixteen times the limit for writes.
const STORED_BYTES: usize = 16 * STATEMENTS_BYTES;
/// The maximum depth of dollar quotes in a stored statement in use: four times the limit for writes.
const STORED_DEPTH: usize = 4 * DOLLAR_QUOTE_DEPTH;

/// Statements of a request: a list or one text; null and an empty text mean none.
pub(super) struct Statements(Vec<String>);

impl Statements {
    /// The validated statements for a record.
    ///
    /// # Errors
    /// 400 when they exceed a limit of [`keepfast_framework::text_limits`].
    pub(super) fn validated(self) -> FrameworkResult<Vec<String>> {
        check_limits(&self.0).map_err(DatabaseError::invalid)?;
        Ok(self.0)
    }
}

/// Checks the limits of writes. Stored statements may be older than these limits and stay usable up to [`STORED_BYTES`]
/// and [`STORED_DEPTH`].
///
/// # Errors
/// The exceeded limit.
pub(super) fn check_limits(stored: &[String]) -> Result<(), DatabaseError> {
    if stored.iter().map(String::len).sum::<usize>() > STATEMENTS_BYTES {
        return Err(ExceedsLimit::StatementsBytes.into());
    }
    // Empty statements count too, as the record stores them.
    let all: Vec<String> = stored.iter().flat_map(|text| each(text)).take(STATEMENTS + 1).collect();
    if all.len() > STATEMENTS {
        return Err(ExceedsLimit::Statements.into());
    }
    for statement in all {
        if statement.len() > STATEMENT_BYTES {
            return Err(ExceedsLimit::StatementBytes.into());
        }
        // Only PostgreSQL has dollar quotes; the connection, and so the dialect, may not exist yet.
        split((Dialect::Postgres, DOLLAR_QUOTE_DEPTH), &statement, None, &mut |_| Ok(()))?;
    }
    Ok(())
}

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

/// The statements to run. Each stored text may be base64, a JSON list of statements, or both (Vault, "Database secrets
/// engine API").
///
/// # Errors
/// When they exceed [`STORED_BYTES`].
pub(super) fn expanded(stored: &[String]) -> Result<Vec<String>, ExceedsLimit> {
    if stored.iter().map(String::len).sum::<usize>() > STORED_BYTES {
        return Err(ExceedsLimit::StatementsBytes);
    }
    let all = stored.iter().flat_map(|text| each(text));
    Ok(all.filter(|statement| !statement.trim().is_empty()).collect())
}

/// The statements of one stored text.
fn each(text: &str) -> Vec<String> {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = decoded.unwrap_or_else(|| text.to_owned());
    serde_json::from_str::<Vec<String>>(&text).unwrap_or_else(|_| vec![text])
}

/// The statements to run with the values of their placeholders.
///
/// # Errors
/// As [`expanded`] and [`fill`].
pub(super) fn filled(
    dialect: Dialect,
    stored: &[String],
    values: &[(&str, &str)],
) -> Result<Vec<String>, DatabaseError> {
    expanded(stored)?.iter().map(|statement| fill(dialect, statement, values)).collect()
}

/// The SQL dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
}

/// The quoting context of a piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Outside quotes.
    Bare,
    /// In single quotes, where a backslash is an ordinary character.
    Literal,
    /// In quotes where a backslash begins an escape.
    Escaped(char),
    /// In double quotes or backticks, where a doubled quote stands for itself.
    Identifier(char),
    Comment,
}

/// A piece of a statement with one context.
#[derive(Clone, Copy)]
struct Piece<'a> {
    place: Place,
    /// The innermost dollar quote around it; the text in one is parsed as a statement too.
    dollars: Option<&'a DollarQuote<'a>>,
    text: &'a str,
}

/// A dollar quote of PostgreSQL with the enclosing ones.
struct DollarQuote<'a> {
    /// With its dollar signs: `$body$`.
    tag: &'a str,
    around: Option<&'a DollarQuote<'a>>,
}

impl<'a> DollarQuote<'a> {
    /// This quote and the enclosing ones, innermost first.
    fn outwards(&'a self) -> impl Iterator<Item = &'a DollarQuote<'a>> {
        std::iter::successors(Some(self), |quote| quote.around)
    }
}

/// Inserts the values of placeholders such as `{{name}}`.
///
/// # Errors
/// When a value is not allowed in the context of its placeholder; the text names the placeholder. When dollar quotes
/// nest too deep.
fn fill(dialect: Dialect, statement: &str, values: &[(&str, &str)]) -> Result<String, DatabaseError> {
    let mut out = String::with_capacity(statement.len() + 64);
    split((dialect, STORED_DEPTH), statement, None, &mut |piece| {
        let mut rest = piece.text;
        while let Some(at) = rest.find("{{") {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let found = placeholder(&from[2..]).and_then(|(name, after)| {
                values.iter().find(|(known, _)| *known == name).map(|(name, value)| (*name, *value, after))
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
        Ok(())
    })?;
    Ok(out)
}

/// The contexts of a statement's pieces, in order, for the fuzz target.
///
/// # Errors
/// When dollar quotes nest too deep.
pub(super) fn places(dialect: Dialect, statement: &str) -> Result<Vec<Place>, DatabaseError> {
    let mut all = Vec::new();
    split((dialect, STORED_DEPTH), statement, None, &mut |piece| {
        all.push(piece.place);
        Ok(())
    })?;
    Ok(all)
}

/// Whether a statement has the placeholder of this name in any context.
pub(super) fn mentions(statement: &str, name: &str) -> bool {
    let found = |rest: &str| placeholder(rest).is_some_and(|(found, _)| found == name);
    statement.match_indices("{{").any(|(at, _)| found(&statement[at + 2..]))
}

/// The name of the placeholder whose `{{` ends here, and the text after it. The search ends at the next `{{`, so a
/// statement of braces costs time in proportion to its length.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let within = text.find("{{").map_or(text, |next| &text[..next]);
    let end = within.find("}}")?;
    Some((text[..end].trim(), &text[end + 2..]))
}

fn refusal(name: &str) -> DatabaseError {
    DatabaseError::new(format!(
        "the value of {{{{{name}}}}} has characters that are not allowed in the context of its placeholder"
    ))
}

/// A value quoted for the context of a piece; `None` if it is not allowed there.
fn quoted(piece: Piece<'_>, value: &str) -> Option<String> {
    let ends_dollars = |quote: &DollarQuote<'_>| {
        value.starts_with('$') || value.ends_with('$') || quote.outwards().any(|quote| value.contains(quote.tag))
    };
    if value.is_empty() || value.contains('\0') || piece.dollars.is_some_and(ends_dollars) {
        return None;
    }
    match piece.place {
        Place::Bare => value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| value.to_owned()),
        // A setting of the server decides whether a backslash is an ordinary character.
        Place::Literal => (!value.contains('\\')).then(|| value.replace('\'', "''")),
        Place::Escaped(quote) => Some(value.replace('\\', "\\\\").replace(quote, &format!("{quote}{quote}"))),
        Place::Identifier(quote) => Some(value.replace(quote, &format!("{quote}{quote}"))),
        Place::Comment => is_plain(value).then(|| value.replace("*/", "* /")),
    }
}

/// Calls `visit` with the pieces of a statement, or of the text in a dollar quote, in order. The quotes themselves are
/// bare.
///
/// An unclosed tag extends to the end, so each level parses its text once more than the enclosing one: the limit of the
/// depth bounds both time and stack.
///
/// # Errors
/// When dollar quotes nest deeper than `max_depth`, and the errors of `visit`.
// recursion: bounded by `max_depth`, at most STORED_DEPTH
fn split<V>(
    (dialect, max_depth): (Dialect, usize),
    statement: &str,
    dollars: Option<&DollarQuote<'_>>,
    visit: &mut V,
) -> Result<(), DatabaseError>
where
    V: FnMut(Piece<'_>) -> Result<(), DatabaseError>,
{
    if dollars.is_some_and(|quote| quote.outwards().count() > max_depth) {
        return Err(ExceedsLimit::DollarQuoteDepth.into());
    }
    let (mut started, mut at) = (0, 0);
    while let Some(c) = statement[at..].chars().next() {
        let (before, rest) = statement.split_at(at);
        if let Some(tag) = dollar_tag(dialect, before, rest) {
            let from = at + tag.len();
            let to = statement[from..].find(tag).map_or(statement.len(), |end| from + end);
            visit(Piece { place: Place::Bare, dollars, text: &statement[started..from] })?;
            let quote = DollarQuote { tag, around: dollars };
            split((dialect, max_depth), &statement[from..to], Some(&quote), visit)?;
            (started, at) = (to, (to + tag.len()).min(statement.len()));
            continue;
        }
        let Some((place, opening)) = opens(dialect, before, rest) else {
            at += c.len_utf8();
            continue;
        };
        let from = at + opening;
        let to = from + end(place, rest.starts_with("/*"), &statement[from..]);
        visit(Piece { place: Place::Bare, dollars, text: &statement[started..from] })?;
        visit(Piece { place, dollars, text: &statement[from..to] })?;
        // The end of a piece is one ASCII character, or two for some comments, whose second one has no meaning alone.
        (started, at) = (to, (to + 1).min(statement.len()));
    }
    visit(Piece { place: Place::Bare, dollars, text: &statement[started..] })
}

/// The context that begins here, and the length of its opening in bytes.
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
            // MySQL executes these comments.
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

/// The context of single quotes after this text: PostgreSQL has a prefix for those with escapes.
fn literal(dialect: Dialect, before: &str) -> Place {
    let mut back = before.chars().rev();
    let prefixed =
        matches!(back.next(), Some('e' | 'E')) && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if dialect == Dialect::MySql || prefixed { Place::Escaped('\'') } else { Place::Literal }
}

/// The length of a piece.
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

/// Whether a value is allowed in any literal and identifier: it has no quote, backslash, backtick or control character.
pub(super) fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(|c| matches!(c, '\'' | '"' | '\\' | '`' | '\0') || c.is_control())
}

/// An expiry in the format of databases: `2026-11-23 13:02:27+0000`.
pub(super) fn expiration(end: Timestamp) -> String {
    let text = end.rfc3339_seconds();
    format!("{}+0000", text.trim_end_matches('Z').replacen('T', " ", 1))
}

/// Whether there are no statements, so the default of the kind applies.
pub(super) fn are_blank(statements: &[String]) -> bool {
    statements.iter().all(|statement| statement.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled_with(dialect: Dialect, statement: &str, value: &str) -> Option<String> {
        fill(dialect, statement, &[("name", value)]).ok()
    }

    #[test]
    fn placeholders_are_replaced_once_and_times_formatted_for_sql() {
        let values = [("name", "v-x"), ("password", "{{name}}")];
        let text = fill(Dialect::Postgres, "CREATE ROLE \"{{name}}\" PASSWORD '{{ password }}' {{other}}", &values);
        assert_eq!(text.unwrap(), "CREATE ROLE \"v-x\" PASSWORD '{{name}}' {{other}}");
        assert!(mentions("a {{ {{ password }}'", "password") && !mentions("password {{passwords}}", "password"));
        assert_eq!(expiration(Timestamp::from_unix(1_795_438_947)), "2026-11-23 13:02:27+0000");
    }

    #[test]
    fn statements_may_be_base64_or_json() {
        let of = |text: &str| expanded(&[text.to_owned()]).unwrap();
        assert_eq!(of("SELECT 1; SELECT 2"), ["SELECT 1; SELECT 2"]);
        assert_eq!(of("U0VMRUNUIDE="), ["SELECT 1"]);
        assert_eq!(of("[\"SELECT 1\", \"SELECT 2\"]"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(of("WyJhIiwgImI7YyIsICIiXQ=="), ["a", "b;c"]);
        assert_eq!(of("[1]"), ["[1]"]);
        assert!(of(" ").is_empty());
    }

    /// Nested dollar quotes, each with a tag of its own and none closed.
    fn nested(count: usize) -> String {
        (0..count).fold("SELECT ".to_owned(), |text, n| text + &format!("$a{n}x$"))
    }

    #[test]
    fn sec_kf02_nested_dollar_quotes_are_refused_and_never_overflow() {
        let validated = |text: String| Statements(vec![text]).validated().map_err(|error| error.public().to_owned());
        let too_deep = "dollar quotes of a statement nest at most 8 deep";
        assert!(validated(nested(DOLLAR_QUOTE_DEPTH)).is_ok());
        assert_eq!(validated(nested(DOLLAR_QUOTE_DEPTH + 1)).unwrap_err(), too_deep);
        let base64 = STANDARD.encode(nested(9));
        assert_eq!(validated(base64).unwrap_err(), too_deep);
        let json = serde_json::to_string(&["SELECT 1".to_owned(), nested(9)]).unwrap();
        assert_eq!(validated(STANDARD.encode(&json)).unwrap_err(), too_deep);
        assert_eq!(validated(json).unwrap_err(), too_deep);
        // A statement of a record that is older than the limit.
        for (count, is_used) in [(9, true), (STORED_DEPTH, true), (33, false), (9000, false), (150_000, false)] {
            let one = [nested(count)];
            assert_eq!(filled(Dialect::Postgres, &one, &[("name", "x")]).is_ok(), is_used, "{count}");
            assert!(filled(Dialect::MySql, &one, &[("name", "x")]).is_ok());
        }
        assert!(fill(Dialect::Postgres, &"$".repeat(100_000), &[("name", "x")]).is_ok());
    }

    #[test]
    fn lists_of_statements_have_limits() {
        let refused =
            |all: Vec<String>| Statements(all).validated().map(drop).map_err(|error| error.public().to_owned());
        let a = |length: usize| "a".repeat(length);
        assert!(refused(vec![a(STATEMENT_BYTES); 4]).is_ok());
        assert_eq!(refused(vec![a(STATEMENT_BYTES + 1)]).unwrap_err(), "a statement has at most 65536 bytes");
        assert_eq!(
            refused(vec![a(STATEMENT_BYTES), a(STATEMENT_BYTES), a(STATEMENT_BYTES), a(STATEMENT_BYTES), a(1)])
                .unwrap_err(),
            "a list of statements has at most 262144 bytes"
        );
        assert!(refused(vec![a(1); STATEMENTS]).is_ok());
        // Stored statements stay usable, even if they exceed the limits of writes.
        assert_eq!(expanded(&vec![a(STATEMENT_BYTES + 1); 5]).unwrap().len(), 5);
        assert_eq!(expanded(&vec![a(1); STATEMENTS + 1]).unwrap().len(), STATEMENTS + 1);
        assert!(expanded(&vec![a(STATEMENTS_BYTES); 17]).is_err());
        for all in [vec![a(1); STATEMENTS + 1], vec![String::new(); STATEMENTS + 1]] {
            let json = serde_json::to_string(&all).unwrap();
            for given in [all, vec![STANDARD.encode(&json)], vec![json]] {
                assert_eq!(refused(given).unwrap_err(), "a list has at most 1000 statements");
            }
        }
    }

    #[test]
    fn unclosed_braces_cost_time_in_proportion_to_their_length() {
        for text in ["{{".repeat(50_000), "{{ ".repeat(30_000) + "}}"] {
            assert_eq!(fill(Dialect::Postgres, &text, &[("name", "x")]).unwrap(), text);
            assert!(!mentions(&text, "name"));
        }
        assert_eq!(filled_one("{{{{name}}}}"), "{{x}}");
    }

    fn filled_one(statement: &str) -> String {
        fill(Dialect::Postgres, statement, &[("name", "x")]).unwrap()
    }

    #[test]
    fn sec_se03_a_value_is_quoted_for_its_context() {
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
            (Postgres, "x $a$ $b$ '{{name}}' $b$ $a$", "x$b$x", None),
            (Postgres, "x $a$ $b$ '{{name}}' $b$ $a$", "x$a$x", None),
            (Postgres, "x $a$ $b$ $b$ '{{name}}' $a$", "x$b$x", Some("x $a$ $b$ $b$ 'x$b$x' $a$")),
            (Postgres, "x $$'{{name}}'$$", "S$4096:a$b", Some("x $$'S$4096:a$b'$$")),
            (MySql, "x /*! {{name}} */", "a; b", None),
            (MySql, "x '{{name}}'@'%'", "a\\'", Some("x 'a\\\\'''@'%'")),
            (MySql, "x '\\'{{name}}'", "'", Some("x '\\''''")),
            (MySql, "x \"{{name}}\"", "\"\\", Some("x \"\"\"\\\\\"")),
            (MySql, "x `{{name}}`", "`\\'", Some("x ```\\'`")),
            (MySql, "# it's\n'{{name}}'", "'", Some("# it's\n''''")),
        ] {
            assert_eq!(filled_with(dialect, statement, value).as_deref(), expected, "{statement} {value}");
        }
        for place in ["'{{name}}'", "\"{{name}}\"", "{{name}}", "E'{{name}}'"] {
            assert_eq!(filled_with(Postgres, place, "a\0b"), None);
            assert_eq!(filled_with(Postgres, place, ""), None);
        }
    }

    #[test]
    fn plain_values_cannot_end_a_quote() {
        for value in ["a'b", "a\"b", "a\\b", "a`b", "a\nb", "a\0b", ""] {
            assert!(!is_plain(value), "{value:?}");
        }
        assert!(is_plain("v-token-ö-1.x@y:$ ;%--"));
    }
}
