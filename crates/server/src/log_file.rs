//! `log_file`: an additional file or directory for the log, rotated by size and age as Vault documents
//! (<https://developer.hashicorp.com/vault/docs/configuration#log_file>), and reopened on SIGHUP.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keepfast_framework::{Clock, Timestamp};

use crate::config::LogRotation;
use crate::logging::Output;

/// The name of the file when `log_file` is a directory.
const DEFAULT_NAME: &str = "keepfast.log";

/// An open log file.
pub(crate) struct LogFile {
    path: PathBuf,
    rotation: LogRotation,
    clock: Arc<dyn Clock>,
    file: File,
    /// Its length in bytes.
    length: u64,
    /// The time of its first line.
    started: Timestamp,
}

impl LogFile {
    /// Opens the file. Creates it (mode 0600) and its directories (0700) when they are missing.
    ///
    /// # Errors
    /// When the file cannot be opened; the text contains the path and the reason of the system.
    pub(crate) fn open(log_file: &Path, rotation: LogRotation, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let path = Self::path(log_file);
        let (file, length, started) = open(&path, clock.as_ref()).map_err(|error| at(&path, &error))?;
        Ok(LogFile { path, rotation, clock, file, length, started })
    }

    /// The path of the log: `keepfast.log` in a directory, and `.log` after a name without an extension. The path of an
    /// existing file is unchanged.
    pub(crate) fn path(log_file: &Path) -> PathBuf {
        if log_file.is_dir() || log_file.to_string_lossy().ends_with('/') {
            return log_file.join(DEFAULT_NAME);
        }
        if log_file.extension().is_some() || log_file.exists() {
            return log_file.to_owned();
        }
        log_file.with_extension("log")
    }

    fn is_due(&self) -> bool {
        let is_full = self.rotation.bytes > 0 && self.length >= self.rotation.bytes;
        let age = self.clock.now().since(self.started);
        let is_old = !self.rotation.duration.is_zero() && age >= self.rotation.duration;
        // A special file (a terminal, a pipe) cannot be renamed.
        self.length > 0 && (is_full || is_old) && self.file.metadata().is_ok_and(|m| m.is_file())
    }

    /// Renames the file to `name-<nanoseconds>.log`, creates a new one, and removes the oldest ones above the limit.
    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.archive(self.clock.now().nanos()))?;
        self.reopen()?;
        let Some(most) = self.rotation.max_files else { return Ok(()) };
        let mut archives = self.archives();
        archives.sort_unstable();
        let surplus = archives.len().saturating_sub(most);
        for time in archives.into_iter().take(surplus) {
            std::fs::remove_file(self.archive(time))?;
        }
        Ok(())
    }

    fn archive(&self, time: i64) -> PathBuf {
        let mut name = self.stem();
        name.push(format!("-{time}"));
        name.push(self.suffix());
        self.path.with_file_name(name)
    }

    fn stem(&self) -> OsString {
        self.path.file_stem().unwrap_or_default().to_owned()
    }

    fn suffix(&self) -> String {
        self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default()
    }

    /// The times in the names of older files.
    fn archives(&self) -> Vec<i64> {
        let stem = format!("{}-", self.stem().to_string_lossy());
        let suffix = self.suffix();
        let directory = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let time = name.strip_prefix(&stem)?.strip_suffix(suffix.as_str())?;
                time.bytes().all(|b| b.is_ascii_digit()).then(|| time.parse().ok())?
            })
            .collect()
    }
}

impl Output for LogFile {
    /// Reopens the path: logrotate renames the file and sends SIGHUP. On an error the old file stays open.
    fn reopen(&mut self) -> io::Result<()> {
        let (file, length, started) = open(&self.path, self.clock.as_ref()).map_err(|error| at(&self.path, &error))?;
        (self.file, self.length, self.started) = (file, length, started);
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_due() {
            // When rotation fails, writing continues: the lines matter more than the length of the file.
            let _ = self.rotate();
        }
        let written = self.file.write(bytes)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The file, its length, and the time of its first line.
fn open(path: &Path, clock: &dyn Clock) -> io::Result<(File, u64, Timestamp)> {
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    let created = metadata.created().ok().filter(|_| metadata.len() > 0);
    let created = created.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let started = created.map_or_else(|| clock.now(), |since| Timestamp::EPOCH.after(since));
    Ok((file, metadata.len(), started))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::time::Duration;

    use keepfast_framework::clock::TestClock;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn rotating(bytes: u64, hours: u64, max_files: Option<usize>) -> LogRotation {
        LogRotation { bytes, duration: Duration::from_secs(hours * 3600), max_files }
    }

    #[test]
    fn log_file_can_be_a_directory_or_have_no_extension() {
        let dir = tempfile::tempdir().unwrap();
        let path = |text: &str| LogFile::path(&dir.path().join(text)).strip_prefix(dir.path()).unwrap().to_owned();
        assert_eq!(LogFile::path(dir.path()), dir.path().join("keepfast.log"));
        assert_eq!(path("new/"), PathBuf::from("new/keepfast.log"));
        assert_eq!((path("diary"), path("diary.txt")), ("diary.log".into(), "diary.txt".into()));
        std::fs::write(dir.path().join("plain"), "").unwrap();
        assert_eq!((path("plain"), LogFile::path(Path::new("/dev/null"))), ("plain".into(), "/dev/null".into()));
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::at(Timestamp::from_unix(1)));
        let mut log = LogFile::open(&dir.path().join("a/x.log"), rotating(4, 0, Some(2)), clock.clone()).unwrap();
        for n in 0..5 {
            log.write_all(format!("line{n}\n").as_bytes()).unwrap();
            clock.advance(Duration::from_secs(1));
        }
        let text = |name: &str| std::fs::read_to_string(dir.path().join("a").join(name)).unwrap();
        assert_eq!(names(&dir.path().join("a")), ["x-4000000000.log", "x-5000000000.log", "x.log"]);
        assert_eq!((text("x-4000000000.log").as_str(), text("x.log").as_str()), ("line2\n", "line4\n"));
        let mut none = LogFile::open(&dir.path().join("b/x.log"), rotating(4, 0, Some(0)), clock).unwrap();
        for _ in 0..3 {
            none.write_all(b"line\n").unwrap();
        }
        assert_eq!(names(&dir.path().join("b")), ["x.log"]);
    }

    #[test]
    fn a_file_is_rotated_after_its_time_and_never_without_limits() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::at(Timestamp::from_unix(1)));
        let mut log = LogFile::open(&dir.path().join("a/"), rotating(0, 24, None), clock.clone()).unwrap();
        let mut endless = LogFile::open(&dir.path().join("b/"), rotating(0, 0, None), clock.clone()).unwrap();
        for _ in 0..3 {
            log.write_all(b"line\n").unwrap();
            endless.write_all(b"line\n").unwrap();
            clock.advance(Duration::from_secs(13 * 3600));
        }
        assert_eq!(names(&dir.path().join("a")), ["keepfast-93601000000000.log", "keepfast.log"]);
        assert_eq!(names(&dir.path().join("b")), ["keepfast.log"]);
    }

    #[test]
    fn a_renamed_file_is_reopened_and_a_device_is_never_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::at(Timestamp::from_unix(1)));
        let path = dir.path().join("x.log");
        let mut log = LogFile::open(&path, rotating(0, 0, None), clock.clone()).unwrap();
        log.write_all(b"before\n").unwrap();
        std::fs::rename(&path, dir.path().join("x.log.1")).unwrap();
        log.reopen().unwrap();
        log.write_all(b"behind\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "behind\n");
        let mut null = LogFile::open(Path::new("/dev/null"), rotating(1, 0, None), clock).unwrap();
        null.write_all(b"line\n").unwrap();
        null.write_all(b"line\n").unwrap();
        assert!(!null.is_due());
    }
}
