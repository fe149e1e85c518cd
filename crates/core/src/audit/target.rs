//! What declared devices write to: checked before anything that cannot be undone, and opened at unseal.
//!
//! A device that cannot be opened stops the server's start, `sys/init` and `sys/unseal` with the device, the path and what
//! the system says, so that init never leaves a storage whose shares are lost.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use rustix::fs::{Access, FallocateFlags, OFlags};

use super::device::{Device, FileDevice, StreamDevice, discard};
use super::options::{DeviceOptions, Target};
use crate::settings::AuditSettings;

/// Why an audit device cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("audit device {device:?} cannot be opened: {reason}")]
pub struct DeviceError {
    /// The path of the device in `sys/audit`.
    pub device: String,
    /// The file and what the system says, or what is wrong with an option.
    pub reason: String,
}

impl DeviceError {
    fn of(settings: &AuditSettings, reason: impl Into<String>) -> Self {
        DeviceError { device: settings.name.clone(), reason: reason.into() }
    }
}

impl From<DeviceError> for keepfast_framework::Error {
    fn from(error: DeviceError) -> Self {
        keepfast_framework::Error::new(keepfast_framework::Status::INTERNAL, error.to_string())
    }
}

/// An open device with its options.
pub type OpenedDevice = (DeviceOptions, Box<dyn Device>);

/// Bytes that a log must have room for: a few entries.
const ROOM: u64 = 16 << 10;

/// Checks a device without changing anything: for `-verify-only` and `operator validate-config`.
///
/// # Errors
/// [`DeviceError`]. A full disk is not noticed here.
pub fn check(settings: &AuditSettings) -> Result<(), DeviceError> {
    let target = DeviceOptions::of(settings)?.target;
    let Target::Path(path) = &target else { return Ok(()) };
    let checked = match path.symlink_metadata() {
        Ok(_) if is_pipe(path) => writable(path, Access::WRITE_OK),
        Ok(_) => append_to(path, false, None).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => parent_can_be_made(path),
        Err(error) => Err(error),
    };
    checked.map_err(|error| DeviceError::of(settings, format!("{}: {error}", path.display())))
}

/// Creates the directories and files of all devices, and makes sure that at least one of them can take an entry now.
///
/// # Errors
/// [`DeviceError`] of a device that cannot be opened, or of the first one when none has room.
pub fn prepare_all(devices: &[AuditSettings]) -> Result<(), DeviceError> {
    let mut full = None;
    let mut usable = devices.is_empty();
    for settings in devices {
        match prepare(settings)? {
            None => usable = true,
            Some(error) => full = full.or(Some(error)),
        }
    }
    full.filter(|_| !usable).map_or(Ok(()), Err)
}

/// Creates the directory and the file of a device; `Some` when there is no room in it.
fn prepare(settings: &AuditSettings) -> Result<Option<DeviceError>, DeviceError> {
    let DeviceOptions { target, mode, .. } = DeviceOptions::of(settings)?;
    let Target::Path(path) = &target else { return Ok(None) };
    let fault = |error: io::Error| DeviceError::of(settings, format!("{}: {error}", path.display()));
    if is_pipe(path) {
        // Opening and closing a pipe would end its reader.
        return writable(path, Access::WRITE_OK).map(|()| None).map_err(fault);
    }
    let file = append_to(path, true, mode).map_err(fault)?;
    Ok(room(&file).err().map(fault))
}

/// Opens all devices, each with its options, after [`prepare_all`].
///
/// # Errors
/// [`DeviceError`].
pub fn open_all(devices: &[AuditSettings]) -> Result<Vec<OpenedDevice>, DeviceError> {
    prepare_all(devices)?;
    devices.iter().map(open).collect()
}

/// Opens one device.
///
/// # Errors
/// [`DeviceError`].
pub fn open(settings: &AuditSettings) -> Result<OpenedDevice, DeviceError> {
    let options = DeviceOptions::of(settings)?;
    let opened: io::Result<Box<dyn Device>> = match &options.target {
        Target::Stdout => StreamDevice::new(Box::new(io::stdout())).map(|device| Box::new(device) as _),
        Target::Discard => Ok(discard()),
        Target::Path(path) if is_pipe(path) => {
            open_pipe(path).and_then(|pipe| StreamDevice::new(Box::new(pipe))).map(|device| Box::new(device) as _)
        }
        Target::Path(path) => FileDevice::open(path, options.mode).map(|device| Box::new(device) as _),
    };
    let path = match &options.target {
        Target::Path(path) => format!("{}: ", path.display()),
        Target::Stdout | Target::Discard => String::new(),
    };
    match opened {
        Ok(device) => Ok((options, device)),
        Err(error) => Err(DeviceError::of(settings, format!("{path}{error}"))),
    }
}

fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.file_type().is_fifo())
}

/// Opens a pipe that somebody reads; without a reader the open would wait for one.
fn open_pipe(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let pipe = OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) {
            true => io::Error::new(error.kind(), "nothing reads this named pipe"),
            false => error,
        }
    })?;
    rustix::fs::fcntl_setfl(&pipe, rustix::fs::fcntl_getfl(&pipe)? - OFlags::NONBLOCK)?;
    Ok(pipe)
}

/// Opens a log for appending, never through a symbolic link and never a file that has a second name.
///
/// With `create`, missing directories are created (0700) and the file gets `mode` whether it is new or not.
pub(super) fn append_to(path: &Path, create: bool, mode: Option<u32>) -> io::Result<File> {
    if create && let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|e| {
            io::Error::new(e.kind(), format!("the directory {} cannot be created: {e}", directory.display()))
        })?;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
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
        return Err(io::Error::other("the audit log is not a regular file"));
    }
    if create && let Some(mode) = mode.filter(|mode| found.is_file() && found.mode() & 0o7777 != *mode) {
        let set = file.set_permissions(std::fs::Permissions::from_mode(mode));
        set.map_err(|e| io::Error::new(e.kind(), format!("its mode cannot be set to {mode:04o}: {e}")))?;
    }
    Ok(file)
}

/// Whether the file system, the quota and the limit on file sizes leave room for a few entries.
fn room(mut file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if !found.is_file() {
        // `/dev/full` refuses even nothing.
        return file.write(&[]).map(drop);
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, found.len(), ROOM) {
        // Some file systems cannot tell.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn writable(path: &Path, access: Access) -> io::Result<()> {
    Ok(rustix::fs::access(path, access)?)
}

/// Whether the missing directories above a log can be created: the nearest one that exists is a directory that lets us.
fn parent_can_be_made(path: &Path) -> io::Result<()> {
    let above = path.ancestors().skip(1).map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    for directory in above {
        match directory.metadata() {
            Ok(found) if found.is_dir() => {
                return writable(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| {
                    io::Error::new(e.kind(), format!("nothing can be created in {}: {e}", directory.display()))
                });
            }
            Ok(_) => return Err(io::Error::other(format!("{} is not a directory", directory.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &Path, options: &[(&str, &str)]) -> AuditSettings {
        let mut all = std::collections::BTreeMap::from([("file_path".to_owned(), path.display().to_string())]);
        all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        AuditSettings { device: "file".into(), name: "log".into(), description: String::new(), options: all }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn sec_kf41_mode_is_set_on_every_open_of_existing_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (_, opened) = open(&device(&path, &[])).unwrap();
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        opened.reopen().unwrap();
        assert_eq!(mode(&path), 0o600, "after a reopen");
        open(&device(&path, &[("mode", "0640")])).unwrap();
        assert_eq!(mode(&path), 0o640);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        open(&device(&path, &[("mode", "0000")])).unwrap();
        assert_eq!(mode(&path), 0o604, "0000 leaves it");
    }

    #[test]
    fn missing_directories_are_created_private_or_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/log");
        check(&device(&path, &[])).unwrap();
        assert!(!dir.path().join("a").exists(), "a check creates nothing");
        prepare_all(&[device(&path, &[])]).unwrap();
        assert_eq!((mode(&dir.path().join("a")), mode(path.parent().unwrap()), mode(&path)), (0o700, 0o700, 0o600));
        check(&device(&path, &[])).unwrap();
        let below = path.join("log");
        for refused in [check(&device(&below, &[])), prepare_all(&[device(&below, &[])])] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("\"log\"") && text.contains(&below.display().to_string()), "{text}");
        }
        let text = prepare_all(&[device(dir.path(), &[])]).unwrap_err().to_string();
        assert!(text.contains("Is a directory"), "{text}");
        assert!(check(&device(dir.path(), &[])).is_err());
        assert!(
            prepare_all(&[device(Path::new("/proc/none/log"), &[])]).unwrap_err().to_string().contains("/proc/none")
        );
    }

    #[test]
    fn a_log_without_room_is_refused_unless_another_device_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let full = device(Path::new("/dev/full"), &[]);
        let text = prepare_all(std::slice::from_ref(&full)).unwrap_err().to_string();
        assert!(text.contains("/dev/full") && text.contains("No space left"), "{text}");
        prepare_all(&[full, device(&dir.path().join("log"), &[])]).unwrap();
        prepare_all(&[]).unwrap();
    }

    #[test]
    fn a_pipe_without_a_reader_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        check(&device(&path, &[])).unwrap();
        prepare_all(&[device(&path, &[])]).unwrap();
        let text = open(&device(&path, &[])).err().unwrap().to_string();
        assert!(text.contains("nothing reads"), "{text}");
        let _reader = File::options().read(true).write(true).open(&path).unwrap();
        open(&device(&path, &[])).unwrap();
    }
}
