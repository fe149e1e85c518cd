//! The start of a member from its directory.

use std::collections::VecDeque;

use keepfast_consensus::{Boot, ELECTION_MS, LogId, MAX_ENTRY, Payload, Settings};
use keepfast_crypto::random;

use super::published::Network;
use crate::{
    Addresses, LocalOptions, Member, Origin, RaftId, StorageError,
    local::{
        entry::{FOUNDER, FOUNDING},
        layout::Layout,
        log::ReadLog,
        segmented_log::LogReader,
        state::State,
    },
    simulated,
};

/// The bytes of entries in memory, for followers that are behind.
pub(crate) const WINDOW: u64 = 16 << 20;

/// The bytes of entries in memory: [`WINDOW`], except in the simulation of nodes.
pub(crate) fn window() -> u64 {
    simulated::window().unwrap_or(WINDOW)
}
/// Ticks of the shortest election timeout.
const ELECTION_TICKS: u32 = 30;

/// Times of the node, in microseconds.
pub(super) fn settings(options: &LocalOptions) -> Settings {
    let tick = u64::from(election_ms(options)) * 1000 / u64::from(ELECTION_TICKS);
    Settings { tick, election_ticks: ELECTION_TICKS as usize, ..Settings::default() }
}

/// The shortest election timeout, within the bounds of a list.
pub(crate) fn election_ms(options: &LocalOptions) -> u32 {
    let election = u32::try_from(options.election.as_millis()).unwrap_or(u32::MAX);
    election.clamp(*ELECTION_MS.start(), *ELECTION_MS.end())
}

/// This node as a member. `id` and `voter` count where the list is founded.
pub(crate) fn member(origin: &Origin, addresses: &Addresses, options: &LocalOptions) -> Member {
    Member {
        id: FOUNDER,
        node: origin.node.clone(),
        incarnation: origin.incarnation,
        cluster_addr: addresses.cluster_addr.clone(),
        api_addr: addresses.api_addr.clone(),
        voter: true,
        wants_vote: true,
        election_ms: election_ms(options),
        version: addresses.version.clone(),
    }
}

/// What the list has where addresses or version of this node are others now.
pub(super) fn updated(member: &Member, network: &Network, options: &LocalOptions) -> Option<Member> {
    let origin = Origin { node: member.node.clone(), incarnation: member.incarnation };
    let now = self::member(&origin, &network.addresses, options);
    let now = Member { id: member.id, voter: member.voter, wants_vote: member.wants_vote, ..now };
    (now != *member).then_some(now)
}

/// The entry of this node in a list.
pub(crate) fn find<'m>(members: &'m [Member], origin: &Origin) -> Option<&'m Member> {
    members.iter().find(|member| member.incarnation == origin.incarnation && member.node == origin.node)
}

/// What a node that joins knows: nothing but the members. Its log has no entry that is replicated, so that it begins with
/// a snapshot.
pub(super) fn joining(layout: &Layout, log: &LogReader) -> Result<Boot, StorageError> {
    let members = Payload::decode_list(&layout.joined.clone().into());
    let members = members.map_err(|error| StorageError::corrupt(format!("meta.json: members: {error}")))?;
    Ok(Boot {
        id: id(&members, &layout.origin())?,
        members,
        // The log of an empty directory has the vote of a founder, which is none in this cluster.
        vote: Some(log.hard_state().vote).filter(|vote| vote.term > FOUNDING.term).unwrap_or_default(),
        before: LogId::default(),
        entries: Vec::new(),
        committed: 0,
        applied: 0,
        epoch: epoch(),
        announced_ms: layout.announced_ms,
        recovered: layout.recovered,
    })
}

/// What a member has in its log and its state. Of the log it takes what followers may need at once, and all that is not
/// applied.
pub(super) fn member_of(layout: &Layout, log: &LogReader, state: &State) -> Result<Boot, StorageError> {
    let members = state.members()?.map(|members| members.list).unwrap_or_default();
    let (applied, last, hard) = (state.position().id, log.last(), log.hard_state());
    let mut next = log.first_of_last(window()).min(applied.index + 1).max(log.base().index + 1);
    let mut before = LogId { index: next - 1, term: log.term(next - 1).unwrap_or_default() };
    let (mut entries, mut bytes) = (VecDeque::new(), 0);
    while next <= last.index {
        let read = log.entries(next..last.index + 1, MAX_ENTRY)?;
        next += read.len() as u64;
        for entry in read {
            bytes += entry.payload.len() as u64;
            entries.push_back(entry);
        }
        while bytes > window()
            && let Some(entry) = entries.pop_front_if(|entry| entry.id.index <= applied.index)
        {
            bytes -= entry.payload.len() as u64;
            before = entry.id;
        }
    }
    Ok(Boot {
        id: id(&members, &layout.origin())?,
        members,
        vote: hard.vote,
        before,
        entries: entries.into(),
        committed: hard.committed,
        applied: applied.index,
        epoch: epoch(),
        announced_ms: layout.announced_ms,
        recovered: layout.recovered,
    })
}

fn id(members: &[Member], origin: &Origin) -> Result<RaftId, StorageError> {
    find(members, origin).map(|member| member.id).ok_or(StorageError::Removed)
}

fn epoch() -> u64 {
    u64::from_le_bytes(random::bytes())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use keepfast_consensus::{Kind, RaftId};

    use super::*;
    use crate::local::{
        entry::HardState,
        log::Log,
        segment::Frame,
        segmented_log::{SegmentedLog, Segments},
        sim_disk::SimDisk,
        state::Position,
    };

    #[test]
    fn a_node_that_joins_has_no_vote_and_no_log() {
        let disk = SimDisk::new(1);
        let mut layout = Layout::open(&disk, Some("n")).unwrap();
        let addresses = Addresses { api_addr: String::new(), cluster_addr: String::new(), version: String::new() };
        let own = Member { id: RaftId(7), ..member(&layout.origin(), &addresses, &LocalOptions::default()) };
        layout.joined = Payload::Members(vec![own]).encode()[1..].to_vec();
        let log = SegmentedLog::open(Segments { disk: Arc::new(disk), bytes: 1 << 20, ahead: 0 }, FOUNDING).unwrap();
        let boot = joining(&layout, &log.reader()).unwrap();
        assert_eq!((boot.id, boot.vote, boot.before), (RaftId(7), Default::default(), LogId::default()));
    }

    /// As much as followers may need, and all that is not applied.
    #[test]
    fn a_member_starts_with_a_window_of_its_log() {
        let disk = SimDisk::new(1);
        let layout = Layout::open(&disk, Some("n")).unwrap();
        let addresses = Addresses { api_addr: String::new(), cluster_addr: String::new(), version: String::new() };
        let own = member(&layout.origin(), &addresses, &LocalOptions::default());
        let state = State::open(&disk, 1 << 20, false).unwrap();
        let mut log =
            SegmentedLog::open(Segments { disk: Arc::new(disk.clone()), bytes: 1 << 30, ahead: 0 }, FOUNDING).unwrap();
        let payload = Bytes::from(vec![Kind::Batch as u8; 4 << 20]);
        let mut frame = Frame::new();
        for index in 2..=11 {
            frame.begin(index, HardState { committed: 8, ..HardState::default() });
            frame.push(1, &payload);
            log.append(&mut frame).unwrap();
        }
        let boot_at = |index| {
            let change = state.begin().unwrap();
            change.set_members(1, std::slice::from_ref(&own)).unwrap();
            state.commit(change, Position { id: LogId { term: 1, index }, ..Position::NEW }).unwrap();
            let boot = member_of(&layout, &log.reader(), &state).unwrap();
            (boot.before.index, boot.entries.first().map(|entry| entry.id.index), boot.entries.len())
        };
        assert_eq!(boot_at(8), (7, Some(8), 4), "16 MiB");
        assert_eq!(boot_at(3), (3, Some(4), 8), "all that is not applied");
    }

    #[test]
    fn election_timeouts_are_within_the_bounds_of_a_list() {
        let of = |millis| {
            let options = LocalOptions { election: Duration::from_millis(millis), ..LocalOptions::default() };
            (election_ms(&options), settings(&options).tick)
        };
        assert_eq!(of(600), (600, 20_000));
        assert_eq!((of(0).0, of(u64::MAX).0), (100, 60_000));
    }
}
