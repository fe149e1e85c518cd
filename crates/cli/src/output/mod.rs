//! Output of responses: a table, JSON, YAML, or one field.

mod json;
mod secret;
mod table;
mod text;
mod yaml;

use keepfast_client::{Secret, environment};
use serde_json::Value;

use crate::args::Words;
use crate::command_error::{CommandError, Outcome};
use crate::terminal;

pub(crate) use table::{columns, heading, with_header};
pub(crate) use text::{number as number_text, of_field as field_text, plain};

/// The output formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
    /// The body from the server, unchanged.
    Raw,
}

/// The output settings of a command.
pub(crate) struct Output {
    pub(crate) format: Format,
    field: Option<String>,
}

impl Output {
    /// Reads the flags, else the environment.
    pub(crate) fn new(command: &str, words: &Words) -> Result<Self, CommandError> {
        let named =
            words.text("format").map(str::to_owned).or_else(|| environment::variable("FORMAT").map(|(_, value)| value));
        let format = match named.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("table") => Format::Table,
            Some("json") => Format::Json,
            Some("yaml" | "yml") => Format::Yaml,
            Some("raw") if command == "read" => Format::Raw,
            Some("raw") => return Err(CommandError::usage("This command does not support the -format=raw option.")),
            Some(_) => {
                return Err(CommandError::usage(format!("Invalid output format: {}", named.unwrap_or_default())));
            }
        };
        Ok(Self { format, field: words.text("field").map(str::to_owned) })
    }

    /// Whether the format is the table, which is for people.
    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// The requested field, if any.
    pub(crate) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Prints a response, or the requested field of it.
    pub(crate) fn secret(&self, secret: &Secret) -> Outcome {
        if let Some(name) = self.field() {
            let value = secret::field(secret, name)
                .ok_or_else(|| CommandError::usage(format!("Field \"{name}\" not present in secret")))?;
            self.bare(&value);
            return Ok(0);
        }
        if self.is_table() {
            self.warnings(secret);
            let rows = secret::rows(secret);
            if !rows.is_empty() {
                terminal::line(&with_header(&["Key", "Value"], &rows));
            }
        } else {
            self.document(secret::document(secret));
        }
        Ok(0)
    }

    /// Prints a field of a map; the error message calls the map `what`.
    pub(crate) fn field_of(&self, map: &serde_json::Map<String, Value>, name: &str, what: &str) -> Outcome {
        let value = map.get(name).filter(|value| !value.is_null());
        let value = value.ok_or_else(|| CommandError::usage(format!("Field \"{name}\" not present in {what}")))?;
        self.bare(value);
        Ok(0)
    }

    /// Prints only a value, for a script.
    pub(crate) fn bare(&self, value: &Value) {
        match self.format {
            Format::Json => terminal::raw(&json::pretty(&sorted(value))),
            Format::Yaml => terminal::print(&yaml::document(value)),
            Format::Table | Format::Raw => terminal::raw(&plain(value)),
        }
    }

    /// Prints JSON or YAML whose fields are already in order.
    pub(crate) fn document(&self, value: Value) {
        match self.format {
            Format::Yaml => terminal::print(&yaml::document(&value)),
            _ => terminal::line(&json::pretty(&value)),
        }
    }

    /// Prints names, one per line under `title`.
    pub(crate) fn names(&self, title: &str, names: &[String]) {
        if self.is_table() {
            let rows: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
            terminal::line(&with_header(&[title], &rows));
        } else {
            self.document(Value::from(names));
        }
    }

    /// Prints the warnings of the server on stderr.
    pub(crate) fn warnings(&self, secret: &Secret) {
        let warnings = secret.warnings.as_deref().unwrap_or_default();
        if warnings.is_empty() {
            return;
        }
        let mut text = "WARNING! The following warnings were returned from the server:\n".to_owned();
        for warning in warnings {
            text.push_str(&format!("\n{}\n", text::bullet(warning)));
        }
        terminal::warning(&text);
    }

    /// Prints a success message, in the table format only.
    pub(crate) fn success(&self, text: &str) {
        if self.is_table() {
            terminal::success(text);
        }
    }
}

/// The same value with sorted keys in its maps.
// recursion: bounded by serde_json, which reads 128 levels
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
