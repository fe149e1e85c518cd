//! Token roles: bounds and defaults of the tokens that are created with a role.

use std::collections::HashSet;

use keepfast_framework::fields::{CommaList, Flag, Int, Quoted, Seconds, Text};
use keepfast_framework::routes::{Exists, Nothing};
use keepfast_framework::rows::is_name;
use keepfast_framework::token_params::{
    TokenKind, TokenParams, TokenParamsChange, canonical_cidrs, canonical_policies,
};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Records, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::TokenAuth;
use super::issue::with_default;
use super::record::Authority;
use crate::policy::builtin;

/// The stored record of a token role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Its name.
    pub(crate) name: String,
    /// Policies that its tokens may have; if empty, all of the caller.
    pub(crate) allowed_policies: Vec<String>,
    /// The same with `*` as a wildcard.
    pub(crate) allowed_policies_glob: Vec<String>,
    /// Policies that its tokens must not have.
    pub(crate) disallowed_policies: Vec<String>,
    /// The same with `*` as a wildcard.
    pub(crate) disallowed_policies_glob: Vec<String>,
    /// Entity aliases that a caller may act for; `None` if it was never set.
    pub(crate) allowed_entity_aliases: Option<Vec<String>>,
    /// Whether its tokens have no parent.
    pub(crate) orphan: bool,
    /// Whether its tokens can be renewed.
    pub(crate) renewable: bool,
    /// Appended to the path of its tokens, so that they can be revoked together.
    pub(crate) path_suffix: String,
    /// `period` as given under its old name, which is shown in addition to the new one.
    #[serde(default)]
    pub(crate) old_period: u64,
    /// `explicit_max_ttl` as given under its old name.
    #[serde(default)]
    pub(crate) old_explicit_max_ttl: u64,
    /// `bound_cidrs` as given under its old name.
    #[serde(default)]
    pub(crate) old_bound_cidrs: Vec<String>,
    /// The parameters that all roles share.
    pub(crate) params: TokenParams,
}

const ROLES: Records<Role> = Records::at("role/");

#[derive(Deserialize, JsonSchema)]
pub(super) struct RolePath {
    /// Name of the role.
    role_name: Text,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// Name of the role.
    role_name: Text,
    /// Comma-separated policies that tokens may have.
    allowed_policies: Option<CommaList>,
    /// Comma-separated patterns of policies that tokens may have.
    allowed_policies_glob: Option<CommaList>,
    /// Comma-separated policies that tokens must not have.
    disallowed_policies: Option<CommaList>,
    /// Comma-separated patterns of policies that tokens must not have.
    disallowed_policies_glob: Option<CommaList>,
    /// Comma-separated entity aliases that a caller may act for.
    allowed_entity_aliases: Option<CommaList>,
    /// Whether the tokens are orphans. Default: false.
    orphan: Option<Flag>,
    /// Whether the tokens can be renewed. Default: true.
    renewable: Option<Flag>,
    /// Suffix of the path of the tokens. Default: none.
    path_suffix: Option<Text>,
    /// Deprecated: use `token_period`.
    period: Option<Seconds>,
    /// Deprecated: use `token_explicit_max_ttl`.
    explicit_max_ttl: Option<Seconds>,
    /// Deprecated: use `token_bound_cidrs`.
    bound_cidrs: Option<CommaList>,
    /// Comma-separated addresses or networks from which tokens may be used.
    token_bound_cidrs: Option<CommaList>,
    /// Maximum TTL of the tokens in seconds, which no renewal extends; 0 for none. Default: 0.
    token_explicit_max_ttl: Option<Seconds>,
    /// Whether the tokens lack the policy `default`. Default: false.
    token_no_default_policy: Option<Flag>,
    /// Number of uses of a token; 0 for no limit. Default: 0.
    token_num_uses: Option<Int>,
    /// Makes the tokens periodic: each renewal extends them by this period, in seconds. Default: 0, not periodic.
    token_period: Option<Seconds>,
    /// Type of the tokens: `default-service`, `default-batch`, `service` or `batch`. Default: `default-service`.
    token_type: Option<Text>,
}

impl Write {
    /// The parameters that all roles share. TTLs and policies are given when a token is created.
    fn take_params(&mut self) -> TokenParamsChange {
        TokenParamsChange {
            token_bound_cidrs: self.token_bound_cidrs.take(),
            token_explicit_max_ttl: self.token_explicit_max_ttl.take(),
            token_no_default_policy: self.token_no_default_policy.take(),
            token_num_uses: self.token_num_uses.take(),
            token_period: self.token_period.take(),
            token_type: self.token_type.take(),
            ..TokenParamsChange::default()
        }
    }
}

#[derive(Serialize)]
pub(super) struct RoleResponse {
    allowed_entity_aliases: Option<Vec<String>>,
    allowed_policies: Vec<String>,
    allowed_policies_glob: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bound_cidrs: Vec<String>,
    disallowed_policies: Vec<String>,
    disallowed_policies_glob: Vec<String>,
    explicit_max_ttl: u64,
    name: String,
    orphan: bool,
    path_suffix: String,
    period: u64,
    renewable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    token_bound_cidrs: Vec<String>,
    token_explicit_max_ttl: u64,
    token_no_default_policy: bool,
    #[serde(skip_serializing_if = "is_zero")]
    token_num_uses: u64,
    token_period: u64,
    token_type: &'static str,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Role {
    fn new(name: &str) -> Self {
        Role {
            name: name.to_owned(),
            allowed_policies: Vec::new(),
            allowed_policies_glob: Vec::new(),
            disallowed_policies: Vec::new(),
            disallowed_policies_glob: Vec::new(),
            allowed_entity_aliases: None,
            orphan: false,
            renewable: true,
            path_suffix: String::new(),
            old_period: 0,
            old_explicit_max_ttl: 0,
            old_bound_cidrs: Vec::new(),
            params: TokenParams { token_type: TokenKind::DefaultService, ..TokenParams::default() },
        }
    }

    /// Whether the role restricts policies.
    pub(super) fn bounds_policies(&self) -> bool {
        [&self.allowed_policies, &self.allowed_policies_glob, &self.disallowed_policies, &self.disallowed_policies_glob]
            .iter()
            .any(|l| !l.is_empty())
    }

    /// Whether a caller may act for this entity alias.
    pub(super) fn allows_alias(&self, alias: &str) -> bool {
        self.allowed_entity_aliases.as_ref().is_some_and(|all| all.iter().any(|p| glob(p, alias)))
    }

    /// The authority of a token that is created with this role; root only if its creator is. `without_default` is the
    /// parameter of the request.
    pub(super) fn authority(
        &self,
        requested: Vec<String>,
        creator: &Authority,
        without_default: bool,
    ) -> Result<Authority> {
        let asks_default = requested.iter().any(|p| p == builtin::DEFAULT);
        let bounded = !self.allowed_policies.is_empty() || !self.allowed_policies_glob.is_empty();
        let requested = match (requested.is_empty(), bounded) {
            (false, _) => requested,
            (true, true) => self.allowed_policies.clone(),
            (true, false) => creator.names(),
        };
        let no_default = without_default || self.params.token_no_default_policy;
        let mut policies = completed(requested, no_default);
        if without_default {
            policies.retain(|p| p != builtin::DEFAULT);
        }
        let allowed = completed(self.allowed_policies.clone(), no_default);
        let allowed_names: HashSet<&String> = allowed.iter().collect();
        let permitted = |p: &String| allowed_names.contains(p) || self.allowed_policies_glob.iter().any(|g| glob(g, p));
        if bounded && !policies.iter().all(permitted) {
            return Err(Error::invalid(format!(
                "token policies ({}) must be subset of the role's allowed policies ({}) or glob policies ({})",
                quoted(&policies),
                quoted(&allowed),
                quoted(&self.allowed_policies_glob)
            )));
        }
        let disallowed_names: HashSet<&String> = self.disallowed_policies.iter().collect();
        let refused =
            |p: &&String| disallowed_names.contains(*p) || self.disallowed_policies_glob.iter().any(|g| glob(g, p));
        // `default` is added without a request for it, and a role may remove it.
        if !asks_default && policies.iter().any(|p| p == builtin::DEFAULT) && refused(&&builtin::DEFAULT.to_owned()) {
            policies.retain(|p| p != builtin::DEFAULT);
        }
        if let Some(policy) = policies.iter().find(refused) {
            return Err(Error::invalid(format!("token policy {} is disallowed by this role", Quoted(policy))));
        }
        match (policies.iter().any(|p| builtin::reads_like_root(p)), creator) {
            (false, _) => Ok(Authority::Policies(policies)),
            (true, Authority::Root) => Ok(Authority::Root),
            (true, _) => Err(Error::invalid("root tokens may not be created without parent token being root")),
        }
    }
}

/// The names with `default`, unless that is left out; with root, only root.
fn completed(names: Vec<String>, no_default: bool) -> Vec<String> {
    match names.iter().any(|p| p == builtin::ROOT) {
        true => vec![builtin::ROOT.to_owned()],
        false => with_default(names, no_default),
    }
}

/// A list as Go prints it.
fn quoted(names: &[String]) -> String {
    let inner: Vec<String> = names.iter().map(|n| Quoted(n).to_string()).collect();
    format!("[{}]", inner.join(" "))
}

/// Whether a text matches a pattern with `*` at its beginning, its end or both.
fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => true,
        (Some(rest), Some(_)) => text.contains(rest.trim_end_matches('*')),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => pattern == text,
    }
}

/// Checks the name of a role: letters, digits and `_`, and between them also `-` and `.`.
///
/// Fails with 404: no path of the auth method contains any other name.
pub(super) fn checked_name(name: &str) -> Result<()> {
    if is_name(name) { Ok(()) } else { Err(Error::unsupported_path()) }
}

/// The stored role of this name.
pub(super) async fn load(cx: &mut Cx, name: &str) -> Result<Option<Role>> {
    ROLES.get(cx, name).await
}

pub(super) async fn list(_: &TokenAuth, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(ROLES.list(cx, "", &Page::all()).await?))
}

pub(super) async fn exists(_: &TokenAuth, cx: &mut Cx, req: RolePath) -> Result<Exists> {
    checked_name(&req.role_name)?;
    Ok(Exists(load(cx, &req.role_name).await?.is_some()))
}

pub(super) async fn read(_: &TokenAuth, cx: &mut Cx, req: RolePath) -> Result<Option<Data<RoleResponse>>> {
    checked_name(&req.role_name)?;
    Ok(load(cx, &req.role_name).await?.map(|role| {
        Data(RoleResponse {
            allowed_entity_aliases: role.allowed_entity_aliases,
            allowed_policies: role.allowed_policies,
            allowed_policies_glob: role.allowed_policies_glob,
            bound_cidrs: role.old_bound_cidrs,
            disallowed_policies: role.disallowed_policies,
            disallowed_policies_glob: role.disallowed_policies_glob,
            explicit_max_ttl: role.old_explicit_max_ttl,
            name: role.name,
            orphan: role.orphan,
            path_suffix: role.path_suffix,
            period: role.old_period,
            renewable: role.renewable,
            token_bound_cidrs: role.params.token_bound_cidrs,
            token_explicit_max_ttl: role.params.token_explicit_max_ttl,
            token_no_default_policy: role.params.token_no_default_policy,
            token_num_uses: role.params.token_num_uses,
            token_period: role.params.token_period,
            token_type: role.params.token_type.name(),
        })
    }))
}

pub(super) async fn write(_: &TokenAuth, cx: &mut Cx, mut req: Write) -> Result<()> {
    checked_name(&req.role_name)?;
    let mut params = req.take_params();
    let mut role = load(cx, &req.role_name).await?.unwrap_or_else(|| Role::new(&req.role_name));
    let lists = [
        (&mut role.allowed_policies, req.allowed_policies),
        (&mut role.allowed_policies_glob, req.allowed_policies_glob),
        (&mut role.disallowed_policies, req.disallowed_policies),
        (&mut role.disallowed_policies_glob, req.disallowed_policies_glob),
    ];
    for (list, given) in lists {
        if let Some(CommaList(given)) = given {
            *list = canonical_policies(given);
        }
    }
    if let Some(CommaList(aliases)) = req.allowed_entity_aliases {
        role.allowed_entity_aliases = Some(canonical_policies(aliases));
    }
    role.orphan = req.orphan.map_or(role.orphan, |f| f.0);
    role.renewable = req.renewable.map_or(role.renewable, |f| f.0);
    if let Some(suffix) = req.path_suffix {
        role.path_suffix = checked_suffix(suffix.0)?;
    }
    for (old, given) in [
        ("period", params.token_period.is_some() && req.period.is_some()),
        ("bound_cidrs", params.token_bound_cidrs.is_some() && req.bound_cidrs.is_some()),
        ("explicit_max_ttl", params.token_explicit_max_ttl.is_some() && req.explicit_max_ttl.is_some()),
    ] {
        if given {
            cx.warn(format!("Both 'token_{old}' and deprecated '{old}' value supplied, ignoring the deprecated value"));
        }
    }
    // The new name takes precedence and clears the old one.
    if let Some(period) = params.token_period.or(req.period) {
        role.old_period = if params.token_period.is_some() { 0 } else { period.0 };
        params.token_period = Some(period);
    }
    if let Some(max) = params.token_explicit_max_ttl.or(req.explicit_max_ttl) {
        role.old_explicit_max_ttl = if params.token_explicit_max_ttl.is_some() { 0 } else { max.0 };
        params.token_explicit_max_ttl = Some(max);
    }
    let kind = params.token_type.take();
    if params.token_bound_cidrs.is_some() {
        role.old_bound_cidrs.clear();
    } else if let Some(CommaList(cidrs)) = &req.bound_cidrs {
        role.old_bound_cidrs = canonical_cidrs(cidrs).map_err(|e| parsing("bound_cidrs", &e))?;
        params.token_bound_cidrs = req.bound_cidrs;
    }
    role.params.apply(params).map_err(|e| parsing("role fields", &e))?;
    if let Some(kind) = kind {
        role.params.token_type = match TokenKind::parse(&kind) {
            Ok(kind) if kind != TokenKind::Default => kind,
            _ => return Err(Error::invalid(format!("invalid 'token_type' value {}", Quoted(&kind)))),
        };
    }
    check_batch(&role)?;
    let bound = cx.mount().ttl.max.as_secs();
    if role.params.token_explicit_max_ttl > bound {
        cx.warn(format!(
            "Given explicit max TTL of {} is greater than system/mount allowed value of {bound} seconds; until this is fixed attempting to create tokens against this role will result in an error",
            role.params.token_explicit_max_ttl
        ));
    }
    ROLES.put(cx, &req.role_name, &role)
}

/// OpenBao's wording of an error in the shared parameters of roles.
fn parsing(what: &str, error: &Error) -> Error {
    Error::invalid(format!("error parsing {what}: {}", error.public()))
}

/// Checks the path suffix of a role: one segment.
fn checked_suffix(suffix: String) -> Result<String> {
    let fits = suffix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    // Three consecutive characters, the first and the last of them a letter, a digit or an underscore.
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let bytes = suffix.as_bytes();
    let first = bytes.iter().position(|c| word(*c));
    let last = bytes.iter().rposition(|c| word(*c));
    let long = matches!((first, last), (Some(first), Some(last)) if last >= first + 2);
    if !(suffix.is_empty() || fits && long) {
        return Err(Error::invalid("given role path suffix contains invalid characters; must match \\w[\\w-.]+\\w"));
    }
    Ok(suffix)
}

fn check_batch(role: &Role) -> Result<()> {
    if role.params.token_type != TokenKind::Batch {
        return Ok(());
    }
    let refuse =
        |what: &str| Err(Error::invalid(format!("'token_type' cannot be 'batch' when role is set to generate {what}")));
    if !role.orphan {
        return refuse("non-orphan tokens");
    }
    if role.params.token_period > 0 {
        return refuse("periodic tokens");
    }
    if role.renewable {
        return refuse("renewable tokens");
    }
    if role.params.token_explicit_max_ttl > 0 {
        return refuse("tokens with an explicit max TTL");
    }
    Ok(())
}

pub(super) async fn delete(_: &TokenAuth, cx: &mut Cx, req: RolePath) -> Result<()> {
    checked_name(&req.role_name)?;
    ROLES.delete(cx, &req.role_name);
    Ok(())
}
