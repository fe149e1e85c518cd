//! The configuration: reads files and environment to one checked [`Config`].
//!
//! `low` reads one stanza, `high` knows the stanzas and their keys. No other module of the server reads configuration
//! text.

mod address_template;
mod audit;
mod cluster_address;
mod environment;
mod error;
mod headers;
mod initialize;
mod interface_filters;
mod interfaces;
mod kms_libraries;
mod known_keys;
mod listener;
#[cfg(test)]
mod public_configurations;
mod raft;
mod seals;
mod small_stanzas;
mod snapshots;
mod stanza;
#[cfg(test)]
mod tests;
mod top_level;

use std::path::{Path, PathBuf};

pub(crate) use cluster_address::{advertised, is_unspecified};
pub use environment::Environment;
pub use error::{ConfigError, Warning};
pub(crate) use initialize::runs as initializes_itself;
pub use keepfast_edge::{
    Bind, ClientCertificates, CustomHeader, Forwarded, JsonLimits, Limits, ListenerConfig, Statuses, TlsConfig,
};
pub use raft::RaftConfig;
pub use seals::SealSettings;
pub(crate) use seals::{replacing, seal_set};
pub use top_level::{Config, LogFormat, LogRotation, Storage};

/// Loads files and directories (their `*.hcl` and `*.json`, in the order of their names), then the environment. The
/// value of a later file replaces an earlier one; listeners and audit devices accumulate.
///
/// # Errors
/// [`ConfigError`] with the file, and with the position where there is one.
pub fn load(paths: &[PathBuf], environment: &Environment) -> Result<(Config, Vec<Warning>), ConfigError> {
    load_over(paths, environment, None)
}

/// Like [`load`], with a default storage, which makes listeners optional.
pub(crate) fn load_over(
    paths: &[PathBuf],
    environment: &Environment,
    storage: Option<Storage>,
) -> Result<(Config, Vec<Warning>), ConfigError> {
    let mut sources = Vec::new();
    for path in paths {
        for file in files(path)? {
            let text = std::fs::read_to_string(&file).map_err(|e| unreadable(&file, &e))?;
            sources.push(stanza::Source::parse(file.display().to_string(), &text)?);
        }
    }
    let mut warnings = Vec::new();
    let config = top_level::build(&sources, environment, storage, &mut warnings)?;
    Ok((config, warnings))
}

/// The files of a `-config` path.
///
/// # Errors
/// [`ConfigError`] when the path cannot be read.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let metadata = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| unreadable(path, &e))? {
        let file = entry.map_err(|e| unreadable(path, &e))?.path();
        let hidden = file.file_name().is_some_and(|n| n.to_string_lossy().starts_with(['.', '#']));
        if !hidden && file.extension().is_some_and(|e| e == "hcl" || e == "json") && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::Unreadable { file: path.display().to_string(), reason: error.to_string() }
}
