//! Showing answers: as a table for people, as JSON or YAML for programs, or one field of them.

mod json;
mod secret;
mod table;
mod text;
mod yaml;

use keepfast_client::{Secret, environment};
use serde_json::Value;

use crate::args::Words;
use crate::halt::{Halt, Outcome};
use crate::terminal;

pub(crate) use table::{columns, heading, with_header};
pub(crate) use text::{number as number_text, of_field as field_text, plain};

/// The forms an answer can take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
    /// The body as the server sent it.
    Raw,
}

/// How a command shows what it got.
pub(crate) struct Output {
    pub(crate) format: Format,
    field: Option<String>,
}

impl Output {
    /// After the flags, else the environment.
    pub(crate) fn new(command: &str, words: &Words) -> Result<Self, Halt> {
        let named =
            words.text("format").map(str::to_owned).or_else(|| environment::variable("FORMAT").map(|(_, value)| value));
        let format = match named.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("table") => Format::Table,
            Some("json") => Format::Json,
            Some("yaml" | "yml") => Format::Yaml,
            Some("raw") if command == "read" => Format::Raw,
            Some("raw") => return Err(Halt::usage("This command does not support the -format=raw option.")),
            Some(_) => return Err(Halt::usage(format!("Invalid output format: {}", named.unwrap_or_default()))),
        };
        Ok(Self { format, field: words.text("field").map(str::to_owned) })
    }

    /// Whether people read it.
    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// The one field that was asked for.
    pub(crate) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Shows an answer, or the field of it that was asked for.
    pub(crate) fn secret(&self, secret: &Secret) -> Outcome {
        if let Some(name) = self.field() {
            let value = secret::field(secret, name)
                .ok_or_else(|| Halt::usage(format!("Field \"{name}\" not present in secret")))?;
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

    /// Shows a field of a map, which `what` calls in the message.
    pub(crate) fn field_of(&self, map: &serde_json::Map<String, Value>, name: &str, what: &str) -> Outcome {
        let value = map.get(name).filter(|value| !value.is_null());
        let value = value.ok_or_else(|| Halt::usage(format!("Field \"{name}\" not present in {what}")))?;
        self.bare(value);
        Ok(0)
    }

    /// Shows a value alone, for a script.
    pub(crate) fn bare(&self, value: &Value) {
        match self.format {
            Format::Json => terminal::raw(&json::pretty(&sorted(value))),
            Format::Yaml => terminal::print(&yaml::document(value)),
            Format::Table | Format::Raw => terminal::raw(&plain(value)),
        }
    }

    /// Shows JSON or YAML whose fields have an order of their own.
    pub(crate) fn document(&self, value: Value) {
        match self.format {
            Format::Yaml => terminal::print(&yaml::document(&value)),
            _ => terminal::line(&json::pretty(&value)),
        }
    }

    /// Shows names, one a line under `title`.
    pub(crate) fn names(&self, title: &str, names: &[String]) {
        if self.is_table() {
            let rows: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
            terminal::line(&with_header(&[title], &rows));
        } else {
            self.document(Value::from(names));
        }
    }

    /// Shows what the server remarked, on stderr.
    pub(crate) fn warnings(&self, secret: &Secret) {
        let warnings = secret.warnings.as_deref().unwrap_or_default();
        if warnings.is_empty() {
            return;
        }
        let mut shown = "WARNING! The following warnings were returned from the server:\n".to_owned();
        for warning in warnings {
            shown.push_str(&format!("\n{}\n", text::bullet(warning)));
        }
        terminal::warning(&shown);
    }

    /// Says that something worked, to people only.
    pub(crate) fn success(&self, text: &str) {
        if self.is_table() {
            terminal::success(text);
        }
    }
}

/// The same value with the keys of its maps in order.
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
