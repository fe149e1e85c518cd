//! The revocation of one lease: its engine revokes, then the record is deleted.
//!
//! When the engine fails, the revocation is repeated after growing pauses (its own [`BackOff`], else six times). Then
//! the lease becomes irrevocable: `sys/leases` lists it, and a revocation by an operator starts a new attempt.
//!
//! [`BackOff`]: keepfast_framework::lease::BackOff

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{Error, Operation, Result, Status};
use keepfast_storage::{StorageError, Tx};

use super::record::{LeaseId, LeaseRecord, State};
use super::renew::{expiry_of, held, refused};
use super::store::Leases;
use crate::metrics::Metrics;
use crate::metrics::routes::RouteOperation;
use crate::mount::permit::RevocationPermit;
use crate::mount::{EngineHost, Mounted};
use crate::unreadable::{confined, storage_fails};

/// When leases are revoked, and the effect of an error of their engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevokeMode {
    /// Later, by the expiry worker. The leases are durably marked as expired.
    Queued,
    /// Before the call returns. The call fails when the engine fails.
    Now,
    /// As `Now`, but the record is deleted even if the engine fails.
    Forced,
}

/// Revokes one lease at a time.
pub(crate) struct LeaseRevoker {
    /// The host of the engines.
    pub(crate) host: Arc<EngineHost>,
    /// The records of leases.
    pub(crate) leases: Arc<Leases>,
    /// Times each revocation.
    pub(crate) metrics: Arc<Metrics>,
}

impl LeaseRevoker {
    /// Revokes one lease. A missing lease is no error.
    ///
    /// Fails with 400 when its engine fails (the worker then repeats the revocation later), and with 503 under
    /// quarantine.
    pub(super) async fn revoke(&self, mounted: Option<&Arc<Mounted>>, id: &LeaseId, mode: RevokeMode) -> Result<()> {
        let _lock = self.leases.lock(id).await;
        self.revoke_locked(mounted, id, mode).await
    }

    /// Revokes a lease that the caller has locked.
    pub(super) async fn revoke_locked(
        &self,
        mounted: Option<&Arc<Mounted>>,
        id: &LeaseId,
        mode: RevokeMode,
    ) -> Result<()> {
        let started = self.host.clock.now();
        let outcome = self.try_revoke(mounted, id, mode).await;
        self.metrics.leases.revoke.record(self.host.clock.now().since(started));
        outcome
    }

    async fn try_revoke(&self, mounted: Option<&Arc<Mounted>>, id: &LeaseId, mode: RevokeMode) -> Result<()> {
        loop {
            let Some(record) = self.leases.record(&mut self.host.barrier.begin_read(), id).await? else {
                return Ok(());
            };
            match self.revoke_record(mounted, id, &record, mode).await {
                Err(error) if error.is_conflict() => {}
                Err(error) if storage_fails(&error) => return Err(error),
                Err(error) => {
                    self.note_failure(id, &error).await?;
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn revoke_record(
        &self,
        mounted: Option<&Arc<Mounted>>,
        id: &LeaseId,
        record: &LeaseRecord,
        mode: RevokeMode,
    ) -> Result<()> {
        let force = mode == RevokeMode::Forced;
        if self.leases.is_quarantined() && !force {
            return Err(Error::new(Status::UNAVAILABLE, "leases are under quarantine: see sys/leases/quarantine"));
        }
        let Some(mounted) = mounted else {
            return if force {
                self.delete_record(id).await
            } else {
                Err(Error::invalid("failed to revoke entry: its engine is not mounted"))
            };
        };
        let mut cx = self.host.context(mounted, Operation::Update, record.path.clone()).once();
        let expiry_of = expiry_of(record, mounted.info.ttl, Duration::ZERO, self.host.clock.now());
        let held = held(record, mounted, Duration::ZERO, expiry_of);
        // A panic counts as a failure of this lease; other leases are still revoked.
        let started = self.host.clock.now();
        let permit = RevocationPermit::new();
        let revoked = async { mounted.engine(&self.host).await?.revoke_lease(&permit, &mut cx, &held).await };
        let outcome = confined(revoked).await;
        mounted.timings.record(RouteOperation::Revoke, self.host.clock.now().since(started));
        if let Err(error) = outcome {
            if force {
                tracing::warn!(lease = %record.path, %error, "a lease was removed by force although its revocation failed");
                return self.delete_record(id).await;
            }
            return Err(refused("failed to revoke entry", error));
        }
        let parts = cx.into_parts();
        let mut tx = parts.tx;
        if let Some(mut current) = self.leases.record(&mut tx, id).await? {
            if current.unconfirmed {
                self.schedule_second_revocation(&mut tx, id, &mut current)?;
            } else {
                self.leases.remove(&mut tx, id, &current).await?;
            }
        }
        tx.commit().await?;
        parts.after_commit.into_iter().for_each(|action| action());
        Ok(())
    }

    /// Schedules the second revocation of a lease that was never confirmed: an operation of its engine, such as a
    /// statement on a stalled connection, can complete after the first revocation.
    fn schedule_second_revocation(&self, tx: &mut Tx, id: &LeaseId, record: &mut LeaseRecord) -> Result<()> {
        let due = Leases::confirmation_deadline(self.host.clock.now());
        self.leases.change(tx, id, record, |r| {
            r.due = due;
            r.state = State::Ending { attempts: 0 };
            r.unconfirmed = false;
        })
    }

    async fn delete_record(&self, id: &LeaseId) -> Result<()> {
        let delete = |mut tx: Tx| async move {
            if let Some(record) = self.leases.record(&mut tx, id).await? {
                self.leases.remove(&mut tx, id, &record).await?;
            }
            Ok((tx, ()))
        };
        self.host.barrier.transact(delete).await
    }

    /// Stores a failed attempt: a later attempt follows, or the lease becomes irrevocable.
    async fn note_failure(&self, id: &LeaseId, error: &Error) -> Result<()> {
        if self.leases.is_quarantined() {
            return Ok(());
        }
        let mut tx = self.host.barrier.begin();
        let Some(mut record) = self.leases.record(&mut tx, id).await? else { return Ok(()) };
        let attempts = match record.state {
            State::Ending { attempts } => attempts + 1,
            _ => 1,
        };
        let now = self.host.clock.now();
        let pause = record.back_off.unwrap_or_default().pause_after(attempts);
        let next = pause.map(|pause| now.after(pause));
        self.leases.change(&mut tx, id, &mut record, |r| match next {
            Some(due) => {
                r.due = due;
                r.state = State::Ending { attempts };
            }
            None => r.state = State::Irrevocable { error: format!("out of retries: {}", error.public()) },
        })?;
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(path = %record.path, attempts, irrevocable = next.is_none(), %error, %cause, "a lease could not be revoked");
        match tx.commit().await {
            // The concurrent change is more recent than this one.
            Ok(_) | Err(StorageError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Marks leases as expired, durably. The expiry worker revokes them.
    pub(super) async fn queue(&self, ids: &[LeaseId]) -> Result<()> {
        loop {
            let mut tx = self.host.barrier.begin();
            for id in ids {
                self.leases.end_soon(&mut tx, id).await?;
            }
            match tx.commit().await {
                Ok(_) => break,
                Err(error) if error.may_run_again() => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.leases.wake.notify_one();
        Ok(())
    }
}
