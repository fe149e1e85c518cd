//! The files of the server itself, which no audit device may write to.

use std::path::{Path, PathBuf};

use keepfast_core::audit::OwnFiles;

use crate::config::{self, Bind, ClientCertificates, Config};
use crate::log_file::LogFile;
use crate::self_init::pending_files;

/// The files of a configuration that was read from these paths.
pub(crate) fn own_files(config: &Config, paths: &[PathBuf]) -> OwnFiles {
    let mut own = OwnFiles::default();
    own.directories.extend(config.storage.path().map(|path| ("storage", path.clone())));
    own.directories.extend(config.snapshots.iter().map(|snapshots| ("snapshots", snapshots.directory.clone())));
    let (directories, files): (Vec<&PathBuf>, Vec<&PathBuf>) = paths.iter().partition(|path| path.is_dir());
    // A link in a directory points to a file that was read; that file counts even when the link changes later.
    let read = directories.iter().flat_map(|directory| config::files(directory).unwrap_or_default());
    own.files.extend(read.map(|file| ("configuration", file.canonicalize().unwrap_or(file))));
    own.configuration.extend(directories.into_iter().cloned());
    own.files.extend(files.into_iter().map(|file| ("configuration", file.clone())));
    for listener in &config.listeners {
        if let Bind::Unix { path, .. } = &listener.bind {
            own.files.push(("listener", path.clone()));
        }
        let Some(tls) = &listener.tls else { continue };
        own.files.push(("tls_cert_file", tls.cert_file.clone()));
        own.files.push(("tls_key_file", tls.key_file.clone()));
        if let ClientCertificates::Required(authorities) = &tls.clients {
            own.files.push(("tls_client_ca_file", authorities.clone()));
        }
    }
    own.files.extend(config.pid_file.iter().map(|file| ("pid_file", file.clone())));
    if let Some(log_file) = &config.log_file {
        let log = LogFile::path(log_file);
        own.files.push(("log_file", log.clone()));
        own.rotated.push(log);
    }
    if let Some(output) = config.self_init.recovery_file() {
        let files = pending_files(output).into_iter().chain([output.to_owned()]);
        own.files.extend(files.map(|file| ("recovery keys", file)));
    }
    own.files.extend(std::env::current_exe().ok().map(|file| ("program", file)));
    own
}

/// Adds the token file of a development server.
pub(crate) fn with_token_file(mut own: OwnFiles, token_file: Option<&Path>) -> OwnFiles {
    own.files.extend(token_file.map(|file| ("token of the command line", file.to_owned())));
    own
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sec_kf49_files_read_as_configuration_are_the_servers() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for directory in ["conf", "mounted"] {
            std::fs::create_dir(at(directory)).unwrap();
        }
        for file in ["mounted/a", "conf/b.json"] {
            std::fs::write(at(file), "").unwrap();
        }
        std::os::unix::fs::symlink(at("mounted/a"), at("conf/a.hcl")).unwrap();
        let own = own_files(&Config::default(), &[at("conf")]);
        let files: Vec<_> = own.files.iter().filter(|(what, _)| *what == "configuration").map(|(_, f)| f).collect();
        let real = |name: &str| at(name).canonicalize().unwrap();
        assert_eq!(files, [&real("mounted/a"), &real("conf/b.json")]);
        assert_eq!(own.configuration, [at("conf")]);
    }
}
