//! A model of the seal record: after any sequence of changes each listed slot opens the root key alone, and nothing else
//! does.

use std::collections::BTreeSet;

use keepfast_crypto::hash::sha256;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_framework::Status;
use keepfast_storage::derive_key;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::proven::ProvenKek;
use super::record::{BreakGlass, KnownKeys, SealConfig, ShareRole, WayIn, escrow_purpose};
use super::shape::SealShape;
use super::slots::{Change, Initial, Migration, NewSlot, apply, first};
use super::test_seal::TestSeal;
use super::{share_key, slots};

const SHAPE: SealShape = SealShape { shares: 5, threshold: 3 };
/// The most changes of a sequence.
const LONGEST: u32 = 5;
/// The number of names of seals.
const NAMES: u32 = 4;
/// The former keys that each check tries.
const FORMER: usize = 3;

/// The broken rule.
pub(crate) type Broken = String;

/// The random choices of one sequence or round.
pub(crate) struct Dice(TestRng);

impl Dice {
    /// Those of an item of a run, which can be repeated alone.
    pub(crate) fn of(seed: &str, item: u32) -> Self {
        Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &sha256(format!("{seed} {item}").as_bytes())))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0.next_u32() % bound
    }

    /// Whether a thing of this chance happens.
    fn one_in(&mut self, chance: u32) -> bool {
        self.below(chance) == 0
    }
}

/// The seed of a run and its number of items: `KEEPFAST_TEST_SEED` repeats a run, `KEEPFAST_SEAL_SEQUENCES` sets its length.
pub(crate) fn settings() -> (String, u32) {
    let seed = std::env::var("KEEPFAST_TEST_SEED").unwrap_or_else(|_| hex::encode(random::bytes::<32>()));
    let count = std::env::var("KEEPFAST_SEAL_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(10_000);
    println!("repeat with KEEPFAST_TEST_SEED={seed} KEEPFAST_SEAL_SEQUENCES={count}");
    (seed, count)
}

pub(crate) fn hold(holds: bool, rule: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(rule()) }
}

/// The expected state of a record.
struct Model {
    root: Key256,
    generation: u64,
    /// In the order in which they are tried.
    seals: Vec<Enrolled>,
    shares: Option<Key256>,
    break_glass: BreakGlass,
    /// The ids of slots that were dropped.
    dropped: BTreeSet<u32>,
    /// KEKs and keys of shares that opened earlier.
    former: Vec<Key256>,
    former_root: Option<Key256>,
}

struct Enrolled {
    name: String,
    kek: Key256,
    generation: u64,
}

/// A change, and what is expected of it.
struct Drawn {
    what: String,
    change: Change,
    is_allowed: bool,
    renews_root: bool,
    effect: Box<dyn FnOnce(&mut Model)>,
}

async fn proven() -> ProvenKek {
    ProvenKek::create(&*TestSeal::new()).await.unwrap()
}

async fn new_slot(name: &str, priority: u16) -> NewSlot {
    NewSlot { name: name.to_owned(), kind: "static", priority, kek: proven().await }
}

impl Model {
    fn shares_open(&self) -> bool {
        self.shares.is_some() && (self.seals.is_empty() || self.break_glass == BreakGlass::On)
    }

    fn has(&self, name: &str) -> bool {
        self.seals.iter().any(|seal| seal.name == name)
    }

    fn retire(&mut self, which: impl Fn(&Enrolled) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.seals).into_iter().partition(|seal| which(seal));
        self.seals = kept;
        let gone: Vec<Enrolled> = gone;
        self.former.extend(gone.into_iter().map(|seal| seal.kek));
    }

    fn enroll(&mut self, name: String, kek: Key256) {
        let generation = self.generation;
        self.seals.push(Enrolled { name, kek, generation });
    }

    /// All rules of a record in this state.
    fn check(&self, config: &SealConfig) -> Result<(), Broken> {
        hold(!config.slots.is_empty(), || "nothing opens the root key".into())?;
        hold(config.generation == self.generation, || format!("generation {}", config.generation))?;
        let bytes = config.to_bytes().map_err(|error| error.to_string())?;
        let read = SealConfig::from_bytes(&bytes).map_err(|error| error.to_string())?;
        hold(read == *config, || "the record is read as another one".into())?;
        let ids: BTreeSet<u32> = config.slots.iter().map(|slot| slot.id).collect();
        let fresh = ids.iter().all(|id| *id < config.next_slot) && ids.is_disjoint(&self.dropped);
        hold(fresh && ids.len() == config.slots.len(), || format!("ids {ids:?}, dropped {:?}", self.dropped))?;
        self.check_seals(config)?;
        self.check_shares(config)?;
        for (at, key) in self.former.iter().rev().take(FORMER).enumerate() {
            hold(opens_nothing(config, key), || format!("the key that was valid {at} keys ago opens"))?;
        }
        self.check_escrow(config)
    }

    fn check_seals(&self, config: &SealConfig) -> Result<(), Broken> {
        let listed: Vec<&str> = config.seal_slots().map(|slot| slot.name.as_str()).collect();
        let expected: Vec<&str> = self.seals.iter().map(|seal| seal.name.as_str()).collect();
        hold(listed == expected, || format!("listed {listed:?}, expected {expected:?}"))?;
        for (slot, seal) in config.seal_slots().zip(&self.seals) {
            let name = &seal.name;
            self.opens(config, WayIn::Slot(slot.id, seal.kek.clone()), name)?;
            hold(slot.kek_generation == seal.generation, || format!("{name}: KEK of {}", slot.kek_generation))?;
            let others = config.slots.iter().filter(|other| other.id != slot.id);
            let mut opened = others.map(|other| tried(config, WayIn::Slot(other.id, seal.kek.clone())));
            hold(opened.all(|opened| opened.is_none()), || format!("{name} opens another slot"))?;
        }
        Ok(())
    }

    fn check_shares(&self, config: &SealConfig) -> Result<(), Broken> {
        let off = SealConfig { break_glass: BreakGlass::Off, ..config.clone() };
        hold(!off.opens_by_shares() || self.seals.is_empty(), || "break-glass is off, and the shares open".into())?;
        let slots = config.slots.iter().filter(|slot| slot.kek.is_none()).count();
        hold(slots == usize::from(self.shares_open()), || format!("{slots} slots of shares"))?;
        hold(config.opens_by_shares() == self.shares_open(), || "what opens by shares".into())?;
        hold(config.break_glass == self.break_glass, || format!("{:?}", config.break_glass))?;
        let (Some(key), Some(shares)) = (&self.shares, &config.shares) else {
            return hold(self.shares.is_none() && config.shares.is_none(), || "shares or none".into());
        };
        let role = if self.seals.is_empty() { ShareRole::Unseal } else { ShareRole::Recovery };
        hold(shares.role == role, || format!("{:?}", shares.role))?;
        hold(config.is_share_key(key) && !config.is_share_key(&random::key()), || "the check value".into())?;
        match self.shares_open() {
            true => self.opens(config, WayIn::Shares(key.clone()), "the shares"),
            false => hold(opens_nothing(config, key), || "the shares open".into()),
        }
    }

    /// The root key yields the key of each slot; the root key before it yields none.
    fn check_escrow(&self, config: &SealConfig) -> Result<(), Broken> {
        let known =
            KnownKeys { slots: slots::slot_keys(config, &self.root, &KnownKeys::default()), ..KnownKeys::default() };
        hold(known.slots.len() == config.slots.len(), || "the escrow of a slot is missing".into())?;
        self.opens(config, WayIn::Known(known), "the escrow")?;
        let Some(former) = &self.former_root else { return Ok(()) };
        hold(config.check_mac(former).is_err(), || "the former root key authenticates the record".into())?;
        let escrow = |id: u32| derive_key(former, escrow_purpose(id).as_bytes());
        let mut slots = config.slots.iter().map(|slot| config.open_escrow(slot, &escrow(slot.id)));
        hold(slots.all(|key| key.is_none()), || "the former root key opens an escrow".into())
    }

    fn opens(&self, config: &SealConfig, way: WayIn, what: &str) -> Result<(), Broken> {
        let root = config.open(&way).map_err(|error| format!("{what}: {error}"))?;
        let is_right = root.is_some_and(|root| root.expose() == self.root.expose());
        hold(is_right, || format!("{what}: does not open"))
    }

    /// A record that was changed by someone without the root key opens by nothing.
    fn check_edited(&self, config: &SealConfig, dice: &mut Dice) -> Result<(), Broken> {
        let mut edited = config.clone();
        let at = dice.below(u32::try_from(edited.slots.len()).unwrap()) as usize;
        let kind = dice.below(7);
        match (kind, &mut edited.shares) {
            (0, Some(shares)) => shares.shape.threshold -= 1,
            (1, Some(shares)) => shares.check = share_key::check_value(&random::key()),
            (2, _) => edited.next_slot += 1,
            (3, _) => edited.slots[at].priority ^= 1,
            (4, _) => edited.slots[at].kek_generation += 1,
            (5, _) if edited.slots.len() > 1 => drop(edited.slots.remove(at)),
            _ => edited.cluster_name.push('x'),
        }
        let seals = self.seals.iter().filter_map(|seal| {
            let slot = edited.slot_named(&seal.name)?;
            Some(WayIn::Slot(slot.id, seal.kek.clone()))
        });
        let shares = self.shares.iter().map(|key| WayIn::Shares(key.clone()));
        let mut opened = seals.chain(shares).map(|way| tried(&edited, way));
        hold(opened.all(|opened| opened.is_none()), || format!("an edited record opens (edit {kind})"))
    }
}

/// What a way opens, if it opens.
fn tried(config: &SealConfig, way: WayIn) -> Option<Key256> {
    config.open(&way).ok().flatten()
}

/// Whether a key opens no slot, as a KEK and as the key of shares.
fn opens_nothing(config: &SealConfig, key: &Key256) -> bool {
    let slots = config.slots.iter().map(|slot| WayIn::Slot(slot.id, key.clone()));
    slots.chain([WayIn::Shares(key.clone())]).all(|way| tried(config, way).is_none())
}

/// The first record of a sequence, with its model.
async fn begin(dice: &mut Dice) -> Result<(SealConfig, Model), Broken> {
    let (root, key) = (random::key(), random::key());
    let (with_seals, with_shares) = [(0, true), (1, true), (2, true), (2, false)][dice.below(4) as usize];
    let mut seals = Vec::new();
    for at in 0..with_seals {
        seals.push(new_slot(&format!("s{at}"), at + 1).await);
    }
    let mut model = Model {
        root: root.clone(),
        generation: 1,
        seals: Vec::new(),
        shares: with_shares.then(|| key.clone()),
        break_glass: if dice.one_in(4) { BreakGlass::Forbidden } else { BreakGlass::On },
        dropped: BTreeSet::new(),
        former: Vec::new(),
        former_root: None,
    };
    seals.iter().for_each(|seal| model.enroll(seal.name.clone(), seal.kek.kek().clone()));
    let config = first(Initial {
        cluster_name: "c".to_owned(),
        cluster_id: "i".to_owned(),
        root: &root,
        seals,
        shares: with_shares.then_some((SHAPE, &key)),
        forbids_break_glass: model.break_glass == BreakGlass::Forbidden,
    });
    Ok((config.map_err(|error| error.to_string())?, model))
}

/// A random change.
async fn draw(model: &Model, dice: &mut Dice) -> Drawn {
    let name = format!("s{}", dice.below(NAMES));
    let is_enrolled = model.has(&name);
    let has_seals = !model.seals.is_empty();
    let drawn = |what: &str, change, is_allowed, renews_root, effect| Drawn {
        what: format!("{what} {name}"),
        change,
        is_allowed,
        renews_root,
        effect,
    };
    match dice.below(10) {
        0 | 1 => {
            // The last priority, so that the order stays.
            let new = new_slot(&name, u16::MAX).await;
            let (named, kek) = (name.clone(), new.kek.kek().clone());
            // What opened and does not any more must not open the current root key by an old record.
            let loses_shares = !has_seals && model.shares.is_some() && model.break_glass != BreakGlass::On;
            drawn("enroll", Change::Enroll(new), !is_enrolled, loses_shares, Box::new(|model| model.enroll(named, kek)))
        }
        2 => {
            let is_allowed = is_enrolled && (model.seals.len() > 1 || model.shares_open());
            let (change, named) = (Change::Remove { name: name.clone(), root: random::key() }, name.clone());
            drawn("remove", change, is_allowed, true, Box::new(move |model| model.retire(|seal| seal.name == named)))
        }
        3 => drawn("new root", Change::NewRoot(random::key()), true, true, Box::new(|_| {})),
        4 => {
            let new = proven().await;
            let (named, kek) = (name.clone(), new.kek().clone());
            let effect = move |model: &mut Model| {
                let generation = model.generation;
                let seal = model.seals.iter_mut().find(|seal| seal.name == named);
                let former = seal.map(|seal| {
                    seal.generation = generation;
                    std::mem::replace(&mut seal.kek, kek)
                });
                model.former.extend(former);
            };
            drawn("new KEK", Change::NewKek(name.clone(), new), is_enrolled, false, Box::new(effect))
        }
        5 => draw_order(model, dice),
        6 => draw_shares(model, dice),
        7 | 8 => {
            let to = [BreakGlass::On, BreakGlass::Off, BreakGlass::Forbidden][dice.below(3) as usize];
            let quorum = [None, Some(random::key()), model.shares.clone()][dice.below(3) as usize].clone();
            let is_right = model.shares.is_some() && is_same(&quorum, &model.shares);
            let is_on = model.break_glass == BreakGlass::On || model.shares.is_none();
            let is_allowed = has_seals && (to != BreakGlass::On || is_on || is_right);
            let change = Change::BreakGlass { to, quorum, root: random::key() };
            let effect = move |model: &mut Model| model.break_glass = to;
            drawn(&format!("break-glass {to:?}"), change, is_allowed, true, Box::new(effect))
        }
        _ => draw_migration(model, dice).await,
    }
}

fn is_same(one: &Option<Key256>, other: &Option<Key256>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.expose() == other.expose(),
        (None, None) => true,
        _ => false,
    }
}

fn draw_order(model: &Model, dice: &mut Dice) -> Drawn {
    let mut names: Vec<String> = model.seals.iter().map(|seal| seal.name.clone()).collect();
    for at in (1..names.len()).rev() {
        let other = dice.below(u32::try_from(at).unwrap() + 1) as usize;
        names.swap(at, other);
    }
    let mut is_allowed = true;
    match dice.below(4) {
        0 if !names.is_empty() => {
            names.pop();
            is_allowed = false;
        }
        1 => {
            names.push("s9".to_owned());
            is_allowed = false;
        }
        _ => {}
    }
    let order = names.clone();
    let effect = move |model: &mut Model| {
        model.seals.sort_by_key(|seal| order.iter().position(|name| *name == seal.name));
    };
    let (what, change) = (format!("order {names:?}"), Change::Reorder(names));
    Drawn { what, change, is_allowed, renews_root: false, effect: Box::new(effect) }
}

fn draw_shares(model: &Model, dice: &mut Dice) -> Drawn {
    let key = random::key();
    let stale = [None, Some(random::key())][dice.below(2) as usize].clone();
    let authorized_by = if dice.one_in(3) { stale } else { model.shares.clone() };
    let is_allowed = is_same(&authorized_by, &model.shares);
    let replaces = authorized_by.as_ref().map(share_key::check_value);
    let change = Change::NewShares { shape: SHAPE, key: key.clone(), replaces, root: random::key(), backup: None };
    let effect = move |model: &mut Model| model.former.extend(model.shares.replace(key));
    Drawn { what: "new shares".to_owned(), change, is_allowed, renews_root: true, effect: Box::new(effect) }
}

async fn draw_migration(model: &Model, dice: &mut Dice) -> Drawn {
    let mut to = Vec::new();
    let first = dice.below(NAMES);
    for at in 0..dice.below(3) {
        to.push(new_slot(&format!("s{}", (first + at) % NAMES), u16::try_from(at).unwrap() + 1).await);
    }
    let is_right = model.shares.is_some() && !dice.one_in(4);
    let quorum = model.shares.clone().filter(|_| is_right).unwrap_or_else(random::key);
    let forbids_break_glass = dice.one_in(4);
    let keks: Vec<_> = to.iter().map(|slot| (slot.name.clone(), slot.kek.kek().clone())).collect();
    let what = format!("migration to {} seals", to.len());
    let change = Change::Migrate(Migration { to, quorum, forbids_break_glass, root: random::key() });
    let effect = move |model: &mut Model| {
        model.retire(|_| true);
        if forbids_break_glass && !keks.is_empty() {
            model.break_glass = BreakGlass::Forbidden;
        }
        keks.into_iter().for_each(|(name, kek)| model.enroll(name, kek));
    };
    Drawn { what, change, is_allowed: is_right, renews_root: true, effect: Box::new(effect) }
}

/// One sequence. Returns the number of changes that were applied.
async fn sequence(dice: &mut Dice, trace: &mut Vec<String>) -> Result<u64, Broken> {
    let (mut config, mut model) = begin(dice).await?;
    trace.push(format!("{} seals, shares {}, {:?}", model.seals.len(), model.shares.is_some(), model.break_glass));
    model.check(&config)?;
    let mut applied = 0;
    for _ in 0..=dice.below(LONGEST) {
        let drawn = draw(&model, dice).await;
        trace.push(drawn.what);
        match apply(&config, drawn.change, &model.root, &KnownKeys::default()) {
            Ok(changed) => {
                hold(drawn.is_allowed, || "it is applied".into())?;
                hold(changed.root.is_some() == drawn.renews_root, || "a new root key or none".into())?;
                if let Some(root) = changed.root {
                    model.generation += 1;
                    model.former_root = Some(std::mem::replace(&mut model.root, root));
                }
                let ids = |config: &SealConfig| config.slots.iter().map(|slot| slot.id).collect::<BTreeSet<_>>();
                model.dropped.extend(ids(&config).difference(&ids(&changed.config)));
                (drawn.effect)(&mut model);
                config = changed.config;
                applied += 1;
            }
            Err(error) => {
                hold(error.status() == Status::BAD_REQUEST, || error.to_string())?;
                hold(!drawn.is_allowed, || format!("it is refused: {error}"))?;
            }
        }
        model.check(&config)?;
    }
    model.check_edited(&config, dice)?;
    Ok(applied)
}

/// Runs sequences; returns the number of changes that were applied.
pub(crate) async fn run(seed: &str, sequences: u32) -> Result<u64, Broken> {
    let mut applied = 0;
    for item in 0..sequences {
        let mut trace = Vec::new();
        let found = sequence(&mut Dice::of(seed, item), &mut trace).await;
        applied += found.map_err(|broken| format!("sequence {item}: {broken}: {}", trace.join(", ")))?;
    }
    Ok(applied)
}

/// The long form of the tests of `slots_tests.rs`: any sequence of changes.
#[tokio::test]
async fn sec_cs05_each_listed_slot_opens_and_no_other_after_any_change() {
    let (seed, sequences) = settings();
    let applied = run(&seed, sequences).await.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(applied > u64::from(sequences), "{applied} changes are too few");
}
