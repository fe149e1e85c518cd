//! Counts the existing leases and tokens by the current quotas, after a change of the quotas.
//!
//! Each lease is moved from one counter to another in a transaction of its own, so the counters are exact at any time for
//! the leases that they have counted. A request that is in flight at the change may have looked up the quotas before it,
//! so the recount begins when it has ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::throttle::Throttle;
use keepfast_framework::{Error, Page, Result};
use keepfast_storage::Tx;

use super::index::{self, LeaseName};
use crate::namespace::NamespaceId;
use crate::unreadable::unreadable;
use crate::unsealed::Unsealed;

/// The number of names per read.
const PAGE: usize = 500;
/// The pause before requests in flight are checked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Counts the leases by the current quotas, if that is still to be done. Another leader begins again.
///
/// # Errors
/// When storage fails.
pub(crate) async fn run(unsealed: &Arc<Unsealed>) -> Result<()> {
    let quotas = &unsealed.leases.store.quotas;
    while let Some(generation) = quotas.to_recount().await? {
        wait_for_requests(unsealed).await;
        recount_all(unsealed).await?;
        quotas.recounted(&generation).await?;
    }
    Ok(())
}

/// Waits until the requests that are in flight now have ended.
async fn wait_for_requests(unsealed: &Unsealed) {
    let in_flight = &unsealed.observability.in_flight;
    let before: HashSet<String> = in_flight.ids();
    while in_flight.ids().iter().any(|id| before.contains(id)) {
        unsealed.clock.sleep_until(unsealed.clock.now().after(PAUSE)).await;
    }
}

async fn recount_all(unsealed: &Unsealed) -> Result<()> {
    let (leases, mut pace) = (&unsealed.leases.store, Throttle::new(unsealed.clock.clone()));
    let mut folders = vec![index::leases_of(&NamespaceId::root()), index::LEASES_OF_NAMESPACES.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut page = Page::first(PAGE);
        loop {
            let names = leases.begin_read().list(&leases.view, &folder, &page).await?;
            page.after = names.last().cloned();
            for name in &names {
                if name.ends_with('/') {
                    folders.push(format!("{folder}{name}"));
                } else if let Some(name) = LeaseName::parse(name) {
                    recount_one(unsealed, &name).await?;
                    pace.step().await;
                }
            }
            if names.len() < PAGE {
                break;
            }
        }
    }
    Ok(())
}

async fn recount_one(unsealed: &Unsealed, name: &LeaseName) -> Result<()> {
    let (leases, tokens) = (&unsealed.leases.store, &unsealed.access.tokens);
    let recount = |mut tx: Tx| async move {
        match name {
            LeaseName::Token(key) => tokens.recount(&mut tx, key).await?,
            LeaseName::Lease(id) => leases.recount(&mut tx, id).await?,
        }
        Ok::<_, Error>((tx, ()))
    };
    match unsealed.barrier.transact(recount).await {
        // Its path is unknown, so its counter stays the same.
        Err(error) if unreadable(&error) => Ok(()),
        other => other,
    }
}
