//! Issue of leases: directly, or by an intent that is durable before the engine runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keepfast_framework::lease::{BackOff, Intent, IntentGuard, Lessor};
use keepfast_framework::mount::MountInfo;
use keepfast_framework::{Error, LeaseOffer, Result, Timestamp};
use keepfast_storage::Tx;
use serde_json::Value;

use super::index;
use super::record::{LeaseId, LeaseRecord, State};
use super::renew;
use super::store::Leases;
use crate::metrics::labelled::ttl_bucket;
use crate::namespace::NamespaceId;
use crate::namespace::directory::Directory;
use crate::token::record::TokenExpiry;
use crate::token::ttl::{self, RequestedTtls};
use crate::token::{Token, Tokens};

/// Issues the leases of one request.
pub(crate) struct LeaseIssuer {
    /// The namespace of the mount.
    pub(crate) namespace: NamespaceId,
    /// The records of namespaces, for the fence of a deletion.
    pub(crate) directory: Arc<Directory>,
    /// The records of leases.
    pub(crate) leases: Arc<Leases>,
    /// The records of tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// The token of the caller; `None` on an unauthenticated path.
    pub(crate) token: Option<Arc<Token>>,
    /// Whether this request is the last use of the token.
    pub(crate) last_use: bool,
    /// The mount that issues the lease.
    pub(crate) mount: Arc<MountInfo>,
    /// The path of the request in its namespace.
    pub(crate) path: String,
}

/// A lease that was issued or renewed, for the response.
pub(crate) struct Granted {
    /// The full lease id.
    pub(crate) id: String,
    /// The remaining TTL.
    pub(crate) ttl: Duration,
    /// Whether the lease can be renewed.
    pub(crate) renewable: bool,
    /// Warnings for the caller.
    pub(crate) warnings: Vec<String>,
}

impl LeaseIssuer {
    /// Issues a lease that exists once `tx` is committed.
    ///
    /// Fails with 403 when the token does not exist any more, with 400 when it has no uses left, and with 429 when the
    /// lease count quota is exceeded.
    pub(crate) async fn grant(&self, tx: &mut Tx, offer: &LeaseOffer) -> Result<Granted> {
        let (id, mut record, warnings) = self.draft(tx, offer, State::Live).await?;
        self.leases.register(tx, &id, &mut record).await?;
        self.registered(record.issued);
        let ttl = record.end.since(record.issued);
        self.count(ttl);
        Ok(Granted { id: record.full_id(&id), ttl, renewable: record.renewable, warnings })
    }

    /// Confirms the lease of an intent of this request.
    ///
    /// Fails with 403 when the lease was revoked in the meantime, with its token or by an operator.
    pub(crate) async fn confirm(&self, tx: &mut Tx, intent: &Intent) -> Result<Granted> {
        let lost = || Error::denied().caused_by("the lease was revoked before it was confirmed");
        let Some((_, index::LeaseName::Lease(id))) = index::parse_lease_id(self.own_id(intent.id())) else {
            return Err(lost());
        };
        let mut record = self.leases.record(tx, &id).await?.filter(|r| r.state == State::Pending).ok_or_else(lost)?;
        self.leases.change(tx, &id, &mut record, |r| {
            r.state = State::Live;
            r.unconfirmed = false;
            r.until_confirmed = Value::Null;
            r.due = r.end;
        })?;
        let ttl = record.end.since(record.issued);
        self.count(ttl);
        Ok(Granted { id: record.full_id(&id), ttl, renewable: record.renewable, warnings: Vec::new() })
    }

    /// The id without the suffix of the namespace.
    fn own_id<'a>(&self, id: &'a str) -> &'a str {
        self.namespace.own(id).unwrap_or(id)
    }

    /// Times the issue of a lease that began at `started`.
    fn registered(&self, started: Timestamp) {
        self.leases.metrics.leases.register.record(self.leases.clock.now().since(started));
    }

    /// Counts a lease with this TTL.
    fn count(&self, ttl: Duration) {
        self.leases.metrics.lease_creation.add(&[
            ("creation_ttl", ttl_bucket(ttl.as_secs())),
            ("mount_point", &self.mount.path),
            ("namespace", self.namespace.as_str()),
            ("secret_engine", &self.mount.engine),
        ]);
    }

    /// The record of a new lease, with all bounds applied.
    async fn draft(
        &self,
        tx: &mut Tx,
        offer: &LeaseOffer,
        state: State,
    ) -> Result<(LeaseId, LeaseRecord, Vec<String>)> {
        self.directory.fence(tx, &self.namespace).await?;
        if self.last_use {
            return Err(Error::invalid(
                "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
            ));
        }
        let claim = match &offer.claim {
            Some(claim) => Some(self.leases.claim(tx, &self.mount.uuid, claim).await?),
            None => None,
        };
        let now = self.leases.clock.now();
        let (owner, bound) = self.owner(tx).await?;
        let ttl = renew::requested_or_default(offer.ttl, self.mount.ttl);
        let requested =
            RequestedTtls { ttl, max_ttl: offer.max_ttl.min(self.mount.ttl.max), ..RequestedTtls::default() };
        let effective = ttl::effective_ttl(&requested, self.mount.ttl, now, now);
        let end = now.after(effective.ttl).min(bound.unwrap_or(Timestamp::from_nanos(i64::MAX)));
        let unconfirmed = state == State::Pending;
        let due = if unconfirmed { Leases::confirmation_deadline(now) } else { end };
        let record = LeaseRecord {
            namespace: self.namespace.clone(),
            path: self.path.trim_end_matches('/').to_owned(),
            mount: self.mount.uuid.clone(),
            issued: now,
            end,
            due,
            last_renewal: None,
            renewable: offer.renewable,
            owner,
            bound,
            entity_id: self.token.as_ref().map(|t| t.record.entity_id.clone()).unwrap_or_default(),
            state,
            unconfirmed,
            back_off: offer.back_off.filter(|b| *b != BackOff::default()),
            counter: None,
            claim,
            until_confirmed: if unconfirmed { offer.until_confirmed.clone() } else { Value::Null },
            internal: offer.internal.clone(),
        };
        Ok((LeaseId::new(now), record, effective.warnings))
    }

    /// The token that owns the lease, and the latest expiry.
    ///
    /// The token is read in the transaction of the request: it conflicts with a concurrent revocation of the token.
    async fn owner(&self, tx: &mut Tx) -> Result<(Option<crate::token::TokenKey>, Option<Timestamp>)> {
        let Some(token) = &self.token else { return Ok((None, None)) };
        let bound = match token.record.expiry {
            TokenExpiry::At(end) if token.record.batch => Some(end),
            _ => None,
        };
        let Some(owner) = token.key.clone().or_else(|| token.record.parent.clone()) else { return Ok((None, bound)) };
        if self.tokens.record(tx, &owner).await?.is_none() {
            return Err(Error::denied());
        }
        Ok((Some(owner), bound))
    }
}

#[async_trait]
impl Lessor for LeaseIssuer {
    async fn intend(&self, tx: &mut Tx, offer: &LeaseOffer) -> Result<(Intent, Vec<String>)> {
        let (id, mut record, warnings) = self.draft(tx, offer, State::Pending).await?;
        self.leases.register(tx, &id, &mut record).await?;
        self.registered(record.issued);
        self.leases.under_way.lock().insert(id.clone());
        let full = record.full_id(&id);
        let guard = Guard { leases: self.leases.clone(), id, kept: AtomicBool::new(false) };
        Ok((Intent::new(full, record.end, Box::new(guard)), warnings))
    }

    async fn withdraw(&self, tx: &mut Tx, intent: &Intent) -> Result<()> {
        let Some((_, index::LeaseName::Lease(id))) = index::parse_lease_id(self.own_id(intent.id())) else {
            return Ok(());
        };
        if let Some(record) = self.leases.record(tx, &id).await?.filter(|r| r.unconfirmed) {
            self.leases.remove(tx, &id, &record).await?;
        }
        Ok(())
    }
}

/// Prevents the revocation of a pending lease while its request is in flight.
struct Guard {
    leases: Arc<Leases>,
    id: LeaseId,
    kept: AtomicBool,
}

impl IntentGuard for Guard {
    fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.leases.under_way.lock().remove(&self.id);
        if !self.kept.load(Ordering::Acquire) {
            self.leases.abandoned.lock().push(self.id.clone());
            self.leases.wake.notify_one();
        }
    }
}
