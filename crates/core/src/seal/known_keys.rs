//! The keys of the slots of the record in use, which a node takes from the escrow of each record that is applied. By them it
//! opens the record of a restore. The wrap keys of each record go to the barrier.

use std::sync::{Arc, Weak};

use keepfast_crypto::hash::sha256;
use keepfast_framework::Result;
use keepfast_storage::{Backend, Barrier, Index, SealRecord, Watch, WrapKeys, Write};
use parking_lot::Mutex;

use super::record::{KnownKeys, SealConfig, Slot, WayIn, escrow_purpose};
use super::wrapped_slot::OpenedSlot;

/// The most records whose wrap keys are expected at a time.
const MAX_EXPECTED: usize = 8;

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
    /// The wrap keys that another node has announced, by the SHA-256 of their records.
    expected: Vec<([u8; 32], WrapKeys)>,
}

impl FollowedKeys {
    /// The keys of `config`, which `way` has opened.
    pub(super) fn new(config: &SealConfig, way: &WayIn, barrier: &Arc<Barrier>) -> Arc<Self> {
        let v1 = match (config.version, way) {
            (1, WayIn::Shares(key)) => Some(key.clone()),
            (1, WayIn::Known(known)) => known.v1.clone(),
            _ => None,
        };
        let keys = KnownKeys { v1, slots: Vec::new(), opened: config.opened(way) };
        let followed = Mutex::new(Followed { keys, ..Followed::default() });
        let followed = Arc::new(FollowedKeys { barrier: Arc::downgrade(barrier), followed });
        if let Ok(record) = config.to_bytes() {
            followed.follow(&mut followed.followed.lock(), config, &record);
        }
        let watcher: Arc<dyn Watch> = followed.clone();
        barrier.watch(Arc::downgrade(&watcher));
        followed
    }

    pub(super) fn get(&self) -> KnownKeys {
        self.followed.lock().keys.clone()
    }

    /// Keeps the keys of slots whose KEK this server has seen.
    pub(super) fn add_opened(&self, opened: impl IntoIterator<Item = OpenedSlot>) {
        let mut followed = self.followed.lock();
        let slots = followed.keys.slots.clone();
        // The slot may have another KEK meanwhile. A record of the first version has no slot keys.
        let current = opened.into_iter().filter(|opened| slots.is_empty() || opened.is_of(&slots));
        current.for_each(|opened| followed.keys.add_opened(opened));
    }

    /// Expects these wrap keys with the record of this SHA-256. Returns false when too many are expected.
    pub(super) fn expect(&self, record: [u8; 32], keys: WrapKeys) -> bool {
        let mut followed = self.followed.lock();
        followed.expected.retain(|(known, _)| *known != record);
        let has_room = followed.expected.len() < MAX_EXPECTED;
        if has_room {
            followed.expected.push((record, keys));
        }
        has_room
    }

    /// Drops the wrap keys that are expected with this record.
    pub(super) fn forget(&self, record: &[u8; 32]) {
        self.followed.lock().expected.retain(|(known, _)| known != record);
    }

    /// Follows the stored record, unless a newer one is applied meanwhile.
    pub(super) async fn follow_stored(&self, backend: &dyn Backend) -> Result<()> {
        loop {
            let before = self.followed.lock().applied;
            let Some(record) = SealRecord::load(backend).await? else { return Ok(()) };
            let config = SealConfig::from_bytes(&record)?;
            let mut followed = self.followed.lock();
            if followed.applied == before {
                self.follow(&mut followed, &config, &record);
                return Ok(());
            }
        }
    }

    /// Takes the keys of a record. A record that this node cannot open seals it; until then it keeps what it has.
    fn follow(&self, followed: &mut Followed, config: &SealConfig, record: &[u8]) {
        let Some(barrier) = self.barrier.upgrade().filter(|_| config.version != 1) else { return };
        let slots = slot_keys(config, &barrier);
        if slots.is_empty() {
            return;
        }
        let Some(wrap_keys) = followed.wrap_keys(config, record, &barrier) else {
            tracing::error!(
                "another node has changed the wrap keys, which this node did not get: it seals; unseal it with the current \
                 shares"
            );
            barrier.fail_closed();
            return;
        };
        let mut opened = config.opened_by(&wrap_keys, &slots);
        if wrap_keys.is_empty() {
            let known = followed.keys.opened.drain(..);
            opened.extend(known.filter(|opened| opened.is_of(&slots)));
        }
        followed.keys = KnownKeys { slots, v1: None, opened };
        barrier.set_wrap_keys(&wrap_keys, record);
    }
}

impl Followed {
    /// The wrap keys of a record: announced, under the key of a known slot, or those in use.
    fn wrap_keys(&mut self, config: &SealConfig, record: &[u8], barrier: &Barrier) -> Option<WrapKeys> {
        if config.wrap_generation == 0 {
            return Some(WrapKeys::default());
        }
        let digest = sha256(record);
        let announced = self.expected.iter().position(|(known, _)| *known == digest);
        let announced = announced.map(|at| self.expected.swap_remove(at).1);
        let in_use = || Some(barrier.wrap_keys()).filter(|keys| keys.generation() == config.wrap_generation);
        announced.or_else(|| config.wrap_keys_by(&self.keys.opened)).or_else(in_use)
    }
}

/// The slot keys, by the escrow; those that the root key of this node does not open are missing.
fn slot_keys(config: &SealConfig, barrier: &Barrier) -> Vec<(u32, keepfast_crypto::locked::Key256)> {
    let key_of = |slot: &Slot| {
        let escrow_key = barrier.derive_from_root(&escrow_purpose(slot.id)).ok()?;
        Some((slot.id, config.open_escrow(slot, &escrow_key)?))
    };
    config.slots.iter().filter_map(key_of).collect()
}

impl Watch for FollowedKeys {
    fn applied(&self, _: Index, writes: &[Write]) {
        let Some(record) = SealRecord::written(writes) else { return };
        if let Ok(config) = SealConfig::from_bytes(record) {
            let mut followed = self.followed.lock();
            followed.applied += 1;
            self.follow(&mut followed, &config, record);
        }
    }

    /// The node opens the storage again.
    fn replaced(&self, _: Index) {}
}
