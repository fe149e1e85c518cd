//! What is refused because it does not fit, and bounds of what waits.

use super::*;

/// The crate would panic when it wins with a log that is not synced.
#[test]
fn votes_before_the_sync_of_a_candidate_do_not_count() {
    let elects = |planted| {
        let mut bench = Bench::new(boot(3), planted);
        bench.wait(1_300_000);
        let term = bench.steps.status().term + 1;
        let candidate = |bench: &mut Bench, body| {
            let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
            bench.only(Input::Message { origin, message: Message { from: RaftId(2), to: RaftId(1), term, body } })
        };
        candidate(&mut bench, Body::PreVoteResponse { granted: true, commit: LogId::default() });
        assert_eq!(bench.steps.status().term, term);
        let vote = Body::VoteResponse { granted: true, commit: LogId::default() };
        candidate(&mut bench, vote.clone());
        bench.input(Input::Persisted(u64::MAX));
        let is_elected = matches!(bench.steps.role(), Role::Elected { .. });
        candidate(&mut bench, vote);
        bench.input(Input::Persisted(u64::MAX));
        assert!(matches!(bench.steps.role(), Role::Elected { .. }));
        is_elected
    };
    assert!(elects(Some(Bug::VotesBeforeSync)) && !elects(None));
}

#[test]
fn committed_entries_that_are_not_applied_are_bounded() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let payload = Payload::Batch(Bytes::from(vec![0; 4 << 20])).encode();
    let mut last = 12;
    let busy = (0..100).find(|_| {
        let response = bench.only(Input::Propose(vec![payload.clone()]));
        if response.contains(&Effect::Refused(Refusal::Busy)) {
            return true;
        }
        last += 1;
        bench.only(Input::Persisted(u64::MAX));
        let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
        let body = Body::AppendResponse { index: last, commit: 12, rejection: None };
        let message = Message { from: RaftId(2), to: RaftId(1), term: 4, body };
        let committed = bench.only(Input::Message { origin, message });
        assert!(committed.contains(&Effect::Commit(last)), "{committed:?}");
        false
    });
    assert_eq!(busy, Some(7));
    bench.only(Input::Applied(last));
    assert!(!bench.only(Input::Propose(vec![payload])).contains(&Effect::Refused(Refusal::Busy)));
}

#[test]
fn payloads_that_cannot_be_read_are_not_proposed() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    // A digest that is too short, an abort with a body, a part without a number.
    for payload in [&[6, 1, 2][..], &[7, 0], &[5, 1]] {
        let refused = bench.only(Input::Propose(vec![Bytes::copy_from_slice(payload)]));
        assert_eq!(refused, [Effect::Refused(Refusal::Kind)], "{payload:?}");
    }
}

#[test]
fn lists_that_differ_by_two_changes_are_lost() {
    let lists = |first: &[Member], second: &[Member]| {
        let payload = |list: &[Member]| Payload::Members(list.to_vec()).encode();
        let at = |index, list| Entry { id: LogId { term: 4, index }, payload: payload(list) };
        let mut bench = Bench::new(boot(3), None);
        let previous = LogId { term: 3, index: 11 };
        let body = Body::Append { previous, commit: 10, entries: vec![at(12, first), at(13, second)] };
        !bench.message(2, 4, body).is_empty()
    };
    let list = |numbers: &[u64]| numbers.iter().map(|number| member(*number, true)).collect::<Vec<_>>();
    let learner = [list(&[1, 2, 3]), vec![member(9, false)]].concat();
    assert!(lists(&learner, &list(&[1, 2, 3, 9])));
    assert!(!lists(&list(&[1, 2]), &list(&[1])[..0]), "a list without voters cannot be read");
    assert!(!lists(&list(&[1]), &list(&[1, 2])));
    assert!(!lists(&list(&[1, 2]), &list(&[1, 9, 10])));
    // Those that do not follow are refused with a hint.
    let mut bench = Bench::new(boot(3), None);
    let far = Entry { id: LogId { term: 4, index: 21 }, payload: Payload::Members(list(&[1, 8, 9])).encode() };
    let body = Body::Append { previous: LogId { term: 4, index: 20 }, commit: 10, entries: vec![far] };
    let response = bench.message(2, 4, body);
    let is_hint = |effect: &Effect| {
        matches!(effect, Effect::Send(Message { body: Body::AppendResponse { rejection: Some(_), .. }, .. }))
    };
    assert!(response.iter().any(is_hint), "{response:?}");
}

#[test]
fn leadership_is_transferred_to_voters_and_strangers_only() {
    let boot = Boot { members: vec![member(1, true), member(2, true), member(3, false)], ..boot(3) };
    let forced = |from| Bench::new(boot.clone(), None).message(from, 4, vote(true));
    assert!(grants(&forced(2)) && !grants(&forced(3)));
    assert!(grants(&forced(8)), "a list that this node lacks may have it");
}

#[test]
fn terms_that_are_too_far_ahead_are_lost() {
    let mut bench = Bench::new(boot(3), None);
    assert!(bench.message(2, 4 + (1 << 20), heartbeat()).is_empty());
    assert!(!bench.message(2, 3 + (1 << 20), heartbeat()).is_empty());
}

#[test]
fn messages_are_lost_while_too_much_waits_for_a_sync() {
    let mut bench = Bench::new(boot(3), None);
    let mut appended = 0;
    for index in 12..10_000 {
        let entry = Entry { id: LogId { term: 4, index }, payload: Bytes::new() };
        let previous = LogId { term: if index == 12 { 3 } else { 4 }, index: index - 1 };
        let body = Body::Append { previous, commit: 10, entries: vec![entry] };
        let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
        let message = Message { from: RaftId(2), to: RaftId(1), term: 4, body };
        if bench.only(Input::Message { origin, message }).is_empty() {
            break;
        }
        appended += 1;
    }
    assert_eq!(appended, 4096);
    bench.input(Input::Persisted(u64::MAX));
    assert!(!bench.message(2, 4, heartbeat()).is_empty());
}

#[test]
fn a_log_of_a_later_term_than_the_vote_raises_the_term() {
    let entry = Entry { id: LogId { term: 7, index: 11 }, payload: Bytes::new() };
    let bench = Bench::new(Boot { entries: vec![entry], ..boot(3) }, None);
    assert_eq!(bench.steps.status().term, 7);
    let empty = Boot { before: LogId { term: 9, index: 10 }, entries: Vec::new(), ..boot(3) };
    let mut bench = Bench::new(empty, None);
    assert_eq!(bench.steps.status().term, 9);
    bench.wait(700_000);
    // No vote was given in it.
    let last = LogId { term: 8, index: 12 };
    let request = Body::Vote { last: LogId { term: 9, ..last }, commit: LogId::default(), forced: false };
    assert!(grants(&bench.message(3, 10, request)));
}

#[test]
fn a_log_with_falling_terms_or_without_a_beginning_does_not_start() {
    let start = |boot| Steps::new(Settings::default(), boot, START, &mut Rng::new(1)).map(|_| ()).unwrap_err();
    let entry = |term, index| Entry { id: LogId { term, index }, payload: Bytes::new() };
    assert_eq!(start(Boot { entries: vec![entry(3, 11), entry(2, 12)], ..boot(3) }), BootError::Terms(12));
    let before = LogId { term: 4, index: 10 };
    assert_eq!(start(Boot { before, ..boot(3) }), BootError::Terms(11));
    assert_eq!(start(Boot { id: RaftId(0), ..boot(3) }), BootError::Beginning);
    let first = Boot { before: LogId::default(), entries: vec![entry(1, 1)], applied: 0, committed: 0, ..boot(3) };
    assert_eq!(start(first), BootError::Beginning);
}

/// A leader whose state a snapshot replaces leads no more, and its operator is not left without a response.
#[test]
fn a_node_that_installs_has_another_role_and_answers_transfers() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let members: Vec<Member> = (1..=3).map(|number| member(number, true)).collect();
    let body = Body::Snapshot { last: LogId { term: 5, index: 50 }, members };
    let message = Message { from: RaftId(2), to: RaftId(1), term: 5, body };
    let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
    bench.only(Input::Snapshot { origin, message });
    assert_eq!(bench.steps.role(), Role::Following { leader: Some(RaftId(2)), term: 5 });
    assert_eq!(bench.only(Input::Transfer(None)), [Effect::Refused(Refusal::NotLeader)]);
}

#[test]
fn a_snapshot_has_the_term_in_which_it_was_requested() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    bench.steps.trim_log(0);
    let rejection = Some(Rejection { hint: 1, hint_term: 1 });
    let mut requested = bench.message(3, 4, Body::AppendResponse { index: 11, commit: 1, rejection });
    requested.extend(bench.message(3, 4, Body::HeartbeatResponse { commit: 1, read: None }));
    let sent = requested.iter().find(|effect| matches!(effect, Effect::SendSnapshot { .. }));
    let Some(Effect::SendSnapshot { to, term, .. }) = sent else { panic!("{requested:?}") };
    assert_eq!((*to, *term), (RaftId(3), 4));
}
