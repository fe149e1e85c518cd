//! The lexer: characters to tokens.

use crate::{HclError, Position};

/// The kind of a token. `Display` writes the names that messages use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Eof,
    Comment,
    Ident,
    Number,
    Float,
    Bool,
    String,
    Heredoc,
    LBracket,
    RBracket,
    LBrace,
    RBrace,
    Comma,
    Period,
    Assign,
    Add,
    Sub,
}

impl std::fmt::Display for TokenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Eof => "EOF",
            Self::Comment => "COMMENT",
            Self::Ident => "IDENT",
            Self::Number => "NUMBER",
            Self::Float => "FLOAT",
            Self::Bool => "BOOL",
            Self::String => "STRING",
            Self::Heredoc => "HEREDOC",
            Self::LBracket => "LBRACK",
            Self::RBracket => "RBRACK",
            Self::LBrace => "LBRACE",
            Self::RBrace => "RBRACE",
            Self::Comma => "COMMA",
            Self::Period => "PERIOD",
            Self::Assign => "ASSIGN",
            Self::Add => "ADD",
            Self::Sub => "SUB",
        })
    }
}

/// A token: a range of the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) position: Position,
    pub(crate) end: usize,
}

impl Token {
    /// The text of the token.
    pub(crate) fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.position.offset..self.end).unwrap_or_default()
    }
}

/// Splits a text into tokens.
pub(crate) struct Scanner<'a> {
    source: &'a str,
    at: Position,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self { source, at: Position::START }
    }

    /// The next token, comments included; `Eof` at the end and from then on.
    pub(crate) fn next_token(&mut self) -> Result<Token, HclError> {
        while matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.bump();
        }
        let position = self.at;
        let kind = match self.bump() {
            None => TokenKind::Eof,
            Some('[') => TokenKind::LBracket,
            Some(']') => TokenKind::RBracket,
            Some('{') => TokenKind::LBrace,
            Some('}') => TokenKind::RBrace,
            Some(',') => TokenKind::Comma,
            Some('=') => TokenKind::Assign,
            Some('+') => TokenKind::Add,
            Some('"') => self.string(position)?,
            Some('<') => self.heredoc()?,
            Some('#') => self.line_comment(),
            Some('/') => self.slash_comment(position)?,
            Some('-') if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                let first = self.bump();
                self.number(first, position)?
            }
            Some('-') => TokenKind::Sub,
            Some('.') if self.peek().is_some_and(|c| c.is_ascii_digit()) => self.number(Some('.'), position)?,
            Some('.') => TokenKind::Period,
            Some(c) if c.is_ascii_digit() => self.number(Some(c), position)?,
            Some(c) if is_letter(c) => self.identifier(position),
            Some('\0') => return Err(HclError::new(position, "unexpected null character (0x00)")),
            Some(_) => return Err(HclError::new(position, "illegal char")),
        };
        if kind != TokenKind::Eof
            && let Some(null) = self.slice(position).find('\0')
        {
            return Err(HclError::new(self.place(position, null), "unexpected null character (0x00)"));
        }
        Ok(Token { kind, position, end: self.at.offset })
    }

    fn peek(&self) -> Option<char> {
        self.source.get(self.at.offset..)?.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        advance(&mut self.at, c);
        Some(c)
    }

    /// The text read since `from`.
    fn slice(&self, from: Position) -> &'a str {
        self.source.get(from.offset..self.at.offset).unwrap_or_default()
    }

    /// The position `bytes` after `from`.
    fn place(&self, from: Position, bytes: usize) -> Position {
        let mut at = from;
        for c in self.source.get(from.offset..from.offset + bytes).unwrap_or_default().chars() {
            advance(&mut at, c);
        }
        at
    }

    fn fail<T>(&self, message: &str) -> Result<T, HclError> {
        Err(HclError::new(self.at, message))
    }

    fn identifier(&mut self, from: Position) -> TokenKind {
        while self.peek().is_some_and(|c| is_letter(c) || c.is_numeric() || c == '-' || c == '.') {
            self.bump();
        }
        if matches!(self.slice(from), "true" | "false") { TokenKind::Bool } else { TokenKind::Ident }
    }

    fn number(&mut self, first: Option<char>, from: Position) -> Result<TokenKind, HclError> {
        if first == Some('0') && matches!(self.peek(), Some('x' | 'X')) {
            self.bump();
            if self.digits(16) == 0 {
                return self.fail("illegal hexadecimal number");
            }
            return Ok(TokenKind::Number);
        }
        let mut float = first == Some('.');
        self.digits(10);
        if !float && self.peek() == Some('.') && !self.source[self.at.offset..].starts_with("..") {
            self.bump();
            float = true;
            self.digits(10);
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.bump();
            float = true;
            if matches!(self.peek(), Some('+' | '-')) {
                self.bump();
            }
            if self.digits(10) == 0 {
                return self.fail("illegal exponent");
            }
        }
        let octal = self.slice(from).trim_start_matches('-');
        if !float && octal.len() > 1 && octal.starts_with('0') && octal.contains(['8', '9']) {
            return self.fail("illegal octal number");
        }
        Ok(if float { TokenKind::Float } else { TokenKind::Number })
    }

    fn digits(&mut self, radix: u32) -> usize {
        let mut count = 0;
        while self.peek().is_some_and(|c| c.is_digit(radix)) {
            self.bump();
            count += 1;
        }
        count
    }

    /// Scans a quoted string after its first quote. Inside `${…}`, quotes and line ends are plain characters.
    fn string(&mut self, from: Position) -> Result<TokenKind, HclError> {
        let mut braces = 0_usize;
        loop {
            let here = self.at;
            let Some(c) = self.bump() else { return Err(HclError::new(here, "literal not terminated")) };
            match c {
                '"' if braces == 0 => break,
                '\n' if braces == 0 => return Err(HclError::new(here, "literal not terminated")),
                '$' if braces == 0 && self.peek() == Some('{') => {
                    self.bump();
                    braces = 1;
                }
                '{' if braces > 0 => braces += 1,
                '}' if braces > 0 => braces -= 1,
                '\\' if braces > 0 => {
                    self.bump();
                }
                '\\' => self.escape()?,
                _ => {}
            }
        }
        debug_assert!(self.at.offset >= from.offset + 2, "both quotes were read");
        Ok(TokenKind::String)
    }

    fn escape(&mut self) -> Result<(), HclError> {
        let (radix, count) = match self.peek() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"') => (0, 1),
            Some('0'..='7') => (8, 3),
            Some('x') => (16, 2),
            Some('u') => (16, 4),
            Some('U') => (16, 8),
            _ => return self.fail("illegal char escape"),
        };
        if radix != 8 {
            self.bump();
        }
        for _ in 0..if radix == 0 { 0 } else { count } {
            if !self.peek().is_some_and(|c| c.is_digit(radix)) {
                return self.fail("illegal char escape");
            }
            self.bump();
        }
        Ok(())
    }

    /// Scans a heredoc after its first `<`, up to the line end after the closing anchor, which is not consumed.
    fn heredoc(&mut self) -> Result<TokenKind, HclError> {
        if self.bump() != Some('<') {
            return self.fail("heredoc expected second '<', didn't see it");
        }
        if self.peek() == Some('-') {
            self.bump();
        }
        let start = self.at;
        while self.peek().is_some_and(|c| is_letter(c) || c.is_numeric()) {
            self.bump();
        }
        let anchor = self.slice(start);
        if self.peek() == Some('\r') {
            self.bump();
        }
        let behind = self.at;
        match self.bump() {
            None => return self.fail("heredoc not terminated"),
            Some('\n') if anchor.is_empty() => return self.fail("zero-length heredoc anchor"),
            Some('\n') => {}
            Some(_) => return Err(HclError::new(behind, "invalid characters in heredoc anchor")),
        }
        loop {
            let line = self.at;
            while !matches!(self.peek(), None | Some('\n')) {
                self.bump();
            }
            let text = self.slice(line);
            if text.strip_suffix('\r').unwrap_or(text).trim_start() == anchor {
                return Ok(TokenKind::Heredoc);
            }
            if self.bump().is_none() {
                return self.fail("heredoc not terminated");
            }
        }
    }

    fn line_comment(&mut self) -> TokenKind {
        while !matches!(self.peek(), None | Some('\n')) {
            self.bump();
        }
        TokenKind::Comment
    }

    fn slash_comment(&mut self, from: Position) -> Result<TokenKind, HclError> {
        match self.peek() {
            Some('/') => return Ok(self.line_comment()),
            Some('*') => self.bump(),
            _ => return Err(HclError::new(from, "expected '/' for comment")),
        };
        loop {
            match self.bump() {
                None => return self.fail("comment not terminated"),
                Some('*') if self.peek() == Some('/') => {
                    self.bump();
                    return Ok(TokenKind::Comment);
                }
                Some(_) => {}
            }
        }
    }
}

fn is_letter(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn advance(at: &mut Position, c: char) {
    at.offset += c.len_utf8();
    if c == '\n' {
        at.line += 1;
        at.column = 1;
    } else {
        at.column += 1;
    }
}
