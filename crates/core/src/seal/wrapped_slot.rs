//! The wrap keys in the slots of the seal record. The key `Kw = HKDF(KEK, "wrap")` of a slot encrypts the wrap keys, and the
//! newest wrap key encrypts `Kw` (the escrow): a server that has the wrap keys can put others into every slot without the
//! seals and the shares. Neither the root key nor the keyring leads to them. All slots have them, or none has.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::compare;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::{Error, Result};
use keepfast_storage::{Barrier, WrapKeys, derive_key};

use super::record::{KnownKeys, SealConfig, Slot, WayIn, escrow_purpose, slot_key};

/// The keys that were derived from the KEK of a slot.
#[derive(Clone)]
pub(crate) struct OpenedSlot {
    /// The id of the slot.
    pub(crate) id: u32,
    /// The slot key, which identifies the KEK.
    slot_key: Key256,
    /// The key that encrypts the wrap keys.
    wrap: Key256,
}

impl OpenedSlot {
    /// The keys of a slot with this KEK.
    pub(crate) fn new(id: u32, kek: &Key256) -> Self {
        OpenedSlot { id, slot_key: slot_key(kek), wrap: derive_key(kek, b"wrap") }
    }

    /// Whether the slot still has this KEK. `current` are the slot keys of the record.
    pub(super) fn is_of(&self, current: &[(u32, Key256)]) -> bool {
        current.iter().any(|(id, key)| *id == self.id && compare::equal(key.expose(), self.slot_key.expose()))
    }
}

impl SealConfig {
    /// Whether all slots have the wrap keys, as the record says, or none has.
    pub(super) fn has_wrap_keys_in_all_slots_or_none(&self) -> bool {
        let has = self.wrap_generation > 0;
        self.slots.iter().all(|slot| slot.wrap.is_some() == has && slot.wrap_escrow.is_some() == has)
    }

    /// The wrap keys, none if the record has none; `None` when they are not under this key.
    pub(crate) fn wrap_keys(&self, way: &WayIn) -> Option<WrapKeys> {
        if self.wrap_generation == 0 {
            return Some(WrapKeys::default());
        }
        match way {
            WayIn::Known(known) => self.wrap_keys_by(&known.opened),
            _ => self.wrap_keys_by(&self.opened(way)),
        }
    }

    /// Gives the wrap keys to a barrier.
    ///
    /// # Errors
    /// When `way` does not open the record.
    pub(crate) fn unlock_wrapped_values(&self, way: &WayIn, barrier: &Barrier) -> Result<()> {
        let keys = self.wrap_keys(way).ok_or_else(Error::sealed)?;
        barrier.set_wrap_keys(&keys, &self.to_bytes()?);
        Ok(())
    }

    /// The wrap keys by the keys of a slot.
    pub(super) fn wrap_keys_by(&self, opened: &[OpenedSlot]) -> Option<WrapKeys> {
        opened.iter().find_map(|opened| self.open_wrap(self.slot(opened.id)?, &opened.wrap))
    }

    /// The keys of the slots that `way` opens.
    pub(crate) fn opened(&self, way: &WayIn) -> Vec<OpenedSlot> {
        let share_slot = || self.shares.as_ref().and_then(|shares| shares.slot);
        match way {
            WayIn::Slot(id, kek) => vec![OpenedSlot::new(*id, kek)],
            WayIn::Shares(key) => share_slot().map(|id| OpenedSlot::new(id, key)).into_iter().collect(),
            WayIn::Known(known) => known.opened.clone(),
        }
    }

    fn open_wrap(&self, slot: &Slot, wrap: &Key256) -> Option<WrapKeys> {
        let sealed = STANDARD.decode(slot.wrap.as_ref()?).ok()?;
        let plain = SecretBytes::new(AeadKey::new(wrap).open(&self.wrap_context(slot), &sealed).ok()?);
        WrapKeys::from_bytes(plain.expose()).filter(|keys| keys.generation() == self.wrap_generation)
    }

    /// The keys of all slots by the escrow, if these are the wrap keys of the record. `current` are its slot keys.
    pub(super) fn opened_by(&self, keys: &WrapKeys, current: &[(u32, Key256)]) -> Vec<OpenedSlot> {
        let Some(newest) = keys.newest() else { return Vec::new() };
        let of = |slot: &Slot| {
            let sealed = STANDARD.decode(slot.wrap_escrow.as_ref()?).ok()?;
            let escrow = derive_key(newest, escrow_purpose(slot.id).as_bytes());
            let plain = SecretBytes::new(AeadKey::new(&escrow).open(&self.wrap_context(slot), &sealed).ok()?);
            let (_, slot_key) = current.iter().find(|(id, _)| *id == slot.id)?;
            let wrap = Key256::from_slice(plain.expose())?;
            Some(OpenedSlot { id: slot.id, slot_key: slot_key.clone(), wrap })
        };
        self.slots.iter().filter_map(of).collect()
    }

    /// Encrypts the wrap keys and the key of a slot under each other.
    pub(super) fn seal_wrap_keys(&self, slot: &mut Slot, opened: &OpenedSlot, keys: &WrapKeys) {
        let Some(newest) = keys.newest() else { return };
        let context = self.wrap_context(slot);
        let escrow = derive_key(newest, escrow_purpose(slot.id).as_bytes());
        slot.wrap = Some(STANDARD.encode(AeadKey::new(&opened.wrap).seal(&context, keys.to_bytes().expose())));
        slot.wrap_escrow = Some(STANDARD.encode(AeadKey::new(&escrow).seal(&context, opened.wrap.expose())));
    }

    /// What the ciphertexts are bound to: cluster, slot and generation of the newest wrap key. They stay as they are with
    /// another root key.
    pub(super) fn wrap_context(&self, slot: &Slot) -> Vec<u8> {
        let (id, generation) = (slot.id.to_le_bytes(), self.wrap_generation.to_le_bytes());
        [&b"kf wrap 2"[..], &id, &generation, self.cluster_id.as_bytes()].concat()
    }
}

#[cfg(test)]
impl SealConfig {
    /// Replaces the wrap keys in the slot of a seal by bytes that do not open, as an error in an earlier version could.
    pub(crate) fn damage_wrap_keys(&mut self, name: &str, root: &Key256) {
        for slot in self.slots.iter_mut().filter(|slot| slot.name == name) {
            slot.wrap = Some(STANDARD.encode([7; 64]));
        }
        assert!(self.authenticate(root).is_ok());
    }
}

impl KnownKeys {
    /// Adds the keys of a slot, in place of older ones.
    pub(super) fn add_opened(&mut self, opened: OpenedSlot) {
        self.opened.retain(|known| known.id != opened.id);
        self.opened.push(opened);
    }
}
