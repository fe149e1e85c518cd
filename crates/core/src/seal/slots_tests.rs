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
    Change::NewShares { shape: SHAPE, key: random::key(), replaces, root: random::key(), backup: None }
}

#[tokio::test]
async fn the_first_seal_of_a_cluster_leaves_the_shares_their_slot() {
    let (root, key) = (random::key(), random::key());
    let mut config = initial(&root, Vec::new(), Some(&key));
    config.break_glass = BreakGlass::Forbidden;
    config.authenticate(&root).unwrap();
    for (change, opens) in
        [(Change::Enroll(slot("a").await), false), (Change::EnrollBesideShares(slot("a").await), true)]
    {
        let next = apply(&config, change, &root, &KnownKeys::default()).unwrap().config;
        assert_eq!((next.opens_by_shares(), next.seal_slots().count()), (opens, 1));
    }
    // Later ones do not let shares unseal that do not.
    let with_seal = apply(&config, Change::Enroll(slot("a").await), &root, &KnownKeys::default()).unwrap();
    let (with_seal, root) = (with_seal.config, with_seal.root.unwrap());
    let change = Change::EnrollBesideShares(slot("b").await);
    assert!(!apply(&with_seal, change, &root, &KnownKeys::default()).unwrap().config.opens_by_shares());
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
    let Changed { config: off, root, .. } = apply(&config, break_glass(BreakGlass::Off, None), &root, &known).unwrap();
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

/// What this server knows of a record by its wrap keys, as it follows the records.
fn followed(config: &SealConfig, root: &Key256, keys: &WrapKeys) -> KnownKeys {
    let slots = slot_keys(config, root, &KnownKeys::default());
    KnownKeys { opened: config.opened_by(keys, &slots), slots, v1: None }
}

#[tokio::test]
async fn sec_cs05_every_slot_has_the_wrap_keys_after_any_change() {
    let (mut root, key, keys) = (random::key(), random::key(), WrapKeys::first());
    let (a, b, c) = (slot("a").await, slot("b").await, slot("c").await);
    let mut keks: Vec<(&str, Key256)> =
        [("a", &a), ("b", &b), ("c", &c)].map(|(name, slot)| (name, slot.kek.kek().clone())).to_vec();
    let initial = Initial {
        cluster_name: "c".to_owned(),
        cluster_id: "i".to_owned(),
        root: &root,
        seals: vec![a, b],
        shares: Some((SHAPE, &key)),
        forbids_break_glass: false,
    };
    let mut config = first_with(initial, keys.clone()).unwrap();
    let (d, kek) = (slot("a").await, proven().await);
    let (new_key, new_kek) = (random::key(), kek.kek().clone());
    let with_key = Change::NewShares {
        shape: SHAPE,
        key: new_key.clone(),
        replaces: Some(share_key::check_value(&key)),
        root: random::key(),
        backup: None,
    };
    let migration = |to| {
        let (quorum, root) = (new_key.clone(), random::key());
        Change::Migrate(Migration { to, quorum, forbids_break_glass: false, root })
    };
    let to_seals_kek = d.kek.kek().clone();
    let changes = [
        Change::Enroll(c),
        Change::NewRoot(random::key()),
        Change::NewKek("b".to_owned(), kek),
        Change::Reorder(["c", "a", "b"].map(str::to_owned).to_vec()),
        remove("a"),
        with_key,
        break_glass(BreakGlass::Off, None),
        break_glass(BreakGlass::On, Some(new_key.clone())),
        migration(Vec::new()),
        migration(vec![d]),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let old = config.clone();
        let known = followed(&config, &root, &keys);
        assert_eq!(known.opened.len(), config.slots.len(), "{at}");
        let changed = apply(&config, change, &root, &known).unwrap();
        (config, root) = (changed.config, changed.root.unwrap_or(root));
        if at == 2 {
            keks.retain(|(name, _)| *name != "b");
            keks.push(("b", new_kek.clone()));
        }
        if at == 9 {
            keks = vec![("a", to_seals_kek.clone())];
        }
        assert_eq!(config.wrap_generation, 1);
        assert_eq!(&SealConfig::from_bytes(&config.to_bytes().unwrap()).unwrap(), &config, "{at}");
        for slot in config.seal_slots() {
            let (_, kek) = keks.iter().find(|(name, _)| *name == slot.name).unwrap();
            let way = WayIn::Slot(slot.id, kek.clone());
            assert_eq!(config.open(&way).unwrap().unwrap().expose(), root.expose(), "{at} {}", slot.name);
            assert_eq!(config.wrap_keys(&way).unwrap().to_bytes().expose(), keys.to_bytes().expose());
        }
        if config.opens_by_shares() {
            let way = WayIn::Shares(if at < 5 { key.clone() } else { new_key.clone() });
            assert!(config.open(&way).unwrap().is_some() && config.wrap_keys(&way).is_some(), "{at}");
        }
        // The slots of before, by what the server has followed, lead to no key that is new.
        if matches!(at, 5) {
            assert!(config.wrap_keys(&WayIn::Shares(key.clone())).is_none() && old.opens_by_shares());
        }
    }
}

#[tokio::test]
async fn wrap_keys_are_replaced_by_the_escrow_and_the_former_one_ends() {
    let (root, key, first_keys) = (random::key(), random::key(), WrapKeys::first());
    let seal = slot("a").await;
    let kek = seal.kek.kek().clone();
    let initial = Initial {
        cluster_name: "c".to_owned(),
        cluster_id: "i".to_owned(),
        root: &root,
        seals: vec![seal],
        shares: Some((SHAPE, &key)),
        forbids_break_glass: false,
    };
    let config = first_with(initial, first_keys.clone()).unwrap();
    let id = config.slot_named("a").unwrap().id;
    let both = first_keys.rotated().unwrap();
    let known = followed(&config, &root, &first_keys);
    let rotated = apply(&config, Change::WrapKeys(both.clone()), &root, &known).unwrap();
    assert!(rotated.root.is_none() && rotated.config.wrap_generation == 2);
    let known = followed(&rotated.config, &root, &both);
    let ended = apply(&rotated.config, Change::WrapKeys(both.newest_only()), &root, &known).unwrap().config;
    for way in [WayIn::Slot(id, kek), WayIn::Shares(key)] {
        assert!(rotated.config.wrap_keys(&way).unwrap().has_former());
        let keys = ended.wrap_keys(&way).unwrap();
        assert_eq!((keys.generation(), keys.has_former()), (2, false));
        assert_eq!(ended.open(&way).unwrap().unwrap().expose(), root.expose());
    }
    // The wrap keys of before open no escrow, and neither does the root key alone.
    assert!(ended.opened_by(&first_keys, &slot_keys(&ended, &root, &KnownKeys::default())).is_empty());
    let without = KnownKeys { slots: slot_keys(&ended, &root, &KnownKeys::default()), ..KnownKeys::default() };
    assert!(ended.open(&WayIn::Known(without.clone())).unwrap().is_none(), "the wrapped values would be lost");
    let refused = apply(&ended, Change::Enroll(slot("b").await), &root, &without).err().unwrap();
    assert!(refused.public().contains("does not have the wrap keys"), "{refused}");
}

#[tokio::test]
async fn a_wrap_key_is_not_created_while_a_slot_would_lack_it() {
    let (root, key) = (random::key(), random::key());
    let config = initial(&root, vec![slot("a").await], Some(&key));
    let (id, shares) = (config.slot_named("a").unwrap().id, config.shares.as_ref().unwrap().slot.unwrap());
    let create = |known: &KnownKeys| apply(&config, Change::WrapKeys(WrapKeys::first()), &root, known);
    let mut known = KnownKeys::default();
    assert_eq!(create(&known).err().unwrap().status(), Status::UNAVAILABLE);
    known.add_opened(OpenedSlot::new(shares, &key));
    assert!(create(&known).err().unwrap().public().contains("the seal \"a\""));
    let kek = proven().await;
    known.add_opened(OpenedSlot::new(id, kek.kek()));
    assert!(create(&known).is_err(), "it is the KEK of no slot");
    let changed = apply(&config, Change::NewKek("a".to_owned(), kek), &root, &known).unwrap();
    let [opened] = changed.opened.as_slice() else { panic!() };
    known.add_opened(opened.clone());
    assert!(create(&known).is_err(), "that of another record");
    let created = apply(&changed.config, Change::WrapKeys(WrapKeys::first()), &root, &known).unwrap().config;
    assert!(created.wrap_generation == 1 && created.open(&WayIn::Shares(key)).unwrap().is_some());
}
