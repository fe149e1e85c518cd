//! A file to which entries are appended. The page cache takes them, so a write does not wait.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use zeroize::Zeroize as _;

use super::line_writer::LineWriter;
use super::{Device, Ticket};
use crate::audit::allowed_targets::{AllowedTargets, append_to};
use crate::audit::line::Line;

/// The length of a line in bytes from which a copy into a batch costs more than a separate write.
const LARGE: usize = 16 << 10;
/// The longest buffer that is kept, in bytes.
const SPARE: usize = 64 << 10;

/// An audit log.
///
/// Entries of concurrent requests go out in one write: each request adds its line to the open batch and yields to the
/// others; the first that resumes writes the batch for all.
pub(crate) struct FileDevice {
    path: PathBuf,
    /// Set at each open.
    mode: Option<u32>,
    /// Checked at each open.
    allowed: AllowedTargets,
    /// Whether lines hold secrets (`log_raw`), so that this device wipes its copies of them.
    wipes: bool,
    log: Mutex<LineWriter<File>>,
    open: Mutex<OpenBatch>,
}

/// The open batch.
#[derive(Default)]
struct OpenBatch {
    lines: Vec<u8>,
    batch: Arc<Batch>,
    /// The buffer of an earlier batch, kept to avoid allocations: empty, or wiped with its length kept.
    spare: Vec<u8>,
}

impl OpenBatch {
    fn append(&mut self, line: &[u8], wipes: bool) {
        let length = self.lines.len() + line.len();
        if wipes && length > self.lines.capacity() {
            // A buffer that grows by itself leaves a copy in memory.
            let mut longer = Vec::with_capacity(length.next_power_of_two());
            longer.extend_from_slice(&self.lines);
            self.lines.as_mut_slice().zeroize();
            self.lines = longer;
        }
        self.lines.extend_from_slice(line);
    }
}

/// Lines that are written together; the outcome is set by the write.
#[derive(Default)]
struct Batch(OnceLock<Result<(), io::ErrorKind>>);

impl Batch {
    fn outcome(&self) -> Option<io::Result<()>> {
        self.0.get().map(|outcome| outcome.map_err(io::Error::from))
    }
}

/// A line in a batch. When it is dropped before the batch is written, it writes the batch.
pub(crate) struct BatchedLine<'a> {
    device: &'a FileDevice,
    batch: Arc<Batch>,
}

impl BatchedLine<'_> {
    /// Writes the batch for all lines in it, after other requests had the opportunity to add theirs.
    pub(super) async fn written(self) -> io::Result<()> {
        if self.batch.outcome().is_none() {
            tokio::task::yield_now().await;
        }
        self.device.flush(&self.batch)
    }
}

impl Drop for BatchedLine<'_> {
    fn drop(&mut self) {
        // The caller has dropped its ticket; the tickets of the other lines in the batch report the outcome.
        let _ = self.device.flush(&self.batch);
    }
}

impl FileDevice {
    pub(crate) fn open(path: &Path, mode: Option<u32>, allowed: &AllowedTargets) -> io::Result<Self> {
        let log = Mutex::new(open_log(path, mode, allowed)?);
        let (path, allowed) = (path.to_owned(), allowed.clone());
        Ok(FileDevice { path, mode, allowed, wipes: false, log, open: Mutex::default() })
    }

    /// The same device; with `wipes` it wipes its copies of lines.
    pub(crate) fn wiping(self, wipes: bool) -> Self {
        FileDevice { wipes, ..self }
    }

    /// Writes the open batch, unless the batch of this line was already written.
    fn flush(&self, joined: &Batch) -> io::Result<()> {
        if let Some(outcome) = joined.outcome() {
            return outcome;
        }
        let mut log = self.log.lock();
        joined.outcome().unwrap_or_else(|| self.write_open(&mut log))
    }

    /// Writes the open batch.
    fn write_open(&self, log: &mut LineWriter<File>) -> io::Result<()> {
        let (mut lines, batch) = {
            let mut open = self.open.lock();
            let mut empty = std::mem::take(&mut open.spare);
            empty.clear();
            (std::mem::replace(&mut open.lines, empty), std::mem::take(&mut open.batch))
        };
        let outcome = log.write(&lines);
        // Only the holder of the log sets this, and each batch is taken once.
        let _ = batch.0.set(outcome.as_ref().copied().map_err(io::Error::kind));
        if self.wipes {
            lines.as_mut_slice().zeroize();
        } else {
            lines.clear();
        }
        if lines.capacity() <= SPARE {
            self.open.lock().spare = lines;
        }
        outcome
    }

    /// Writes a line outside of a batch, after those that were submitted before it.
    fn write_large(&self, line: &[u8]) -> io::Result<()> {
        let mut log = self.log.lock();
        // A failure is the outcome of that batch, not of this line.
        let _ = self.write_open(&mut log);
        log.write(line)
    }
}

impl Device for FileDevice {
    fn submit(&self, line: Line) -> Ticket<'_> {
        if line.len() >= LARGE {
            Ticket::Done(self.write_large(&line))
        } else {
            let mut open = self.open.lock();
            open.append(&line, self.wipes);
            Ticket::Batched(BatchedLine { device: self, batch: open.batch.clone() })
        }
    }

    fn reopen(&self) -> io::Result<()> {
        let fresh = open_log(&self.path, self.mode, &self.allowed)?;
        *self.log.lock() = fresh;
        Ok(())
    }

    fn can_block(&self) -> bool {
        false
    }
}

/// Opens a log for appending; the output of an earlier process may end in the middle of a line.
fn open_log(path: &Path, mode: Option<u32>, allowed: &AllowedTargets) -> io::Result<LineWriter<File>> {
    let file = append_to(path, true, mode, allowed)?;
    let torn = file.metadata()?.is_file() && last_byte(path).is_some_and(|byte| byte != b'\n');
    Ok(LineWriter::new(file, torn))
}

/// The last byte of a file; `None` when it is empty or write-only.
fn last_byte(path: &Path) -> Option<u8> {
    let file = File::open(path).ok()?;
    let last = file.metadata().ok()?.len().checked_sub(1)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).ok()?;
    Some(byte[0])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::audit::device::suite::{Target, device_suite};
    use crate::audit::options::DeviceOptions;
    use crate::audit::target::open_file;
    use crate::settings::AuditSettings;

    struct LogFile {
        dir: tempfile::TempDir,
        device: FileDevice,
        rotations: usize,
    }

    impl LogFile {
        fn path(&self) -> PathBuf {
            self.dir.path().join("log")
        }

        fn rotated(&self, number: usize) -> PathBuf {
            self.dir.path().join(format!("log.{number}"))
        }
    }

    impl Target for LogFile {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let device = FileDevice::open(&dir.path().join("log"), None, &AllowedTargets::default()).unwrap();
            LogFile { dir, device, rotations: 0 }
        }

        fn failing() -> Self {
            let device = FileDevice::open(Path::new("/dev/full"), None, &AllowedTargets::default()).unwrap();
            LogFile { device, ..LogFile::new() }
        }

        fn device(&self) -> &dyn Device {
            &self.device
        }

        fn rotate(&mut self) {
            std::fs::rename(self.path(), self.rotated(self.rotations)).unwrap();
            self.rotations += 1;
        }

        fn finish(self) -> Vec<u8> {
            let files = (0..self.rotations).map(|number| self.rotated(number)).chain([self.path()]);
            files.flat_map(|file| std::fs::read(file).unwrap()).collect()
        }
    }

    device_suite!(file, LogFile);

    fn open(settings: &AuditSettings) -> Result<Box<dyn Device>, crate::audit::DeviceError> {
        crate::audit::target::open(settings, &AllowedTargets::default()).map(|(_, device)| device)
    }

    fn line(text: &str) -> Line {
        Line::new(text, false)
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
        device.submit(line("one\n")).written().await.unwrap();
        assert_eq!(std::fs::metadata(path("log")).unwrap().mode() & 0o777, 0o600);
        std::fs::rename(path("log"), path("log.1")).unwrap();
        device.reopen().unwrap();
        device.submit(line("two\n")).written().await.unwrap();
        assert_eq!(std::fs::read_to_string(path("log")).unwrap(), "two\n");
        assert_eq!(std::fs::metadata(path("log")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(path("log.1")).unwrap(), "one\n");
    }

    #[tokio::test]
    async fn an_entry_after_a_torn_one_is_on_its_own_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log").to_string_lossy().into_owned();
        std::fs::write(&path, "one\nhalf of an ent").unwrap();
        let device = open(&settings(&[("file_path", &path)])).unwrap();
        device.submit(line("two\n")).written().await.unwrap();
        device.reopen().unwrap();
        device.submit(line("three\n")).written().await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nhalf of an ent\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn lines_of_concurrent_requests_are_one_batch() {
        let log = LogFile::new();
        let [one, two] = ["one\n", "two\n"].map(|text| log.device.submit(line(text)));
        let (Ticket::Batched(one), Ticket::Batched(two)) = (one, two) else { panic!("a short line joins a batch") };
        assert!(Arc::ptr_eq(&one.batch, &two.batch));
        one.written().await.unwrap();
        assert!(two.batch.outcome().is_some(), "one write has written both");
        drop(two);
        assert_eq!(log.finish(), b"one\ntwo\n");
    }

    #[tokio::test]
    async fn sec_al03_the_spare_buffer_of_a_raw_log_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log").to_string_lossy().into_owned();
        for (raw, lengths) in [("true", [8, 8]), ("false", [0, 0])] {
            let options = [("file_path", path.as_str()), ("log_raw", raw)];
            let options = DeviceOptions::of(&settings(&options)).unwrap();
            let device = open_file(path.as_ref(), &options, &AllowedTargets::default()).unwrap();
            for length in lengths {
                device.submit(line("s3cr3t1\n")).written().await.unwrap();
                let open = device.open.lock();
                assert!(open.lines.is_empty() && open.spare.capacity() > 0);
                assert_eq!(open.spare, vec![0; length], "log_raw = {raw}");
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"s3cr3t1\n".repeat(4));
    }

    #[test]
    fn a_batch_of_raw_lines_grows_without_a_copy_left_behind() {
        let mut open = OpenBatch { lines: Vec::with_capacity(4), ..OpenBatch::default() };
        for line in ["one\n", "two\n", "three\n"] {
            open.append(line.as_bytes(), true);
        }
        assert_eq!((open.lines.as_slice(), open.lines.capacity()), (&b"one\ntwo\nthree\n"[..], 16));
    }
}
