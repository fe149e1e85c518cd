//! What the server asks of the operating system for itself: no dumps, locked memory, descriptors, a strict umask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keepfast_crypto::locked;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not for connections: storage, logs, audit, the runtime.
const RESERVED: u64 = 128;
/// The most connections that are served at once.
const MOST_CONNECTIONS: u64 = 16_384;

/// Forbids core dumps, and makes files that the server creates private unless a mode is given.
pub(crate) fn harden() {
    locked::forbid_dumps();
    // Huge pages make each first touch of the heap cost two megabytes: an idle server would be half as large again.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// The name of this machine; empty where the system does not tell it.
pub(crate) fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Locks the process's memory, so that secrets cannot reach the swap space.
///
/// # Errors
/// When it is not allowed, or a limit would let it succeed now and make a later allocation fail.
pub(crate) fn lock_memory() -> io::Result<()> {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    if !unlimited && !may_lock_beyond_limits() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the limit on locked memory is not \"unlimited\""));
    }
    locked::lock_all()
}

/// Whether the process has `CAP_IPC_LOCK`.
fn may_lock_beyond_limits() -> bool {
    const IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits & IPC_LOCK != 0)
}

/// Raises the limit on descriptors as far as allowed and tells how many connections that leaves room for.
pub(crate) fn connection_room() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What cannot be raised stays as it is, and the number below follows it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = files.saturating_sub(RESERVED).clamp(16, MOST_CONNECTIONS);
    u32::try_from(room).unwrap_or(16)
}

/// A file with the process id, removed in the end.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it.
    pub(crate) fn write(path: &Path) -> io::Result<Self> {
        std::fs::write(path, std::process::id().to_string())?;
        // Not a secret, and read by supervisors of other users.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
