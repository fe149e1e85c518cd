//! The properties of a role with paths of their own: read, set, reset.

use std::time::Duration;

use keepfast_framework::duration::format;
use keepfast_framework::fields::{CommaList, Flag, Int, Seconds, Text, unless_null};
use keepfast_framework::routes::Request;
use keepfast_framework::token_params::{TokenParamsChange, canonical_policies, parsed_policies};
use keepfast_framework::{Cx, Data, Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::role::{self, ROLES, Role, role_name};
use super::roles::RolePath;
use super::{AppRole, cidr};

/// A property of a role. The implementing type is the request that sets it.
pub(super) trait Setting: Request {
    /// A warning of reads.
    const WARNING: Option<&'static str> = None;
    /// The role's name in the path.
    fn role_name(&self) -> &str;
    /// The property in responses.
    fn show(role: &Role) -> Value;
    /// Sets the property.
    fn set(self, cx: &Cx, role: &mut Role) -> Result<()>;
    /// Resets the property to that of a new role.
    fn reset(role: &mut Role);
}

/// GET of a property.
pub(super) async fn read<S: Setting>(_: &AppRole, cx: &mut Cx, req: RolePath) -> Result<Option<Data<Value>>> {
    let Some(role) = role::find(cx, &req.role_name).await? else { return Ok(None) };
    if let Some(warning) = S::WARNING {
        cx.warn(warning);
    }
    Ok(Some(Data(S::show(&role))))
}

/// POST of a property. If the role does not exist, the path is unsupported, as in OpenBao.
pub(super) async fn write<S: Setting>(method: &AppRole, cx: &mut Cx, req: S) -> Result<()> {
    let name = role_name(req.role_name())?;
    let mut role = ROLES.get(cx, &name).await?.ok_or_else(Error::unsupported_path)?;
    req.set(cx, &mut role)?;
    role::save(method, cx, &name, &role, Some(&role.role_id)).await
}

/// DELETE of a property.
pub(super) async fn clear<S: Setting>(method: &AppRole, cx: &mut Cx, req: RolePath) -> Result<()> {
    let name = role_name(&req.role_name)?;
    let Some(mut role) = ROLES.get(cx, &name).await? else { return Ok(()) };
    S::reset(&mut role);
    role::save(method, cx, &name, &role, Some(&role.role_id)).await
}

/// GET `local-secret-ids`, which is fixed at the creation of the role.
pub(super) async fn read_local_secret_ids(_: &AppRole, cx: &mut Cx, req: RolePath) -> Result<Option<Data<Value>>> {
    let role = role::find(cx, &req.role_name).await?;
    Ok(role.map(|role| Data(json!({ "local_secret_ids": role.local_secret_ids }))))
}

/// The period for its deprecated name, if it was written under that name.
pub(super) fn deprecated_period(role: &Role) -> Option<u64> {
    Some(role.token.token_period).filter(|period| role.shows_period && *period > 0)
}

/// The policies for their deprecated name, if they were written under that name.
pub(super) fn deprecated_policies(role: &Role) -> Option<Vec<String>> {
    let policies = &role.token.token_policies;
    (role.shows_policies && !policies.is_empty()).then(|| policies.clone())
}

/// The maximum uses of a role's secret ids.
///
/// # Errors
/// 400 for a negative number.
pub(super) fn num_uses(uses: i64) -> Result<u64> {
    u64::try_from(uses).map_err(|_| Error::invalid("secret_id_num_uses cannot be negative"))
}

/// Checks a period against the maximum TTL of the mount.
///
/// # Errors
/// 400 with both.
pub(super) fn check_period(cx: &Cx, period: Option<Seconds>) -> Result<()> {
    let max = cx.mount().ttl.max.as_secs();
    match period {
        Some(Seconds(period)) if period > max => Err(Error::invalid(format!(
            "period of {:?} is greater than the backend's maximum lease TTL of {:?}",
            format(Duration::from_secs(period)),
            format(Duration::from_secs(max))
        ))),
        _ => Ok(()),
    }
}

fn missing(field: &str) -> Error {
    Error::invalid(format!("missing {field}"))
}

/// `policies`
#[derive(Deserialize, JsonSchema)]
pub(super) struct Policies {
    /// Name of the role.
    role_name: Text,
    /// Deprecated: use `token_policies`.
    policies: Option<CommaList>,
    /// Comma-separated policies of the tokens.
    token_policies: Option<CommaList>,
}

impl Setting for Policies {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        let mut shown = json!({ "token_policies": role.token.token_policies });
        if let Some(policies) = deprecated_policies(role) {
            shown["policies"] = json!(policies);
        }
        shown
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        role.shows_policies = self.policies.is_some();
        let given = self.token_policies.map(|CommaList(p)| canonical_policies(p));
        let given = given.or(self.policies.map(|CommaList(p)| parsed_policies(p)));
        role.token.token_policies = given.ok_or_else(|| missing("token_policies"))?;
        Ok(())
    }
    fn reset(role: &mut Role) {
        role.token.token_policies.clear();
        role.shows_policies = false;
    }
}

/// `period`
#[derive(Deserialize, JsonSchema)]
pub(super) struct Period {
    /// Name of the role.
    role_name: Text,
    /// Deprecated: use `token_period`.
    #[serde(default, deserialize_with = "unless_null")]
    period: Option<Seconds>,
    /// Makes the tokens periodic: each renewal extends them by this period, in seconds.
    #[serde(default, deserialize_with = "unless_null")]
    token_period: Option<Seconds>,
}

impl Setting for Period {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        let mut shown = json!({ "token_period": role.token.token_period });
        if let Some(period) = deprecated_period(role) {
            shown["period"] = json!(period);
        }
        shown
    }
    fn set(self, cx: &Cx, role: &mut Role) -> Result<()> {
        role.shows_period = self.period.is_some();
        let given = self.token_period.or(self.period).ok_or_else(|| missing("period"))?;
        check_period(cx, Some(given))?;
        role.token.apply(TokenParamsChange { token_period: Some(given), ..TokenParamsChange::default() })
    }
    fn reset(role: &mut Role) {
        role.token.token_period = 0;
        role.shows_period = false;
    }
}

/// `bound-cidr-list`
#[derive(Deserialize, JsonSchema)]
pub(super) struct BoundCidrList {
    /// Name of the role.
    role_name: Text,
    /// Deprecated: use `secret_id_bound_cidrs`.
    bound_cidr_list: Option<CommaList>,
}

impl Setting for BoundCidrList {
    const WARNING: Option<&'static str> = Some(
        "The \"bound_cidr_list\" field is deprecated and will be removed. Please use \"secret_id_bound_cidrs\" instead.",
    );
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(_: &Role) -> Value {
        // Reads return the value under the new name only.
        json!({ "bound_cidr_list": null })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        set_cidrs(role, self.bound_cidr_list)
    }
    fn reset(role: &mut Role) {
        role.secret_id_bound_cidrs = None;
    }
}

/// `secret-id-bound-cidrs`
#[derive(Deserialize, JsonSchema)]
pub(super) struct SecretIdBoundCidrs {
    /// Name of the role.
    role_name: Text,
    /// Comma-separated networks from which logins are allowed.
    secret_id_bound_cidrs: Option<CommaList>,
}

impl Setting for SecretIdBoundCidrs {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        json!({ "secret_id_bound_cidrs": role.secret_id_bound_cidrs })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        set_cidrs(role, self.secret_id_bound_cidrs)
    }
    fn reset(role: &mut Role) {
        role.secret_id_bound_cidrs = None;
    }
}

fn set_cidrs(role: &mut Role, given: Option<CommaList>) -> Result<()> {
    match given {
        None => Ok(()),
        Some(CommaList(cidrs)) if cidrs.is_empty() => Err(missing("bound_cidr_list")),
        Some(CommaList(cidrs)) => {
            role.secret_id_bound_cidrs = Some(cidr::validated(cidrs, "CIDR blocks")?);
            Ok(())
        }
    }
}

/// `token-bound-cidrs`
#[derive(Deserialize, JsonSchema)]
pub(super) struct TokenBoundCidrs {
    /// Name of the role.
    role_name: Text,
    /// Comma-separated addresses or networks from which the tokens can be used.
    token_bound_cidrs: Option<CommaList>,
}

impl Setting for TokenBoundCidrs {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        let cidrs = Some(&role.token.token_bound_cidrs).filter(|cidrs| !cidrs.is_empty());
        json!({ "token_bound_cidrs": cidrs })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        let change = TokenParamsChange { token_bound_cidrs: self.token_bound_cidrs, ..TokenParamsChange::default() };
        role.token
            .apply(change)
            .map_err(|e| Error::invalid(format!("failed to parse token_bound_cidrs: {}", e.public())))
    }
    fn reset(role: &mut Role) {
        role.token.token_bound_cidrs.clear();
    }
}

/// `bind-secret-id`
#[derive(Deserialize, JsonSchema)]
pub(super) struct BindSecretId {
    /// Name of the role.
    role_name: Text,
    /// Whether a login requires a secret id.
    bind_secret_id: Option<Flag>,
}

impl Setting for BindSecretId {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        json!({ "bind_secret_id": role.bind_secret_id })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        role.bind_secret_id = self.bind_secret_id.ok_or_else(|| missing("bind_secret_id"))?.0;
        Ok(())
    }
    fn reset(role: &mut Role) {
        role.bind_secret_id = true;
    }
}

/// `secret-id-num-uses`
#[derive(Deserialize, JsonSchema)]
pub(super) struct SecretIdNumUses {
    /// Name of the role.
    role_name: Text,
    /// Number of logins with a secret id; 0 for no limit.
    secret_id_num_uses: Option<Int>,
}

impl Setting for SecretIdNumUses {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        json!({ "secret_id_num_uses": role.secret_id_num_uses })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        role.secret_id_num_uses = num_uses(self.secret_id_num_uses.ok_or_else(|| missing("secret_id_num_uses"))?.0)?;
        Ok(())
    }
    fn reset(role: &mut Role) {
        role.secret_id_num_uses = 0;
    }
}

/// `secret-id-ttl`
#[derive(Deserialize, JsonSchema)]
pub(super) struct SecretIdTtl {
    /// Name of the role.
    role_name: Text,
    /// TTL of a secret id in seconds; 0 for no expiry.
    #[serde(default, deserialize_with = "unless_null")]
    secret_id_ttl: Option<Seconds>,
}

impl Setting for SecretIdTtl {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        json!({ "secret_id_ttl": role.secret_id_ttl })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        role.secret_id_ttl = self.secret_id_ttl.ok_or_else(|| missing("secret_id_ttl"))?.0;
        Ok(())
    }
    fn reset(role: &mut Role) {
        role.secret_id_ttl = 0;
    }
}

/// `token-num-uses`
#[derive(Deserialize, JsonSchema)]
pub(super) struct TokenNumUses {
    /// Name of the role.
    role_name: Text,
    /// Number of uses of a token; 0 for no limit.
    token_num_uses: Option<Int>,
}

impl Setting for TokenNumUses {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        json!({ "token_num_uses": role.token.token_num_uses })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        let uses = self.token_num_uses.ok_or_else(|| missing("token_num_uses"))?;
        role.token.apply(TokenParamsChange { token_num_uses: Some(uses), ..TokenParamsChange::default() })
    }
    fn reset(role: &mut Role) {
        role.token.token_num_uses = 0;
    }
}

/// `token-ttl`
#[derive(Deserialize, JsonSchema)]
pub(super) struct TokenTtl {
    /// Name of the role.
    role_name: Text,
    /// TTL of the tokens in seconds after issue and renewal.
    #[serde(default, deserialize_with = "unless_null")]
    token_ttl: Option<Seconds>,
}

impl Setting for TokenTtl {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        json!({ "token_ttl": role.token.token_ttl })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        let Seconds(ttl) = self.token_ttl.ok_or_else(|| missing("token_ttl"))?;
        if role.token.token_max_ttl > 0 && ttl > role.token.token_max_ttl {
            return Err(Error::invalid("token_ttl should not be greater than token_max_ttl"));
        }
        role.token.token_ttl = ttl;
        Ok(())
    }
    fn reset(role: &mut Role) {
        role.token.token_ttl = 0;
    }
}

/// `token-max-ttl`
#[derive(Deserialize, JsonSchema)]
pub(super) struct TokenMaxTtl {
    /// Name of the role.
    role_name: Text,
    /// Maximum TTL of the tokens in seconds, renewals included.
    #[serde(default, deserialize_with = "unless_null")]
    token_max_ttl: Option<Seconds>,
}

impl Setting for TokenMaxTtl {
    fn role_name(&self) -> &str {
        &self.role_name
    }
    fn show(role: &Role) -> Value {
        json!({ "token_max_ttl": role.token.token_max_ttl })
    }
    fn set(self, _: &Cx, role: &mut Role) -> Result<()> {
        let Seconds(max) = self.token_max_ttl.ok_or_else(|| missing("token_max_ttl"))?;
        if max > 0 && role.token.token_ttl > max {
            return Err(Error::invalid("token_max_ttl should be greater than or equal to token_ttl"));
        }
        role.token.token_max_ttl = max;
        Ok(())
    }
    fn reset(role: &mut Role) {
        role.token.token_max_ttl = 0;
    }
}
