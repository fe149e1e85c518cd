//! The permitted targets of an audit device, and how its file is opened.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::own_files::OwnFiles;

/// The permitted targets of a device.
#[derive(Clone, Debug, Default)]
pub struct AllowedTargets {
    /// The server's own files, which are not permitted.
    pub(crate) own: Arc<OwnFiles>,
    /// Only regular files, `/dev/null` and `/dev/full`: for devices that `sys/audit` creates. A declared device may
    /// also use a named pipe or a character device.
    pub(crate) only_files: bool,
}

impl AllowedTargets {
    /// The permitted targets of a declared device.
    pub fn declared(own: &Arc<OwnFiles>) -> Self {
        AllowedTargets { own: own.clone(), only_files: false }
    }

    /// The permitted targets of a device that `sys/audit` creates.
    pub(crate) fn created(own: &Arc<OwnFiles>) -> Self {
        AllowedTargets { own: own.clone(), only_files: true }
    }

    /// Checks a path before it is opened.
    pub(super) fn check_path(&self, path: &Path) -> io::Result<()> {
        self.own.check_path(path)?;
        match path.metadata() {
            Ok(found) => self.check_kind(&found),
            Err(_) => Ok(()),
        }
    }

    /// Checks an opened file: another file may have replaced the path meanwhile.
    fn check_opened(&self, found: &Metadata) -> io::Result<()> {
        self.check_kind(found)?;
        self.own.check_opened(found)
    }

    fn check_kind(&self, found: &Metadata) -> io::Result<()> {
        let is_allowed = !self.only_files || found.is_file() || found.is_dir() || is_null_or_full(found);
        // The error of the system for a directory is more precise.
        if is_allowed { Ok(()) } else { Err(not_a_file()) }
    }
}

fn not_a_file() -> io::Error {
    io::Error::other("the audit log is not a regular file")
}

/// Whether it is `/dev/null` or `/dev/full`, under any name: opening another device may have effects.
fn is_null_or_full(found: &Metadata) -> bool {
    let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    found.file_type().is_char_device() && major == 1 && (minor == 3 || minor == 7)
}

/// Opens a log for appending, never through a symbolic link and never a file with a second hard link.
///
/// With `create`, missing directories are created (0700) and the file gets `mode` whether it is new or not.
pub(super) fn append_to(path: &Path, create: bool, mode: Option<u32>, allowed: &AllowedTargets) -> io::Result<File> {
    allowed.check_path(path)?;
    if create && let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|e| {
            io::Error::new(e.kind(), format!("the directory {} cannot be created: {e}", directory.display()))
        })?;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let mut options = OpenOptions::new();
    let file = options.create(create).append(true).mode(mode.unwrap_or(0o600)).custom_flags(flags).open(path);
    let file = file.map_err(|error| match error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        true => io::Error::new(error.kind(), "the audit log is a symbolic link"),
        false => error,
    })?;
    let found = file.metadata()?;
    if found.is_file() && found.nlink() > 1 {
        return Err(io::Error::other("the audit log has more than one name (a hard link)"));
    }
    if !found.is_file() && !found.file_type().is_char_device() {
        return Err(not_a_file());
    }
    allowed.check_opened(&found)?;
    if create && let Some(mode) = mode.filter(|mode| found.is_file() && found.mode() & 0o7777 != *mode) {
        let set = file.set_permissions(std::fs::Permissions::from_mode(mode));
        set.map_err(|e| io::Error::new(e.kind(), format!("its mode cannot be set to {mode:04o}: {e}")))?;
    }
    Ok(file)
}
