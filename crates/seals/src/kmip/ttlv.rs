//! TTLV, the encoding of KMIP: tag, type, length and value, padded to 8 bytes.
//!
//! Source: KMIP Specification version 1.4, section 9.1.

use keepfast_crypto::secret::SecretBytes;

/// A tag, three bytes.
pub(super) type Tag = u32;

/// The longest message, with its header.
pub(super) const MAX_MESSAGE: usize = 16 * 1024;
/// Bytes of a header: tag, type, length.
pub(super) const HEADER: usize = 8;
/// The room of a message that is written. Ours are shorter: the buffer does not grow.
const ROOM: usize = 2048;

/// The types that the seal uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Structure = 1,
    Integer = 2,
    Enumeration = 5,
    TextString = 7,
    ByteString = 8,
}

/// A message that is being written, wiped when dropped.
pub(super) struct Writer(SecretBytes);

impl Writer {
    pub(super) fn new() -> Self {
        Writer(SecretBytes::new(Vec::with_capacity(ROOM)))
    }

    /// The message.
    pub(super) fn finish(self) -> SecretBytes {
        self.0
    }

    pub(super) fn structure(&mut self, tag: Tag, content: impl FnOnce(&mut Self)) {
        self.header(tag, Kind::Structure, 0);
        let start = self.0.expose().len();
        content(self);
        let length = u32::try_from(self.0.expose().len() - start).unwrap_or(u32::MAX);
        self.0.expose_mut()[start - 4..start].copy_from_slice(&length.to_be_bytes());
    }

    pub(super) fn integer(&mut self, tag: Tag, value: u32) {
        self.value(tag, Kind::Integer, &value.to_be_bytes());
    }

    pub(super) fn enumeration(&mut self, tag: Tag, value: u32) {
        self.value(tag, Kind::Enumeration, &value.to_be_bytes());
    }

    pub(super) fn text(&mut self, tag: Tag, value: &str) {
        self.value(tag, Kind::TextString, value.as_bytes());
    }

    pub(super) fn bytes(&mut self, tag: Tag, value: &[u8]) {
        self.value(tag, Kind::ByteString, value);
    }

    fn header(&mut self, tag: Tag, kind: Kind, length: usize) {
        let out = self.0.expose_mut();
        out.extend_from_slice(&tag.to_be_bytes()[1..]);
        out.push(kind as u8);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn value(&mut self, tag: Tag, kind: Kind, value: &[u8]) {
        self.header(tag, kind, value.len());
        let out = self.0.expose_mut();
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

/// An element of a message.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) tag: Tag,
    kind: u8,
    value: &'a [u8],
}

impl<'a> Item<'a> {
    /// The first element of `bytes`, and the bytes after its padding.
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let tag = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let length = usize::try_from(u32::from_be_bytes([header[4], header[5], header[6], header[7]])).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        let padding = length.checked_next_multiple_of(8)? - length;
        Some((Item { tag, kind: header[3], value }, rest.get(padding..)?))
    }

    /// The elements of a structure, up to the first malformed one.
    pub(super) fn children(self) -> impl Iterator<Item = Item<'a>> {
        let mut rest = if self.kind == Kind::Structure as u8 { self.value } else { &[] };
        std::iter::from_fn(move || {
            let (item, next) = Item::read(rest)?;
            rest = next;
            Some(item)
        })
    }

    /// The first element of a structure with this tag.
    pub(super) fn child(self, tag: Tag) -> Option<Item<'a>> {
        self.children().find(|item| item.tag == tag)
    }

    /// The number of an integer or an enumeration.
    pub(super) fn number(self) -> Option<u32> {
        let is_number = self.kind == Kind::Integer as u8 || self.kind == Kind::Enumeration as u8;
        Some(u32::from_be_bytes(self.value.try_into().ok().filter(|_| is_number)?))
    }

    #[cfg(test)]
    pub(super) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.value).ok().filter(|_| self.kind == Kind::TextString as u8)
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        (self.kind == Kind::ByteString as u8).then_some(self.value)
    }
}

/// The length of a message after its header; `None` when it is not a structure or too long.
pub(super) fn length_after(header: [u8; HEADER]) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes([header[4], header[5], header[6], header[7]])).ok()?;
    (header[3] == Kind::Structure as u8 && length <= MAX_MESSAGE - HEADER).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The examples of the specification, section 9.1.2.
    #[test]
    fn elements_are_encoded_as_in_the_specification() {
        let mut writer = Writer::new();
        writer.integer(0x42_0020, 8);
        writer.enumeration(0x42_0020, 255);
        writer.text(0x42_0020, "Hello World");
        writer.bytes(0x42_0020, &[1, 2, 3]);
        writer.structure(0x42_0020, |inner| {
            inner.enumeration(0x42_0004, 254);
            inner.integer(0x42_0005, 255);
        });
        let expected = "42002002000000040000000800000000\
                        4200200500000004000000ff00000000\
                        420020070000000b48656c6c6f20576f726c640000000000\
                        42002008000000030102030000000000\
                        42002001000000204200040500000004000000fe000000004200050200000004000000ff00000000";
        assert_eq!(hex::encode(writer.finish().expose()), expected);
    }

    #[test]
    fn truncated_and_wrong_elements_are_not_read() {
        let mut writer = Writer::new();
        writer.structure(0x42_0020, |inner| {
            inner.integer(1, 7);
            inner.bytes(2, b"abc");
            inner.text(3, "t");
        });
        let whole = writer.finish();
        let (item, rest) = Item::read(whole.expose()).unwrap();
        assert!(rest.is_empty());
        assert_eq!((item.child(1).unwrap().number(), item.child(1).unwrap().bytes().is_some()), (Some(7), false));
        assert_eq!((item.child(2).unwrap().bytes(), item.child(2).unwrap().number()), (Some(&b"abc"[..]), None));
        assert_eq!((item.child(3).unwrap().text(), item.child(4).is_none()), (Some("t"), true));
        for cut in 0..whole.expose().len() {
            assert!(Item::read(&whole.expose()[..cut]).is_none(), "{cut}");
        }
        for (at, byte) in whole.expose().iter().enumerate() {
            let mut damaged = whole.expose().clone();
            damaged[at] = byte ^ 0xff;
            // No panic, and no read behind the end.
            let _ = Item::read(&damaged)
                .map(|(item, _)| item.children().map(|item| item.children().count()).sum::<usize>());
        }
        assert_eq!(length_after([0x42, 0, 0x7b, 1, 0, 0, 0, 16]), Some(16));
        assert_eq!(length_after([0x42, 0, 0x7b, 1, 0, 1, 0, 0]), None);
        assert_eq!(length_after([0x42, 0, 0x7b, 2, 0, 0, 0, 16]), None);
    }
}
