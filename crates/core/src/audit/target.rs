//! The targets of devices: checked before any irreversible step, and opened at unseal.
//!
//! A device that cannot be opened stops the server's start, `sys/init` and `sys/unseal` with the device, the path and
//! the error of the system, so that init never leaves a storage whose shares are lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Access, FallocateFlags, OFlags};

use super::allowed_targets::{AllowedTargets, append_to};
use super::device::{Device, FileDevice, StreamDevice, discard};
use super::device_error::DeviceError;
use super::options::{DeviceOptions, Target};
use crate::settings::AuditSettings;

/// An open device with its options.
pub(crate) type OpenedDevice = (DeviceOptions, Box<dyn Device>);

/// The free space that a log must have, in bytes: a few entries.
const ROOM: u64 = 16 << 10;

/// Checks a device without changes: for `-verify-only` and `operator validate-config`.
///
/// # Errors
/// [`DeviceError`]. A full disk is not detected here.
pub fn check(settings: &AuditSettings, allowed: &AllowedTargets) -> Result<(), DeviceError> {
    let target = DeviceOptions::of(settings)?.target;
    let Target::Path(path) = &target else { return Ok(()) };
    let checked = || match path.symlink_metadata() {
        Ok(_) if is_pipe(path) => writable(path, Access::WRITE_OK),
        Ok(_) => append_to(path, false, None, allowed).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => parent_can_be_made(path),
        Err(error) => Err(error),
    };
    allowed
        .check_path(path)
        .and_then(|()| checked())
        .map_err(|error| DeviceError::of(settings, format!("{}: {error}", path.display())))
}

/// Creates the directories and files of all devices, and checks that at least one of them can take an entry now.
///
/// # Errors
/// [`DeviceError`] of a device that cannot be opened, or of the first one when none has free space.
pub fn prepare_all(devices: &[AuditSettings], allowed: &AllowedTargets) -> Result<(), DeviceError> {
    let mut full = None;
    let mut usable = devices.is_empty();
    for settings in devices {
        match prepare(settings, allowed)? {
            None => usable = true,
            Some(error) => full = full.or(Some(error)),
        }
    }
    full.filter(|_| !usable).map_or(Ok(()), Err)
}

/// Creates the directory and the file of a device; `Some` when it has no free space.
fn prepare(settings: &AuditSettings, allowed: &AllowedTargets) -> Result<Option<DeviceError>, DeviceError> {
    let DeviceOptions { target, mode, .. } = DeviceOptions::of(settings)?;
    let Target::Path(path) = &target else { return Ok(None) };
    let fault = |error: io::Error| DeviceError::of(settings, format!("{}: {error}", path.display()));
    allowed.check_path(path).map_err(fault)?;
    if is_pipe(path) {
        // Opening and closing a pipe would end its reader.
        return writable(path, Access::WRITE_OK).map(|()| None).map_err(fault);
    }
    let file = append_to(path, true, mode, allowed).map_err(fault)?;
    Ok(room(&file).err().map(fault))
}

/// Opens all devices, each with its options, after [`prepare_all`].
pub(crate) fn open_all(devices: &[AuditSettings], allowed: &AllowedTargets) -> Result<Vec<OpenedDevice>, DeviceError> {
    prepare_all(devices, allowed)?;
    devices.iter().map(|settings| open(settings, allowed)).collect()
}

/// Opens one device.
pub(crate) fn open(settings: &AuditSettings, allowed: &AllowedTargets) -> Result<OpenedDevice, DeviceError> {
    let options = DeviceOptions::of(settings)?;
    let opened: io::Result<Box<dyn Device>> = match &options.target {
        Target::Stdout => StreamDevice::new(Box::new(io::stdout())).map(|device| Box::new(device) as _),
        Target::Discard => Ok(discard()),
        Target::Path(path) if is_pipe(path) => allowed
            .check_path(path)
            .and_then(|()| open_pipe(path))
            .and_then(|pipe| StreamDevice::new(Box::new(pipe)))
            .map(|device| Box::new(device) as _),
        Target::Path(path) => open_file(path, &options, allowed).map(|device| Box::new(device) as _),
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

/// Opens a file with its options.
pub(super) fn open_file(path: &Path, options: &DeviceOptions, allowed: &AllowedTargets) -> io::Result<FileDevice> {
    Ok(FileDevice::open(path, options.mode, allowed)?.wiping(options.format.log_raw))
}

fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.file_type().is_fifo())
}

/// Opens a pipe that has a reader; otherwise the open would block.
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

/// Whether the file system, the quota and the limit on file sizes have space for a few entries.
fn room(mut file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if !found.is_file() {
        // `/dev/full` refuses even an empty write.
        return file.write(&[]).map(drop);
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, found.len(), ROOM) {
        // Some file systems do not support this.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn writable(path: &Path, access: Access) -> io::Result<()> {
    Ok(rustix::fs::access(path, access)?)
}

/// Whether the missing directories above a log can be created: the nearest existing one is a directory with the
/// permissions for it.
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
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::sync::Arc;

    use super::*;
    use crate::audit::OwnFiles;

    fn check(settings: &AuditSettings) -> Result<(), DeviceError> {
        super::check(settings, &AllowedTargets::default())
    }

    fn prepare_all(devices: &[AuditSettings]) -> Result<(), DeviceError> {
        super::prepare_all(devices, &AllowedTargets::default())
    }

    fn open(settings: &AuditSettings) -> Result<OpenedDevice, DeviceError> {
        super::open(settings, &AllowedTargets::default())
    }

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
    #[test]
    fn sec_kf45_a_created_device_is_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _reader = File::options().read(true).write(true).open(at("pipe")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let created = AllowedTargets { only_files: true, ..AllowedTargets::default() };
        let tried = |path: &Path, allowed: &AllowedTargets| {
            let settings = device(path, &[]);
            [super::check(&settings, allowed), super::open(&settings, allowed).map(drop)].map(|outcome| outcome.is_ok())
        };
        for (path, is_declarable) in [
            ("pipe", true),
            ("socket", false),
            ("/dev/zero", true),
            ("/dev/ptmx", true),
            ("/dev/tty", false),
            (".", false),
        ] {
            assert_eq!(tried(&at(path), &created), [false, false], "{path}");
            assert!(!is_declarable || tried(&at(path), &AllowedTargets::default()) == [true, true], "{path}");
        }
        for path in ["log", "/dev/null"] {
            assert_eq!(tried(&at(path), &created), [true, true], "{path}");
        }
    }

    #[test]
    fn sec_kf45_no_device_is_a_file_of_the_server_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("data")).unwrap();
        std::fs::write(at("data/log-1"), "stored").unwrap();
        let own = OwnFiles { directories: vec![("storage", at("data"))], ..OwnFiles::default() };
        let allowed = AllowedTargets::declared(&Arc::new(own));
        for path in ["data/log-1", "data/new", "data/deep/new"] {
            let settings = device(&at(path), &[("mode", "0640")]);
            for refused in [
                super::check(&settings, &allowed),
                super::prepare_all(std::slice::from_ref(&settings), &allowed),
                super::open(&settings, &allowed).map(drop),
            ] {
                assert!(refused.is_err_and(|e| e.reason.contains("storage")), "{path}");
            }
        }
        assert_eq!(std::fs::read_dir(at("data")).unwrap().count(), 1, "nothing was created");
        // A log that was replaced by a link to the storage is not opened again.
        let log = device(&at("logs/log"), &[]);
        let (_, opened) = super::open(&log, &allowed).unwrap();
        std::fs::rename(at("logs"), at("old")).unwrap();
        std::os::unix::fs::symlink(at("data"), at("logs")).unwrap();
        assert!(opened.reopen().is_err());
        assert_eq!(std::fs::read_dir(at("data")).unwrap().count(), 1);
    }
}
