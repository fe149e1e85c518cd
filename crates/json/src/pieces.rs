//! The content of a string: plain bytes and escapes.

/// A part of the content of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Unescaped bytes, at least one.
    Plain(&'a [u8]),
    /// A two-byte escape such as `\n`, decoded.
    Byte(u8),
    /// A six-byte escape, decoded: a UTF-16 code unit, which may be half of a surrogate pair.
    Unit(u16),
    /// A backslash that begins no valid escape, and the byte after it if there is one.
    Invalid(&'a [u8]),
}

impl Piece<'_> {
    /// The decoded length in bytes of UTF-8. Each half of a surrogate pair counts two of the four bytes.
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

/// The pieces of the content of a string, in order.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    inside: &'a [u8],
    at: usize,
}

impl<'a> Pieces<'a> {
    /// The pieces of the text between two quotes.
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

/// The code unit of `\u` and four hexadecimal digits at the start of `rest`.
#[inline]
fn unit(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
    digits.iter().try_fold(0, |unit, byte| Some(unit << 4 | digit(byte)?))
}

/// The decoded length of the content of a string in bytes of UTF-8. An invalid escape counts one byte, plus the bytes
/// after its first two.
#[must_use]
pub fn decoded_len(inside: &[u8]) -> usize {
    Pieces::new(inside).map(|piece| piece.decoded_len()).sum()
}
