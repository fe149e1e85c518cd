//! Members of the cluster and changes of their list. One server is added, removed, promoted or demoted at a time
//! (Ongaro §4.1), so that majorities of two lists that follow each other overlap.

use crate::entry::RaftId;
use crate::wire::{Reader, WireError, put_text, put_u32, put_u64};

/// The most members of a cluster, learners included.
pub const MAX_MEMBERS: usize = 64;
/// The most bytes of a name, an address or a version.
const MAX_TEXT: usize = 512;
/// The shortest and the longest election timeout of a member, in milliseconds.
pub const ELECTION_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// The name that an operator knows a node by.
pub type NodeId = String;

/// Drawn again for every data directory: a node with another disk is another member, whatever its name is.
pub type Incarnation = [u8; 16];

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its number in votes and messages, given by the entry that adds it.
    pub id: RaftId,
    /// Its name.
    pub node: NodeId,
    /// The data directory that was added under this name.
    pub incarnation: Incarnation,
    /// Where other members reach it.
    pub cluster_addr: String,
    /// Where clients reach it.
    pub api_addr: String,
    /// Whether it counts in quorums. A learner gets the log and does not count (Ongaro §4.2.1).
    pub voter: bool,
    /// Whether it is to be promoted once it has the log.
    pub wants_vote: bool,
    /// The shortest election timeout of this node in milliseconds, and so the time for which it grants no vote after
    /// it heard from a leader. The lease of a leader is a part of the shortest of all voters.
    pub election_ms: u32,
    /// The version of its program.
    pub version: String,
}

/// A change of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a learner. Its `id` and `voter` are ignored.
    AddLearner(Member),
    /// Makes a learner a voter.
    Promote(NodeId),
    /// Makes a voter a learner.
    Demote(NodeId),
    /// Removes a member.
    Remove(NodeId),
    /// Changes addresses, version and times of the member with this name and incarnation.
    Update(Member),
}

/// Why a list cannot be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChangeError {
    /// No member has this name.
    #[error("there is no such member")]
    Unknown,
    /// A member has this name or incarnation.
    #[error("it is a member already")]
    Known,
    /// The last voter cannot be demoted or removed.
    #[error("it is the last voter")]
    LastVoter,
    /// The list has [`MAX_MEMBERS`].
    #[error("the cluster is full")]
    Full,
    /// A text is too long, or a time is too short or too long.
    #[error("a field is beyond its bound")]
    Field,
}

impl Member {
    fn is_bounded(&self) -> bool {
        let texts = [&self.node, &self.cluster_addr, &self.api_addr, &self.version];
        ELECTION_MS.contains(&self.election_ms)
            && !self.node.is_empty()
            && texts.iter().all(|text| text.len() <= MAX_TEXT)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.id.0);
        put_text(out, &self.node);
        out.extend(self.incarnation);
        put_text(out, &self.cluster_addr);
        put_text(out, &self.api_addr);
        out.extend([u8::from(self.voter), u8::from(self.wants_vote)]);
        put_u32(out, self.election_ms);
        put_text(out, &self.version);
    }

    fn decode(reader: &mut Reader) -> Result<Self, WireError> {
        let member = Self {
            id: RaftId(reader.number()?),
            node: reader.text(MAX_TEXT)?,
            incarnation: reader.array()?,
            cluster_addr: reader.text(MAX_TEXT)?,
            api_addr: reader.text(MAX_TEXT)?,
            voter: reader.flag()?,
            wants_vote: reader.flag()?,
            election_ms: reader.u32()?,
            version: reader.text(MAX_TEXT)?,
        };
        if member.id.0 == 0 || !member.is_bounded() { Err(WireError::Bound("a member")) } else { Ok(member) }
    }
}

/// Appends a list with its length.
pub(crate) fn encode_list(members: &[Member], out: &mut Vec<u8>) {
    put_u32(out, u32::try_from(members.len()).unwrap_or(u32::MAX));
    for member in members {
        member.encode(out);
    }
}

/// Reads a list: sorted by id, no id twice, at least one voter.
pub(crate) fn decode_list(reader: &mut Reader) -> Result<Vec<Member>, WireError> {
    let count = reader.u32()? as usize;
    if count > MAX_MEMBERS {
        return Err(WireError::Bound("the number of members"));
    }
    let members = (0..count).map(|_| Member::decode(reader)).collect::<Result<Vec<_>, _>>()?;
    let is_sorted = members.array_windows().all(|[a, b]| a.id < b.id);
    if !is_sorted || !members.iter().any(|member| member.voter) {
        return Err(WireError::Bound("the list of members"));
    }
    Ok(members)
}

/// The list after a change that the entry with `index` makes.
pub(crate) fn changed(members: &[Member], change: &Change, index: u64) -> Result<Vec<Member>, ChangeError> {
    let mut list = members.to_vec();
    let find = |name: &str| members.iter().position(|member| member.node == *name).ok_or(ChangeError::Unknown);
    let is_last_voter = |at: usize| members[at].voter && members.iter().filter(|member| member.voter).count() == 1;
    match change {
        Change::AddLearner(member) => {
            let is_same = |m: &Member| m.node == member.node || m.incarnation == member.incarnation;
            if members.iter().any(|m| is_same(m) || m.id.0 == index) {
                return Err(ChangeError::Known);
            }
            if members.len() == MAX_MEMBERS {
                return Err(ChangeError::Full);
            }
            list.push(Member { id: RaftId(index), voter: false, ..member.clone() });
        }
        Change::Promote(name) => list[find(name)?].voter = true,
        Change::Demote(name) => {
            let at = find(name)?;
            if is_last_voter(at) {
                return Err(ChangeError::LastVoter);
            }
            list[at].voter = false;
        }
        Change::Remove(name) => {
            let at = find(name)?;
            if is_last_voter(at) {
                return Err(ChangeError::LastVoter);
            }
            list.remove(at);
        }
        Change::Update(member) => {
            let at = find(&member.node)?;
            if members[at].incarnation != member.incarnation {
                return Err(ChangeError::Unknown);
            }
            list[at] = Member { id: members[at].id, voter: members[at].voter, ..member.clone() };
        }
    }
    list.sort_by_key(|member| member.id);
    if list.iter().all(Member::is_bounded) { Ok(list) } else { Err(ChangeError::Field) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8, voter: bool) -> Member {
        Member {
            id: RaftId(number.into()),
            node: format!("n{number}"),
            incarnation: [number; 16],
            cluster_addr: String::new(),
            api_addr: String::new(),
            voter,
            wants_vote: true,
            election_ms: 600,
            version: String::new(),
        }
    }

    #[test]
    fn an_addition_has_the_index_as_its_id_and_no_vote() {
        let list = changed(&[member(1, true)], &Change::AddLearner(member(9, true)), 40).unwrap();
        assert_eq!((list[1].id, list[1].voter), (RaftId(40), false));
        for known in
            [Member { node: "n1".to_owned(), ..member(9, false) }, Member { node: "x".to_owned(), ..member(1, false) }]
        {
            assert_eq!(changed(&[member(1, true)], &Change::AddLearner(known), 40), Err(ChangeError::Known));
        }
        // The first members of a cluster have ids that no index may repeat.
        assert_eq!(changed(&[member(1, true)], &Change::AddLearner(member(9, true)), 1), Err(ChangeError::Known));
    }

    #[test]
    fn the_last_voter_stays_and_an_update_gives_no_vote() {
        let list = [member(1, true), member(2, false)];
        for change in [Change::Remove("n1".to_owned()), Change::Demote("n1".to_owned())] {
            assert_eq!(changed(&list, &change, 9), Err(ChangeError::LastVoter));
        }
        let update = Change::Update(Member { id: RaftId(7), version: "2".to_owned(), ..member(2, true) });
        assert_eq!(changed(&list, &update, 9).unwrap()[1], Member { version: "2".to_owned(), ..member(2, false) });
        let other_disk = Change::Update(Member { incarnation: [8; 16], ..member(2, true) });
        assert_eq!(changed(&list, &other_disk, 9), Err(ChangeError::Unknown));
        assert_eq!(changed(&list, &Change::Promote("n3".to_owned()), 9), Err(ChangeError::Unknown));
        let long = Member { api_addr: "x".repeat(MAX_TEXT + 1), ..member(2, false) };
        let [fast, slow] = [99, 60_001].map(|election_ms| Member { election_ms, ..member(2, false) });
        for refused in [long, fast, slow] {
            assert_eq!(changed(&list, &Change::Update(refused), 9), Err(ChangeError::Field));
        }
    }
}
