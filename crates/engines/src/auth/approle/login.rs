//! Logins, and renewals of their tokens.
//!
//! Refusals reveal nothing: their text depends on the request alone, and an unknown role id costs the same reads and
//! hashes as a wrong secret id of a known role. Ids are looked up by keyed hash, so nothing compares an id with a
//! guess.

use std::sync::Arc;

use ipnet::IpNet;
use keepfast_framework::fields::{SecretText, Text};
use keepfast_framework::reply::{Alias, ClaimedAlias};
use keepfast_framework::token_params::{TokenTerms, parse_cidrs};
use keepfast_framework::{Cx, Error, Login, LoginAttempt, ReadCache, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::{ROLE_IDS, ROLES, Role};
use super::secret_id::{self, SecretId};
use super::{AppRole, cidr};

/// The capacity of the cache of roles.
const CAPACITY: usize = 10_000;
/// The initial capacity of the cache.
const INITIAL_CAPACITY: usize = 64;
/// The store for lookups of an unknown role id: as long as that of a role, and never one.
const NO_STORE: &str = "....................";

/// The parameters of a login.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Credentials {
    /// The id of the role.
    role_id: Option<Text>,
    /// A secret id of the role; not needed when the role does not bind one.
    secret_id: Option<SecretText>,
}

/// The data that the token keeps for its renewals.
#[derive(Serialize, Deserialize)]
struct Internal {
    role_name: String,
}

/// A role prepared for logins: with parsed networks and canonical policies.
pub(super) struct LoginRole {
    name: String,
    role: Role,
    cidrs: Vec<IpNet>,
    policies: Vec<String>,
    terms: TokenTerms,
}

/// A cache of roles by keyed hash of the role id. A change of any role clears it.
pub(super) type LoginRoles = ReadCache<String, Arc<LoginRole>>;

/// An empty cache.
pub(super) fn no_login_roles() -> LoginRoles {
    ReadCache::new(INITIAL_CAPACITY, CAPACITY)
}

/// POST `login`.
pub(super) async fn login(method: &AppRole, cx: &mut Cx, req: Credentials) -> Result<LoginAttempt> {
    let role_id = req.role_id.as_deref().unwrap_or_default().trim();
    if role_id.is_empty() {
        return Err(Error::invalid("missing role_id"));
    }
    let secret_id = req.secret_id.as_ref().map(SecretText::expose).unwrap_or_default().trim();
    let key = method.id_hasher.role_id(role_id);
    let cached = method.login_roles.get(&key);
    let is_cached = cached.is_some();
    let role = match cached {
        Some(role) => Some(role),
        None => load(method, cx, &key).await?,
    };
    let name = role.as_ref().map_or(role_id, |role| &role.role.role_id).to_owned();
    let alias = ClaimedAlias { name, is_known: role.is_some() };
    let outcome = attempt(method, cx, role.as_deref(), secret_id, is_cached).await;
    Ok(LoginAttempt { alias, outcome })
}

async fn attempt(
    method: &AppRole,
    cx: &mut Cx,
    role: Option<&LoginRole>,
    secret_id: &str,
    is_cached: bool,
) -> Result<Login> {
    let reason = match authenticate(method, cx, role, secret_id).await? {
        Ok(login) => return Ok(login),
        Err(reason) => reason,
    };
    if is_cached {
        // An unknown role id costs a read without a result; a cached role costs the same.
        load(method, cx, method.id_hasher.no_role_id()).await?;
    }
    let text = if secret_id.is_empty() { "missing secret_id" } else { "invalid role or secret ID" };
    Err(Error::invalid(text).because(reason))
}

/// Reads a role and caches it. A login changes no role, so it reads the committed one.
async fn load(method: &AppRole, cx: &mut Cx, key: &str) -> Result<Option<Arc<LoginRole>>> {
    let epoch = method.login_roles.epoch();
    let Some(of_id) = ROLE_IDS.get(cx, key).await? else { return Ok(None) };
    let Some(role) = ROLES.get(cx, &of_id.name).await? else { return Ok(None) };
    let role = Arc::new(LoginRole {
        name: of_id.name,
        cidrs: parse_cidrs(role.cidrs()),
        policies: role.token.policies(),
        terms: role.token.terms(),
        role,
    });
    method.login_roles.insert(epoch, key.to_owned(), role.clone());
    Ok(Some(role))
}

/// Why a login is refused; only the audit entry contains it.
type Reason = &'static str;

/// Authenticates the login.
async fn authenticate(
    method: &AppRole,
    cx: &mut Cx,
    role: Option<&LoginRole>,
    secret_id: &str,
) -> Result<std::result::Result<Login, Reason>> {
    let store = role.map_or(NO_STORE, |role| role.role.store.as_str());
    let found = if secret_id.is_empty() {
        None
    } else {
        let hash = method.id_hasher.secret_id(store, secret_id);
        method.queue.turn(cx, &hash).await;
        secret_id::get(cx, store, &hash).await?.map(|found| (hash, found))
    };
    let Some(role) = role else { return Ok(Err("no role has this role_id")) };
    if !cidr::allow(&role.cidrs, cx.request().remote) {
        return Ok(Err("the address is not in secret_id_bound_cidrs of the role"));
    }
    if !role.role.bind_secret_id {
        return Ok(Ok(granted(role, None)));
    }
    let Some((hash, found)) = found else { return Ok(Err("the role has no such secret_id")) };
    if let Err(reason) = check(cx, role, &found) {
        return Ok(Err(reason));
    }
    count_use(method, cx, store, &hash, &found)?;
    Ok(Ok(granted(role, Some(found))))
}

/// Checks expiry and networks of a secret id. The networks of the role may be narrower than when the secret id was
/// created.
fn check(cx: &Cx, role: &LoginRole, found: &SecretId) -> std::result::Result<(), Reason> {
    let cidrs = parse_cidrs(&found.cidr_list);
    let token_cidrs = parse_cidrs(&found.token_bound_cidrs);
    if !found.is_live(cx.now()) {
        return Err("the secret_id has expired");
    }
    if !cidr::is_subset(&role.cidrs, &cidrs) {
        return Err("cidr_list of the secret_id is not within secret_id_bound_cidrs of the role");
    }
    if !cidr::allow(&cidrs, cx.request().remote) {
        return Err("the address is not in cidr_list of the secret_id");
    }
    if !cidr::is_subset(&role.terms.bound_cidrs, &token_cidrs) {
        return Err("token_bound_cidrs of the secret_id are not within token_bound_cidrs of the role");
    }
    Ok(())
}

/// Counts one use; the last one deletes the secret id. Concurrent logins conflict and run again.
fn count_use(method: &AppRole, cx: &mut Cx, store: &str, hash: &str, found: &SecretId) -> Result<()> {
    if found.num_uses > 1 {
        method.queue.add(hash);
    }
    match found.num_uses {
        0 => Ok(()),
        1 => {
            secret_id::remove(cx, store, hash, &found.accessor, found.expires);
            Ok(())
        }
        uses => {
            let used = SecretId { num_uses: uses - 1, updated: cx.now(), ..found.clone() };
            secret_id::update(cx, store, hash, &used)
        }
    }
}

fn granted(role: &LoginRole, secret_id: Option<SecretId>) -> Login {
    let secret_id = secret_id.unwrap_or_default();
    let mut terms = role.terms.clone();
    if !secret_id.token_bound_cidrs.is_empty() {
        terms.bound_cidrs = parse_cidrs(&secret_id.token_bound_cidrs);
    }
    let mut metadata = secret_id.metadata;
    metadata.insert("role_name".to_owned(), role.name.clone());
    Login {
        alias: Some(Alias { name: role.role.role_id.clone(), metadata: metadata.clone() }),
        display_name: String::new(),
        policies: role.policies.clone(),
        metadata,
        terms,
        internal: serde_json::json!({ "role_name": role.name }),
    }
}

/// The terms of a renewed token: the current ones of the role.
///
/// # Errors
/// 400 when the role was deleted.
pub(super) async fn renew(cx: &mut Cx, internal: &serde_json::Value) -> Result<TokenTerms> {
    let Internal { role_name } = Internal::deserialize(internal)?;
    match ROLES.get(cx, &role_name).await? {
        Some(role) => Ok(role.token.terms()),
        None => Err(Error::invalid(format!("role {role_name:?} does not exist during renewal"))),
    }
}
