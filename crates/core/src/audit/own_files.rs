//! The server's own files, which no audit device may write to: storage, certificates, configuration, logs, sockets.
//!
//! Two names of one file are the same file, so directories and files are compared by device and inode, too: symbolic and
//! hard links and bind mounts lead nowhere else.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// A file or directory with what the server uses it for.
pub(crate) type Used = (&'static str, PathBuf);

/// The server's own files, whether they exist or not.
#[derive(Clone, Debug, Default)]
pub struct OwnFiles {
    /// Directories that hold nothing else, such as the storage.
    pub directories: Vec<Used>,
    /// Directories whose `*.hcl` and `*.json` are read as configuration.
    pub configuration: Vec<PathBuf>,
    /// Single files and sockets.
    pub files: Vec<Used>,
    /// Logs whose older parts are kept beside them as `name-<digits>.extension`, and removed.
    pub rotated: Vec<PathBuf>,
}

/// File systems whose files are the kernel's: a write to one changes a setting or a process.
const KERNEL_FILE_SYSTEMS: [u32; 11] = [
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x6265_6570, // configfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
];

/// Entries of an own directory that are compared with an opened log, at most.
const MOST_ENTRIES: usize = 10_000;

/// Where a path leads.
struct Place {
    /// The nearest directory above the last name that exists, without links.
    directory: PathBuf,
    /// What is missing below it, and the last name, which may be a link.
    rest: PathBuf,
}

impl Place {
    /// `None` for a path without a last name, such as `..`.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        if path.file_name().is_none() {
            return Ok(None);
        }
        for above in path.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            match above.canonicalize() {
                Ok(directory) => {
                    let rest = path.strip_prefix(above).unwrap_or(path).to_owned();
                    if rest.components().any(|part| part == Component::ParentDir) {
                        return Err(io::Error::other("the path leads up from a directory that does not exist"));
                    }
                    return Ok(Some(Place { directory, rest }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.rest)
    }

    /// Whether it lies at or below a directory, which need not exist.
    fn is_within(&self, directory: &Path) -> bool {
        let own = directory.metadata().ok().map(|found| identity(&found));
        let same = |above: &Path| own.is_some() && above.metadata().ok().map(|found| identity(&found)) == own;
        let planned = Place::of(directory).ok().flatten().map(|place| place.path());
        self.directory.ancestors().any(same) || planned.is_some_and(|planned| self.path().starts_with(planned))
    }

    /// Whether the last name stands in a directory itself.
    fn is_in(&self, directory: &Path) -> bool {
        self.rest.components().count() == 1 && directory.canonicalize().is_ok_and(|found| found == self.directory)
    }
}

/// What tells a file from all others.
fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

impl OwnFiles {
    /// Refuses a path that leads to a file of the server or of the kernel. Nothing is opened or created.
    ///
    /// # Errors
    /// What the server uses it for.
    pub(super) fn check_path(&self, path: &Path) -> io::Result<()> {
        let Some(place) = Place::of(path)? else { return Ok(()) };
        let system = rustix::fs::statfs(&place.directory);
        if system.is_ok_and(|found| KERNEL_FILE_SYSTEMS.contains(&(found.f_type as u32))) {
            return Err(io::Error::other("it is a file of the kernel"));
        }
        if let Some((what, _)) = self.directories.iter().find(|(_, directory)| place.is_within(directory)) {
            return Err(in_use(what));
        }
        let name = place.rest.file_name().unwrap_or_default();
        let is_read = Path::new(name).extension().is_some_and(|e| e == "hcl" || e == "json");
        if is_read && self.configuration.iter().any(|directory| place.is_in(directory)) {
            return Err(in_use("configuration"));
        }
        if self.rotated.iter().any(|log| place.is_in(directory_of(log)) && is_older_part(name, log)) {
            return Err(in_use("log_file"));
        }
        let found = path.metadata().ok();
        // The server's log may go to /dev/null, too.
        if found.as_ref().is_some_and(|found| found.file_type().is_char_device()) {
            return Ok(());
        }
        let found = found.map(|found| identity(&found));
        let same = |file: &Path| {
            let own = file.metadata().ok().map(|found| identity(&found));
            own.is_some() && own == found
                || Place::of(file).ok().flatten().is_some_and(|own| own.path() == place.path())
        };
        match self.files.iter().find(|(_, file)| same(file)) {
            Some((what, _)) => Err(in_use(what)),
            None => Ok(()),
        }
    }

    /// Refuses an opened file that is also one in a directory of the server, under whatever name it was opened.
    ///
    /// # Errors
    /// What the server uses it for.
    pub(super) fn check_opened(&self, opened: &Metadata) -> io::Result<()> {
        for (what, directory) in &self.directories {
            if holds(directory, identity(opened)) {
                return Err(in_use(what));
            }
        }
        Ok(())
    }
}

fn in_use(what: &str) -> io::Error {
    io::Error::other(format!("the server itself uses this file ({what})"))
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a name is that of an older part of a log: `name-<digits>.extension`.
fn is_older_part(name: &OsStr, log: &Path) -> bool {
    let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let name = name.to_string_lossy();
    let digits = name.strip_prefix(&text(log.file_stem())).and_then(|rest| rest.strip_prefix('-'));
    let extension = log.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    let digits = digits.and_then(|rest| rest.strip_suffix(extension.as_str()));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a directory, or one below it, has this file; links are not followed.
fn holds(directory: &Path, file: (u64, u64)) -> bool {
    let (mut open, mut seen) = (vec![directory.to_owned()], 0);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST_ENTRIES {
                return false;
            }
            let Ok(found) = entry.metadata() else { continue };
            if identity(&found) == file {
                return true;
            }
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree {
        dir: tempfile::TempDir,
        own: OwnFiles,
    }

    fn tree() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for directory in ["data/raft", "conf", "logs", "elsewhere"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["data/raft/log-1", "conf/a.hcl", "tls.key", "logs/keepfast.log", "elsewhere/notes"] {
            std::fs::write(at(file), "x").unwrap();
        }
        for (target, link) in [("data", "to-data"), ("data/raft", "to-raft"), ("logs", "to-logs"), ("tls.key", "key")] {
            std::os::unix::fs::symlink(at(target), at(link)).unwrap();
        }
        let own = OwnFiles {
            directories: vec![("storage", at("data")), ("storage", at("later/data"))],
            configuration: vec![at("conf")],
            files: vec![
                ("tls_key_file", at("key")),
                ("pid_file", at("run/pid")),
                ("log_file", at("logs/keepfast.log")),
            ],
            rotated: vec![at("logs/keepfast.log")],
        };
        Tree { dir, own }
    }

    #[test]
    fn sec_kf45_no_name_leads_to_a_file_of_the_server() {
        let tree = tree();
        for (path, what) in [
            ("data/raft/log-1", "storage"),
            ("data/new", "storage"),
            ("data/new/deep/log", "storage"),
            ("data", "storage"),
            ("elsewhere/../data/raft/x", "storage"),
            ("to-data/x", "storage"),
            ("to-raft/log-1", "storage"),
            ("later/data/x", "storage"),
            ("later/data", "storage"),
            ("conf/a.hcl", "configuration"),
            ("conf/new.json", "configuration"),
            ("tls.key", "tls_key_file"),
            ("key", "tls_key_file"),
            ("run/pid", "pid_file"),
            ("elsewhere/../run/pid", "pid_file"),
            ("logs/keepfast.log", "log_file"),
            ("to-logs/keepfast.log", "log_file"),
            ("logs/keepfast-123.log", "log_file"),
        ] {
            let refused = tree.own.check_path(&tree.dir.path().join(path));
            assert!(refused.is_err_and(|e| e.to_string().contains(what)), "{path}");
        }
        assert!(tree.own.check_path(&tree.dir.path().join("missing/../data/x")).is_err(), "up from what is missing");
        for path in
            ["audit.log", "conf/audit.log", "conf/sub/a.json", "logs/audit.log", "logs/keepfast-.log", "database/x"]
        {
            tree.own.check_path(&tree.dir.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
    }

    #[test]
    fn sec_kf45_a_second_name_of_a_stored_file_is_that_file() {
        let tree = tree();
        let second = tree.dir.path().join("elsewhere/second");
        std::fs::hard_link(tree.dir.path().join("data/raft/log-1"), &second).unwrap();
        assert!(tree.own.check_opened(&second.metadata().unwrap()).is_err());
        tree.own.check_opened(&tree.dir.path().join("elsewhere/notes").metadata().unwrap()).unwrap();
    }

    #[test]
    fn sec_kf45_a_log_is_no_file_of_the_kernel() {
        let own = OwnFiles::default();
        for path in ["/proc/self/mem", "/proc/sys/kernel/core_pattern"] {
            assert!(own.check_path(Path::new(path)).is_err(), "{path}");
        }
        own.check_path(Path::new("/dev/null")).unwrap();
        own.check_path(Path::new("..")).unwrap();
    }
}
