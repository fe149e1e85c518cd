//! A stored record of the first version.

use super::*;
use crate::seal::record::WayIn;

/// The unseal key is 00 01 … 1f, the root key 20 21 … 3f, the nonce 64 65 … 6f.
pub(crate) fn stored() -> String {
    let sealed = STANDARD.encode(hex::decode(SEALED).unwrap());
    format!(
        r#"{{"version":1,"custody":"shamir","shape":{{"shares":3,"threshold":2}},"sealed_root":"{sealed}","cluster_name":"c","cluster_id":"i"}}"#
    )
}

pub(crate) fn unseal_key() -> Key256 {
    Key256::from_slice(&(0..32).collect::<Vec<u8>>()).unwrap()
}

const SEALED: &str = "6465666768696a6b6c6d6e6f683afc455dcc70b9164b75c3f64844d272f33439bf59c5459fe89673c79e9b773a1d059d5aa1aacf3f2c3545eaa39ed4";

#[test]
fn a_record_of_version_1_stays_readable() {
    let config = SealConfig::from_bytes(stored().as_bytes()).unwrap();
    assert_eq!((config.version, config.kind(), config.shape()), (1, "shamir", SealShape { shares: 3, threshold: 2 }));
    assert_eq!((config.cluster_name.as_str(), config.cluster_id.as_str()), ("c", "i"));
    let root = config.open(&WayIn::Shares(unseal_key())).unwrap().unwrap();
    assert_eq!(root.expose().as_slice(), (32..64).collect::<Vec<u8>>());
    assert!(config.open(&WayIn::Shares(Key256::zeroed())).unwrap().is_none());
    assert!(config.open_slot(1, &unseal_key()).is_none(), "it has another context");
    assert!(SealConfig::from_bytes(stored().replace("shamir", "other").as_bytes()).is_err());
    assert!(SealConfig::from_bytes(stored().replace(":1,", ":3,").as_bytes()).is_err());
}
