//! The values of a stanza: literals, and values that are read from a source when the request runs.

use keepfast_crypto::secret::SecretString;

use super::convert::convert;
use super::history::History;
use super::plan::SourceValues;
use super::text::{Pieced, quoted};

/// A value of a stanza.
pub enum PlannedValue {
    /// A JSON text.
    Literal(SecretString),
    /// A list.
    List(Vec<PlannedValue>),
    /// An object; its names are different.
    Map(Vec<(String, PlannedValue)>),
    /// A value that exists when the request runs.
    Source(Source),
}

/// A value from elsewhere (`eval_source`), with its type.
pub struct Source {
    /// Where it is from.
    pub kind: SourceKind,
    /// The type to which it is converted (`eval_type`).
    pub as_type: ValueType,
}

/// Where a value is from.
#[derive(Debug)]
pub enum SourceKind {
    /// `env`: a variable of the environment.
    Env {
        /// Its name.
        variable: String,
        /// Whether it must be set; otherwise it is empty.
        required: bool,
    },
    /// `file`: the content of a file.
    File {
        /// Its path.
        path: String,
    },
    /// `request`: a field of an earlier request.
    Request {
        /// The names of the stanza and the request, with a dot between them.
        of: String,
        /// The names of the field, outermost first.
        field: Vec<String>,
    },
    /// `response`: a field of the response to an earlier request.
    Response {
        /// The names of the stanza and the request, with a dot between them.
        of: String,
        /// The names of the field, outermost first.
        field: Vec<String>,
    },
}

/// A type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// `string`
    String,
    /// `int`
    Int,
    /// `float64`
    Float,
    /// `bool`
    Bool,
    /// `[]string`
    Strings,
    /// `map`
    Map,
    /// `any`: as it is.
    Any,
}

impl ValueType {
    /// The types by their names in a configuration.
    pub const NAMES: [(&'static str, ValueType); 9] = [
        ("string", ValueType::String),
        ("int", ValueType::Int),
        ("float64", ValueType::Float),
        ("bool", ValueType::Bool),
        ("[]string", ValueType::Strings),
        ("map", ValueType::Map),
        ("map[string]interface{}", ValueType::Map),
        ("any", ValueType::Any),
        ("interface{}", ValueType::Any),
    ];

    /// The type of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| *name)
    }
}

/// What the values of a request are evaluated with.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) sources: &'a SourceValues,
    pub(super) history: &'a History,
}

impl PlannedValue {
    /// A literal text.
    pub fn text(text: &str) -> Self {
        PlannedValue::Literal(quoted(text))
    }

    /// Its JSON text. The error names sources and contains no values.
    pub(super) fn evaluate(&self, inputs: Inputs<'_>) -> Result<SecretString, String> {
        let mut out = Pieced::default();
        self.write(inputs, &mut out)?;
        Ok(out.joined())
    }

    // recursion: bounded by the depth of the parser of the configuration
    fn write(&self, inputs: Inputs<'_>, out: &mut Pieced) -> Result<(), String> {
        match self {
            PlannedValue::Literal(json) => out.push(json.clone()),
            PlannedValue::Source(source) => out.push(source.evaluate(inputs)?),
            PlannedValue::List(values) => {
                out.punctuation("[");
                let mut separator = "";
                for value in values {
                    out.punctuation(separator);
                    separator = ",";
                    value.write(inputs, out)?;
                }
                out.punctuation("]");
            }
            PlannedValue::Map(entries) => {
                out.punctuation("{");
                for (at, (name, value)) in entries.iter().enumerate() {
                    out.punctuation(if at > 0 { "," } else { "" });
                    out.push(quoted(name));
                    out.punctuation(":");
                    value.write(inputs, out).map_err(|why| format!("{name}: {why}"))?;
                }
                out.punctuation("}");
            }
        }
        Ok(())
    }

    /// Calls `visit` with every source in it.
    // recursion: bounded by the depth of the parser of the configuration
    pub(super) fn each_source<'a>(&'a self, visit: &mut dyn FnMut(&'a Source)) {
        match self {
            PlannedValue::Literal(_) => {}
            PlannedValue::Source(source) => visit(source),
            PlannedValue::List(values) => values.iter().for_each(|value| value.each_source(visit)),
            PlannedValue::Map(entries) => entries.iter().for_each(|(_, value)| value.each_source(visit)),
        }
    }

    /// Calls `visit` with texts that no other value has.
    // recursion: bounded by the depth of the parser of the configuration
    pub(super) fn describe(&self, visit: &mut dyn FnMut(&str)) {
        match self {
            PlannedValue::Literal(json) => ["literal", json.expose()].into_iter().for_each(visit),
            PlannedValue::Source(source) => {
                visit(&format!("source {} {:?}", source.as_type.name(), source.kind));
            }
            PlannedValue::List(values) => {
                visit(&format!("list {}", values.len()));
                values.iter().for_each(|value| value.describe(visit));
            }
            PlannedValue::Map(entries) => {
                visit(&format!("map {}", entries.len()));
                for (name, value) in entries {
                    visit(name);
                    value.describe(visit);
                }
            }
        }
    }
}

impl Source {
    fn evaluate(&self, inputs: Inputs<'_>) -> Result<SecretString, String> {
        let of_earlier = |of: &str, why: String| format!("{of}: {why}");
        let found = match &self.kind {
            SourceKind::Env { variable, .. } => quoted(inputs.sources.variable(variable)),
            SourceKind::File { path } => {
                quoted(inputs.sources.file(path).ok_or_else(|| format!("{path} was not read"))?)
            }
            SourceKind::Request { of, field } => {
                inputs.history.of_request(of, field).map_err(|why| of_earlier(of, why))?
            }
            SourceKind::Response { of, field } => {
                inputs.history.of_response(of, field).map_err(|why| of_earlier(of, why))?
            }
        };
        convert(found.expose(), self.as_type)
            .ok_or_else(|| format!("the value of {} cannot be converted to {}", self.kind.name(), self.as_type.name()))
    }
}

impl SourceKind {
    /// What it is, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            SourceKind::Env { variable, .. } => format!("the environment variable {variable}"),
            SourceKind::File { path } => format!("the file {path}"),
            SourceKind::Request { of, field } => format!("{} of the request {of}", field.join(".")),
            SourceKind::Response { of, field } => format!("{} of the response to {of}", field.join(".")),
        }
    }
}
