//! The file of a snapshot that is restored: the body of a request, or an automatic snapshot.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek as _, SeekFrom};

use bytes::Bytes;
use keepfast_framework::RawBody;
use keepfast_framework::file_body::FileBodyReader;

/// The bytes that a byte of a larger file may become when decompressed: encrypted records hardly shrink.
const MAX_EXPANSION: u64 = 10;
/// The bytes that any file may become.
const SMALL: u64 = 64 << 20;
/// The most bytes that a body in memory may become. A file has no such limit.
const MAX_EXPANDED: u64 = 2 << 30;

/// The file of a snapshot that is restored.
pub(crate) enum SnapshotSource {
    /// The body of a request.
    Body(Cursor<Bytes>),
    /// The same in a file.
    FileBody(BufReader<FileBodyReader>),
    /// A file of the server, with its length.
    File(BufReader<File>, u64),
}

impl SnapshotSource {
    /// The body of a request.
    pub(crate) fn body(body: RawBody) -> Self {
        match body {
            RawBody::Bytes(bytes) => SnapshotSource::Body(Cursor::new(bytes)),
            RawBody::File(file) => SnapshotSource::FileBody(BufReader::new(file.reader())),
        }
    }

    /// A file of the server.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(SnapshotSource::File(BufReader::new(file), length))
    }

    /// The most bytes that it may become when decompressed.
    pub(crate) fn limit(&self) -> u64 {
        match self {
            SnapshotSource::Body(body) => {
                (body.get_ref().len() as u64).saturating_mul(MAX_EXPANSION).clamp(SMALL, MAX_EXPANDED)
            }
            SnapshotSource::FileBody(body) => body.get_ref().length().saturating_mul(MAX_EXPANSION).max(SMALL),
            SnapshotSource::File(_, length) => length.saturating_mul(MAX_EXPANSION).max(SMALL),
        }
    }

    /// Goes back to its start.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        match self {
            SnapshotSource::Body(body) => body.set_position(0),
            SnapshotSource::FileBody(body) => {
                let reader = body.get_ref().again();
                *body = BufReader::new(reader);
            }
            SnapshotSource::File(file, _) => drop(file.seek(SeekFrom::Start(0))?),
        }
        Ok(())
    }
}

impl Read for SnapshotSource {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            SnapshotSource::Body(body) => body.read(bytes),
            SnapshotSource::FileBody(body) => body.read(bytes),
            SnapshotSource::File(file, _) => file.read(bytes),
        }
    }
}
