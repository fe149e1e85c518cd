//! Writes the file of a snapshot.

use std::io::{self, Seek, SeekFrom, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use keepfast_crypto::hash::{Sha256Stream, sha256};
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::locked::Key256;
use keepfast_storage::SnapshotParts;

use super::archive::{BLOCK, entry, header, padding};
use super::format::{MAGIC, NAMES, SnapshotDetails, SnapshotFileError, sums};

/// Writes the file of a snapshot, of at most `limit` bytes, with a key derived for [`SNAPSHOTS`](super::SNAPSHOTS) from
/// that of its term. The memory does not grow with the snapshot. After an error the output is incomplete.
pub(crate) async fn write<W: Write + Seek + Send>(
    details: &SnapshotDetails,
    parts: &mut dyn SnapshotParts,
    key: &Key256,
    out: W,
    limit: u64,
) -> Result<W, SnapshotFileError> {
    let mut out = Counted { out, written: 0 };
    let planned = before(details, 0)?;
    out.write_all(&planned).map_err(SnapshotFileError::Write)?;
    let mut state = Compressed::new(out);
    let head = serde_json::to_vec(details).map_err(|_| SnapshotFileError::Damaged("its description"))?;
    state.write(MAGIC)?;
    state.write_with_length(&head)?;
    while let Some(part) = parts.next().await? {
        // A part of no bytes would be the end.
        if !part.is_empty() {
            state.write_with_length(&part)?;
        }
        if state.encoder.get_ref().written > limit {
            return Err(SnapshotFileError::TooLarge(limit));
        }
    }
    state.write(&0_u32.to_le_bytes())?;
    let Compressed { encoder, digest, size } = state;
    let mut out = encoder.finish().map_err(SnapshotFileError::Write)?;
    let after = after(details, size, &digest.finish(), key)?;
    out.write_all(&after).map_err(SnapshotFileError::Write)?;
    if out.written > limit {
        return Err(SnapshotFileError::TooLarge(limit));
    }
    let before = before(details, size)?;
    if before.len() != planned.len() {
        return Err(SnapshotFileError::Damaged("the length of its description changes with its size"));
    }
    let mut out = out.out;
    let rewritten = out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&before)).and_then(|()| out.flush());
    rewritten.map_err(SnapshotFileError::Write)?;
    Ok(out)
}

/// `meta.json` and the header of a `state.bin` of this size, as a gzip member whose length does not depend on the size.
fn before(details: &SnapshotDetails, size: u64) -> Result<Vec<u8>, SnapshotFileError> {
    let mut archive = entry(NAMES[0], &meta(details, size));
    archive.extend(header(NAMES[1], size));
    compressed(&archive, Compression::none())
}

/// `meta.json`, which takes as many blocks for each size.
fn meta(details: &SnapshotDetails, size: u64) -> Vec<u8> {
    let blocks = |meta: &[u8]| meta.len().div_ceil(BLOCK);
    let (mut meta, longest) = (details.meta(size), details.meta(u64::MAX));
    if blocks(&meta) < blocks(&longest) {
        // White space around JSON has no meaning.
        meta.resize(longest.len(), b'\n');
    }
    meta
}

/// What follows `state.bin`, as a gzip member.
fn after(details: &SnapshotDetails, size: u64, digest: &[u8; 32], key: &Key256) -> Result<Vec<u8>, SnapshotFileError> {
    let sums = sums(&sha256(&meta(details, size)), digest);
    let sealed = [&details.key_term.to_le_bytes()[..], &HmacKey::new(key.expose()).mac(sums.as_bytes())].concat();
    let mut archive = vec![0; padding(size)];
    archive.extend(entry(NAMES[2], sums.as_bytes()));
    archive.extend(entry(NAMES[3], &sealed));
    archive.extend([0; 2 * BLOCK]);
    compressed(&archive, Compression::fast())
}

pub(super) fn compressed(bytes: &[u8], level: Compression) -> Result<Vec<u8>, SnapshotFileError> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(SnapshotFileError::Write)
}

/// `state.bin`, compressed as it is written.
struct Compressed<W: Write> {
    encoder: GzEncoder<W>,
    digest: Sha256Stream,
    size: u64,
}

impl<W: Write> Compressed<W> {
    fn new(out: W) -> Self {
        Compressed { encoder: GzEncoder::new(out, Compression::fast()), digest: Sha256Stream::default(), size: 0 }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotFileError> {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        self.encoder.write_all(bytes).map_err(SnapshotFileError::Write)
    }

    fn write_with_length(&mut self, bytes: &[u8]) -> Result<(), SnapshotFileError> {
        let length = u32::try_from(bytes.len()).map_err(|_| SnapshotFileError::Damaged("a part is too long"))?;
        self.write(&length.to_le_bytes())?;
        self.write(bytes)
    }
}

/// Counts the bytes that are written.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
