//! The JSON syntax: nested objects are blocks and repeated keys are kept.
//! A comma before a closing bracket is allowed; everything else is RFC 8259.

use keepfast_json::{Kind, Piece, Pieces, Token, Tokens};

use crate::ast::{Body, Document, Item, Key, Syntax, Value, ValueKind};
use crate::parse::{check_depth, check_size};
use crate::{HclError, Position, literal};

/// Parses a JSON object.
pub(crate) fn parse(source: &str) -> Result<Document, HclError> {
    check_size(source)?;
    let mut parser = Parser { source, tokens: Tokens::new(source.as_bytes()), at: Position::START };
    let value = parser.value()?;
    match value.kind {
        _ if parser.tokens.peek().is_some() => parser.fail("unexpected text behind the closing brace"),
        ValueKind::Object(body) => Ok(Document { syntax: Syntax::Json, body }),
        _ => Err(HclError::new(value.position, "expected an object")),
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Tokens<'a>,
    /// The last computed position; the next one is after it.
    at: Position,
}

impl<'a> Parser<'a> {
    /// The line and column of an offset.
    fn place(&mut self, offset: usize) -> Position {
        for byte in self.source.as_bytes().get(self.at.offset..offset).unwrap_or_default() {
            match byte {
                b'\n' => (self.at.line, self.at.column) = (self.at.line + 1, 1),
                // Continuation bytes of a UTF-8 character do not count.
                0x80..0xc0 => {}
                _ => self.at.column += 1,
            }
        }
        self.at.offset = offset;
        self.at
    }

    /// Fails at the next token, or at the end of the text.
    fn fail<T>(&mut self, message: impl Into<String>) -> Result<T, HclError> {
        self.tokens.peek();
        let position = self.place(self.tokens.position());
        Err(HclError::new(position, message))
    }

    fn expect(&mut self, wanted: u8) -> Result<(), HclError> {
        match self.tokens.peek() {
            Some(byte) if byte == wanted => {
                self.tokens.next();
                Ok(())
            }
            Some(_) => self.fail(format!("expected '{}'", char::from(wanted))),
            None => self.fail(format!("expected '{}', got end of text", char::from(wanted))),
        }
    }

    // recursion: bounded by MAX_DEPTH, which `check_depth` checks
    fn value(&mut self) -> Result<Value, HclError> {
        let Some(token) = self.tokens.next() else { return self.fail("expected a value, got end of text") };
        let position = self.place(token.start);
        let kind = match (token.kind, token.text) {
            (Kind::BeginObject, _) => ValueKind::Object(self.object(position)?),
            (Kind::BeginArray, _) => ValueKind::List(self.list(position)?),
            (Kind::String { .. }, _) => ValueKind::String(self.string(&token)?),
            (Kind::Word, [b'-' | b'0'..=b'9', ..]) => number(self.text(&token), position)?,
            (Kind::Word, b"true") => ValueKind::Bool(true),
            (Kind::Word, b"false") => ValueKind::Bool(false),
            (Kind::Word, b"null") => ValueKind::Null,
            _ => return Err(HclError::new(position, "illegal char")),
        };
        Ok(Value { kind, position, end: self.tokens.end() })
    }

    fn text(&self, token: &Token<'_>) -> &'a str {
        self.source.get(token.start..token.end()).unwrap_or_default()
    }

    /// Parses an object after its opening brace.
    // recursion: bounded by MAX_DEPTH
    fn object(&mut self, position: Position) -> Result<Body, HclError> {
        check_depth(self.tokens.depth(), position)?;
        let mut items = Vec::new();
        while !self.closes(b'}')? {
            if self.tokens.peek() != Some(b'"') {
                return self.fail("expected a key in quotes");
            }
            let Some(token) = self.tokens.next() else { break };
            let key = self.place(token.start);
            let name = self.string(&token)?;
            self.expect(b':')?;
            let value = self.value()?;
            let keys = vec![Key { name, position: key, end: token.end(), quoted: true }];
            items.push(Item { keys, assign: None, value });
            self.separator(b'}')?;
        }
        Ok(Body { items, position, end: self.tokens.end() })
    }

    /// Parses an array after its opening bracket.
    // recursion: bounded by MAX_DEPTH
    fn list(&mut self, position: Position) -> Result<Vec<Value>, HclError> {
        check_depth(self.tokens.depth(), position)?;
        let mut list = Vec::new();
        while !self.closes(b']')? {
            list.push(self.value()?);
            self.separator(b']')?;
        }
        Ok(list)
    }

    /// Whether the closing bracket is next; consumes it.
    fn closes(&mut self, bracket: u8) -> Result<bool, HclError> {
        match self.tokens.peek() {
            None => self.fail(format!("expected '{}', got end of text", char::from(bracket))),
            Some(byte) if byte == bracket => {
                self.tokens.next();
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    /// Consumes a comma, unless the closing bracket follows.
    fn separator(&mut self, bracket: u8) -> Result<(), HclError> {
        match self.tokens.peek() {
            Some(b',') => {
                self.tokens.next();
                Ok(())
            }
            Some(byte) if byte == bracket => Ok(()),
            None => self.fail(format!("expected '{}', got end of text", char::from(bracket))),
            Some(_) => self.fail(format!("expected ',' or '{}'", char::from(bracket))),
        }
    }

    /// Decodes a string. An unpaired surrogate becomes U+FFFD.
    fn string(&mut self, token: &Token<'_>) -> Result<String, HclError> {
        let inside = token.start + 1;
        let mut text = String::with_capacity(token.inside().len());
        let mut pieces = Pieces::new(token.inside());
        let mut high = None;
        loop {
            let at = inside + pieces.offset();
            let piece = pieces.next();
            if let Some(first) = high.take() {
                let second = if let Some(Piece::Unit(unit)) = piece { Some(unit) } else { None };
                let pair = char::decode_utf16([first].into_iter().chain(second)).next().and_then(Result::ok);
                text.push(pair.unwrap_or(char::REPLACEMENT_CHARACTER));
                if second.is_some() {
                    continue;
                }
            }
            match piece {
                Some(Piece::Plain(bytes)) => {
                    if let Some(control) = bytes.iter().position(|byte| *byte < b' ') {
                        return Err(HclError::new(self.place(at + control), "illegal char"));
                    }
                    text.push_str(self.source.get(at..at + bytes.len()).unwrap_or_default());
                }
                Some(Piece::Byte(byte)) => text.push(char::from(byte)),
                Some(Piece::Unit(unit @ 0xd800..0xdc00)) => high = Some(unit),
                Some(Piece::Unit(unit)) => {
                    text.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                // A backslash at the end of the text is a string without its closing quote.
                Some(Piece::Invalid([_, _])) => {
                    return Err(HclError::new(self.place(at), "illegal char escape"));
                }
                Some(Piece::Invalid(_)) => {}
                None if token.is_terminated() => return Ok(text),
                None => return Err(HclError::new(self.place(token.end()), "literal not terminated")),
            }
        }
    }
}

fn number(raw: &str, position: Position) -> Result<ValueKind, HclError> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return Err(HclError::new(position, "numbers cannot start with 0"));
    }
    let well_formed = raw.bytes().all(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && !digits.ends_with('.')
        && !digits.contains(".e");
    let value = if digits.contains(['.', 'e', 'E']) { literal::float(raw) } else { literal::number(raw) };
    value.filter(|_| well_formed).ok_or_else(|| HclError::new(position, "illegal number"))
}
