//! Changes of the record of the seal: pure functions from one record to the next. Every result has a seal or shares that
//! open the root key, and no ciphertext of an older root key.

use std::collections::BTreeSet;

use bytes::Bytes;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::{Error, Result, Status};
use keepfast_storage::{Barrier, Key as StorageKey, WrapKeys, derive_key};

use super::planted::planted;
use super::proven::ProvenKek;
use super::record::{
    BreakGlass, KnownKeys, MAX_RECORD, SHARES, SealConfig, ShareRole, Shares, Slot, StoredKey, WayIn, escrow_purpose,
    slot_key,
};
use super::set::MAX_SEALS;
use super::shape::SealShape;
use super::share_key;
use super::wrapped_slot::OpenedSlot;

/// A seal that gets a slot.
pub(crate) struct NewSlot {
    /// The name of the seal.
    pub(crate) name: String,
    /// Its type.
    pub(crate) kind: &'static str,
    /// The order in which it is tried.
    pub(crate) priority: u16,
    /// Its KEK.
    pub(crate) kek: ProvenKek,
}

/// One change.
pub(crate) enum Change {
    /// A seal gets a slot. With the first one, the unseal keys become recovery keys; without break-glass the root key
    /// changes.
    Enroll(NewSlot),
    /// The same, and shares that unseal go on unsealing: members of a cluster that cannot use the seal yet need them.
    EnrollBesideShares(NewSlot),
    /// A seal loses its slot, and the root key changes. Without the last one, the recovery keys become unseal keys.
    Remove { name: String, root: Key256 },
    /// The seals are tried in this order.
    Reorder(Vec<String>),
    /// Another root key; all slots stay.
    NewRoot(Key256),
    /// Another KEK for the slot of the seal with this name.
    NewKek(String, ProvenKek),
    /// Another root key and other shares, of this key. The old shares and the old records open nothing from then on.
    /// `replaces` is the check value of the shares that have authorized it; `None` for the first shares. `backup` is a
    /// record that is written in the same commit.
    NewShares {
        shape: SealShape,
        key: Key256,
        replaces: Option<String>,
        root: Key256,
        backup: Option<(StorageKey, Bytes)>,
    },
    /// Whether recovery shares unseal; [`BreakGlass::On`] needs the key of a quorum. The root key changes.
    BreakGlass { to: BreakGlass, quorum: Option<Key256>, root: Key256 },
    /// Seals take over from others, or from shares, or shares take over from seals.
    Migrate(Migration),
    /// Other wrap keys, in all slots.
    WrapKeys(WrapKeys),
}

/// A migration, which a quorum of the shares has authorized. The shares keep their values.
pub(crate) struct Migration {
    /// The seals that unseal after it; none: the shares unseal.
    pub(crate) to: Vec<NewSlot>,
    /// The key of the quorum.
    pub(crate) quorum: Key256,
    /// Whether recovery shares must not unseal after it.
    pub(crate) forbids_break_glass: bool,
    /// The new root key.
    pub(crate) root: Key256,
}

/// The next record.
pub(crate) struct Changed {
    pub(crate) config: SealConfig,
    /// The root key, if it changes.
    pub(crate) root: Option<Key256>,
    /// The keys of the slots whose KEK the change has.
    pub(crate) opened: Vec<OpenedSlot>,
}

/// What a record is created from.
pub(crate) struct Initial<'a> {
    pub(crate) cluster_name: String,
    pub(crate) cluster_id: String,
    pub(crate) root: &'a Key256,
    /// The seals; none: the shares unseal.
    pub(crate) seals: Vec<NewSlot>,
    /// The shares and their key.
    pub(crate) shares: Option<(SealShape, &'a Key256)>,
    /// Whether recovery shares must not unseal.
    pub(crate) forbids_break_glass: bool,
}

/// The first record of a storage, without wrap keys.
#[cfg(test)]
pub(crate) fn first(initial: Initial<'_>) -> Result<SealConfig> {
    first_with(initial, WrapKeys::default())
}

/// The first record of a storage.
pub(crate) fn first_with(initial: Initial<'_>, wrap_keys: WrapKeys) -> Result<SealConfig> {
    let role = if initial.seals.is_empty() { ShareRole::Unseal } else { ShareRole::Recovery };
    let config = SealConfig {
        version: 2,
        cluster_name: initial.cluster_name,
        cluster_id: initial.cluster_id,
        break_glass: if initial.forbids_break_glass { BreakGlass::Forbidden } else { BreakGlass::On },
        generation: 1,
        wrap_generation: wrap_keys.generation(),
        next_slot: 1,
        slots: Vec::new(),
        shares: initial.shares.map(|(shape, key)| Shares {
            role,
            shape,
            slot: None,
            check: share_key::check_value(key),
        }),
        mac: String::new(),
    };
    let mut draft = Draft { config, keys: Vec::new(), opened: Vec::new(), wrap_keys: Some(wrap_keys) };
    for slot in initial.seals {
        draft.add(slot)?;
    }
    if let Some((_, key)) = initial.shares {
        draft.fit_share_slot(Some(key));
    }
    draft.finish(initial.root)
}

/// The current root key, which the escrow of a record yields to an unsealed server.
///
/// # Errors
/// When the record was changed by someone without the root key, or the barrier is closed.
pub(crate) fn current_root(config: &SealConfig, barrier: &Barrier, known: &KnownKeys) -> Result<Key256> {
    let root = match config.version {
        1 => config.open(&WayIn::Known(known.clone()))?,
        _ => {
            let mut found = None;
            for slot in &config.slots {
                let escrow_key = barrier.derive_from_root(&escrow_purpose(slot.id))?;
                let key = config.open_escrow(slot, &escrow_key);
                found = found.or(key.and_then(|key| config.open_slot(slot.id, &key)));
            }
            found
        }
    };
    let root = root.ok_or_else(|| {
        let text = "this node does not have the keys of the current seal record; seal it and unseal it again";
        Error::new(Status::INTERNAL, text)
    })?;
    config.check_mac(&root)?;
    Ok(root)
}

/// Applies a change to a record whose root key is `root`.
///
/// # Errors
/// With 400 for a change that the rules refuse; nothing is changed then.
pub(crate) fn apply(config: &SealConfig, change: Change, root: &Key256, known: &KnownKeys) -> Result<Changed> {
    config.check_mac(root)?;
    let mut draft = Draft::of(config, root, known)?;
    let next = match change {
        Change::NewRoot(next) => Some(next),
        Change::NewShares { shape, key, replaces, root: next, .. } => {
            draft.replace_shares(shape, &key, replaces.as_deref())?;
            Some(next)
        }
        Change::Migrate(migration) => Some(draft.migrate(migration)?),
        _ if config.version == 1 => return Err(Error::invalid("rotate the root key first (sys/rotate/root)")),
        Change::Enroll(slot) => draft.enroll(slot)?,
        Change::EnrollBesideShares(slot) => {
            if draft.config.opens_by_shares() {
                draft.config.break_glass = BreakGlass::On;
            }
            draft.enroll(slot)?
        }
        Change::Remove { name, root } => draft.remove(&name).map(|()| Some(root))?,
        Change::Reorder(names) => draft.reorder(&names).map(|()| None)?,
        Change::NewKek(name, kek) => draft.replace_kek(&name, kek).map(|()| None)?,
        Change::WrapKeys(keys) => draft.replace_wrap_keys(keys, known).map(|()| None)?,
        Change::BreakGlass { to, quorum, root } => draft.set_break_glass(to, quorum.as_ref()).map(|()| Some(root))?,
    };
    if next.is_some() {
        draft.next_generation()?;
    }
    let opened = draft.opened.clone();
    let config = draft.finish(next.as_ref().unwrap_or(root))?;
    Ok(Changed { config, root: next, opened })
}

/// The keys of all slots of a record.
pub(crate) fn slot_keys(config: &SealConfig, root: &Key256, known: &KnownKeys) -> Vec<(u32, Key256)> {
    let key_of = |slot: &Slot| match config.version {
        1 => known.v1.as_ref().map(slot_key),
        _ => config.open_escrow(slot, &derive_key(root, escrow_purpose(slot.id).as_bytes())),
    };
    config.slots.iter().filter_map(|slot| Some((slot.id, key_of(slot)?))).collect()
}

/// A record under change, with the keys of its slots.
struct Draft {
    config: SealConfig,
    keys: Vec<(u32, Key256)>,
    /// The keys of the slots whose KEK is known.
    opened: Vec<OpenedSlot>,
    /// The wrap keys, if they are known.
    wrap_keys: Option<WrapKeys>,
}

impl Draft {
    fn of(config: &SealConfig, root: &Key256, known: &KnownKeys) -> Result<Self> {
        let keys = slot_keys(config, root, known);
        if keys.len() != config.slots.len() {
            return Err(Error::internal("a slot of the seal record has no key under the root key"));
        }
        let mut config = config.clone();
        if config.version == 1 {
            config.version = 2;
            let check = known.v1.as_ref().map(share_key::check_value).unwrap_or_default();
            config.shares = config.shares.map(|shares| Shares { check, ..shares });
        }
        let wrap_keys = config.wrap_keys_by(&known.opened);
        Ok(Draft { config, keys, opened: Vec::new(), wrap_keys })
    }

    fn new_id(&mut self) -> Result<u32> {
        let id = self.config.next_slot;
        let next = id.checked_add(1).ok_or_else(|| Error::internal("no more slots"))?;
        self.config.next_slot = if planted!(SlotIdReused) { id } else { next };
        Ok(id)
    }

    fn next_generation(&mut self) -> Result<()> {
        let next = self.config.generation.checked_add(1).ok_or_else(|| Error::internal("no more root keys"))?;
        let next = if planted!(GenerationKept) { self.config.generation } else { next };
        // A KEK that is created with the root key belongs to it.
        for slot in self.config.slots.iter_mut().filter(|slot| slot.root.is_empty()) {
            slot.kek_generation = next;
        }
        self.config.generation = next;
        Ok(())
    }

    fn add(&mut self, new: NewSlot) -> Result<()> {
        if self.config.slot_named(&new.name).is_some() && !planted!(SealEnrolledTwice) {
            return Err(Error::invalid(format!("the seal {:?} is enrolled already", new.name)));
        }
        if self.config.seal_slots().count() >= MAX_SEALS {
            return Err(Error::invalid(format!("there are {MAX_SEALS} seals already")));
        }
        let id = self.new_id()?;
        let (kek, wrapped) = new.kek.into_parts();
        self.push(id, &new.name, new.kind, new.priority, Some(wrapped.into()), &kek);
        Ok(())
    }

    /// Adds a slot, whose ciphertexts are created at the end.
    fn push(&mut self, id: u32, name: &str, kind: &str, priority: u16, stored: Option<StoredKey>, kek: &Key256) {
        self.config.slots.push(Slot {
            id,
            name: name.to_owned(),
            kind: kind.to_owned(),
            priority,
            kek: stored,
            kek_generation: self.config.generation,
            root: String::new(),
            escrow: String::new(),
            wrap: None,
            wrap_escrow: None,
        });
        self.keys.push((id, slot_key(kek)));
        self.opened.push(OpenedSlot::new(id, kek));
    }

    fn drop_slot(&mut self, id: u32) {
        self.config.slots.retain(|slot| slot.id != id);
        self.keys.retain(|(known, _)| *known != id);
        self.opened.retain(|opened| opened.id != id);
    }

    /// Notes the keys of the slot of shares, which it may keep.
    fn note_shares(&mut self, key: &Key256) {
        let slot = self.config.shares.as_ref().and_then(|shares| shares.slot);
        self.opened.extend(slot.map(|id| OpenedSlot::new(id, key)));
    }

    fn id_of(&self, name: &str) -> Result<u32> {
        let slot = self.config.slot_named(name);
        slot.map(|slot| slot.id).ok_or_else(|| Error::invalid(format!("the seal {name:?} is not enrolled")))
    }

    /// Returns another root key if the shares do not open any more: with the record of before they would open this one.
    fn enroll(&mut self, new: NewSlot) -> Result<Option<Key256>> {
        let has_opened = self.config.opens_by_shares();
        self.add(new)?;
        self.fit_shares(None);
        Ok((has_opened && !self.config.opens_by_shares()).then(random::key))
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        let id = self.id_of(name)?;
        let is_last = self.config.seal_slots().count() < 2 && !self.config.opens_by_shares();
        if is_last && !planted!(LastSlotRemoved) {
            let text = "the last seal cannot be removed: nothing else opens the root key";
            return Err(Error::invalid(text));
        }
        self.drop_slot(id);
        self.fit_shares(None);
        Ok(())
    }

    /// Gives the shares their role and their slot. `key` is what they combine to, if it is known.
    fn fit_shares(&mut self, key: Option<&Key256>) {
        let role = if self.config.has_seals() { ShareRole::Recovery } else { ShareRole::Unseal };
        self.config.shares = self.config.shares.take().map(|shares| Shares { role, ..shares });
        self.fit_share_slot(key);
    }

    fn reorder(&mut self, names: &[String]) -> Result<()> {
        let (given, enrolled): (BTreeSet<&str>, BTreeSet<&str>) = (
            names.iter().map(String::as_str).collect(),
            self.config.seal_slots().map(|slot| slot.name.as_str()).collect(),
        );
        if (given.len() != names.len() || given != enrolled) && !planted!(PartOfTheOrder) {
            return Err(Error::invalid("the order must have the name of every enrolled seal once"));
        }
        for slot in self.config.slots.iter_mut().filter(|slot| slot.kek.is_some()) {
            let at = names.iter().position(|name| *name == slot.name).unwrap_or_default();
            slot.priority = u16::try_from(at).unwrap_or(u16::MAX).saturating_add(1);
        }
        Ok(())
    }

    fn replace_kek(&mut self, name: &str, kek: ProvenKek) -> Result<()> {
        let id = self.id_of(name)?;
        let (kek, wrapped) = kek.into_parts();
        let generation = self.config.generation;
        for slot in self.config.slots.iter_mut().filter(|slot| slot.id == id) {
            slot.kek = Some(wrapped.clone().into());
            slot.kek_generation = if planted!(KekGenerationKept) { slot.kek_generation } else { generation };
            (slot.wrap, slot.wrap_escrow) = (None, None);
        }
        if !planted!(OldKekKept) {
            self.keys.retain(|(known, _)| *known != id);
            self.keys.push((id, slot_key(&kek)));
        }
        self.opened.push(OpenedSlot::new(id, &kek));
        Ok(())
    }

    fn replace_shares(&mut self, shape: SealShape, key: &Key256, replaces: Option<&str>) -> Result<()> {
        let current = self.config.shares.as_ref().map(|shares| shares.check.as_str());
        if current != replaces && !planted!(StaleSharesReplaced) {
            return Err(Error::invalid("the shares have changed since; begin again"));
        }
        let old = self.config.shares.take();
        if let Some(id) = old.as_ref().and_then(|old| old.slot).filter(|_| !planted!(OldSharesKept)) {
            self.drop_slot(id);
        }
        let check = share_key::check_value(key);
        self.config.shares = Some(Shares { role: ShareRole::Unseal, shape, slot: None, check });
        self.fit_shares(Some(key));
        Ok(())
    }

    fn fit_share_slot(&mut self, key: Option<&Key256>) {
        let is_on = self.config.break_glass == BreakGlass::On;
        let Some(shares) = self.config.shares.clone() else { return };
        let opens = shares.role == ShareRole::Unseal || is_on;
        let slot = match (shares.slot, opens.then_some(key)) {
            (None, Some(Some(key))) => {
                let id = self.config.next_slot;
                self.config.next_slot = id.saturating_add(1);
                self.push(id, SHARES, SHARES, 0, None, key);
                Some(id)
            }
            (Some(id), None) => {
                self.drop_slot(id);
                None
            }
            (slot, _) => slot,
        };
        self.config.shares = Some(Shares { slot, ..shares });
    }

    fn set_break_glass(&mut self, to: BreakGlass, quorum: Option<&Key256>) -> Result<()> {
        if !self.config.has_seals() {
            return Err(Error::invalid("the unseal keys unseal: there is no other seal"));
        }
        self.config.break_glass = to;
        let shares = self.config.shares.clone();
        match (to, shares, quorum) {
            (BreakGlass::On, Some(shares), Some(key))
                if share_key::has_check_value(key, &shares.check) || planted!(BreakGlassByAnyShares) =>
            {
                self.fit_share_slot(Some(key));
                self.note_shares(key);
                Ok(())
            }
            (BreakGlass::On, Some(Shares { slot: Some(_), .. }) | None, _) => Ok(()),
            (BreakGlass::On, ..) => Err(Error::invalid("a quorum of the recovery keys is needed")),
            _ if planted!(BreakGlassSlotKept) => Ok(()),
            _ => {
                self.fit_share_slot(None);
                Ok(())
            }
        }
    }

    fn migrate(&mut self, migration: Migration) -> Result<Key256> {
        let Migration { to, quorum, forbids_break_glass, root } = migration;
        if forbids_break_glass && !to.is_empty() {
            self.config.break_glass = BreakGlass::Forbidden;
        }
        let source = self.config.seal_slots().map(|slot| slot.id).filter(|_| !planted!(SourceKeptByMigration));
        for id in source.collect::<Vec<_>>() {
            self.drop_slot(id);
        }
        for slot in to {
            self.add(slot)?;
        }
        match &self.config.shares {
            Some(shares) if share_key::has_check_value(&quorum, &shares.check) || planted!(MigrationByAnyShares) => {
                self.fit_shares(Some(&quorum));
                self.note_shares(&quorum);
            }
            _ => return Err(Error::invalid("a migration needs a quorum of the shares")),
        }
        Ok(root)
    }

    /// Replaces the wrap keys, by the escrow or by the KEKs that this server has seen.
    fn replace_wrap_keys(&mut self, keys: WrapKeys, known: &KnownKeys) -> Result<()> {
        let former = self.wrap_keys.take().unwrap_or_default();
        self.opened = self.config.opened_by(&former, &self.keys);
        self.opened.extend(known.opened.iter().filter(|opened| opened.is_of(&self.keys)).cloned());
        let is_opened = |slot: &&Slot| self.opened.iter().any(|opened| opened.id == slot.id);
        if let Some(slot) = self.config.slots.iter().find(|slot| !is_opened(slot)) {
            let text = match slot.kek {
                None => {
                    "values are wrapped once a quorum of the recovery keys was sent to sys/seals/break-glass".to_owned()
                }
                Some(_) => format!("values are wrapped once the seal {:?} has opened its slot", slot.name),
            };
            return Err(Error::new(Status::UNAVAILABLE, text));
        }
        self.config.wrap_generation = keys.generation();
        for slot in &mut self.config.slots {
            (slot.wrap, slot.wrap_escrow) = (None, None);
        }
        self.wrap_keys = Some(keys);
        Ok(())
    }

    /// Encrypts the root key in all slots and authenticates the record.
    fn finish(self, root: &Key256) -> Result<SealConfig> {
        let Draft { mut config, keys, opened, wrap_keys } = self;
        if config.slots.is_empty() && !planted!(LastSlotRemoved) {
            return Err(Error::invalid("nothing would open the root key"));
        }
        let mut slots = std::mem::take(&mut config.slots);
        for (at, slot) in slots.iter_mut().enumerate() {
            if planted!(OldBlobKept) && at == 0 && !slot.root.is_empty() {
                continue;
            }
            let key = keys.iter().find(|(id, _)| *id == slot.id);
            let (_, key) = key.ok_or_else(|| Error::internal("a slot without a key"))?;
            config.seal_slot(slot, key, root);
            if config.wrap_generation > 0 && slot.wrap.is_none() {
                let text = "this node does not have the wrap keys; seal it and unseal it again";
                let missing = || Error::new(Status::INTERNAL, text);
                let opened = opened.iter().find(|opened| opened.id == slot.id).ok_or_else(missing)?;
                config.seal_wrap_keys(slot, opened, wrap_keys.as_ref().ok_or_else(missing)?);
            }
        }
        config.slots = slots;
        config.authenticate(root)?;
        if config.to_bytes()?.len() > MAX_RECORD {
            return Err(Error::invalid("the record of the seal would be too long: remove a seal"));
        }
        Ok(config)
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
