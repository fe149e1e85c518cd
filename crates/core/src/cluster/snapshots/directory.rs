//! The directory of automatic snapshots. Only files whose names have the form that the server writes are its own:
//! `keepfast-snapshot-<nanoseconds since 1970>.snap`, and the same with `.incomplete` while it is written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keepfast_framework::Timestamp;

/// What names of files begin with.
pub(crate) const PREFIX: &str = "keepfast-snapshot";
const SUFFIX: &str = ".snap";
const INCOMPLETE: &str = ".incomplete";

/// The directory of automatic snapshots.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotDirectory(PathBuf);

/// A snapshot in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredSnapshot {
    /// When it was taken.
    pub(crate) taken: Timestamp,
    /// Its file.
    pub(crate) path: PathBuf,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// A file that is being written. It is deleted when this is dropped before it is complete.
pub(crate) struct IncompleteSnapshot {
    directory: PathBuf,
    taken: Timestamp,
    is_complete: bool,
}

impl SnapshotDirectory {
    /// The directory at this path, which need not exist.
    pub(crate) fn new(path: &Path) -> Self {
        SnapshotDirectory(path.to_owned())
    }

    /// The snapshots up to `now`, the oldest first. Those of a clock that was ahead are left out.
    ///
    /// # Errors
    /// When the directory exists and cannot be read.
    pub(crate) fn list(&self, now: Timestamp) -> io::Result<Vec<StoredSnapshot>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(taken) = name.to_str().and_then(|name| taken(name, SUFFIX)) else { continue };
            // Of the file itself: a link is not a snapshot that the server wrote.
            let metadata = entry.metadata()?;
            if metadata.is_file() && taken <= now {
                found.push(StoredSnapshot { taken, path: entry.path(), size: metadata.len() });
            }
        }
        found.sort_by_key(|snapshot| snapshot.taken);
        Ok(found)
    }

    /// Opens the snapshot whose file has this name. `None` for a name that the server does not write, and for none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn open(&self, name: &str) -> io::Result<Option<File>> {
        if taken(name, SUFFIX).is_none() {
            return Ok(None);
        }
        let path = self.0.join(name);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => File::open(path).map(Some),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        }
    }

    /// Begins a file that only its owner can read. Creates the directory if it is missing, and deletes files that were not
    /// completed.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn begin(&self, taken: Timestamp) -> io::Result<(IncompleteSnapshot, File)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        self.delete_incomplete()?;
        let snapshot = IncompleteSnapshot { directory: self.0.clone(), taken, is_complete: false };
        if snapshot.path(SUFFIX).symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).to_owned();
        let file = options.open(snapshot.path(&unfinished()))?;
        Ok((snapshot, file))
    }

    fn delete_incomplete(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let is_ours = entry.file_name().to_str().is_some_and(|name| taken(name, &unfinished()).is_some());
            if is_ours && entry.metadata()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Deletes the oldest snapshots until there are `retain`.
    ///
    /// # Errors
    /// Of the first file that cannot be deleted; the others are tried.
    pub(crate) fn delete_oldest(&self, retain: usize, now: Timestamp) -> io::Result<()> {
        let found = self.list(now)?;
        let excess = found.len().saturating_sub(retain);
        let deleted: Vec<_> = found.iter().take(excess).map(|old| fs::remove_file(&old.path)).collect();
        deleted.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }
}

impl IncompleteSnapshot {
    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{PREFIX}-{}{suffix}", self.taken.nanos()))
    }

    /// Opens the file to read it back.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn read_back(&self) -> io::Result<File> {
        File::open(self.path(&unfinished()))
    }

    /// Gives the file, whose content is durable, its name.
    ///
    /// # Errors
    /// Those of the file system; the file is then deleted.
    pub(crate) fn complete(mut self, size: u64) -> io::Result<StoredSnapshot> {
        let path = self.path(SUFFIX);
        fs::rename(self.path(&unfinished()), &path)?;
        self.is_complete = true;
        File::open(&self.directory)?.sync_all()?;
        Ok(StoredSnapshot { taken: self.taken, path, size })
    }
}

impl Drop for IncompleteSnapshot {
    fn drop(&mut self) {
        if !self.is_complete
            && let Err(error) = fs::remove_file(self.path(&unfinished()))
        {
            tracing::warn!(%error, "an incomplete snapshot cannot be deleted");
        }
    }
}

fn unfinished() -> String {
    format!("{SUFFIX}{INCOMPLETE}")
}

/// The time in a name of this form.
fn taken(name: &str, suffix: &str) -> Option<Timestamp> {
    let digits = name.strip_prefix(PREFIX)?.strip_prefix('-')?.strip_suffix(suffix)?;
    let nanos: i64 = digits.parse().ok()?;
    // The only form that is written.
    (nanos >= 0 && digits == nanos.to_string()).then(|| Timestamp::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(second)
    }

    fn add(directory: &SnapshotDirectory, second: i64) -> StoredSnapshot {
        let (snapshot, mut file) = directory.begin(at(second)).unwrap();
        file.write_all(b"x").unwrap();
        snapshot.complete(1).unwrap()
    }

    fn seconds(directory: &SnapshotDirectory, now: i64) -> Vec<i64> {
        directory.list(at(now)).unwrap().iter().map(|snapshot| snapshot.taken.unix()).collect()
    }

    #[test]
    fn sec_retention_deletes_only_regular_files_of_the_written_form() {
        let dir = tempfile::tempdir().unwrap();
        let directory = SnapshotDirectory::new(dir.path());
        for second in [5, 1, 3] {
            add(&directory, second);
        }
        let other = [
            "keepfast-snapshot-.snap",
            "keepfast-snapshot-01.snap",
            "keepfast-snapshot--1.snap",
            "keepfast-snapshot-+1.snap",
            "keepfast-snapshot-2.snap.bak",
            "my-keepfast-snapshot-2.snap",
            "backup.snap",
        ];
        for name in other {
            fs::write(dir.path().join(name), "other").unwrap();
        }
        symlink("/etc/hostname", dir.path().join("keepfast-snapshot-2.snap")).unwrap();
        fs::create_dir(dir.path().join("keepfast-snapshot-4.snap")).unwrap();
        assert_eq!(seconds(&directory, 10), [1, 3, 5]);
        for name in
            other.into_iter().chain(["keepfast-snapshot-2.snap", "../keepfast-snapshot-1.snap", "/etc/hostname"])
        {
            assert!(directory.open(name).unwrap().is_none(), "{name}");
        }
        assert!(directory.open("keepfast-snapshot-5000000000.snap").unwrap().is_some());
        directory.delete_oldest(1, at(10)).unwrap();
        assert_eq!(seconds(&directory, 10), [5]);
        for name in other.into_iter().chain(["keepfast-snapshot-2.snap", "keepfast-snapshot-4.snap"]) {
            assert!(dir.path().join(name).symlink_metadata().is_ok(), "{name}");
        }
        directory.delete_oldest(1, at(10)).unwrap();
        assert_eq!(seconds(&directory, 10), [5], "there is nothing more to delete");
    }

    #[test]
    fn files_of_a_clock_that_was_ahead_neither_count_nor_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let directory = SnapshotDirectory::new(dir.path());
        for second in [10, 2000, 20] {
            add(&directory, second);
        }
        assert_eq!(seconds(&directory, 100), [10, 20]);
        directory.delete_oldest(1, at(100)).unwrap();
        assert_eq!(seconds(&directory, 3000), [20, 2000]);
    }

    #[test]
    fn sec_a_snapshot_and_its_directory_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        let directory = SnapshotDirectory::new(&below);
        assert_eq!(directory.list(at(9)).unwrap(), [], "a missing directory is empty");
        let stored = add(&directory, 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&below), mode(&stored.path)), (0o700, 0o600));
    }

    #[test]
    fn an_incomplete_file_is_deleted_by_its_end_or_by_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let directory = SnapshotDirectory::new(dir.path());
        drop(directory.begin(at(1)).unwrap());
        let count = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(count(), 0);
        fs::write(dir.path().join("keepfast-snapshot-7.snap.incomplete"), "of a process that was killed").unwrap();
        fs::write(dir.path().join("other.snap.incomplete"), "").unwrap();
        assert_eq!(seconds(&directory, 10), Vec::<i64>::new());
        add(&directory, 2);
        assert_eq!(count(), 2, "the snapshot and the other file");
        assert!(directory.begin(at(2)).is_err(), "no file is replaced");
    }
}
