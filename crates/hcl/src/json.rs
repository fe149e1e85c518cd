//! The JSON form: the same tree, where nested objects stand for blocks and repeated keys stay repeated.
//! Commas before a closing bracket are let pass; everything else is RFC 8259.

use crate::ast::{Body, Document, Item, Key, Syntax, Value, ValueKind};
use crate::parse::{check_depth, check_size};
use crate::{HclError, Position, literal};

/// Parses a JSON object.
pub(crate) fn parse(source: &str) -> Result<Document, HclError> {
    check_size(source)?;
    let mut parser = Parser { source, at: Position::START, depth: 0 };
    let value = parser.value()?;
    parser.blank();
    match value.kind {
        _ if parser.peek().is_some() => parser.fail("unexpected text behind the closing brace"),
        ValueKind::Object(body) => Ok(Document { syntax: Syntax::Json, body }),
        _ => Err(HclError::new(value.position, "expected an object")),
    }
}

struct Parser<'a> {
    source: &'a str,
    at: Position,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.source.get(self.at.offset..)?.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at.offset += c.len_utf8();
        if c == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, HclError> {
        Err(HclError::new(self.at, message))
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.bump();
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), HclError> {
        self.blank();
        match self.peek() {
            Some(c) if c == wanted => {
                self.bump();
                Ok(())
            }
            Some(_) => self.fail(format!("expected '{wanted}'")),
            None => self.fail(format!("expected '{wanted}', got end of text")),
        }
    }

    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn value(&mut self) -> Result<Value, HclError> {
        self.blank();
        let position = self.at;
        let kind = match self.peek() {
            Some('{') => ValueKind::Object(self.nested(Self::object)?),
            Some('[') => ValueKind::List(self.nested(Self::list)?),
            Some('"') => ValueKind::String(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            Some(c) if c.is_ascii_lowercase() => self.word()?,
            Some(_) => return self.fail("illegal char"),
            None => return self.fail("expected a value, got end of text"),
        };
        Ok(Value { kind, position, end: self.at.offset })
    }

    fn nested<T>(&mut self, rest: fn(&mut Self) -> Result<T, HclError>) -> Result<T, HclError> {
        self.depth += 1;
        check_depth(self.depth, self.at)?;
        let value = rest(self);
        self.depth -= 1;
        value
    }

    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn object(&mut self) -> Result<Body, HclError> {
        let position = self.at;
        let mut items = Vec::new();
        self.bump();
        while !self.close('}')? {
            let key = self.at;
            if self.peek() != Some('"') {
                return self.fail("expected a key in quotes");
            }
            let name = self.string()?;
            let end = self.at.offset;
            self.expect(':')?;
            let value = self.value()?;
            items.push(Item { keys: vec![Key { name, position: key, end, quoted: true }], assign: None, value });
            self.separator('}')?;
        }
        Ok(Body { items, position, end: self.at.offset })
    }

    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn list(&mut self) -> Result<Vec<Value>, HclError> {
        let mut list = Vec::new();
        self.bump();
        while !self.close(']')? {
            list.push(self.value()?);
            self.separator(']')?;
        }
        Ok(list)
    }

    /// Whether the bracket closes here.
    fn close(&mut self, bracket: char) -> Result<bool, HclError> {
        self.blank();
        match self.peek() {
            None => self.fail(format!("expected '{bracket}', got end of text")),
            Some(c) if c == bracket => {
                self.bump();
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    /// A comma, unless the closing bracket follows.
    fn separator(&mut self, bracket: char) -> Result<(), HclError> {
        self.blank();
        match self.peek() {
            Some(',') => {
                self.bump();
                Ok(())
            }
            Some(c) if c == bracket => Ok(()),
            None => self.fail(format!("expected '{bracket}', got end of text")),
            Some(_) => self.fail(format!("expected ',' or '{bracket}'")),
        }
    }

    fn string(&mut self) -> Result<String, HclError> {
        let mut text = String::new();
        self.bump();
        loop {
            let here = self.at;
            match self.bump() {
                None => return Err(HclError::new(here, "literal not terminated")),
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(c) if c < ' ' => return Err(HclError::new(here, "illegal char")),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, HclError> {
        Ok(match self.bump() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let first = self.unit()?;
                if (0xd800..0xdc00).contains(&first) && self.source[self.at.offset..].starts_with("\\u") {
                    self.bump();
                    self.bump();
                    let units = [first, self.unit()?];
                    char::decode_utf16(units).next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER)
                } else {
                    char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            }
            _ => return self.fail("illegal char escape"),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u16, HclError> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else { return self.fail("illegal char escape") };
            self.bump();
            unit = unit << 4 | u16::try_from(digit).unwrap_or_default();
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<ValueKind, HclError> {
        let from = self.at;
        while matches!(self.peek(), Some('-' | '+' | '.' | 'e' | 'E' | '0'..='9')) {
            self.bump();
        }
        let raw = &self.source[from.offset..self.at.offset];
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        if digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()) {
            return Err(HclError::new(from, "numbers cannot start with 0"));
        }
        let well_formed =
            digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.ends_with('.') && !digits.contains(".e");
        let value = if digits.contains(['.', 'e', 'E']) { literal::float(raw) } else { literal::number(raw) };
        value.filter(|_| well_formed).ok_or_else(|| HclError::new(from, "illegal number"))
    }

    fn word(&mut self) -> Result<ValueKind, HclError> {
        let from = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric()) {
            self.bump();
        }
        match &self.source[from.offset..self.at.offset] {
            "true" => Ok(ValueKind::Bool(true)),
            "false" => Ok(ValueKind::Bool(false)),
            "null" => Ok(ValueKind::Null),
            _ => Err(HclError::new(from, "illegal char")),
        }
    }
}
