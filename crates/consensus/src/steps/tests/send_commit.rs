//! When members learn what is committed.

use super::*;

/// The committed indexes of messages with entries or without, by receiver.
fn sent(effects: &[Effect]) -> Vec<(u64, u64)> {
    let commit = |effect: &Effect| match effect {
        Effect::Send(Message { to, body: Body::Append { commit, .. }, .. }) => Some((to.0, *commit)),
        _ => None,
    };
    let mut sent: Vec<_> = effects.iter().filter_map(commit).collect();
    sent.sort_unstable();
    sent
}

/// A leader, and the effects of the commit of one entry at index 13.
fn leader() -> (Bench, Vec<Effect>) {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    bench.wait(20_000);
    let term = bench.steps.status().term;
    bench.message(3, term, Body::AppendResponse { index: 12, commit: 10, rejection: None });
    bench.input(Input::Propose(vec![Payload::RestoreAbort.encode()]));
    let mut acknowledged = bench.message(2, term, Body::AppendResponse { index: 13, commit: 12, rejection: None });
    assert_eq!(bench.steps.status().committed, 13);
    acknowledged.extend(bench.message(3, term, Body::AppendResponse { index: 13, commit: 12, rejection: None }));
    (bench, acknowledged)
}

#[test]
fn a_commit_alone_sends_no_message() {
    let (_, acknowledged) = leader();
    assert_eq!(sent(&acknowledged), []);
}

#[test]
fn a_commit_is_sent_to_all_members_within_a_tick() {
    let (mut bench, _) = leader();
    assert_eq!(sent(&bench.wait(20_000)), [(2, 13), (3, 13)]);
    assert_eq!(sent(&bench.wait(20_000)), []);
}

#[test]
fn a_commit_is_sent_at_once_when_a_member_waits_for_it() {
    let (mut bench, _) = leader();
    assert_eq!(sent(&bench.input(Input::SendCommit)), [(2, 13), (3, 13)]);
    assert_eq!(sent(&bench.input(Input::SendCommit)), []);
}

#[test]
fn the_next_entries_have_the_commit_before_them() {
    let (mut bench, _) = leader();
    let proposed = bench.input(Input::Propose(vec![Payload::RestoreAbort.encode()]));
    assert_eq!(sent(&proposed), [(2, 13), (3, 13)]);
    assert_eq!(sent(&bench.input(Input::SendCommit)), []);
}

#[test]
fn a_list_of_members_is_sent_as_committed_at_once() {
    let (mut bench, _) = leader();
    let term = bench.steps.status().term;
    bench.input(Input::Change(Change::AddLearner(member(9, false))));
    let body = Body::AppendResponse { index: 14, commit: 13, rejection: None };
    let origin = Origin { node: "node2".into(), incarnation: [2; 16] };
    let message = Message { from: RaftId(2), to: RaftId(1), term, body };
    assert!(sent(&bench.only(Input::Message { origin, message })).contains(&(2, 14)));
}
