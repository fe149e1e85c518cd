//! Entry points for fuzz targets: statements, templates, connection strings and schedules. Errors are those that
//! clients see.

use keepfast_framework::Timestamp;
use serde_json::Value;

use super::kinds::Kind;
use super::schedule::Schedule;
use super::statement::{self, Dialect, Statements};
use super::username::{self, NamePattern, TemplateData};

/// The SQL dialect of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sql {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
}

/// The statements that a role stores for the value of a request.
///
/// # Errors
/// When the value is not a list of statements, or exceeds a limit.
pub fn check_statements(value: Value) -> Result<Vec<String>, String> {
    let statements: Statements = serde_json::from_value(value).map_err(|error| error.to_string())?;
    statements.validated().map_err(|error| error.public().to_owned())
}

/// The statements to run, with the values of placeholders filled in.
///
/// # Errors
/// When a limit is exceeded, or a value is not allowed at its placeholder.
pub fn fill_statements(sql: Sql, stored: &[String], values: &[(&str, &str)]) -> Result<Vec<String>, String> {
    statement::filled(dialect(sql), stored, values).map_err(|error| error.text().to_owned())
}

/// The quoting context of each piece of a statement, by name: bare, in a literal, in an identifier, in a comment.
///
/// # Errors
/// When dollar quotes nest too deep.
pub fn places(sql: Sql, statement: &str) -> Result<Vec<String>, String> {
    let places = statement::places(dialect(sql), statement).map_err(|error| error.text().to_owned())?;
    Ok(places.iter().map(|place| format!("{place:?}")).collect())
}

fn dialect(sql: Sql) -> Dialect {
    match sql {
        Sql::Postgres => Dialect::Postgres,
        Sql::MySql => Dialect::MySql,
    }
}

/// The result of a `username_template` or a `common_name_template`, before truncation.
///
/// # Errors
/// When the template is invalid.
pub fn username(template: &str, display_name: &str, role: &str, now: Timestamp) -> Result<String, String> {
    username::fill(template, &TemplateData::new(display_name, role, now))
}

/// Whether a template can generate a name; `None` for a template without a recognizable pattern.
pub fn is_name_of_template(template: &str, name: &str) -> Option<bool> {
    NamePattern::of(template, usize::MAX).ok().map(|pattern| pattern.matches(name))
}

/// A `connection_url` in responses; `None` if it is masked completely.
///
/// # Errors
/// When there is no plugin of this name.
pub fn masked_connection_url(plugin: &str, url: &str) -> Result<Option<String>, String> {
    Kind::by_name(plugin).map(|kind| {
        // The check for the warning must accept the same texts.
        let _ = (kind.has_password)(url);
        (kind.masked_url)(url)
    })
}

/// The first time of a `rotation_schedule` after `at`; `None` if the calendar ends.
///
/// # Errors
/// When the schedule is invalid.
pub fn next_of_schedule(schedule: &str, at: Timestamp) -> Result<Option<Timestamp>, String> {
    Schedule::parse(schedule).map(|schedule| schedule.next(at))
}
