//! The stored record of the seal, the only plaintext record of the storage: one slot for each way to the root key.
//!
//! Each slot has a random key of its own, the KEK. The KEK of a seal is stored as the seal wrapped it; that of the shares
//! is the key that the shares combine to. The slot key `Kr = HKDF(KEK, "root")` encrypts the root key, and the root key
//! encrypts `Kr` (the escrow), so that an unsealed server can put another root key into every slot without the seals and
//! the shares. An HMAC under the root key covers the record. The wrap keys are in every slot in the same way, see
//! [`wrapped_slot`](super::wrapped_slot).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::compare;
use keepfast_crypto::hmac::HmacKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::WrappedKey;
use keepfast_framework::{Error, Result, Status};
use keepfast_storage::{Backend, SealRecord, derive_key};
use serde::{Deserialize, Serialize};

use super::planted::planted;
use super::record_v1::{self, RecordV1};
use super::set::MAX_SEALS;
use super::shape::SealShape;
use super::share_key;
use super::wrapped_slot::OpenedSlot;

/// The longest record in bytes: a node that joins accepts no longer one.
pub(super) const MAX_RECORD: usize = 64 << 10;
/// The kind of the slot of shares.
pub(super) const SHARES: &str = "shares";
/// The type of a seal whose key is under shares only, in `sys/seal-status`.
pub(crate) const SHAMIR: &str = "shamir";

/// The record of the seal. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealConfig {
    /// Version of this record. The first version is read, and becomes the second with the next root key.
    pub(crate) version: u32,
    /// The cluster's name.
    pub(crate) cluster_name: String,
    /// The cluster's random id.
    pub(crate) cluster_id: String,
    /// Whether recovery shares unseal.
    pub(crate) break_glass: BreakGlass,
    /// Counts the root keys, from 1.
    pub(crate) generation: u64,
    /// The generation of the newest wrap key; 0, and then not stored, if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) wrap_generation: u32,
    /// The id of the next slot: an id is never used twice.
    pub(crate) next_slot: u32,
    /// The ways to the root key.
    pub(crate) slots: Vec<Slot>,
    /// The shares, if there are any.
    pub(crate) shares: Option<Shares>,
    /// HMAC of the record without this field, under a key derived from the root key.
    pub(crate) mac: String,
}

/// Whether a quorum of recovery shares unseals a server whose seals are down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BreakGlass {
    /// The shares have a slot.
    On,
    /// An operator has turned it off.
    Off,
    /// The configuration turns it off (`disable_break_glass`).
    Forbidden,
}

/// One way to the root key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slot {
    /// The id, never used again.
    pub(crate) id: u32,
    /// The name of the seal.
    pub(crate) name: String,
    /// The type of the seal, or `shares`.
    pub(crate) kind: String,
    /// The order in which the slots are tried, the lowest first.
    pub(crate) priority: u16,
    /// The KEK, wrapped by the seal; `None` for shares.
    pub(crate) kek: Option<StoredKey>,
    /// The generation of the root key when the KEK was created.
    pub(crate) kek_generation: u64,
    /// The root key under the slot key, base64.
    pub(crate) root: String,
    /// The slot key under the root key, base64.
    pub(crate) escrow: String,
    /// The wrap keys under the KEK, base64; `None` if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrap: Option<String>,
    /// The key of `wrap` under the newest wrap key, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrap_escrow: Option<String>,
}

/// A [`WrappedKey`] as stored, with its bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKey {
    pub(crate) key_id: String,
    pub(crate) mechanism: String,
    blob: String,
    iv: Option<String>,
    tag: Option<String>,
}

/// The shares and what they are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shares {
    pub(crate) role: ShareRole,
    /// The number of shares and the threshold.
    #[serde(flatten)]
    pub(crate) shape: SealShape,
    /// The slot that they open.
    pub(crate) slot: Option<u32>,
    /// The check value of the key that they combine to.
    pub(crate) check: String,
}

/// What shares are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ShareRole {
    /// They unseal.
    Unseal,
    /// They authorize operations, and unseal with [`BreakGlass::On`].
    Recovery,
}

/// What opens the root key.
pub(crate) enum WayIn {
    /// The key that shares combine to.
    Shares(Key256),
    /// The KEK of a slot, which its seal has unwrapped.
    Slot(u32, Key256),
    /// The keys of the slots of the former record.
    Known(KnownKeys),
}

/// The keys of slots, of an unsealed server.
#[derive(Clone, Default)]
pub(crate) struct KnownKeys {
    /// The slot keys, by the ids of the slots.
    pub(crate) slots: Vec<(u32, Key256)>,
    /// The unseal key, of a record of the first version only.
    pub(crate) v1: Option<Key256>,
    /// The keys of slots whose KEK this server has seen, for the wrap keys.
    pub(crate) opened: Vec<OpenedSlot>,
}

impl SealConfig {
    /// The stored record; `None` when the storage is not initialised.
    pub(crate) async fn load(backend: &dyn Backend) -> Result<Option<Self>> {
        SealRecord::load(backend).await?.map(|bytes| Self::from_bytes(&bytes)).transpose()
    }

    /// Reads the record. The second version has one form, so that its HMAC covers every byte.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if bytes.len() > MAX_RECORD {
            return Err(Error::internal("the record of the seal is too long"));
        }
        match serde_json::from_slice::<Version>(bytes)?.version {
            1 => Ok(serde_json::from_slice::<RecordV1>(bytes)?.into()),
            2 => {
                let config: Self = serde_json::from_slice(bytes)?;
                let is_whole = config.has_wrap_keys_in_all_slots_or_none() && !config.has_repeated_slots();
                if config.to_bytes()? != bytes || config.slots.len() > MAX_SEALS + 1 || !is_whole {
                    return Err(Error::internal("the record of the seal is damaged"));
                }
                Ok(config)
            }
            other => Err(Error::internal(format!("the record of the seal has version {other}, which is not known"))),
        }
    }

    /// Whether two slots have one id, or two seals one name.
    fn has_repeated_slots(&self) -> bool {
        let ids: BTreeSet<u32> = self.slots.iter().map(|slot| slot.id).collect();
        let names: BTreeSet<&str> = self.seal_slots().map(|slot| slot.name.as_str()).collect();
        ids.len() != self.slots.len() || names.len() != self.seal_slots().count()
    }

    /// The record as stored.
    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        Ok(Bytes::from(serde_json::to_vec(self)?))
    }

    /// The type of the seal for `sys/seal-status`: that of the seal which is tried first, or `shamir`.
    pub(crate) fn kind(&self) -> &str {
        self.seal_slots().next().map_or(SHAMIR, |slot| slot.kind.as_str())
    }

    /// Whether a seal unseals, and shares are recovery shares.
    pub(crate) fn has_seals(&self) -> bool {
        self.seal_slots().next().is_some()
    }

    /// The slots of seals, in the order in which they are tried.
    pub(crate) fn seal_slots(&self) -> impl Iterator<Item = &Slot> {
        let mut slots: Vec<&Slot> = self.slots.iter().filter(|slot| slot.kek.is_some()).collect();
        slots.sort_by_key(|slot| slot.priority);
        slots.into_iter()
    }

    /// The slot of the seal with this name.
    pub(crate) fn slot_named(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.kek.is_some() && slot.name == name)
    }

    pub(crate) fn slot(&self, id: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    /// The number of shares and the threshold; zeros without shares.
    pub(crate) fn shape(&self) -> SealShape {
        self.shares.as_ref().map_or(SealShape { shares: 0, threshold: 0 }, |shares| shares.shape)
    }

    /// Whether a quorum of shares opens the root key.
    pub(crate) fn opens_by_shares(&self) -> bool {
        let Some(shares) = &self.shares else { return false };
        let is_on = self.break_glass == BreakGlass::On || planted!(BreakGlassIgnored);
        shares.slot.is_some() && (shares.role == ShareRole::Unseal || is_on)
    }

    /// The key of these shares, if they are a quorum; it needs no seal.
    pub(crate) fn quorum(&self, submitted: &[SecretBytes]) -> Option<Key256> {
        share_key::combine(self.shape(), submitted).filter(|key| self.is_share_key(key))
    }

    pub(super) fn is_share_key(&self, key: &Key256) -> bool {
        match &self.shares {
            Some(_) if self.version == 1 => self.open_v1(key).is_some(),
            Some(shares) => share_key::has_check_value(key, &shares.check),
            None => false,
        }
    }

    /// The root key; `None` when it is not under this key.
    ///
    /// # Errors
    /// When the record was changed by someone without the root key.
    pub(crate) fn open(&self, way: &WayIn) -> Result<Option<Key256>> {
        let root = match way {
            WayIn::Shares(key) if self.version == 1 => self.open_v1(key),
            WayIn::Shares(key) => {
                let slot = self.shares.as_ref().filter(|_| self.opens_by_shares()).and_then(|shares| shares.slot);
                slot.and_then(|id| self.open_slot(id, &slot_key(key)))
            }
            WayIn::Slot(id, kek) => self.open_slot(*id, &slot_key(kek)),
            WayIn::Known(known) if self.version == 1 => known.v1.as_ref().and_then(|key| self.open_v1(key)),
            WayIn::Known(known) => known.slots.iter().find_map(|(id, key)| self.open_slot(*id, key)),
        };
        let Some(root) = root else { return Ok(None) };
        self.check_mac(&root)?;
        // Without the wrap keys the server would lose the wrapped values.
        match (self.wrap_keys(way), way) {
            (Some(_), _) => Ok(Some(root)),
            (None, WayIn::Known(_)) => Ok(None),
            (None, _) => Err(Error::internal("the seal record is damaged: its wrap keys do not open")),
        }
    }

    fn open_v1(&self, unseal_key: &Key256) -> Option<Key256> {
        record_v1::open(unseal_key, &self.slots.first()?.root)
    }

    pub(super) fn open_slot(&self, id: u32, slot_key: &Key256) -> Option<Key256> {
        let slot = self.slot(id)?;
        open(slot_key, &self.context(slot), &slot.root)
    }

    /// The slot key of a slot, by a key that [`escrow_purpose`] derives from the root key.
    pub(super) fn open_escrow(&self, slot: &Slot, escrow_key: &Key256) -> Option<Key256> {
        open(escrow_key, &self.context(slot), &slot.escrow)
    }

    /// What the ciphertexts of a slot are bound to: cluster, slot and generation of the root key.
    fn context(&self, slot: &Slot) -> Vec<u8> {
        let (id, generation) = (slot.id.to_le_bytes(), self.generation.to_le_bytes());
        [&b"kf slot 2"[..], &id, &generation, self.cluster_id.as_bytes()].concat()
    }

    /// Encrypts the root key of this generation and the key of a slot under each other.
    pub(super) fn seal_slot(&self, slot: &mut Slot, slot_key: &Key256, root: &Key256) {
        let context = self.context(slot);
        let escrow = derive_key(root, escrow_purpose(slot.id).as_bytes());
        slot.root = STANDARD.encode(AeadKey::new(slot_key).seal(&context, root.expose()));
        let context = if planted!(EscrowMisbound) { Vec::new() } else { context };
        slot.escrow = STANDARD.encode(AeadKey::new(&escrow).seal(&context, slot_key.expose()));
    }

    /// Authenticates the record under its root key.
    pub(super) fn authenticate(&mut self, root: &Key256) -> Result<()> {
        self.mac = self.mac_under(root)?;
        Ok(())
    }

    /// Checks that the holder of this root key has written the record. The first version has no HMAC.
    pub(super) fn check_mac(&self, root: &Key256) -> Result<()> {
        let is_right = compare::equal(self.mac_under(root)?.as_bytes(), self.mac.as_bytes());
        if self.version == 1 || is_right || planted!(MacIgnored) {
            return Ok(());
        }
        let text = "the seal record was changed by someone without the root key: restore it from a snapshot";
        Err(Error::new(Status::INTERNAL, text))
    }

    fn mac_under(&self, root: &Key256) -> Result<String> {
        let bare = SealConfig { mac: String::new(), ..self.clone() };
        let key = derive_key(root, b"kf seal record 2");
        Ok(hex::encode(HmacKey::new(key.expose()).mac(&bare.to_bytes()?)))
    }
}

impl From<WrappedKey> for StoredKey {
    fn from(key: WrappedKey) -> Self {
        let text = |bytes: &Bytes| STANDARD.encode(bytes);
        StoredKey {
            blob: text(&key.blob),
            iv: key.iv.as_ref().map(text),
            tag: key.tag.as_ref().map(text),
            key_id: key.key_id,
            mechanism: key.mechanism,
        }
    }
}

impl StoredKey {
    /// The key as its seal wrapped it; `None` when it is damaged.
    pub(super) fn wrapped(&self) -> Option<WrappedKey> {
        let bytes = |text: &String| STANDARD.decode(text).ok().map(Bytes::from);
        let optional = |text: &Option<String>| match text {
            Some(text) => bytes(text).map(Some),
            None => Some(None),
        };
        Some(WrappedKey {
            key_id: self.key_id.clone(),
            mechanism: self.mechanism.clone(),
            blob: bytes(&self.blob)?,
            iv: optional(&self.iv)?,
            tag: optional(&self.tag)?,
        })
    }
}

fn is_zero(generation: &u32) -> bool {
    *generation == 0
}

/// The key of a slot, which encrypts the root key.
pub(crate) fn slot_key(kek: &Key256) -> Key256 {
    derive_key(kek, b"root")
}

/// The purpose of the key, derived from the root key, that encrypts the key of a slot.
pub(super) fn escrow_purpose(slot: u32) -> String {
    format!("kf escrow 2 {slot}")
}

fn open(key: &Key256, context: &[u8], sealed: &str) -> Option<Key256> {
    let sealed = STANDARD.decode(sealed).ok()?;
    let plain = SecretBytes::new(AeadKey::new(key).open(context, &sealed).ok()?);
    Key256::from_slice(plain.expose())
}

#[cfg(test)]
pub(crate) use super::record_v1::sealed as sealed_v1;

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
