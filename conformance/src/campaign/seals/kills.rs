//! kill -9 at every effect of every change of the seals: after each one exactly the slots open that the record lists, each
//! alone, and every acknowledged record is there. An interrupted migration is completed by the same shares.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::operations::{Kill, Killed, Operation, Operations};
use super::ways::{Known, Way, Ways, listed, missing, normalized, open_alone, settled, submit};
use crate::campaign::{Findings, Options};
use crate::rng::Rng;
use crate::seals::SealServices;
use crate::servers::Server;

/// The servers that run at the same time.
const WORKERS: usize = 2;
/// One kill of this many comes at a random time, the others at an effect.
const BY_TIME: usize = 4;

/// The effects and the time of an operation without a kill.
struct Whole {
    effects: u64,
    took: Duration,
}

/// What the kills found.
#[derive(Default)]
struct Tally {
    passed: u64,
    failures: Vec<String>,
    /// The kills that left the state before the operation, and the state after it.
    before: u64,
    after: u64,
    resumed: u64,
}

impl Tally {
    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        match holds {
            true => self.passed += 1,
            false => self.failures.push(what()),
        }
    }
}

/// Kills `count` servers.
pub(super) fn run(options: &Options, services: &SealServices, found: &mut Findings) -> Result<()> {
    let operations = Operations::prepare(services)?;
    let tally = Mutex::new(Tally::default());
    let mut wholes = Vec::new();
    for operation in &operations.all {
        wholes.push(whole(&operations, services, operation, &tally)?);
    }
    let count = usize::try_from(options.count)?;
    let each = count.div_ceil(operations.all.len());
    let next = AtomicUsize::new(0);
    let worked: Vec<Result<()>> = std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= count {
                    return Ok(());
                }
                let at = item % operations.all.len();
                let (operation, round) = (&operations.all[at], item / operations.all.len());
                let kill = chosen(&wholes[at], round, each, &mut Rng::of(options.seed, item as u64));
                let context = || format!("kill {item}, {} {kill:?}", operation.name);
                let killed = operations.run(services, operation, kill).with_context(context)?;
                sec_cs05_each_listed_slot_opens_and_no_other_at_every_kill_point(
                    services,
                    operation,
                    killed,
                    &context(),
                    &tally,
                )
                .with_context(context)?;
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked"))).collect()
    });
    let Tally { passed, failures, before, after, resumed } =
        tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    found.passed += passed;
    found.failures.extend(failures);
    found.failures.extend(worked.into_iter().filter_map(|worked| Some(format!("{:#}", worked.err()?))));
    if before == 0 || after == 0 {
        found.failures.push(format!("{before} kills before and {after} after a commit: one side was not hit"));
    }
    let effects = wholes.iter().map(|whole| whole.effects).sum::<u64>();
    found.numbers = format!(
        "{count} kills in {} operations with {effects} effects: {before} left the state before and {after} the one after, {resumed} migrations resumed",
        operations.all.len(),
    );
    Ok(())
}

/// Runs an operation without a kill in its way, and checks it.
fn whole(
    operations: &Operations,
    services: &SealServices,
    operation: &Operation,
    tally: &Mutex<Tally>,
) -> Result<Whole> {
    let context = || format!("{} without a kill", operation.name);
    let killed = operations.run(services, operation, Kill::Never).with_context(context)?;
    if !killed.is_acknowledged {
        bail!("{} is refused: {:?}", operation.name, killed.refused);
    }
    let whole = Whole { effects: killed.effects, took: killed.took };
    sec_cs05_each_listed_slot_opens_and_no_other_at_every_kill_point(services, operation, killed, &context(), tally)
        .with_context(context)?;
    Ok(whole)
}

/// The moment of a kill. The kills of an operation are spread over its effects.
fn chosen(whole: &Whole, round: usize, each: usize, rng: &mut Rng) -> Kill {
    if round % BY_TIME == BY_TIME - 1 {
        let micros = usize::try_from(whole.took.as_micros()).unwrap_or(usize::MAX);
        return Kill::After(Duration::from_micros(rng.below(micros + micros / 4) as u64));
    }
    let effects = usize::try_from(whole.effects).unwrap_or(usize::MAX);
    let (first, last) = (round * effects / each, (round + 1) * effects / each);
    Kill::AtEffect((first + rng.below((last - first).max(1)) + 1) as u64)
}

/// Checks what a killed server has left.
fn sec_cs05_each_listed_slot_opens_and_no_other_at_every_kill_point(
    services: &SealServices,
    operation: &Operation,
    killed: Killed,
    context: &str,
    tally: &Mutex<Tally>,
) -> Result<()> {
    let Killed { mut server, known, is_acknowledged, refused, kill, .. } = killed;
    let data = server.directory().join("data");
    let mut found = Tally::default();
    if let Some(refused) = refused {
        found.failures.push(format!("{context}: refused: {refused}"));
    }
    let mut opened = Ways::new();
    let mut listings = Vec::new();
    let mut tried: Ways = operation.before.union(&operation.after).copied().collect();
    if matches!(kill, Kill::Never) {
        tried.extend(Way::OF_SEALS);
    }
    for way in &tried {
        // The response of init was lost.
        if *way == Way::Shares && known.shares.is_empty() {
            continue;
        }
        let Some(unsealed) = open_alone(services, &data, *way, &known)? else { continue };
        opened.insert(*way);
        if !known.root.is_empty() {
            listings.push(listed(&unsealed)?);
        }
        if opened.len() == 1 && !known.root.is_empty() {
            let missing = missing(&unsealed, &known)?;
            found.require(missing.is_empty(), || format!("{context}: lost {missing:?}"));
        }
    }
    let of_known = |ways: &Ways| -> Ways {
        ways.iter().copied().filter(|way| *way != Way::Shares || !known.shares.is_empty()).collect()
    };
    let (before, after) = (of_known(&operation.before), of_known(&operation.after));
    let is_before = opened == before && !is_acknowledged;
    found.require(is_before || opened == after, || {
        format!("{context}: {opened:?} open, acknowledged: {is_acknowledged}; before {before:?}, after {after:?}")
    });
    for listing in &listings {
        found.require(*listing == normalized(&opened), || format!("{context}: lists {listing:?}, {opened:?} open"));
    }
    (found.before, found.after) = if opened == after { (0, 1) } else { (1, 0) };
    if operation.migrates() {
        found.resumed +=
            u64::from(rl23_migration_resumes_at_every_kill_point(&mut server, operation, &known, context, &mut found)?);
    }
    let mut sum = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    sum.passed += found.passed;
    sum.failures.extend(found.failures);
    sum.resumed += found.resumed;
    sum.before += found.before;
    sum.after += found.after;
    Ok(())
}

/// Restarts the killed server, completes the migration with the same shares, and checks the result. Returns whether the
/// migration was still pending.
fn rl23_migration_resumes_at_every_kill_point(
    server: &mut Server,
    operation: &Operation,
    known: &Known,
    context: &str,
    found: &mut Tally,
) -> Result<bool> {
    server.restart()?;
    let (is_open, status) = settled(server)?;
    let is_pending = status["migration"] == true;
    if !is_open {
        let unsealed = submit(server, &known.shares, is_pending)?;
        found.require(unsealed, || format!("{context}: the shares do not complete the migration: {status}"));
        if !unsealed {
            return Ok(is_pending);
        }
    }
    server.root.clone_from(&known.root);
    server.wait_until_serving()?;
    let (listing, missing) = (listed(server)?, missing(server, known)?);
    found.require(listing == operation.after, || format!("{context}: resumed, and lists {listing:?}"));
    found.require(missing.is_empty(), || format!("{context}: resumed, and lost {missing:?}"));
    Ok(is_pending)
}
