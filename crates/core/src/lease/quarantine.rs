//! Quarantine: a restored or copied data directory takes nothing back until an operator says that it may, because the
//! users that its leases name may be those of the original.
//!
//! Storage remembers where it lives (the server tells it by [`crate::Settings::home`]: which file, on which file system,
//! its data directory is). At an unseal somewhere else the leases are quarantined. A copy that is the same file by all
//! signs, such as a clone of the whole disk, cannot be told from its original: there the operator quarantines by hand
//! before the first unseal with a network, or on the original.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keepfast_framework::{Records, Result, Timestamp};
use keepfast_storage::{Barrier, View};
use serde::{Deserialize, Serialize};

use super::store::Leases;
use crate::damaged::{self, Stored};

const HOME: Records<String> = Records::at("home");
const QUARANTINE: Records<Quarantine> = Records::at("quarantine");

/// Why and since when nothing is taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Quarantine {
    /// Since when.
    pub(crate) since: Timestamp,
    /// Why.
    pub(crate) reason: String,
}

/// Whether leases are under quarantine; begins it when this is not the place where they were last.
pub(super) async fn judge(barrier: &Arc<Barrier>, view: &View, home: &str, now: Timestamp) -> Result<bool> {
    let mut tx = barrier.begin();
    let quarantine = damaged::read((&QUARANTINE, "quarantine"), &mut tx, view, "").await?;
    // One that cannot be read holds.
    if !matches!(quarantine, Stored::Absent) {
        tracing::warn!("leases are under quarantine: none is taken back until an operator ends it");
        return Ok(true);
    }
    if home.is_empty() {
        return Ok(false);
    }
    match damaged::read((&HOME, "place of the data directory"), &mut tx, view, "").await? {
        Stored::Record(known) if known == home => return Ok(false),
        Stored::Record(_) | Stored::Damaged => {
            tracing::warn!(
                "this data directory was restored, copied or moved: leases are under quarantine until an operator ends it"
            );
            let reason = "the data directory is not where it was: it was restored, copied or moved".to_owned();
            QUARANTINE.put_in(&mut tx, view, "", &Quarantine { since: now, reason })?;
            tx.commit().await?;
            return Ok(true);
        }
        Stored::Absent => HOME.put_in(&mut tx, view, "", &home.to_owned())?,
    }
    tx.commit().await?;
    Ok(false)
}

impl Leases {
    /// Whether nothing may be taken back now.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire)
    }

    /// The quarantine, if there is one.
    pub(crate) async fn quarantine(&self) -> Result<Option<Quarantine>> {
        QUARANTINE.get_in(&mut self.barrier.begin_read(), &self.view, "").await
    }

    /// Begins or ends the quarantine, by an operator's word.
    pub(crate) async fn set_quarantine(&self, on: bool, now: Timestamp) -> Result<()> {
        let mut tx = self.barrier.begin();
        if on {
            let reason = "by an operator's word".to_owned();
            QUARANTINE.put_in(&mut tx, &self.view, "", &Quarantine { since: now, reason })?;
        } else {
            QUARANTINE.delete_in(&mut tx, &self.view, "");
            if !self.home.is_empty() {
                HOME.put_in(&mut tx, &self.view, "", &self.home)?;
            }
        }
        tx.commit().await?;
        self.quarantined.store(on, Ordering::Release);
        match on {
            true => tracing::warn!("leases are under quarantine: an operator began it"),
            false => tracing::info!("the quarantine of leases has ended"),
        }
        self.wake.notify_one();
        Ok(())
    }
}
