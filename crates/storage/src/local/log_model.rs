//! Random operations on a [`Log`] with faults, compared with a model.

use super::{
    entry::{FOUNDING, HardState},
    log::{Keep, Log, ReadLog},
    log_suite::{KEEP_ALL, LogKit, append_with, hard, id, open, terms},
};

/// What a log holds: its last entries by index, and its hard state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    /// Terms of the entries from 2 on; the log may have purged the first of them.
    terms: Vec<u64>,
    hard: HardState,
    flushed: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.terms.len() as u64 + 1
    }

    fn term(&self, index: u64) -> u64 {
        index.checked_sub(2).map_or(1, |place| self.terms[place as usize])
    }

    /// Whether the log holds this, as far as it was not purged.
    fn matches(&self, log: &impl Log) -> bool {
        let (base, reader) = (log.reader().base().index, log.reader());
        reader.last().index == self.last()
            && reader.hard_state() == self.hard
            && base <= self.flushed
            && terms(log) == self.terms[base as usize - 1..]
    }
}

/// Runs appends, replacements, votes, purges and openings in random order. A fault follows some of them.
pub(crate) fn agrees_with_a_model_under_faults<K: LogKit>() {
    for seed in 1..=300_u64 {
        let kit = K::new(seed);
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 8) % bound
        };
        let mut model = Model { terms: vec![], hard: HardState::lone(FOUNDING), flushed: 1 };
        let mut log = open(&kit, FOUNDING).unwrap();
        for step in 0..40 {
            let what = format!("seed {seed}, step {step}");
            let (fault, crash) = (below(3) == 0, below(2) == 0);
            if fault {
                kit.fail_after(below(7) as usize, crash);
            }
            let mut next = model.clone();
            let done = match below(4) {
                0 => {
                    next.flushed = model.flushed + below(next.hard.committed.max(model.flushed) - model.flushed + 1);
                    let keep = [Keep::NOTHING, Keep { trailing: 3, bytes: 1_000 }, KEEP_ALL][below(3) as usize];
                    log.purge(next.flushed, keep).is_ok()
                }
                1 => {
                    next.hard =
                        hard(next.hard.vote.term + below(2), next.hard.vote.candidate.0.max(1), next.hard.committed);
                    append_with(&mut log, model.last() + 1, &[], next.hard).is_ok()
                }
                _ => {
                    let first = model.last() + 1 - below(model.last() - model.hard.committed + 1);
                    let term = next.hard.vote.term;
                    let added = vec![term; 1 + below(3) as usize];
                    next.terms.truncate(first as usize - 2);
                    next.terms.extend(&added);
                    next.hard.committed += below(next.last() - next.hard.committed + 1);
                    append_with(&mut log, first, &added, next.hard).is_ok()
                }
            };
            if done {
                model = next.clone();
                assert!(model.matches(&log), "{what}: {model:?}");
            }
            if !fault && done && below(5) > 0 {
                continue;
            }
            drop(log);
            if crash {
                kit.lose_power()
            } else {
                kit.end_process()
            }
            log = open(&kit, id(model.term(model.flushed), model.flushed))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            // An operation that failed may have happened.
            if !model.matches(&log) {
                let found = (log.reader().base(), terms(&log), log.reader().hard_state());
                assert!(!done && next.matches(&log), "{what}: neither {model:?} nor {next:?} but {found:?}");
                model = next;
            }
        }
    }
}
