//! Quarantine: a restored or copied data directory takes nothing back until an operator says that it may, because the
//! users that its leases name may be those of the original.
//!
//! Storage remembers where the data directory of each node is (the server tells it by [`crate::Settings::home`]: which file,
//! on which file system). When a node takes the lead somewhere else than where it was last, the leases are quarantined. So
//! they are when storage knows other nodes and not this one, unless it belongs to a cluster, which nodes join. A copy that is the same file by all signs, such as a clone of the whole disk,
//! cannot be told from its original: there the operator quarantines by hand before the first unseal with a network, or on
//! the original.

use keepfast_framework::{Records, Result, Timestamp};
use keepfast_storage::{Page, ReadTx, Tx, View};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::store::Leases;
use crate::damaged::{self, Stored};
use crate::settings::Home;

/// Where the data directory of each node is, by the name of the node.
const HOMES: Records<String> = Records::at("home/");
/// Where the one data directory is, as older versions wrote it.
const ONLY_HOME: Records<String> = Records::at("home");
const QUARANTINE: Records<Quarantine> = Records::at(RECORD);
/// Where the quarantine is stored, under the token view.
pub(super) const RECORD: &str = "quarantine";

/// Why and since when nothing is taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Quarantine {
    /// Since when.
    pub(crate) since: Timestamp,
    /// Why.
    pub(crate) reason: String,
}

/// Begins a quarantine when this is not where the node was last, and notes where it is. `is_lone` says that no other node
/// ever leads this storage. Returns whether leases are under quarantine.
pub(crate) async fn check_home(
    tx: &mut Tx,
    view: &View,
    home: Option<&Home>,
    is_lone: bool,
    now: Timestamp,
) -> Result<bool> {
    // One that cannot be read holds.
    if !matches!(damaged::read((&QUARANTINE, "quarantine"), tx, view, "").await?, Stored::Absent) {
        return Ok(true);
    }
    let Some(home) = home else { return Ok(false) };
    let known = match damaged::read((&HOMES, "place of a data directory"), tx, view, &home.node).await? {
        Stored::Absent => damaged::read((&ONLY_HOME, "place of the data directory"), tx, view, "").await?,
        known => known,
    };
    let is_elsewhere = match known {
        // The name of a lone node changes when its data directory loses `meta.json`, or gets another one.
        Stored::Absent => is_lone && !HOMES.list_in(tx, view, "", &Page::first(1)).await?.is_empty(),
        Stored::Damaged => true,
        Stored::Record(place) => place != home.place,
    };
    if is_elsewhere {
        let reason = "the data directory is not where it was: it was restored, copied or moved".to_owned();
        QUARANTINE.put_in(tx, view, "", &Quarantine { since: now, reason })?;
    } else {
        note_home(tx, view, home).await?;
    }
    Ok(is_elsewhere)
}

/// Notes where a node is, in the form of this version.
async fn note_home(tx: &mut Tx, view: &View, home: &Home) -> Result<()> {
    let known = damaged::read((&HOMES, "place of a data directory"), tx, view, &home.node).await?.readable();
    if known.as_ref() != Some(&home.place) {
        HOMES.put_in(tx, view, &home.node, &home.place)?;
    }
    let old = damaged::read((&ONLY_HOME, "place of the data directory"), tx, view, "").await?;
    if !matches!(old, Stored::Absent) {
        ONLY_HOME.delete_in(tx, view, "");
    }
    Ok(())
}

/// Whether leases are under quarantine. They are until it is known.
pub(super) struct QuarantineFlag(Mutex<Flag>);

struct Flag {
    holds: bool,
    /// Counts the changes that were applied.
    changes: u64,
}

impl Default for QuarantineFlag {
    fn default() -> Self {
        QuarantineFlag(Mutex::new(Flag { holds: true, changes: 0 }))
    }
}

impl QuarantineFlag {
    pub(super) async fn load(&self, tx: &mut ReadTx, view: &View) -> Result<()> {
        loop {
            let seen = self.0.lock().changes;
            // One that cannot be read holds.
            let holds = !matches!(damaged::read((&QUARANTINE, "quarantine"), tx, view, "").await?, Stored::Absent);
            let mut flag = self.0.lock();
            if flag.changes == seen {
                flag.holds = holds;
                return Ok(());
            }
        }
    }

    /// A commit has begun or ended the quarantine.
    pub(super) fn set(&self, holds: bool) {
        let mut flag = self.0.lock();
        flag.holds = holds;
        flag.changes += 1;
    }
}

impl Leases {
    /// Whether nothing may be taken back now.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined.0.lock().holds
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
            if let Some(home) = &self.home {
                note_home(&mut tx, &self.view, home).await?;
            }
        }
        tx.commit().await?;
        match on {
            true => tracing::warn!("leases are under quarantine: an operator began it"),
            false => tracing::info!("the quarantine of leases has ended"),
        }
        Ok(())
    }
}
