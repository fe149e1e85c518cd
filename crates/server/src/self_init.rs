//! What the `initialize` stanzas read and write on this machine: variables, files, and the file of the recovery keys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_core::self_init::{RecoveryOutput, Sources};
use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Clock as _;
use keepfast_framework::clock::SystemClock;
use keepfast_pgp::Certificate;
use serde::Serialize;

/// The most bytes of a file that a stanza reads.
const MAX_FILE: u64 = 1 << 20;
/// The end of the name of the file with recovery keys that do not count yet.
const PENDING: &str = ".pending";

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
        let bytes = read(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| format!("{path}: the file is not UTF-8"))?;
        Ok(SecretString::new(text.to_owned()))
    }
}

/// The content of a file, at most [`MAX_FILE`].
fn read(path: &Path) -> io::Result<SecretBytes> {
    let file = File::open(path)?;
    // The buffer has its final size for a regular file, so that all of it is wiped.
    let length = usize::try_from(file.metadata()?.len().min(MAX_FILE)).unwrap_or(0);
    let mut bytes = SecretBytes::new(Vec::with_capacity(length + 1));
    file.take(MAX_FILE + 1).read_to_end(bytes.expose_mut())?;
    match u64::try_from(bytes.expose().len()) {
        Ok(length) if length <= MAX_FILE => Ok(bytes),
        _ => Err(io::Error::other(format!("the file is longer than {MAX_FILE} bytes"))),
    }
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
    fn pending(&self) -> PathBuf {
        let mut path = self.output.clone().into_os_string();
        path.push(PENDING);
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

    fn store(&self, content: &[u8]) -> io::Result<()> {
        let pending = self.pending();
        // Its keys never counted. A new file has a new owner and mode, and no link is followed.
        match fs::remove_file(&pending) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&pending)?;
        file.write_all(content)?;
        file.sync_all()?;
        self.sync_directory()
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
        self.store(content.expose()).map_err(|error| format!("{}: {error}", self.pending().display()))?;
        Ok(hex::encode(sha256(content.expose())))
    }

    fn publish(&self, digest: &str) -> Result<(), String> {
        let pending = self.pending();
        if Self::has_digest(&self.output, digest) {
            return Ok(());
        }
        if !Self::has_digest(&pending, digest) {
            return Err(format!("neither {} nor {} has them", self.output.display(), pending.display()));
        }
        if fs::symlink_metadata(&self.output).is_ok() {
            return Err(format!("{} exists; {} has the keys", self.output.display(), pending.display()));
        }
        fs::rename(&pending, &self.output)
            .and_then(|()| self.sync_directory())
            .map_err(|error| format!("{}: {error}", pending.display()))
    }
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
        // The commit failed: the next attempt has other keys.
        let digest = file.write(&keys(3), 2).unwrap();
        assert!(file.publish(&dropped).is_err());
        let mode = fs::metadata(file.pending()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.publish(&digest).unwrap();
        file.publish(&digest).unwrap();
        let content: serde_json::Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
        assert_eq!(content["recovery_keys_hex"][0], "03".repeat(33));
        assert_eq!(content["recovery_keys_b64"][1], STANDARD.encode([4; 33]));
        assert_eq!((&content["recovery_keys_shares"], &content["recovery_keys_threshold"]), (&2.into(), &2.into()));
        assert!(content.get("pgp_fingerprints").is_none() && !file.pending().exists());
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
        assert_eq!(fs::read(&output).unwrap(), b"keys of other data");
        let nowhere = RecoveryFile { output: dir.path().join("none/keys"), pgp_keys: Vec::new() };
        assert!(nowhere.check(2).is_err() && nowhere.write(&keys(1), 2).is_err());
    }

    #[test]
    fn a_link_in_place_of_the_temporary_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecoveryFile { output: dir.path().join("keys"), pgp_keys: Vec::new() };
        let target = dir.path().join("target");
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, file.pending()).unwrap();
        file.write(&keys(1), 2).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"");
    }

    #[test]
    fn files_of_certificates_are_checked_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, "no certificate").unwrap();
        let file = RecoveryFile { output: dir.path().join("keys"), pgp_keys: vec![key] };
        assert!(file.check(1).unwrap_err().contains("key: "));
        assert!(file.write(&keys(1), 2).is_err() && !file.pending().exists());
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
