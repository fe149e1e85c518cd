//! The first leader of a recovered cluster.

use super::*;

/// A node whose log ended at 11 when its cluster was recovered.
fn recovered() -> Bench {
    let before = LogId { term: 3, index: 11 };
    let boot = Boot { before, entries: Vec::new(), committed: 11, applied: 11, recovered: 11, ..boot(3) };
    Bench::new(boot, None)
}

fn append(previous: LogId, first: u64) -> Body {
    let entry = Entry { id: LogId { term: 4, index: first }, payload: Bytes::new() };
    Body::Append { previous, commit: 0, entries: vec![entry] }
}

fn stops(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Broken(_)))
}

fn acknowledges(effects: &[Effect]) -> bool {
    let is_response = |effect: &Effect| {
        matches!(effect, Effect::Send(Message { body: Body::AppendResponse { rejection: None, .. }, .. }))
    };
    effects.iter().any(is_response)
}

#[test]
fn a_node_stops_when_its_recovered_cluster_lacks_what_it_has() {
    let shorter = append(LogId { term: 2, index: 9 }, 10);
    let effects = recovered().message(2, 4, shorter.clone());
    assert!(stops(&effects) && !acknowledges(&effects));
    // An earlier term decides nothing.
    assert!(!stops(&recovered().message(2, 2, shorter)));
    let mut bench = recovered();
    let members: Vec<Member> = (1..=3).map(|number| member(number, true)).collect();
    let body = Body::Snapshot { last: LogId { term: 4, index: 10 }, members };
    let message = Message { from: RaftId(2), to: RaftId(1), term: 4, body };
    let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
    assert!(stops(&bench.only(Input::Snapshot { origin, message })));
}

#[test]
fn a_node_of_a_recovered_cluster_follows_a_leader_with_its_entries() {
    let mut bench = recovered();
    let effects = bench.message(2, 4, append(LogId { term: 3, index: 11 }, 12));
    assert!(acknowledges(&effects) && !stops(&effects));
    bench.message(2, 4, Body::Heartbeat { commit: 12, read: None });
    assert_eq!(bench.steps.status().applied, 12);
    // From now on the rules of Raft alone hold: this one is a late copy.
    assert!(!stops(&bench.message(2, 4, append(LogId { term: 2, index: 9 }, 10))));
    // A longer log with another end is sent as a snapshot.
    let effects = recovered().message(2, 4, append(LogId { term: 2, index: 15 }, 16));
    assert!(!acknowledges(&effects) && !stops(&effects));
}
