//! `operator raft snapshot …`: saves, inspects and restores snapshots, and reads secrets in them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keepfast_client::{Method, Request, Response};
use keepfast_server::snapshots::{SnapshotFileError, VerifiedSnapshot};
use serde_json::{Value, json};

use super::snapshot_get;
use crate::args::{Command, Flag, FlagSet, Group, Kind, Node};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(super) const GROUP: Group = Group {
    name: "snapshot",
    about: "Save, inspect and restore snapshots, and read a secret in one.",
    children: &[Node::Leaf(&snapshot_get::COMMAND), Node::Leaf(&INSPECT), Node::Leaf(&RESTORE), Node::Leaf(&SAVE)],
};

/// The bytes that a byte of a file may become when decompressed.
pub(super) const MAX_EXPANSION: u64 = 100;

/// The titles and fields of the response to a restore with `-dry-run`.
const DRY_RUN: [(&str, &str); 14] = [
    ("Authenticated", "authenticated"),
    ("Cluster ID", "cluster_id"),
    ("Same Cluster", "same_cluster"),
    ("Created", "created"),
    ("Version", "version"),
    ("Index", "index"),
    ("Key Term", "key_term"),
    ("Same Seal", "same_seal"),
    ("Needs Unseal", "needs_unseal"),
    ("Added Records", "added"),
    ("Changed Records", "changed"),
    ("Deleted Records", "deleted"),
    ("Unchanged Records", "unchanged"),
    ("Unreadable Records", "unreadable"),
];

const SAVE: Command = Command {
    name: "save",
    usage: "FILE",
    about: "Save a snapshot of all records.",
    details: "
The file appears when it is complete and its digests match. The records in it are
encrypted: it is of use only with the key shares.

    keepfast operator raft snapshot save backup.snap
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: save,
};

const RESTORE: Command = Command {
    name: "restore",
    usage: "[FILE]",
    about: "Replace all records by those of a snapshot.",
    details: "
The leader accepts a file of at most max_snapshot_size bytes, a standby one of
at most max_request_size. An automatic snapshot of any size is restored by its
name in the directory of the leader.

    keepfast operator raft snapshot restore -dry-run backup.snap
    keepfast operator raft snapshot restore backup.snap
    keepfast operator raft snapshot restore -stored=keepfast-snapshot-1600000000000000000.snap
",
    min: 0,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[
                Flag::new("dry-run", Kind::Bool, "Verify the snapshot and show what would change; change nothing."),
                Flag::new(
                    "force",
                    Kind::Bool,
                    "Restore a snapshot that the keyring of this server has not authenticated, such as one of another cluster.",
                ),
                Flag::new("stored", Kind::Text, "Name of an automatic snapshot of the leader, instead of a file."),
            ],
        },
    ],
    run: restore,
};

const INSPECT: Command = Command {
    name: "inspect",
    usage: "FILE",
    about: "Show what a snapshot is of, after a check of its digests.",
    details: "
    keepfast operator raft snapshot inspect backup.snap
",
    min: 1,
    max: Some(1),
    flags: &[FORMAT],
    run: inspect,
};

fn save(cx: &Cx) -> Outcome {
    let path = Path::new(cx.argument(0));
    let context = "Error taking the snapshot";
    let unwritable = |error: io::Error| CommandError::failed(format!("Error writing {}: {error}", path.display()));
    let (incomplete, file) = Incomplete::begin(path).map_err(unwritable)?;
    let file = Arc::new(file);
    let request = Request::new(Method::Get, "sys/storage/raft/snapshot");
    let request = Request { may_wrap: false, sink: Some(file.clone()), ..request };
    let session = cx.session()?;
    let response = session.raw(context, &request)?;
    if response.status != 200 {
        return Err(session.refused(context, &request, &response));
    }
    let length = file.metadata().map_err(unwritable)?.len();
    let damaged = |error| CommandError::failed(format!("{context}: the server has sent a damaged file: {error}"));
    let written = File::open(&incomplete.path).map_err(unwritable)?;
    verify(BufReader::new(written), length).map_err(damaged)?;
    incomplete.complete(&file, path).map_err(unwritable)?;
    Ok(0)
}

/// A file that only its owner can read, under another name until it is complete and durable; deleted otherwise.
struct Incomplete {
    path: PathBuf,
}

impl Incomplete {
    fn begin(path: &Path) -> io::Result<(Self, File)> {
        let mut name = path.file_name().ok_or_else(|| io::Error::other("it is no file name"))?.to_owned();
        name.push(".incomplete");
        let incomplete = path.with_file_name(name);
        // One that an interrupted command has left may have another mode, or be a link.
        match std::fs::remove_file(&incomplete) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&incomplete)?;
        Ok((Incomplete { path: incomplete }, file))
    }

    fn complete(self, file: &File, path: &Path) -> io::Result<()> {
        file.sync_all()?;
        std::fs::rename(&self.path, path)?;
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        // Of a complete file it has another name.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn restore(cx: &Cx) -> Outcome {
    let (file, stored) = match (cx.words.arguments.first(), cx.words.text("stored")) {
        (Some(file), None) => (Some(open(file)?.0), None),
        (None, Some(stored)) => (None, Some(stored)),
        _ => return Err(CommandError::usage("Give either a FILE or -stored.")),
    };
    let (is_forced, is_dry) = (cx.words.on("force"), cx.words.on("dry-run"));
    let path = match stored {
        Some(stored) => format!("snapshot-auto/restore{}/{stored}", if is_forced { "-force" } else { "" }),
        None if is_dry => "snapshot-dry-run".to_owned(),
        None => if is_forced { "snapshot-force" } else { "snapshot" }.to_owned(),
    };
    // A restore whose response was lost may have taken place.
    let request = Request::new(Method::Post, format!("sys/storage/raft/{path}"));
    let request = Request { may_wrap: false, may_retry: false, ..request };
    let request = match file {
        None => request.with_body(json!({ "dry_run": is_dry })),
        Some(file) => request.with_file(file),
    };
    let context = "Error installing the snapshot";
    if is_dry {
        let data = cx.session()?.require(context, request, "needs_unseal")?.data.unwrap_or_default();
        show(cx, &DRY_RUN.map(|(title, field)| (title, field, data.get(field).cloned().unwrap_or_default())));
        return Ok(0);
    }
    let session = cx.session()?;
    let response = session.raw(context, &request)?;
    match response.status {
        200..300 => Ok(0),
        300..400 => Err(redirected(context, &response)),
        _ => Err(session.refused(context, &request, &response)),
    }
}

/// The error for a response that sends the command to another server, which does not get the body.
fn redirected(context: &str, response: &Response) -> CommandError {
    let to = response.headers.get("location").and_then(|to| to.to_str().ok());
    let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
    CommandError::failed(format!("{context}: the server redirects{to}: set VAULT_ADDR to the address of the leader"))
}

fn verify(content: impl Read, length: u64) -> Result<VerifiedSnapshot, SnapshotFileError> {
    VerifiedSnapshot::read(content, length.saturating_mul(MAX_EXPANSION))
}

/// Opens a snapshot file. Also returns its length.
pub(super) fn open(path: &str) -> Result<(File, u64), CommandError> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|found| (file, found.len())));
    opened.map_err(|error| CommandError::failed(format!("Error opening snapshot file: {path}: {error}")))
}

fn inspect(cx: &Cx) -> Outcome {
    let (file, length) = open(cx.argument(0))?;
    let verified = verify(BufReader::new(file), length);
    let verified = verified.map_err(|error| CommandError::failed(format!("Error inspecting the snapshot: {error}")))?;
    let details = &verified.details;
    let rows: [(&str, &str, Value); 8] = [
        ("Cluster ID", "cluster_id", json!(details.cluster_id)),
        ("Created", "created", json!(details.created)),
        ("Version", "version", json!(details.version)),
        ("Index", "index", json!(details.index)),
        ("Term", "term", json!(details.term)),
        ("Key Term", "key_term", json!(details.key_term)),
        ("Size", "size", json!(verified.size)),
        ("Parts", "parts", json!(verified.parts)),
    ];
    show(cx, &rows);
    Ok(0)
}

/// Prints rows of a title, a field of the JSON, and a value.
fn show(cx: &Cx, rows: &[(&str, &str, Value)]) {
    if cx.output.is_table() {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|(title, _, value)| vec![(*title).to_owned(), plain(value)]).collect();
        terminal::line(&with_header(&["Key", "Value"], &rows));
    } else {
        cx.output.document(rows.iter().map(|(_, field, value)| ((*field).to_owned(), value.clone())).collect());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, content: &[u8]) -> io::Result<()> {
        let (incomplete, mut file) = Incomplete::begin(path)?;
        file.write_all(content)?;
        incomplete.complete(&file, path)
    }

    #[test]
    fn a_file_is_private_and_replaces_another_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.snap");
        std::fs::write(&path, "old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // What an interrupted command has left is neither written to nor followed.
        let (other, left) = (dir.path().join("other"), dir.path().join("a.snap.incomplete"));
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &left).unwrap();
        write(&path, b"newer").unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap()),
            (b"newer".to_vec(), b"kept".to_vec())
        );
        std::fs::remove_file(&other).unwrap();
        std::fs::write(&left, "half").unwrap();
        std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert!(write(&dir.path().join("d"), b"x").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing incomplete stays");
        assert!(write(Path::new("/"), b"x").is_err());
    }
}
