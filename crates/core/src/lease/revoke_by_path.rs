//! Revocation on request: of one lease, of all leases and tokens below a path prefix, of all leases of a mount.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use keepfast_framework::{Clock, Error, Result};
use keepfast_storage::Page;

use super::index::{self, LeaseName};
use super::record::LeaseId;
use super::renew::refused;
use super::revoke::{LeaseRevoker, RevokeMode};
use super::store::Leases;
use crate::metrics::Metrics;
use crate::mount::{Mounted, Mounts};
use crate::namespace::NamespaceId;
use crate::token::Tokens;
use crate::unreadable::unreadable;

/// The number of leases of one mount that are revoked concurrently. A slow database leaves capacity for other mounts.
pub(super) const OF_ONE_MOUNT: usize = 16;
/// The number of names per read.
const PAGE: usize = 256;
/// The time that the caller of a queued revocation waits for it.
const GRACE: Duration = Duration::from_secs(1);

/// Revokes leases and tokens by the path that issued them.
pub(crate) struct PathRevoker {
    /// The namespace of the mounts.
    pub(crate) namespace: NamespaceId,
    /// Revokes each lease.
    pub(crate) revoker: Arc<LeaseRevoker>,
    /// The mounts that issued the leases.
    pub(crate) mounts: Arc<Mounts>,
    /// The records of leases.
    pub(crate) leases: Arc<Leases>,
    /// Revokes the tokens below a prefix.
    pub(crate) tokens: Arc<Tokens>,
    /// Times each revocation by prefix.
    pub(crate) metrics: Arc<Metrics>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
}

impl PathRevoker {
    /// Revokes the lease of this path and id.
    ///
    /// Fails with the error of the engine, unless the mode is [`RevokeMode::Queued`], and when storage fails.
    pub(crate) async fn revoke_lease(&self, path: &str, id: &LeaseId, mode: RevokeMode) -> Result<()> {
        let Some(record) = self.leases.at(&self.namespace, path, id).await? else { return Ok(()) };
        // The lease becomes due durably before its engine runs: after a crash the worker completes the revocation.
        self.revoker.queue(std::slice::from_ref(id)).await?;
        if mode != RevokeMode::Queued {
            let mounted = self.mounts.with_leaving(&record.mount);
            return self.revoker.revoke(mounted.as_ref(), id, mode).await;
        }
        if self.leases.is_quarantined() {
            return Ok(());
        }
        // Most callers continue as if the lease were revoked, so the call waits for it for a short time.
        let (revoker, mounted, id) = (self.revoker.clone(), self.mounts.with_leaving(&record.mount), id.clone());
        let done = tokio::spawn(async move { revoker.revoke(mounted.as_ref(), &id, RevokeMode::Now).await });
        let enough = self.clock.sleep_until(self.clock.now().after(GRACE));
        tokio::select! { _ = done => {}, () = enough => {} }
        Ok(())
    }

    /// Revokes all tokens and leases that paths below `prefix` issued, or the lease or token whose id is `prefix`.
    ///
    /// Fails with the first error of an engine, unless the mode is [`RevokeMode::Queued`], and when storage fails.
    pub(crate) async fn revoke_prefix(&self, prefix: &str, mode: RevokeMode) -> Result<()> {
        let started = self.clock.now();
        let outcome = self.revoke_below(prefix, mode).await;
        let timings = &self.metrics.leases;
        let timing = if mode == RevokeMode::Forced { &timings.revoke_force } else { &timings.revoke_prefix };
        timing.record(self.clock.now().since(started));
        outcome
    }

    async fn revoke_below(&self, prefix: &str, mode: RevokeMode) -> Result<()> {
        let exact = prefix.trim_end_matches('/').rsplit_once('/').filter(|(_, name)| LeaseName::parse(name).is_some());
        if let Some((folder, name)) = exact
            && self.leases.is_listed(&self.namespace, folder, name).await?
        {
            return self.revoke_names(folder, &[name.to_owned()], mode).await;
        }
        let mut folders = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(folder) = folders.pop() {
            let mut page = Page::first(PAGE);
            loop {
                let names = self.leases.below(&self.namespace, &folder, &page).await?;
                let full = names.len() == PAGE;
                page.after = names.last().cloned();
                self.revoke_names(&folder, &names, mode).await?;
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

    async fn revoke_names(&self, folder: &str, names: &[String], mode: RevokeMode) -> Result<()> {
        let leases = names.iter().filter_map(|n| LeaseId::parse(n)).collect::<Vec<_>>();
        if !leases.is_empty() {
            self.revoker.queue(&leases).await?;
        }
        // Several leases concurrently, because concurrent commits share one write to disk. All are queued, so the
        // worker revokes the rest after a failure.
        let mut each: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            each.push(Box::pin(self.revoke_name(folder, name, mode, (at + 1, names.len()))));
        }
        stream::iter(each).buffered(OF_ONE_MOUNT).try_for_each(|()| ready(Ok(()))).await
    }

    async fn revoke_name(&self, folder: &str, name: &str, mode: RevokeMode, place: (usize, usize)) -> Result<()> {
        match LeaseName::parse(name) {
            Some(LeaseName::Token(key)) => self.tokens.revoke(&key).await.map(drop),
            Some(LeaseName::Lease(id)) if mode != RevokeMode::Queued => {
                self.revoke_named(folder, &id, mode, place).await
            }
            _ => Ok(()),
        }
    }

    async fn revoke_named(&self, folder: &str, id: &LeaseId, mode: RevokeMode, place: (usize, usize)) -> Result<()> {
        let record = match self.leases.at(&self.namespace, folder, id).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            // The worker sets the lease aside. The other leases must still be revoked.
            Err(error) if unreadable(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mounted = self.mounts.with_leaving(&record.mount);
        let outcome = self.revoker.revoke(mounted.as_ref(), id, mode).await;
        let which = || format!("failed to revoke {:?} ({} / {})", record.full_id(id), place.0, place.1);
        outcome.map_err(|error| refused(&which(), error))
    }

    /// Revokes all leases of a mount, including the irrevocable ones.
    ///
    /// Fails with 400 at the first error of its engine.
    pub(crate) async fn revoke_mount(&self, mounted: &Arc<Mounted>) -> Result<()> {
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
                        Some(id) => self.revoke_listed(mounted, folder, name, &id).await?,
                        None => self.leases.drop_entry(folder, mount, name).await?,
                    }
                }
            }
        }
        Ok(())
    }

    async fn revoke_listed(&self, mounted: &Arc<Mounted>, folder: &str, name: &str, id: &LeaseId) -> Result<()> {
        let mount = &mounted.entry.uuid;
        match self.leases.record(&mut self.leases.begin_read(), id).await {
            Ok(Some(record)) => {
                let which = || format!("failed to revoke {:?}", record.full_id(id));
                self.revoker.revoke(Some(mounted), id, RevokeMode::Now).await.map_err(|error| refused(&which(), error))
            }
            Ok(None) => self.leases.drop_entry(folder, mount, name).await,
            Err(error) if unreadable(&error) => {
                Err(Error::invalid(format!("the record of the lease {:?} cannot be read", id.as_str())))
            }
            Err(error) => Err(error),
        }
    }
}
