//! The tree that both syntaxes give.

use crate::{HclError, Position};

/// A whole text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// How the text was written.
    pub syntax: Syntax,
    /// Its items.
    pub body: Body,
}

/// The two ways to write the same tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// HCL version 1.
    Hcl,
    /// JSON, where nested objects stand for blocks.
    Json,
}

/// The items of a document, a block or an object, in the order written and with repetitions.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The items.
    pub items: Vec<Item>,
    /// The opening brace, or the start of the text.
    pub position: Position,
    /// The offset behind the closing brace, or the length of the text.
    pub end: usize,
}

/// An attribute (`key = value`) or a block (`key "label" { … }`).
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The name, then a block's labels. Never empty.
    pub keys: Vec<Key>,
    /// Where `=` stands; none for a block and in JSON.
    pub assign: Option<Position>,
    /// What it is set to; an object for a block.
    pub value: Value,
}

/// A name or a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The name without quotes and escapes.
    pub name: String,
    /// Where it starts.
    pub position: Position,
    /// The offset behind it.
    pub end: usize,
    /// Whether it was written in quotes.
    pub quoted: bool,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// What it is.
    pub kind: ValueKind,
    /// Where it starts.
    pub position: Position,
    /// The offset behind it.
    pub end: usize,
}

/// What a value can be.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    /// JSON's `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number: decimal, octal (`017`) or hexadecimal (`0x1f`).
    Integer(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// A string or heredoc.
    String(String),
    /// `[ … ]`
    List(Vec<Value>),
    /// `{ … }`
    Object(Body),
}

/// A block found by [`Body::blocks`].
#[derive(Debug, Clone, PartialEq)]
pub struct Block<'a> {
    /// Its labels, outermost first.
    pub labels: Vec<&'a Key>,
    /// What it holds.
    pub body: &'a Body,
    /// Where its name stands.
    pub position: Position,
}

impl Item {
    /// The first key.
    pub fn name(&self) -> &str {
        self.keys.first().map_or("", |key| key.name.as_str())
    }

    /// Where the first key stands.
    pub fn position(&self) -> Position {
        self.keys.first().map_or(self.value.position, |key| key.position)
    }
}

impl Value {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let ValueKind::String(text) = &self.kind { Some(text) } else { None }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let ValueKind::Bool(value) = self.kind { Some(value) } else { None }
    }

    /// The whole number, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        if let ValueKind::Integer(value) = self.kind { Some(value) } else { None }
    }

    /// The number, whole or not.
    pub fn as_float(&self) -> Option<f64> {
        match self.kind {
            ValueKind::Float(value) => Some(value),
            #[allow(clippy::cast_precision_loss)]
            ValueKind::Integer(value) => Some(value as f64),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let ValueKind::List(list) = &self.kind { Some(list) } else { None }
    }

    /// The items, if it is an object.
    pub fn as_object(&self) -> Option<&Body> {
        if let ValueKind::Object(body) = &self.kind { Some(body) } else { None }
    }

    /// A word for its kind, for messages.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            ValueKind::Null => "null",
            ValueKind::Bool(_) => "bool",
            ValueKind::Integer(_) => "integer",
            ValueKind::Float(_) => "float",
            ValueKind::String(_) => "string",
            ValueKind::List(_) => "list",
            ValueKind::Object(_) => "object",
        }
    }
}

impl Body {
    /// The first item of this name.
    pub fn get(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name() == name)
    }

    /// Every item of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items.iter().filter(move |item| item.name() == name)
    }

    /// The first item whose keys (name and labels alike) repeat those of an earlier one.
    pub fn repeated(&self) -> Option<&Item> {
        let mut seen = std::collections::HashSet::new();
        self.items.iter().find(|item| !seen.insert(item.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>()))
    }

    /// Every block of this name with `labels` labels: `name "label" { … }`, and the nested objects and lists of
    /// objects that say the same in JSON (`{"name": {"label": { … }}}`, `{"name": [{"label": [{ … }]}]}`).
    /// A block written with more labels than asked for is returned with all of them.
    ///
    /// # Errors
    /// [`HclError`] when something of this name is not of that form.
    pub fn blocks(&self, name: &str, labels: usize) -> Result<Vec<Block<'_>>, HclError> {
        let mut found = Vec::new();
        for item in self.items.iter().filter(|item| item.name() == name) {
            let given = item.keys.iter().skip(1).collect();
            collect(item.position(), given, labels, &item.value, &mut found)?;
        }
        Ok(found)
    }
}

// recursion: bounded by MAX_DEPTH of the parser
fn collect<'a>(
    position: Position,
    given: Vec<&'a Key>,
    labels: usize,
    value: &'a Value,
    found: &mut Vec<Block<'a>>,
) -> Result<(), HclError> {
    match &value.kind {
        ValueKind::Object(body) if given.len() >= labels => found.push(Block { labels: given, body, position }),
        ValueKind::Object(body) => {
            for item in &body.items {
                let given = given.iter().copied().chain(&item.keys).collect();
                collect(position, given, labels, &item.value, found)?;
            }
        }
        ValueKind::List(list) => {
            for value in list {
                collect(value.position, given.clone(), labels, value, found)?;
            }
        }
        _ => {
            return Err(HclError::new(
                value.position,
                format!("expected a block with {labels} labels, got {}", value.type_name()),
            ));
        }
    }
    Ok(())
}
