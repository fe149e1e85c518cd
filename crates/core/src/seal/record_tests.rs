//! The form of the seal record, and what opens it.

use super::*;
use keepfast_storage::WrapKeys;

use crate::seal::slots::{Initial, NewSlot, first_with};
use crate::seal::test_seal::TestSeal;

fn key(byte: u8) -> Key256 {
    Key256::new([byte; 32])
}

const SHAPE: SealShape = SealShape { shares: 3, threshold: 2 };

/// The golden record: of the root key 3…, with recovery shares of the key 2… and two seals with the KEKs that the tests
/// know.
const GOLDEN: &str = include_str!("../tests/golden/seal_record_v2.json");

/// The same with wrap keys of the generations 1 and 2: 32 times 4 and 32 times 5.
const GOLDEN_WRAPPED: &str = include_str!("../tests/golden/seal_record_v2_wrapped.json");

async fn record() -> (SealConfig, Vec<Key256>) {
    record_with(WrapKeys::default()).await
}

async fn record_with(wrap_keys: WrapKeys) -> (SealConfig, Vec<Key256>) {
    let mut seals = Vec::new();
    for name in ["a", "b"] {
        let kek = super::super::proven::ProvenKek::create(&*TestSeal::new()).await.unwrap();
        seals.push(NewSlot { name: name.to_owned(), kind: "static", priority: 1, kek });
    }
    let keks = seals.iter().map(|seal| seal.kek.kek().clone()).collect();
    let initial = Initial {
        cluster_name: "c".to_owned(),
        cluster_id: "i".to_owned(),
        root: &key(3),
        seals,
        shares: Some((SHAPE, &key(2))),
        forbids_break_glass: false,
    };
    (first_with(initial, wrap_keys).unwrap(), keks)
}

fn wrap_keys() -> WrapKeys {
    let entry = |generation: u8| [&[generation, 0, 0, 0][..], &[generation + 3; 32]].concat();
    WrapKeys::from_bytes(&[vec![1], entry(1), entry(2)].concat()).unwrap()
}

#[tokio::test]
async fn a_record_with_wrap_keys_stays_readable() {
    if std::env::var_os("KEEPFAST_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/golden/seal_record_v2_wrapped.json");
        let mut text = record_with(wrap_keys()).await.0.to_bytes().unwrap().to_vec();
        text.push(b'\n');
        std::fs::write(path, text).unwrap();
    }
    let config = SealConfig::from_bytes(GOLDEN_WRAPPED.trim_end().as_bytes()).unwrap();
    assert_eq!((config.wrap_generation, config.slots.len()), (2, 3));
    let way = WayIn::Shares(key(2));
    let root = config.open(&way).unwrap().unwrap();
    assert_eq!(root.expose(), key(3).expose());
    let keys = config.wrap_keys(&way).unwrap();
    assert_eq!(keys.to_bytes().expose(), wrap_keys().to_bytes().expose());
    let slot_keys: Vec<_> = config
        .slots
        .iter()
        .map(|slot| {
            (slot.id, config.open_escrow(slot, &derive_key(&root, escrow_purpose(slot.id).as_bytes())).unwrap())
        })
        .collect();
    let opened = config.opened_by(&keys, &slot_keys);
    assert_eq!(opened.len(), 3);
    for one in opened {
        let known = KnownKeys { slots: slot_keys.clone(), opened: vec![one], v1: None };
        assert!(config.open(&WayIn::Known(known)).unwrap().is_some());
    }
}

#[tokio::test]
async fn sec_the_root_key_and_the_record_lead_to_no_wrap_key() {
    let (config, keks) = record_with(wrap_keys()).await;
    let root = config.open(&WayIn::Shares(key(2))).unwrap().unwrap();
    for slot in &config.slots {
        let escrow = derive_key(&root, escrow_purpose(slot.id).as_bytes());
        let slot_key = config.open_escrow(slot, &escrow).unwrap();
        let known = [&root, &escrow, &slot_key, &derive_key(&root, b"wrap"), &derive_key(&slot_key, b"wrap")];
        for (sealed, key) in [&slot.wrap, &slot.wrap_escrow].into_iter().flat_map(|text| known.map(|key| (text, key))) {
            let sealed = STANDARD.decode(sealed.as_ref().unwrap()).unwrap();
            for context in [config.context(slot), config.wrap_context(slot)] {
                assert!(AeadKey::new(key).open(&context, &sealed).is_err());
            }
        }
    }
    // All slots have them, or the record is damaged.
    for change in [
        (|config: &mut SealConfig| config.slots[0].wrap = None) as fn(&mut SealConfig),
        |config| config.slots[1].wrap_escrow = None,
        |config| config.wrap_generation = 0,
    ] {
        let mut changed = config.clone();
        change(&mut changed);
        assert!(SealConfig::from_bytes(&changed.to_bytes().unwrap()).is_err());
    }
    // A slot is bound to its generation, and to its place.
    let way = WayIn::Slot(1, keks[0].clone());
    assert!(config.open(&way).unwrap().is_some());
    for change in [(|config: &mut SealConfig| config.wrap_generation = 3) as fn(&mut SealConfig), |config| {
        config.slots[0].wrap = config.slots[1].wrap.clone()
    }] {
        let mut changed = config.clone();
        change(&mut changed);
        changed.authenticate(&root).unwrap();
        assert!(changed.wrap_keys(&way).is_none() && changed.open(&way).is_err());
    }
}

#[test]
fn a_record_of_version_2_stays_readable() {
    let config = SealConfig::from_bytes(GOLDEN.trim_end().as_bytes()).unwrap();
    assert_eq!((config.version, config.kind(), config.shape()), (2, "static", SHAPE));
    let root = config.open(&WayIn::Shares(key(2))).unwrap().unwrap();
    assert_eq!(root.expose(), key(3).expose());
    for slot in config.slots.clone() {
        let escrow = derive_key(&root, escrow_purpose(slot.id).as_bytes());
        let slot_key = config.open_escrow(&slot, &escrow).unwrap();
        assert_eq!(config.open_slot(slot.id, &slot_key).unwrap().expose(), root.expose());
    }
    assert!(config.open(&WayIn::Shares(key(1))).unwrap().is_none());
    assert!(config.quorum(&[SecretBytes::new(vec![2; 33])]).is_none());
}

#[tokio::test]
async fn the_golden_record_is_of_this_form() {
    let (config, _) = record().await;
    let shape = |text: &str| {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        for slot in value["slots"].as_array_mut().unwrap() {
            for field in ["root", "escrow", "kek"] {
                slot[field] = slot[field].is_null().into();
            }
        }
        value["mac"] = serde_json::Value::Null;
        value
    };
    assert_eq!(shape(GOLDEN), shape(std::str::from_utf8(&config.to_bytes().unwrap()).unwrap()));
}

#[tokio::test]
async fn each_listed_slot_opens_alone_and_no_other_key_does() {
    let (config, keks) = record().await;
    for (slot, kek) in config.seal_slots().zip(&keks) {
        assert_eq!(config.open(&WayIn::Slot(slot.id, kek.clone())).unwrap().unwrap().expose(), key(3).expose());
        assert!(config.open(&WayIn::Slot(slot.id + 1, kek.clone())).unwrap().is_none());
        assert!(config.open(&WayIn::Shares(kek.clone())).unwrap().is_none());
    }
    assert!(config.open(&WayIn::Slot(1, key(2))).unwrap().is_none());
    assert!(config.open(&WayIn::Known(KnownKeys::default())).unwrap().is_none());
}

#[tokio::test]
async fn sec_cs06_every_field_of_the_seal_record_is_authenticated() {
    let (config, keks) = record_with(wrap_keys()).await;
    let bytes = config.to_bytes().unwrap();
    let ways = || {
        let slots = config.seal_slots().zip(&keks).map(|(slot, kek)| WayIn::Slot(slot.id, kek.clone()));
        slots.chain([WayIn::Shares(key(2))])
    };
    let opens = |bytes: &[u8]| {
        let Ok(changed) = SealConfig::from_bytes(bytes) else { return false };
        ways().any(|way| matches!(changed.open(&way), Ok(Some(_))))
    };
    assert!(opens(&bytes));
    for at in 0..bytes.len() {
        for bit in [1, 0x20] {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= bit;
            assert!(!opens(&flipped), "byte {at} of {}", String::from_utf8_lossy(&bytes));
        }
    }
    let changed = |change: fn(&mut SealConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        opens(&changed.to_bytes().unwrap())
    };
    assert!(!changed(|config| config.slots.swap(0, 1)));
    assert!(!changed(|config| drop(config.slots.pop())));
    assert!(!changed(|config| config.break_glass = BreakGlass::Off));
    assert!(!changed(|config| config.shares.as_mut().unwrap().shape.threshold = 1));
    let other = SealConfig { cluster_id: "j".to_owned(), ..config.clone() };
    assert!(ways().all(|way| other.open(&way).unwrap().is_none()), "a slot belongs to its cluster");
    let spaced = String::from_utf8(bytes.to_vec()).unwrap().replacen(':', ": ", 1);
    assert!(SealConfig::from_bytes(spaced.as_bytes()).is_err(), "there is one form");
}

#[tokio::test]
async fn recovery_shares_open_only_with_break_glass() {
    let (config, _) = record().await;
    assert!(config.opens_by_shares());
    for other in [BreakGlass::Off, BreakGlass::Forbidden] {
        let config = SealConfig { break_glass: other, ..config.clone() };
        assert!(!config.opens_by_shares() && config.open(&WayIn::Shares(key(2))).unwrap().is_none());
        assert!(config.is_share_key(&key(2)), "they still are a quorum");
    }
}

#[test]
fn a_record_is_bounded() {
    let long = format!("{{\"version\":2,\"cluster_name\":\"{}\"", "x".repeat(MAX_RECORD));
    assert!(SealConfig::from_bytes(long.as_bytes()).is_err());
    for text in ["", "{}", "null", r#"{"version":2}"#, r#"{"version":0}"#] {
        assert!(SealConfig::from_bytes(text.as_bytes()).is_err(), "{text}");
    }
}
