//! The slot keys of the record in use, which a node takes from the escrow of each record that is applied. By them it
//! opens the record of a restore.

use std::sync::{Arc, Weak};

use keepfast_framework::Result;
use keepfast_storage::{Backend, Barrier, Index, SealRecord, Watch, Write};
use parking_lot::Mutex;

use super::record::{KnownKeys, SealConfig, Slot, WayIn, escrow_purpose};

/// Follows the records of the seal.
pub(super) struct FollowedKeys {
    barrier: Weak<Barrier>,
    followed: Mutex<Followed>,
}

#[derive(Default)]
struct Followed {
    keys: KnownKeys,
    /// Counts the records that were applied.
    applied: u64,
}

impl FollowedKeys {
    /// The keys of `config`, which `way` has opened.
    pub(super) fn new(config: &SealConfig, way: &WayIn, barrier: &Arc<Barrier>) -> Arc<Self> {
        let keys = match (config.version, way) {
            (1, WayIn::Shares(key)) => KnownKeys { v1: Some(key.clone()), ..KnownKeys::default() },
            (1, WayIn::Known(known)) => known.clone(),
            _ => KnownKeys::default(),
        };
        let followed = Mutex::new(Followed { keys, applied: 0 });
        let followed = Arc::new(FollowedKeys { barrier: Arc::downgrade(barrier), followed });
        followed.set(followed.keys_of(config));
        let watcher: Arc<dyn Watch> = followed.clone();
        barrier.watch(Arc::downgrade(&watcher));
        followed
    }

    pub(super) fn get(&self) -> KnownKeys {
        self.followed.lock().keys.clone()
    }

    /// Follows the stored record, unless a newer one is applied meanwhile.
    pub(super) async fn follow_stored(&self, backend: &dyn Backend) -> Result<()> {
        loop {
            let before = self.followed.lock().applied;
            let Some(config) = SealConfig::load(backend).await? else { return Ok(()) };
            let keys = self.keys_of(&config);
            let mut followed = self.followed.lock();
            if followed.applied == before {
                followed.keys = keys.unwrap_or_else(|| followed.keys.clone());
                return Ok(());
            }
        }
    }

    /// The keys of the slots; `None` when the root key of this node does not open them.
    fn keys_of(&self, config: &SealConfig) -> Option<KnownKeys> {
        let barrier = self.barrier.upgrade().filter(|_| config.version != 1)?;
        let key_of = |slot: &Slot| {
            let escrow_key = barrier.derive_from_root(&escrow_purpose(slot.id)).ok()?;
            Some((slot.id, config.open_escrow(slot, &escrow_key)?))
        };
        let slots: Vec<_> = config.slots.iter().filter_map(key_of).collect();
        (!slots.is_empty()).then_some(KnownKeys { slots, v1: None })
    }

    /// A record that this node cannot open seals it; until then it keeps what it has.
    fn set(&self, keys: Option<KnownKeys>) {
        if let Some(keys) = keys {
            self.followed.lock().keys = keys;
        }
    }
}

impl Watch for FollowedKeys {
    fn applied(&self, _: Index, writes: &[Write]) {
        if let Some(Ok(config)) = SealRecord::written(writes).map(|record| SealConfig::from_bytes(record)) {
            self.followed.lock().applied += 1;
            self.set(self.keys_of(&config));
        }
    }

    /// The node opens the storage again.
    fn replaced(&self, _: Index) {}
}
