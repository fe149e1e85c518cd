//! Local files and sockets in connection settings: only below the directories that the server's configuration allows.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};

/// The maximum size of a file in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// The directories below which settings may name files and sockets (`database_file_directories` in the configuration).
#[derive(Clone, Debug, Default)]
pub(super) struct FileDirectories(Vec<PathBuf>);

/// A file, a socket or a directory of sockets below an allowed directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalPath {
    directory: PathBuf,
    below: PathBuf,
}

impl FileDirectories {
    pub(super) fn new(directories: &[PathBuf]) -> Self {
        FileDirectories(directories.to_vec())
    }

    /// The path in a setting. If it is not allowed, the error suggests `instead`.
    ///
    /// # Errors
    /// When the path is below no allowed directory, or contains `..`. Does not access the file system.
    pub(super) fn locate(&self, setting: &str, path: &str, instead: &str) -> Result<LocalPath, String> {
        let refused = || {
            format!(
                "{setting} names a local file outside of database_file_directories of the server's configuration: {instead}"
            )
        };
        let path = Path::new(path);
        let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            return Err(refused());
        }
        let below = |directory: &PathBuf| {
            let below = path.strip_prefix(directory).ok()?.to_owned();
            Some(LocalPath { directory: directory.clone(), below })
        };
        self.0.iter().find_map(below).ok_or_else(refused)
    }
}

impl LocalPath {
    /// The whole path.
    pub(super) fn path(&self) -> PathBuf {
        // Joining an empty path would append a slash.
        if self.below.as_os_str().is_empty() { self.directory.clone() } else { self.directory.join(&self.below) }
    }

    /// Reads a regular file of at most 256 KiB. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read, without a reason, which would reveal which files exist.
    pub(super) fn read(&self) -> Result<String, ()> {
        self.open_file().ok_or(())
    }

    /// Whether the path has no symbolic link below its directory and ends in a socket or a directory. Blocks.
    pub(super) fn is_socket_or_directory(&self) -> bool {
        let Some((parent, name)) = self.parent() else { return self.below.as_os_str().is_empty() };
        statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| matches!(FileType::from_raw_mode(found.st_mode), FileType::Socket | FileType::Directory))
    }

    fn open_file(&self) -> Option<String> {
        let (parent, name) = self.parent()?;
        let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
        // Opening a device can have effects, so the type is checked before and after.
        if !is_file(statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mode) {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&parent, &name, flags, Mode::empty()).ok()?;
        let found = fstat(&file).ok()?;
        if !is_file(found.st_mode) {
            return None;
        }
        let mut text = String::new();
        let read = std::fs::File::from(file).take(MAX_BYTES + 1).read_to_string(&mut text).ok()?;
        (u64::try_from(read).ok()? <= MAX_BYTES).then_some(text)
    }

    /// The directory of the last component, opened component by component without following links, and that component.
    fn parent(&self) -> Option<(OwnedFd, PathBuf)> {
        let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut parent = openat(CWD, &self.directory, flags, Mode::empty()).ok()?;
        flags |= OFlags::NOFOLLOW;
        for part in self.below.parent()? {
            parent = openat(&parent, part, flags, Mode::empty()).ok()?;
        }
        Some((parent, PathBuf::from(self.below.file_name()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sec_kf05_only_small_regular_files_below_the_directory_are_read() {
        let root = tempfile::tempdir().unwrap();
        let allowed = root.path().join("allowed");
        std::fs::create_dir_all(allowed.join("sub")).unwrap();
        std::fs::create_dir(root.path().join("allowed-not")).unwrap();
        std::fs::write(allowed.join("sub/ca.pem"), "pem").unwrap();
        std::fs::write(root.path().join("outside"), "secret").unwrap();
        std::fs::write(root.path().join("allowed-not/x"), "secret").unwrap();
        std::fs::write(allowed.join("large"), vec![b'x'; 256 * 1024 + 1]).unwrap();
        std::fs::write(allowed.join("largest"), vec![b'x'; 256 * 1024]).unwrap();
        std::fs::write(allowed.join("binary"), [0xff, 0xfe]).unwrap();
        symlink(root.path().join("outside"), allowed.join("link")).unwrap();
        symlink(root.path(), allowed.join("up")).unwrap();
        symlink("sub/ca.pem", allowed.join("inner")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(allowed.join("fifo")).status().unwrap();
        assert!(fifo.success());
        let _socket = UnixListener::bind(allowed.join("sock")).unwrap();
        let directories = FileDirectories::new(std::slice::from_ref(&allowed));
        let locate = |path: &Path| directories.locate("sslrootcert", path.to_str().unwrap(), "give tls_ca");
        let read = |path: &Path| locate(path).unwrap().read();
        assert_eq!(read(&allowed.join("sub/ca.pem")).unwrap(), "pem");
        assert_eq!(read(&allowed.join("sub//ca.pem")).unwrap(), "pem");
        assert!(read(&allowed.join("largest")).is_ok());
        for name in
            ["large", "binary", "link", "up/outside", "inner", "fifo", "sock", "sub", "", "none", "sub/ca.pem/x"]
        {
            assert_eq!(read(&allowed.join(name)), Err(()), "{name}");
        }
        for path in ["../outside", "sub/../../outside", "sub/../sub/ca.pem"] {
            assert!(locate(&allowed.join(path)).is_err(), "{path}");
        }
        for path in
            [root.path().join("outside"), root.path().join("allowed-not/x"), "/dev/zero".into(), "sub/ca.pem".into()]
        {
            let error_text = locate(&path).unwrap_err();
            assert_eq!(
                error_text,
                "sslrootcert names a local file outside of database_file_directories of the server's configuration: give tls_ca"
            );
        }
        for (name, expected) in
            [("sock", true), ("sub", true), ("", true), ("link", false), ("up/x", false), ("none", false)]
        {
            assert_eq!(locate(&allowed.join(name)).unwrap().is_socket_or_directory(), expected, "{name}");
        }
    }
}
