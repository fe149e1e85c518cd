//! Which nodes the leader adds to the cluster.

use std::time::Duration;

use keepfast_framework::{Error, Result, Status};
use keepfast_storage::{ClusterStatus, Member};

use super::exchange::Applicant;
use crate::cluster::announced::format_of;
use crate::cluster::members::{RemovedDirectories, SILENT, silence};

/// The most voters. More cost time at each commit and tolerate hardly more failures.
pub(crate) const MAX_VOTERS: usize = 7;
/// 409
const CONFLICT: Status = Status(409);

/// What makes an applicant a member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is one: an earlier response was lost.
    Nothing,
    /// It is one with other addresses or another version: the member as it becomes.
    Update(Member),
    /// It is added.
    Add,
    /// It is added in place of a member with its name and another data directory, which is silent.
    Replace(Member),
}

/// What the leader knows when a node applies.
pub(crate) struct Circumstances<'a> {
    pub(crate) status: &'a ClusterStatus,
    pub(crate) removed: &'a RemovedDirectories,
    /// The version of the leader.
    pub(crate) version: &'a str,
    /// The form of stored data that members must read.
    pub(crate) format: u32,
    /// How long it has led.
    pub(crate) leading_for: Duration,
}

/// Decides on a node that has proved to have the root key.
///
/// Fails with 409 for a name or a data directory that another member has, or that was removed; with 400 for a newer
/// version, for one that cannot read what is stored, and for a voter too many.
pub(crate) fn admit(applicant: &Applicant, of: &Circumstances<'_>) -> Result<Step> {
    let members = &of.status.members;
    if let Some(same) = members.iter().find(|member| member.incarnation == applicant.incarnation) {
        return match (same.node == applicant.node, of.status.id == Some(same.id)) {
            (_, true) => Err(Error::new(CONFLICT, "this node is the leader")),
            (false, _) => Err(Error::new(CONFLICT, "another member has this data directory; it was copied")),
            (true, false) => Ok(updated(same, applicant).map_or(Step::Nothing, Step::Update)),
        };
    }
    // A member of the list whose removal was begun and not committed is still one.
    if of.removed.contain(applicant.incarnation) {
        return Err(Error::new(CONFLICT, "this node was removed from the cluster; empty its data directory first"));
    }
    if applicant.is_member {
        return Err(Error::new(
            CONFLICT,
            "the cluster has no such member; to join it, the data directory of this node must be empty",
        ));
    }
    // Members may have a newer one while a cluster is upgraded.
    if is_newer(&applicant.version, of.version) {
        return Err(Error::invalid(
            "the version of the node is newer than that of the leader; upgrade the leader first",
        ));
    }
    if format_of(&applicant.version) < of.format {
        let text = "the version of the node cannot read the wrapped values of the cluster; upgrade the node first";
        return Err(Error::invalid(text));
    }
    let replaced = members.iter().find(|member| member.node == applicant.node);
    if let Some(replaced) = replaced {
        let silence = silence(of.status, replaced).unwrap_or(of.leading_for);
        if silence < SILENT {
            return Err(Error::new(
                CONFLICT,
                "a member in contact has this node id; choose another, or remove that member",
            ));
        }
    }
    let counts = |m: &&Member| (m.voter || m.wants_vote) && Some(m.id) != replaced.map(|replaced| replaced.id);
    if applicant.wants_vote && members.iter().filter(counts).count() >= MAX_VOTERS {
        let text = format!("the cluster has {MAX_VOTERS} voters; this node can join as a non-voter");
        return Err(Error::invalid(text));
    }
    Ok(replaced.map_or(Step::Add, |replaced| Step::Replace(replaced.clone())))
}

/// The member with the addresses and the version of the applicant, if they are others. Its vote changes only by promotion
/// and demotion: the applicant may not have heard of the last one.
fn updated(known: &Member, applicant: &Applicant) -> Option<Member> {
    let Member { id, voter, wants_vote, .. } = *known;
    let updated = Member { id, voter, wants_vote, ..applicant.member() };
    (updated != *known).then_some(updated)
}

/// Whether a version has a larger major or minor number than another one. A text without these numbers is not newer.
fn is_newer(version: &str, than: &str) -> bool {
    let numbers = |text: &str| {
        let mut parts = text.split(['.', '-', '+']).map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    numbers(version).zip(numbers(than)).is_some_and(|(version, than)| version > than)
}

#[cfg(test)]
mod tests {
    use keepfast_storage::{PeerStatus, RaftId};

    use super::*;
    use crate::cluster::announced::announced;
    use crate::cluster::fake::{member, status};

    fn applicant(number: u64) -> Applicant {
        let member = member(number);
        Applicant {
            node: member.node,
            incarnation: member.incarnation,
            cluster_addr: member.cluster_addr,
            api_addr: member.api_addr,
            wants_vote: true,
            election_ms: member.election_ms,
            version: member.version,
            nonce: [0; 16],
            is_member: false,
        }
    }

    fn cluster(count: u64, last_contact: Option<Duration>) -> ClusterStatus {
        let mut status = status(&(1..=count).collect::<Vec<_>>());
        status.peers = (2..=count).map(|n| PeerStatus { id: RaftId(n), matched: 0, last_contact }).collect();
        status
    }

    fn circumstances<'a>(status: &'a ClusterStatus, removed: &'a RemovedDirectories) -> Circumstances<'a> {
        Circumstances { status, removed, version: "1.2.3", format: 0, leading_for: Duration::ZERO }
    }

    fn decide(applicant: &Applicant, status: &ClusterStatus, leading_for: u64) -> Result<Step> {
        let (removed, leading_for) = (RemovedDirectories::default(), Duration::from_secs(leading_for));
        admit(applicant, &Circumstances { leading_for, ..circumstances(status, &removed) })
    }

    fn refused(outcome: Result<Step>) -> (u16, String) {
        let error = outcome.err().unwrap();
        (error.status().0, error.public().to_owned())
    }

    #[test]
    fn a_new_node_is_added_and_a_known_one_is_known() {
        let status = cluster(3, Some(Duration::ZERO));
        assert_eq!(decide(&applicant(4), &status, 60).unwrap(), Step::Add);
        assert_eq!(decide(&applicant(2), &status, 60).unwrap(), Step::Nothing);
        let moved = Applicant { cluster_addr: "https://elsewhere:1".to_owned(), ..applicant(2) };
        let updated = Member { cluster_addr: moved.cluster_addr.clone(), ..status.members[1].clone() };
        assert_eq!(decide(&moved, &status, 60).unwrap(), Step::Update(updated));
        assert_eq!(refused(decide(&applicant(1), &status, 60)), (409, "this node is the leader".to_owned()));
        let copied = Applicant { node: "other".to_owned(), ..applicant(2) };
        assert_eq!(refused(decide(&copied, &status, 60)).0, 409);
    }

    #[test]
    fn a_member_that_comes_back_keeps_its_demotion_and_its_promotion() {
        let mut status = cluster(3, Some(Duration::ZERO));
        for (voter, wants_vote) in [(false, false), (true, false), (false, true)] {
            (status.members[1].voter, status.members[1].wants_vote) = (voter, wants_vote);
            let stale = Applicant { wants_vote: !wants_vote, ..applicant(2) };
            assert_eq!(decide(&stale, &status, 60).unwrap(), Step::Nothing);
            let moved = Applicant { api_addr: "https://elsewhere:1".to_owned(), ..stale };
            let expected = Member { api_addr: moved.api_addr.clone(), ..status.members[1].clone() };
            assert_eq!(decide(&moved, &status, 60).unwrap(), Step::Update(expected));
        }
    }

    #[test]
    fn a_node_with_records_is_never_added() {
        let status = cluster(3, Some(Duration::ZERO));
        assert_eq!(decide(&Applicant { is_member: true, ..applicant(2) }, &status, 60).unwrap(), Step::Nothing);
        let (unlisted, other_disk) = (applicant(4), Applicant { incarnation: [99; 16], ..applicant(2) });
        for applicant in [unlisted, other_disk] {
            assert_eq!(refused(decide(&Applicant { is_member: true, ..applicant }, &status, 60)).0, 409);
        }
    }

    #[test]
    fn a_member_whose_removal_was_not_committed_is_still_one() {
        let status = cluster(3, Some(Duration::ZERO));
        let mut removed = RemovedDirectories::default();
        removed.add(applicant(2).incarnation);
        let of = circumstances(&status, &removed);
        assert_eq!(admit(&applicant(2), &of).unwrap(), Step::Nothing);
    }

    #[test]
    fn a_version_that_cannot_read_what_is_stored_does_not_join() {
        let (status, removed) = (status(&[1]), RemovedDirectories::default());
        let of = |format| Circumstances { format, ..circumstances(&status, &removed) };
        let (code, text) = refused(admit(&applicant(2), &of(1)));
        assert!(code == 400 && text.contains("cannot read the wrapped values"), "{text}");
        let later = Applicant { version: announced("1.2.3", false), ..applicant(2) };
        assert_eq!(admit(&later, &of(1)).unwrap(), Step::Add);
        assert_eq!(admit(&applicant(2), &of(0)).unwrap(), Step::Add);
    }

    #[test]
    fn a_name_is_taken_over_only_from_a_silent_member() {
        let disk = Applicant { incarnation: [99; 16], ..applicant(2) };
        for (silence, leading_for, is_replaced) in
            [(Some(9), 60, false), (Some(10), 60, true), (None, 9, false), (None, 10, true)]
        {
            let status = cluster(3, silence.map(Duration::from_secs));
            match decide(&disk, &status, leading_for) {
                Ok(Step::Replace(old)) => assert!(is_replaced && old == status.members[1]),
                outcome => assert!(!is_replaced && refused(outcome).0 == 409),
            }
        }
        let leader = Applicant { incarnation: [99; 16], ..applicant(1) };
        assert_eq!(refused(decide(&leader, &cluster(1, None), 60)).0, 409, "the leader is always in contact");
    }

    #[test]
    fn an_eighth_voter_is_refused_and_an_eighth_learner_not() {
        let seven = cluster(7, None);
        assert_eq!(refused(decide(&applicant(8), &seven, 60)).0, 400);
        let learner = Applicant { wants_vote: false, ..applicant(8) };
        assert_eq!(decide(&learner, &seven, 60).unwrap(), Step::Add);
        let in_place = Applicant { incarnation: [99; 16], ..applicant(7) };
        assert!(matches!(decide(&in_place, &seven, 60), Ok(Step::Replace(_))));
    }

    #[test]
    fn a_removed_directory_and_a_newer_version_are_refused() {
        let status = cluster(1, None);
        for (version, is_refused) in
            [("1.2.9", false), ("1.3.0", true), ("2.0.0", true), ("1.1.9", false), ("0.9.0-dev", false), ("x", false)]
        {
            let applicant = Applicant { version: version.to_owned(), ..applicant(2) };
            assert_eq!(decide(&applicant, &status, 60).is_err(), is_refused, "{version}");
        }
        let mut removed = RemovedDirectories::default();
        removed.add(applicant(2).incarnation);
        let of = circumstances(&status, &removed);
        assert_eq!(refused(admit(&applicant(2), &of)).0, 409);
        assert_eq!(admit(&applicant(3), &of).unwrap(), Step::Add);
    }
}
