//! The syntax tree of both syntaxes.

use crate::{HclError, Position};

/// A parsed text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The syntax of the text.
    pub syntax: Syntax,
    /// Its items.
    pub body: Body,
}

/// The two syntaxes of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// HCL version 1.
    Hcl,
    /// JSON, in which nested objects are blocks.
    Json,
}

/// The items of a document, a block or an object, in source order and with repetitions.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The items.
    pub items: Vec<Item>,
    /// The position of the opening brace, or the start of the text.
    pub position: Position,
    /// The offset after the closing brace, or the length of the text.
    pub end: usize,
}

/// An attribute (`key = value`) or a block (`key "label" { … }`).
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The name, followed by a block's labels. Never empty.
    pub keys: Vec<Key>,
    /// The position of `=`; `None` for a block and in JSON.
    pub assign: Option<Position>,
    /// The value; an object for a block.
    pub value: Value,
}

/// A name or a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The name without quotes and escapes.
    pub name: String,
    /// The position of its first character.
    pub position: Position,
    /// The offset after its last character.
    pub end: usize,
    /// Whether it is quoted in the text.
    pub quoted: bool,
}

/// A value with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The kind with its content.
    pub kind: ValueKind,
    /// The position of its first character.
    pub position: Position,
    /// The offset after its last character.
    pub end: usize,
}

/// The kinds of values.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    /// JSON's `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer: decimal, octal (`017`) or hexadecimal (`0x1f`).
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
    /// Its items.
    pub body: &'a Body,
    /// The position of its name.
    pub position: Position,
}

impl Item {
    /// The first key.
    pub fn name(&self) -> &str {
        self.keys.first().map_or("", |key| key.name.as_str())
    }

    /// The position of the first key.
    pub fn position(&self) -> Position {
        self.keys.first().map_or(self.value.position, |key| key.position)
    }
}

impl Value {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let ValueKind::String(text) = &self.kind { Some(text) } else { None }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let ValueKind::Bool(value) = self.kind { Some(value) } else { None }
    }

    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        if let ValueKind::Integer(value) = self.kind { Some(value) } else { None }
    }

    /// The number, if it is an integer or a float.
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

    /// The name of its kind, for messages.
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
    /// The first item with this name.
    pub fn get(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name() == name)
    }

    /// All items with this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items.iter().filter(move |item| item.name() == name)
    }

    /// The first item whose keys (name and labels) equal those of an earlier one.
    pub fn repeated(&self) -> Option<&Item> {
        let mut seen = std::collections::HashSet::new();
        self.items.iter().find(|item| !seen.insert(item.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>()))
    }

    /// Every block with this name and `labels` labels: `name "label" { … }`, and the equivalent nested objects and lists of
    /// objects in JSON (`{"name": {"label": { … }}}`, `{"name": [{"label": [{ … }]}]}`).
    /// A block with more labels is returned with all of them.
    ///
    /// # Errors
    /// [`HclError`] when an item with this name does not have that form.
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
