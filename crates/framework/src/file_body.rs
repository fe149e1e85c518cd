//! A body that is too large for memory: in a file without a name, which is gone with its last user.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{OFlags, fstatvfs};

/// The bytes that stay free on the device, for the storage and the log.
const RESERVE: u64 = 256 << 20;
/// The bytes between two looks at the free ones.
const LOOK_EVERY: u64 = 16 << 20;

/// The bytes of a body. Not `Debug`: it may hold secrets.
#[derive(Clone)]
pub struct FileBody {
    file: Arc<File>,
    length: u64,
}

/// Writes a body of at most a number of bytes.
pub struct FileBodyWriter {
    file: File,
    longest: u64,
    /// Where the next byte is written.
    at: u64,
    /// The offset at which the free bytes are looked at again.
    look_at: u64,
}

impl FileBodyWriter {
    /// Creates a file without a name in a directory, which nobody else can open.
    ///
    /// # Errors
    /// Those of the file system; [`ErrorKind::StorageFull`] when the device has too little room.
    pub fn new(directory: &Path, longest: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let unnamed = options.clone().custom_flags(OFlags::TMPFILE.bits() as i32).open(directory);
        let file = match unnamed {
            // Some file systems have no files without a name.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::IsADirectory) => {
                let path = directory.join(format!(".body-{}", keepfast_crypto::random::request_id()));
                let file = options.create_new(true).open(&path)?;
                std::fs::remove_file(&path)?;
                file
            }
            other => other?,
        };
        let mut writer = Self { file, longest, at: 0, look_at: 0 };
        writer.look()?;
        Ok(writer)
    }

    fn look(&mut self) -> io::Result<()> {
        let found = fstatvfs(&self.file)?;
        if found.f_bavail.saturating_mul(found.f_frsize) < RESERVE + LOOK_EVERY {
            return Err(ErrorKind::StorageFull.into());
        }
        self.look_at = self.at + LOOK_EVERY;
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self) -> io::Result<FileBody> {
        Ok(FileBody { length: self.file.metadata()?.len(), file: Arc::new(self.file) })
    }
}

impl Write for FileBodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.at + bytes.len() as u64;
        if end > self.longest {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if end > self.look_at {
            self.look()?;
        }
        let count = self.file.write(bytes)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for FileBodyWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl FileBody {
    /// The number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// At most `most` bytes from an offset on; none at the end. It waits for the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(left)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Reads from the first byte on.
    pub fn reader(&self) -> FileBodyReader {
        FileBodyReader { body: self.clone(), at: 0 }
    }
}

/// Reads a body. Each reader has a place of its own.
pub struct FileBodyReader {
    body: FileBody,
    at: u64,
}

impl FileBodyReader {
    /// The number of bytes of the body.
    pub fn length(&self) -> u64 {
        self.body.length
    }

    /// Another reader of the body.
    pub fn again(&self) -> Self {
        self.body.reader()
    }
}

impl Read for FileBodyReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.body.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = bytes.len().min(left);
        let count = self.body.file.read_at(&mut bytes[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_body_in_a_file_has_no_name_and_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = FileBodyWriter::new(directory.path(), 10).unwrap();
        writer.write_all(b"0123456").unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(writer.write_all(b"7890").unwrap_err().kind(), ErrorKind::FileTooLarge);
        writer.write_all(b"789").unwrap();
        writer.seek(SeekFrom::Start(0)).unwrap();
        writer.write_all(b"0").unwrap();
        let body = writer.finish().unwrap();
        assert_eq!((body.length(), &body.read_at(8, 100).unwrap()[..]), (10, &b"89"[..]));
        assert!(body.read_at(10, 100).unwrap().is_empty());
        let (mut first, mut second) = (body.reader(), body.reader());
        let mut text = String::new();
        first.read_to_string(&mut text).unwrap();
        let mut first = first.again();
        assert_eq!((first.length(), first.read(&mut [0; 4]).unwrap(), second.read(&mut [0; 3]).unwrap()), (10, 4, 3));
        assert_eq!(text, "0123456789");
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(FileBodyWriter::new(&directory.path().join("none"), 10).is_err());
    }
}
