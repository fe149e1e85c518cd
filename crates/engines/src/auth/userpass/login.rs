//! Logins, and renewals of their tokens.

use std::collections::BTreeMap;

use keepfast_crypto::password;
use keepfast_framework::fields::{SecretText, Text};
use keepfast_framework::reply::{Alias, ClaimedAlias};
use keepfast_framework::token_params::TokenTerms;
use keepfast_framework::{Cx, Error, Login, LoginAttempt, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Userpass;
use super::user::{USERS, User, login_cost, username};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Credentials {
    /// Name of the user.
    username: Text,
    /// The user's password.
    password: Option<SecretText>,
}

/// The data that the token keeps for its renewals.
#[derive(Serialize, Deserialize)]
struct Internal {
    username: String,
    policies: Vec<String>,
}

/// POST `login/{username}`.
pub(super) async fn login(method: &Userpass, cx: &mut Cx, req: Credentials) -> Result<LoginAttempt> {
    let name = username(&req.username)?;
    let given = req.password.filter(|password| !password.expose().is_empty());
    let given = given.ok_or_else(|| Error::invalid("missing password"))?;
    let user = USERS.get(cx, &name).await?;
    let alias = ClaimedAlias { name: name.clone(), is_known: user.is_some() };
    let outcome = authenticate(method, cx, name, user, given).await;
    Ok(LoginAttempt { alias, outcome })
}

/// Authenticates the login: checks the password and the bound networks of the user.
async fn authenticate(
    method: &Userpass,
    cx: &mut Cx,
    name: String,
    user: Option<User>,
    given: SecretText,
) -> Result<Login> {
    let cost = login_cost(cx).await?;
    let hash = user.as_ref().map(|user| user.hash.clone());
    let right = method.hashing(move || password::verify(given.expose().as_bytes(), hash.as_deref(), cost)).await?;
    // Outside the bound networks of the user, a correct password is refused and counted like a wrong one.
    let is_outside = right && user.as_ref().is_some_and(|user| !is_in_bound_cidrs(cx, user));
    let user = user.filter(|_| right && !is_outside);
    let user = user.ok_or_else(|| match Error::invalid("invalid username or password") {
        refused if is_outside => refused.because("the address is not in the bound CIDRs of the user"),
        refused => refused,
    })?;
    let terms = user.token.terms();
    let policies = user.token.policies();
    let internal = Internal { username: name.clone(), policies: policies.clone() };
    let metadata = BTreeMap::from([("username".to_owned(), name.clone())]);
    Ok(Login {
        alias: Some(Alias { name: name.clone(), metadata: BTreeMap::new() }),
        display_name: name,
        policies,
        metadata,
        terms,
        internal: serde_json::to_value(internal)?,
    })
}

/// Whether the caller's address is in the bound networks of the user. An unknown address is not.
fn is_in_bound_cidrs(cx: &Cx, user: &User) -> bool {
    let networks = user.token.terms().bound_cidrs;
    let near = |remote| networks.iter().any(|net| net.contains(&remote));
    networks.is_empty() || cx.request().remote.is_some_and(near)
}

/// The terms of a renewed token: the current ones of the user.
///
/// # Errors
/// 400 when the user was deleted or its policies have changed, as only a login can issue other policies.
pub(super) async fn renew(cx: &mut Cx, internal: &serde_json::Value) -> Result<TokenTerms> {
    let Internal { username, policies } = Internal::deserialize(internal)?;
    let user = USERS.get(cx, &username).await?.ok_or_else(|| Error::invalid("user does not exist"))?;
    if user.token.policies() != policies {
        return Err(Error::invalid("policies have changed, not renewing"));
    }
    Ok(user.token.terms())
}
