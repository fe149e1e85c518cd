//! The members of a tar archive in the format `ustar` (POSIX.1-1988, "tar interchange format").

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::format::SnapshotFileError;

/// The size of a header and of the blocks of an archive.
pub(super) const BLOCK: usize = 512;
/// The first size in bytes that does not have 11 octal digits. GNU tar writes it in binary.
const MAX_OCTAL: u64 = 1 << 33;
/// Marks a size in binary.
const BINARY: u8 = 0x80;
/// The longest `meta.json`, head, and other small members in bytes.
pub(super) const MAX_SMALL: u64 = 1 << 20;
/// The most bytes at the end of an archive, all zero.
const MAX_END: u64 = 64 << 10;

/// The bytes from the end of a member to the next block.
pub(super) fn padding(size: u64) -> usize {
    (size as usize).wrapping_neg() % BLOCK
}

/// A member with its content.
pub(super) fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let mut entry = header(name, content.len() as u64).to_vec();
    entry.extend_from_slice(content);
    entry.resize(entry.len() + padding(content.len() as u64), 0);
    entry
}

/// The header of a member of this size.
pub(super) fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000600");
    put(108, b"0000000");
    put(116, b"0000000");
    if size < MAX_OCTAL {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        put(124, &[BINARY]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum = checksum(&header);
    header[148..155].copy_from_slice(format!("{sum:06o}\u{0}").as_bytes());
    header
}

/// The sum of the bytes of a header, with blanks for its checksum.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let blank = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
    header.iter().enumerate().map(blank).sum()
}

/// The text of a field, up to a zero or a blank.
fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).unwrap_or_default()
}

fn octal(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(field), 8).ok()
}

/// The size in a header.
fn size(header: &[u8; BLOCK]) -> Option<u64> {
    if header[124] != BINARY {
        return octal(&header[124..136]);
    }
    let is_small = header[125..128].iter().all(|byte| *byte == 0);
    is_small.then(|| header[128..136].first_chunk().map(|bytes| u64::from_be_bytes(*bytes))).flatten()
}

/// An archive whose members have a fixed order.
pub(super) struct Archive<R>(pub(super) MultiGzDecoder<R>);

impl<R: Read> Archive<R> {
    pub(super) fn new(file: R) -> Self {
        Archive(MultiGzDecoder::new(file))
    }

    /// The size of the next member, which has this name.
    pub(super) fn next(&mut self, name: &'static str) -> Result<u64, SnapshotFileError> {
        let mut header = [0; BLOCK];
        self.0.read_exact(&mut header).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => SnapshotFileError::NoGzip,
            _ => unreadable(&error),
        })?;
        if octal(&header[148..156]) != Some(checksum(&header).into()) {
            return Err(SnapshotFileError::Damaged("no header of a tar archive"));
        }
        if text(&header[..100]) != name {
            return Err(SnapshotFileError::Damaged("the archive has other members"));
        }
        size(&header).ok_or(SnapshotFileError::Damaged("the size of a member"))
    }

    /// The content of a small member.
    pub(super) fn small(&mut self, name: &'static str) -> Result<Vec<u8>, SnapshotFileError> {
        let size = self.next(name)?;
        if size > MAX_SMALL {
            return Err(SnapshotFileError::Damaged("a member is too long"));
        }
        let mut content = vec![0; size as usize];
        self.fill(&mut content)?;
        self.skip(padding(size))?;
        Ok(content)
    }

    /// Reads the end, so that the checksum of the compression is checked.
    pub(super) fn end(&mut self) -> Result<(), SnapshotFileError> {
        let mut rest = Vec::new();
        (&mut self.0).take(MAX_END + 1).read_to_end(&mut rest).map_err(|error| unreadable(&error))?;
        if rest.len() as u64 > MAX_END || rest.iter().any(|byte| *byte != 0) {
            return Err(SnapshotFileError::Damaged("data behind the end of the archive"));
        }
        Ok(())
    }

    /// Reads exactly these bytes.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotFileError> {
        self.0.read_exact(bytes).map_err(|error| unreadable(&error))
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), SnapshotFileError> {
        let mut padding = [0; BLOCK];
        self.fill(&mut padding[..count])
    }
}

fn unreadable(error: &io::Error) -> SnapshotFileError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotFileError::Damaged("unexpected EOF"),
        _ => SnapshotFileError::Damaged("the compressed data is damaged"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_its_size_below_and_above_eight_gibibytes() {
        for bytes in [0, 511, MAX_OCTAL - 1, MAX_OCTAL, 1 << 40, u64::MAX] {
            let header = header("state.bin", bytes);
            assert_eq!(size(&header), Some(bytes));
            assert_eq!(octal(&header[148..156]), Some(checksum(&header).into()));
        }
    }
}
