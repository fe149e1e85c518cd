//! The seal in use. When another seal record is applied that this node expects, its seal takes over in the same step.

use std::sync::Arc;

use keepfast_crypto::hash::sha256;
use keepfast_storage::{Index, SealRecord, Watch, Write};
use parking_lot::Mutex;

use super::wrap::Seal;

/// The most seals that are expected at a time.
const MAX_EXPECTED: usize = 8;

/// The seal of an unsealed server.
pub(super) struct SealInUse(Mutex<State>);

struct State {
    seal: Arc<dyn Seal>,
    /// The seals of coming records, by the SHA-256 of the record.
    expected: Vec<([u8; 32], Arc<dyn Seal>)>,
}

impl SealInUse {
    pub(super) fn new(seal: Arc<dyn Seal>) -> Arc<Self> {
        Arc::new(SealInUse(Mutex::new(State { seal, expected: Vec::new() })))
    }

    pub(super) fn get(&self) -> Arc<dyn Seal> {
        self.0.lock().seal.clone()
    }

    /// The expected seal of this record; otherwise the one in use.
    pub(super) fn of(&self, record: &[u8]) -> Arc<dyn Seal> {
        let (state, digest) = (self.0.lock(), sha256(record));
        let expected = state.expected.iter().find(|(known, _)| *known == digest);
        expected.map_or_else(|| state.seal.clone(), |(_, seal)| seal.clone())
    }

    pub(super) fn set(&self, seal: Arc<dyn Seal>) {
        self.0.lock().seal = seal;
    }

    /// Expects a record with this digest, whose seal is `seal`. The oldest expectation makes room.
    pub(super) fn expect(&self, record: [u8; 32], seal: Arc<dyn Seal>) {
        let expected = &mut self.0.lock().expected;
        expected.retain(|(known, _)| *known != record);
        if expected.len() >= MAX_EXPECTED {
            expected.remove(0);
        }
        expected.push((record, seal));
    }

    #[cfg(test)]
    pub(super) fn expects(&self, record: &[u8; 32]) -> bool {
        self.0.lock().expected.iter().any(|(known, _)| known == record)
    }

    /// No longer expects the record.
    pub(super) fn forget(&self, record: &[u8; 32]) {
        self.0.lock().expected.retain(|(known, _)| known != record);
    }
}

impl Watch for SealInUse {
    fn applied(&self, _: Index, writes: &[Write]) {
        let Some(record) = SealRecord::written(writes) else { return };
        let digest = sha256(record);
        let mut state = self.0.lock();
        if let Some(at) = state.expected.iter().position(|(known, _)| *known == digest) {
            state.seal = state.expected.remove(at).1;
        }
    }

    /// The node opens the storage again.
    fn replaced(&self, _: Index) {}
}

#[cfg(test)]
mod tests {
    use keepfast_crypto::secret::SecretBytes;

    use super::*;
    use crate::seal::{SealKind, by_shares};

    /// A snapshot of the leader may bring a record that is never applied as a batch.
    #[test]
    fn an_announced_seal_is_that_of_its_record_before_it_is_applied() {
        let seal = |byte: u8| by_shares::from_key(SealKind::default(), &SecretBytes::new(vec![byte; 32])).unwrap();
        let (before, coming) = (seal(1), seal(2));
        let used = SealInUse::new(before.clone());
        used.expect(sha256(b"record"), coming.clone());
        assert!(Arc::ptr_eq(&used.of(b"record"), &coming) && Arc::ptr_eq(&used.of(b"other"), &before));
        assert!(Arc::ptr_eq(&used.get(), &before));
        used.forget(&sha256(b"record"));
        assert!(Arc::ptr_eq(&used.of(b"record"), &before));
    }
}
