//! The slot keys of the record in use, which a node takes from the escrow of each record that is applied. By them it
//! opens the record of a restore.

use std::sync::{Arc, Weak};

use keepfast_storage::{Barrier, Index, SealRecord, Watch, Write};
use parking_lot::Mutex;

use super::record::{KnownKeys, SealConfig, Slot, WayIn, escrow_purpose};

/// Follows the records of the seal.
pub(super) struct FollowedKeys {
    barrier: Weak<Barrier>,
    keys: Mutex<KnownKeys>,
}

impl FollowedKeys {
    /// The keys of `config`, which `way` has opened.
    pub(super) fn new(config: &SealConfig, way: &WayIn, barrier: &Arc<Barrier>) -> Arc<Self> {
        let keys = match (config.version, way) {
            (1, WayIn::Shares(key)) => KnownKeys { v1: Some(key.clone()), ..KnownKeys::default() },
            (1, WayIn::Known(known)) => known.clone(),
            _ => KnownKeys::default(),
        };
        let followed = Arc::new(FollowedKeys { barrier: Arc::downgrade(barrier), keys: Mutex::new(keys) });
        followed.read(config);
        let watcher: Arc<dyn Watch> = followed.clone();
        barrier.watch(Arc::downgrade(&watcher));
        followed
    }

    pub(super) fn get(&self) -> KnownKeys {
        self.keys.lock().clone()
    }

    fn read(&self, config: &SealConfig) {
        let Some(barrier) = self.barrier.upgrade() else { return };
        if config.version == 1 {
            return;
        }
        let key_of = |slot: &Slot| {
            let escrow_key = barrier.derive_from_root(&escrow_purpose(slot.id)).ok()?;
            Some((slot.id, config.open_escrow(slot, &escrow_key)?))
        };
        let slots: Vec<_> = config.slots.iter().filter_map(key_of).collect();
        // A record that this node cannot open seals it; until then it keeps what it has.
        if !slots.is_empty() {
            *self.keys.lock() = KnownKeys { slots, v1: None };
        }
    }
}

impl Watch for FollowedKeys {
    fn applied(&self, _: Index, writes: &[Write]) {
        if let Some(Ok(config)) = SealRecord::written(writes).map(|record| SealConfig::from_bytes(record)) {
            self.read(&config);
        }
    }

    /// The node opens the storage again.
    fn replaced(&self, _: Index) {}
}
