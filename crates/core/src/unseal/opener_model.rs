//! A model of the start: rounds over seals that respond, fail and hang at random times, and the pauses between them.

use std::time::Duration;

use keepfast_framework::Timestamp;
use keepfast_framework::seal::SealErrorClass;

use super::opener::{Action, Round, pause};
use crate::seal::slots_model::{Broken, Dice, hold, settings};

/// The classes of failures.
const CLASSES: [SealErrorClass; 6] = [
    SealErrorClass::Unreachable,
    SealErrorClass::Throttled(None),
    SealErrorClass::Denied,
    SealErrorClass::WrongKey,
    SealErrorClass::Misconfigured,
    SealErrorClass::Crashed,
];

/// What a seal does with its call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Opens(u64),
    Fails(u64, SealErrorClass),
    Hangs,
}

impl Fate {
    fn draw(dice: &mut Dice) -> Self {
        // Often at once or at the time of a hedge, so that events coincide.
        let delay = [0, 1, 999, 1000, 1001, u64::from(dice.below(5000))][dice.below(6) as usize];
        match dice.below(8) {
            0 => Fate::Opens(delay),
            1 => Fate::Hangs,
            _ => Fate::Fails(delay, CLASSES[dice.below(6) as usize]),
        }
    }

    fn end(self) -> Option<u64> {
        match self {
            Fate::Opens(after) | Fate::Fails(after, _) => Some(after),
            Fate::Hangs => None,
        }
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(i64::try_from(millis).unwrap() * 1_000_000)
}

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Opened(usize),
    Failed,
    /// All that is left are seals that hang.
    Hung,
}

/// The calls of a round, as the rules have them: the times of the calls, and the end.
fn expected(fates: &[Fate]) -> (Vec<u64>, End) {
    let mut calls: Vec<u64> = Vec::new();
    let mut running: Vec<(u64, usize)> = Vec::new();
    let mut failed = 0;
    let mut now = 0;
    let mut is_due = true;
    loop {
        if is_due && calls.len() < fates.len() {
            running.extend(fates[calls.len()].end().map(|after| (now + after, calls.len())));
            calls.push(now);
        }
        let is_more = calls.len() < fates.len();
        let hedge = calls.last().filter(|_| is_more).map(|last| last + 1000);
        let next = running.iter().copied().min();
        match (next, hedge) {
            (Some((end, seal)), hedge) if hedge.is_none_or(|hedge| end <= hedge) => {
                running.retain(|(_, other)| *other != seal);
                now = end;
                match fates[seal] {
                    Fate::Opens(_) => return (calls, End::Opened(seal)),
                    _ => failed += 1,
                }
                is_due = true;
            }
            (_, Some(hedge)) => (now, is_due) = (hedge, true),
            _ if failed == fates.len() => return (calls, End::Failed),
            _ => return (calls, End::Hung),
        }
    }
}

/// The calls of a round, as its driver makes them.
fn driven(fates: &[Fate]) -> Result<(Vec<u64>, End), Broken> {
    let mut round = Round::new((0..u32::try_from(fates.len()).unwrap()).collect());
    let (mut now, mut calls, mut running) = (0, Vec::new(), Vec::<(u64, usize)>::new());
    loop {
        let until = match round.next(at(now)) {
            Action::Failed => {
                hold(running.is_empty(), || "it failed while a seal was being called".into())?;
                hold(round.failures().len() == calls.len(), || "a failure is missing".into())?;
                return Ok((calls, End::Failed));
            }
            Action::Call(slot) => {
                hold(slot as usize == calls.len(), || format!("slot {slot} is called in place of {}", calls.len()))?;
                running.extend(fates[calls.len()].end().map(|after| (now + after, calls.len())));
                calls.push(now);
                continue;
            }
            Action::Wait(until) => until,
        };
        let next = running.iter().copied().min();
        let hedge = until.map(|until| u64::try_from(until.since(Timestamp::default()).as_millis()).unwrap());
        match (next, hedge) {
            (Some((end, seal)), hedge) if hedge.is_none_or(|hedge| end <= hedge) => {
                running.retain(|(_, other)| *other != seal);
                now = end;
                match fates[seal] {
                    Fate::Fails(_, class) => round.failed(class, at(now)),
                    _ => return Ok((calls, End::Opened(seal))),
                }
            }
            (_, Some(hedge)) => {
                hold(hedge > now, || "it waits for a time that has passed".into())?;
                now = hedge;
            }
            _ => return Ok((calls, End::Hung)),
        }
    }
}

fn check_round(dice: &mut Dice) -> Result<(), Broken> {
    let fates: Vec<Fate> = (0..=dice.below(5)).map(|_| Fate::draw(dice)).collect();
    let (expected, found) = (expected(&fates), driven(&fates)?);
    hold(found == expected, || format!("{fates:?}: {found:?}, expected {expected:?}"))
}

fn check_pause(dice: &mut Dice) -> Result<(), Broken> {
    let failures: Vec<SealErrorClass> = (0..=dice.below(3))
        .map(|_| match dice.below(4) {
            0 => SealErrorClass::Throttled(Some(Duration::from_secs(u64::from(dice.below(2000))))),
            _ => CLASSES[dice.below(6) as usize],
        })
        .collect();
    let round = [1 + dice.below(12), u32::MAX][dice.below(2) as usize];
    let jitter = [0, u32::MAX, dice.below(u32::MAX)][dice.below(3) as usize];
    let demanded = failures.iter().filter_map(|failure| match failure {
        SealErrorClass::Throttled(demanded) => *demanded,
        _ => None,
    });
    let demanded = demanded.max().map_or(0.0, |demanded| demanded.as_secs_f64().min(600.0));
    let refused = ["denied", "wrong_key", "misconfigured"];
    let is_refused = failures.iter().all(|failure| refused.contains(&failure.name()));
    let doubled = 2_f64.powf(f64::from(round - 1)).min(60.0);
    let middle = if is_refused { doubled.max(15.0) } else { doubled };
    let (least, most) = ((middle * 0.8).max(demanded), (middle * 1.2).max(demanded));
    let found = pause(round, &failures, jitter).as_secs_f64();
    let is_between = (least - 0.001..=most + 0.001).contains(&found);
    hold(is_between, || format!("round {round} of {failures:?}: {found} s is not in {least} to {most} s"))
}

/// Runs rounds and pauses.
pub(crate) fn run(seed: &str, rounds: u32) -> Result<(), Broken> {
    for item in 0..rounds {
        let mut dice = Dice::of(seed, item);
        let checked = check_round(&mut dice).and_then(|()| check_pause(&mut dice));
        checked.map_err(|broken| format!("round {item}: {broken}"))?;
    }
    Ok(())
}

#[test]
fn rl22_rounds_and_pauses_agree_with_a_model() {
    let (seed, rounds) = settings();
    run(&seed, rounds).unwrap_or_else(|broken| panic!("{broken}"));
}
