//! Limits of templates and SQL statements, which clients write. Every parser of such a text checks these limits, when
//! the text is written and again when it is used, because a stored text may be older than a limit.

use std::fmt;

/// The longest template, in bytes.
pub const TEMPLATE_BYTES: usize = 4096;
/// The maximum number of steps of a pipeline: `{{ .RoleName | uppercase | truncate 8 }}` has three.
pub const PIPELINE_STEPS: usize = 32;
/// The maximum nesting depth of parentheses in a template.
pub const TEMPLATE_DEPTH: usize = 16;
/// The longest value of a template, in characters: its result and the result of each of its steps.
pub const VALUE_CHARACTERS: usize = 4096;
/// The longest statement, in bytes.
pub const STATEMENT_BYTES: usize = 64 * 1024;
/// The longest stored list of statements, in bytes.
pub const STATEMENTS_BYTES: usize = 256 * 1024;
/// The maximum number of statements in a list.
pub const STATEMENTS: usize = 1000;
/// The maximum nesting depth of dollar quotes in a statement.
pub const DOLLAR_QUOTE_DEPTH: usize = 8;

/// The limit that a text exceeds. The error text is for the client and contains no part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceedsLimit {
    /// [`TEMPLATE_BYTES`].
    TemplateBytes,
    /// [`PIPELINE_STEPS`].
    PipelineSteps,
    /// [`TEMPLATE_DEPTH`].
    TemplateDepth,
    /// [`VALUE_CHARACTERS`].
    ValueCharacters,
    /// [`STATEMENT_BYTES`].
    StatementBytes,
    /// [`STATEMENTS_BYTES`].
    StatementsBytes,
    /// [`STATEMENTS`].
    Statements,
    /// [`DOLLAR_QUOTE_DEPTH`].
    DollarQuoteDepth,
}

impl fmt::Display for ExceedsLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TemplateBytes => write!(f, "a template has at most {TEMPLATE_BYTES} bytes"),
            Self::PipelineSteps => write!(f, "a pipeline of a template has at most {PIPELINE_STEPS} steps"),
            Self::TemplateDepth => write!(f, "parentheses of a template nest at most {TEMPLATE_DEPTH} deep"),
            Self::ValueCharacters => write!(f, "a value of a template has at most {VALUE_CHARACTERS} characters"),
            Self::StatementBytes => write!(f, "a statement has at most {STATEMENT_BYTES} bytes"),
            Self::StatementsBytes => write!(f, "a list of statements has at most {STATEMENTS_BYTES} bytes"),
            Self::Statements => write!(f, "a list has at most {STATEMENTS} statements"),
            Self::DollarQuoteDepth => {
                write!(f, "dollar quotes of a statement nest at most {DOLLAR_QUOTE_DEPTH} deep")
            }
        }
    }
}

impl std::error::Error for ExceedsLimit {}

impl From<ExceedsLimit> for String {
    fn from(limit: ExceedsLimit) -> Self {
        limit.to_string()
    }
}

/// Refuses a template that is longer than [`TEMPLATE_BYTES`].
///
/// # Errors
/// [`ExceedsLimit::TemplateBytes`].
pub fn check_template(text: &str) -> Result<(), ExceedsLimit> {
    if text.len() > TEMPLATE_BYTES { Err(ExceedsLimit::TemplateBytes) } else { Ok(()) }
}

/// A value of a template under construction: it never grows beyond [`VALUE_CHARACTERS`].
#[derive(Debug, Default)]
pub struct TemplateValue {
    text: String,
    characters: usize,
}

impl TemplateValue {
    /// Appends a text.
    ///
    /// # Errors
    /// [`ExceedsLimit::ValueCharacters`]; the value is then unchanged.
    pub fn push_str(&mut self, text: &str) -> Result<(), ExceedsLimit> {
        let characters = self.characters + text.chars().count();
        if characters > VALUE_CHARACTERS {
            return Err(ExceedsLimit::ValueCharacters);
        }
        self.characters = characters;
        self.text.push_str(text);
        Ok(())
    }

    /// Appends a character.
    ///
    /// # Errors
    /// As [`TemplateValue::push_str`].
    pub fn push(&mut self, character: char) -> Result<(), ExceedsLimit> {
        self.push_str(character.encode_utf8(&mut [0; 4]))
    }

    /// The value.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Returns the value unchanged if it is not longer than [`VALUE_CHARACTERS`].
///
/// # Errors
/// [`ExceedsLimit::ValueCharacters`].
pub fn check_value(text: String) -> Result<String, ExceedsLimit> {
    if text.chars().count() > VALUE_CHARACTERS { Err(ExceedsLimit::ValueCharacters) } else { Ok(text) }
}

/// Replaces every `from` by `to`, as [`str::replace`] does, without building a result that is too long.
///
/// # Errors
/// [`ExceedsLimit::ValueCharacters`].
pub fn replace(text: &str, from: &str, to: &str) -> Result<String, ExceedsLimit> {
    let mut out = TemplateValue::default();
    let mut last = 0;
    for (at, found) in text.match_indices(from) {
        out.push_str(&text[last..at])?;
        out.push_str(to)?;
        last = at + found.len();
    }
    out.push_str(&text[last..])?;
    Ok(out.into_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_equals_the_standard_one_up_to_the_limit() {
        for (text, from, to) in [("aXbX", "X", "yy"), ("ab", "", "-"), ("ab", "c", "d"), ("", "", "x"), ("éé", "é", "")]
        {
            assert_eq!(replace(text, from, to).unwrap(), text.replace(from, to), "{text} {from} {to}");
        }
        let text = "a".repeat(VALUE_CHARACTERS);
        assert_eq!(replace(&text, "a", "b").unwrap(), "b".repeat(VALUE_CHARACTERS));
        assert_eq!(replace(&text, "a", "bb"), Err(ExceedsLimit::ValueCharacters));
        assert_eq!(replace(&text, "", "b"), Err(ExceedsLimit::ValueCharacters));
    }

    #[test]
    fn a_value_has_at_most_4096_characters() {
        let mut value = TemplateValue::default();
        value.push_str(&"é".repeat(VALUE_CHARACTERS)).unwrap();
        assert_eq!(value.push_str("x"), Err(ExceedsLimit::ValueCharacters));
        assert!(check_value(value.into_text()).is_ok());
        assert!(check_value("x".repeat(VALUE_CHARACTERS + 1)).is_err());
        assert!(check_template(&"x".repeat(TEMPLATE_BYTES)).is_ok());
        assert!(check_template(&"x".repeat(TEMPLATE_BYTES + 1)).is_err());
    }
}
