//! Reads the file of a snapshot.

use std::io::Read;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::compare;
use keepfast_crypto::hash::{Sha256Stream, sha256};
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::locked::Key256;
use keepfast_storage::{MAX_SNAPSHOT_PART, SnapshotParts, StorageError};

use super::archive::{Archive, MAX_SMALL, padding};
use super::format::{MAGIC, NAMES, SnapshotDetails, SnapshotFileError, sums};

/// A snapshot file whose digests match.
pub struct VerifiedSnapshot {
    /// What it is of.
    pub details: SnapshotDetails,
    /// The size of the state in bytes.
    pub size: u64,
    /// The number of its parts.
    pub parts: u64,
    digest: [u8; 32],
    sums: Vec<u8>,
    sealed: Vec<u8>,
}

impl VerifiedSnapshot {
    /// Reads a whole file, of at most `limit` bytes when decompressed, and checks its digests.
    ///
    /// # Errors
    /// See [`SnapshotFileError`].
    pub fn read(file: impl Read, limit: u64) -> Result<Self, SnapshotFileError> {
        Self::read_with(file, limit, |_| Ok(()))
    }

    /// The same; passes each part to `visit`, before the digests are checked.
    ///
    /// # Errors
    /// See [`SnapshotFileError`]; those of `visit`.
    pub(crate) fn read_with(
        file: impl Read,
        limit: u64,
        mut visit: impl FnMut(&[u8]) -> Result<(), SnapshotFileError>,
    ) -> Result<Self, SnapshotFileError> {
        let mut archive = Archive::new(file);
        let meta = archive.small(NAMES[0])?;
        let size = archive.next(NAMES[1])?;
        if size > limit {
            return Err(SnapshotFileError::TooLarge(limit));
        }
        let mut state = Entry { archive: &mut archive, left: size, digest: Sha256Stream::default() };
        let details = state.head()?;
        let mut parts = 0;
        while let Some(part) = state.part()? {
            visit(&part)?;
            parts += 1;
        }
        if state.left != 0 {
            return Err(SnapshotFileError::Damaged("data behind the end of the state"));
        }
        let digest = state.digest.finish();
        archive.skip(padding(size))?;
        let text = archive.small(NAMES[2])?;
        if text != sums(&sha256(&meta), &digest).as_bytes() {
            return Err(SnapshotFileError::Damaged("the digests do not match"));
        }
        let sealed = archive.small(NAMES[3])?;
        archive.end()?;
        Ok(VerifiedSnapshot { details, size, parts, digest, sums: text, sealed })
    }

    /// Whether the file was written with this key, which is derived for [`SNAPSHOTS`](super::SNAPSHOTS) from that of its
    /// term.
    pub(crate) fn is_sealed_by(&self, key: &Key256) -> bool {
        let expected = [&self.details.key_term.to_le_bytes()[..], &HmacKey::new(key.expose()).mac(&self.sums)];
        compare::equal(&self.sealed, &expected.concat())
    }
}

/// The parts of a verified file, read again.
pub(crate) struct FileParts<R> {
    archive: Archive<R>,
    left: u64,
    digest: Sha256Stream,
    /// That of the verified state, if it is checked at the end.
    expected: Option<[u8; 32]>,
}

impl<R: Read> FileParts<R> {
    /// Begins at the first part.
    pub(crate) fn new(file: R) -> Result<Self, SnapshotFileError> {
        let mut archive = Archive::new(file);
        archive.small(NAMES[0])?;
        let size = archive.next(NAMES[1])?;
        let mut state = Entry { archive: &mut archive, left: size, digest: Sha256Stream::default() };
        state.head()?;
        let Entry { left, digest, .. } = state;
        Ok(FileParts { archive, left, digest, expected: None })
    }

    /// The same; the end is an error if the state is not the verified one.
    pub(crate) fn of(verified: &VerifiedSnapshot, file: R) -> Result<Self, SnapshotFileError> {
        Ok(FileParts { expected: Some(verified.digest), ..Self::new(file)? })
    }

    /// The next part; `None` after the last one.
    pub(crate) fn next_part(&mut self) -> Result<Option<Vec<u8>>, StorageError> {
        let digest = std::mem::take(&mut self.digest);
        let mut state = Entry { archive: &mut self.archive, left: self.left, digest };
        let part = state.part().map_err(|error| StorageError::corrupt(error.to_string()))?;
        (self.left, self.digest) = (state.left, state.digest);
        if part.is_none()
            && let Some(expected) = self.expected.take()
            && std::mem::take(&mut self.digest).finish() != expected
        {
            return Err(StorageError::corrupt("the snapshot has changed since it was verified"));
        }
        Ok(part)
    }
}

#[async_trait]
impl<R: Read + Send> SnapshotParts for FileParts<R> {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        Ok(self.next_part()?.map(Bytes::from))
    }
}

/// `state.bin` while it is read.
struct Entry<'a, R> {
    archive: &'a mut Archive<R>,
    left: u64,
    digest: Sha256Stream,
}

impl<R: Read> Entry<'_, R> {
    fn take(&mut self, count: usize) -> Result<Vec<u8>, SnapshotFileError> {
        self.left =
            self.left.checked_sub(count as u64).ok_or(SnapshotFileError::Damaged("the state ends too early"))?;
        let mut bytes = vec![0; count];
        self.archive.fill(&mut bytes)?;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn length(&mut self) -> Result<usize, SnapshotFileError> {
        let bytes = self.take(4)?;
        let length = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or_default();
        Ok(length as usize)
    }

    fn head(&mut self) -> Result<SnapshotDetails, SnapshotFileError> {
        // An archive of Vault has its own format here.
        if self.left < MAGIC.len() as u64 || self.take(MAGIC.len())? != MAGIC {
            return Err(SnapshotFileError::Foreign);
        }
        let length = self.length()?;
        if length as u64 > MAX_SMALL {
            return Err(SnapshotFileError::Damaged("its description is too long"));
        }
        let head = self.take(length)?;
        serde_json::from_slice(&head).map_err(|_| SnapshotFileError::Damaged("its description"))
    }

    /// The next part; `None` at the end.
    fn part(&mut self) -> Result<Option<Vec<u8>>, SnapshotFileError> {
        match self.length()? {
            0 => Ok(None),
            length if length > MAX_SNAPSHOT_PART => Err(SnapshotFileError::Damaged("a part is too long")),
            length => self.take(length).map(Some),
        }
    }
}
