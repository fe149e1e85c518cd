//! Quarantine: after a restore or copy of a data directory no lease is revoked until an operator ends the quarantine,
//! because the users that its leases name may be those of the original.
//!
//! Storage has the place of the data directory of each node: a file on a file system, which the server passes in
//! [`crate::Settings::data_directory`]. A node that becomes leader at another place than its stored one puts the leases under
//! quarantine. The same applies when storage has places of other nodes and not of this one, unless the storage belongs
//! to a cluster, which new nodes join. A copy that is the same file by all properties, such as a clone of the whole
//! disk, cannot be distinguished from its original. In this case the operator starts the quarantine before the first
//! unseal with a network, or on the original.
//!
//! After the restore of a snapshot by force the next leader starts a quarantine in every case.

use keepfast_framework::{Records, Result, Timestamp};
use keepfast_storage::{Page, ReadTx, Tx, View};
use serde::{Deserialize, Serialize};

use super::store::Leases;
use crate::invalidation::Followed;
use crate::settings::DataDirectory;
use crate::unreadable::{self, Stored};

/// The place of the data directory of each node, by the name of the node.
const DATA_DIRECTORIES: Records<String> = Records::at("home/");
/// The place of the one data directory, as older versions stored it.
const OLDER_RECORD: Records<String> = Records::at("home");
const QUARANTINE: Records<Quarantine> = Records::at(RECORD);
/// The key of the quarantine, under the token view.
pub(super) const RECORD: &str = "quarantine";

/// A quarantine: while it is stored, no lease is revoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Quarantine {
    /// The start of the quarantine.
    pub(crate) since: Timestamp,
    /// The reason.
    pub(crate) reason: String,
}

/// The data directory of a node, and the other nodes beside it.
pub(crate) struct NodeDirectory {
    /// The place. A member of a cluster has a name of this data directory, because another one may follow under the name
    /// of the node.
    pub(crate) directory: DataDirectory,
    /// The name of this data directory as that of a member; `None` on a storage that is not replicated.
    pub(crate) as_member: Option<String>,
    /// Whether no other node leads this storage.
    pub(crate) is_lone: bool,
}

impl NodeDirectory {
    /// The stored place.
    async fn known(&self, tx: &mut Tx, view: &View) -> Result<Stored<String>> {
        let DataDirectory { node, .. } = &self.directory;
        let known = unreadable::read((&DATA_DIRECTORIES, "place of a data directory"), tx, view, node).await?;
        if !self.is_lone || !matches!(known, Stored::Absent) {
            return Ok(known);
        }
        let known = unreadable::read((&OLDER_RECORD, "place of the data directory"), tx, view, "").await?;
        match &self.as_member {
            Some(member) if matches!(known, Stored::Absent) => {
                unreadable::read((&DATA_DIRECTORIES, "place of a data directory"), tx, view, member).await
            }
            _ => Ok(known),
        }
    }
}

/// Starts a quarantine when the place of this node differs from the stored one; otherwise stores the place. Returns
/// whether leases are under quarantine.
pub(crate) async fn check_data_directory(
    tx: &mut Tx,
    view: &View,
    own: Option<&NodeDirectory>,
    now: Timestamp,
) -> Result<bool> {
    if is_stored(view, tx).await? {
        return Ok(true);
    }
    let Some(own) = own else { return Ok(false) };
    let has_moved = match own.known(tx, view).await? {
        // The name of a lone node changes when its data directory loses `meta.json` or gets another one.
        Stored::Absent => own.is_lone && !DATA_DIRECTORIES.list_in(tx, view, "", &Page::first(1)).await?.is_empty(),
        Stored::Unreadable => true,
        Stored::Record(place) => place != own.directory.place,
    };
    if has_moved {
        start(tx, view, "the data directory was restored, copied or moved", now).await?;
    } else {
        note_data_directory(tx, view, &own.directory).await?;
    }
    Ok(has_moved)
}

/// Starts a quarantine, if there is none.
pub(crate) async fn start(tx: &mut Tx, view: &View, reason: &str, now: Timestamp) -> Result<()> {
    if is_stored(view, tx).await? {
        return Ok(());
    }
    QUARANTINE.put_in(tx, view, "", &Quarantine { since: now, reason: reason.to_owned() })
}

/// Stores the place of a node in the format of this version.
async fn note_data_directory(tx: &mut Tx, view: &View, data_directory: &DataDirectory) -> Result<()> {
    let known = unreadable::read((&DATA_DIRECTORIES, "place of a data directory"), tx, view, &data_directory.node)
        .await?
        .readable();
    if known.as_ref() != Some(&data_directory.place) {
        DATA_DIRECTORIES.put_in(tx, view, &data_directory.node, &data_directory.place)?;
    }
    let old = unreadable::read((&OLDER_RECORD, "place of the data directory"), tx, view, "").await?;
    if !matches!(old, Stored::Absent) {
        OLDER_RECORD.delete_in(tx, view, "");
    }
    Ok(())
}

/// Whether leases are under quarantine. True until the record is read.
pub(super) struct QuarantineFlag(Followed<bool>);

impl Default for QuarantineFlag {
    fn default() -> Self {
        QuarantineFlag(Followed::new(true))
    }
}

/// Whether a quarantine is stored. An unreadable record counts as one.
async fn is_stored(view: &View, tx: &mut ReadTx) -> Result<bool> {
    Ok(!matches!(unreadable::read((&QUARANTINE, "quarantine"), tx, view, "").await?, Stored::Absent))
}

impl QuarantineFlag {
    pub(super) async fn load(&self, tx: &mut ReadTx, view: &View) -> Result<()> {
        self.0.load(view, tx, |view, tx| Box::pin(is_stored(view, tx))).await.map(drop)
    }

    /// Applies a commit that started or ended the quarantine.
    pub(super) fn set(&self, is_on: bool) {
        *self.0.follow() = is_on;
    }
}

impl Leases {
    /// Whether leases are under quarantine now, so that none may be revoked.
    pub(crate) fn is_quarantined(&self) -> bool {
        *self.quarantined.0.lock()
    }

    /// Revokes no lease until the quarantine is read again: the leader is about to start one.
    pub(crate) fn expect_quarantine(&self) {
        self.quarantined.set(true);
    }

    /// The quarantine, if there is one.
    pub(crate) async fn quarantine(&self) -> Result<Option<Quarantine>> {
        QUARANTINE.get_in(&mut self.barrier.begin_read(), &self.view, "").await
    }

    /// Starts or ends the quarantine at the request of an operator.
    pub(crate) async fn set_quarantine(&self, on: bool, now: Timestamp) -> Result<()> {
        let mut tx = self.barrier.begin();
        if on {
            let reason = "started by an operator".to_owned();
            QUARANTINE.put_in(&mut tx, &self.view, "", &Quarantine { since: now, reason })?;
        } else {
            QUARANTINE.delete_in(&mut tx, &self.view, "");
            if let Some(data_directory) = &self.data_directory {
                note_data_directory(&mut tx, &self.view, data_directory).await?;
            }
        }
        tx.commit().await?;
        match on {
            true => tracing::warn!("an operator started the quarantine of leases"),
            false => tracing::info!("an operator ended the quarantine of leases"),
        }
        Ok(())
    }
}
