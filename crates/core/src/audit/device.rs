//! Audit devices: where entries go.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::target::{Allowed, append_to};

/// A place that takes entries. An entry is one line, already formatted for this device.
#[async_trait]
pub(crate) trait Device: Send + Sync {
    /// Takes an entry; when this returns, the entry survives the end of this process.
    async fn write(&self, line: &[u8]) -> io::Result<()>;
    /// Opens its target anew, after somebody has moved the file away.
    fn reopen(&self) -> io::Result<()>;
    /// Whether a write can wait for somebody else: such a device is asked last.
    fn can_block(&self) -> bool;
    /// Whether its target is open.
    fn is_open(&self) -> bool {
        true
    }
}

/// A device that forgets every entry.
pub(crate) fn discard() -> Box<dyn Device> {
    Box::new(Discard)
}

struct Discard;

#[async_trait]
impl Device for Discard {
    async fn write(&self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }

    fn can_block(&self) -> bool {
        false
    }
}

/// Bytes of a line from which copying it into a batch costs more than a write of its own.
const LARGE: usize = 16 << 10;

/// A file that entries are appended to. The page cache takes them, so a write does not wait.
///
/// Entries of requests that are under way at the same time go out in one write: whoever comes adds its line to the open
/// batch and lets the others come too; the first to be back writes the batch for all.
pub(super) struct FileDevice {
    path: PathBuf,
    /// Set at each open.
    mode: Option<u32>,
    /// Checked at each open.
    allowed: Allowed,
    log: Mutex<LogFile>,
    open: Mutex<OpenBatch>,
}

/// The batch that lines join now.
#[derive(Default)]
struct OpenBatch {
    lines: Vec<u8>,
    batch: Arc<Batch>,
    /// The empty buffer of an earlier batch, kept to allocate seldom.
    spare: Vec<u8>,
}

/// The longest buffer that is kept, in bytes.
const SPARE: usize = 64 << 10;

/// An open file, which may end in the middle of a line since a write that the disk took in part.
struct LogFile {
    file: File,
    torn: bool,
}

impl LogFile {
    /// Opens a log for appending; what an earlier process left may be torn as well.
    fn open(path: &Path, mode: Option<u32>, allowed: &Allowed) -> io::Result<Self> {
        let file = append_to(path, true, mode, allowed)?;
        let torn = file.metadata()?.is_file() && last_byte(path).is_some_and(|byte| byte != b'\n');
        Ok(LogFile { file, torn })
    }

    /// Writes whole lines, on a line of their own: what comes after a torn line can be read.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut left = lines;
        while !left.is_empty() {
            match self.file.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.torn = left[taken - 1] != b'\n';
                    left = &left[taken..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Lines that are written together, and what became of them.
#[derive(Default)]
struct Batch(OnceLock<Result<(), io::ErrorKind>>);

impl FileDevice {
    pub(super) fn open(path: &Path, mode: Option<u32>, allowed: &Allowed) -> io::Result<Self> {
        let log = Mutex::new(LogFile::open(path, mode, allowed)?);
        Ok(FileDevice { path: path.to_owned(), mode, allowed: allowed.clone(), log, open: Mutex::default() })
    }

    /// Writes the open batch, unless it has been written since this line joined it.
    fn flush(&self, joined: &Batch) -> io::Result<()> {
        let mut log = self.log.lock();
        if let Some(done) = joined.0.get() {
            return done.map_err(io::Error::from);
        }
        let (mut lines, batch) = {
            let mut open = self.open.lock();
            let empty = std::mem::take(&mut open.spare);
            (std::mem::replace(&mut open.lines, empty), std::mem::take(&mut open.batch))
        };
        let outcome = log.write(&lines);
        // Only who holds the log sets this, and each batch is taken once.
        let _ = batch.0.set(outcome.as_ref().copied().map_err(io::Error::kind));
        if lines.capacity() <= SPARE {
            lines.clear();
            self.open.lock().spare = lines;
        }
        outcome
    }
}

/// What a file ends with; `None` when it is empty or may only be written.
fn last_byte(path: &Path) -> Option<u8> {
    let file = File::open(path).ok()?;
    let last = file.metadata().ok()?.len().checked_sub(1)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).ok()?;
    Some(byte[0])
}

#[async_trait]
impl Device for FileDevice {
    async fn write(&self, line: &[u8]) -> io::Result<()> {
        if line.len() >= LARGE {
            return self.log.lock().write(line);
        }
        let joined = {
            let mut open = self.open.lock();
            open.lines.extend_from_slice(line);
            open.batch.clone()
        };
        tokio::task::yield_now().await;
        self.flush(&joined)
    }

    fn reopen(&self) -> io::Result<()> {
        let fresh = LogFile::open(&self.path, self.mode, &self.allowed)?;
        *self.log.lock() = fresh;
        Ok(())
    }

    fn can_block(&self) -> bool {
        false
    }
}

/// Standard output or a pipe: a thread writes, because whoever reads may not.
pub(super) struct StreamDevice {
    lines: mpsc::SyncSender<(Vec<u8>, oneshot::Sender<io::Result<()>>)>,
}

/// Entries that may wait for the reader of a pipe.
const QUEUE: usize = 1024;

impl StreamDevice {
    pub(super) fn new(mut target: Box<dyn io::Write + Send>) -> io::Result<Self> {
        let (lines, incoming) = mpsc::sync_channel::<(Vec<u8>, oneshot::Sender<io::Result<()>>)>(QUEUE);
        std::thread::Builder::new().name("audit-stream".into()).spawn(move || {
            while let Ok((line, done)) = incoming.recv() {
                let outcome = target.write_all(&line).and_then(|()| target.flush());
                // Whoever waited may be gone; the entry is written all the same.
                let _ = done.send(outcome);
            }
        })?;
        Ok(StreamDevice { lines })
    }
}

#[async_trait]
impl Device for StreamDevice {
    async fn write(&self, line: &[u8]) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        if self.lines.try_send((line.to_vec(), done)).is_err() {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "nobody reads the audit stream"));
        }
        written.await.unwrap_or_else(|_| Err(io::Error::other("the audit stream ended")))
    }

    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }

    fn can_block(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::settings::AuditSettings;

    fn open(settings: &AuditSettings) -> Result<Box<dyn Device>, crate::audit::DeviceError> {
        crate::audit::target::open(settings, &Allowed::default()).map(|(_, device)| device)
    }

    fn settings(options: &[(&str, &str)]) -> AuditSettings {
        AuditSettings {
            device: "file".into(),
            name: "test".into(),
            description: String::new(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[tokio::test]
    async fn sec_al05_a_log_is_never_a_link_nor_executable_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        std::fs::write(path("target"), "x").unwrap();
        std::os::unix::fs::symlink(path("target"), path("soft")).unwrap();
        std::fs::hard_link(path("target"), path("hard")).unwrap();
        assert!(open(&settings(&[("file_path", &path("soft"))])).is_err());
        assert!(open(&settings(&[("file_path", &path("hard"))])).is_err());
        assert!(open(&settings(&[("file_path", &path("x")), ("mode", "0755")])).is_err());
        assert!(open(&settings(&[])).is_err());
        assert!(open(&AuditSettings { device: "socket".into(), ..settings(&[]) }).is_err());
        let device = open(&settings(&[("file_path", &path("log"))])).unwrap();
        device.write(b"one\n").await.unwrap();
        assert_eq!(std::fs::metadata(path("log")).unwrap().mode() & 0o777, 0o600);
        std::fs::rename(path("log"), path("log.1")).unwrap();
        device.reopen().unwrap();
        device.write(b"two\n").await.unwrap();
        assert_eq!(std::fs::read_to_string(path("log")).unwrap(), "two\n");
        let large = [vec![b'x'; LARGE], b"\n".to_vec()].concat();
        device.write(&large).await.unwrap();
        assert_eq!(std::fs::read(path("log")).unwrap(), [b"two\n", large.as_slice()].concat());
        assert_eq!(std::fs::read_to_string(path("log.1")).unwrap(), "one\n");
    }
    #[tokio::test]
    async fn an_entry_after_a_torn_one_stands_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log").to_string_lossy().into_owned();
        std::fs::write(&path, "one\nhalf of an ent").unwrap();
        let device = open(&settings(&[("file_path", &path)])).unwrap();
        device.write(b"two\n").await.unwrap();
        device.reopen().unwrap();
        device.write(b"three\n").await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nhalf of an ent\ntwo\nthree\n");
    }
}
