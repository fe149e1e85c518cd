//! Counts the fields of a header block without decoding it (HPACK, RFC 7541 section 6).

/// The field count of one header block.
#[derive(Default)]
pub(super) struct Fields {
    count: u32,
    step: Step,
}

/// The position in a header block.
#[derive(Default, Clone, Copy)]
enum Step {
    /// At the first byte of a field.
    #[default]
    Field,
    /// In an index, before this number of strings.
    Index(u8),
    /// At the first byte of the first of these strings.
    String(u8),
    /// In the length of a string.
    Length { length: u64, shift: u32, strings: u8 },
    /// In a string, with the number of its remaining bytes.
    Text { left: u64, strings: u8 },
}

impl Fields {
    /// The number of begun fields and table size updates.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Processes a part of the block. The count of a malformed block is undefined: hyper closes its connection.
    pub(super) fn received(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Step::Text { left, strings } = self.step {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.step = text(left - here as u64, strings);
                bytes = &bytes[here..];
                continue;
            }
            bytes = rest;
            self.step = match self.step {
                Step::Field => self.field(byte),
                Step::Index(strings) if byte & 0x80 != 0 => Step::Index(strings),
                Step::Index(strings) => before_string(strings),
                Step::String(strings) => match byte & 0x7f {
                    0x7f => Step::Length { length: 0x7f, shift: 0, strings },
                    length => text(u64::from(length), strings),
                },
                Step::Length { length, shift, strings } => {
                    let length = length.saturating_add(u64::from(byte & 0x7f) << shift.min(56));
                    match byte & 0x80 {
                        0 => text(length, strings),
                        _ => Step::Length { length, shift: shift + 7, strings },
                    }
                }
                step @ Step::Text { .. } => step,
            };
        }
    }

    fn field(&mut self, byte: u8) -> Step {
        self.count = self.count.saturating_add(1);
        // Indexed; literal that enters the table; table size update; other literals.
        let (prefix, literal) = match byte {
            0x80.. => (0x7f, false),
            0x40.. => (0x3f, true),
            0x20.. => (0x1f, false),
            _ => (0x0f, true),
        };
        let index = byte & prefix;
        match (literal, index) {
            (true, 0) => Step::String(2),
            (_, index) if index == prefix => Step::Index(u8::from(literal)),
            (literal, _) => before_string(u8::from(literal)),
        }
    }
}

fn before_string(strings: u8) -> Step {
    if strings == 0 { Step::Field } else { Step::String(strings) }
}

/// In a string with `left` remaining bytes, or after it.
fn text(left: u64, strings: u8) -> Step {
    if left == 0 { before_string(strings - 1) } else { Step::Text { left, strings } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(block: &[u8], size: usize) -> u32 {
        let mut fields = Fields::default();
        block.chunks(size).for_each(|part| fields.received(part));
        fields.count()
    }

    #[test]
    fn fields_of_every_form_are_counted_in_every_division() {
        // RFC 7541 appendix C.2.1 to C.2.4, C.3.1 and C.4.1 (Huffman), an update, a long index and a long string.
        let long = [&b"\x00\x01a\x7f\x81\x01"[..], &[0xff; 256]].concat();
        let blocks: [(&[u8], u32); 9] = [
            (b"\x40\x0acustom-key\x0dcustom-header", 1),
            (b"\x04\x0c/sample/path", 1),
            (b"\x10\x08password\x06secret", 1),
            (b"\x82", 1),
            (b"\x82\x86\x84\x41\x0fwww.example.com", 4),
            (b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", 4),
            (b"\x3f\xe1\x1f\xff\x80\x01\x82", 3),
            (b"\x40\x00\x00\x0f\x10\x00\x82", 3),
            (&long, 1),
        ];
        for (block, expected) in blocks {
            for size in [1, 3, 1000] {
                assert_eq!(count(block, size), expected, "{block:x?}");
                assert_eq!(count(&[block, b"\xbe\xbe"].concat(), size), expected + 2, "{block:x?}");
            }
        }
    }
}
