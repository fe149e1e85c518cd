//! Entry points for fuzz targets: statements, templates, connection strings and schedules. Errors are their public texts.

use keepfast_framework::Timestamp;
use serde_json::Value;

use super::kinds::Kind;
use super::schedule::Schedule;
use super::statement::{self, Dialect, Statements};
use super::username::{self, Form, Ingredients};

/// Whose SQL a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sql {
    /// PostgreSQL's.
    Postgres,
    /// MySQL's and MariaDB's.
    MySql,
}

/// The statements that a role stores for the value of a request.
///
/// # Errors
/// When the value is no list of statements, or exceeds a limit.
pub fn check_statements(value: Value) -> Result<Vec<String>, String> {
    let statements: Statements = serde_json::from_value(value).map_err(|error| error.to_string())?;
    statements.checked().map_err(|error| error.public().to_owned())
}

/// The statements to run, with the values of placeholders filled in.
///
/// # Errors
/// When a limit is exceeded, or a value cannot stand where its placeholder stands.
pub fn fill_statements(sql: Sql, stored: &[String], values: &[(&str, &str)]) -> Result<Vec<String>, String> {
    statement::filled(dialect(sql), stored, values).map_err(|error| error.text().to_owned())
}

/// Where each piece of a statement stands, by its name: bare, in a literal, in an identifier, in a comment.
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

/// The result of a `username_template` or a `common_name_template`, before its length is cut.
///
/// # Errors
/// What is wrong with the template.
pub fn username(template: &str, display_name: &str, role: &str, now: Timestamp) -> Result<String, String> {
    username::fill(template, &Ingredients::new(display_name, role, now))
}

/// Whether a name has the form of the names of a template; `None` where the template has no such form.
pub fn is_name_of_template(template: &str, name: &str) -> Option<bool> {
    Form::of(template, usize::MAX).ok().map(|form| form.fits(name))
}

/// A `connection_url` as answers show it; `None` where all of it is masked.
///
/// # Errors
/// When there is no plugin of this name.
pub fn masked_connection_url(plugin: &str, url: &str) -> Result<Option<String>, String> {
    Kind::of(plugin).map(|kind| {
        // Read for a warning at the same places.
        let _ = (kind.has_password)(url);
        (kind.masked_url)(url)
    })
}

/// The first time of a `rotation_schedule` after `at`; `None` where the calendar ends.
///
/// # Errors
/// What is wrong with the schedule.
pub fn next_of_schedule(schedule: &str, at: Timestamp) -> Result<Option<Timestamp>, String> {
    Schedule::parse(schedule).map(|schedule| schedule.next(at))
}
