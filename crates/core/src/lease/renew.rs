//! Renewal of leases: the engine returns terms, which core limits by the bounds of the mount, counted from issue.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::lease::{ExpiryOf, HeldLease};
use keepfast_framework::mount::TtlBounds;
use keepfast_framework::{Error, LeaseTerms, Operation, Result, Timestamp};
use keepfast_storage::StorageError;

use super::intent::Granted;
use super::record::{LeaseId, LeaseRecord, State};
use super::store::Leases;
use crate::metrics::Metrics;
use crate::metrics::routes::RouteOperation;
use crate::mount::permit::RequestPermit;
use crate::mount::{EngineHost, Mounted, Mounts};
use crate::namespace::NamespaceId;
use crate::token::ttl::{self, EffectiveTtl, RequestedTtls};

/// Renews leases.
pub(crate) struct Renewer {
    /// The namespace of the mounts.
    pub(crate) namespace: NamespaceId,
    /// The host of the engines.
    pub(crate) host: Arc<EngineHost>,
    /// The mounts that issued the leases.
    pub(crate) mounts: Arc<Mounts>,
    /// The records of leases.
    pub(crate) leases: Arc<Leases>,
    /// Times each renewal.
    pub(crate) metrics: Arc<Metrics>,
}

impl Renewer {
    /// Renews the lease of this path and id.
    ///
    /// Fails with 400 when the lease does not exist, cannot be renewed, or its engine refuses.
    pub(crate) async fn renew_lease(
        &self,
        permit: &RequestPermit,
        path: &str,
        id: &LeaseId,
        increment: Duration,
    ) -> Result<Granted> {
        let started = self.host.clock.now();
        loop {
            match self.try_renew(permit, path, id, increment).await {
                Err(error) if error.is_conflict() => {}
                other => {
                    self.metrics.leases.renew.record(self.host.clock.now().since(started));
                    return other;
                }
            }
        }
    }

    async fn try_renew(
        &self,
        permit: &RequestPermit,
        path: &str,
        id: &LeaseId,
        increment: Duration,
    ) -> Result<Granted> {
        let now = self.host.clock.now();
        let found = self.leases.at(&self.namespace, path, id).await?.filter(|r| r.state == State::Live && now < r.end);
        let record = found.ok_or_else(|| Error::invalid("lease not found"))?;
        if !record.renewable {
            return Err(Error::invalid("lease is not renewable"));
        }
        // A mount whose unmount is in progress still renews its leases.
        let mounted = self.mounts.with_leaving(&record.mount);
        let mounted = mounted.ok_or_else(|| Error::invalid("the engine of this lease is not mounted"))?;
        let engine = mounted.engine(&self.host).await?;
        let mut cx = self.host.context(&mounted, Operation::Update, record.path.clone()).once();
        let held = held(&record, &mounted, increment, expiry_of(&record, mounted.info.ttl, increment, now));
        let terms = engine.renew_lease(permit, &mut cx, &held).await;
        mounted.timings.record(RouteOperation::Renew, self.host.clock.now().since(now));
        let terms = terms.map_err(|error| refused("failed to renew entry", error))?;
        let parts = cx.into_parts();
        let mut tx = parts.tx;
        // The lease may have been revoked while its engine ran.
        let current = self.leases.record(&mut tx, id).await?.filter(|r| r.state == State::Live);
        let mut record = current.ok_or_else(|| Error::invalid("lease not found"))?;
        let effective = effective_under(&record, mounted.info.ttl, increment, &terms, now);
        let end = now.after(effective.ttl);
        self.leases.change(&mut tx, id, &mut record, |r| {
            r.end = end;
            // The worker revokes it then.
            r.due = end;
            r.last_renewal = Some(now);
        })?;
        tx.commit().await?;
        parts.after_commit.into_iter().for_each(|action| action());
        Ok(Granted { id: record.full_id(id), ttl: effective.ttl, renewable: true, warnings: effective.warnings })
    }
}

/// The lease as its engine gets it.
pub(super) fn held(record: &LeaseRecord, mounted: &Mounted, increment: Duration, expiry_of: ExpiryOf) -> HeldLease {
    HeldLease {
        path: record.path_within(&mounted.entry.path).to_owned(),
        internal: record.internal.clone(),
        until_confirmed: record.until_confirmed.clone(),
        increment,
        expiry_of,
    }
}

/// Computes the expiry of a renewal at `now` from the terms of the engine.
pub(super) fn expiry_of(record: &LeaseRecord, bounds: TtlBounds, increment: Duration, now: Timestamp) -> ExpiryOf {
    let record = LeaseRecord { internal: serde_json::Value::Null, ..record.clone() };
    Arc::new(move |terms| now.after(effective_under(&record, bounds, increment, terms, now).ttl))
}

/// The TTL of a renewal at `now` if the engine returns these terms.
fn effective_under(
    record: &LeaseRecord,
    bounds: TtlBounds,
    increment: Duration,
    terms: &LeaseTerms,
    now: Timestamp,
) -> EffectiveTtl {
    // Clamped here to the bound of the mount, so that it causes no warning.
    let max_ttl = terms.max_ttl.min(bounds.max);
    let ttl = requested_or_default(terms.ttl, bounds);
    let requested = RequestedTtls { increment, ttl, max_ttl, ..RequestedTtls::default() };
    let mut effective = ttl::effective_ttl(&requested, bounds, record.issued, now);
    // The expiry of the batch token that requested the lease.
    if let Some(bound) = record.bound {
        effective.ttl = effective.ttl.min(bound.since(now));
    }
    effective
}

/// The TTL that an engine requests, else the default of the mount, so that the response has a warning when the lease
/// gets less.
pub(super) fn requested_or_default(ttl: Duration, bounds: TtlBounds) -> Duration {
    if ttl.is_zero() { bounds.default.min(bounds.max) } else { ttl }
}

/// The error of `sys/leases` when an engine refuses: 400 with the text of the engine, unless storage failed.
pub(super) fn refused(what: &str, error: Error) -> Error {
    let stored = error.cause().is_some_and(|c| c.downcast_ref::<StorageError>().is_some());
    if stored {
        return error;
    }
    let cause = error.cause().map(ToString::to_string);
    let refused = Error::invalid(format!("{what}: {}", error.public()));
    match cause {
        Some(cause) => refused.caused_by(cause),
        None => refused,
    }
}
