//! The form of a log segment, version 2.
//!
//! ```text
//! segment = "KFLOGSEG"  version:u32 (2)  salt:u32  first:u64  before_term:u64  hard  crc:u32 (of all before)   then frames
//! frame   = length:u32 (of the payload)  count:u32  first:u64  hard  payload_crc:u32  crc:u32 (of the 44 bytes before)  payload
//! hard    = committed:u64  vote_term:u64  vote_for:u64
//! payload = (length:u32 term:u64 kind:u8 body)*       `count` of them, the first has the index `first`; `length` is the body's
//! ```
//!
//! Numbers are little-endian; `crc` is CRC-32 (IEEE) that begins with the salt. The salt is random, so that a client
//! that chooses stored paths cannot forge a frame. One write and one sync make one frame durable: only the last frame
//! of a log can be torn, and damage before a readable frame is corruption. Damage of the last frame after its sync cannot
//! be told from a torn write. The last segment may end in zeros, over which the next frames are written.
//!
//! A frame with entries replaces all earlier entries from `first` on: a log is truncated by an append. A frame without
//! entries has the next index. Every frame has the hard state, and so has the header of a segment, because the segments
//! before it are deleted.
//!
//! A segment whose `first` is not the next index is valid once it has a frame. It replaces the entries from `first`
//! on, or all of them when the entry before `first` is another one.

use bytes::{Buf, BufMut, Bytes};

use super::{
    entry::{Entry, HardState, Kind, LogId, RaftId, Vote},
    scan::FrameForm,
};
use crate::{Batch, StorageError};

const MAGIC: &[u8; 8] = b"KFLOGSEG";
const VERSION: u32 = 2;
/// Length of the segment's header.
pub(crate) const HEADER: usize = 60;
/// Length of a frame's header.
pub(crate) const FRAME: usize = 48;
/// Length of an entry's header.
const ENTRY: usize = 13;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) salt: u32,
    /// Index of the first entry; no frame of the segment begins before it.
    pub(crate) first: u64,
    /// Term of the entry before the first.
    pub(crate) before_term: u64,
    /// The hard state when the segment was created.
    pub(crate) hard: HardState,
}

impl Head {
    /// The id of the entry before the first.
    pub(crate) fn before(&self) -> LogId {
        LogId { term: self.before_term, index: self.first.saturating_sub(1) }
    }

    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut rest = &mut out[..];
        rest.put_slice(MAGIC);
        rest.put_u32_le(VERSION);
        rest.put_u32_le(self.salt);
        rest.put_u64_le(self.first);
        rest.put_u64_le(self.before_term);
        put_hard(&mut rest, self.hard);
        let crc = crc32fast::hash(&out[..HEADER - 4]);
        out[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes a header; `None` for any form that [`encode`](Self::encode) does not write.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let mut rest = body.strip_prefix(MAGIC)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) || rest.get_u32_le() != VERSION {
            return None;
        }
        Some(Self {
            salt: rest.get_u32_le(),
            first: rest.get_u64_le(),
            before_term: rest.get_u64_le(),
            hard: take_hard(&mut rest),
        })
    }
}

/// A frame that is being built. Its buffer is reused for the next one.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    count: u32,
    first: u64,
    /// The index from which on entries have a term, for each term in the frame.
    terms: Vec<(u64, u64)>,
    /// The hard state that becomes durable with the frame.
    pub(crate) hard: HardState,
}

impl Frame {
    /// A frame without entries.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; FRAME], count: 0, first: 0, terms: Vec::new(), hard: HardState::default() }
    }

    /// Begins a frame whose first entry gets the index `first`.
    pub(crate) fn begin(&mut self, first: u64, hard: HardState) {
        self.bytes.clear();
        self.bytes.resize(FRAME, 0);
        // A large batch must not occupy memory permanently.
        self.bytes.shrink_to(1 << 20);
        self.terms.clear();
        (self.count, self.first, self.hard) = (0, first, hard);
    }

    /// Adds a batch as an entry, and returns its id.
    pub(crate) fn push_batch(&mut self, term: u64, batch: &Batch) -> LogId {
        let id = self.entry(term, Kind::Batch as u8, batch.encoded_len());
        batch.encode(&mut self.bytes);
        id
    }

    /// Adds an entry with an encoded payload, and returns its id.
    pub(crate) fn push(&mut self, term: u64, payload: &[u8]) -> LogId {
        // Of a blank entry, whose payload is empty, the log stores the kind.
        let Some((kind, body)) = payload.split_first() else { return self.entry(term, Kind::Blank as u8, 0) };
        let id = self.entry(term, *kind, body.len());
        self.bytes.put_slice(body);
        id
    }

    fn entry(&mut self, term: u64, kind: u8, length: usize) -> LogId {
        let index = self.first + u64::from(self.count);
        self.bytes.put_u32_le(length as u32);
        self.bytes.put_u64_le(term);
        self.bytes.put_u8(kind);
        self.count += 1;
        note_term(&mut self.terms, index, term);
        LogId { term, index }
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Index of the first entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The index from which on entries have a term, for each term in the frame.
    pub(crate) fn terms(&self) -> &[(u64, u64)] {
        &self.terms
    }

    /// Completes the frame and returns its bytes.
    pub(crate) fn finish(&mut self, salt: u32) -> &[u8] {
        let payload_crc = crc(salt, &self.bytes[FRAME..]);
        let length = (self.bytes.len() - FRAME) as u32;
        let mut head = &mut self.bytes[..FRAME];
        head.put_u32_le(length);
        head.put_u32_le(self.count);
        head.put_u64_le(self.first);
        put_hard(&mut head, self.hard);
        head.put_u32_le(payload_crc);
        let head_crc = crc(salt, &self.bytes[..FRAME - 4]);
        self.bytes[FRAME - 4..FRAME].copy_from_slice(&head_crc.to_le_bytes());
        &self.bytes
    }

    /// Calls `write` with the bytes of a complete frame, followed by zeros. The zeros do not stay in the frame, which the
    /// caller may append again when the write fails.
    pub(crate) fn followed_by<T>(&mut self, zeros: u64, write: impl FnOnce(&[u8]) -> T) -> T {
        let length = self.bytes.len();
        self.bytes.resize(length + zeros as usize, 0);
        let result = write(&self.bytes);
        self.bytes.truncate(length);
        result
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHead {
    length: usize,
    pub(crate) count: u32,
    pub(crate) first: u64,
    pub(crate) hard: HardState,
    payload_crc: u32,
}

impl FrameForm for FrameHead {
    const LENGTH: usize = FRAME;

    fn decode(salt: u32, bytes: &[u8]) -> Option<Self> {
        let mut rest = checked(salt, bytes)?;
        Some(Self {
            length: rest.get_u32_le() as usize,
            count: rest.get_u32_le(),
            first: rest.get_u64_le(),
            hard: take_hard(&mut rest),
            payload_crc: rest.get_u32_le(),
        })
    }

    fn payload(&self) -> usize {
        self.length
    }

    fn fits(&self, salt: u32, payload: &[u8]) -> bool {
        payload.len() == self.length && crc(salt, payload) == self.payload_crc
    }
}

impl FrameHead {
    /// The terms of a payload that matches the header, as [`Frame::terms`]; `None` when it is damaged.
    pub(crate) fn terms(&self, payload: &[u8]) -> Option<Vec<(u64, u64)>> {
        let (mut terms, mut rest) = (Vec::new(), payload);
        for place in 0..self.count {
            let length = rest.try_get_u32_le().ok()? as usize;
            note_term(&mut terms, self.first.checked_add(u64::from(place))?, rest.try_get_u64_le().ok()?);
            rest = rest.get(1 + length..)?;
        }
        rest.is_empty().then_some(terms)
    }

    /// The entries of a payload whose [`terms`](Self::terms) could be read.
    ///
    /// # Errors
    /// [`StorageError::Layout`] for an entry of an unknown kind.
    pub(crate) fn entries(&self, mut payload: Bytes) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::with_capacity(self.count as usize);
        for index in (self.first..).take(self.count as usize) {
            if payload.len() < ENTRY {
                return Err(StorageError::corrupt("a log entry is cut"));
            }
            let (length, term) = (payload.get_u32_le() as usize, payload.get_u64_le());
            if length >= payload.len() {
                return Err(StorageError::corrupt("a log entry is cut"));
            }
            let payload = payload.split_to(1 + length);
            entries.push(Entry { id: LogId { term, index }, payload: stored_payload(payload)? });
        }
        Ok(entries)
    }
}

/// The payload of an entry from its kind and its body in a log.
fn stored_payload(payload: Bytes) -> Result<Bytes, StorageError> {
    let byte = payload.first().copied().unwrap_or_default();
    match Kind::from_byte(byte) {
        Some(Kind::Blank) if payload.len() > 1 => Err(StorageError::corrupt("a blank log entry has a body")),
        Some(Kind::Blank) => Ok(Bytes::new()),
        Some(_) => Ok(payload),
        None => {
            let text = format!("its log has an entry of kind {byte}, which this program does not know");
            Err(StorageError::Layout(text.into()))
        }
    }
}

/// Adds the term of the entry at `index` to the terms of the entries before it.
pub(crate) fn note_term(terms: &mut Vec<(u64, u64)>, index: u64, term: u64) {
    if terms.last().is_none_or(|(_, last)| *last != term) {
        terms.push((index, term));
    }
}

fn put_hard(out: &mut impl BufMut, hard: HardState) {
    out.put_u64_le(hard.committed);
    out.put_u64_le(hard.vote.term);
    out.put_u64_le(hard.vote.candidate.0);
}

fn take_hard(input: &mut impl Buf) -> HardState {
    let committed = input.get_u64_le();
    let vote = Vote { term: input.get_u64_le(), candidate: RaftId(input.get_u64_le()) };
    HardState { vote, committed }
}

/// The fields of the header of a frame before its checksum; `None` when the checksum is wrong.
pub(crate) fn checked(salt: u32, header: &[u8]) -> Option<&[u8]> {
    let (fields, expected) = header.split_last_chunk::<4>()?;
    (crc(salt, fields) == u32::from_le_bytes(*expected)).then_some(fields)
}

pub(crate) fn crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        let hard = HardState { vote: Vote { term: 5, candidate: RaftId(6) }, committed: 7 };
        Head { salt: 1, first: 2, before_term: 3, hard }
    }

    fn entry(term: u64, index: u64, kind: u8, body: &[u8]) -> Entry {
        Entry::new(LogId { term, index }, Kind::from_byte(kind).unwrap(), body)
    }

    #[test]
    fn a_changed_header_of_a_segment_is_no_header() {
        let bytes = head().encode();
        assert_eq!(Head::decode(&bytes), Some(head()));
        for bit in 0..HEADER * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn an_entry_of_an_unknown_kind_is_an_error() {
        let mut frame = Frame::new();
        frame.begin(1, head().hard);
        frame.push(1, &Entry::new(LogId::default(), Kind::Batch, b"body").payload);
        let mut bytes = frame.finish(0).to_vec();
        let found = FrameHead::decode(0, &bytes[..FRAME]).unwrap();
        let payload = bytes.split_off(FRAME);
        assert_eq!(found.entries(payload.clone().into()).unwrap().len(), 1);
        let unknown: Vec<u8> = [&payload[..ENTRY - 1], &[99], &payload[ENTRY..]].concat();
        assert!(matches!(found.entries(unknown.into()), Err(StorageError::Layout(_))));
        let full_blank: Vec<u8> = [&payload[..ENTRY - 1], &[1], &payload[ENTRY..]].concat();
        assert!(matches!(found.entries(full_blank.into()), Err(StorageError::Corrupt(_))));
    }

    proptest! {
        #[test]
        fn a_frame_has_the_entries_that_were_pushed(
            entries in proptest::collection::vec((1_u64..4, 1_u8..8, any::<Vec<u8>>()), 0..6),
            salt: u32, first in 1_u64..1 << 40,
        ) {
            let mut frame = Frame::new();
            frame.begin(first, head().hard);
            for (term, kind, body) in &entries {
                frame.push(*term, &entry(*term, 0, *kind, body).payload);
            }
            let terms = frame.terms().to_vec();
            let bytes = frame.finish(salt).to_vec();
            let (head_bytes, payload) = bytes.split_first_chunk::<FRAME>().unwrap();
            let found = FrameHead::decode(salt, head_bytes).unwrap();
            prop_assert!(FrameHead::decode(salt ^ 1, head_bytes).is_none());
            prop_assert!(found.fits(salt, payload) && !found.fits(salt, &[payload, &[0]].concat()));
            prop_assert_eq!((found.first, found.hard), (first, head().hard));
            prop_assert_eq!(found.terms(payload).unwrap(), terms);
            let expected: Vec<_> = (first..).zip(&entries).map(|(index, (term, kind, body))| entry(*term, index, *kind, body)).collect();
            prop_assert_eq!(found.entries(payload.to_vec().into()).unwrap(), expected);
        }

        #[test]
        fn decoding_a_payload_never_panics(count in 0_u32..5, first: u64, payload: Vec<u8>) {
            let head = FrameHead { length: payload.len(), count, first, hard: HardState::default(), payload_crc: 0 };
            let _ = head.terms(&payload);
            let _ = head.entries(payload.into());
        }
    }
}
