//! Reads the frames of a segment, and distinguishes a torn end from damage.

use std::sync::Arc;

use bytes::Bytes;

use super::disk::DiskFile;
use crate::StorageError;

/// The header of a frame, in one version of the form.
pub(crate) trait FrameForm: Sized {
    /// Its length in bytes.
    const LENGTH: usize;
    /// Decodes a header; `None` when the bytes are no header of a frame.
    fn decode(salt: u32, bytes: &[u8]) -> Option<Self>;
    /// Length of the payload.
    fn payload(&self) -> usize;
    /// Whether the length and the checksum of the payload match the header.
    fn fits(&self, salt: u32, payload: &[u8]) -> bool;
}

/// Reads one segment.
pub(crate) struct SegmentReader {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Only the last segment may be torn.
    pub(crate) is_last: bool,
    /// Where the next frame begins.
    pub(crate) offset: u64,
}

impl SegmentReader {
    /// Decodes the header of the segment, which is before the first frame; `None` when the segment was never started.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the header is damaged.
    pub(crate) fn head<H, const N: usize>(
        &mut self,
        decode: impl Fn(&[u8; N]) -> Option<H>,
    ) -> Result<Option<H>, StorageError> {
        let length = self.length()?;
        let mut bytes = [0; N];
        let is_whole = length >= N as u64;
        if is_whole {
            self.file.read_at(0, &mut bytes).map_err(failed)?;
        }
        match is_whole.then(|| decode(&bytes)).flatten() {
            Some(head) => {
                self.offset = N as u64;
                Ok(Some(head))
            }
            // The header is durable before the first frame is written.
            None if self.is_last && length <= N as u64 => Ok(None),
            None => Err(self.damaged(0)),
        }
    }

    /// Reads the next frame; `None` at the end. The last frame of the last segment may be torn: it was then never
    /// acknowledged, and is left out.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when anything else is damaged.
    pub(crate) fn frame<F: FrameForm>(&mut self, salt: u32) -> Result<Option<(F, Bytes)>, StorageError> {
        let length = self.length()?;
        if self.offset == length {
            return Ok(None);
        }
        if let Some((head, payload)) = self.frame_at::<F>(salt, self.offset, length)? {
            self.offset += (F::LENGTH + payload.len()) as u64;
            return Ok(Some((head, payload)));
        }
        let rest = self.read(self.offset, (length - self.offset) as usize)?;
        // The zeros at the end contain no frame.
        let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if !self.is_last || self.is_readable_in::<F>(salt, &rest, written, length)? {
            return Err(self.damaged(self.offset));
        }
        if written > 0 {
            tracing::warn!(segment = self.name, offset = self.offset, "the log ends in a torn write, which is ignored");
        }
        Ok(None)
    }

    /// Reads a whole frame at an offset.
    fn frame_at<F: FrameForm>(&self, salt: u32, offset: u64, length: u64) -> Result<Option<(F, Bytes)>, StorageError> {
        let Some(room) = (length - offset).checked_sub(F::LENGTH as u64) else {
            return Ok(None);
        };
        let Some(head) = F::decode(salt, &self.read(offset, F::LENGTH)?) else {
            return Ok(None);
        };
        if head.payload() as u64 > room {
            return Ok(None);
        }
        let payload = self.read(offset + F::LENGTH as u64, head.payload())?;
        Ok(head.fits(salt, &payload).then(|| (head, payload.into())))
    }

    /// Whether a whole frame begins in the first `written` bytes of the rest of the file, after the current offset: the
    /// bytes here are then damaged and not a torn end.
    fn is_readable_in<F: FrameForm>(
        &self,
        salt: u32,
        rest: &[u8],
        written: usize,
        length: u64,
    ) -> Result<bool, StorageError> {
        for place in 1..written.min(rest.len().saturating_sub(F::LENGTH - 1)) {
            let is_head = F::decode(salt, &rest[place..place + F::LENGTH]).is_some();
            if is_head && self.frame_at::<F>(salt, self.offset + place as u64, length)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Length of the file.
    pub(crate) fn length(&self) -> Result<u64, StorageError> {
        self.file.len().map_err(failed)
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; length];
        self.file.read_at(offset, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// The error for damage at an offset.
    pub(crate) fn damaged(&self, offset: u64) -> StorageError {
        StorageError::corrupt(format!("log segment {} is damaged at byte {offset}", self.name))
    }
}

fn failed(error: std::io::Error) -> StorageError {
    StorageError::io("read the log", error)
}
