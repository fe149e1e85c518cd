//! The first version of the record of the seal: the root key, encrypted under the unseal key itself. It stays readable forever.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use serde::Deserialize;

use super::kind::SealKind;
use super::record::{BreakGlass, SHARES, SealConfig, ShareRole, Shares, Slot};
use super::shape::SealShape;

/// The associated data of the encrypted root key. Stored data depends on it.
const CONTEXT: &[u8] = b"keepfast root key, sealed by shares";

/// The id of the slot of shares in a record of this version.
const SLOT: u32 = 1;

/// The record.
#[derive(Deserialize)]
pub(super) struct RecordV1 {
    #[serde(rename = "custody")]
    _kind: SealKind,
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
        };
        let shares = Shares { role: ShareRole::Unseal, shape: record.shape, slot: Some(SLOT), check: String::new() };
        SealConfig {
            version: 1,
            cluster_name: record.cluster_name,
            cluster_id: record.cluster_id,
            break_glass: BreakGlass::On,
            generation: 1,
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
pub(super) mod tests {
    use super::*;
    use crate::seal::record::WayIn;

    /// The unseal key is 00 01 … 1f, the root key 20 21 … 3f, the nonce 64 65 … 6f.
    pub(in crate::seal) fn stored() -> String {
        let sealed = STANDARD.encode(hex::decode(SEALED).unwrap());
        format!(
            r#"{{"version":1,"custody":"shamir","shape":{{"shares":3,"threshold":2}},"sealed_root":"{sealed}","cluster_name":"c","cluster_id":"i"}}"#
        )
    }

    pub(in crate::seal) fn unseal_key() -> Key256 {
        Key256::from_slice(&(0..32).collect::<Vec<u8>>()).unwrap()
    }

    const SEALED: &str = "6465666768696a6b6c6d6e6f683afc455dcc70b9164b75c3f64844d272f33439bf59c5459fe89673c79e9b773a1d059d5aa1aacf3f2c3545eaa39ed4";

    #[test]
    fn a_record_of_version_1_stays_readable() {
        let config = SealConfig::from_bytes(stored().as_bytes()).unwrap();
        assert_eq!(
            (config.version, config.kind(), config.shape()),
            (1, "shamir", SealShape { shares: 3, threshold: 2 })
        );
        assert_eq!((config.cluster_name.as_str(), config.cluster_id.as_str()), ("c", "i"));
        let root = config.open(&WayIn::Shares(unseal_key())).unwrap().unwrap();
        assert_eq!(root.expose().as_slice(), (32..64).collect::<Vec<u8>>());
        assert!(config.open(&WayIn::Shares(Key256::zeroed())).unwrap().is_none());
        assert!(config.open_slot(1, &unseal_key()).is_none(), "it has another context");
        assert!(SealConfig::from_bytes(stored().replace("shamir", "other").as_bytes()).is_err());
        assert!(SealConfig::from_bytes(stored().replace(":1,", ":3,").as_bytes()).is_err());
    }
}
