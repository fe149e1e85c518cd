//! How often a key version has encrypted under random nonces: AES-GCM and ChaCha20-Poly1305 are safe for 2^32 of them
//! (SP 800-38D, 8.3), so a version is rotated before, and refused where it cannot be.
//!
//! Counting must not cost a write per encryption: uses are reserved in storage by the hundred thousand and handed out from
//! memory. A restart forgets what was left of a reservation, which only rotates a little early.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_crypto::keys::KeyKind;
use keepfast_framework::{Cx, Error, Records, Result};
use serde::{Deserialize, Serialize};

use super::batch::Item;
use super::ring::Ring;

/// How many uses of a version are spoken for, by `name/version`.
const USES: Records<Uses> = Records::at("uses/");
/// How many uses one write reserves.
const RESERVATION: u64 = 1 << 17;

#[derive(Serialize, Deserialize, Default)]
struct Uses {
    reserved: u64,
}

/// How often a version of this key may be used; `None` without a limit. A derived key spreads its uses over its
/// contexts, and a convergent one has no random nonces.
fn limit(ring: &Ring) -> Option<u64> {
    match ring.record.kind {
        KeyKind::Symmetric(cipher) if !ring.record.derived => cipher.seal_limit(),
        _ => None,
    }
}

/// Takes a use for each item from the version that it asks for.
pub(super) async fn reserve_each(cx: &mut Cx, name: &str, ring: &Arc<Ring>, items: &[Item]) -> Result<()> {
    let mut uses: BTreeMap<u32, u64> = BTreeMap::new();
    for item in items {
        // An item with an impossible version fails on its own later.
        let Ok(version) = ring.record.version_for(item.key_version.unwrap_or_default().0, "") else { continue };
        *uses.entry(version).or_default() += 1;
    }
    for (version, count) in uses {
        reserve(cx, name, ring, version, count).await?;
    }
    Ok(())
}

/// Takes `count` uses of a version, reserving more in this request's transaction where needed.
pub(super) async fn reserve(cx: &mut Cx, name: &str, ring: &Arc<Ring>, version: u32, count: u64) -> Result<()> {
    let Some(limit) = limit(ring) else { return Ok(()) };
    if ring.take_uses(version, count) {
        return Ok(());
    }
    let record = format!("{name}/{version}");
    let mut uses = USES.get(cx, &record).await?.unwrap_or_default();
    if uses.reserved.saturating_add(count) > limit {
        return Err(Error::invalid("the key version has encrypted as often as is safe; rotate the key"));
    }
    let more = RESERVATION.max(count).min(limit - uses.reserved);
    uses.reserved += more;
    USES.put(cx, &record, &uses)?;
    if worn(&uses, limit) {
        cx.warn(format!(
            "version {version} of key {name} has encrypted nearly as often as is safe; it is rotated soon"
        ));
    }
    let ring = ring.clone();
    cx.after_commit(move || ring.add_uses(version, more - count));
    Ok(())
}

/// Nine tenths of the limit.
fn worn(uses: &Uses, limit: u64) -> bool {
    uses.reserved >= limit / 10 * 9
}

/// Whether the latest version of a key has so many uses that it must be rotated.
pub(super) async fn is_worn(cx: &mut Cx, name: &str, ring: &Ring) -> Result<bool> {
    let Some(limit) = limit(ring) else { return Ok(false) };
    let uses = USES.get(cx, &format!("{name}/{}", ring.record.latest)).await?;
    Ok(uses.is_some_and(|uses| worn(&uses, limit)))
}

/// Forgets the uses of a key that is deleted.
pub(super) fn forget(cx: &mut Cx, name: &str, latest: u32) {
    for version in 1..=latest {
        USES.delete(cx, &format!("{name}/{version}"));
    }
}

/// Speaks for `count` uses, for tests of what happens near the limit.
#[cfg(test)]
pub(super) fn spend(cx: &mut Cx, name: &str, version: u32, count: u64) -> Result<()> {
    USES.put(cx, &format!("{name}/{version}"), &Uses { reserved: count })
}
