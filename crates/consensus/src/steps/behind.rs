//! Members that are so far behind that the entries which they need are on the disk only. The driver reads these, one
//! message for each member at a time, and a member gets a snapshot only when the disk does not have them.

use raft::StateRole;

use super::{Effect, Steps};
use crate::entry::{Entry, LogId};

impl Steps {
    /// Sets at the start what the log on the disk has before the first entry in memory: the entries after `floor`, and from
    /// which index on they have which term, where it differs from the one before.
    pub fn set_stored(&mut self, floor: LogId, terms: &[(u64, u64)]) {
        self.node.mut_store().set_stored(floor, terms);
    }

    /// The log on the disk has no entries up to `index` any more.
    pub fn purge_stored(&mut self, index: u64) {
        self.node.mut_store().purge_stored(index);
    }

    /// Sends what was read from the log to each member that needs it.
    pub(super) fn log_read(&mut self, first: u64, entries: Option<&[Entry]>) {
        if !self.node.mut_store().end_read(first, entries) {
            return;
        }
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader {
            let need = raft.prs().iter().filter(|(_, progress)| progress.next_idx == first && !progress.is_paused());
            let need: Vec<u64> = need.map(|(id, _)| *id).filter(|id| *id != self.id.0).collect();
            need.into_iter().for_each(|id| raft.send_append(id));
        }
        self.node.mut_store().clear_found();
    }

    /// Begins the reads that members need.
    pub(super) fn begin_log_reads(&mut self, out: &mut Vec<Effect>) {
        let reads = self.node.mut_store().begin_reads();
        out.extend(reads.into_iter().map(|read| Effect::ReadLog {
            first: read.first,
            end: read.end,
            bytes: read.bytes,
        }));
    }
}
