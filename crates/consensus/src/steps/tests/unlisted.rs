//! Nodes that no list of this node has: it may lack the entry that adds them (Ongaro §4.1).

use super::*;

fn responses(effects: &[Effect]) -> Vec<(u64, Body)> {
    let response = |effect: &Effect| match effect {
        Effect::Send(Message { to, body, .. }) => Some((to.0, body.clone())),
        _ => None,
    };
    effects.iter().filter_map(response).collect()
}

#[test]
fn a_candidate_that_no_list_has_is_elected_and_followed() {
    let mut bench = Bench::new(boot(3), None);
    bench.wait(620_000);
    // Member 4 was added, and member 1 of the list that it has may be the only one that is left.
    let last = LogId { term: 4, index: 14 };
    let pre_vote = bench.message(4, 5, Body::PreVote { last, commit: LogId::default() });
    assert!(grants(&pre_vote) && responses(&pre_vote).iter().all(|(to, _)| *to == 4));
    let vote = Body::Vote { last, commit: LogId::default(), forced: false };
    assert!(grants(&bench.message(4, 5, vote)));
    // It sends what this node lacks, the list with itself among it.
    let entries = (12..=14).map(|index| Entry { id: LogId { term: 4, index }, payload: Bytes::new() }).collect();
    let body = Body::Append { previous: LogId { term: 3, index: 11 }, commit: 13, entries };
    let responses = responses(&bench.message(4, 5, body));
    assert!(responses.contains(&(4, Body::AppendResponse { index: 14, commit: 13, rejection: None })), "{responses:?}");
    assert_eq!(bench.steps.role(), Role::Following { leader: Some(RaftId(4)), term: 5 });
    assert_eq!(bench.steps.status().committed, 13);
}
