//! The form of a log segment.
//!
//! ```text
//! segment = "KFLOGSEG"  version:u32 (1)  salt:u32  first:u64  crc:u32 (of all before)   then frames
//! frame   = length:u32 (of the payload)  count:u32  first:u64  payload_crc:u32  crc:u32 (of the 20 bytes before)  payload
//! payload = (length:u32 batch)*                       `count` of them, the first has the index `first`
//! ```
//!
//! Numbers are little-endian; `crc` is CRC-32 (IEEE) that begins with the salt. The salt is random, so that a client
//! that chooses stored paths cannot forge a frame. One write and one sync make one frame durable: only the last frame
//! of a log can be torn, and damage before a readable frame is corruption.

use bytes::{Buf, BufMut, Bytes};

use crate::Batch;

const MAGIC: &[u8; 8] = b"KFLOGSEG";
const VERSION: u32 = 1;
/// Length of the segment's header.
pub(crate) const HEADER: usize = 28;
/// Length of a frame's header.
pub(crate) const FRAME: usize = 24;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) salt: u32,
    /// Index of the first batch.
    pub(crate) first: u64,
}

impl Head {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut rest = &mut out[..];
        rest.put_slice(MAGIC);
        rest.put_u32_le(VERSION);
        rest.put_u32_le(self.salt);
        rest.put_u64_le(self.first);
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
        Some(Self { salt: rest.get_u32_le(), first: rest.get_u64_le() })
    }
}

/// Builds a frame. Its buffer is reused for the next one.
#[derive(Default)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl FrameBuilder {
    /// Begins a frame.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRAME, 0);
        self.count = 0;
        // A large batch must not occupy memory permanently.
        self.bytes.shrink_to(1 << 20);
    }

    /// Adds a batch.
    pub(crate) fn push(&mut self, batch: &Batch) {
        self.bytes.put_u32_le(batch.encoded_len() as u32);
        batch.encode(&mut self.bytes);
        self.count += 1;
    }

    /// Number of batches in the frame.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Completes the frame and returns its bytes.
    pub(crate) fn finish(&mut self, salt: u32, first: u64) -> &[u8] {
        let payload_crc = crc(salt, &self.bytes[FRAME..]);
        let length = (self.bytes.len() - FRAME) as u32;
        let mut head = &mut self.bytes[..FRAME];
        head.put_u32_le(length);
        head.put_u32_le(self.count);
        head.put_u64_le(first);
        head.put_u32_le(payload_crc);
        let head_crc = crc(salt, &self.bytes[..FRAME - 4]);
        self.bytes[FRAME - 4..FRAME].copy_from_slice(&head_crc.to_le_bytes());
        &self.bytes
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHead {
    pub(crate) length: usize,
    count: u32,
    pub(crate) first: u64,
    payload_crc: u32,
}

impl FrameHead {
    /// Decodes a header; `None` when the bytes are no header of a frame.
    pub(crate) fn decode(salt: u32, bytes: &[u8; FRAME]) -> Option<Self> {
        let (body, expected) = bytes.split_last_chunk::<4>()?;
        if crc(salt, body) != u32::from_le_bytes(*expected) {
            return None;
        }
        let mut rest = body;
        Some(Self {
            length: rest.get_u32_le() as usize,
            count: rest.get_u32_le(),
            first: rest.get_u64_le(),
            payload_crc: rest.get_u32_le(),
        })
    }

    /// Whether the length and the checksum of the payload match the header.
    pub(crate) fn fits(&self, salt: u32, payload: &[u8]) -> bool {
        payload.len() == self.length && crc(salt, payload) == self.payload_crc
    }

    /// The encoded batches of a payload that matches the header.
    pub(crate) fn batches(&self, mut payload: Bytes) -> Option<Vec<Bytes>> {
        let mut batches = Vec::new();
        for _ in 0..self.count {
            let length = payload.try_get_u32_le().ok()? as usize;
            if length > payload.len() {
                return None;
            }
            batches.push(payload.split_to(length));
        }
        payload.is_empty().then_some(batches)
    }
}

fn crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}
