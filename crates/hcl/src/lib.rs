//! HCL1, the configuration language of policies and server configuration, and its JSON form.
//!
//! [`parse`] reads either syntax and returns one tree. Every node has its line and column, and nothing is merged: a
//! repeated item is in the tree twice, so that a caller can refuse it. Interpolations (`${…}`) are plain text.
//! [`format()`] prints HCL in its canonical format with its comments.
//!
//! The grammar is that of HCL version 1 (<https://github.com/hashicorp/hcl/tree/hcl1>), not of the later HCL 2.

mod ast;
mod error;
mod format;
mod json;
mod lexer;
mod literal;
mod parse;
mod suggestion;

#[cfg(test)]
mod tests;

pub use ast::{Block, Body, Document, Item, Key, Syntax, Value, ValueKind};
pub use error::{HclError, Position};
pub use format::format;
pub use parse::{MAX_BYTES, MAX_DEPTH};
pub use suggestion::{Suggestion, nearest};

/// Parses a text: as JSON when its first non-blank character is `{`, otherwise as HCL.
///
/// # Errors
/// [`HclError`] with line and column when the text does not parse, is longer than [`MAX_BYTES`] or is nested deeper
/// than [`MAX_DEPTH`].
pub fn parse(text: &str) -> Result<Document, HclError> {
    if text.trim_start().starts_with('{') {
        json::parse(text)
    } else {
        parse::parse(text).map(|(document, _)| document)
    }
}
