//! One stanza: typed access with the leniencies of Vault, and a record of the keys that were read.

use std::time::Duration;

use keepfast_framework::fields::parse_duration;
use keepfast_hcl::{Body, Document, Item, Position, Suggestion, Value, ValueKind};

use super::address_template;
use super::error::{ConfigError, Warning};

/// One parsed file.
pub(super) struct Source {
    /// The path, for messages.
    pub(super) file: String,
    document: Document,
}

impl Source {
    pub(super) fn parse(file: String, text: &str) -> Result<Self, ConfigError> {
        let document = keepfast_hcl::parse(text).map_err(|e| ConfigError::At {
            file: file.clone(),
            position: e.position,
            message: e.message,
        })?;
        Ok(Source { file, document })
    }

    /// The outermost level.
    pub(super) fn root(&self) -> Stanza<'_> {
        Stanza::new(&self.file, &self.document.body)
    }
}

/// A body in use. Each accessor records its key; [`Stanza::finish`] warns of the others.
pub(super) struct Stanza<'a> {
    file: &'a str,
    body: &'a Body,
    known: Vec<&'static str>,
}

/// A labelled block and its body.
pub(super) struct Labelled<'a> {
    pub(super) labels: Vec<&'a str>,
    pub(super) position: Position,
    pub(super) stanza: Stanza<'a>,
}

impl<'a> Stanza<'a> {
    fn new(file: &'a str, body: &'a Body) -> Self {
        Stanza { file, body, known: Vec::new() }
    }

    /// The path of the file.
    pub(super) fn file(&self) -> &'a str {
        self.file
    }

    /// An error at a position of this file.
    pub(super) fn fault(&self, position: Position, message: impl Into<String>) -> ConfigError {
        ConfigError::At { file: self.file.to_owned(), position, message: message.into() }
    }

    /// The only item of this name; two are refused, because it would be ambiguous which one applies.
    pub(super) fn item(&mut self, key: &'static str) -> Result<Option<&'a Item>, ConfigError> {
        self.known.push(key);
        let mut all = self.body.all(key);
        let first = all.next();
        match all.next() {
            Some(second) => Err(self.fault(second.position(), format!("{key} is set twice"))),
            None => Ok(first),
        }
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(item) = self.item(key)? else { return Ok(None) };
        if item.keys.len() > 1 {
            return Err(self.fault(item.position(), format!("{key} must be {expected}, not a block")));
        }
        if matches!(item.value.kind, ValueKind::Null) {
            return Ok(None);
        }
        match read(&item.value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.fault(item.value.position, format!("{key} must be {expected}"))),
        }
    }

    /// A string; numbers and booleans are converted to text.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        self.read(key, "a string", scalar)
    }

    /// An address or URL, with its templates expanded.
    pub(super) fn address(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let expanded = address_template::expand(&text);
        expanded.map(Some).map_err(|error| self.fault(self.position(key), format!("{key}: {error}")))
    }

    /// Whether the stanza has an item of this name. Does not count as read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.body.all(key).next().is_some()
    }

    /// The position of the first item of this name; the start of the file when there is none.
    pub(super) fn position(&self, key: &str) -> Position {
        self.body.all(key).next().map_or(Position::START, Item::position)
    }

    /// A boolean, also as a string or number.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", |v| match scalar(v)?.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        })
    }

    /// An integer, also as a string.
    pub(super) fn integer(&mut self, key: &'static str) -> Result<Option<i64>, ConfigError> {
        self.read(key, "a whole number", |v| scalar(v)?.trim().parse().ok())
    }

    /// A number of bytes: `33554432`, `"32MiB"`, `"32mb"`. Both families of units are binary, as in Vault.
    pub(super) fn size(&mut self, key: &'static str) -> Result<Option<i64>, ConfigError> {
        self.read(key, "a number of bytes", |v| parse_size(&scalar(v)?))
    }

    /// A duration: seconds, or Go's syntax with days.
    pub(super) fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, ConfigError> {
        self.read(key, "a duration such as \"30s\"", |v| {
            let seconds = parse_duration(scalar(v)?.trim()).ok()?;
            u64::try_from(seconds).ok().map(Duration::from_secs)
        })
    }

    /// A list of strings, also as one string with commas.
    pub(super) fn list(&mut self, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        self.read(key, "a list of strings", |v| match &v.kind {
            ValueKind::List(items) => items.iter().map(scalar).collect(),
            _ => Some(scalar(v)?.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect()),
        })
    }

    /// The one unlabelled block or object of this name.
    pub(super) fn object(&mut self, key: &'static str) -> Result<Option<Stanza<'a>>, ConfigError> {
        let Some(item) = self.item(key)? else { return Ok(None) };
        // JSON from programs wraps a single block in a list of one.
        let value = match item.value.as_list() {
            Some([only]) => only,
            _ => &item.value,
        };
        match value.as_object() {
            Some(body) if item.keys.len() == 1 => Ok(Some(Stanza::new(self.file, body))),
            _ => Err(self.fault(item.position(), format!("{key} must be a block without labels"))),
        }
    }

    /// Every block of this name with this number of labels, in order.
    pub(super) fn blocks(&mut self, key: &'static str, labels: usize) -> Result<Vec<Labelled<'a>>, ConfigError> {
        self.known.push(key);
        let file = self.file;
        let found = self.body.blocks(key, labels).map_err(|e| self.fault(e.position, e.message))?;
        Ok(found
            .into_iter()
            .map(|b| Labelled {
                labels: b.labels.iter().map(|k| k.name.as_str()).collect(),
                position: b.position,
                stanza: Stanza::new(file, b.body),
            })
            .collect())
    }

    /// All items as name and text, for maps of options; nested values are refused.
    pub(super) fn pairs(self) -> Result<Vec<(String, String)>, ConfigError> {
        self.body
            .items
            .iter()
            .map(|item| match scalar(&item.value) {
                Some(text) if item.keys.len() == 1 => Ok((item.name().to_owned(), text)),
                _ => Err(self.fault(item.position(), format!("{} must be a string", item.name()))),
            })
            .collect()
    }

    /// The items, for shapes that no accessor has; they count as known.
    pub(super) fn items(&self) -> impl Iterator<Item = &'a Item> + use<'a> {
        self.body.items.iter()
    }

    /// Records keys of Vault that have no effect here, with a warning for each one that is set.
    pub(super) fn without_effect(&mut self, keys: &[&'static str], warnings: &mut Vec<Warning>) {
        self.without_effect_because("", keys, warnings);
    }

    /// Like [`Self::without_effect`], with a reason such as ` on a unix listener`.
    pub(super) fn without_effect_because(&mut self, why: &str, keys: &[&'static str], warnings: &mut Vec<Warning>) {
        for &key in keys {
            self.known.push(key);
            for item in self.body.all(key) {
                warnings.push(self.warning(item.position(), format!("{key} has no effect in Keepfast{why}")));
            }
        }
    }

    /// A warning at a position of this file.
    pub(super) fn warning(&self, position: Position, message: impl Into<String>) -> Warning {
        Warning { file: self.file.to_owned(), position, message: message.into() }
    }

    /// Warns of every key that was not read.
    pub(super) fn finish(self, warnings: &mut Vec<Warning>) {
        for item in self.unknown() {
            warnings.push(self.warning(item.position(), self.unknown_message("field", item)));
        }
    }

    /// Like [`Self::finish`], for the top level, where an unknown block is an error: a server without its listener or
    /// its audit device must not start.
    ///
    /// # Errors
    /// The first unknown block, with the most similar known name.
    pub(super) fn finish_root(self, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
        if let Some(item) = self.unknown().find(|item| is_block(item)) {
            return Err(self.fault(item.position(), self.unknown_message("block", item)));
        }
        self.finish(warnings);
        Ok(())
    }

    fn unknown(&self) -> impl Iterator<Item = &'a Item> {
        self.body.items.iter().filter(|item| !self.known.contains(&item.name()))
    }

    fn unknown_message(&self, what: &str, item: &Item) -> String {
        let suggestion = Suggestion::of(item.name(), &self.known);
        format!("unknown or unsupported {what} {} found in configuration{suggestion}", item.name())
    }
}

/// Whether an item is a block: in HCL with labels or a body, in JSON an object or a list of objects.
fn is_block(item: &Item) -> bool {
    let is_object = |value: &Value| value.as_object().is_some();
    let is_list = item.value.as_list().is_some_and(|list| !list.is_empty() && list.iter().all(is_object));
    item.keys.len() > 1 || is_object(&item.value) || is_list
}

/// The text of a string, number or boolean.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Bool(b) => Some(b.to_string()),
        ValueKind::Integer(n) => Some(n.to_string()),
        ValueKind::Float(n) => Some(n.to_string()),
        ValueKind::Null | ValueKind::List(_) | ValueKind::Object(_) => None,
    }
}

/// Parses a number of bytes with an optional unit.
fn parse_size(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let scale = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    number.trim().parse::<i64>().ok()?.checked_mul(scale)
}
