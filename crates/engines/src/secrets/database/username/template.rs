//! User name templates: the part of Go's `text/template` that generates names. Literals, fields, function calls, pipes,
//! parentheses, comments and trim markers; no branches, loops or variables.

use keepfast_framework::text_limits::{ExceedsLimit, PIPELINE_STEPS, TEMPLATE_DEPTH, TemplateValue, check_template};

use super::TemplateData;
use super::functions::{self, FUNCTIONS};

/// A parsed template.
#[derive(Debug)]
pub(super) struct Template<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Debug)]
enum Part<'a> {
    Text(&'a str),
    Action(Pipeline<'a>),
}

/// Commands, each of which gets the result of the previous one as its last argument.
#[derive(Debug)]
struct Pipeline<'a> {
    commands: Vec<Command<'a>>,
}

/// Words with their source text, for errors.
#[derive(Debug)]
struct Command<'a> {
    words: Vec<Word<'a>>,
}

#[derive(Debug)]
struct Word<'a> {
    kind: WordKind<'a>,
    text: &'a str,
    /// Line, from 1, and column, from 0, as in Go.
    at: (usize, usize),
}

#[derive(Debug)]
enum WordKind<'a> {
    Field(&'a str),
    Function(&'a str),
    Text(String),
    Number(i64),
    Nested(Pipeline<'a>),
}

/// An intermediate value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl Value {
    /// The value as text.
    pub(super) fn text(self) -> String {
        match self {
            Value::Text(text) => text,
            Value::Number(number) => number.to_string(),
        }
    }
}

impl<'a> Template<'a> {
    /// Parses a template.
    ///
    /// # Errors
    /// Syntax errors in Go's words, or the exceeded limit of [`keepfast_framework::text_limits`].
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        check_template(text)?;
        let mut parts = Vec::new();
        let mut rest = text;
        let mut trims = false;
        while let Some(begin) = rest.find("{{") {
            let (before, action) = (&rest[..begin], &rest[begin + 2..]);
            let offset = text.len() - action.len();
            let end = end_of(action).ok_or_else(|| error(text, offset, "unclosed action"))?;
            let (inner, trims_before, trims_after) = trimmed(&action[..end]);
            parts.push(Part::Text(between(before, trims, trims_before)));
            trims = trims_after;
            if !(inner.trim().starts_with("/*") && inner.trim().ends_with("*/")) {
                let mut reader = Parser {
                    template: text,
                    rest: inner,
                    offset: offset + (inner.as_ptr() as usize - action.as_ptr() as usize),
                };
                parts.push(Part::Action(reader.pipeline(0)?));
            }
            rest = &action[end + 2..];
        }
        parts.push(Part::Text(between(rest, trims, false)));
        Ok(Template { parts })
    }

    /// Evaluates the template.
    ///
    /// # Errors
    /// The error with its position, in Go's words; when a value is too long.
    pub(super) fn fill(&self, of: &TemplateData<'_>) -> Result<String, String> {
        let mut out = TemplateValue::default();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text)?,
                Part::Action(pipeline) => out.push_str(&pipeline.value(of)?.text())?,
            }
        }
        Ok(out.into_text())
    }
}

/// The position of an action's `}}`, outside quotes.
fn end_of(action: &str) -> Option<usize> {
    let bytes = action.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// An action without its trim markers, and whether it has them.
fn trimmed(action: &str) -> (&str, bool, bool) {
    let before = action.strip_prefix("- ");
    let inner = before.unwrap_or(action);
    let after = inner.strip_suffix(" -");
    (after.unwrap_or(inner), before.is_some(), after.is_some())
}

fn between(text: &str, trims_start: bool, trims_end: bool) -> &str {
    let text = if trims_start { text.trim_start() } else { text };
    if trims_end { text.trim_end() } else { text }
}

fn position(template: &str, offset: usize) -> (usize, usize) {
    let before = &template[..offset];
    let line = before.matches('\n').count() + 1;
    (line, before.len() - before.rfind('\n').map_or(0, |at| at + 1))
}

fn error(template: &str, offset: usize, what: &str) -> String {
    format!("template: template:{}: {what}", position(template, offset).0)
}

/// Parses one action.
struct Parser<'a> {
    template: &'a str,
    rest: &'a str,
    offset: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, what: &str) -> String {
        error(self.template, self.offset, what)
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.offset += bytes;
        taken
    }

    /// Parses one pipeline inside `depth` parentheses.
    // recursion: bounded by TEMPLATE_DEPTH
    fn pipeline(&mut self, depth: usize) -> Result<Pipeline<'a>, String> {
        if depth > TEMPLATE_DEPTH {
            return Err(self.error(&ExceedsLimit::TemplateDepth.to_string()));
        }
        let nested = depth > 0;
        let mut commands = Vec::new();
        let mut words = Vec::new();
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.skip(blank);
            match self.rest.chars().next() {
                None if nested => return Err(self.error("unclosed left paren")),
                Some(')') if !nested => return Err(self.error("unexpected right paren")),
                None | Some(')' | '|') => {
                    let ends = !self.rest.starts_with('|');
                    if words.is_empty() {
                        return Err(self.error("missing value for command"));
                    }
                    if commands.len() == PIPELINE_STEPS {
                        return Err(self.error(&ExceedsLimit::PipelineSteps.to_string()));
                    }
                    commands.push(Command { words: std::mem::take(&mut words) });
                    self.skip(usize::from(!self.rest.is_empty()));
                    if ends {
                        return Ok(Pipeline { commands });
                    }
                }
                Some(_) => words.push(self.word(depth)?),
            }
        }
    }

    // recursion: bounded by TEMPLATE_DEPTH, which `pipeline` checks
    fn word(&mut self, depth: usize) -> Result<Word<'a>, String> {
        let (whole, offset) = (self.rest, self.offset);
        let kind = match whole.as_bytes()[0] {
            b'(' => {
                self.skip(1);
                WordKind::Nested(self.pipeline(depth + 1)?)
            }
            b'"' => WordKind::Text(self.quoted()?),
            b'`' => {
                let end = whole[1..].find('`').ok_or_else(|| self.error("unterminated raw quoted string"))?;
                WordKind::Text(self.skip(end + 2)[1..=end].to_owned())
            }
            _ => self.bare()?,
        };
        let text = &whole[..whole.len() - self.rest.len()];
        Ok(Word { kind, text, at: position(self.template, offset) })
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.skip(at + 1);
                    return Ok(out);
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, escaped @ ('"' | '\\'))) => out.push(escaped),
                    _ => return Err(self.error("invalid syntax in a quoted string")),
                },
                other => out.push(other),
            }
        }
        Err(self.error("unterminated quoted string"))
    }

    fn bare(&mut self) -> Result<WordKind<'a>, String> {
        let end = self.rest.find(|c: char| c.is_whitespace() || matches!(c, '|' | ')' | '(' | '"' | '`'));
        let word = self.skip(end.unwrap_or(self.rest.len()));
        if let Some(name) = word.strip_prefix('.').filter(|n| !n.is_empty()) {
            return Ok(WordKind::Field(name));
        }
        if let Ok(number) = word.parse() {
            return Ok(WordKind::Number(number));
        }
        match word {
            "if" | "else" | "end" | "range" | "with" | "define" | "block" | "template" | "break" | "continue" => {
                Err(self.error(&format!("{word} is not supported in a username template")))
            }
            _ if FUNCTIONS.contains(&word) => Ok(WordKind::Function(word)),
            _ if word.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                Err(self.error(&format!("function {word:?} not defined")))
            }
            _ => Err(self.error(&format!("unexpected {word:?} in operand"))),
        }
    }
}

impl Pipeline<'_> {
    // recursion: bounded by TEMPLATE_DEPTH, which the parser checks
    fn value(&self, of: &TemplateData<'_>) -> Result<Value, String> {
        let mut value = None;
        for command in &self.commands {
            value = Some(command.value(of, value)?);
        }
        value.ok_or_else(|| "missing value for command".to_owned())
    }
}

impl Command<'_> {
    // recursion: bounded by TEMPLATE_DEPTH, which the parser checks
    fn value(&self, of: &TemplateData<'_>, piped: Option<Value>) -> Result<Value, String> {
        let Some((first, rest)) = self.words.split_first() else { return Err("missing value for command".to_owned()) };
        let WordKind::Function(name) = &first.kind else {
            if !rest.is_empty() || piped.is_some() {
                return Err(first.error(&match &first.kind {
                    WordKind::Field(name) => format!("{name} has arguments but cannot be invoked as function"),
                    _ => format!("can't give argument to non-function {}", first.text),
                }));
            }
            return first.value(of);
        };
        let mut arguments =
            rest.iter().map(|word| Ok((word.value(of)?, Some(word)))).collect::<Result<Vec<_>, String>>()?;
        arguments.extend(piped.map(|value| (value, None)));
        if let Some(complaint) = functions::wrong_count(name, arguments.len()) {
            return Err(first.error(&complaint));
        }
        for (at, (value, word)) in arguments.iter().enumerate() {
            if let Some(expected) = functions::wrong_type(name, at, value) {
                return Err(match word {
                    Some(word) => word.error(&format!("expected {expected}; found {}", word.text)),
                    None => first.error(&format!("wrong type for value; expected {expected}")),
                });
            }
        }
        let arguments = arguments.into_iter().map(|(value, _)| value).collect();
        functions::call(name, arguments, of).map_err(|what| {
            let text = self.words.iter().map(|w| w.text).collect::<Vec<_>>().join(" ");
            execution_error(first.at, &text, &format!("error calling {name}: {what}"))
        })
    }
}

impl Word<'_> {
    // recursion: bounded by TEMPLATE_DEPTH, which the parser checks
    fn value(&self, of: &TemplateData<'_>) -> Result<Value, String> {
        match &self.kind {
            WordKind::Text(text) => Ok(Value::Text(text.clone())),
            WordKind::Number(number) => Ok(Value::Number(*number)),
            WordKind::Nested(pipeline) => pipeline.value(of),
            WordKind::Field(name) => of
                .field(name)
                .map(Value::Text)
                .ok_or_else(|| self.error(&format!("can't evaluate field {name} in type dbplugin.UsernameMetadata"))),
            WordKind::Function(name) => {
                if let Some(complaint) = functions::wrong_count(name, 0) {
                    return Err(self.error(&complaint));
                }
                functions::call(name, Vec::new(), of)
                    .map_err(|what| self.error(&format!("error calling {name}: {what}")))
            }
        }
    }

    fn error(&self, what: &str) -> String {
        execution_error(self.at, self.text, what)
    }
}

fn execution_error((line, column): (usize, usize), text: &str, what: &str) -> String {
    format!("template: template:{line}:{column}: executing \"template\" at <{text}>: {what}")
}
