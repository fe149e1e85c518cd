//! Changes of the seal record, rule by rule. `slots_model.rs` has any sequence of changes.

use super::super::record_v1;
use super::super::test_seal::{Behaviour, TestSeal};
use super::*;

const SHAPE: SealShape = SealShape { shares: 5, threshold: 3 };

async fn proven() -> ProvenKek {
    ProvenKek::create(&*TestSeal::new()).await.unwrap()
}

async fn slot(name: &str) -> NewSlot {
    NewSlot { name: name.to_owned(), kind: "static", priority: 5, kek: proven().await }
}

fn initial<'a>(root: &'a Key256, seals: Vec<NewSlot>, key: Option<&'a Key256>) -> SealConfig {
    let shares = key.map(|key| (SHAPE, key));
    let (cluster_name, cluster_id) = ("c".to_owned(), "i".to_owned());
    first(Initial { cluster_name, cluster_id, root, seals, shares, forbids_break_glass: false }).unwrap()
}

fn remove(name: &str) -> Change {
    Change::Remove { name: name.to_owned(), root: random::key() }
}

fn break_glass(to: BreakGlass, quorum: Option<Key256>) -> Change {
    Change::BreakGlass { to, quorum, root: random::key() }
}

/// New shares in place of those of this key.
fn new_shares(old: Option<&Key256>) -> Change {
    let replaces = old.map(share_key::check_value);
    Change::NewShares { shape: SHAPE, key: random::key(), replaces, root: random::key() }
}

#[tokio::test]
async fn sec_cs05_a_new_root_leaves_no_old_blob() {
    let (root, key, next) = (random::key(), random::key(), random::key());
    let config = initial(&root, vec![slot("a").await, slot("b").await], Some(&key));
    let changed = apply(&config, Change::NewRoot(next.clone()), &root, &KnownKeys::default()).unwrap();
    assert_eq!(changed.config.generation, 2);
    for (old, new) in config.slots.iter().zip(&changed.config.slots) {
        assert!(old.id == new.id && old.kek == new.kek && new.kek_generation == 1);
        assert!(old.root != new.root && old.escrow != new.escrow);
    }
    assert!(changed.config.check_mac(&next).is_ok() && changed.config.check_mac(&root).is_err());
    // The old root key changes nothing any more.
    assert!(apply(&changed.config, Change::NewRoot(random::key()), &root, &KnownKeys::default()).is_err());
}

#[tokio::test]
async fn what_alone_opens_the_root_key_is_not_removed() {
    let root = random::key();
    let config = initial(&root, vec![slot("a").await], None);
    let removed = apply(&config, remove("a"), &root, &KnownKeys::default());
    assert!(removed.err().unwrap().public().contains("the last seal cannot be removed"));
    let nothing = Initial {
        cluster_name: String::new(),
        cluster_id: String::new(),
        root: &root,
        seals: Vec::new(),
        shares: None,
        forbids_break_glass: false,
    };
    assert!(first(nothing).is_err(), "nothing would open it");
}

#[tokio::test]
async fn break_glass_is_turned_on_by_a_quorum_only() {
    let (root, key, known) = (random::key(), random::key(), KnownKeys::default());
    let config = initial(&root, vec![slot("a").await], Some(&key));
    let Changed { config: off, root } = apply(&config, break_glass(BreakGlass::Off, None), &root, &known).unwrap();
    let root = root.unwrap();
    assert!(!off.opens_by_shares() && off.slots.len() == 1 && off.generation == 2);
    for wrong in [None, Some(random::key())] {
        assert!(apply(&off, break_glass(BreakGlass::On, wrong), &root, &known).is_err());
    }
    // The seal is the only way in then.
    assert!(apply(&off, remove("a"), &root, &known).is_err());
    let on = apply(&off, break_glass(BreakGlass::On, Some(key.clone())), &root, &known).unwrap().config;
    assert!(on.open(&WayIn::Shares(key)).unwrap().is_some());
}

#[tokio::test]
async fn shares_change_their_role_with_the_first_and_the_last_seal() {
    let (root, key, known) = (random::key(), random::key(), KnownKeys::default());
    let config = initial(&root, Vec::new(), Some(&key));
    let role = |config: &SealConfig| config.shares.as_ref().unwrap().role;
    let with = apply(&config, Change::Enroll(slot("a").await), &root, &known).unwrap().config;
    assert_eq!((role(&config), role(&with)), (ShareRole::Unseal, ShareRole::Recovery));
    let without = apply(&with, remove("a"), &root, &known).unwrap().config;
    assert_eq!(role(&without), ShareRole::Unseal);
    assert!(without.open(&WayIn::Shares(key)).unwrap().is_some());
}

#[tokio::test]
async fn sec_new_shares_replace_only_those_that_authorized_them() {
    let (root, key, known) = (random::key(), random::key(), KnownKeys::default());
    let with = initial(&root, vec![slot("a").await], Some(&key));
    let without = initial(&root, vec![slot("a").await], None);
    for (config, old, is_allowed) in [
        (&with, Some(&key), true),
        (&with, Some(&random::key()), false),
        (&with, None, false),
        (&without, None, true),
        (&without, Some(&key), false),
    ] {
        let changed = apply(config, new_shares(old), &root, &known);
        let refused = changed.err().map(|error| (error.status(), error.public().to_owned()));
        let text = "the shares have changed since; begin again".to_owned();
        assert_eq!(refused, (!is_allowed).then_some((Status::BAD_REQUEST, text)));
    }
}

#[tokio::test]
async fn a_record_with_a_repeated_slot_is_damaged() {
    let root = random::key();
    let config = initial(&root, vec![slot("a").await, slot("b").await], None);
    let changed = |change: fn(&mut SealConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        SealConfig::from_bytes(&changed.to_bytes().unwrap())
    };
    assert!(changed(|_| {}).is_ok());
    assert!(changed(|config| config.slots[1].id = config.slots[0].id).is_err());
    assert!(changed(|config| config.slots[1].name = config.slots[0].name.clone()).is_err());
}

#[tokio::test]
async fn a_migration_to_seals_forbids_break_glass_as_configured() {
    let (root, key, known) = (random::key(), random::key(), KnownKeys::default());
    let config = initial(&root, Vec::new(), Some(&key));
    let migrated = |config: &SealConfig, to, root: &Key256| {
        let change = Migration { to, quorum: key.clone(), forbids_break_glass: true, root: random::key() };
        apply(config, Change::Migrate(change), root, &known).unwrap()
    };
    let to_seals = migrated(&config, vec![slot("a").await], &root);
    assert_eq!((to_seals.config.break_glass, to_seals.config.slots.len()), (BreakGlass::Forbidden, 1));
    assert!(to_seals.config.open(&WayIn::Shares(key.clone())).unwrap().is_none());
    let to_shares = migrated(&to_seals.config, Vec::new(), &to_seals.root.unwrap()).config;
    assert!(to_shares.open(&WayIn::Shares(key.clone())).unwrap().is_some());
}

#[tokio::test]
async fn seals_are_reordered_all_together() {
    let (root, known) = (random::key(), KnownKeys::default());
    let config = initial(&root, vec![slot("a").await, slot("b").await, slot("c").await], None);
    let order = |names: &[&str]| Change::Reorder(names.iter().map(|name| (*name).to_owned()).collect());
    let next = apply(&config, order(&["c", "a", "b"]), &root, &known).unwrap().config;
    assert_eq!(next.seal_slots().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
    for wrong in [&["a", "b"][..], &["a", "b", "c", "d"], &["a", "a", "b", "c"], &[]] {
        assert!(apply(&config, order(wrong), &root, &known).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_seal_that_wraps_garbage_is_never_enrolled() {
    let seal = TestSeal::new();
    for behaviour in [Behaviour::WrapsGarbage, Behaviour::OnlyWraps] {
        seal.set(behaviour);
        assert!(ProvenKek::create(&*seal).await.is_err(), "{behaviour:?}");
    }
}

#[test]
fn a_record_of_version_1_becomes_one_of_version_2_with_the_next_root_key() {
    let stored = record_v1::tests::stored();
    let config = SealConfig::from_bytes(stored.as_bytes()).unwrap();
    let key = record_v1::tests::unseal_key();
    let root = config.open(&WayIn::Shares(key.clone())).unwrap().unwrap();
    let known = KnownKeys { v1: Some(key.clone()), ..KnownKeys::default() };
    assert!(apply(&config, Change::NewRoot(random::key()), &root, &KnownKeys::default()).is_err());
    assert!(apply(&config, break_glass(BreakGlass::Off, None), &root, &known).is_err());
    let next = random::key();
    let changed = apply(&config, Change::NewRoot(next.clone()), &root, &known).unwrap().config;
    assert_eq!((changed.version, changed.generation, changed.shape()), (2, 2, config.shape()));
    let opened = changed.open(&WayIn::Shares(key.clone())).unwrap().unwrap();
    assert!(opened.expose() == next.expose() && changed.is_share_key(&key));
    let changed = apply(&config, new_shares(Some(&key)), &root, &known).unwrap().config;
    assert!(changed.version == 2 && changed.open(&WayIn::Shares(key)).unwrap().is_none());
}
