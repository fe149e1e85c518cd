//! Counts the encryptions of each key version under random nonces. AES-GCM and ChaCha20-Poly1305 are safe for 2^32 of
//! them (SP 800-38D, 8.3), so a version is rotated before that, and refused if it cannot be rotated.
//!
//! A write per encryption would be too slow: one write reserves 2^17 uses, which memory then counts down. A restart
//! loses the rest of a reservation, so a version rotates slightly early.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_crypto::keys::KeyKind;
use keepfast_framework::{Cx, Error, Records, Result};
use serde::{Deserialize, Serialize};

use super::batch::Item;
use super::named_key::NamedKey;

/// The number of reserved uses of a version, by `name/version`.
const USES: Records<Uses> = Records::at("uses/");
/// The number of uses that one write reserves.
const RESERVATION: u64 = 1 << 17;

#[derive(Serialize, Deserialize, Default)]
struct Uses {
    reserved: u64,
}

/// The maximum uses of a version of this key; `None` means no limit. A derived key spreads its uses over its contexts,
/// and a convergent one has no random nonces.
fn limit(named_key: &NamedKey) -> Option<u64> {
    match named_key.record.kind {
        KeyKind::Symmetric(cipher) if !named_key.record.derived => cipher.seal_limit(),
        _ => None,
    }
}

/// Takes one use per item from the version of the item.
pub(super) async fn reserve_each(cx: &mut Cx, name: &str, named_key: &Arc<NamedKey>, items: &[Item]) -> Result<()> {
    let mut uses: BTreeMap<u32, u64> = BTreeMap::new();
    for item in items {
        // An item with an invalid version fails later with an error of its own.
        let Ok(version) = named_key.record.version_for(item.key_version.unwrap_or_default().0, "") else { continue };
        *uses.entry(version).or_default() += 1;
    }
    for (version, count) in uses {
        reserve(cx, name, named_key, version, count).await?;
    }
    Ok(())
}

/// Takes `count` uses of a version, and reserves more in this request's transaction if needed.
pub(super) async fn reserve(
    cx: &mut Cx,
    name: &str,
    named_key: &Arc<NamedKey>,
    version: u32,
    count: u64,
) -> Result<()> {
    let Some(limit) = limit(named_key) else { return Ok(()) };
    if named_key.take_uses(version, count) {
        return Ok(());
    }
    let record = format!("{name}/{version}");
    let mut uses = USES.get(cx, &record).await?.unwrap_or_default();
    if uses.reserved.saturating_add(count) > limit {
        return Err(Error::invalid("the key version has reached its limit of encryptions; rotate the key"));
    }
    let more = RESERVATION.max(count).min(limit - uses.reserved);
    uses.reserved += more;
    USES.put(cx, &record, &uses)?;
    if near_limit(&uses, limit) {
        cx.warn(format!(
            "version {version} of key {name} has nearly reached its limit of encryptions; it will be rotated soon"
        ));
    }
    let named_key = named_key.clone();
    cx.after_commit(move || named_key.add_uses(version, more - count));
    Ok(())
}

/// Whether nine tenths of the limit are reserved.
fn near_limit(uses: &Uses, limit: u64) -> bool {
    uses.reserved >= limit / 10 * 9
}

/// Whether the latest version of a key has so many uses that it must be rotated.
pub(super) async fn is_near_limit(cx: &mut Cx, name: &str, named_key: &NamedKey) -> Result<bool> {
    let Some(limit) = limit(named_key) else { return Ok(false) };
    let uses = USES.get(cx, &format!("{name}/{}", named_key.record.latest)).await?;
    Ok(uses.is_some_and(|uses| near_limit(&uses, limit)))
}

/// Deletes the counts of a deleted key.
pub(super) fn delete(cx: &mut Cx, name: &str, latest: u32) {
    for version in 1..=latest {
        USES.delete(cx, &format!("{name}/{version}"));
    }
}

/// Sets the reserved uses, for tests near the limit.
#[cfg(test)]
pub(super) fn set_reserved(cx: &mut Cx, name: &str, version: u32, count: u64) -> Result<()> {
    USES.put(cx, &format!("{name}/{version}"), &Uses { reserved: count })
}
