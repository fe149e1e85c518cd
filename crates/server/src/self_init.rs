//! What the `initialize` stanzas read and write on this machine: variables, files, and the file of the recovery keys.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_core::self_init::{RecoveryOutput, Sources};
use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Clock as _;
use keepfast_framework::clock::SystemClock;
use keepfast_pgp::Certificate;
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::Serialize;
use tokio::runtime::Handle;

/// The most bytes of a file that a stanza reads.
const MAX_FILE: u64 = 1 << 20;
/// In the name of a file with recovery keys that may not count yet, behind the name of the output. [`DIGITS`] of the digest
/// of the file follow.
const PENDING: &str = ".pending-";
const DIGITS: usize = 16;
/// How often, and how long, a pipe is waited for.
const PAUSES: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// The variables of this process and the files of this machine.
pub(crate) struct ProcessSources;

impl Sources for ProcessSources {
    fn variable(&self, name: &str) -> Result<Option<SecretString>, String> {
        let Some(value) = std::env::var_os(name) else { return Ok(None) };
        let value = value.into_string().map_err(|_| format!("the environment variable {name} is not UTF-8"))?;
        Ok(Some(SecretString::new(value)))
    }

    fn check_file(&self, path: &str) -> Result<(), String> {
        rustix::fs::access(path, rustix::fs::Access::READ_OK)
            .map_err(|error| format!("{path}: {}", io::Error::from(error)))
    }

    fn file(&self, path: &str) -> Result<SecretString, String> {
        let bytes = read_with(Path::new(path), pause).map_err(|error| format!("{path}: {error}"))?;
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| format!("{path}: the file is not UTF-8"))?;
        Ok(SecretString::new(text.to_owned()))
    }

    fn is_read_once(&self, path: &str) -> bool {
        fs::metadata(path).is_ok_and(|found| !found.is_file())
    }
}

/// Waits a moment; false where that is not possible. For threads that may block.
fn pause() -> bool {
    let Ok(runtime) = Handle::try_current() else { return false };
    runtime.block_on(SystemClock.sleep_until(SystemClock.now().after(PAUSE)));
    true
}

/// The content of a file, at most [`MAX_FILE`], as it is now.
fn read(path: &Path) -> io::Result<SecretBytes> {
    read_with(path, || false)
}

/// The same; `pause` waits for the writer of a pipe, at most [`PAUSES`] times.
fn read_with(path: &Path, pause: impl Fn() -> bool) -> io::Result<SecretBytes> {
    // A pipe without a writer is opened as well.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    let too_long = || io::Error::other(format!("the file is longer than {MAX_FILE} bytes"));
    // The buffer has its final size, so that all of it is wiped.
    let most = if found.is_file() && found.len() > 0 { found.len() } else { MAX_FILE };
    let most = usize::try_from(most).ok().filter(|_| most <= MAX_FILE).ok_or_else(too_long)?;
    let mut bytes = SecretBytes::new(vec![0; most + 1]);
    let (mut length, mut pauses) = (0, 0);
    loop {
        let rest = bytes.expose_mut().get_mut(length..).filter(|rest| !rest.is_empty()).ok_or_else(too_long)?;
        match file.read(rest) {
            Ok(0) if length > 0 || !found.file_type().is_fifo() => break,
            // The writer may come.
            Ok(0) => {}
            Ok(more) => {
                length += more;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        pauses += 1;
        if pauses > PAUSES || !pause() {
            return Err(io::Error::other("a pipe that has nothing (any more), or whose writer does not end"));
        }
    }
    if length == 0 && !found.is_file() {
        return Err(io::Error::other("a pipe or device that has nothing (any more)"));
    }
    bytes.expose_mut().truncate(length);
    Ok(bytes)
}

/// The file of the recovery keys. Until they count it has a temporary name.
pub(crate) struct RecoveryFile {
    /// Its absolute path.
    pub(crate) output: PathBuf,
    /// Files with OpenPGP certificates, one for each key; empty for keys as they are.
    pub(crate) pgp_keys: Vec<PathBuf>,
}

/// The content of the file, with the names of `operator init -format=json`.
#[derive(Serialize)]
struct RecoveryKeys<'a> {
    recovery_keys_b64: Vec<&'a str>,
    recovery_keys_hex: Vec<&'a str>,
    recovery_keys_shares: usize,
    recovery_keys_threshold: u8,
    /// Only there for encrypted keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pgp_fingerprints: Vec<&'a str>,
}

impl RecoveryFile {
    /// The file with this digest until it has its name.
    fn pending(&self, digest: &str) -> PathBuf {
        let mut path = self.output.clone().into_os_string();
        path.push(PENDING);
        path.push(digest.get(..DIGITS).unwrap_or(digest));
        path.into()
    }

    fn certificates(&self) -> Result<Vec<Certificate>, String> {
        let now = u64::try_from(SystemClock.now().unix()).unwrap_or(0);
        let certificate = |path: &PathBuf| {
            let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let bytes = read(path).map_err(|error| at(&error))?;
            // As `operator init` reads it: in base64 or binary.
            let read = match std::str::from_utf8(bytes.expose()) {
                Ok(text) => Certificate::from_base64(text, now),
                Err(_) => Certificate::from_bytes(bytes.expose(), now),
            };
            read.map_err(|error| at(&error))
        };
        self.pgp_keys.iter().map(certificate).collect()
    }

    fn content(&self, keys: &[SecretBytes], threshold: u8) -> Result<SecretBytes, String> {
        let certificates = self.certificates()?;
        let mut texts: Vec<(SecretString, SecretString)> = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let hex = SecretString::new(hex::encode(key.expose()));
            texts.push(match certificates.get(at) {
                Some(certificate) => {
                    let message = certificate.encrypt(&hex).map_err(|error| error.to_string())?;
                    (STANDARD.encode(&message).into(), hex::encode(&message).into())
                }
                None => (STANDARD.encode(key.expose()).into(), hex),
            });
        }
        let length: usize = texts.iter().map(|(base64, hex)| base64.expose().len() + hex.expose().len() + 8).sum();
        let content = RecoveryKeys {
            recovery_keys_b64: texts.iter().map(|(base64, _)| base64.expose().as_str()).collect(),
            recovery_keys_hex: texts.iter().map(|(_, hex)| hex.expose().as_str()).collect(),
            recovery_keys_shares: keys.len(),
            recovery_keys_threshold: threshold,
            pgp_fingerprints: certificates.iter().map(Certificate::fingerprint).collect(),
        };
        // The buffer has its final size, so that all of it is wiped.
        let mut bytes = SecretBytes::new(Vec::with_capacity(length + 64 * certificates.len() + 512));
        serde_json::to_writer(bytes.expose_mut(), &content).map_err(|error| error.to_string())?;
        bytes.expose_mut().push(b'\n');
        Ok(bytes)
    }

    /// Writes a new file: those of earlier attempts may still come to count.
    fn store(&self, pending: &Path, content: &[u8]) -> io::Result<()> {
        // No link is followed.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(pending)?;
        let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| self.sync_directory());
        if written.is_err() {
            // Nothing is committed after this failure, so these keys never count.
            let _ = fs::remove_file(pending);
        }
        written
    }

    /// Gives a file its name, if no file has it.
    fn rename(&self, pending: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, pending, CWD, &self.output, RenameFlags::NOREPLACE) {
            // A file system without this kind of rename.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::hard_link(pending, &self.output)?;
                fs::remove_file(pending)
            }
            renamed => Ok(renamed?),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.output.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }

    fn has_digest(path: &Path, digest: &str) -> bool {
        read(path).is_ok_and(|content| hex::encode(sha256(content.expose())) == digest)
    }
}

impl RecoveryOutput for RecoveryFile {
    fn path(&self) -> &Path {
        &self.output
    }

    fn check(&self, shares: u8) -> Result<(), String> {
        if !self.pgp_keys.is_empty() && self.certificates()?.len() != usize::from(shares) {
            return Err("pgp_keys must have one file for each of the shares".to_owned());
        }
        if fs::symlink_metadata(&self.output).is_ok() {
            return Err(format!("{} exists: it may have the keys of other data", self.output.display()));
        }
        let directory = self.output.parent().unwrap_or(Path::new("/"));
        rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|error| format!("{}: {}", directory.display(), io::Error::from(error)))
    }

    fn write(&self, keys: &[SecretBytes], threshold: u8) -> Result<String, String> {
        let content = self.content(keys, threshold)?;
        let digest = hex::encode(sha256(content.expose()));
        let pending = self.pending(&digest);
        self.store(&pending, content.expose()).map_err(|error| format!("{}: {error}", pending.display()))?;
        Ok(digest)
    }

    fn publish(&self, digest: &str) -> Result<bool, String> {
        let pending = self.pending(digest);
        if Self::has_digest(&self.output, digest) {
            return Ok(true);
        }
        if !Self::has_digest(&pending, digest) {
            return Ok(false);
        }
        self.rename(&pending).and_then(|()| self.sync_directory()).map_err(|error| {
            format!("{}, which has the keys, is not renamed to {}: {error}", pending.display(), self.output.display())
        })?;
        // Only now it is certain that the others never count.
        for other in pending_files(&self.output) {
            if let Err(error) = fs::remove_file(&other) {
                tracing::warn!(file = %other.display(), %error, "recovery keys that do not count are not deleted");
            }
        }
        Ok(true)
    }
}

/// The files with recovery keys that have not their name, beside this output.
pub(crate) fn pending_files(output: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (output.parent(), output.file_name()) else { return Vec::new() };
    let mut start = OsString::from(name);
    start.push(PENDING);
    let is_pending = |name: &OsString| {
        let digits = name.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
        digits.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
    };
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(is_pending).map(|name| directory.join(name)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn keys(byte: u8) -> Vec<SecretBytes> {
        vec![SecretBytes::new(vec![byte; 33]), SecretBytes::new(vec![byte + 1; 33])]
    }

    #[test]
    fn recovery_keys_have_their_name_only_when_they_count() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("keys.json");
        let file = RecoveryFile { output: output.clone(), pgp_keys: Vec::new() };
        file.check(2).unwrap();
        let dropped = file.write(&keys(1), 2).unwrap();
        assert!(!output.exists());
        // The commit failed, and may take effect later: the next attempt has other keys in another file.
        let digest = file.write(&keys(3), 2).unwrap();
        assert!(file.pending(&dropped).exists() && pending_files(&output).len() == 2);
        file.check(2).unwrap();
        let mode = fs::metadata(file.pending(&digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(file.publish(&digest).unwrap() && file.publish(&digest).unwrap());
        assert!(!file.publish(&dropped).unwrap() && pending_files(&output).is_empty());
        let content: serde_json::Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
        assert_eq!(content["recovery_keys_hex"][0], "03".repeat(33));
        assert_eq!(content["recovery_keys_b64"][1], STANDARD.encode([4; 33]));
        assert_eq!((&content["recovery_keys_shares"], &content["recovery_keys_threshold"]), (&2.into(), &2.into()));
        assert!(content.get("pgp_fingerprints").is_none());
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("keys.json");
        let file = RecoveryFile { output: output.clone(), pgp_keys: Vec::new() };
        fs::write(&output, "keys of other data").unwrap();
        assert!(file.check(2).unwrap_err().contains("exists"));
        let digest = file.write(&keys(1), 2).unwrap();
        assert!(file.publish(&digest).unwrap_err().contains("exists"));
        assert!(file.pending(&digest).exists());
        assert_eq!(fs::read(&output).unwrap(), b"keys of other data");
        let nowhere = RecoveryFile { output: dir.path().join("none/keys"), pgp_keys: Vec::new() };
        assert!(nowhere.check(2).is_err() && nowhere.write(&keys(1), 2).is_err());
    }

    #[test]
    fn the_keys_of_an_earlier_attempt_are_there_when_its_commit_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecoveryFile { output: dir.path().join("keys"), pgp_keys: Vec::new() };
        let first = file.write(&keys(1), 2).unwrap();
        file.write(&keys(3), 2).unwrap();
        assert!(file.publish(&first).unwrap());
        assert!(RecoveryFile::has_digest(&file.output, &first));
        assert!(pending_files(&file.output).is_empty());
        // Its owners have moved it.
        fs::remove_file(&file.output).unwrap();
        assert!(!file.publish(&first).unwrap());
    }

    #[test]
    fn a_link_in_place_of_the_temporary_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecoveryFile { output: dir.path().join("keys"), pgp_keys: Vec::new() };
        let content = file.content(&keys(1), 2).unwrap();
        let target = dir.path().join("target");
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, file.pending(&hex::encode(sha256(content.expose())))).unwrap();
        assert!(file.write(&keys(1), 2).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"");
    }

    #[test]
    fn a_pipe_is_read_once_and_never_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let name = path.display().to_string();
        assert!(ProcessSources.is_read_once(&name));
        assert!(ProcessSources.file(&name).err().unwrap().contains("a pipe that has nothing"), "no writer");
        let mut writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert!(ProcessSources.file(&name).err().unwrap().contains("a pipe that has nothing"), "nothing is written");
        writer.write_all(b"value").unwrap();
        let writer = std::cell::Cell::new(Some(writer));
        // The writer ends while the reader waits.
        let content = read_with(&path, || writer.take().is_some()).unwrap();
        assert_eq!(content.expose(), b"value");
        assert!(ProcessSources.file(&name).is_err());
        assert!(ProcessSources.file("/dev/null").err().unwrap().contains("has nothing"));
    }

    #[test]
    fn files_of_certificates_are_checked_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, "no certificate").unwrap();
        let file = RecoveryFile { output: dir.path().join("keys"), pgp_keys: vec![key] };
        assert!(file.check(1).unwrap_err().contains("key: "));
        assert!(file.write(&keys(1), 2).is_err() && pending_files(&file.output).is_empty());
    }

    #[test]
    fn files_are_read_up_to_a_bound_and_as_text() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(at("text"), "line\n").unwrap();
        fs::write(at("binary"), [0xff]).unwrap();
        fs::write(at("long"), vec![b'x'; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
        assert_eq!(ProcessSources.file(&at("text")).unwrap().expose(), "line\n");
        for (name, why) in [("binary", "not UTF-8"), ("long", "longer than"), ("none", "No such file")] {
            let error = ProcessSources.file(&at(name)).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
        assert!(ProcessSources.variable("NO_SUCH_VARIABLE_OF_A_TEST").unwrap().is_none());
    }
}
