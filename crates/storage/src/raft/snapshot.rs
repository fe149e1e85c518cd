//! The form of a snapshot on its way: rows of the state, in parts of any lengths.
//!
//! ```text
//! snapshot = row*  end
//! row      = 1 text text                       a record: path and value
//!          | 2 term:u32 count:u64              encryptions under an earlier key term
//!          | 3 number:u32 text                 a staged part of a restore
//! end      = 0 key_term:u32 encryptions:u64 count:u64 digest:32
//! text     = length:u32 byte*
//! digest   = SHA-256(digest before, row)       of each row in turn, from 32 zeros on; then of `end` up to `count`
//! ```
//!
//! Numbers are little-endian. Position and members are in the head, which travels beside it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use keepfast_crypto::hash::sha256;

use crate::{
    Key, MAX_SNAPSHOT_PART, SnapshotParts, StorageError, blocking,
    local::image::{Image, Row, Rows},
};

const RECORD: u8 = 1;
const TERM: u8 = 2;
const STAGED: u8 = 3;
const END: u8 = 0;
/// The longest text of a row: a value that an earlier version has stored.
const MAX_TEXT: usize = 65 << 20;

/// What follows the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// The newest key term.
    pub(super) key_term: u32,
    /// The encryptions under it.
    pub(super) encryptions: u64,
}

/// Writes rows.
pub(super) struct Encoder {
    out: BytesMut,
    digest: [u8; 32],
    count: u64,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { out: BytesMut::new(), digest: [0; 32], count: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.digest = sha256(&[&self.digest[..], bytes].concat());
        self.out.extend_from_slice(bytes);
    }

    fn row(&mut self, row: &Row) {
        let mut bytes = Vec::new();
        match row {
            Row::Record(path, value) => {
                bytes.reserve_exact(9 + path.len() + value.len());
                bytes.put_u8(RECORD);
                put_text(&mut bytes, path.as_bytes());
                put_text(&mut bytes, value);
            }
            Row::Term(term, count) => {
                bytes.put_u8(TERM);
                bytes.put_u32_le(*term);
                bytes.put_u64_le(*count);
            }
            Row::Staged(number, part) => {
                bytes.put_u8(STAGED);
                bytes.put_u32_le(*number);
                put_text(&mut bytes, part);
            }
        }
        self.count += 1;
        self.push(&bytes);
    }

    fn end(&mut self, counts: Counts) {
        let mut bytes = vec![END];
        bytes.put_u32_le(counts.key_term);
        bytes.put_u64_le(counts.encryptions);
        bytes.put_u64_le(self.count);
        self.push(&bytes);
        self.out.extend_from_slice(&self.digest);
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.put_u32_le(text.len() as u32);
    out.extend_from_slice(text);
}

/// The parts of an image of the state. They are read on threads for that; `None` while one reads, or if it has panicked.
pub(super) struct StateParts(Option<Box<Reader>>);

struct Reader {
    rows: Option<Rows>,
    counts: Counts,
    encoder: Encoder,
}

impl StateParts {
    pub(super) fn of(image: &Image) -> Result<Self, StorageError> {
        let encryptions = if planted!(CountNotCarriedOver) { 0 } else { image.position.encryptions };
        let counts = Counts { key_term: image.position.key_term, encryptions };
        Ok(Self(Some(Box::new(Reader { rows: Some(image.rows()?), counts, encoder: Encoder::new() }))))
    }
}

#[async_trait::async_trait]
impl SnapshotParts for StateParts {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let lost = || StorageError::corrupt("reading a snapshot has panicked or was dropped");
        let mut reader = self.0.take().ok_or_else(lost)?;
        let read = blocking::run(move || (reader.part(), reader)).await;
        let (part, reader) = read.map_err(|_| lost())?;
        self.0 = Some(reader);
        part
    }
}

impl Reader {
    fn part(&mut self) -> Result<Option<Bytes>, StorageError> {
        while self.encoder.out.len() < MAX_SNAPSHOT_PART
            && let Some(rows) = &mut self.rows
        {
            match rows.next()? {
                Some(row) => self.encoder.row(&row),
                None => {
                    self.rows = None;
                    self.encoder.end(self.counts);
                }
            }
        }
        let length = self.encoder.out.len().min(MAX_SNAPSHOT_PART);
        Ok((length > 0).then(|| self.encoder.out.split_to(length).freeze()))
    }
}

/// Reads rows, and checks count and digest.
pub(super) struct Decoder {
    input: BytesMut,
    digest: [u8; 32],
    count: u64,
    counts: Option<Counts>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { input: BytesMut::new(), digest: [0; 32], count: 0, counts: None }
    }

    /// The rows that are complete after this part.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] for any form that is not written, and for a part of more than [`MAX_SNAPSHOT_PART`].
    pub(super) fn part(&mut self, part: &[u8]) -> Result<Vec<Row>, StorageError> {
        if part.len() > MAX_SNAPSHOT_PART || self.counts.is_some() {
            return Err(damaged());
        }
        self.input.extend_from_slice(part);
        let mut rows = Vec::new();
        while self.counts.is_none()
            && let Some(length) = length(&self.input)?
        {
            let bytes = self.input.split_to(length).freeze();
            if bytes.first() == Some(&END) {
                self.end(&bytes)?;
                break;
            }
            self.digest = sha256(&[&self.digest[..], &bytes].concat());
            self.count += 1;
            rows.push(row(bytes).ok_or_else(damaged)?);
        }
        if self.counts.is_some() && !self.input.is_empty() {
            return Err(damaged());
        }
        Ok(rows)
    }

    fn end(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let (mut fields, digest) = bytes.split_at(END_LENGTH - 32);
        if sha256(&[&self.digest[..], fields].concat()) != digest && !planted!(DigestUnchecked) {
            return Err(damaged());
        }
        fields.advance(1);
        let counts = Counts { key_term: fields.get_u32_le(), encryptions: fields.get_u64_le() };
        if fields.get_u64_le() != self.count {
            return Err(damaged());
        }
        self.counts = Some(counts);
        Ok(())
    }

    /// What follows the rows.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the snapshot is not complete.
    pub(super) fn finish(self) -> Result<Counts, StorageError> {
        self.counts.ok_or_else(damaged)
    }
}

/// Reads the records of a snapshot from its parts, and checks their count and digest.
pub struct SnapshotRecords(Decoder);

impl Default for SnapshotRecords {
    fn default() -> Self {
        Self(Decoder::new())
    }
}

impl SnapshotRecords {
    /// The records that are complete after this part, as they are stored: encrypted.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] for any other form, and for a part of more than [`MAX_SNAPSHOT_PART`].
    pub fn part(&mut self, part: &[u8]) -> Result<Vec<(Key, Bytes)>, StorageError> {
        let mut records = Vec::new();
        for row in self.0.part(part)? {
            if let Row::Record(path, value) = row {
                records.push((Key::new(path)?, value));
            }
        }
        Ok(records)
    }

    /// Checks that the last part was the end.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when it was not.
    pub fn finish(self) -> Result<(), StorageError> {
        self.0.finish().map(drop)
    }
}

const END_LENGTH: usize = 1 + 4 + 8 + 8 + 32;

/// The length of the next row; `None` when it is not complete.
fn length(input: &[u8]) -> Result<Option<usize>, StorageError> {
    let Some(kind) = input.first() else { return Ok(None) };
    let text = |at: usize| -> Result<Option<usize>, StorageError> {
        let Some(length) = input.get(at..at + 4) else { return Ok(None) };
        let length = u32::from_le_bytes(length.try_into().map_err(|_| damaged())?) as usize;
        if length > MAX_TEXT { Err(damaged()) } else { Ok(Some(at + 4 + length)) }
    };
    let whole = match *kind {
        RECORD => match text(1)? {
            Some(value) => text(value)?,
            None => None,
        },
        TERM => Some(13),
        STAGED => text(5)?,
        END => Some(END_LENGTH),
        _ => return Err(damaged()),
    };
    Ok(whole.filter(|whole| *whole <= input.len()))
}

/// A row that is complete.
fn row(mut bytes: Bytes) -> Option<Row> {
    let text = |bytes: &mut Bytes| {
        let length = bytes.try_get_u32_le().ok()? as usize;
        (length <= bytes.len()).then(|| bytes.split_to(length))
    };
    Some(match bytes.try_get_u8().ok()? {
        RECORD => {
            let path = text(&mut bytes)?;
            crate::Key::new(std::str::from_utf8(&path).ok()?).ok()?;
            Row::Record(std::str::from_utf8(&path).ok()?.to_owned(), text(&mut bytes)?)
        }
        TERM => Row::Term(bytes.try_get_u32_le().ok()?, bytes.try_get_u64_le().ok()?),
        STAGED => Row::Staged(bytes.try_get_u32_le().ok()?, text(&mut bytes)?),
        _ => return None,
    })
}

pub(super) fn damaged() -> StorageError {
    StorageError::corrupt("the snapshot is damaged or incomplete")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let record =
            |path: &str, value: &'static str| Row::Record(path.to_owned(), Bytes::from_static(value.as_bytes()));
        vec![record("a", "1"), record("b/c", ""), Row::Term(3, 4), Row::Staged(0, Bytes::from_static(&[9; 32]))]
    }

    fn encoded() -> Vec<u8> {
        let mut encoder = Encoder::new();
        rows().iter().for_each(|row| encoder.row(row));
        encoder.end(Counts { key_term: 5, encryptions: 6 });
        encoder.out.to_vec()
    }

    fn decode(bytes: &[u8], size: usize) -> Result<(Vec<Row>, Counts), StorageError> {
        let (mut decoder, mut rows) = (Decoder::new(), Vec::new());
        for part in bytes.chunks(size) {
            rows.extend(decoder.part(part)?);
        }
        Ok((rows, decoder.finish()?))
    }

    #[test]
    fn a_snapshot_is_read_alike_in_parts_of_any_length() {
        for size in [1, 2, 7, 1000] {
            assert_eq!(decode(&encoded(), size).unwrap(), (rows(), Counts { key_term: 5, encryptions: 6 }));
        }
    }

    #[test]
    fn a_snapshot_that_is_cut_or_changed_is_refused() {
        let bytes = encoded();
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut], 1000).is_err(), "{cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, 1000).is_err(), "{bit}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat(), 1000).is_err());
        assert!(decode(&[&bytes[..], &[0]].concat(), 1).is_err());
    }

    #[test]
    fn a_length_beyond_its_bound_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::new();
        assert!(decoder.part(&[RECORD, 255, 255, 255, 255]).is_err());
    }
}
