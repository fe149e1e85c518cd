//! Renewal: a new expiry within all bounds, counted from issue.

use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::Seconds;
use keepfast_framework::mount::TtlBounds;
use keepfast_framework::reply::Outcome;
use keepfast_framework::{Cx, Error, Result, Status};
use keepfast_storage::Tx;

use super::Token;
use super::auth::call;
use super::record::{FIRST_TOKEN_PATH, TokenExpiry, TokenRecord};
use super::roles::{self, Role};
use super::ttl::{self, RequestedTtls};
use crate::identity::{Entity, LoginIdentity};
use crate::layout::TOKEN_MOUNT;
use crate::mount::permit::RequestPermit;
use crate::unsealed::Unsealed;

/// Renews a token. `id` is its text, if the caller knows it.
pub(super) async fn renew(
    unsealed: &Unsealed,
    cx: &mut Cx,
    token: &Token,
    increment: Option<Seconds>,
    id: Option<&str>,
) -> Result<Outcome> {
    let started = cx.now();
    let outcome = renewed(unsealed, cx, token, increment, id).await;
    unsealed.observability.metrics.leases.renew_token.record(cx.now().since(started));
    outcome
}

async fn renewed(
    unsealed: &Unsealed,
    cx: &mut Cx,
    token: &Token,
    increment: Option<Seconds>,
    id: Option<&str>,
) -> Result<Outcome> {
    let Some(key) = &token.key else { return Err(Error::invalid("batch tokens cannot be renewed")) };
    let now = cx.now();
    let (tx, _) = cx.store();
    let mut record = unsealed.access.tokens.record(tx, key).await?.ok_or_else(|| Error::invalid("token not found"))?;
    // The token may have expired since it was found.
    if !record.is_valid_at(now) {
        return Err(Error::invalid("token not found"));
    }
    if record.path == FIRST_TOKEN_PATH {
        return Err(Error::invalid("invalid lease ID"));
    }
    if !record.renewable || record.expiry == TokenExpiry::Never {
        return Err(Error::invalid("lease is not renewable"));
    }
    let increment = increment.map(Seconds::duration).unwrap_or_default();
    let entity = working_entity(unsealed, tx, &record).await?;
    let role = role_of(cx, &record).await?;
    let permit = &call(cx)?.permit;
    let Renewal { requested, bounds, groups } = requested(unsealed, permit, &record, role.as_ref(), increment).await?;
    let effective = ttl::effective_ttl(&requested, bounds, record.created, now);
    effective.warnings.into_iter().for_each(|w| cx.warn(w));
    record.last_renewal = Some(now);
    let (tx, _) = cx.store();
    unsealed.access.tokens.extend(tx, key, &mut record, now.after(effective.ttl))?;
    let identity_policies = match entity {
        Some(entity) => Box::pin(regroup(unsealed, tx, &record, entity, groups.as_deref())).await?,
        None => Vec::new(),
    };
    let id = SecretString::new(id.unwrap_or("").to_owned());
    let auth = record.into_auth_block(id, ttl::shown(effective.ttl), identity_policies);
    Ok(Outcome::Auth(Box::new(auth)))
}

/// The current token role of a token that was created with one.
///
/// # Errors
/// 500, as OpenBao, when the role is deleted: its bounds are unknown, so the token ends when its TTL does.
async fn role_of(cx: &mut Cx, record: &TokenRecord) -> Result<Option<Role>> {
    if record.role.is_empty() {
        return Ok(None);
    }
    let role = roles::load(cx, &record.role).await?;
    role.map(Some).ok_or_else(|| {
        let cause = format!("original token role {:?} could not be found, not renewing", record.role);
        Error::new(Status::INTERNAL, format!("1 error occurred:\n\t* failed to renew entry: {cause}\n\n"))
    })
}

/// The period of a renewal in seconds: the current period of the role, or that of the request if it is shorter.
fn period(record: &TokenRecord, role: Option<&Role>) -> u64 {
    let Some(role) = role else { return record.period };
    let requested = record.requested.map_or(record.period, |(_, period)| period);
    match (role.params.token_period, requested) {
        (0, period) | (period, 0) => period,
        (current, requested) => current.min(requested),
    }
}

/// Applies the groups that the auth method reports. Returns the policies that the entity adds to the token now, sorted.
async fn regroup(
    unsealed: &Unsealed,
    tx: &mut Tx,
    record: &TokenRecord,
    entity: Entity,
    groups: Option<&[String]>,
) -> Result<Vec<String>> {
    let identity = &unsealed.access.identity;
    let regrouped = match groups.zip(record.origin.accessor.as_deref()) {
        None => false,
        Some((groups, accessor)) => {
            identity.regroup(tx, &entity, (&record.alias, record.created), (accessor, groups)).await?
        }
    };
    identity.policies_of_login(tx, &LoginIdentity { entity: entity.id, regrouped, ..LoginIdentity::default() }).await
}

/// The entity of a token, as the transaction sees it; `None` for a token without one.
///
/// # Errors
/// 400 when it is disabled or deleted: the token does not work, so its TTL is not extended.
async fn working_entity(unsealed: &Unsealed, tx: &mut Tx, record: &TokenRecord) -> Result<Option<Entity>> {
    if record.entity_id.is_empty() {
        return Ok(None);
    }
    let identity = &unsealed.access.identity;
    let mut found = identity.entity(tx, &record.entity_id).await?;
    if found.is_none()
        && let Some(merged) = identity.merged_into(tx, &record.entity_id).await?
    {
        found = identity.entity(tx, &merged).await?;
    }
    match found.filter(|entity| !entity.disabled) {
        Some(entity) => Ok(Some(entity)),
        None => Err(Error::invalid("the entity of the token is disabled or deleted")),
    }
}

/// The parameters of a renewal.
struct Renewal {
    requested: RequestedTtls,
    bounds: TtlBounds,
    /// The groups of the caller in the auth method.
    groups: Option<Vec<String>>,
}

/// The TTLs for a renewal: from the auth method, the role, or the record of the token.
async fn requested(
    unsealed: &Unsealed,
    permit: &RequestPermit,
    record: &TokenRecord,
    role: Option<&Role>,
    increment: Duration,
) -> Result<Renewal> {
    let mount_path = record.origin.mount.as_deref().unwrap_or(TOKEN_MOUNT);
    let mounted = unsealed.engines.mounts.router().at(mount_path).cloned();
    let mounted = mounted.ok_or_else(|| Error::invalid("the auth method of this token is gone"))?;
    let bounds = mounted.info.ttl;
    let mut groups = None;
    let mut requested = RequestedTtls {
        increment,
        ttl: Duration::ZERO,
        max_ttl: Duration::from_secs(record.max_ttl),
        period: Duration::from_secs(period(record, role)),
        explicit_max_ttl: Duration::from_secs(record.explicit_max_ttl),
    };
    if record.origin.mount.is_some() {
        let engine = mounted.engine(&unsealed.engines.host).await?;
        let mut cx =
            unsealed.engines.host.context(&mounted, keepfast_framework::Operation::Update, record.path.clone());
        let terms = engine.renew_login(permit, &mut cx, &record.origin.internal).await?;
        requested.ttl = terms.ttl;
        requested.max_ttl = terms.max_ttl;
        requested.period = terms.period;
        groups = terms.groups;
    }
    if requested.ttl.is_zero() && requested.increment.is_zero() && requested.period.is_zero() {
        // Without a requested TTL the last given TTL applies.
        requested.ttl = match record.expiry {
            TokenExpiry::At(end) if record.origin.mount.is_none() => {
                end.since(record.last_renewal.unwrap_or(record.created))
            }
            _ => bounds.default,
        };
    }
    Ok(Renewal { requested, bounds, groups })
}
