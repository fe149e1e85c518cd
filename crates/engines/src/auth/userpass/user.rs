//! The stored user, and the hash of a new password.

use keepfast_crypto::password::{self, PasswordError};
use keepfast_framework::fields::SecretText;
use keepfast_framework::token_params::TokenParams;
use keepfast_framework::{Cx, Error, Records, Result};
use serde::{Deserialize, Serialize};

use super::Userpass;

/// Users by name.
pub(super) const USERS: Records<User> = Records::at("user/");
/// The highest bcrypt cost of any hash that was stored in the mount.
const COST: Records<u32> = Records::at("cost");

/// A user. Not `Debug`, as a hash allows offline guessing of the password.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct User {
    /// The bcrypt hash of the password.
    pub(super) hash: String,
    /// The parameters of the user's tokens.
    pub(super) token: TokenParams,
    /// Which properties were written under their deprecated names, so that reads return those too.
    pub(super) deprecated: DeprecatedParams,
}

/// The deprecated names of token parameters.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DeprecatedParams {
    pub(super) policies: bool,
    pub(super) ttl: bool,
    pub(super) max_ttl: bool,
    pub(super) bound_cidrs: bool,
}

/// The canonical name of a user: lower case. Names are letters, digits and `_`, and between them also `-` and `.`.
///
/// # Errors
/// 404 for any other name, as no path of the method contains one.
pub(super) fn username(given: &str) -> Result<String> {
    let is_word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let bytes = given.as_bytes();
    let ends = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    if ends && bytes.iter().all(|c| is_word(c) || matches!(c, b'-' | b'.')) {
        Ok(given.to_ascii_lowercase())
    } else {
        Err(Error::unsupported_path())
    }
}

/// The bcrypt cost of each login. A login of an unknown user, or of one with a cheaper hash, does as much work, so that
/// its time does not reveal which users exist.
///
/// # Errors
/// When storage fails.
pub(super) async fn login_cost(cx: &mut Cx) -> Result<u32> {
    Ok(COST.get(cx, "").await?.unwrap_or(password::COST).clamp(password::COST, password::MAX_COST))
}

/// The hash to store for a new password or a given hash. `None` without either.
///
/// # Errors
/// 400 when both are given, the password is too long, or the hash is invalid.
pub(super) async fn new_hash(
    method: &Userpass,
    cx: &mut Cx,
    password: Option<SecretText>,
    hash: Option<SecretText>,
) -> Result<Option<String>> {
    let password = password.filter(|password| !password.expose().is_empty());
    let hash = hash.filter(|hash| !hash.expose().is_empty());
    match (password, hash) {
        (Some(_), Some(_)) => Err(Error::invalid("only one of password or password_hash may be provided")),
        (None, None) => Ok(None),
        (Some(password), None) => {
            let new_hash = method.hashing(move || password::hash(password.expose().as_bytes())).await?;
            new_hash.map(Some).map_err(|error| Error::invalid(error.to_string()))
        }
        (None, Some(hash)) => {
            let cost = password::cost(hash.expose()).map_err(|error| match error {
                PasswordError::Malformed => Error::invalid("password_hash is not a valid bcrypt hash"),
                other => Error::invalid(other.to_string()),
            })?;
            if cost > login_cost(cx).await? {
                COST.put(cx, "", &cost)?;
            }
            Ok(Some(hash.expose().to_owned()))
        }
    }
}
