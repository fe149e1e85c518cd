//! The stored token of a login: in a file, or in the user's token helper.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use keepfast_client::{Address, Error, SecretString, environment};

use crate::command_error::CommandError;
use crate::token_helper::TokenHelper;

/// The file name that all clients of this API use.
const NAME: &str = ".vault-token";

/// The token to send: from the environment, else from the token helper or the file.
pub(crate) fn current(address: &Address) -> Result<Option<SecretString>, Error> {
    if let Some((_, token)) = environment::variable("TOKEN") {
        return Ok(Some(SecretString::new(token.trim().to_owned())));
    }
    match TokenHelper::configured()? {
        Some(helper) => helper.get(address),
        None => Ok(stored()),
    }
}

/// The token in the file.
fn stored() -> Option<SecretString> {
    let text = fs::read_to_string(path()?).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| SecretString::new(token.to_owned()))
}

/// Stores a token with the token helper, or in the file.
pub(crate) fn store(address: &Address, token: &SecretString) -> Result<(), CommandError> {
    let failed = |error: &dyn std::fmt::Display| CommandError::failed(format!("Error storing token: {error}"));
    match TokenHelper::configured().map_err(|error| failed(&error))? {
        Some(helper) => helper.store(address, token).map_err(|error| failed(&error)),
        None => store_in_file(token).map_err(|error| failed(&error)),
    }
}

/// Writes a token to the file, readable by its owner only, atomically.
fn store_in_file(token: &SecretString) -> io::Result<()> {
    let path = path().ok_or_else(|| io::Error::other("no home directory"))?;
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let written = write_new(&fresh, token).and_then(|()| fs::rename(&fresh, &path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn write_new(path: &PathBuf, token: &SecretString) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(token.expose().as_bytes())?;
    file.sync_all()
}

/// `~/.vault-token`, or the file in `TOKEN_PATH`.
fn path() -> Option<PathBuf> {
    if let Some((_, path)) = environment::variable("TOKEN_PATH") {
        return Some(PathBuf::from(path));
    }
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(NAME))
}
