//! The sockets of listeners: TCP and Unix.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::config::Bind;

/// The most connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// The mode of a socket file without `socket_mode`.
const OWNER_ONLY: u32 = 0o700;

/// A listening socket. Clients may connect immediately; they are served when a [`crate::Listener`] runs.
pub struct Socket(pub(crate) Kind);

/// The kinds of sockets.
pub(crate) enum Kind {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket; its file is removed when the listener is dropped.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Removes the file when dropped.
        _file: SocketFile,
    },
}

impl Socket {
    /// Opens the socket of a listener. Requires a Tokio runtime.
    ///
    /// # Errors
    /// When the address is in use, the user is unknown, or the directory is writable by every user.
    pub fn bind(bind: &Bind) -> io::Result<Self> {
        match bind {
            Bind::Tcp(address) => listen_tcp(address).map(|listener| Socket(Kind::Tcp(listener))),
            Bind::Unix { path, mode, user, group } => {
                let owner = (user.as_deref().map(user_id).transpose()?, group.as_deref().map(group_id).transpose()?);
                let (listener, file) = unix(path, *mode, owner)?;
                Ok(Socket(Kind::Unix { listener, _file: file }))
            }
        }
    }

    /// The bound address, with the chosen port instead of port 0.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix { .. } => None,
        }
    }
}

/// The file of a Unix socket, removed when dropped unless another file has replaced it.
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn is_ours(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens on the first address that a text means and that is free. Requires a Tokio runtime.
///
/// # Errors
/// Those of the system, of the last address.
pub fn listen_tcp(address: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the address has no meaning");
    for candidate in candidates(address)? {
        let open = || {
            let socket = if candidate.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(candidate)?;
            socket.listen(BACKLOG)
        };
        match open() {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Resolves an address. `:8200` means every address of the machine: both families, or the available one.
///
/// # Errors
/// When a host name cannot be resolved.
pub fn candidates(address: &str) -> io::Result<Vec<SocketAddr>> {
    match address.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]),
        None => Ok(address.to_socket_addrs()?.collect()),
    }
}

/// The uid of a user name or number.
///
/// # Errors
/// When there is no such user.
pub fn user_id(name: &str) -> io::Result<u32> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => User::from_name(name)?.map(|user| user.uid.as_raw()).ok_or_else(|| unknown_name("user", name)),
    }
}

/// The gid of a group name or number.
///
/// # Errors
/// When there is no such group.
pub fn group_id(name: &str) -> io::Result<u32> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => Group::from_name(name)?.map(|group| group.gid.as_raw()).ok_or_else(|| unknown_name("group", name)),
    }
}

fn unknown_name(kind: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {kind} {name:?}"))
}

/// Opens a Unix socket. The file gets its owner and mode in a directory that only this process can enter, and then its
/// name, so that no other user can connect earlier, or make it change the owner of another file.
fn unix(
    path: &Path,
    mode: Option<u32>,
    (user, group): (Option<u32>, Option<u32>),
) -> io::Result<(UnixListener, SocketFile)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_directory(parent)?;
    check_free(path)?;
    let private = Private::beside(parent)?;
    let unnamed = private.0.join("s");
    let listener = UnixListener::bind(&unnamed)?;
    std::fs::set_permissions(&unnamed, Permissions::from_mode(mode.unwrap_or(OWNER_ONLY)))?;
    if user.is_some() || group.is_some() {
        std::os::unix::fs::lchown(&unnamed, user, group)?;
    }
    let metadata = std::fs::symlink_metadata(&unnamed)?;
    std::fs::rename(&unnamed, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() }))
}

/// Refuses a directory in which every user can rename files: such a user could replace the socket with another one.
///
/// # Errors
/// When the directory cannot be examined, or every user can write to it and it is not sticky.
pub fn check_directory(parent: &Path) -> io::Result<()> {
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let mode = std::fs::metadata(parent)?.permissions().mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let text = format!("{} can be written by every user; its mode must not allow that", parent.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Removes a socket file that a killed server has left; refuses a socket that accepts connections and any other file.
fn check_free(path: &Path) -> io::Result<()> {
    let taken = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} {why}", path.display())));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => taken("exists and is not a socket"),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            _ => taken("is the socket of a process that listens"),
        },
    }
}

/// A directory that only the user of this process can enter, removed when dropped.
struct Private(PathBuf);

impl Private {
    fn beside(parent: &Path) -> io::Result<Self> {
        // The name is short because the path of a socket is limited.
        let path = parent.join(format!(".{}", keepfast_crypto::random::base62(8)));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Private(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.join("s"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_address_without_a_host_is_every_address() {
        let texts =
            |address: &str| -> Vec<String> { candidates(address).unwrap().iter().map(ToString::to_string).collect() };
        assert_eq!(texts(":8200"), ["[::]:8200", "0.0.0.0:8200"]);
        assert_eq!(texts("127.0.0.1:1"), ["127.0.0.1:1"]);
        assert_eq!(texts("[::1]:1"), ["[::1]:1"]);
        assert!(candidates(":port").is_err());
    }

    use std::os::unix::fs::symlink;

    fn bind(path: &Path, mode: Option<u32>) -> io::Result<Socket> {
        Socket::bind(&Bind::Unix { path: path.to_owned(), mode, user: None, group: None })
    }

    fn mode_of(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn sec_kf28_a_socket_file_has_its_mode_under_every_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        for (mode, expected) in [(None, 0o700), (Some(0o600), 0o600), (Some(0o666), 0o666), (Some(0), 0)] {
            let socket = bind(&path, mode).unwrap();
            assert_eq!(mode_of(&path), expected);
            // No other file is left in the directory, and none at the end.
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn sec_kf28_only_a_stale_socket_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("s.sock"), dir.path().join("other"));
        std::fs::write(&other, "data").unwrap();
        std::fs::set_permissions(&other, Permissions::from_mode(0o640)).unwrap();
        std::fs::write(&path, "data").unwrap();
        assert!(bind(&path, Some(0o666)).err().unwrap().to_string().contains("is not a socket"));
        assert_eq!((std::fs::read(&path).unwrap(), mode_of(&path)), (b"data".to_vec(), mode_of(&path)));
        std::fs::remove_file(&path).unwrap();
        for target in [&other, &dir.path().join("missing")] {
            symlink(target, &path).unwrap();
            assert!(bind(&path, Some(0o666)).err().unwrap().to_string().contains("is not a socket"));
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(mode_of(&other), 0o640);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = bind(&path, None).unwrap();
        assert!(bind(&path, None).err().unwrap().to_string().contains("a process that listens"));
        // The file of another server is not removed.
        std::fs::remove_file(&path).unwrap();
        let newer = bind(&path, None).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(newer);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn sec_kf28_a_directory_that_every_user_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        for (mode, taken) in [(0o777, false), (0o1777, true), (0o770, true)] {
            std::fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
            let outcome = bind(&shared.join("s"), None);
            assert_eq!(outcome.is_ok(), taken, "{mode:o}");
        }
        assert!(bind(&dir.path().join("none/s"), None).is_err());
        assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 0);
    }
}
