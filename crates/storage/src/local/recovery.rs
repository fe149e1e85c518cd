//! The recovery of a cluster that has lost its quorum for good, as in Vault: an operator stops what is left of it, and
//! writes the members of the recovered cluster to `raft/peers.json` in the data directory of each of them.
//!
//! ```text
//! [ { "id": "node1", "address": "10.0.0.1:8201", "non_voter": false } ]
//! ```
//!
//! At its next start a node applies its whole log, takes this list as its own and deletes the file. Each member gets a new
//! number in Raft, which follows from the list and from the numbers before: nodes with the same list and the same past
//! understand each other, and ignore the messages of all others.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use keepfast_consensus::{MAX_ENTRY, MAX_MEMBERS, Payload};
use keepfast_crypto::hash::sha256;
use serde::Deserialize;

use super::{
    LocalOptions,
    apply::{Applier, Upto},
    disk::Disk,
    entry::Kind,
    layout::Layout,
    log::{Log, ReadLog},
    segmented_log::{LogReader, SegmentedLog, Segments},
    state::State,
};
use crate::{Member, RaftId, StorageError, raft::boot};

const DIRECTORY: &str = "raft";
const FILE: &str = "raft/peers.json";
/// The most bytes of the file.
const MAX_FILE: u64 = 64 << 10;
/// The most bytes of an address, as in a list of members.
const MAX_ADDRESS: usize = 512;

/// A member in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    id: String,
    address: String,
    #[serde(default)]
    non_voter: bool,
}

/// Recovers the cluster if there is a file, or if an earlier start has begun to.
///
/// # Errors
/// [`StorageError::Layout`] for a file that cannot be used: nothing has changed then.
pub(super) fn run(disk: &Arc<dyn Disk>, layout: &mut Layout, options: &LocalOptions) -> Result<(), StorageError> {
    let text = match layout.recovery.is_empty() {
        true => read(&**disk)?,
        false => None,
    };
    if text.is_none() && layout.recovery.is_empty() {
        return Ok(());
    }
    let state = State::open(&**disk, options.cache_bytes, false)?;
    let segments = Segments::of(disk, options.flush_bytes);
    let mut log = SegmentedLog::open(segments, state.position().id)?;
    if let Some(text) = text {
        let list = recovered(&text, layout, &known(&state, &log.reader())?)?;
        layout.recovery = Payload::Members(list).encode().slice(1..).to_vec();
        layout.write(&**disk)?;
    }
    // From here on each step can be repeated, and nothing else opens the directory before the last one.
    let list = Payload::decode_list(&Bytes::copy_from_slice(&layout.recovery));
    let list = list.map_err(|error| StorageError::corrupt(format!("meta.json: recovery: {error}")))?;
    let applier = Applier::new(state);
    applier.replay(&log.reader(), Upto::Whole)?;
    let state = applier.state();
    let position = state.position();
    let change = state.begin()?;
    change.set_members(position.id.index, &list)?;
    state.commit(change, position)?;
    state.flush()?;
    log.restart(position.id)?;
    delete(&**disk)?;
    let names: Vec<_> = list.iter().map(|member| &*member.node).collect();
    tracing::warn!(index = position.id.index, members = ?names, "the cluster was recovered from raft/peers.json");
    (layout.recovery, layout.recovered, layout.removed) = (Vec::new(), position.id.index, false);
    layout.write(&**disk)
}

fn refused(why: impl std::fmt::Display) -> StorageError {
    StorageError::Layout(format!("{FILE} cannot be used: {why}").into())
}

fn read(disk: &dyn Disk) -> Result<Option<Vec<u8>>, StorageError> {
    let failed = |error| StorageError::io(format!("read {FILE}"), error);
    let Some(file) = disk.open(FILE, false).map_err(failed)? else { return Ok(None) };
    let length = file.len().map_err(failed)?;
    if length > MAX_FILE {
        return Err(refused(format_args!("it has more than {MAX_FILE} bytes")));
    }
    let mut text = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_at(0, &mut text).map_err(failed)?;
    Ok(Some(text))
}

/// Deletes the file, durably. It is missing when an earlier start has deleted it.
fn delete(disk: &dyn Disk) -> Result<(), StorageError> {
    let failed = |error| StorageError::io(format!("delete {FILE}"), error);
    if disk.open(FILE, false).map_err(failed)?.is_some() {
        disk.remove(FILE).and_then(|()| disk.sync_directory(DIRECTORY)).map_err(failed)?;
    }
    Ok(())
}

/// The members that the log and the state name, of the newest list first.
fn known(state: &State, log: &LogReader) -> Result<Vec<Member>, StorageError> {
    let mut known = state.members()?.map(|members| members.list).unwrap_or_default();
    let (mut next, last) = (state.position().id.index + 1, log.last().index);
    while next <= last {
        let entries = log.entries(next..last + 1, MAX_ENTRY)?;
        next += entries.len() as u64;
        for entry in entries.iter().filter(|entry| entry.kind() == Ok(Kind::Members)) {
            let list = Payload::decode_list(&entry.body());
            let mut list = list.map_err(|error| StorageError::corrupt(error.to_string()))?;
            known.retain(|member| !list.iter().any(|newer| newer.node == member.node));
            list.append(&mut known);
            known = list;
        }
    }
    Ok(known)
}

/// The list of members that the file means.
fn recovered(text: &[u8], layout: &Layout, known: &[Member]) -> Result<Vec<Member>, StorageError> {
    let peers: Vec<Peer> = serde_json::from_slice(text).map_err(refused)?;
    if layout.joining || known.is_empty() {
        return Err(refused("this node has no records of a cluster"));
    }
    if peers.len() > MAX_MEMBERS {
        return Err(refused(format_args!("it names more than {MAX_MEMBERS} members")));
    }
    if peers.iter().all(|peer| peer.non_voter) {
        return Err(refused("it names no voter"));
    }
    let mut names = BTreeSet::new();
    let mut members = Vec::with_capacity(peers.len());
    for peer in peers {
        if !names.insert(peer.id.clone()) {
            return Err(refused(format_args!("it names '{}' twice", peer.id)));
        }
        let is_address = |address: &str| {
            let is_text = !address.contains(|c: char| c.is_whitespace() || c.is_control());
            !address.is_empty() && address.len() <= MAX_ADDRESS && is_text
        };
        if !is_address(&peer.address) {
            return Err(refused(format_args!("the address of '{}' is none", peer.id)));
        }
        let Some(member) = known.iter().find(|member| member.node == peer.id) else {
            let why = "is no member that this node knows: it joins the recovered cluster later";
            return Err(refused(format_args!("'{}' {why}", peer.id)));
        };
        let (voter, cluster_addr) = (!peer.non_voter, peer.address);
        members.push(Member { cluster_addr, voter, wants_vote: voter, ..member.clone() });
    }
    let origin = layout.origin();
    if boot::find(&members, &origin).is_none() {
        return Err(refused(format_args!("it lacks this node, '{}'", origin.node)));
    }
    number(&mut members);
    Ok(members)
}

/// Gives the members their new numbers.
fn number(members: &mut [Member]) {
    members.sort_by(|a, b| a.node.cmp(&b.node));
    let mut text = b"keepfast recovered cluster 1".to_vec();
    for Member { id, node, incarnation, cluster_addr, voter, .. } in &*members {
        text.extend(id.0.to_le_bytes());
        for part in [node.as_bytes(), incarnation, cluster_addr.as_bytes(), &[u8::from(*voter)]] {
            text.extend((part.len() as u64).to_le_bytes());
            text.extend(part);
        }
    }
    let cluster = sha256(&text);
    for member in &mut *members {
        let digest = sha256(&[&cluster[..], &member.incarnation].concat());
        let first = digest.first_chunk().copied().unwrap_or_default();
        member.id = RaftId::recovered(u64::from_le_bytes(first));
    }
    members.sort_by_key(|member| member.id);
}
