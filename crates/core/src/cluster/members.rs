//! Changes of the members of the cluster, with the rules that the log does not hold: a quorum stays in contact, and a
//! removed data directory does not come back.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{Clock, Error, Records, Result, Status, Timestamp};
use keepfast_storage::{
    Barrier, Change, ChangeError, ClusterStatus, Consensus, Incarnation, Member, NodeId, RaftId, StorageError, Tx, View,
};
use serde::{Deserialize, Serialize};

use crate::layout::SYSTEM_STORAGE;

/// The time without a message after which a member counts as out of contact.
pub(crate) const SILENT: Duration = Duration::from_secs(10);
/// The most removed data directories that are kept; the oldest are dropped first.
const MAX_REMOVED: usize = 256;

/// The data directories that were removed.
const REMOVED: Records<RemovedDirectories> = Records::at("raft/removed");

/// The data directories that were removed and cannot join again, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedDirectories {
    incarnations: Vec<String>,
    /// Whether the keyring is to be rotated, because a member was removed that has its keys.
    #[serde(default)]
    is_rotation_due: bool,
}

impl RemovedDirectories {
    pub(crate) fn contain(&self, incarnation: Incarnation) -> bool {
        let text = hex::encode(incarnation);
        self.incarnations.contains(&text)
    }

    pub(in crate::cluster) fn add(&mut self, incarnation: Incarnation) {
        self.discard(incarnation);
        self.incarnations.push(hex::encode(incarnation));
        self.drop_excess();
    }

    /// Adds these to the stored ones, which stay the newest.
    pub(in crate::cluster) async fn add_to_stored(&self, tx: &mut Tx, view: &View) -> Result<()> {
        let stored = REMOVED.get_in(tx, view, "").await?.unwrap_or_default();
        let mut all = RemovedDirectories { is_rotation_due: stored.is_rotation_due, ..self.clone() };
        all.incarnations.retain(|known| !stored.incarnations.contains(known));
        all.incarnations.extend(stored.incarnations);
        all.drop_excess();
        REMOVED.put_in(tx, view, "", &all)
    }

    fn drop_excess(&mut self) {
        let excess = self.incarnations.len().saturating_sub(MAX_REMOVED);
        self.incarnations.drain(..excess);
    }

    fn discard(&mut self, incarnation: Incarnation) {
        let text = hex::encode(incarnation);
        self.incarnations.retain(|known| *known != text);
    }
}

/// The removed data directories.
pub(crate) async fn removed_directories(barrier: &Arc<Barrier>) -> Result<RemovedDirectories> {
    let view = barrier.view(SYSTEM_STORAGE);
    Ok(REMOVED.get_in(&mut barrier.begin_read(), &view, "").await?.unwrap_or_default())
}

async fn change_removed(barrier: &Arc<Barrier>, change: impl Fn(&mut RemovedDirectories) + Sync) -> Result<()> {
    let (view, change) = (&barrier.view(SYSTEM_STORAGE), &change);
    barrier
        .transact(|mut tx| async move {
            let mut removed = REMOVED.get_in(&mut tx, view, "").await?.unwrap_or_default();
            change(&mut removed);
            REMOVED.put_in(&mut tx, view, "", &removed)?;
            Ok::<_, Error>((tx, ()))
        })
        .await
}

/// A member in JSON, for messages and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenMember {
    id: u64,
    voter: bool,
    node: NodeId,
    #[serde(with = "hex::serde")]
    incarnation: Incarnation,
    cluster_addr: String,
    api_addr: String,
    wants_vote: bool,
    election_ms: u32,
    version: String,
}

impl From<Member> for WrittenMember {
    fn from(m: Member) -> Self {
        WrittenMember {
            id: m.id.0,
            voter: m.voter,
            node: m.node,
            incarnation: m.incarnation,
            cluster_addr: m.cluster_addr,
            api_addr: m.api_addr,
            wants_vote: m.wants_vote,
            election_ms: m.election_ms,
            version: m.version,
        }
    }
}

impl From<WrittenMember> for Member {
    fn from(m: WrittenMember) -> Self {
        Member {
            id: RaftId(m.id),
            node: m.node,
            incarnation: m.incarnation,
            cluster_addr: m.cluster_addr,
            api_addr: m.api_addr,
            voter: m.voter,
            wants_vote: m.wants_vote,
            election_ms: m.election_ms,
            version: m.version,
        }
    }
}

/// The member with this name.
pub(crate) fn find<'a>(status: &'a ClusterStatus, node: &str) -> Option<&'a Member> {
    status.members.iter().find(|member| member.node == node)
}

/// The time without a message of a member, as the leader sees it; zero for the leader itself, `None` without a message.
pub(crate) fn silence(status: &ClusterStatus, member: &Member) -> Option<Duration> {
    if status.id == Some(member.id) {
        return Some(Duration::ZERO);
    }
    status.peers.iter().find(|peer| peer.id == member.id)?.last_contact
}

/// Whether the leader has heard a member within this time.
pub(crate) fn is_in_contact(status: &ClusterStatus, member: &Member, within: Duration) -> bool {
    silence(status, member).is_some_and(|silence| silence < within)
}

/// Checks that a quorum of the voters that remain without `leaving` is in contact.
pub(crate) fn check_quorum_without(status: &ClusterStatus, leaving: &Member) -> Result<()> {
    let left: Vec<&Member> = status.members.iter().filter(|m| m.voter && m.id != leaving.id).collect();
    if left.is_empty() && leaving.voter {
        return Err(last_voter());
    }
    let in_contact = left.iter().filter(|member| is_in_contact(status, member, SILENT)).count();
    if leaving.voter && in_contact <= left.len() / 2 {
        return Err(Error::invalid(format!(
            "of the {} voters that would remain only {in_contact} are in contact, which is no quorum",
            left.len()
        )));
    }
    Ok(())
}

/// OpenBao's text for the removal of the last voter.
fn last_voter() -> Error {
    framed("need at least one voter in configuration: {[]}")
}

/// 500 with OpenBao's frame around a text.
pub(crate) fn framed(text: impl std::fmt::Display) -> Error {
    Error::new(Status::INTERNAL, format!("1 error occurred:\n\t* {text}\n\n"))
}

/// Commits a change of the members.
pub(crate) async fn change(consensus: &dyn Consensus, change: Change) -> Result<()> {
    consensus.change(change).await.map(drop).map_err(explained)
}

/// The error of a change, with a text for the operator.
pub(crate) fn explained(error: StorageError) -> Error {
    let error = match error {
        StorageError::Change(ChangeError::LastVoter) => return last_voter().caused_by(error),
        StorageError::Change(why) => {
            let text = match why {
                ChangeError::Unknown => "there is no such member",
                ChangeError::Known => "it is a member already",
                ChangeError::Full => "the cluster has as many members as it can have",
                _ => "a field of the member is too long",
            };
            return Error::invalid(text).caused_by(error);
        }
        error => error,
    };
    match error {
        StorageError::ChangeOpen => {
            let text = "another change of the members is not finished; send the request again";
            Error::new(Status::UNAVAILABLE, text).caused_by(error)
        }
        error => error.into(),
    }
}

/// Removes a member. Its data directory cannot join again, and later records are encrypted under a key that it does not
/// get.
pub(crate) async fn remove(
    consensus: &dyn Consensus,
    barrier: &Arc<Barrier>,
    clock: &dyn Clock,
    member: &Member,
) -> Result<()> {
    let incarnation = member.incarnation;
    // First: a leader that removes itself cannot write afterwards. The next leader rotates the keyring.
    let note = move |removed: &mut RemovedDirectories| {
        removed.add(incarnation);
        removed.is_rotation_due = true;
    };
    change_removed(barrier, note).await?;
    if let Err(error) = consensus.change(Change::Remove(member.node.clone())).await {
        // The rotation stays due: another removal may need it.
        if !may_be_committed(&error) && consensus.status().members.iter().any(|m| m.incarnation == incarnation) {
            change_removed(barrier, move |removed| removed.discard(incarnation)).await?;
        }
        return Err(explained(error));
    }
    tracing::info!(node = %member.node, "removed a member of the cluster");
    if consensus.identity().incarnation != incarnation
        && let Err(error) = rotate_when_due(barrier, clock.now()).await
    {
        tracing::error!(%error, "the keyring was not rotated after the removal of a member; the next leader does it");
    }
    Ok(())
}

/// Whether a change may be committed after this error.
fn may_be_committed(error: &StorageError) -> bool {
    matches!(error, StorageError::Unknown | StorageError::Stopped(_))
}

/// Rotates the keyring if a member was removed and no rotation has followed.
pub(crate) async fn rotate_when_due(barrier: &Arc<Barrier>, now: Timestamp) -> Result<()> {
    let before = removed_directories(barrier).await?;
    if !before.is_rotation_due {
        return Ok(());
    }
    let term = barrier.rotate(now.unix()).await?;
    let incarnations = &before.incarnations;
    // Another member may have been removed meanwhile, whose rotation follows.
    change_removed(barrier, |removed| removed.is_rotation_due &= removed.incarnations != *incarnations).await?;
    tracing::info!(term, "the keyring was rotated after the removal of a member");
    Ok(())
}

#[cfg(test)]
mod tests {
    use keepfast_storage::{PeerStatus, RaftId};

    use super::*;
    use crate::cluster::fake::{member, status};

    /// A leader and voters that were silent for these numbers of seconds.
    fn cluster(silences: &[Option<u64>]) -> ClusterStatus {
        let mut status = status(&[1]);
        for (at, silence) in silences.iter().enumerate() {
            let number = at as u64 + 2;
            status.members.push(Member { voter: true, ..member(number) });
            let last_contact = silence.map(Duration::from_secs);
            status.peers.push(PeerStatus { id: RaftId(number), matched: 0, last_contact });
        }
        status
    }

    #[test]
    fn a_quorum_of_the_remaining_voters_is_in_contact() {
        let allowed = |silences: &[Option<u64>], leaving: usize| {
            let status = cluster(silences);
            check_quorum_without(&status, &status.members[leaving]).is_ok()
        };
        assert!(!allowed(&[], 0), "the last voter");
        assert!(allowed(&[Some(0)], 1) && allowed(&[Some(0)], 0) && !allowed(&[Some(10)], 0));
        assert!(allowed(&[Some(9), Some(60)], 2) && !allowed(&[Some(10), Some(60)], 2) && !allowed(&[None, None], 1));
        assert!(allowed(&[Some(0), Some(60), Some(60)], 3) && !allowed(&[Some(0), Some(60), Some(60)], 1));
        assert!(allowed(&[Some(0), Some(0), Some(60), None], 4));
        let mut status = cluster(&[None, None]);
        status.members[1].voter = false;
        assert!(check_quorum_without(&status, &status.members[1]).is_ok(), "a learner counts in no quorum");
    }

    #[test]
    fn removed_directories_are_bounded_and_the_oldest_go_first() {
        let mut removed = RemovedDirectories::default();
        let name = |number: u16| {
            let mut incarnation = [0; 16];
            incarnation[..2].copy_from_slice(&number.to_le_bytes());
            incarnation
        };
        for number in 0..300 {
            removed.add(name(number));
        }
        removed.add(name(299));
        assert_eq!(removed.incarnations.len(), MAX_REMOVED);
        assert!(!removed.contain(name(43)) && removed.contain(name(44)) && removed.contain(name(299)));
        removed.discard(name(299));
        assert!(!removed.contain(name(299)));
    }
}
