//! Positions in a text, and parse errors.

/// A position in a text. Lines and columns count from one, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The offset from the start of the text in bytes.
    pub offset: usize,
}

impl Position {
    /// The position of the first character.
    pub const START: Self = Self { line: 1, column: 1, offset: 0 };
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A text that does not parse, or a tree without the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("At {position}: {message}")]
pub struct HclError {
    /// The position of the error.
    pub position: Position,
    /// The message. It may quote names from the text, but no values.
    pub message: String,
}

impl HclError {
    /// An error at a position.
    pub fn new(position: Position, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}
