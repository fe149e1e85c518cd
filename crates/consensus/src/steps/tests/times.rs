//! Election timeouts that change: a promise lasts as long as any leader may take for it.

use super::*;

fn timed(number: u64, election_ms: u32) -> Member {
    Member { election_ms, ..member(number, true) }
}

/// Whether it votes 700 ms after it has heard from a leader of term 3.
fn votes_after_700_ms(mut bench: Bench) -> bool {
    bench.wait(3_000_000);
    bench.message(2, 3, heartbeat());
    bench.wait(700_000);
    let last = LogId { term: 3, index: 20 };
    grants(&bench.message(3, 5, Body::Vote { last, commit: LogId::default(), forced: false }))
}

fn list(index: u64, own: u32) -> Entry {
    let list = Payload::Members(vec![timed(1, own), member(2, true), member(3, true)]).encode();
    Entry { id: LogId { term: 3, index }, payload: list }
}

/// The leader may have a list with the longer one, although this node has not heard of it.
#[test]
fn a_promise_lasts_for_the_longest_time_that_was_announced() {
    let announced = |planted| Bench::new(Boot { announced_ms: 2000, ..boot(3) }, planted);
    assert!(!votes_after_700_ms(announced(None)));
    assert!(votes_after_700_ms(announced(Some(Bug::PromiseForgotten))));
    assert!(votes_after_700_ms(Bench::new(boot(3), None)));
}

#[test]
fn a_list_that_is_not_applied_yet_makes_a_promise_longer() {
    let mut bench = Bench::new(Boot { entries: vec![list(11, 2000)], committed: 11, ..boot(3) }, None);
    // It is committed, and the state machine is slow.
    let committed = bench.only(Input::Tick);
    assert!(committed.contains(&Effect::Commit(11)), "{committed:?}");
    assert_eq!(bench.steps.status().applied, 10);
    assert!(!votes_after_700_ms(bench));
}

#[test]
fn a_lower_time_counts_once_a_list_with_it_is_applied() {
    let entries = vec![list(11, 2000), list(12, 600)];
    let mut bench = Bench::new(Boot { entries, committed: 12, announced_ms: 2000, ..boot(3) }, None);
    bench.only(Input::Tick);
    bench.only(Input::Applied(11));
    assert_eq!(bench.steps.announced_ms(), 2000);
    bench.only(Input::Applied(12));
    assert_eq!(bench.steps.announced_ms(), 600);
    assert!(votes_after_700_ms(bench));
}

#[test]
fn a_clock_in_doubt_makes_a_promise_begin_again() {
    let mut bench = Bench::new(boot(3), None);
    bench.wait(3_000_000);
    bench.only(Input::VoidLease);
    assert!(!grants(&bench.message(3, 5, vote(false))));
    bench.wait(620_000);
    assert!(grants(&bench.message(3, 5, vote(false))));
}
