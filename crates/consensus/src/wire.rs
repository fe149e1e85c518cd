//! Reading and writing of the binary forms of this crate: little-endian numbers, bytes with their length before them,
//! everything bounded.

use bytes::{Buf, Bytes};

/// The largest index, term or id on the wire: sums of two stay in a u64.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

/// Bytes that are not in the form that they should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end in the middle of a field.
    #[error("it ends too early")]
    Short,
    /// There are bytes behind the last field.
    #[error("it has {0} bytes too many")]
    Trailing(usize),
    /// A version that this program does not know.
    #[error("version {0} is unknown")]
    Version(u8),
    /// A kind that this program does not know.
    #[error("kind {0} is unknown")]
    Kind(u8),
    /// A flag that is neither 0 nor 1.
    #[error("a flag is {0}")]
    Flag(u8),
    /// A number or length beyond its bound.
    #[error("{0} is beyond its bound")]
    Bound(&'static str),
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
}

/// Reads fields from the front of bytes, without copies.
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The next `n` bytes, which share the memory of the whole.
    pub(crate) fn take(&mut self, n: usize) -> Result<Bytes, WireError> {
        if n > self.0.len() {
            return Err(WireError::Short);
        }
        Ok(self.0.split_to(n))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| WireError::Short)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.0.try_get_u16_le().map_err(|_| WireError::Short)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.0.try_get_u32_le().map_err(|_| WireError::Short)
    }

    /// Any number: nonces and counters.
    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.0.try_get_u64_le().map_err(|_| WireError::Short)
    }

    /// An index, a term or an id.
    pub(crate) fn number(&mut self) -> Result<u64, WireError> {
        let number = self.u64()?;
        if number > MAX_NUMBER { Err(WireError::Bound("a number")) } else { Ok(number) }
    }

    pub(crate) fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Flag(other)),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        self.0.try_copy_to_slice(&mut array).map_err(|_| WireError::Short)?;
        Ok(array)
    }

    /// Text of at most `most` bytes, with a length of two bytes.
    pub(crate) fn text(&mut self, most: usize) -> Result<String, WireError> {
        let length = usize::from(self.u16()?);
        if length > most {
            return Err(WireError::Bound("a text"));
        }
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| WireError::Text)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.0
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}

/// Appends a text with its length in two bytes. A longer text is cut: the writer bounds it before.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(&text.as_bytes()[..usize::from(length)]);
}

/// Appends a number.
pub(crate) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

/// Appends a number.
pub(crate) fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_le_bytes());
}
