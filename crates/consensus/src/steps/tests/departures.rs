//! A member that was removed learns it from its leader, and from nobody else.

use super::*;

fn gone(commit: u64, incarnation: u8) -> Body {
    Body::Gone { commit, incarnation: [incarnation; 16] }
}

fn removed(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Removed { .. }))
}

/// The receivers of `Gone`.
fn reminded(effects: &[Effect]) -> Vec<u64> {
    let to = |effect: &Effect| match effect {
        Effect::Send(Message { to, body: Body::Gone { .. }, .. }) => Some(to.0),
        _ => None,
    };
    effects.iter().filter_map(to).collect()
}

/// A follower of member 2 in term 4.
fn follower() -> Bench {
    let mut bench = Bench::new(boot(3), None);
    bench.message(2, 4, heartbeat());
    bench
}

#[test]
fn a_removed_node_ends_when_its_leader_sends_that() {
    let mut bench = follower();
    assert!(removed(&bench.message(2, 4, gone(20, 1))));
    // It never campaigns again, and serves nobody.
    assert!(bench.wait(5_000_000).is_empty());
    assert_eq!(bench.only(Input::ReadIndex(1)), [Effect::ReadLost(1)]);
    assert!(bench.message(3, 9, vote(true)).is_empty());
}

#[test]
fn a_removal_that_no_leader_of_the_term_sends_is_lost() {
    let mut bench = follower();
    // Not the leader of the term; an earlier term; nothing that this node has not applied; another disk.
    for (from, term, body) in [(3, 4, gone(20, 1)), (2, 3, gone(20, 1)), (2, 4, gone(10, 1)), (2, 4, gone(20, 9))] {
        assert!(!removed(&bench.message(from, term, body)), "{from} {term}");
    }
    // While it campaigns it has no leader, and still knows who led the term.
    assert!(bench.wait(2_000_000).iter().any(|effect| pre_vote_term(effect).is_some()));
    assert!(!removed(&bench.message(3, 4, gone(20, 1))));
    assert!(removed(&bench.message(2, 4, gone(20, 1))));
    // A later term has a leader that it has not heard yet.
    assert!(removed(&follower().message(3, 6, gone(20, 1))));
}

/// It has the entry that removes it, and would wait for its leader without end.
#[test]
fn a_node_that_has_applied_its_removal_ends_when_its_leader_sends_it() {
    let list = Payload::Members((2..=3).map(|number| member(number, true)).collect()).encode();
    let entry = Entry { id: LogId { term: 4, index: 12 }, payload: list };
    let body = Body::Append { previous: LogId { term: 3, index: 11 }, commit: 12, entries: vec![entry] };
    for (from, incarnation, ends) in [(2, 1, true), (3, 1, false), (2, 9, false)] {
        let mut bench = follower();
        bench.message(2, 4, body.clone());
        assert_eq!((bench.steps.members().len(), bench.steps.status().applied), (2, 12));
        assert_eq!(removed(&bench.message(from, 4, gone(12, incarnation))), ends, "{from} {incarnation}");
    }
}

#[test]
fn a_leader_is_not_removed_by_a_message_of_its_term() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let Role::Leading { term, .. } = bench.steps.role() else { panic!() };
    assert!(!removed(&bench.message(2, term, gone(20, 1))));
    assert!(removed(&bench.message(2, term + 1, gone(20, 1))));
    assert_eq!(bench.steps.role(), Role::Following { leader: None, term });
}

/// A leader of three that removes member 3, with the effects since the commit of the removal.
fn removal(planted: Option<Bug>) -> (Bench, Vec<Effect>) {
    let mut bench = Bench::new(boot(3), planted);
    bench.lead();
    bench.input(Input::Change(Change::Remove("node3".to_owned())));
    let mut effects = bench.message(2, 4, Body::AppendResponse { index: 13, commit: 12, rejection: None });
    assert_eq!((bench.steps.members().len(), bench.steps.status().applied), (2, 13));
    for _ in 0..4 {
        effects.extend(bench.wait(300_000));
        effects.extend(bench.message(2, 4, Body::HeartbeatResponse { commit: 12, read: None }));
    }
    (bench, effects)
}

/// Otherwise a restart of both could need its vote.
#[test]
fn a_removal_is_sent_once_its_commit_is_on_a_new_majority() {
    let (mut bench, before) = removal(None);
    assert_eq!(reminded(&before), [0_u64; 0]);
    // A blank entry brings the commit to the disks.
    assert_eq!(bench.steps.status().last.index, 14);
    assert_eq!(reminded(&bench.message(3, 5, vote(false))), [0_u64; 0]);
    bench.message(2, 4, Body::AppendResponse { index: 14, commit: 13, rejection: None });
    assert_eq!(reminded(&bench.wait(20_000)), [3]);
    // It is repeated, for a time.
    let acknowledge = |bench: &mut Bench| {
        let mut effects = bench.wait(300_000);
        effects.extend(bench.message(2, 4, Body::HeartbeatResponse { commit: 14, read: None }));
        effects
    };
    let repeated: Vec<u64> = (0..10).flat_map(|_| reminded(&acknowledge(&mut bench))).collect();
    assert!((3..=5).contains(&repeated.len()), "{repeated:?}");
    (0..200).for_each(|_| drop(acknowledge(&mut bench)));
    assert!((0..10).all(|_| reminded(&acknowledge(&mut bench)).is_empty()));
    // A candidate gets a response whenever it comes, and no vote disturbs the leader.
    let response = bench.message(3, 9, vote(false));
    assert_eq!((reminded(&response), bench.steps.status().term), (vec![3], 4));
    assert!(!reminded(&removal(Some(Bug::GoneTooEarly)).1).is_empty());
}

#[test]
fn an_id_above_the_applied_index_may_yet_be_added() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let last = LogId { term: 4, index: 12 };
    let recovered = RaftId::recovered(7).0;
    for (id, is_gone) in [(7, true), (13, false), (recovered, true)] {
        let origin = Origin { node: "other".to_owned(), incarnation: [77; 16] };
        let body = Body::PreVote { last, commit: LogId::default() };
        let message = Message { from: RaftId(id), to: RaftId(1), term: 5, body };
        let response = bench.only(Input::Message { origin, message });
        assert_eq!(!reminded(&response).is_empty(), is_gone, "{id}");
    }
}

/// A node that comes back later asks for it.
#[test]
fn a_leader_confirms_a_removal_once_its_commit_is_on_a_new_majority() {
    let (mut bench, _) = removal(None);
    assert_eq!((bench.steps.departed([3; 16]), bench.steps.departed([2; 16])), (None, None));
    bench.message(2, 4, Body::AppendResponse { index: 14, commit: 13, rejection: None });
    assert_eq!((bench.steps.departed([3; 16]), bench.steps.departed([2; 16])), (Some(14), None));
    bench.only(Input::StepDown);
    assert_eq!(bench.steps.departed([3; 16]), None);
}

#[test]
fn a_member_that_has_left_keeps_its_address_for_a_time() {
    let (bench, _) = removal(None);
    assert_eq!(bench.steps.member(RaftId(3)).as_deref(), Some(&member(3, true)));
    assert_eq!(bench.steps.member(RaftId(9)), None);
}

/// It is there before it is committed: a response to the new member may need it.
#[test]
fn a_member_of_a_list_in_the_log_has_its_address() {
    let list = Payload::Members((1..=4).map(|number| member(number, number < 4)).collect()).encode();
    let entry = Entry { id: LogId { term: 3, index: 11 }, payload: list };
    let bench = Bench::new(Boot { entries: vec![entry], ..boot(3) }, None);
    assert_eq!(bench.steps.member(RaftId(4)).as_deref(), Some(&member(4, false)));
}
