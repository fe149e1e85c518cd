//! Members that have lost entries which they had acknowledged.

use super::*;

fn lost(effects: &[Effect]) -> Option<(u64, u64, u64)> {
    effects.iter().find_map(|effect| match effect {
        Effect::LostEntries { of, last, acknowledged } => Some((of.0, *last, *acknowledged)),
        _ => None,
    })
}

/// The entries that are sent to a member: what precedes them, and the last.
fn sent(effects: &[Effect], to: u64) -> Vec<(u64, u64)> {
    let append = |effect: &Effect| match effect {
        Effect::Send(Message { to: receiver, body: Body::Append { previous, entries, .. }, .. })
            if receiver.0 == to =>
        {
            Some((previous.index, previous.index + entries.len() as u64))
        }
        _ => None,
    };
    effects.iter().filter_map(append).collect()
}

fn pre_vote(index: u64) -> Body {
    Body::PreVote { last: LogId { term: 3, index }, commit: LogId::default() }
}

fn rejection(hint: u64) -> Body {
    let rejection = Some(Rejection { hint, hint_term: 3 });
    Body::AppendResponse { index: 12, commit: 10, rejection }
}

/// A leader to which member 2 has acknowledged entry 12.
fn leader(planted: Option<Bug>) -> Bench {
    let mut bench = Bench::new(boot(3), planted);
    bench.lead();
    bench
}

#[test]
fn a_member_that_has_lost_entries_has_no_vote_and_gets_them_again() {
    for (term, body) in [(5, pre_vote(11)), (4, rejection(11))] {
        let mut bench = leader(None);
        let mut effects = bench.message(2, term, body.clone());
        assert_eq!(lost(&effects), Some((2, 11, 12)), "{body:?}");
        effects.extend(bench.wait(20_000));
        // The list that demotes it.
        assert_eq!(bench.steps.status().last.index, 13);
        effects.extend(bench.message(2, 4, Body::HeartbeatResponse { commit: 10, read: None }));
        assert!(sent(&effects, 2).iter().any(|(previous, last)| *previous == 11 && *last >= 12), "{effects:?}");
        bench.message(2, 4, Body::AppendResponse { index: 13, commit: 12, rejection: None });
        let voters: Vec<_> = bench.steps.members().iter().map(|member| (member.id.0, member.voter)).collect();
        assert_eq!(voters, [(1, true), (2, false), (3, true)]);
        assert!(bench.steps.members()[1].wants_vote, "autopilot gives it a vote again");
        bench.wait(40_000);
        assert_eq!(bench.steps.status().last.index, 13, "once");
    }
}

#[test]
fn a_member_with_all_that_it_has_acknowledged_keeps_its_vote() {
    let mut bench = leader(None);
    for (from, term, body) in [(2, 5, pre_vote(12)), (2, 4, rejection(12)), (3, 5, pre_vote(11)), (9, 5, pre_vote(1))] {
        assert_eq!(lost(&bench.message(from, term, body.clone())), None, "{from} {body:?}");
    }
    // The entries of a later leader have replaced those of this one.
    let last = LogId { term: 5, index: 11 };
    assert_eq!(lost(&bench.message(2, 6, Body::PreVote { last, commit: LogId::default() })), None);
    bench.wait(40_000);
    assert_eq!(bench.steps.status().last.index, 12);
    assert_eq!(lost(&leader(Some(Bug::LostEntriesKept)).message(2, 5, pre_vote(11))), None);
}
