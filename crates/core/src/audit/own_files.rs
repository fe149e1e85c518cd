//! The server's own files, to which no audit device may write: storage, certificates, configuration, logs, sockets.
//!
//! Two names of one file are the same file. So a path is refused by its text, by the target of its links, and by the
//! device and inode of the opened file; targets of links in the server's own directories also belong to the server.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// The purpose and the path of a file or directory.
pub(crate) type Used = (&'static str, PathBuf);

/// The server's own files, whether they exist or not.
#[derive(Clone, Debug, Default)]
pub struct OwnFiles {
    /// Directories with no other content, such as the storage.
    pub directories: Vec<Used>,
    /// Directories whose `*.hcl` and `*.json` are read as configuration.
    pub configuration: Vec<PathBuf>,
    /// Single files and sockets.
    pub files: Vec<Used>,
    /// Logs whose rotated parts are beside them as `name-<digits>.extension`, and are deleted.
    pub rotated: Vec<PathBuf>,
}

/// File systems of the kernel: a write to one of their files changes a setting or a process.
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

/// The most entries below own directories that are scanned. With more of them no device is opened: the storage has a
/// few files for each gigabyte.
const MOST_ENTRIES: usize = 100_000;
/// The most links in the resolution of a name, as in Linux.
const MOST_LINKS: usize = 40;

/// The location of a path.
struct Place {
    /// The nearest existing directory above the last name, without links.
    directory: PathBuf,
    /// The missing directories below it, and the last name, which may be a link.
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

    /// Whether the last name is directly in a directory.
    fn is_in(&self, directory: &Path) -> bool {
        self.rest.components().count() == 1 && directory.canonicalize().is_ok_and(|found| found == self.directory)
    }
}

/// The device and inode, which identify a file.
fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// The absolute path by its text: no link is followed.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// The location of an existing or future file with links followed, also a last one without a target.
fn resolved(file: &Path) -> Option<PathBuf> {
    let mut file = file.to_owned();
    for _ in 0..MOST_LINKS {
        match file.read_link() {
            Ok(target) => file = directory_of(&file).join(target),
            Err(_) => return Place::of(&file).ok().flatten().map(|place| place.path()),
        }
    }
    None
}

/// The content of own directories beyond their paths.
#[derive(Default)]
struct Found {
    /// Directories that are targets of links in them.
    directories: Vec<Used>,
    /// Files that are targets of links in them, whether they exist or not.
    linked: Vec<Used>,
    /// All existing files, in linked directories too.
    files: HashMap<(u64, u64), &'static str>,
}

impl OwnFiles {
    /// Refuses the path of a file of the server or of the kernel. Opens and creates no file.
    ///
    /// # Errors
    /// The purpose of the file.
    pub(super) fn check_path(&self, path: &Path) -> io::Result<()> {
        self.check_name(&lexical(path))?;
        let Some(place) = Place::of(path)? else { return Ok(()) };
        let system = rustix::fs::statfs(&place.directory);
        if system.is_ok_and(|found| KERNEL_FILE_SYSTEMS.contains(&(found.f_type as u32))) {
            return Err(io::Error::other("it is a file of the kernel"));
        }
        let found = self.find(MOST_ENTRIES)?;
        let mut directories = self.directories.iter().chain(&found.directories);
        if let Some((what, _)) = directories.find(|(_, directory)| place.is_within(directory)) {
            return Err(in_use(what));
        }
        let name = place.rest.file_name().unwrap_or_default();
        if is_configuration(name) && self.configuration.iter().any(|directory| place.is_in(directory)) {
            return Err(in_use("configuration"));
        }
        if self.rotated.iter().any(|log| place.is_in(directory_of(log)) && is_older_part(name, log)) {
            return Err(in_use("log_file"));
        }
        let at_path = path.metadata().ok();
        // The server's log may also be `/dev/null`.
        if at_path.as_ref().is_some_and(|found| found.file_type().is_char_device()) {
            return Ok(());
        }
        let at_path = at_path.map(|found| identity(&found));
        let same = |file: &Path| {
            let own = file.metadata().ok().map(|found| identity(&found));
            own.is_some() && own == at_path || resolved(file).is_some_and(|own| own == place.path())
        };
        match self.files.iter().chain(&found.linked).find(|(_, file)| same(file)) {
            Some((what, _)) => Err(in_use(what)),
            None => Ok(()),
        }
    }

    /// Refuses a path by its text, whatever the target of its links.
    fn check_name(&self, path: &Path) -> io::Result<()> {
        if let Some((what, _)) = self.directories.iter().find(|(_, own)| path.starts_with(lexical(own))) {
            return Err(in_use(what));
        }
        if let Some((what, _)) = self.files.iter().find(|(_, own)| path == lexical(own) && !own.starts_with("/dev")) {
            return Err(in_use(what));
        }
        let is_read = path.file_name().is_some_and(is_configuration);
        if is_read && self.configuration.iter().any(|own| path.parent() == Some(&lexical(own))) {
            return Err(in_use("configuration"));
        }
        Ok(())
    }

    /// Refuses an opened file that is also one of the server's, under any name.
    ///
    /// # Errors
    /// The purpose of the file; too many files below the server's directories.
    pub(super) fn check_opened(&self, opened: &Metadata) -> io::Result<()> {
        self.check_opened_among(opened, MOST_ENTRIES)
    }

    fn check_opened_among(&self, opened: &Metadata, most: usize) -> io::Result<()> {
        // The server's log may also be `/dev/null`.
        if opened.file_type().is_char_device() {
            return Ok(());
        }
        let is_opened = |file: &Path| file.metadata().is_ok_and(|found| identity(&found) == identity(opened));
        if let Some((what, _)) = self.files.iter().find(|(_, file)| is_opened(file)) {
            return Err(in_use(what));
        }
        match self.find(most)?.files.get(&identity(opened)) {
            Some(what) => Err(in_use(what)),
            None => Ok(()),
        }
    }

    /// Scans the own directories. A directory that cannot be read has no file of the server.
    fn find(&self, most: usize) -> io::Result<Found> {
        let mut found = Found::default();
        let mut left = most;
        let mut seen = HashSet::new();
        let mut open = self.directories.clone();
        while let Some((what, directory)) = open.pop() {
            if directory.metadata().is_ok_and(|found| !seen.insert(identity(&found))) {
                continue;
            }
            for file in entries(&directory, &mut left)? {
                if let Some(below) = found.add(what, file) {
                    open.push((what, below));
                }
            }
        }
        for directory in &self.configuration {
            let read = |file: &PathBuf| file.file_name().is_some_and(is_configuration);
            for file in entries(directory, &mut left)?.into_iter().filter(read) {
                found.add("configuration", file);
            }
        }
        for log in &self.rotated {
            let older = |file: &PathBuf| file.file_name().is_some_and(|name| is_older_part(name, log));
            for file in entries(directory_of(log), &mut left)?.into_iter().filter(older) {
                found.add("log_file", file);
            }
        }
        Ok(found)
    }
}

impl Found {
    /// Adds an entry of an own directory. Returns a directory that must also be scanned.
    fn add(&mut self, what: &'static str, file: PathBuf) -> Option<PathBuf> {
        let is_link = file.is_symlink();
        match file.metadata() {
            Ok(found) if found.is_dir() => {
                if is_link {
                    self.directories.push((what, file.clone()));
                }
                return Some(file);
            }
            Ok(found) => drop(self.files.insert(identity(&found), what)),
            Err(_) => {}
        }
        if is_link {
            self.linked.push((what, file));
        }
        None
    }
}

/// The entries of a directory; fails when there are more than are `left`.
fn entries(directory: &Path, left: &mut usize) -> io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        *left = left.checked_sub(1).ok_or_else(|| {
            io::Error::other("the directories of the server have too many files to tell whether this is one of them")
        })?;
        out.push(entry.path());
    }
    Ok(out)
}

/// Whether a file with this name in a configuration directory is read.
fn is_configuration(name: &OsStr) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "hcl" || e == "json")
}

fn in_use(what: &str) -> io::Error {
    io::Error::other(format!("the server itself uses this file ({what})"))
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a name is that of a rotated part of a log: `name-<digits>.extension`.
fn is_older_part(name: &OsStr, log: &Path) -> bool {
    let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let name = name.to_string_lossy();
    let digits = name.strip_prefix(&text(log.file_stem())).and_then(|rest| rest.strip_prefix('-'));
    let extension = log.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    let digits = digits.and_then(|rest| rest.strip_suffix(extension.as_str()));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
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
    fn sec_kf49_targets_of_links_in_own_directories_are_own_files() {
        let tree = tree();
        let at = |name: &str| tree.dir.path().join(name);
        for directory in ["volume/deep", "mounted", "loop"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["volume/deep/log-2", "mounted/a.hcl", "elsewhere/stored"] {
            std::fs::write(at(file), "x").unwrap();
        }
        for (target, link) in [
            ("volume", "data/linked"),
            ("data", "volume/deep/loop"),
            ("elsewhere/stored", "data/raft/log-3"),
            ("elsewhere/planned", "data/raft/log-4"),
            ("mounted/a.hcl", "conf/b.hcl"),
            ("mounted/c.hcl", "conf/c.hcl"),
            ("elsewhere/key", "later.key"),
        ] {
            std::os::unix::fs::symlink(at(target), at(link)).unwrap();
        }
        let mut own = tree.own;
        own.files.push(("tls_key_file", at("later.key")));
        for (path, what) in [
            ("data/linked/log", "storage"),
            ("data/linked/deep/new/log", "storage"),
            ("volume/log", "storage"),
            ("volume/deep/log-2", "storage"),
            ("elsewhere/stored", "storage"),
            ("elsewhere/planned", "storage"),
            ("mounted/a.hcl", "configuration"),
            ("mounted/c.hcl", "configuration"),
            ("conf/b.hcl", "configuration"),
            ("elsewhere/key", "tls_key_file"),
            ("later.key", "tls_key_file"),
        ] {
            let refused = own.check_path(&at(path));
            assert!(refused.is_err_and(|e| e.to_string().contains(what)), "{path}");
        }
        for path in ["audit.log", "mounted/audit.log", "mounted/b.hcl", "elsewhere/log"] {
            own.check_path(&at(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        for path in ["volume/deep/log-2", "elsewhere/stored", "mounted/a.hcl", "tls.key", "logs/keepfast.log"] {
            assert!(own.check_opened(&at(path).metadata().unwrap()).is_err(), "{path}");
        }
        own.check_opened(&at("elsewhere/notes").metadata().unwrap()).unwrap();
    }

    #[test]
    fn sec_kf49_a_path_through_an_own_directory_is_refused_by_its_text() {
        let tree = tree();
        let at = |name: &str| tree.dir.path().join(name);
        // A link from the storage to the outside.
        std::os::unix::fs::symlink(at("elsewhere"), at("data/out")).unwrap();
        for path in ["data/out/log", "data/./out/log", "elsewhere/../data/out/log"] {
            let refused = tree.own.check_name(&lexical(&at(path)));
            assert!(refused.is_err_and(|e| e.to_string().contains("storage")), "{path}");
        }
    }

    #[test]
    fn sec_kf49_more_own_files_than_the_limit_refuse_every_device() {
        let tree = tree();
        let notes = tree.dir.path().join("elsewhere/notes").metadata().unwrap();
        // data: raft, raft/log-1; conf: a.hcl; logs: keepfast.log.
        tree.own.check_opened_among(&notes, 4).unwrap();
        assert!(tree.own.check_opened_among(&notes, 3).is_err_and(|e| e.to_string().contains("too many files")));
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
