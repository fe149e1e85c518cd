//! Settings of the process itself: no core dumps, locked memory, file descriptors, a strict umask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keepfast_crypto::locked;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that are not for connections: storage, logs, audit, the runtime.
const RESERVED: u64 = 128;
/// The most connections that are served at once.
const MAX_CONNECTIONS: u64 = 16_384;

/// Disables core dumps, and makes new files private unless their mode is given.
pub(crate) fn harden() {
    locked::forbid_dumps();
    // With huge pages the first use of each part of the heap costs two megabytes: an idle server would be half as large
    // again.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// The host name of this machine; empty when the system has none.
pub(crate) fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Locks the memory of the process, so that secrets cannot reach the swap space.
///
/// # Errors
/// When locking is not allowed, or a limit would let it succeed now and fail a later allocation.
pub(crate) fn lock_memory() -> io::Result<()> {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    if !unlimited && !has_ipc_lock() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the limit on locked memory is not \"unlimited\""));
    }
    locked::lock_all()
}

/// Whether the process has `CAP_IPC_LOCK`.
fn has_ipc_lock() -> bool {
    const IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits & IPC_LOCK != 0)
}

/// Raises the limit on file descriptors as far as allowed. Returns the number of connections that it allows.
pub(crate) fn connection_room() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A limit that cannot be raised stays, and the number below follows it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = files.saturating_sub(RESERVED).clamp(16, MAX_CONNECTIONS);
    u32::try_from(room).unwrap_or(16)
}

/// A pid file, removed when dropped.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the pid file.
    pub(crate) fn write(path: &Path) -> io::Result<Self> {
        std::fs::write(path, std::process::id().to_string())?;
        // The pid is no secret, and supervisors of other users read it.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
