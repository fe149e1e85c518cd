//! Taking back: one lease at a word, what is due by the worker, what a path made.
//!
//! A lease that cannot be taken back is tried some times with growing pauses (its own [`BackOff`], else six times) and then
//! set aside as irrevocable: visible under `sys/leases`, and tried again when an operator revokes it.
//!
//! [`BackOff`]: keepfast_framework::lease::BackOff

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use keepfast_framework::{Error, Operation, Result, Status, Timestamp};
use keepfast_storage::{Page, StorageError, Tx};
use tokio::task::JoinSet;

use super::index::{self, Named};
use super::record::{LeaseId, LeaseRecord, State};
use super::renew::{bound, held, refused};
use super::revoker::Revoker;
use crate::damaged::{confined, storage_fails, unreadable};
use crate::metrics::routes::RouteOperation;
use crate::mount::Mounted;
use crate::mount::permit::RevocationPermit;

/// Leases of one mount that are taken back at once: one slow database leaves room for the other mounts.
pub(super) const OF_ONE_MOUNT: usize = 16;
/// The same while the worker is on time: then nothing is gained by more, and requests are not kept waiting.
const UNHURRIED: usize = 4;
/// How late the worker may be before it hurries.
const LATE: Duration = Duration::from_secs(5);
/// How many leases one look reads at a time.
const PAGE: usize = 256;
/// How long a caller waits who did not ask to wait.
const COURTESY: Duration = Duration::from_secs(1);

/// How leases are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Durably noted; the worker takes them back.
    Queued,
    /// Before the call returns; the first failure is returned.
    Now,
    /// As `Now`, and forgotten even if their engine fails.
    Forced,
}

/// How many of these, which are due and stand in their order, are taken back at once.
fn at_once(due: &[(String, LeaseId)], now: Timestamp) -> usize {
    let since = due.first().and_then(|(place, _)| index::parse_end(place)).map(|(second, _)| second);
    let is_late = since.is_some_and(|second| now.since(Timestamp::from_unix(second)) > LATE);
    if is_late { OF_ONE_MOUNT } else { UNHURRIED }
}

impl Revoker {
    /// The mount of this storage name, also while it is being taken away.
    pub(crate) fn mount_of(&self, uuid: &str) -> Option<Arc<Mounted>> {
        if let Some(found) = self.mounts.router().by_uuid(uuid) {
            return Some(found.clone());
        }
        let leaving = self.mounts.leaving().into_iter().find(|e| e.uuid == uuid);
        leaving.and_then(|entry| self.mounts.mounted(entry)).map(Arc::new)
    }

    /// Takes one lease back. One that is gone is no failure.
    ///
    /// Fails with 400 when its engine fails: the lease is then tried again later. 503 under quarantine.
    pub(crate) async fn end_lease(&self, mounted: Option<&Arc<Mounted>>, id: &LeaseId, how: How) -> Result<()> {
        let _alone = self.leases.alone(id).await;
        self.end_alone(mounted, id, how).await
    }

    async fn end_alone(&self, mounted: Option<&Arc<Mounted>>, id: &LeaseId, how: How) -> Result<()> {
        let begun = self.host.clock.now();
        let outcome = self.end_once(mounted, id, how).await;
        self.metrics.leases.revoke.record(self.host.clock.now().since(begun));
        outcome
    }

    async fn end_once(&self, mounted: Option<&Arc<Mounted>>, id: &LeaseId, how: How) -> Result<()> {
        loop {
            let Some(record) = self.leases.record(&mut self.host.barrier.begin_read(), id).await? else {
                return Ok(());
            };
            match self.take_back(mounted, id, &record, how).await {
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

    async fn take_back(
        &self,
        mounted: Option<&Arc<Mounted>>,
        id: &LeaseId,
        record: &LeaseRecord,
        how: How,
    ) -> Result<()> {
        let force = how == How::Forced;
        if self.leases.is_quarantined() && !force {
            return Err(Error::new(Status::UNAVAILABLE, "leases are under quarantine: see sys/leases/quarantine"));
        }
        let Some(mounted) = mounted else {
            return if force {
                self.forget(id).await
            } else {
                Err(Error::invalid("failed to revoke entry: its engine is not mounted"))
            };
        };
        let mut cx = self.host.context(mounted, Operation::Update, record.path.clone()).once();
        let bound = bound(record, mounted.info.ttl, Duration::ZERO, self.host.clock.now());
        let held = held(record, mounted, Duration::ZERO, bound);
        // A panic is a failure of this lease like any other: it is counted, and the others are revoked.
        let begun = self.host.clock.now();
        let permit = RevocationPermit::new();
        let revoked = async { mounted.engine(&self.host).await?.revoke_lease(&permit, &mut cx, &held).await };
        let outcome = confined(revoked).await;
        mounted.timings.record(RouteOperation::Revoke, self.host.clock.now().since(begun));
        if let Err(error) = outcome {
            if force {
                tracing::warn!(lease = %record.path, %error, "a lease is forgotten by force although its engine failed");
                return self.forget(id).await;
            }
            return Err(refused("failed to revoke entry", error));
        }
        let parts = cx.into_parts();
        let mut tx = parts.tx;
        if let Some(mut current) = self.leases.record(&mut tx, id).await? {
            if current.unconfirmed {
                self.look_again(&mut tx, id, &mut current)?;
            } else {
                self.leases.remove(&mut tx, id, &current);
            }
        }
        tx.commit().await?;
        parts.after_commit.into_iter().for_each(|action| action());
        Ok(())
    }

    /// A lease that was taken back without having been confirmed is taken back once more later: what its engine had begun,
    /// such as a statement in a connection that stood still, can come to its end after the first time.
    fn look_again(&self, tx: &mut Tx, id: &LeaseId, record: &mut LeaseRecord) -> Result<()> {
        let due = super::Leases::patience(self.host.clock.now());
        self.leases.change(tx, id, record, |r| {
            r.due = due;
            r.state = State::Ending { attempts: 0 };
            r.unconfirmed = false;
        })
    }

    async fn forget(&self, id: &LeaseId) -> Result<()> {
        let mut tx = self.host.barrier.begin();
        if let Some(record) = self.leases.record(&mut tx, id).await? {
            self.leases.remove(&mut tx, id, &record);
        }
        tx.commit().await?;
        Ok(())
    }

    /// Notes that a lease could not be taken back: it is tried again later, or set aside.
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
            // Whoever changed it meanwhile has noted more than this.
            Ok(_) | Err(StorageError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends one lease as a caller asks for it.
    ///
    /// # Errors
    /// With [`How::Now`] what its engine fails with; when storage fails.
    pub(crate) async fn revoke_lease(self: &Arc<Self>, path: &str, id: &LeaseId, how: How) -> Result<()> {
        let Some(record) = self.leases.at(path, id).await? else { return Ok(()) };
        // First of all it is durable that the lease ends: after a crash in the middle the rest is done by the worker.
        self.queue(std::slice::from_ref(id)).await?;
        if how != How::Queued {
            let mounted = self.mount_of(&record.mount);
            return self.end_lease(mounted.as_ref(), id, how).await;
        }
        if self.leases.is_quarantined() {
            return Ok(());
        }
        // It is as good as done; most callers go on as if it were, so they wait a moment for it.
        let (revoker, id) = (self.clone(), id.clone());
        let done = tokio::spawn(async move {
            let mounted = revoker.mount_of(&record.mount);
            revoker.end_lease(mounted.as_ref(), &id, How::Now).await
        });
        let enough = self.host.clock.sleep_until(self.host.clock.now().after(COURTESY));
        tokio::select! { _ = done => {}, () = enough => {} }
        Ok(())
    }

    /// Notes leases as due now.
    async fn queue(&self, ids: &[LeaseId]) -> Result<()> {
        loop {
            let mut tx = self.host.barrier.begin();
            for id in ids {
                self.leases.end_soon(&mut tx, id).await?;
            }
            match tx.commit().await {
                Ok(_) => break,
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.leases.wake.notify_one();
        Ok(())
    }

    /// Ends all tokens and leases that paths below `prefix` made, or the one whose id it is.
    ///
    /// # Errors
    /// Unless queued, the first failure of an engine; when storage fails.
    pub(crate) async fn revoke_prefix(&self, prefix: &str, how: How) -> Result<()> {
        let begun = self.host.clock.now();
        let outcome = self.revoke_below(prefix, how).await;
        let timings = &self.metrics.leases;
        let timing = if how == How::Forced { &timings.revoke_force } else { &timings.revoke_prefix };
        timing.record(self.host.clock.now().since(begun));
        outcome
    }

    async fn revoke_below(&self, prefix: &str, how: How) -> Result<()> {
        let exact = prefix.trim_end_matches('/').rsplit_once('/').filter(|(_, name)| Named::parse(name).is_some());
        if let Some((folder, name)) = exact
            && self.leases.is_listed(folder, name).await?
        {
            return self.revoke_names(folder, &[name.to_owned()], how).await;
        }
        let mut folders = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(folder) = folders.pop() {
            let mut page = Page::first(PAGE);
            loop {
                let names = self.leases.below(&folder, &page).await?;
                let full = names.len() == PAGE;
                page.after = names.last().cloned();
                self.revoke_names(&folder, &names, how).await?;
                folders.extend(
                    names
                        .iter()
                        .filter_map(|n| n.strip_suffix('/'))
                        .map(|n| if folder.is_empty() { n.to_owned() } else { format!("{folder}/{n}") }),
                );
                if !full {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn revoke_names(&self, folder: &str, names: &[String], how: How) -> Result<()> {
        let leases = names.iter().filter_map(|n| LeaseId::parse(n)).collect::<Vec<_>>();
        if !leases.is_empty() {
            self.queue(&leases).await?;
        }
        // Several at a time, because concurrent commits share one write to disk. After a failure those that are under way
        // are left to the worker, for which they are noted.
        let mut each: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            each.push(Box::pin(self.revoke_name(folder, name, how, (at + 1, names.len()))));
        }
        stream::iter(each).buffered(OF_ONE_MOUNT).try_for_each(|()| ready(Ok(()))).await
    }

    async fn revoke_name(&self, folder: &str, name: &str, how: How, place: (usize, usize)) -> Result<()> {
        match Named::parse(name) {
            Some(Named::Token(key)) => self.tokens.revoke(&key).await.map(drop),
            Some(Named::Lease(id)) if how != How::Queued => self.revoke_named(folder, &id, how, place).await,
            _ => Ok(()),
        }
    }

    async fn revoke_named(&self, folder: &str, id: &LeaseId, how: How, place: (usize, usize)) -> Result<()> {
        let record = match self.leases.at(folder, id).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            // The worker sets it aside; it does not keep the others alive.
            Err(error) if unreadable(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mounted = self.mount_of(&record.mount);
        let outcome = self.end_lease(mounted.as_ref(), id, how).await;
        let which = || format!("failed to revoke {:?} ({} / {})", record.full_id(id), place.0, place.1);
        outcome.map_err(|error| refused(&which(), error))
    }

    /// Takes back everything that a mount has leased, also what was irrevocable.
    ///
    /// Fails with 400 at the first failure of its engine.
    pub(crate) async fn end_leases_of(&self, mounted: &Arc<Mounted>) -> Result<()> {
        let mount = &mounted.entry.uuid;
        for folder in [index::ENDS, index::IRREVOCABLE] {
            loop {
                let names = self.leases.of_mount(folder, mount, &Page::first(PAGE)).await?;
                if names.is_empty() {
                    break;
                }
                for name in &names {
                    let id = if folder == index::ENDS {
                        index::parse_end(name).map(|(_, id)| id)
                    } else {
                        LeaseId::parse(name)
                    };
                    match id {
                        Some(id) => self.end_listed(mounted, folder, name, &id).await?,
                        None => self.leases.drop_entry(folder, mount, name).await?,
                    }
                }
            }
        }
        Ok(())
    }

    async fn end_listed(&self, mounted: &Arc<Mounted>, folder: &str, name: &str, id: &LeaseId) -> Result<()> {
        let mount = &mounted.entry.uuid;
        match self.leases.record(&mut self.host.barrier.begin_read(), id).await {
            Ok(Some(record)) => {
                let which = || format!("failed to revoke {:?}", record.full_id(id));
                self.end_lease(Some(mounted), id, How::Now).await.map_err(|error| refused(&which(), error))
            }
            Ok(None) => self.leases.drop_entry(folder, mount, name).await,
            Err(error) if unreadable(&error) => {
                Err(Error::invalid(format!("the record of the lease {:?} cannot be read", id.as_str())))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back what is due at `now`, of all mounts side by side.
    ///
    /// Fails when storage fails; what is left is due at the next look.
    #[cfg(test)]
    pub(crate) async fn end_due_leases(self: &Arc<Self>, now: Timestamp) -> Result<()> {
        self.end_abandoned().await?;
        let mut running = JoinSet::new();
        for mount in self.leases.horizon.mounts().await? {
            let revoker = self.clone();
            running.spawn(async move { revoker.end_due_of(&mount, now).await });
        }
        let mut outcome = Ok(());
        while let Some(done) = running.join_next().await {
            outcome = outcome.and(done.unwrap_or_else(|panic| Err(Error::internal(panic))));
        }
        outcome
    }

    /// Ends intents whose requests have failed.
    pub(crate) async fn end_abandoned(&self) -> Result<()> {
        let abandoned = std::mem::take(&mut *self.leases.abandoned.lock());
        for id in abandoned {
            let found = self.leases.record(&mut self.host.barrier.begin_read(), &id).await;
            if found.is_ok_and(|r| r.is_some_and(|r| r.state == State::Pending)) {
                self.queue(&[id]).await?;
            }
        }
        Ok(())
    }

    /// Takes back what is due at `now` of one mount.
    pub(crate) async fn end_due_of(self: &Arc<Self>, mount: &str, now: Timestamp) -> Result<()> {
        while !self.leases.is_quarantined() {
            let due = self.leases.due(mount, now, PAGE).await?;
            if due.is_empty() {
                break;
            }
            let mounted = self.mount_of(mount);
            let at_once = at_once(&due, self.host.clock.now());
            let mut running = JoinSet::new();
            for (place, id) in due {
                if running.len() >= at_once
                    && let Some(done) = running.join_next().await
                {
                    done.map_err(Error::internal).flatten()?;
                }
                let (revoker, mounted, mount) = (self.clone(), mounted.clone(), mount.to_owned());
                running.spawn(async move { revoker.work_off(mounted.as_ref(), &mount, &place, &id).await });
            }
            while let Some(done) = running.join_next().await {
                done.map_err(Error::internal).flatten()?;
            }
        }
        Ok(())
    }

    /// Works off one entry of the index of ends. When this returns without failure the entry is there no more.
    async fn work_off(&self, mounted: Option<&Arc<Mounted>>, mount: &str, place: &str, id: &LeaseId) -> Result<()> {
        let _alone = self.leases.alone(id).await;
        let _permit = self.leases.permits.acquire().await.map_err(Error::internal)?;
        let record = match self.leases.record(&mut self.host.barrier.begin_read(), id).await {
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
        let outcome = self.end_alone(mounted, id, How::Now).await;
        match &outcome {
            Ok(()) => self.metrics.leases.expired.add(),
            Err(_) => self.metrics.leases.expiration_errors.add(),
        }
        match outcome {
            // A refusal is noted with the lease.
            Err(error) if storage_fails(&error) => Err(error),
            Err(error) if error.status() == Status::UNAVAILABLE => Err(error),
            _ => Ok(()),
        }
    }

    async fn postpone(&self, id: &LeaseId) -> Result<()> {
        let mut tx = self.host.barrier.begin();
        if let Some(mut record) = self.leases.record(&mut tx, id).await? {
            let due = super::Leases::patience(self.host.clock.now());
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
    fn more_are_taken_back_at_once_when_it_is_late() {
        let now = Timestamp::from_unix(1_000_000);
        let due = |second: i64| {
            let id = LeaseId::new(now);
            vec![(format!("{second:010x}{}", id.as_str()), id)]
        };
        for (second, expected) in
            [(1_000_000, UNHURRIED), (999_995, UNHURRIED), (999_994, OF_ONE_MOUNT), (0, OF_ONE_MOUNT)]
        {
            assert_eq!(at_once(&due(second), now), expected);
        }
        assert_eq!(at_once(&[], now), UNHURRIED);
    }
}
