//! What must hold: all nodes apply the same, and at the end they have the same state and serve.

use std::hash::Hasher;

use keepfast_consensus::sim::Trace;

use super::world::World;
use crate::{Backend, StorageError, local::image::Row};

/// A broken rule, in words.
pub(super) type Broken = String;

impl World {
    /// Compares what a node has applied since the last call with what others have.
    pub(super) fn check_applied(&mut self, number: usize) -> Result<(), Broken> {
        let Some(process) = self.nodes[number].process.as_mut() else { return Ok(()) };
        let (before, applied) = (process.applied, process.backend.applied());
        let reports = process.reports.take();
        if applied < before {
            return Err(format!("node {number} goes back from entry {before} to {applied}"));
        }
        process.applied = applied;
        // A replacement of all records decides on no entry before it.
        let replaced = reports.iter().filter(|(_, digest)| digest.is_none()).map(|(index, _)| *index).max();
        if replaced.is_some() {
            self.report.snapshots += 1;
        }
        let first = replaced.unwrap_or(before) + 1;
        for (index, digest) in &reports {
            if let Some(digest) = digest {
                self.check_entry(number, *index, Some(*digest))?;
            }
        }
        if self.plan.planted == Some(super::Bug::AppliedBeforeWatchers) {
            return Ok(());
        }
        for index in first..=applied {
            if !reports.iter().any(|(known, _)| *known == index) {
                self.check_entry(number, index, None)?;
            }
        }
        Ok(())
    }

    fn check_entry(&mut self, number: usize, index: u64, digest: Option<u64>) -> Result<(), Broken> {
        let (known, other) = *self.entries.entry(index).or_insert((digest, number));
        if known == digest {
            return Ok(());
        }
        let what = |digest: Option<u64>| if digest.is_some() { "writes" } else { "nothing" };
        let (one, two) = (what(known), what(digest));
        Err(format!("node {other} applies {one} at entry {index}, and node {number} {two} that differ"))
    }

    /// At the end: every member serves, and all of them have the same state.
    pub(super) fn check_end(&mut self) -> Result<(), Broken> {
        let members = self.members();
        let mut states: Vec<(usize, u64, u64)> = Vec::new();
        for number in members {
            let node = &self.nodes[number];
            let Some(process) = node.process.as_ref() else { return Err(format!("node {number} is down at the end")) };
            let [writes, reads] = self.served[number];
            if writes == 0 || reads == 0 {
                let status = process.cluster_status();
                let stopped = process.backend.stopped();
                return Err(format!(
                    "node {number} serves {writes} writes and {reads} reads in peace: {status:?}, {stopped:?}"
                ));
            }
            let failed = |error: StorageError| format!("node {number}: {error}");
            let (index, digest) = state(&process.backend).map_err(failed)?;
            states.push((number, index, digest));
        }
        let Some((first, index, digest)) = states.first().copied() else { return Err("no member is left".into()) };
        for (number, other_index, other) in states {
            if (index, digest) != (other_index, other) {
                return Err(format!(
                    "the state of node {first} at entry {index} differs from that of node {number} at {other_index}"
                ));
            }
        }
        Ok(())
    }
}

/// The applied index, and a digest of all records, counts and members.
fn state(backend: &crate::LocalBackend) -> Result<(u64, u64), StorageError> {
    let image = backend.image()?;
    let mut hash = Trace::default();
    let mut rows = image.rows()?;
    while let Some(row) = rows.next()? {
        match row {
            Row::Record(path, value) => {
                hash.write(path.as_bytes());
                hash.write(&value);
            }
            Row::Term(term, count) => hash.write_u64(u64::from(term) << 32 | count),
            Row::Staged(number, part) => {
                hash.write_u32(number);
                hash.write(&part);
            }
        }
    }
    for member in image.members.map(|members| members.list).unwrap_or_default() {
        hash.write(member.node.as_bytes());
        hash.write(&member.incarnation);
        hash.write_u64(u64::from(member.voter));
    }
    hash.write_u64(backend.encryptions(image.position.key_term)?);
    Ok((image.position.id.index, hash.finish()))
}
