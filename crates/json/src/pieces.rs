//! The inside of a string: plain bytes and escapes.

/// A part of the inside of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes that stand for themselves, at least one.
    Plain(&'a [u8]),
    /// An escape of two bytes such as `\n`, and the byte that it stands for.
    Byte(u8),
    /// An escape of six bytes: a code unit of UTF-16, which may be one half of a surrogate pair.
    Unit(u16),
    /// A backslash that begins no escape, with the byte behind it if there is one.
    Invalid(&'a [u8]),
}

impl Piece<'_> {
    /// How many bytes of UTF-8 it stands for. Each half of a surrogate pair counts two of the four bytes.
    #[must_use]
    #[inline]
    pub fn decoded_len(&self) -> usize {
        match self {
            Piece::Plain(bytes) => bytes.len(),
            Piece::Byte(_) | Piece::Invalid(_) | Piece::Unit(0..0x80) => 1,
            Piece::Unit(0x80..0x800 | 0xd800..0xe000) => 2,
            Piece::Unit(_) => 3,
        }
    }
}

/// The pieces of the inside of a string, in order.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    inside: &'a [u8],
    at: usize,
}

impl<'a> Pieces<'a> {
    /// The pieces of what stands between two quotes.
    #[must_use]
    #[inline]
    pub fn new(inside: &'a [u8]) -> Self {
        Pieces { inside, at: 0 }
    }

    /// The offset of the next piece.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    #[inline]
    fn escape(&mut self, rest: &'a [u8]) -> Piece<'a> {
        if let Some(unit) = unit(rest) {
            self.at += 6;
            return Piece::Unit(unit);
        }
        let (escape, _) = rest.split_at(rest.len().min(2));
        self.at += escape.len();
        match escape.get(1) {
            Some(b'b') => Piece::Byte(8),
            Some(b'f') => Piece::Byte(12),
            Some(b'n') => Piece::Byte(b'\n'),
            Some(b'r') => Piece::Byte(b'\r'),
            Some(b't') => Piece::Byte(b'\t'),
            Some(byte @ (b'"' | b'\\' | b'/')) => Piece::Byte(*byte),
            _ => Piece::Invalid(escape),
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    #[inline]
    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.inside.get(self.at..).filter(|rest| !rest.is_empty())?;
        match memchr::memchr(b'\\', rest) {
            Some(0) => Some(self.escape(rest)),
            plain => {
                let (plain, _) = rest.split_at(plain.unwrap_or(rest.len()));
                self.at += plain.len();
                Some(Piece::Plain(plain))
            }
        }
    }
}

/// The code unit of `\u` and four hexadecimal digits at the start of a text.
#[inline]
fn unit(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
    digits.iter().try_fold(0, |unit, byte| Some(unit << 4 | digit(byte)?))
}

/// How many bytes of UTF-8 the inside of a string stands for. An escape that is none counts one byte and what is behind
/// its first two bytes.
#[must_use]
pub fn decoded_len(inside: &[u8]) -> usize {
    Pieces::new(inside).map(|piece| piece.decoded_len()).sum()
}
