//! Roles: list, read, write, delete; their role ids.

use keepfast_framework::fields::{CommaList, Flag, Int, Seconds, Text, unless_null};
use keepfast_framework::routes::{Exists, Paged};
use keepfast_framework::token_params::{TokenParamsChange, parsed_policies};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::{self, ROLE_IDS, ROLES, Role, role_name};
use super::{AppRole, cidr, expiry, settings};

/// The page of a list.
#[derive(Deserialize, JsonSchema)]
pub(super) struct List {
    /// Returns only names after this one.
    after: Option<Text>,
    /// Maximum number of names. Default: no limit.
    limit: Option<Int>,
}

impl List {
    /// The page in storage's form; a limit that is not positive means no limit.
    pub(super) fn page(after: Option<Text>, limit: Option<Int>) -> Page {
        Paged::new(after, limit).page()
    }
}

/// The path parameter of a role.
#[derive(Deserialize, JsonSchema)]
pub(super) struct RolePath {
    /// Name of the role.
    pub(super) role_name: Text,
}

/// A change of a role; absent parameters keep their values.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// Name of the role.
    role_name: Text,
    /// Role id for logins. Default for a new role: a random id.
    role_id: Option<Text>,
    /// Whether a login requires a secret id. Default: true.
    #[serde(default, deserialize_with = "unless_null")]
    bind_secret_id: Option<Flag>,
    /// Deprecated: use `secret_id_bound_cidrs`.
    bound_cidr_list: Option<CommaList>,
    /// Comma-separated networks from which logins are allowed.
    secret_id_bound_cidrs: Option<CommaList>,
    /// Whether secret ids are local to this cluster. Can be set only when the role is created. Default: false.
    local_secret_ids: Option<Flag>,
    /// Number of logins with a secret id; 0 for no limit. Default: 0.
    secret_id_num_uses: Option<Int>,
    /// TTL of a secret id in seconds; 0 for no expiry. Default: 0.
    secret_id_ttl: Option<Seconds>,
    /// Deprecated: use `token_policies`.
    policies: Option<CommaList>,
    /// Deprecated: use `token_period`.
    period: Option<Seconds>,
    #[serde(flatten)]
    token: TokenParamsChange,
}

/// A role in responses.
#[derive(Serialize)]
pub(super) struct RoleResponse {
    bind_secret_id: bool,
    local_secret_ids: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<String>>,
    secret_id_bound_cidrs: Option<Vec<String>>,
    secret_id_num_uses: u64,
    secret_id_ttl: u64,
    #[serde(flatten)]
    token: keepfast_framework::token_params::TokenParams,
}

/// LIST `role`.
pub(super) async fn list(_: &AppRole, cx: &mut Cx, req: List) -> Result<Keys> {
    ROLES.list(cx, "", &List::page(req.after, req.limit)).await.map(Keys::of)
}

/// Whether the role exists.
pub(super) async fn exists(_: &AppRole, cx: &mut Cx, req: RolePath) -> Result<Exists> {
    role::find(cx, &req.role_name).await.map(|role| Exists(role.is_some()))
}

/// GET `role/{role_name}`.
pub(super) async fn read(_: &AppRole, cx: &mut Cx, req: RolePath) -> Result<Option<Data<RoleResponse>>> {
    let role = role::find(cx, &req.role_name).await?;
    Ok(role.map(|role| {
        Data(RoleResponse {
            bind_secret_id: role.bind_secret_id,
            local_secret_ids: role.local_secret_ids,
            period: settings::deprecated_period(&role),
            policies: settings::deprecated_policies(&role),
            secret_id_bound_cidrs: role.secret_id_bound_cidrs,
            secret_id_num_uses: role.secret_id_num_uses,
            secret_id_ttl: role.secret_id_ttl,
            token: role.token,
        })
    }))
}

/// POST `role/{role_name}`.
pub(super) async fn write(method: &AppRole, cx: &mut Cx, req: Write) -> Result<()> {
    let name = role_name(&req.role_name)?;
    let existing = ROLES.get(cx, &name).await?;
    if existing.is_some() && req.local_secret_ids.is_some() {
        return Err(Error::invalid("local_secret_ids can only be modified during role creation"));
    }
    let before = existing.as_ref().map(|role| role.role_id.clone());
    let mut role = existing.unwrap_or_else(Role::new);
    apply(cx, &mut role, req)?;
    if role.token.token_max_ttl > cx.mount().ttl.max.as_secs() {
        cx.warn("token_max_ttl is greater than the backend mount's maximum TTL value; issued tokens' max TTL value will be truncated");
    }
    role::save(method, cx, &name, &role, before.as_deref()).await
}

fn apply(cx: &mut Cx, role: &mut Role, req: Write) -> Result<()> {
    if let Some(Text(role_id)) = req.role_id {
        if role_id.is_empty() {
            return Err(Error::invalid("invalid role_id supplied, or failed to generate a role_id"));
        }
        role.role_id = role_id;
    }
    if let Some(CommaList(cidrs)) = req.secret_id_bound_cidrs.or(req.bound_cidr_list) {
        role.secret_id_bound_cidrs = Some(cidr::validated(cidrs, "CIDR blocks")?);
    }
    if let Some(Int(uses)) = req.secret_id_num_uses {
        role.secret_id_num_uses = settings::num_uses(uses)?;
    }
    role.bind_secret_id = req.bind_secret_id.map_or(role.bind_secret_id, |Flag(flag)| flag);
    role.local_secret_ids = req.local_secret_ids.map_or(role.local_secret_ids, |Flag(flag)| flag);
    role.secret_id_ttl = req.secret_id_ttl.map_or(role.secret_id_ttl, |Seconds(seconds)| seconds);
    let mut token = req.token;
    if token.token_policies.is_some() || req.policies.is_some() {
        role.shows_policies = req.policies.is_some();
    }
    token.token_policies = token.token_policies.or(req.policies.map(|CommaList(p)| CommaList(parsed_policies(p))));
    if token.token_period.is_some() || req.period.is_some() {
        role.shows_period = req.period.is_some();
    }
    if token.token_period.is_none() && req.period.is_some() {
        token.token_period = req.period;
        settings::check_period(cx, token.token_period)?;
    }
    token.token_type = token.token_type.map(|Text(kind)| Text(concrete_kind(cx, kind)));
    role.token.apply(token)
}

/// A role fixes the kind of its tokens, so the kinds that leave the choice to the request are replaced by their
/// default.
fn concrete_kind(cx: &mut Cx, kind: String) -> String {
    match kind.strip_prefix("default-") {
        Some(plain @ ("service" | "batch")) => {
            cx.warn(format!("{kind} has no useful meaning; adjusting to {plain}"));
            plain.to_owned()
        }
        _ => kind,
    }
}

/// DELETE `role/{role_name}`: its secret ids are unreachable at once and removed later.
pub(super) async fn delete(method: &AppRole, cx: &mut Cx, req: RolePath) -> Result<()> {
    let name = role_name(&req.role_name)?;
    let Some(role) = ROLES.get(cx, &name).await? else { return Ok(()) };
    ROLE_IDS.delete(cx, &method.id_hasher.role_id(&role.role_id));
    ROLES.delete(cx, &name);
    expiry::mark_deleted(cx, &role.store)
}

/// The role id in responses.
#[derive(Serialize)]
pub(super) struct RoleIdResponse {
    role_id: String,
}

/// A change of a role id.
#[derive(Deserialize, JsonSchema)]
pub(super) struct WriteRoleId {
    /// Name of the role.
    role_name: Text,
    /// Role id for logins.
    role_id: Option<Text>,
}

/// GET `role/{role_name}/role-id`.
pub(super) async fn read_role_id(_: &AppRole, cx: &mut Cx, req: RolePath) -> Result<Option<Data<RoleIdResponse>>> {
    Ok(role::find(cx, &req.role_name).await?.map(|role| Data(RoleIdResponse { role_id: role.role_id })))
}

/// POST `role/{role_name}/role-id`.
pub(super) async fn write_role_id(method: &AppRole, cx: &mut Cx, req: WriteRoleId) -> Result<()> {
    let name = role_name(&req.role_name)?;
    let mut role = ROLES.get(cx, &name).await?.ok_or_else(Error::unsupported_path)?;
    let given =
        req.role_id.map(String::from).filter(|id| !id.is_empty()).ok_or_else(|| Error::invalid("missing role_id"))?;
    let before = std::mem::replace(&mut role.role_id, given);
    role::save(method, cx, &name, &role, Some(&before)).await
}
