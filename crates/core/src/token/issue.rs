//! Tokens that are created by tokens: `auth/token/create`, `create-orphan` and `create/<role>`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::duration::parse_nanos;
use keepfast_framework::fields::{Flag, Int, Pairs, Quoted, Strings, Text, unless_null};
use keepfast_framework::reply::AuthBlock;
use keepfast_framework::token_params::{TokenKind, canonical_policies};
use keepfast_framework::{Cx, Engine as _, Error, Result, Status};
use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::{TokenAuth, own};
use super::create::Spec;
use super::record::Authority;
use super::roles::{self, Role};
use super::ttl::{self, RequestedTtls};
use super::{BoundCidrs, Token, record::TokenRecord};
use crate::identity::LoginIdentity;
use crate::identity::names::fold;
use crate::layout::TOKEN_MOUNT;
use crate::policy::builtin;
use crate::unsealed::Unsealed;

/// The parameters of a new token.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Create {
    /// Id of the token; requires root or `sudo`. Default: a random id.
    pub(super) id: Option<Text>,
    /// Policies of the token; without `sudo` a subset of the caller's. Default: the caller's policies.
    pub(super) policies: Option<Strings>,
    /// Metadata of the token, which audit entries contain.
    #[serde(default, deserialize_with = "unless_null")]
    pub(super) meta: Option<Pairs>,
    /// Whether the token is an orphan; requires root or `sudo`. Default: false.
    pub(super) no_parent: Option<Flag>,
    /// Whether the token lacks the policy `default`. Default: false.
    pub(super) no_default_policy: Option<Flag>,
    /// Whether the token can be renewed. Default: true.
    pub(super) renewable: Option<Flag>,
    /// Deprecated: use `ttl`.
    pub(super) lease: Option<Text>,
    /// TTL in seconds or as a duration such as `1h`. Default: the default TTL of the mount.
    pub(super) ttl: Option<Text>,
    /// Type of the token: `service` or `batch`. Default: `service`.
    #[serde(rename = "type")]
    pub(super) kind: Option<Text>,
    /// Maximum TTL that no renewal extends. Default: none.
    pub(super) explicit_max_ttl: Option<Text>,
    /// Display name of the token. Default: `token`.
    pub(super) display_name: Option<Text>,
    /// Number of uses; 0 for no limit. Default: 0.
    pub(super) num_uses: Option<Int>,
    /// Makes the token periodic: each renewal extends it by this period. Requires root or `sudo`.
    pub(super) period: Option<Text>,
    /// Entity alias of the token; requires a role that allows it.
    pub(super) entity_alias: Option<Text>,
}

/// Creates a token from a request, within the bounds of the caller and the role.
pub(super) async fn issue(
    unsealed: &Unsealed,
    cx: &mut Cx,
    req: Create,
    role_name: Option<&str>,
    orphan_path: bool,
) -> Result<AuthBlock> {
    role_name.map_or(Ok(()), roles::checked_name)?;
    let (parent, _) = own(cx)?;
    let role = match role_name {
        None => None,
        Some(name) => Some(roles::load(cx, name).await?.ok_or_else(|| Error::invalid(format!("unknown role {name}")))?),
    };
    if parent.record.batch {
        return Err(Error::invalid("batch tokens cannot create more tokens"));
    }
    if parent.record.num_uses != 0 {
        return Err(Error::invalid("restricted use token cannot generate child tokens"));
    }
    let batch = is_batch(&req, role.as_ref())?;
    let spans = Spans::of(&req)?;
    refuse_contradictions(&req, &spans, batch, role.as_ref())?;
    let privileged = has_sudo(&parent, unsealed, cx).await?;
    let is_from_above = is_from_above(unsealed, &parent, privileged)?;
    let login_identity = entity(unsealed, cx, &req, &parent, role.as_ref()).await?;
    let authority = match is_from_above {
        true => authority_from_above(&req, role.as_ref())?,
        false => authority(&req, &parent.record, role.as_ref(), privileged)?,
    };
    if authority.is_root() && batch {
        return Err(Error::invalid("batch tokens cannot be root tokens"));
    }
    // A role decides whether its tokens are orphans, not the request.
    let orphan = role.as_ref().map_or_else(|| wants_orphan(&req, privileged), |role| Ok(role.orphan))? || orphan_path;
    let has_id = req.id.as_ref().is_some_and(|i| !i.is_empty());
    if has_id && !unsealed.access.namespace.id.is_root() {
        return Err(Error::invalid("token IDs can only be manually specified in the root namespace"));
    }
    if has_id && !privileged {
        return Err(Error::invalid("root or sudo privileges required to specify token id"));
    }
    let mut spec = Spec {
        id: req.id.as_ref().filter(|i| !i.is_empty()).map(|i| SecretString::new(i.0.clone())),
        parent: if orphan { None } else { parent.key.clone() },
        authority,
        path: token_path(cx, role.as_ref()),
        display_name: display_name(&req),
        meta: req.meta.clone().map(|Pairs(meta)| meta).unwrap_or_default(),
        empty_meta: req.meta.as_ref().is_some_and(|Pairs(meta)| meta.is_empty()),
        num_uses: u64::try_from(req.num_uses.unwrap_or_default().0)
            .map_err(|_| Error::invalid("number of uses cannot be negative"))?,
        renewable: req.renewable.is_none_or(|r| r.0) && role.as_ref().is_none_or(|r| r.renewable) && !batch,
        entity_id: login_identity.entity.clone(),
        alias: login_identity.alias.clone(),
        role: role.as_ref().map(|r| r.name.clone()).unwrap_or_default(),
        bound_cidrs: bound_cidrs(&parent.record, role.as_ref(), orphan),
        batch,
        ..Spec::default()
    };
    if let Some(role) = &role
        && role.params.token_num_uses > 0
        && (spec.num_uses == 0 || spec.num_uses > role.params.token_num_uses)
    {
        spec.num_uses = role.params.token_num_uses;
    }
    decide_ttl(cx, &spans, role.as_ref(), privileged, &mut spec)?;
    warn_of_unknown(unsealed, cx, &spec.authority).await?;
    if spec.id.is_some() {
        cx.warn("A chosen token ID is easier to guess than a generated one; its strength is yours to ensure.");
    }
    let now = cx.now();
    let (tx, _) = cx.store();
    let made = unsealed.access.tokens.create(tx, &unsealed.access.namespace.id, spec, now).await?;
    made.record.count(&unsealed.observability.metrics, TokenAuth::TYPE, TOKEN_MOUNT);
    let identity_policies = unsealed.access.identity.policies_of_login(cx.store().0, &login_identity).await?;
    Ok(made.auth_block(identity_policies))
}

/// Whether the caller's token is of a namespace above.
///
/// # Errors
/// 400 if it is, without `sudo`.
fn is_from_above(unsealed: &Unsealed, parent: &Token, privileged: bool) -> Result<bool> {
    let is_from_above = parent.record.namespace != unsealed.access.namespace.id;
    match is_from_above && !privileged {
        true => {
            Err(Error::invalid("root or sudo privileges required to directly generate a token in a child namespace"))
        }
        false => Ok(is_from_above),
    }
}

/// The networks from which the new token may be used: those of its role; without a role a child has those of its
/// parent.
fn bound_cidrs(parent: &TokenRecord, role: Option<&Role>, orphan: bool) -> BoundCidrs {
    match role {
        Some(role) => role.params.token_bound_cidrs.iter().cloned().collect(),
        None if orphan => BoundCidrs::default(),
        None => parent.bound_cidrs.clone(),
    }
}

fn is_batch(req: &Create, role: Option<&Role>) -> Result<bool> {
    let requested = match req.kind.as_deref().unwrap_or("") {
        "" => None,
        "service" => Some(false),
        "batch" => Some(true),
        _ => return Err(Error::invalid("invalid 'token_type' value")),
    };
    Ok(match role.map(|r| r.params.token_type) {
        Some(TokenKind::Service) => false,
        Some(TokenKind::Batch) => true,
        Some(TokenKind::DefaultBatch) => requested.unwrap_or(true),
        _ => requested.unwrap_or(false),
    })
}

/// The parsed durations of a request. They are sent as text, so that errors have OpenBao's wording.
struct Spans {
    ttl: Duration,
    period: Duration,
    explicit_max_ttl: Duration,
}

impl Spans {
    fn of(req: &Create) -> Result<Self> {
        let expiry = match &req.ttl {
            Some(ttl) => span("ttl", Some(ttl))?,
            None => span("lease", req.lease.as_ref())?,
        };
        Ok(Spans {
            explicit_max_ttl: span("explicit_max_ttl", req.explicit_max_ttl.as_ref())?,
            period: span("period", req.period.as_ref())?,
            ttl: expiry,
        })
    }
}

/// An exact duration: one below a second is not rounded to zero, which would mean that it is not given.
fn span(name: &str, text: Option<&Text>) -> Result<Duration> {
    let nanos = text.map_or(Ok(0), |text| parse_nanos(text)).map_err(Error::invalid)?;
    let nanos = u64::try_from(nanos).map_err(|_| Error::invalid(format!("{name} must be positive")))?;
    Ok(Duration::from_nanos(nanos))
}

fn refuse_contradictions(req: &Create, spans: &Spans, batch: bool, role: Option<&Role>) -> Result<()> {
    if req.num_uses.is_some_and(|n| n.0 < 0) {
        return Err(Error::invalid("number of uses cannot be negative"));
    }
    if batch {
        let uses = req.num_uses.is_some_and(|n| n.0 != 0);
        let extras = [
            ("explicit_max_ttl", !spans.explicit_max_ttl.is_zero()),
            ("num_uses", uses),
            ("period", !spans.period.is_zero()),
        ];
        if let Some((name, _)) = extras.iter().find(|(_, set)| *set) {
            return Err(Error::invalid(format!("batch tokens cannot have \"{name}\" set")));
        }
    }
    if req.entity_alias.as_ref().is_some_and(|a| !a.is_empty()) && role.is_none() {
        return Err(Error::invalid("'entity_alias' is only allowed in combination with token role"));
    }
    Ok(())
}

/// Whether the caller may exceed its own policies: root, or `sudo` on the path.
pub(super) async fn has_sudo(parent: &Token, unsealed: &Unsealed, cx: &Cx) -> Result<bool> {
    let Some((access, within)) = unsealed.access.of_namespace(&parent.record.namespace) else { return Ok(false) };
    let compiled = access.policies.acl_of(parent, &access.identity).await?;
    let capabilities = compiled.acl.capabilities(&format!("{within}{}", cx.request().path), cx.now());
    Ok(parent.record.authority.is_root() || capabilities.iter().any(|c| *c == "sudo" || *c == builtin::ROOT))
}

fn wants_orphan(req: &Create, privileged: bool) -> Result<bool> {
    match req.no_parent {
        Some(flag) if flag.0 && !privileged => {
            Err(Error::invalid("root or sudo privileges required to create orphan token"))
        }
        Some(flag) => Ok(flag.0),
        None => Ok(false),
    }
}

/// The policies of the new token. Root only from root; others a subset of the caller's, unless a role or `sudo` allows
/// more.
fn authority(req: &Create, parent: &TokenRecord, role: Option<&Role>, privileged: bool) -> Result<Authority> {
    let requested = req.policies.as_ref().map(|Strings(p)| canonical_policies(p.clone())).unwrap_or_default();
    let no_default = req.no_default_policy.is_some_and(|f| f.0);
    // A role without policies leaves them to the request, including `default`.
    if let Some(role) = role.filter(|r| r.bounds_policies()) {
        return role.authority(requested, &parent.authority, no_default);
    }
    if requested.iter().any(|p| p == builtin::ROOT) {
        return match (parent.authority.is_root(), privileged) {
            (true, _) => Ok(Authority::Root),
            (false, true) => Err(Error::invalid("root tokens may not be created without parent token being root")),
            (false, false) => Err(Error::invalid("child policies must be subset of parent")),
        };
    }
    if requested.iter().any(|p| builtin::reads_like_root(p)) {
        return Err(Error::invalid("policies cannot contain root"));
    }
    // Only a request without policies inherits them: a list of empty names gives the policy `default` at most.
    if req.policies.as_ref().is_none_or(|Strings(names)| names.is_empty()) {
        return Ok(inherited(parent, no_default));
    }
    let own: HashSet<String> = parent.authority.names().into_iter().collect();
    if !privileged && !requested.iter().all(|p| own.contains(p)) {
        return Err(Error::invalid("child policies must be subset of parent"));
    }
    let requested = requested.into_iter().filter(|p| !(no_default && p == builtin::DEFAULT)).collect();
    Ok(Authority::Policies(with_default(requested, no_default || !(privileged || own.contains(builtin::DEFAULT)))))
}

/// The policies of a token that a token of a namespace above creates: those that the request names, and never root, which
/// would be root of this namespace only.
fn authority_from_above(req: &Create, role: Option<&Role>) -> Result<Authority> {
    let requested = req.policies.as_ref().map(|Strings(p)| canonical_policies(p.clone())).unwrap_or_default();
    let no_default = req.no_default_policy.is_some_and(|f| f.0);
    if requested.iter().any(|p| builtin::reads_like_root(p)) {
        return Err(Error::invalid("root tokens may not be created from a parent namespace"));
    }
    if let Some(role) = role.filter(|r| r.bounds_policies()) {
        return role.authority(requested, &Authority::Policies(Vec::new()), no_default);
    }
    let requested = requested.into_iter().filter(|p| !(no_default && p == builtin::DEFAULT)).collect();
    Ok(Authority::Policies(with_default(requested, no_default)))
}

fn inherited(parent: &TokenRecord, no_default: bool) -> Authority {
    match &parent.authority {
        Authority::Root => Authority::Root,
        Authority::Policies(own) => {
            let kept = own.iter().filter(|p| !(no_default && *p == builtin::DEFAULT)).cloned().collect();
            Authority::Policies(kept)
        }
    }
}

/// Adds the policy `default`, unless `without` is set.
pub(super) fn with_default(mut policies: Vec<String>, without: bool) -> Vec<String> {
    if !without && !policies.iter().any(|p| p == builtin::DEFAULT) {
        policies.push(builtin::DEFAULT.to_owned());
        policies.sort();
    }
    policies
}

async fn entity(
    unsealed: &Unsealed,
    cx: &mut Cx,
    req: &Create,
    parent: &Token,
    role: Option<&Role>,
) -> Result<LoginIdentity> {
    // An entity of a namespace above is unknown here.
    let own = || match parent.record.namespace == unsealed.access.namespace.id {
        true => LoginIdentity {
            entity: parent.record.entity_id.clone(),
            alias: parent.record.alias.clone(),
            ..LoginIdentity::default()
        },
        false => LoginIdentity::default(),
    };
    let Some(alias) = req.entity_alias.as_ref().filter(|a| !a.is_empty()) else { return Ok(own()) };
    if !role.is_some_and(|r| r.allows_alias(&fold(alias))) {
        return Err(Error::invalid("invalid 'entity_alias' value"));
    }
    let mount = cx.mount().clone();
    let now = cx.now();
    let (tx, _) = cx.store();
    let alias = keepfast_framework::reply::Alias { name: alias.0.clone(), metadata: BTreeMap::new() };
    unsealed.access.identity.entity_of(tx, &mount, &alias, now).await.map_err(|error| match error.status() {
        Status::FORBIDDEN => Error::new(Status::FORBIDDEN, "entity from given entity alias is disabled"),
        _ => error,
    })
}

fn token_path(cx: &Cx, role: Option<&Role>) -> String {
    let path = cx.request().path.trim_end_matches('/');
    match role {
        Some(role) if !role.path_suffix.is_empty() => format!("{path}/{}", role.path_suffix),
        _ => path.to_owned(),
    }
}

/// `token`, with the display name of the request; characters that may have a meaning in a database or a file become
/// dashes.
fn display_name(req: &Create) -> String {
    let name: String = req
        .display_name
        .as_deref()
        .unwrap_or("")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .collect();
    let name = format!("token-{name}");
    name.strip_suffix('-').unwrap_or(&name).to_owned()
}

fn decide_ttl(cx: &mut Cx, spans: &Spans, role: Option<&Role>, privileged: bool, spec: &mut Spec) -> Result<()> {
    let mut period = spans.period;
    if !period.is_zero() && !privileged {
        return Err(Error::invalid("root or sudo privileges required to create periodic token"));
    }
    let mut explicit = spans.explicit_max_ttl;
    let mut increment = spans.ttl;
    if let Some(role) = role {
        spec.requested = Some((explicit.as_secs(), period.as_secs()));
        // A batch token is never renewed, so a period does not determine its TTL.
        if role.params.token_period > 0 && !spec.batch {
            let own = Duration::from_secs(role.params.token_period);
            if !period.is_zero() {
                let lesser = own.min(period).as_secs();
                cx.warn(format!(
                    "Period specified both during creation call and in role; using the lesser value of {lesser} seconds"
                ));
            }
            period = if period.is_zero() { own } else { own.min(period) };
            increment = Duration::ZERO;
        }
        let bound = Duration::from_secs(role.params.token_explicit_max_ttl);
        if !bound.is_zero() {
            if !explicit.is_zero() {
                let lesser = bound.min(explicit).as_secs();
                cx.warn(format!(
                    "Explicit max TTL specified both during creation call and in role; using the lesser value of {lesser} seconds"
                ));
            }
            explicit = if explicit.is_zero() { bound } else { bound.min(explicit) };
        }
    }
    if spec.authority.is_root() && increment.is_zero() && period.is_zero() && explicit.is_zero() {
        spec.ttl = None;
        spec.renewable = false;
        return Ok(());
    }
    if spec.authority.is_root() && increment.is_zero() && period.is_zero() {
        increment = explicit;
    }
    let bounds = cx.mount().ttl;
    let bound = if explicit.is_zero() { Duration::ZERO } else { explicit.min(bounds.max) };
    let now = cx.now();
    let requested = RequestedTtls {
        increment,
        period,
        max_ttl: if period.is_zero() { bound } else { Duration::ZERO },
        explicit_max_ttl: explicit,
        ttl: Duration::ZERO,
    };
    // Without a requested TTL the default applies, with a warning when an explicit bound is lower.
    let requested = if increment.is_zero() && period.is_zero() {
        RequestedTtls { increment: bounds.default, ..requested }
    } else {
        requested
    };
    let effective = ttl::effective_ttl(&requested, bounds, now, now);
    effective.warnings.into_iter().for_each(|w| cx.warn(w));
    spec.ttl = Some(effective.ttl);
    spec.explicit_max_ttl = explicit.as_secs();
    spec.period = period.as_secs();
    Ok(())
}

async fn warn_of_unknown(unsealed: &Unsealed, cx: &mut Cx, authority: &Authority) -> Result<()> {
    let Authority::Policies(names) = authority else { return Ok(()) };
    for name in names {
        if !unsealed.access.policies.exists(name).await? {
            cx.warn(format!("Policy {} does not exist", Quoted(name)));
        }
    }
    Ok(())
}
