//! Automatic rotation: of keys whose period is over, and of those that have encrypted as often as is safe.

use std::time::Duration;

use keepfast_framework::{Cx, Page, Result};

use super::keys::rotate_record;
use super::ring::{KEYS, Ring};
use super::{Transit, usage};

/// How often all keys are looked through. Periods are an hour at least.
const EVERY: Duration = Duration::from_secs(600);
/// How many names are read at a time.
const PAGE: usize = 500;

/// Rotates what is due.
pub(super) async fn sweep(transit: &Transit, cx: &mut Cx) -> Result<()> {
    let now = cx.now();
    if now.since(*transit.swept.lock()) < EVERY {
        return Ok(());
    }
    let mut after = None;
    loop {
        let names = KEYS.list(cx, "", &Page { after: after.take(), limit: Some(PAGE) }).await?;
        for name in &names {
            rotate_if_due(cx, name).await?;
        }
        match names.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    *transit.swept.lock() = now;
    Ok(())
}

async fn rotate_if_due(cx: &mut Cx, name: &str) -> Result<()> {
    let Some(key) = KEYS.get(cx, name).await? else { return Ok(()) };
    if key.soft_deleted || (key.imported && !key.allow_imported_rotation) {
        return Ok(());
    }
    let period = Duration::from_secs(key.auto_rotate_period);
    let born = key.versions.get(&key.latest).map(|version| version.created);
    let is_due = !period.is_zero() && born.is_some_and(|born| cx.now().since(born) >= period);
    let ring = Ring::new(key);
    if is_due || usage::is_worn(cx, name, &ring).await? {
        let mut key = ring.record;
        rotate_record(name, &mut key, cx.now()).await?;
        KEYS.put(cx, name, &key)?;
    }
    Ok(())
}
