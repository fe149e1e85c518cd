//! When members learn what is committed. The crate would send it as soon as a majority has an entry, in messages without
//! entries that the members acknowledge: half of all messages of a write. The next entries have it as well, and mostly
//! follow at once. It has messages of its own only when a member waits for it ([`super::Input::SendCommit`]), at the
//! next tick, and at once for a list of members, as the crate does it (`has_pending_conf`).

use super::Steps;

impl Steps {
    /// Sends the committed index to all members, unless messages with it have left.
    pub(super) fn send_commit(&mut self) {
        if self.is_leader() && self.sent_commit < self.node.raft.raft_log.committed {
            self.node.raft.bcast_append();
            self.note_sent_commit();
        }
    }

    /// Messages to all members have left. A member that got none, or lost it, learns it from the next heartbeat.
    pub(super) fn note_sent_commit(&mut self) {
        self.sent_commit = self.node.raft.raft_log.committed;
    }

    /// The committed index that messages to all members had, while this node leads.
    #[must_use]
    pub fn sent_commit(&self) -> u64 {
        self.sent_commit
    }
}
