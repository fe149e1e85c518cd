//! The files that the server uses itself, which no audit device may write to.

use std::path::{Path, PathBuf};

use keepfast_core::audit::OwnFiles;

use crate::config::{Bind, ClientCertificates, Config};
use crate::log_file::LogFile;

/// The files of this configuration, which was read from these paths.
pub(crate) fn own_files(config: &Config, paths: &[PathBuf]) -> OwnFiles {
    let mut own = OwnFiles::default();
    own.directories.extend(config.storage.path().map(|path| ("storage", path.clone())));
    let (directories, files): (Vec<&PathBuf>, Vec<&PathBuf>) = paths.iter().partition(|path| path.is_dir());
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
    own.files.extend(std::env::current_exe().ok().map(|file| ("program", file)));
    own
}

/// The same with the token of a development server.
pub(crate) fn with_token_file(mut own: OwnFiles, token_file: Option<&Path>) -> OwnFiles {
    own.files.extend(token_file.map(|file| ("token of the command line", file.to_owned())));
    own
}
