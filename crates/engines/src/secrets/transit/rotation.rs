//! Automatic rotation of keys whose period is over or whose latest version is near its limit of encryptions.

use std::time::Duration;

use keepfast_framework::{Cx, Page, Result};

use super::keys::rotate_record;
use super::named_key::{KEYS, NamedKey};
use super::{Transit, usage};

/// The interval of the search for keys to rotate. Periods are at least an hour.
const INTERVAL: Duration = Duration::from_secs(600);
/// How many names one page of the search has.
const PAGE: usize = 500;

/// Rotates the keys that need it.
pub(super) async fn sweep(transit: &Transit, cx: &mut Cx) -> Result<()> {
    let now = cx.now();
    if now.since(*transit.last_sweep.lock()) < INTERVAL {
        return Ok(());
    }
    let mut after = None;
    loop {
        let names = KEYS.list(cx, "", &Page { after: after.take(), limit: Some(PAGE) }).await?;
        for name in &names {
            rotate_if_needed(cx, name).await?;
        }
        match names.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    *transit.last_sweep.lock() = now;
    Ok(())
}

async fn rotate_if_needed(cx: &mut Cx, name: &str) -> Result<()> {
    let Some(key) = KEYS.get(cx, name).await? else { return Ok(()) };
    if key.soft_deleted || (key.imported && !key.allow_imported_rotation) {
        return Ok(());
    }
    let period = Duration::from_secs(key.auto_rotate_period);
    let created = key.versions.get(&key.latest).map(|version| version.created);
    let is_due = !period.is_zero() && created.is_some_and(|created| cx.now().since(created) >= period);
    let named_key = NamedKey::new(key);
    if is_due || usage::is_near_limit(cx, name, &named_key).await? {
        let mut key = named_key.record;
        rotate_record(name, &mut key, cx.now()).await?;
        KEYS.put(cx, name, &key)?;
    }
    Ok(())
}
