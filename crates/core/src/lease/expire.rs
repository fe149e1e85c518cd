//! Expiry: revokes tokens and leases when their TTL ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use keepfast_framework::{Clock, Error, Result, Status, Timestamp};
use keepfast_storage::{Barrier, StorageError};
use tokio::task::JoinSet;

use super::index;
use super::record::{LeaseId, State};
use super::revoke::{LeaseRevoker, RevokeMode};
use super::revoke_by_path::OF_ONE_MOUNT;
use super::store::Leases;
use crate::metrics::Metrics;
use crate::mount::{Mounted, Mounts};
use crate::token::Tokens;
use crate::unreadable::{confined, storage_fails, unreadable};

/// The number of leases of a mount that are revoked concurrently while the worker is on time. More would not help and
/// would delay requests.
const UNHURRIED: usize = 4;
/// The delay from which the worker revokes [`OF_ONE_MOUNT`] leases concurrently.
const LATE: Duration = Duration::from_secs(5);
/// The number of expired leases per read.
const PAGE: usize = 256;
/// The number of expired tokens per read.
const TOKEN_PAGE: usize = 500;
/// The number of expired tokens that are revoked concurrently.
const TOKENS_AT_ONCE: usize = 32;

/// Revokes expired tokens and leases.
pub(crate) struct ExpiryWorker {
    /// Revokes each lease.
    pub(crate) revoker: Arc<LeaseRevoker>,
    /// The mounts that issued the leases.
    pub(crate) mounts: Arc<Mounts>,
    /// The records of leases, and the expiry queue.
    pub(crate) leases: Arc<Leases>,
    /// Revokes tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// Counts expired leases.
    pub(crate) metrics: Arc<Metrics>,
    /// Begins the transactions of the worker.
    pub(crate) barrier: Arc<Barrier>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The number of these leases, ordered by expiry, that are revoked concurrently.
fn concurrency(due: &[(String, LeaseId)], now: Timestamp) -> usize {
    let since = due.first().and_then(|(place, _)| index::parse_end(place)).map(|(second, _)| second);
    let is_late = since.is_some_and(|second| now.since(Timestamp::from_unix(second)) > LATE);
    if is_late { OF_ONE_MOUNT } else { UNHURRIED }
}

impl ExpiryWorker {
    /// Revokes all tokens that have expired at `now`, in the order of their expiry.
    ///
    /// Fails when storage fails; the remaining tokens stay due.
    pub(crate) async fn revoke_expired_tokens(&self, now: Timestamp) -> Result<()> {
        let mut failed: Option<Error> = None;
        let mut after = String::new();
        loop {
            let names = self.leases.expiry_queue.due(index::EXPIRY, now, &after, TOKEN_PAGE).await?;
            let Some(last) = names.last().cloned() else { return failed.map_or(Ok(()), Err) };
            after = last;
            // Many tokens concurrently, because concurrent commits share one write to disk.
            let mut running = stream::iter(names.into_iter().filter_map(|name| index::parse_expiry(&name)))
                .map(|(second, key)| {
                    let tokens = self.tokens.clone();
                    confined(async move { tokens.revoke_expired(&key, second, now).await })
                })
                .buffer_unordered(TOKENS_AT_ONCE);
            while let Some(outcome) = running.next().await {
                // An unreadable record must not prevent the expiry of other tokens.
                failed = failed.or(outcome.err());
            }
        }
    }

    /// Revokes the leases that have expired at `now`, those of all mounts concurrently.
    ///
    /// Fails when storage fails; the remaining leases stay due.
    #[cfg(test)]
    pub(crate) async fn revoke_expired_leases(self: &Arc<Self>, now: Timestamp) -> Result<()> {
        self.queue_abandoned().await?;
        let mut running = JoinSet::new();
        for mount in self.leases.expiry_queue.mounts().await? {
            let worker = self.clone();
            running.spawn(async move { worker.revoke_expired_of(&mount, now).await });
        }
        let mut outcome = Ok(());
        while let Some(done) = running.join_next().await {
            outcome = outcome.and(done.unwrap_or_else(|panic| Err(Error::internal(panic))));
        }
        outcome
    }

    /// Marks the intents of failed requests as expired.
    ///
    /// Fails when storage fails; the next call continues with the same intent.
    pub(crate) async fn queue_abandoned(&self) -> Result<()> {
        let mut abandoned = std::mem::take(&mut *self.leases.abandoned.lock());
        while let Some(id) = abandoned.last() {
            if let Err(error) = self.queue_if_pending(id).await {
                self.leases.abandoned.lock().append(&mut abandoned);
                return Err(error);
            }
            abandoned.pop();
        }
        Ok(())
    }

    async fn queue_if_pending(&self, id: &LeaseId) -> Result<()> {
        match self.leases.record(&mut self.leases.begin_read(), id).await {
            Ok(Some(record)) if record.state == State::Pending => self.revoker.queue(std::slice::from_ref(id)).await,
            Ok(_) => Ok(()),
            // It is set aside when it is due.
            Err(error) if unreadable(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Revokes the leases of one mount that have expired at `now`.
    pub(crate) async fn revoke_expired_of(self: &Arc<Self>, mount: &str, now: Timestamp) -> Result<()> {
        while !self.leases.is_quarantined() {
            let due = self.leases.due(mount, now, PAGE).await?;
            if due.is_empty() {
                break;
            }
            let mounted = self.mounts.with_leaving(mount);
            let concurrency = concurrency(&due, self.clock.now());
            let mut running = JoinSet::new();
            for (place, id) in due {
                if running.len() >= concurrency
                    && let Some(done) = running.join_next().await
                {
                    done.map_err(Error::internal).flatten()?;
                }
                let (worker, mounted, mount) = (self.clone(), mounted.clone(), mount.to_owned());
                running.spawn(async move { worker.revoke_entry(mounted.as_ref(), &mount, &place, &id).await });
            }
            while let Some(done) = running.join_next().await {
                done.map_err(Error::internal).flatten()?;
            }
        }
        Ok(())
    }

    /// Revokes the lease of one entry of the expiry index. On success the entry is deleted or moved.
    async fn revoke_entry(&self, mounted: Option<&Arc<Mounted>>, mount: &str, place: &str, id: &LeaseId) -> Result<()> {
        let _lock = self.leases.lock(id).await;
        let _permit = self.leases.permits.acquire().await.map_err(Error::internal)?;
        let record = match self.leases.record(&mut self.leases.begin_read(), id).await {
            Ok(Some(record)) => record,
            Ok(None) => return self.leases.drop_entry(index::ENDS, mount, place).await,
            Err(error) if unreadable(&error) => {
                tracing::error!(
                    lease = id.as_str(),
                    "the record of a lease cannot be read; it is set aside as irrevocable"
                );
                return self.leases.set_aside(mount, place, id).await;
            }
            Err(error) => return Err(error),
        };
        let irrevocable = matches!(record.state, State::Irrevocable { .. });
        if irrevocable || record.mount != mount || index::end_name(id, &record) != place {
            return self.leases.drop_entry(index::ENDS, mount, place).await;
        }
        if record.state == State::Pending && self.leases.under_way.lock().contains(id) {
            return self.postpone(id).await;
        }
        let outcome = self.revoker.revoke_locked(mounted, id, RevokeMode::Now).await;
        match &outcome {
            Ok(()) => self.metrics.leases.expired.add(),
            Err(_) => self.metrics.leases.expiration_errors.add(),
        }
        match outcome {
            // The error of the engine is stored with the lease.
            Err(error) if storage_fails(&error) => Err(error),
            Err(error) if error.status() == Status::UNAVAILABLE => Err(error),
            _ => Ok(()),
        }
    }

    async fn postpone(&self, id: &LeaseId) -> Result<()> {
        let mut tx = self.barrier.begin();
        if let Some(mut record) = self.leases.record(&mut tx, id).await? {
            let due = Leases::confirmation_deadline(self.clock.now());
            self.leases.change(&mut tx, id, &mut record, |r| r.due = due)?;
        }
        match tx.commit().await {
            Ok(_) | Err(StorageError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_leases_are_revoked_concurrently_when_late() {
        let now = Timestamp::from_unix(1_000_000);
        let due = |second: i64| {
            let id = LeaseId::new(now);
            vec![(format!("{second:010x}{}", id.as_str()), id)]
        };
        for (second, expected) in
            [(1_000_000, UNHURRIED), (999_995, UNHURRIED), (999_994, OF_ONE_MOUNT), (0, OF_ONE_MOUNT)]
        {
            assert_eq!(concurrency(&due(second), now), expected);
        }
        assert_eq!(concurrency(&[], now), UNHURRIED);
    }
}
