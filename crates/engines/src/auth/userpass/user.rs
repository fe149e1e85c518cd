//! A user as it is stored, and what becomes of a new password.

use keepfast_crypto::password::{self, PasswordError};
use keepfast_framework::fields::SecretText;
use keepfast_framework::token_params::TokenParams;
use keepfast_framework::{Cx, Error, Records, Result};
use serde::{Deserialize, Serialize};

use super::Userpass;

/// Users by name.
pub(super) const USERS: Records<User> = Records::at("user/");
/// The highest cost of a hash that the mount has seen.
const COST: Records<u32> = Records::at("cost");

/// A user. Not `Debug`: a hash is where guessing passwords begins.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct User {
    /// The bcrypt hash of the password.
    pub(super) hash: String,
    /// What the user's tokens are.
    pub(super) token: TokenParams,
    /// Which properties were written under their former names, which are then shown too.
    pub(super) former: Former,
}

/// Former names of token parameters.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Former {
    pub(super) policies: bool,
    pub(super) ttl: bool,
    pub(super) max_ttl: bool,
    pub(super) bound_cidrs: bool,
}

/// The one form of a user's name: lower case. Names are letters, digits and `_`, and between them also `-` and `.`.
///
/// # Errors
/// 404: no path of the method has any other name in it.
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

/// The cost of the work that each login does.
///
/// # Errors
/// When storage fails.
pub(super) async fn login_cost(cx: &mut Cx) -> Result<u32> {
    Ok(COST.get(cx, "").await?.unwrap_or(password::COST).clamp(password::COST, password::MAX_COST))
}

/// The hash to store for a new password, or the hash that was given instead of one. `None` when neither was given.
///
/// # Errors
/// 400 when both were given, the password is too long, or the hash is none that can be taken.
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
            let made = method.hashing(move || password::hash(password.expose().as_bytes())).await?;
            made.map(Some).map_err(|fault| Error::invalid(fault.to_string()))
        }
        (None, Some(hash)) => {
            let cost = password::cost(hash.expose()).map_err(|fault| match fault {
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
