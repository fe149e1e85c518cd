//! Recursive descent parser of HCL.

use crate::ast::{Body, Document, Item, Key, Syntax, Value, ValueKind};
use crate::lexer::{Scanner, Token, TokenKind};
use crate::{HclError, Position, literal};

/// The longest accepted text in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The deepest accepted nesting of objects and lists.
pub const MAX_DEPTH: usize = 64;

/// A comment; only the formatter uses it.
#[derive(Debug, Clone)]
pub(crate) struct Comment {
    pub(crate) position: Position,
    pub(crate) text: String,
}

/// Refuses a text longer than [`MAX_BYTES`], in either syntax.
pub(crate) fn check_size(source: &str) -> Result<(), HclError> {
    if source.len() > MAX_BYTES {
        return Err(HclError::new(Position::START, format!("text is longer than {MAX_BYTES} bytes")));
    }
    Ok(())
}

/// Refuses nesting deeper than [`MAX_DEPTH`], in either syntax.
pub(crate) fn check_depth(depth: usize, at: Position) -> Result<(), HclError> {
    if depth > MAX_DEPTH {
        return Err(HclError::new(at, format!("nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(())
}

/// Parses HCL. The comments are separate from the tree.
pub(crate) fn parse(source: &str) -> Result<(Document, Vec<Comment>), HclError> {
    check_size(source)?;
    let mut parser = Parser { source, scanner: Scanner::new(source), peeked: None, comments: Vec::new(), depth: 0 };
    let items = parser.items(false)?;
    let body = Body { items, position: Position::START, end: source.len() };
    Ok((Document { syntax: Syntax::Hcl, body }, parser.comments))
}

struct Parser<'a> {
    source: &'a str,
    scanner: Scanner<'a>,
    peeked: Option<Token>,
    comments: Vec<Comment>,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Result<Token, HclError> {
        if let Some(token) = self.peeked {
            return Ok(token);
        }
        loop {
            let token = self.scanner.next_token()?;
            if token.kind != TokenKind::Comment {
                self.peeked = Some(token);
                return Ok(token);
            }
            let text = token.text(self.source).trim_end_matches('\r').to_owned();
            self.comments.push(Comment { position: token.position, text });
        }
    }

    fn next(&mut self) -> Result<Token, HclError> {
        let token = self.peek()?;
        self.peeked = None;
        Ok(token)
    }

    fn skip(&mut self, kind: TokenKind) -> Result<bool, HclError> {
        let found = self.peek()?.kind == kind;
        if found {
            self.peeked = None;
        }
        Ok(found)
    }

    /// Parses items up to the end of the text, or up to the closing brace, which is not consumed.
    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn items(&mut self, nested: bool) -> Result<Vec<Item>, HclError> {
        let mut items = Vec::new();
        loop {
            match self.peek()?.kind {
                TokenKind::Eof => return Ok(items),
                TokenKind::RBrace if nested => return Ok(items),
                _ => items.push(self.item()?),
            }
            self.skip(TokenKind::Comma)?;
        }
    }

    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn item(&mut self) -> Result<Item, HclError> {
        let keys = self.keys()?;
        let mark = self.peek()?;
        let assign = if mark.kind == TokenKind::Assign {
            self.next()?;
            Some(mark.position)
        } else {
            None
        };
        Ok(Item { keys, assign, value: self.value()? })
    }

    /// Parses names and labels up to the following `=` or `{`.
    fn keys(&mut self) -> Result<Vec<Key>, HclError> {
        let mut keys = Vec::new();
        let mut written = Vec::new();
        loop {
            let token = self.peek()?;
            let fault = match token.kind {
                TokenKind::Ident | TokenKind::String => {
                    self.next()?;
                    let text = token.text(self.source);
                    let quoted = token.kind == TokenKind::String;
                    let name = if quoted { literal::unquote(text) } else { text.to_owned() };
                    keys.push(Key { name, position: token.position, end: token.end, quoted });
                    written.push(text);
                    continue;
                }
                TokenKind::Assign if keys.is_empty() => "no object keys found!".to_owned(),
                TokenKind::LBrace if keys.is_empty() => "expected: IDENT | STRING got: LBRACE".to_owned(),
                TokenKind::Assign if keys.len() > 1 => "nested object expected: LBRACE got: ASSIGN".to_owned(),
                TokenKind::Assign | TokenKind::LBrace => return Ok(keys),
                TokenKind::Eof | TokenKind::RBrace if !keys.is_empty() => {
                    format!("key '{}' expected start of object ('{{') or assignment ('=')", written.join(" "))
                }
                kind => format!("expected: IDENT | STRING | ASSIGN | LBRACE got: {kind}"),
            };
            return Err(HclError::new(token.position, fault));
        }
    }

    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn value(&mut self) -> Result<Value, HclError> {
        let token = self.next()?;
        let text = token.text(self.source);
        let kind = match token.kind {
            TokenKind::String => ValueKind::String(literal::unquote(text)),
            TokenKind::Heredoc => ValueKind::String(literal::heredoc(text)),
            TokenKind::Bool => ValueKind::Bool(text == "true"),
            TokenKind::Number => literal::number(text).ok_or_else(|| out_of_range(token))?,
            TokenKind::Float => literal::float(text).ok_or_else(|| out_of_range(token))?,
            TokenKind::LBracket => return self.nested(token, Self::list),
            TokenKind::LBrace => return self.nested(token, Self::object),
            kind => {
                let message = format!("Unknown token: {} {kind} {text}", token.position);
                return Err(HclError::new(token.position, message));
            }
        };
        Ok(Value { kind, position: token.position, end: token.end })
    }

    /// Parses a list or object after its opening bracket, one level deeper.
    fn nested(
        &mut self,
        open: Token,
        rest: fn(&mut Self, Token) -> Result<Value, HclError>,
    ) -> Result<Value, HclError> {
        self.depth += 1;
        check_depth(self.depth, open.position)?;
        let value = rest(self, open);
        self.depth -= 1;
        value
    }

    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn object(&mut self, open: Token) -> Result<Value, HclError> {
        let items = self.items(true)?;
        let close = self.next()?;
        if close.kind != TokenKind::RBrace {
            let message = format!("object expected closing RBRACE got: {}", close.kind);
            let mut position = close.position;
            // OpenBao counts the end of the text as one more character here.
            position.column += u32::from(close.kind == TokenKind::Eof);
            return Err(HclError::new(position, message));
        }
        let body = Body { items, position: open.position, end: close.end };
        Ok(Value { kind: ValueKind::Object(body), position: open.position, end: close.end })
    }

    /// Parses elements separated by commas; like OpenBao, it skips empty places between commas.
    // recursion: bounded by MAX_DEPTH, which `nested` checks
    fn list(&mut self, open: Token) -> Result<Value, HclError> {
        let mut list = Vec::new();
        let mut comma = true;
        loop {
            let token = self.peek()?;
            match token.kind {
                TokenKind::Comma => {
                    self.next()?;
                    comma = true;
                }
                TokenKind::RBracket => {
                    self.next()?;
                    return Ok(Value { kind: ValueKind::List(list), position: open.position, end: token.end });
                }
                kind if !comma => {
                    let message = format!("error parsing list, expected comma or list end, got: {kind}");
                    return Err(HclError::new(token.position, message));
                }
                kind if starts_value(kind) => {
                    list.push(self.value().map_err(|error| within_list(token, error))?);
                    comma = false;
                }
                kind => {
                    let message = format!("unexpected token while parsing list: {kind}");
                    return Err(HclError::new(token.position, message));
                }
            }
        }
    }
}

/// Wraps the error of a list or object inside a list, with the text of OpenBao.
fn within_list(element: Token, error: HclError) -> HclError {
    let kind = match element.kind {
        TokenKind::LBrace => "object",
        TokenKind::LBracket => "list",
        _ => return error,
    };
    HclError::new(element.position, format!("error while trying to parse {kind} within list: {error}"))
}

fn out_of_range(token: Token) -> HclError {
    HclError::new(token.position, "number out of range")
}

fn starts_value(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::String
            | TokenKind::Heredoc
            | TokenKind::Bool
            | TokenKind::Number
            | TokenKind::Float
            | TokenKind::LBracket
            | TokenKind::LBrace
    )
}
