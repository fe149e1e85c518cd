//! The file operations of the durable store, behind a trait so that tests can make each of them fail.

use std::{
    fmt::Debug,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A directory with files in it. Names are relative, with `/` between a subdirectory and a file.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Opens a file for reading and writing; `None` when it does not exist and `create` is false.
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>>;
    /// Lists the files in a subdirectory; creates it when it is missing. Empty for the directory itself.
    fn names(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Renames a file and replaces an existing file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and deletions in a subdirectory durable.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
    /// Free and total bytes of the file system.
    fn room(&self) -> io::Result<Room>;
}

/// Size of a file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Bytes available to this process.
    pub(crate) free: u64,
    /// Total bytes.
    pub(crate) total: u64,
}

/// Whether `bytes` can be logged and applied: requires more than `reserve` bytes, or more than a quarter of the file system
/// where that is less.
pub(crate) fn has_room(disk: &dyn Disk, reserve: u64, bytes: u64) -> bool {
    // When the free space is unknown, the write itself shows whether there is enough.
    let room = disk.room();
    room.map_or(true, |room| room.free > reserve.min(room.total / 4).saturating_add(bytes.saturating_mul(4)))
}

/// An open file.
pub(crate) trait DiskFile: Debug + Send + Sync + 'static {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `out` from `offset`; fails when the file is too short.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`. After an error any part of it may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Truncates the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable. After an error the state of all writes since the last success is unknown, and
    /// a second sync could succeed without having written them.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system. Directories have mode 0700 and files 0600, regardless of the umask.
pub(crate) struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// Creates the directory and its parents if missing, and removes access for other users.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        private_directory(root)?;
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Disk for RealDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match private_file(&self.path(name), create) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if !create && error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let path = self.path(directory);
        private_directory(&path)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::open(self.path(directory))?.sync_all()
    }

    fn room(&self) -> io::Result<Room> {
        let found = rustix::fs::statvfs(&self.root)?;
        Ok(Room {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Opens a file that only its owner can read. The mode is set again, because the umask or an older file may differ.
pub(crate) fn private_file(path: &Path, create: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Creates a directory that only its owner can use, durably, including missing parents.
fn private_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for part in missing {
        let parent = part.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    if fs::metadata(path)?.permissions().mode() & 0o777 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}
