//! The steps of a migration, for each configuration of the leader and each state of the members.

use std::time::Duration;

use keepfast_framework::clock::TestClock;
use keepfast_framework::seal::SealErrorClass;

use super::*;
use crate::seal::proven::ProvenKek;
use crate::seal::set::{ConfiguredSeal, SealSet};
use crate::seal::shape::SealShape;
use crate::seal::slots::{Initial, NewSlot, first};
use crate::seal::test_seal::{Behaviour, TestSeal};
use crate::unseal::keeper::checked_slots;
use keepfast_crypto::random;

async fn slot(name: &str) -> NewSlot {
    let kek = ProvenKek::create(&*TestSeal::new()).await.unwrap();
    NewSlot { name: name.to_owned(), kind: "static", priority: 1, kek }
}

/// A record with slots of these seals and with shares, and the key of the shares.
async fn record(names: &[&str]) -> (SealConfig, Key256) {
    let mut seals = Vec::new();
    for name in names {
        seals.push(slot(name).await);
    }
    let (key, root) = (random::key(), random::key());
    let initial = Initial {
        cluster_name: String::new(),
        cluster_id: "c".to_owned(),
        root: &root,
        seals,
        shares: Some((SealShape::new(3, 2).unwrap(), &key)),
        forbids_break_glass: false,
    };
    (first(initial).unwrap(), key)
}

/// Seals of a configuration; those with a `-` are disabled.
fn seals(names: &[&str]) -> Seals {
    let seal = |name: &&str| {
        let disabled = name.starts_with('-');
        ConfiguredSeal { disabled, ..TestSeal::new().configured(name.trim_start_matches('-')) }
    };
    Seals::new(SealSet::new(names.iter().map(seal).collect()).unwrap())
}

fn report(member: &str, slots: u64) -> Report {
    Report { member: member.to_owned(), slots: Ok(slots) }
}

#[tokio::test]
async fn the_goal_follows_from_the_record_and_the_configuration() {
    let (none, one, two) = (record(&[]).await.0, record(&["a"]).await.0, record(&["a", "b"]).await.0);
    for (record, names, forbids, goal) in [
        (&none, &[][..], false, None),
        (&none, &["a"], false, Some(Goal::FirstSeal)),
        (&none, &["-a"], false, None),
        (&one, &["a"], false, None),
        (&one, &["a"], true, Some(Goal::ForbidBreakGlass)),
        (&one, &["-a"], true, Some(Goal::Shares)),
        (&one, &["-a", "b"], true, Some(Goal::Retire)),
        (&one, &["b"], false, None),
        (&two, &["-a", "b"], false, Some(Goal::Retire)),
        (&two, &["-a", "-b"], false, Some(Goal::Shares)),
        (&two, &["b"], false, None),
        (&two, &[], false, None),
    ] {
        assert_eq!(Goal::of(record, &seals(names), forbids), goal, "{names:?}");
    }
}

#[tokio::test]
async fn only_a_quorum_changes_who_the_shares_are_for() {
    let (config, key) = record(&[]).await;
    let (with, without) = (
        seals(&["a"]),
        |goal: Goal, config: &SealConfig, seals: &Seals| matches!(goal.prepare(config, seals, false), Some(Step::Await(awaited)) if awaited[0].contains("quorum")),
    );
    assert!(without(Goal::FirstSeal, &config, &with));
    assert_eq!(Goal::FirstSeal.prepare(&config, &with, true), Some(Step::Enroll));
    let (config, _) = record(&["a"]).await;
    let shares = seals(&["-a"]);
    assert!(without(Goal::Shares, &config, &shares));
    assert_eq!(Goal::Shares.prepare(&config, &shares, true), None);
    // A quorum of other shares authorizes nothing.
    let rolling = Rolling::default();
    rolling.authorize(key);
    assert!(rolling.quorum(&config).is_none());
}

#[tokio::test]
async fn a_seal_retires_when_every_member_opens_a_slot_that_stays() {
    let (config, _) = record(&["a", "b"]).await;
    let place = |name: &str| config.slots.iter().position(|slot| slot.name == name).unwrap();
    let (a, b) = (bit(place("a")), bit(place("b")));
    let seals = seals(&["-a", "b"]);
    let step = |reports: &[Report]| Goal::Retire.complete(&config, &seals, reports);
    assert_eq!(Goal::Retire.prepare(&config, &seals, false), None);
    assert_eq!(step(&[report("n1", a | b), report("n2", b)]), Step::Remove("a".to_owned()));
    let Step::Await(awaited) = step(&[report("n1", a | b), report("n2", a), report("n3", BY_SHARES)]) else { panic!() };
    assert_eq!(awaited, ["member \"n2\": does not unseal by: b", "member \"n3\": does not unseal by: b"]);
    let silent = Report { member: "n2".to_owned(), slots: Err("is sealed".to_owned()) };
    let Step::Await(awaited) = step(&[report("n1", b), silent]) else { panic!() };
    assert_eq!(awaited, ["member \"n2\": is sealed"]);
    let keeps = bit(ENABLED + place("a"));
    let Step::Await(awaited) = step(&[report("n1", b), report("n2", a | b | keeps)]) else { panic!() };
    assert_eq!(awaited, ["member \"n2\": its configuration has \"a\" enabled"]);
    assert_eq!(opened_by(&config, &seals, a), None);
    assert_eq!(opened_by(&config, &seals, a | b), config.slot_named("b").map(|slot| slot.id));
}

#[tokio::test]
async fn a_seal_without_a_slot_is_awaited_before_another_retires() {
    let (config, _) = record(&["a"]).await;
    let seals = seals(&["-a", "b"]);
    let Some(Step::Await(awaited)) = Goal::Retire.prepare(&config, &seals, false) else { panic!() };
    assert_eq!(awaited, ["the seal \"b\", which has no slot yet"]);
}

#[tokio::test]
async fn shares_take_over_when_no_member_has_an_enabled_seal() {
    let (config, _) = record(&["a", "b"]).await;
    let seals = seals(&["-a", "-b"]);
    assert_eq!(open_slots(&seals, &config), BY_SHARES);
    let step = |reports: &[Report]| Goal::Shares.complete(&config, &seals, reports);
    let Step::Await(awaited) = step(&[report("n1", BY_SHARES), report("n2", 3)]) else { panic!() };
    assert_eq!(awaited, ["member \"n2\": its configuration has an enabled seal"]);
    // Every seal of the record goes, also one that is not configured here.
    assert_eq!(step(&[report("n1", BY_SHARES)]), Step::Remove("a".to_owned()));
    let (config, _) = record(&["c"]).await;
    assert_eq!(Goal::Shares.complete(&config, &seals, &[]), Step::Remove("c".to_owned()));
}

/// The bits at a time when every call is recent.
fn open_slots(seals: &Seals, config: &SealConfig) -> u64 {
    super::open_slots(seals, config, &(Timestamp::default()..=Timestamp::default()))
}

#[tokio::test]
async fn sec_a_slot_counts_as_open_only_with_fresh_evidence() {
    let (seal, time) = (TestSeal::new(), TestClock::default());
    let kek = ProvenKek::create(&*seal).await.unwrap();
    let root = random::key();
    let initial = Initial {
        cluster_name: String::new(),
        cluster_id: "c".to_owned(),
        root: &root,
        seals: vec![NewSlot { name: "a".to_owned(), kind: "static", priority: 1, kek }],
        shares: None,
        forbids_break_glass: false,
    };
    let config = first(initial).unwrap();
    let seals = Seals::new(SealSet::new(vec![seal.configured("a")]).unwrap());
    let is_open = async || checked_slots(&seals, &config, &time).await & bit(0) != 0;
    assert!(is_open().await, "the seal opens it now");
    seal.fails(SealErrorClass::Denied);
    assert!(!is_open().await, "the call of before does not count");
    seal.set(Behaviour::Well);
    assert!(is_open().await);
    // A seal that is slow counts by its last call, for a minute.
    seal.set(Behaviour::Hangs);
    let slowly = async || {
        let mut open = std::pin::pin!(is_open());
        assert!(futures_util::poll!(&mut open).is_pending());
        time.advance(Duration::from_secs(2));
        open.await
    };
    assert!(slowly().await);
    time.advance(Duration::from_secs(60));
    assert!(!slowly().await);
}

#[tokio::test]
async fn a_slot_counts_as_open_only_as_it_is_stored_now() {
    let (config, _) = record(&["a"]).await;
    let seals = seals(&["a"]);
    let access = seals.named("a").unwrap();
    let slot = config.slot_named("a").unwrap();
    let enabled = bit(ENABLED + config.slots.iter().position(|slot| slot.name == "a").unwrap());
    assert_eq!(open_slots(&seals, &config), enabled);
    access.has_opened(slot, keepfast_framework::Timestamp::default());
    assert_ne!(open_slots(&seals, &config), enabled);
    let (other, _) = record(&["a"]).await;
    assert_eq!(open_slots(&seals, &other), enabled, "another key of the slot");
    let error = keepfast_framework::seal::SealError::new(keepfast_framework::seal::SealErrorClass::Denied, "x");
    access.failed(&error, keepfast_framework::Timestamp::default());
    assert_eq!(open_slots(&seals, &config), enabled, "the seal fails now");
}
