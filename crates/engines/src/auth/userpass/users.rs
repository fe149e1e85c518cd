//! Users: list, read, write, delete; their passwords and policies.

use keepfast_framework::fields::{CommaList, Seconds, SecretText, Text};
use keepfast_framework::routes::{Exists, Paged};
use keepfast_framework::token_params::{TokenParams, TokenParamsChange, canonical_policies, parsed_policies};
use keepfast_framework::{Cx, Data, Error, Keys, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Userpass;
use super::user::{USERS, User, new_hash, username};

const NO_PASSWORD: &str = "must provide either password or password_hash";

#[derive(Deserialize, JsonSchema)]
pub(super) struct UserPath {
    /// Name of the user.
    username: Text,
}

/// A change of a user; absent parameters keep their values.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// Name of the user.
    username: Text,
    /// The password, at most 72 bytes.
    password: Option<SecretText>,
    /// A bcrypt hash of the password, instead of the password.
    password_hash: Option<SecretText>,
    /// Deprecated: use `token_policies`.
    policies: Option<CommaList>,
    /// Deprecated: use `token_ttl`.
    ttl: Option<Seconds>,
    /// Deprecated: use `token_max_ttl`.
    max_ttl: Option<Seconds>,
    /// Deprecated: use `token_bound_cidrs`.
    bound_cidrs: Option<CommaList>,
    #[serde(flatten)]
    token: TokenParamsChange,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct WritePassword {
    /// Name of the user.
    username: Text,
    /// The new password, at most 72 bytes.
    password: Option<SecretText>,
    /// A bcrypt hash of the new password, instead of the password.
    password_hash: Option<SecretText>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct WritePolicies {
    /// Name of the user.
    username: Text,
    /// Deprecated: use `token_policies`.
    policies: Option<CommaList>,
    /// Comma-separated policies of the tokens.
    token_policies: Option<CommaList>,
}

/// A user in responses, without the hash.
#[derive(Serialize)]
pub(super) struct UserResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_cidrs: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<String>>,
    #[serde(flatten)]
    token: TokenParams,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
}

/// LIST `users`.
pub(super) async fn list(_: &Userpass, cx: &mut Cx, req: Paged) -> Result<Keys> {
    USERS.list(cx, "", &req.page()).await.map(Keys::of)
}

/// Whether the user exists.
pub(super) async fn exists(_: &Userpass, cx: &mut Cx, req: UserPath) -> Result<Exists> {
    let name = username(&req.username)?;
    USERS.get(cx, &name).await.map(|user| Exists(user.is_some()))
}

/// GET `users/{username}`.
pub(super) async fn read(_: &Userpass, cx: &mut Cx, req: UserPath) -> Result<Option<Data<UserResponse>>> {
    let name = username(&req.username)?;
    Ok(USERS.get(cx, &name).await?.map(|User { token, deprecated, .. }| {
        Data(UserResponse {
            bound_cidrs: Some(token.token_bound_cidrs.clone())
                .filter(|cidrs| deprecated.bound_cidrs && !cidrs.is_empty()),
            max_ttl: Some(token.token_max_ttl).filter(|ttl| deprecated.max_ttl && *ttl > 0),
            policies: Some(token.token_policies.clone()).filter(|policies| deprecated.policies && !policies.is_empty()),
            ttl: Some(token.token_ttl).filter(|ttl| deprecated.ttl && *ttl > 0),
            token,
        })
    }))
}

/// POST `users/{username}`.
pub(super) async fn write(method: &Userpass, cx: &mut Cx, req: Write) -> Result<()> {
    let name = username(&req.username)?;
    let existing = USERS.get(cx, &name).await?;
    let hash = new_hash(method, cx, req.password, req.password_hash).await?;
    if existing.is_none() && hash.is_none() {
        return Err(Error::invalid(NO_PASSWORD));
    }
    let mut user = existing.unwrap_or_default();
    if let Some(hash) = hash {
        user.hash = hash;
    }
    let mut token = req.token;
    let policies = req.policies.map(|CommaList(policies)| CommaList(parsed_policies(policies)));
    apply_deprecated(&mut token.token_policies, policies, &mut user.deprecated.policies);
    apply_deprecated(&mut token.token_ttl, req.ttl, &mut user.deprecated.ttl);
    apply_deprecated(&mut token.token_max_ttl, req.max_ttl, &mut user.deprecated.max_ttl);
    apply_deprecated(&mut token.token_bound_cidrs, req.bound_cidrs, &mut user.deprecated.bound_cidrs);
    user.token.apply(token)?;
    USERS.put(cx, &name, &user)
}

/// Takes a parameter from its deprecated name if the current one is absent; reads return the deprecated name while it
/// was the last one used.
fn apply_deprecated<T>(current: &mut Option<T>, deprecated: Option<T>, shows_deprecated: &mut bool) {
    if current.is_some() || deprecated.is_some() {
        *shows_deprecated = deprecated.is_some();
    }
    if current.is_none() {
        *current = deprecated;
    }
}

/// DELETE `users/{username}`.
pub(super) async fn delete(_: &Userpass, cx: &mut Cx, req: UserPath) -> Result<()> {
    let name = username(&req.username)?;
    USERS.delete(cx, &name);
    Ok(())
}

/// POST `users/{username}/password`.
pub(super) async fn write_password(method: &Userpass, cx: &mut Cx, req: WritePassword) -> Result<()> {
    let (name, mut user) = require(cx, &req.username).await?;
    let hash = new_hash(method, cx, req.password, req.password_hash).await?;
    user.hash = hash.ok_or_else(|| Error::invalid(NO_PASSWORD))?;
    USERS.put(cx, &name, &user)
}

/// POST `users/{username}/policies`.
pub(super) async fn write_policies(_: &Userpass, cx: &mut Cx, req: WritePolicies) -> Result<()> {
    let (name, mut user) = require(cx, &req.username).await?;
    let mut current = req.token_policies.map(|CommaList(policies)| CommaList(canonical_policies(policies)));
    let deprecated = req.policies.map(|CommaList(policies)| CommaList(parsed_policies(policies)));
    apply_deprecated(&mut current, deprecated, &mut user.deprecated.policies);
    if let Some(CommaList(policies)) = current {
        user.token.token_policies = policies;
    }
    USERS.put(cx, &name, &user)
}

async fn require(cx: &mut Cx, given: &str) -> Result<(String, User)> {
    let name = username(given)?;
    match USERS.get(cx, &name).await? {
        Some(user) => Ok((name, user)),
        None => Err(Error::invalid("username does not exist")),
    }
}
