//! A tokeniser of JSON (RFC 8259) over bytes, with positions and without allocation.
//!
//! [`Tokens`] splits any bytes into tokens; it does not check their order, their escapes or the form of their numbers.
//! Code that needs valid JSON parses it with `serde_json`; code that counts, copies or reports errors reads tokens.
//! [`Pieces`] splits the content of a string into plain bytes and escapes.
//!
//! ```
//! use keepfast_json::{Kind, Tokens};
//!
//! let kinds: Vec<Kind> = Tokens::new(b"[1, \"a\\n\"]").map(|token| token.kind).collect();
//! assert_eq!(kinds, [Kind::BeginArray, Kind::Word, Kind::Comma, Kind::String { escaped: true }, Kind::EndArray]);
//! ```

mod pieces;
#[cfg(test)]
mod tests;

pub use pieces::{Piece, Pieces, decoded_len};

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    BeginObject,
    /// `}`
    EndObject,
    /// `[`
    BeginArray,
    /// `]`
    EndArray,
    /// `,`
    Comma,
    /// `:`
    Colon,
    /// A string with its quotes. A string that the end of the text truncates has no closing quote.
    String {
        /// Whether it has a backslash.
        escaped: bool,
    },
    /// A number, `true`, `false`, `null`, or any other bytes up to the next blank, quote or punctuation.
    Word,
}

/// A token with its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its kind.
    pub kind: Kind,
    /// The offset of its first byte.
    pub start: usize,
    /// Its bytes, never empty.
    pub text: &'a [u8],
}

impl<'a> Token<'a> {
    /// The offset after its last byte.
    #[must_use]
    #[inline]
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether a string has its closing quote.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.inside().len() + 2 == self.text.len()
    }

    /// The bytes of a string between its quotes.
    #[must_use]
    #[inline]
    pub fn inside(&self) -> &'a [u8] {
        let behind_quote = self.text.get(1..).unwrap_or_default();
        let Some((b'"', inside)) = behind_quote.split_last() else { return behind_quote };
        let is_escaped = matches!(self.kind, Kind::String { escaped: true })
            && inside.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
        if is_escaped { behind_quote } else { inside }
    }
}

/// The tokens of a text, in order, separated by blanks.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    behind: usize,
    depth: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of `text` from its start.
    #[must_use]
    #[inline]
    pub fn new(text: &'a [u8]) -> Self {
        Tokens { text, at: 0, behind: 0, depth: 0 }
    }

    /// The first byte of the next token. Skips the blanks before it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !is_blank(byte) {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Skips the next token if it is this comma or colon.
    #[inline]
    pub fn skip_separator(&mut self, separator: u8) {
        if matches!(separator, b',' | b':') && self.peek() == Some(separator) {
            self.at += 1;
            self.behind = self.at;
        }
    }

    /// The offset at which the search for the next token starts; after [`Tokens::peek`], that of its first byte.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The offset after the last token.
    #[must_use]
    pub fn end(&self) -> usize {
        self.behind
    }

    /// How many objects and arrays are open.
    #[must_use]
    #[inline]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Continues within the last token, at an offset after its start: for readers that take a part of a word.
    pub fn resume_at(&mut self, offset: usize) {
        (self.at, self.behind) = (offset, offset);
    }

    /// Skips one value and returns its bytes. They are empty where no value begins, and then nothing is skipped. They end
    /// with the text when it ends within the value.
    pub fn skip_value(&mut self) -> &'a [u8] {
        if matches!(self.peek(), None | Some(b'}' | b']' | b',' | b':')) {
            return &[];
        }
        let (start, outside) = (self.at, self.depth);
        while self.next().is_some() && self.depth > outside {}
        self.text.get(start..self.behind).unwrap_or_default()
    }

    /// Moves behind the string whose opening quote is at `at`. Returns whether it has a backslash.
    #[inline]
    fn string(&mut self) -> bool {
        let mut escaped = false;
        self.at += 1;
        while let Some(rest) = self.text.get(self.at..) {
            let plain = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            self.at += plain + 1;
            if rest.get(plain) != Some(&b'\\') {
                break;
            }
            escaped = true;
            self.at += 1;
        }
        self.at = self.at.min(self.text.len());
        escaped
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        let first = self.peek()?;
        let start = self.at;
        let kind = match first {
            b'"' => Kind::String { escaped: self.string() },
            b'{' | b'[' => {
                self.at += 1;
                self.depth += 1;
                if first == b'{' { Kind::BeginObject } else { Kind::BeginArray }
            }
            b'}' | b']' => {
                self.at += 1;
                self.depth = self.depth.saturating_sub(1);
                if first == b'}' { Kind::EndObject } else { Kind::EndArray }
            }
            b',' | b':' => {
                self.at += 1;
                if first == b',' { Kind::Comma } else { Kind::Colon }
            }
            _ => {
                let rest = self.text.get(start..).unwrap_or_default();
                self.at += rest.iter().position(|byte| ends_word(*byte)).unwrap_or(rest.len());
                Kind::Word
            }
        };
        self.behind = self.at;
        Some(Token { kind, start, text: self.text.get(start..self.at).unwrap_or_default() })
    }
}

#[inline]
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[inline]
fn ends_word(byte: u8) -> bool {
    matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']') || is_blank(byte)
}
