//! Login, and what a renewal of its token gets.
//!
//! Refusals tell nothing: their text depends on the request alone, and an unknown role id costs the same reads and hashes
//! as a wrong secret id of a known one. Ids are looked up by keyed hash, so no comparison meets a guess.

use std::sync::Arc;

use ipnet::IpNet;
use keepfast_framework::fields::{SecretText, Text};
use keepfast_framework::reply::{Alias, ClaimedAlias};
use keepfast_framework::token_params::{TokenTerms, parse_cidrs};
use keepfast_framework::{Cx, Error, Login, LoginAttempt, Result};
use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::{ROLE_IDS, ROLES, Role};
use super::secret_id::{self, SecretId};
use super::{AppRole, cidr};

/// How many roles are kept ready for logins.
const CAPACITY: u64 = 10_000;
/// Room that is made for them at once; more is made as they come.
const FIRST_ROOM: usize = 64;
/// The store that is searched when the role id is unknown: as long as a role's, and never one.
const NO_STORE: &str = "....................";

/// A login.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Credentials {
    /// The id of the role.
    role_id: Option<Text>,
    /// A secret id of the role; not needed when the role does not bind one.
    secret_id: Option<SecretText>,
}

/// What the token keeps for its renewals.
#[derive(Serialize, Deserialize)]
struct Internal {
    role_name: String,
}

/// A role as logins need it: parsed, with the policies in their one form.
struct LoginRole {
    name: String,
    role: Role,
    cidrs: Vec<IpNet>,
    policies: Vec<String>,
    terms: TokenTerms,
}

/// Roles ready for logins, by keyed hash of the role id.
///
/// All are forgotten when any role changes. A login that read a role before that change must not put it back after, so
/// what is put in must come from the same epoch in which it was read.
pub(super) struct LoginRoles {
    roles: Cache<String, Arc<LoginRole>>,
    epoch: Mutex<u64>,
}

impl Default for LoginRoles {
    fn default() -> Self {
        LoginRoles { roles: Cache::with_weighter(FIRST_ROOM, CAPACITY, UnitWeighter), epoch: Mutex::new(0) }
    }
}

impl LoginRoles {
    /// Forgets all.
    pub(super) fn forget(&self) {
        let mut epoch = self.epoch.lock();
        *epoch += 1;
        self.roles.clear();
    }

    fn epoch(&self) -> u64 {
        *self.epoch.lock()
    }

    fn keep(&self, place: &str, role: &Arc<LoginRole>, read_in: u64) {
        let epoch = self.epoch.lock();
        if *epoch == read_in {
            self.roles.insert(place.to_owned(), role.clone());
        }
    }
}

/// POST `login`.
pub(super) async fn login(method: &AppRole, cx: &mut Cx, req: Credentials) -> Result<LoginAttempt> {
    let role_id = req.role_id.as_deref().unwrap_or_default().trim();
    if role_id.is_empty() {
        return Err(Error::invalid("missing role_id"));
    }
    let secret_id = req.secret_id.as_ref().map(SecretText::expose).unwrap_or_default().trim();
    let place = method.keys.role_id(role_id);
    let ready = method.login_roles.roles.get(&place);
    let is_ready = ready.is_some();
    let role = match ready {
        Some(role) => Some(role),
        None => load(method, cx, &place).await?,
    };
    let name = role.as_ref().map_or(role_id, |role| &role.role.role_id).to_owned();
    let alias = ClaimedAlias { name, is_known: role.is_some() };
    let outcome = attempt(method, cx, role.as_deref(), secret_id, is_ready).await;
    Ok(LoginAttempt { alias, outcome })
}

async fn attempt(
    method: &AppRole,
    cx: &mut Cx,
    role: Option<&LoginRole>,
    secret_id: &str,
    is_ready: bool,
) -> Result<Login> {
    let reason = match prove(method, cx, role, secret_id).await? {
        Ok(login) => return Ok(login),
        Err(reason) => reason,
    };
    if is_ready {
        // An unknown role id has cost a look in vain; so must a known one.
        load(method, cx, method.keys.nobody()).await?;
    }
    let text = if secret_id.is_empty() { "missing secret_id" } else { "invalid role or secret ID" };
    Err(Error::invalid(text).because(reason))
}

/// Reads a role and keeps it ready. A login changes no role, so what it reads is what is committed.
async fn load(method: &AppRole, cx: &mut Cx, place: &str) -> Result<Option<Arc<LoginRole>>> {
    let epoch = method.login_roles.epoch();
    let Some(of_id) = ROLE_IDS.get(cx, place).await? else { return Ok(None) };
    let Some(role) = ROLES.get(cx, &of_id.name).await? else { return Ok(None) };
    let role = Arc::new(LoginRole {
        name: of_id.name,
        cidrs: parse_cidrs(role.cidrs()),
        policies: role.token.policies(),
        terms: role.token.terms(),
        role,
    });
    method.login_roles.keep(place, &role, epoch);
    Ok(Some(role))
}

/// Why a login is refused, for the audit log only.
type Reason = &'static str;

/// The login, if all that the role demands is there.
async fn prove(
    method: &AppRole,
    cx: &mut Cx,
    role: Option<&LoginRole>,
    secret_id: &str,
) -> Result<std::result::Result<Login, Reason>> {
    let store = role.map_or(NO_STORE, |role| role.role.store.as_str());
    let found = if secret_id.is_empty() {
        None
    } else {
        let hash = method.keys.secret_id(store, secret_id);
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

/// Checks that a secret id may be used now and from here. The role may have been narrowed since it was made.
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

/// Takes one use; the last one takes the secret id with it. Logins at the same time conflict and run again.
fn count_use(method: &AppRole, cx: &mut Cx, store: &str, hash: &str, found: &SecretId) -> Result<()> {
    if found.num_uses > 1 {
        method.queue.remember(hash);
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

/// New terms for a token of this method: the role's as they are now.
///
/// # Errors
/// 400 when the role is gone.
pub(super) async fn renew(cx: &mut Cx, internal: &serde_json::Value) -> Result<TokenTerms> {
    let Internal { role_name } = Internal::deserialize(internal)?;
    match ROLES.get(cx, &role_name).await? {
        Some(role) => Ok(role.token.terms()),
        None => Err(Error::invalid(format!("role {role_name:?} does not exist during renewal"))),
    }
}
