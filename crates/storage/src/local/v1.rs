//! The log of format 1, which an upgrade reads. It has batches without reads, and no terms.
//!
//! ```text
//! log/<first>.seg                                 <first> is the index of the first batch, 20 digits
//! segment = "KFLOGSEG"  version:u32 (1)  salt:u32  first:u64  crc:u32 (of all before)   then frames
//! frame   = length:u32 (of the payload)  count:u32  first:u64  payload_crc:u32  crc:u32 (of the 20 bytes before)  payload
//! payload = (length:u32 batch)*                   `count` of them, the first has the index `first`
//! ```
//!
//! Numbers and checksums are as in [`segment`](super::segment).

use std::io;

use bytes::{Buf, BufMut, Bytes};

use super::{
    disk::Disk,
    scan::{FrameForm, SegmentReader},
    segment::{checked, crc},
    segment_files::{self, DIRECTORY, path},
};
use crate::StorageError;

const SUFFIX: &str = ".seg";
const MAGIC: &[u8; 8] = b"KFLOGSEG";
const VERSION: u32 = 1;
const HEADER: usize = 28;
const FRAME: usize = 24;

/// The header of a segment.
struct Head {
    salt: u32,
    first: u64,
}

impl Head {
    fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let mut rest = body.strip_prefix(MAGIC)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) || rest.get_u32_le() != VERSION {
            return None;
        }
        Some(Self { salt: rest.get_u32_le(), first: rest.get_u64_le() })
    }

    fn encode(&self) -> [u8; HEADER] {
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
}

/// The header of a frame.
struct FrameHead {
    length: usize,
    count: u32,
    first: u64,
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
    /// The encoded batches of a payload that matches the header.
    fn batches(&self, mut payload: Bytes) -> Option<Vec<Bytes>> {
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

/// Reads the batches after `applied`, in order, and passes each to `apply`. Returns the index of the last one.
///
/// The last group may be torn: it was then never acknowledged, and is skipped.
///
/// # Errors
/// [`StorageError::Corrupt`] when anything else is missing or damaged; those of `apply`.
pub(crate) fn replay(
    disk: &dyn Disk,
    applied: u64,
    mut apply: impl FnMut(Bytes) -> Result<(), StorageError>,
) -> Result<u64, StorageError> {
    let segments = segment_files::numbered(disk, SUFFIX)?;
    if segments.is_empty() && applied > 0 {
        return Err(StorageError::corrupt("the log is missing"));
    }
    let mut last = applied;
    for (place, (first, name)) in segments.iter().enumerate() {
        let following = segments.get(place + 1).map(|(first, _)| *first);
        if following.is_some_and(|following| following <= last + 1) {
            continue;
        }
        if *first > last + 1 {
            return Err(StorageError::corrupt(format!("batches {} to {} are missing in the log", last + 1, first - 1)));
        }
        let file = segment_files::open(disk, name)?;
        let mut reader = SegmentReader { name: name.clone(), file, is_last: following.is_none(), offset: 0 };
        let Some(head) = reader.head(|bytes| Head::decode(bytes).filter(|head| head.first == *first))? else {
            continue;
        };
        let mut next = *first;
        while let Some((frame, payload)) = reader.frame::<FrameHead>(head.salt)? {
            let batches = frame.batches(payload).filter(|_| frame.first == next);
            for batch in batches.ok_or_else(|| reader.damaged(reader.offset))? {
                if next == last + 1 {
                    apply(batch)?;
                    last = next;
                }
                next += 1;
            }
        }
    }
    Ok(last)
}

/// Deletes all segments.
pub(crate) fn delete(disk: &dyn Disk) -> io::Result<()> {
    for name in disk.names(DIRECTORY)?.iter().filter(|name| name.ends_with(SUFFIX)) {
        disk.remove(&path(name))?;
    }
    Ok(())
}

/// Creates a log without batches, durably; the next batch has the index `first`.
pub(crate) fn create(disk: &dyn Disk, salt: u32, first: u64) -> io::Result<()> {
    let file = disk.open(&path(&format!("{first:020}{SUFFIX}")), true)?.ok_or(io::ErrorKind::NotFound)?;
    file.set_len(0)?;
    file.write_at(0, &Head { salt, first }.encode())?;
    file.sync()?;
    disk.sync_directory(DIRECTORY)
}

/// A frame with these batches.
#[cfg(test)]
pub(crate) fn frame(salt: u32, first: u64, batches: &[crate::Batch]) -> Vec<u8> {
    let mut payload = Vec::new();
    for batch in batches {
        payload.put_u32_le(batch.encoded_len() as u32);
        batch.encode(&mut payload);
    }
    let mut frame = Vec::new();
    frame.put_u32_le(payload.len() as u32);
    frame.put_u32_le(batches.len() as u32);
    frame.put_u64_le(first);
    frame.put_u32_le(crc(salt, &payload));
    frame.put_u32_le(crc(salt, &frame));
    [frame, payload].concat()
}
