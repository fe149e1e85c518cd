//! The first version of the record of the seal: the root key, encrypted under the unseal key itself. It stays readable forever.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use serde::Deserialize;

use super::record::{BreakGlass, SHARES, SealConfig, ShareRole, Shares, Slot};
use super::shape::SealShape;

/// The associated data of the encrypted root key. Stored data depends on it.
const CONTEXT: &[u8] = b"keepfast root key, sealed by shares";

/// The id of the slot of shares in a record of this version.
const SLOT: u32 = 1;

/// The type of the seal.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindV1 {
    Shamir,
}

/// The record.
#[derive(Deserialize)]
pub(super) struct RecordV1 {
    #[serde(rename = "custody")]
    _kind: KindV1,
    shape: SealShape,
    sealed_root: String,
    cluster_name: String,
    cluster_id: String,
}

/// Decrypts the root key; `None` for another unseal key.
pub(super) fn open(unseal_key: &Key256, sealed_root: &str) -> Option<Key256> {
    let sealed = STANDARD.decode(sealed_root).ok()?;
    let plain = SecretBytes::new(AeadKey::new(unseal_key).open(CONTEXT, &sealed).ok()?);
    Key256::from_slice(plain.expose())
}

impl From<RecordV1> for SealConfig {
    fn from(record: RecordV1) -> Self {
        let slot = Slot {
            id: SLOT,
            name: SHARES.to_owned(),
            kind: SHARES.to_owned(),
            priority: 0,
            kek: None,
            kek_generation: 1,
            root: record.sealed_root,
            escrow: String::new(),
            wrap: None,
            wrap_escrow: None,
        };
        let shares = Shares { role: ShareRole::Unseal, shape: record.shape, slot: Some(SLOT), check: String::new() };
        SealConfig {
            version: 1,
            cluster_name: record.cluster_name,
            cluster_id: record.cluster_id,
            break_glass: BreakGlass::On,
            generation: 1,
            wrap_generation: 0,
            next_slot: SLOT + 1,
            slots: vec![slot],
            shares: Some(shares),
            mac: String::new(),
        }
    }
}

/// The root key as this version stored it.
#[cfg(test)]
pub(crate) fn sealed(unseal_key: &Key256, root: &Key256) -> String {
    STANDARD.encode(AeadKey::new(unseal_key).seal(CONTEXT, root.expose()))
}

#[cfg(test)]
#[path = "record_v1_tests.rs"]
pub(super) mod tests;
