//! Usage gauges, which need a read of storage: tokens by type, entities, secrets. They are counted in the background at
//! Vault's interval (`usage_gauge_period`), at a pace that leaves the machine to requests, and never during a scrape.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::throttle::Throttle;
use keepfast_framework::{Engine as _, Operation, Page, Result, Timestamp};

use super::labelled::ttl_bucket;
use super::{INTERVAL, Item, Value, gather};
use crate::lifecycle::{Lifecycle, unsealed_now};
use crate::mount::permit::UsagePermit;
use crate::namespace::NamespaceId;
use crate::token::TokenAuth;
use crate::token::record::{TokenExpiry, TokenRecord};
use crate::unreadable::{confined, unreadable};
use crate::unsealed::Unsealed;

/// The number of names per read.
const PAGE: usize = 1000;
/// The maximum number of values of a label; further ones are not counted.
const MOST_VALUES: usize = 10_000;
/// The interval of lease counts when usage gauges are off.
const RECOUNT: Duration = Duration::from_secs(600);

/// Counts by the value of one label.
#[derive(Default)]
struct ByLabel(BTreeMap<String, u64>);

impl ByLabel {
    fn add(&mut self, value: &str) {
        if let Some(count) = self.0.get_mut(value) {
            *count += 1;
        } else if self.0.len() < MOST_VALUES {
            self.0.insert(value.to_owned(), 1);
        }
    }

    /// Gauges of this name, the `most` largest.
    fn into_items(self, name: &str, label: &'static str, most: usize) -> Vec<Item> {
        let mut counted: Vec<(String, u64)> = self.0.into_iter().collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let item = |(value, count): (String, u64)| Item {
            name: name.to_owned(),
            labels: vec![(label, value), root()],
            value: Value::Gauge(count as f64),
        };
        counted.into_iter().take(most).map(item).collect()
    }
}

/// The label of the root namespace, which has all objects.
pub(super) fn root() -> (&'static str, String) {
    ("namespace", NamespaceId::root().as_str().to_owned())
}

/// Ends the intervals of the metrics and counts usage, until it is dropped.
pub(crate) async fn keep(server: &Lifecycle) {
    tokio::join!(keep_turning(server), keep_counting(server));
}

async fn keep_turning(server: &Lifecycle) {
    loop {
        let next = (server.parts.clock.now().unix().div_euclid(INTERVAL) + 1) * INTERVAL;
        server.parts.clock.sleep_until(Timestamp::from_unix(next)).await;
        gather::turn(server);
    }
}

async fn keep_counting(server: &Lifecycle) {
    let period = server.parts.settings.telemetry.usage_period;
    let period = if period.is_zero() { RECOUNT } else { period };
    loop {
        if let Err(error) = confined(count_usage(server)).await
            && !server.is_sealed()
        {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, %cause, "the usage gauges could not be counted");
        }
        let next = server.parts.clock.now().after(period);
        tokio::select! {
            () = server.parts.clock.sleep_until(next) => {}
            () = unsealed_now(server) => {}
        }
    }
}

/// Counts leases and, unless they are off, the usage gauges.
///
/// Fails when storage fails or the server is sealed in the meantime.
pub(crate) async fn count_usage(server: &Lifecycle) -> Result<()> {
    let Some(unsealed) = server.unsealed() else {
        server.parts.metrics.usage.lock().clear();
        return Ok(());
    };
    let mut pace = Throttle::new(server.parts.clock.clone());
    unsealed.leases.store.count(&mut pace).await?;
    if server.parts.settings.telemetry.usage_period.is_zero() {
        return Ok(());
    }
    let most = server.parts.settings.telemetry.gauge_cardinality;
    let mut items = count_tokens(&unsealed, &mut pace, most).await?;
    items.extend(count_entities(&unsealed, &mut pace).await?);
    items.extend(count_in_engines(&unsealed, most).await?);
    *server.parts.metrics.usage.lock() = items;
    Ok(())
}

async fn count_tokens(unsealed: &Unsealed, pace: &mut Throttle, most: usize) -> Result<Vec<Item>> {
    let mut all = 0_u64;
    let (mut by_auth, mut by_policy, mut by_ttl) = (ByLabel::default(), ByLabel::default(), ByLabel::default());
    let mut page = Page::first(PAGE);
    loop {
        let mut tx = unsealed.barrier.begin_read();
        let (keys, is_last) = unsealed.access.tokens.keys(&mut tx, &mut page).await?;
        for key in &keys {
            let record = match unsealed.access.tokens.record(&mut tx, key).await {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) if unreadable(&error) => continue,
                Err(error) => return Err(error),
            };
            all += 1;
            by_auth.add(&auth_method(unsealed, &record));
            by_ttl.add(match record.expiry {
                TokenExpiry::Never => "+Inf",
                TokenExpiry::At(_) => ttl_bucket(record.creation_ttl),
            });
            record.authority.names().iter().for_each(|policy| by_policy.add(policy));
            pace.step().await;
        }
        if is_last {
            break;
        }
    }
    let all = Item { labels: vec![root()], ..Item::new("token.count", Value::Gauge(all as f64)) };
    let parts = [
        vec![all],
        by_auth.into_items("token.count.by_auth", "auth_method", most),
        by_policy.into_items("token.count.by_policy", "policy", most),
        by_ttl.into_items("token.count.by_ttl", "creation_ttl", most),
    ];
    Ok(parts.concat())
}

/// The type of the auth method that created a token; `token` for those that tokens created.
fn auth_method(unsealed: &Unsealed, record: &TokenRecord) -> String {
    let mount = record.origin.mount.as_deref();
    let engine = mount.and_then(|mount| Some(unsealed.engines.mounts.router().at(mount)?.entry.engine.clone()));
    engine.unwrap_or_else(|| TokenAuth::TYPE.to_owned())
}

async fn count_entities(unsealed: &Unsealed, pace: &mut Throttle) -> Result<Vec<Item>> {
    let (entities, aliases) = unsealed.access.identity.count(&unsealed.barrier, pace).await?;
    let mut items = vec![
        Item::new("identity.num_entities", Value::Gauge(entities as f64)),
        Item { labels: vec![root()], ..Item::new("identity.entity.count", Value::Gauge(entities as f64)) },
    ];
    let router = unsealed.engines.mounts.router();
    for (accessor, count) in aliases {
        let Some(mounted) = router.by_accessor(&accessor) else { continue };
        let entry = &mounted.entry;
        let labels = vec![("auth_method", entry.engine.clone()), ("mount_point", entry.path.clone()), root()];
        let value = Value::Gauge(count as f64);
        items.push(Item { name: "identity.entity.alias.count".to_owned(), labels, value });
    }
    Ok(items)
}

/// The usage gauges of engines, the largest values of each name.
async fn count_in_engines(unsealed: &Unsealed, most: usize) -> Result<Vec<Item>> {
    let mounts: Vec<_> = unsealed.engines.mounts.router().all().cloned().collect();
    let mut items = Vec::new();
    for mounted in mounts {
        // The tick of the engine logs the error.
        let Ok(engine) = mounted.engine(&unsealed.engines.host).await else { continue };
        let mut cx = unsealed.engines.host.context(&mounted, Operation::Read, mounted.entry.path.clone());
        let gauges = engine.usage(&UsagePermit::new(), &mut cx).await?;
        items.extend(gauges.into_iter().map(|gauge| Item {
            name: gauge.name.to_owned(),
            labels: [vec![("mount_point", mounted.entry.path.clone()), root()], gauge.labels].concat(),
            value: Value::Gauge(gauge.value),
        }));
    }
    let number = |item: &Item| if let Value::Gauge(value) = item.value { value } else { 0.0 };
    items.sort_by(|a, b| a.name.cmp(&b.name).then(number(b).total_cmp(&number(a))));
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    items.retain(|item| {
        let count = counted.entry(item.name.clone()).or_default();
        *count += 1;
        *count <= most
    });
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_many_labels_are_reported() {
        let mut by_policy = ByLabel::default();
        for n in 0..MOST_VALUES + 10 {
            by_policy.add(&format!("policy-{n}"));
        }
        ["policy-7", "policy-7", "policy-3"].iter().for_each(|name| by_policy.add(name));
        let reported = by_policy.into_items("token.count.by_policy", "policy", 2);
        let reported: Vec<_> = reported.iter().map(|item| (item.labels[0].1.as_str(), item.value)).collect();
        assert_eq!(reported, [("policy-7", Value::Gauge(3.0)), ("policy-3", Value::Gauge(2.0))]);
    }
}
