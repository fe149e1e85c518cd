//! The order in which seals are tried at the start: one round after another, with backoff. Pure: no call, no clock.

use std::time::Duration;

use keepfast_framework::Timestamp;
use keepfast_framework::seal::SealErrorClass;

use crate::seal::planted::planted;

/// How long a seal may take before the next one is tried beside it.
const HEDGE: Duration = Duration::from_secs(1);
/// The longest pause between rounds.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The shortest pause after a round in which a retry alone cannot help.
const MIN_PAUSE_REFUSED: Duration = Duration::from_secs(15);
/// The longest pause that a service can demand.
const MAX_THROTTLED: Duration = Duration::from_secs(600);

/// One round: every slot is tried once, by priority.
pub(super) struct Round {
    slots: std::vec::IntoIter<u32>,
    running: usize,
    /// When the next slot is tried beside those that run.
    hedge: Option<Timestamp>,
    failures: Vec<SealErrorClass>,
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Calls the seal of this slot.
    Call(u32),
    /// Waits for a result, at most until this time.
    Wait(Option<Timestamp>),
    /// All seals have failed.
    Failed,
}

impl Round {
    /// A round over these slots.
    pub(super) fn new(slots: Vec<u32>) -> Self {
        Round { slots: slots.into_iter(), running: 0, hedge: None, failures: Vec::new() }
    }

    /// The next action.
    pub(super) fn next(&mut self, now: Timestamp) -> Action {
        if planted!(RoundEndsAtFailure) && !self.failures.is_empty() {
            return Action::Failed;
        }
        let may_call = self.running == 0 || self.hedge.is_some_and(|hedge| now >= hedge);
        if may_call && let Some(slot) = self.slots.next() {
            self.running += 1;
            self.hedge = (!planted!(NoHedge)).then(|| now.after(HEDGE));
            return Action::Call(slot);
        }
        match self.running {
            0 => Action::Failed,
            _ => Action::Wait(self.hedge.filter(|_| self.slots.len() > 0)),
        }
    }

    /// A call has failed: the next slot is tried at once.
    pub(super) fn failed(&mut self, class: SealErrorClass, now: Timestamp) {
        self.running = self.running.saturating_sub(1);
        self.hedge = Some(now);
        self.failures.push(class);
    }

    /// The failures of the round.
    pub(super) fn failures(&self) -> &[SealErrorClass] {
        &self.failures
    }
}

/// The pause after the `round`th failed round, from 1: 1, 2, 4 … 60 seconds, ±20 % by `jitter`; at least 15 seconds when
/// no seal could be helped by a retry, and as long as a service demands.
pub(super) fn pause(round: u32, failures: &[SealErrorClass], jitter: u32) -> Duration {
    let most = if planted!(PauseWithoutBound) { Duration::MAX } else { MAX_PAUSE };
    let doubled = Duration::from_secs(1 << round.saturating_sub(1).min(10)).min(most);
    let is_refused = |class: &SealErrorClass| {
        matches!(class, SealErrorClass::Denied | SealErrorClass::WrongKey | SealErrorClass::Misconfigured)
    };
    let is_hopeless = failures.iter().all(is_refused) && !planted!(RefusalsRepeatedAtOnce);
    let least = if is_hopeless { MIN_PAUSE_REFUSED } else { Duration::ZERO };
    let demanded = failures.iter().filter_map(|class| match class {
        SealErrorClass::Throttled(demanded) if !planted!(DemandIgnored) => *demanded,
        _ => None,
    });
    let demanded = demanded.max().unwrap_or_default().min(MAX_THROTTLED);
    jittered(doubled.max(least), jitter).max(demanded)
}

/// A span ±20 %.
pub(super) fn jittered(span: Duration, jitter: u32) -> Duration {
    span.mul_f64(0.8 + 0.4 * f64::from(jitter) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u32 = u32::MAX / 2;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_next_seal_is_tried_after_a_second_or_at_once_after_an_error() {
        let mut round = Round::new(vec![3, 1, 2]);
        assert_eq!(round.next(at(0)), Action::Call(3));
        assert_eq!(round.next(at(0)), Action::Wait(Some(at(1000))));
        assert_eq!(round.next(at(999)), Action::Wait(Some(at(1000))));
        assert_eq!(round.next(at(1000)), Action::Call(1));
        round.failed(SealErrorClass::Denied, at(1200));
        assert_eq!(round.next(at(1200)), Action::Call(2));
        assert_eq!(round.next(at(9999)), Action::Wait(None), "none is left to be tried");
        round.failed(SealErrorClass::Unreachable, at(9999));
        round.failed(SealErrorClass::Unreachable, at(9999));
        assert_eq!(round.next(at(9999)), Action::Failed);
        assert_eq!(round.failures().len(), 3);
        assert_eq!(Round::new(Vec::new()).next(at(0)), Action::Failed);
    }

    #[test]
    fn pauses_double_to_a_minute_and_have_jitter() {
        let seconds = |round| pause(round, &[SealErrorClass::Unreachable], MIDDLE).as_secs_f64().round() as u64;
        let pauses: Vec<u64> = (1..9).map(seconds).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(seconds(u32::MAX), 60);
        let ends = [0, u32::MAX].map(|jitter| pause(7, &[SealErrorClass::Unreachable], jitter).as_millis());
        assert_eq!(ends, [48_000, 72_000]);
    }

    #[test]
    fn refusals_pause_longer_and_a_service_may_demand_more() {
        let of = |failures: &[SealErrorClass]| pause(1, failures, MIDDLE).as_secs_f64().round() as u64;
        assert_eq!(of(&[SealErrorClass::Denied, SealErrorClass::WrongKey, SealErrorClass::Misconfigured]), 15);
        assert_eq!(of(&[SealErrorClass::Denied, SealErrorClass::Crashed]), 1);
        let throttled = |seconds| SealErrorClass::Throttled(Some(Duration::from_secs(seconds)));
        assert_eq!(of(&[throttled(30), SealErrorClass::Denied]), 30);
        assert_eq!(of(&[throttled(1 << 40)]), 600);
        assert_eq!(of(&[SealErrorClass::Throttled(None)]), 1);
    }

    /// Every slot is called once in each round, whatever the seals do and however long they take.
    #[test]
    fn a_round_calls_every_seal_once_whatever_happens() {
        use proptest::prelude::*;
        let events = proptest::collection::vec((any::<bool>(), 0..3000i64), 0..80);
        proptest!(|(count in 0..17u32, events in events)| {
            let (mut round, mut now, mut called, mut running) = (Round::new((0..count).collect()), 0, Vec::new(), 0);
            let mut events = events.into_iter();
            loop {
                match round.next(at(now)) {
                    Action::Call(slot) => { called.push(slot); running += 1; }
                    Action::Failed => break,
                    Action::Wait(until) => {
                        prop_assert!(running > 0);
                        let (fails, millis) = events.next().unwrap_or((true, 1));
                        now += millis;
                        if fails || until.is_none() { round.failed(SealErrorClass::Unreachable, at(now)); running -= 1; }
                    }
                }
            }
            prop_assert_eq!(called, (0..count).collect::<Vec<_>>());
            prop_assert_eq!(round.failures().len(), count as usize);
        });
    }
}
