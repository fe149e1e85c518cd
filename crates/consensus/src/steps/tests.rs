//! Directed tests of obligations whose omission a random simulation meets too seldom, and of refusals.

use bytes::Bytes;

use super::{Boot, BootError, Effect, Input, Origin, Refusal, Role, Settings, Steps};
use crate::entry::{Entry, LogId, Mono, RaftId, Vote};
use crate::member::{Change, Member};
use crate::message::{Body, Message, Rejection};
use crate::payload::Payload;
use crate::planted::Bug;
use crate::sim::Rng;

mod bounds;
mod departures;
mod lost_entries;
mod recovered;
mod send_commit;
mod times;
mod unlisted;

const START: Mono = Mono(1_000_000_000);

fn member(number: u64, voter: bool) -> Member {
    Member {
        id: RaftId(number),
        node: format!("node{number}"),
        incarnation: [number as u8; 16],
        cluster_addr: String::new(),
        api_addr: String::new(),
        voter,
        wants_vote: true,
        election_ms: 600,
        version: String::new(),
    }
}

fn boot(voters: u64) -> Boot {
    Boot {
        id: RaftId(1),
        members: (1..=voters).map(|number| member(number, true)).collect(),
        vote: Vote { term: 3, candidate: RaftId(0) },
        before: LogId { term: 1, index: 10 },
        entries: vec![Entry { id: LogId { term: 3, index: 11 }, payload: Bytes::new() }],
        committed: 10,
        applied: 10,
        epoch: 1,
        announced_ms: 0,
        recovered: 0,
    }
}

/// A node and its time.
struct Bench {
    steps: Steps,
    now: Mono,
    rng: Rng,
}

impl Bench {
    fn new(boot: Boot, planted: Option<Bug>) -> Self {
        let settings = Settings { planted, ..Settings::default() };
        let mut rng = Rng::new(1);
        let steps = Steps::new(settings, boot, START, &mut rng).unwrap();
        Self { steps, now: START, rng }
    }

    /// Gives an input, and syncs and applies all that follows at once.
    fn input(&mut self, input: Input) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.only(input);
            for effect in &effects {
                match effect {
                    Effect::Persist(frame) => inputs.push_back(Input::Persisted(frame.number)),
                    Effect::Commit(index) => inputs.push_back(Input::Applied(*index)),
                    _ => {}
                }
            }
            all.extend(effects);
        }
        all
    }

    fn only(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.steps.step(self.now, input, &mut self.rng, &mut out);
        out
    }

    fn message(&mut self, from: u64, term: u64, body: Body) -> Vec<Effect> {
        let origin = Origin { node: format!("node{from}"), incarnation: [from as u8; 16] };
        self.input(Input::Message { origin, message: Message { from: RaftId(from), to: RaftId(1), term, body } })
    }

    /// Lets time pass in ticks.
    fn wait(&mut self, micros: u64) -> Vec<Effect> {
        let mut all = Vec::new();
        let end = self.now + micros;
        while self.now < end {
            self.now = self.now + 20_000;
            all.extend(self.input(Input::Tick));
        }
        all
    }

    /// Wins an election among three.
    fn lead(&mut self) {
        let requested = self.wait(1_300_000);
        let term = requested.iter().find_map(pre_vote_term).expect("it campaigns");
        self.message(2, term, Body::PreVoteResponse { granted: true, commit: LogId::default() });
        self.message(2, term, Body::VoteResponse { granted: true, commit: LogId::default() });
        self.message(2, term, Body::AppendResponse { index: 12, commit: 10, rejection: None });
        assert_eq!(self.steps.role(), Role::Leading { term, since: 12 });
    }
}

fn pre_vote_term(effect: &Effect) -> Option<u64> {
    match effect {
        Effect::Send(Message { term, body: Body::PreVote { .. }, .. }) => Some(*term),
        _ => None,
    }
}

fn grants(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| {
        let Effect::Send(Message { body, .. }) = effect else { return false };
        matches!(body, Body::VoteResponse { granted: true, .. } | Body::PreVoteResponse { granted: true, .. })
    })
}

fn vote(forced: bool) -> Body {
    Body::Vote { last: LogId { term: 3, index: 11 }, commit: LogId::default(), forced }
}

fn heartbeat() -> Body {
    Body::Heartbeat { commit: 10, read: None }
}

/// The crate forgets its leader when a late rejection of a pre-vote brings a higher term, and then votes (O1).
#[test]
fn a_promise_outlives_a_late_rejection_of_a_pre_vote() {
    let votes = |planted| {
        let mut bench = Bench::new(boot(3), planted);
        bench.wait(700_000);
        bench.message(2, 3, heartbeat());
        bench.message(3, 4, Body::PreVoteResponse { granted: false, commit: LogId::default() });
        grants(&bench.message(3, 5, vote(false)))
    };
    assert!(votes(Some(Bug::NoPromise)), "the crate refuses by itself: the rule is not needed any more");
    assert!(!votes(None));
}

#[test]
fn a_started_node_votes_after_a_timeout_and_for_a_transfer_at_once() {
    let mut bench = Bench::new(boot(3), None);
    assert!(!grants(&bench.message(3, 4, vote(false))));
    bench.wait(560_000);
    assert!(!grants(&bench.message(3, 4, vote(false))));
    bench.wait(60_000);
    assert!(grants(&bench.message(3, 4, vote(false))));
    assert!(grants(&Bench::new(boot(3), None).message(3, 4, vote(true))));
}

#[test]
fn the_only_voter_leads_at_the_first_tick_and_reads_without_others() {
    let mut bench = Bench::new(boot(1), None);
    bench.wait(20_000);
    assert_eq!(bench.steps.role(), Role::Leading { term: 4, since: 12 });
    let read = bench.input(Input::ReadIndex(7));
    assert_eq!(read, [Effect::ReadReady { id: 7, index: 12 }]);
}

/// Until its vote is synced, a crash would let it vote for another candidate of the same term.
#[test]
fn the_only_voter_leads_when_its_vote_is_synced() {
    let mut bench = Bench::new(boot(1), None);
    bench.now = bench.now + 20_000;
    let effects = bench.only(Input::Tick);
    let Some(Effect::Persist(frame)) = effects.first() else { panic!("{effects:?}") };
    let payload = Payload::Batch(Bytes::from_static(b"x")).encode();
    assert_eq!(bench.only(Input::Propose(vec![payload])), [Effect::Refused(Refusal::NotLeader)]);
    assert_eq!(bench.steps.role(), Role::Following { leader: None, term: 4 });
    let effects = bench.only(Input::Persisted(frame.number));
    assert!(effects.contains(&Effect::Role(Role::Elected { term: 4 })), "{effects:?}");
}

/// Others may lead under a list that is in the log and not applied.
#[test]
fn a_node_with_an_open_list_does_not_lead_at_once() {
    let list = Payload::Members(vec![member(1, true), member(2, true)]).encode();
    let entry = Entry { id: LogId { term: 3, index: 11 }, payload: list };
    let mut bench = Bench::new(Boot { entries: vec![entry], ..boot(1) }, None);
    bench.wait(400_000);
    assert!(matches!(bench.steps.role(), Role::Following { .. }));
}

/// The crate takes for granted that a winner has synced its log (O5).
#[test]
fn the_only_voter_with_frames_to_sync_neither_campaigns_nor_panics() {
    let joined = Boot { members: vec![member(1, true), member(2, false)], ..boot(1) };
    let mut bench = Bench::new(joined, None);
    let entry = Entry { id: LogId { term: 3, index: 12 }, payload: Bytes::new() };
    let body = Body::Append { previous: LogId { term: 3, index: 11 }, commit: 10, entries: vec![entry] };
    let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
    let message = Message { from: RaftId(2), to: RaftId(1), term: 3, body };
    let frame = bench.only(Input::Message { origin, message });
    let Some(Effect::Persist(frame)) = frame.first() else { panic!("{frame:?}") };
    for _ in 0..200 {
        bench.now = bench.now + 20_000;
        assert!(bench.only(Input::Tick).is_empty());
    }
    bench.input(Input::Persisted(frame.number));
    bench.wait(20_000);
    assert!(matches!(bench.steps.role(), Role::Leading { .. }));
}

/// Its heartbeats would keep others from leading (etcd #15247).
#[test]
fn a_leader_whose_sync_hangs_steps_down() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let frame = bench.only(Input::Propose(vec![Payload::Batch(Bytes::from_static(b"x")).encode()]));
    assert!(frame.iter().any(|effect| matches!(effect, Effect::Persist(_))));
    for _ in 0..16 {
        bench.now = bench.now + 20_000;
        bench.only(Input::Tick);
    }
    assert!(matches!(bench.steps.role(), Role::Following { leader: None, .. }));
}

#[test]
fn a_lease_ends_after_its_time_and_with_a_transfer_and_with_a_doubt() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    assert_eq!(bench.only(Input::ReadIndex(1)), [Effect::ReadReady { id: 1, index: 12 }]);
    bench.now = bench.now + 479_000;
    assert!(bench.steps.holds_lease_at(bench.now));
    bench.now = bench.now + 2_000;
    assert!(!bench.steps.holds_lease_at(bench.now));
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    bench.only(Input::VoidLease);
    assert!(!bench.steps.holds_lease_at(bench.now));
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    bench.only(Input::Transfer(Some("node2".to_owned())));
    assert!(!bench.steps.holds_lease_at(bench.now));
    // A call waits for a round instead.
    assert!(bench.only(Input::ReadIndex(2)).iter().all(|effect| matches!(effect, Effect::Send(_))));
}

/// Of two voters, the other one needs nobody as soon as it applies the removal of this one.
#[test]
fn a_leader_that_removes_itself_has_no_lease_from_then_on() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    bench.only(Input::Change(Change::Remove("node1".to_owned())));
    assert!(!bench.steps.holds_lease_at(bench.now));
}

#[test]
fn a_second_open_change_is_refused_with_a_reason() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let first = bench.only(Input::Change(Change::Demote("node3".to_owned())));
    assert!(first.contains(&Effect::Proposed { first: LogId { term: 4, index: 13 } }), "{first:?}");
    let second = bench.only(Input::Change(Change::Update(member(2, true))));
    assert!(second.contains(&Effect::Refused(Refusal::ChangeOpen)), "{second:?}");
}

/// An `Update` is no change of quorums for the crate, and lists keep their order all the same.
#[test]
fn an_open_update_of_addresses_refuses_other_changes() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    bench.only(Input::Change(Change::Update(Member { api_addr: "a".to_owned(), ..member(2, true) })));
    let second = bench.only(Input::Change(Change::Remove("node3".to_owned())));
    assert!(second.contains(&Effect::Refused(Refusal::ChangeOpen)), "{second:?}");
    bench.input(Input::Persisted(u64::MAX));
    bench.message(2, 4, Body::AppendResponse { index: 13, commit: 12, rejection: None });
    assert_eq!(bench.steps.members()[1].api_addr, "a");
    let third = bench.only(Input::Change(Change::Remove("node3".to_owned())));
    assert!(third.iter().any(|effect| matches!(effect, Effect::Proposed { .. })), "{third:?}");
}

/// The crate panics on each of these messages, or counts entries that no member has (O9).
#[test]
fn messages_that_do_not_fit_are_lost() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let before = bench.steps.status();
    let reject = |index: u64, hint: u64| Some(Rejection { hint: index + hint, hint_term: 1 });
    let bodies = [
        Body::AppendResponse { index: 1 << 40, commit: 0, rejection: None },
        Body::AppendResponse { index: 12, commit: 0, rejection: reject(12, 1) },
        Body::TimeoutNow,
    ];
    for body in bodies {
        assert!(bench.message(2, 4, body).is_empty());
    }
    let gap = Entry { id: LogId { term: 3, index: 14 }, payload: Bytes::new() };
    let late = Entry { id: LogId { term: 6, index: 12 }, payload: Bytes::new() };
    let list = Entry { id: LogId { term: 4, index: 12 }, payload: Bytes::from_static(&[3, 9]) };
    let previous = LogId { term: 3, index: 11 };
    for entry in [gap, late, list] {
        let body = Body::Append { previous, commit: 0, entries: vec![entry] };
        assert!(bench.message(2, 5, body).is_empty());
    }
    assert!(bench.message(2, 5, Body::Heartbeat { commit: 1000, read: None }).is_empty());
    assert!(bench.message(2, 0, heartbeat()).is_empty());
    assert!(bench.message(1, 5, heartbeat()).is_empty());
    assert_eq!(format!("{before:?}"), format!("{:?}", bench.steps.status()));
}

#[test]
fn a_member_with_another_disk_is_not_heard() {
    let mut bench = Bench::new(boot(3), None);
    let message = Message { from: RaftId(2), to: RaftId(1), term: 3, body: heartbeat() };
    for origin in [("node2", [9; 16]), ("node9", [2; 16]), ("node3", [3; 16])] {
        let origin = Origin { node: origin.0.to_owned(), incarnation: origin.1 };
        assert!(bench.only(Input::Message { origin, message: message.clone() }).is_empty());
    }
    let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
    assert!(!bench.only(Input::Message { origin, message }).is_empty());
}

/// A snapshot whose members end with this one comes only with its own input, never as a message.
#[test]
fn between_install_and_installed_nothing_is_processed() {
    let mut bench = Bench::new(boot(3), None);
    let members: Vec<Member> = (1..=3).map(|number| member(number, true)).collect();
    let body = Body::Snapshot { last: LogId { term: 4, index: 50 }, members };
    let message = Message { from: RaftId(2), to: RaftId(1), term: 4, body };
    let origin = Origin { node: "node2".to_owned(), incarnation: [2; 16] };
    assert!(bench.only(Input::Message { origin: origin.clone(), message: message.clone() }).is_empty());
    let effects = bench.only(Input::Snapshot { origin, message });
    let [Effect::Install { vote, last, .. }, Effect::Role(_)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((vote.term, last.index), (4, 50));
    assert_eq!(bench.only(Input::ReadIndex(1)), [Effect::ReadLost(1)]);
    assert!(bench.only(Input::Tick).is_empty());
    let after = bench.only(Input::Installed);
    let response = Body::AppendResponse { index: 50, commit: 0, rejection: None };
    let response = Message { from: RaftId(1), to: RaftId(2), term: 4, body: response };
    assert!(after.contains(&Effect::Send(response)), "{after:?}");
    assert_eq!((bench.steps.status().applied, bench.steps.status().last.index), (50, 50));
}

#[test]
fn a_log_and_a_state_that_are_apart_do_not_start() {
    let start = |boot| Steps::new(Settings::default(), boot, START, &mut Rng::new(1)).map(|_| ()).unwrap_err();
    assert_eq!(start(Boot { applied: 12, ..boot(3) }), BootError::Apart { applied: 12, first: 11, last: 11 });
    assert_eq!(start(Boot { applied: 9, ..boot(3) }), BootError::Apart { applied: 9, first: 11, last: 11 });
    let gap = Entry { id: LogId { term: 3, index: 12 }, payload: Bytes::new() };
    assert_eq!(start(Boot { entries: vec![gap], ..boot(3) }), BootError::Gap(11));
    // The hint of a frame may be beyond the log (O8).
    Bench::new(Boot { committed: 99, ..boot(3) }, None);
}

/// A follower asks nobody: its driver asks the leader.
#[test]
fn a_follower_reads_nothing_and_proposes_nothing() {
    let mut bench = Bench::new(boot(3), None);
    assert_eq!(bench.only(Input::ReadIndex(1)), [Effect::ReadLost(1)]);
    let payload = Payload::Batch(Bytes::from_static(b"x")).encode();
    assert_eq!(bench.only(Input::Propose(vec![payload])), [Effect::Refused(Refusal::NotLeader)]);
}

/// The timeout of the crate comes from the seeded source: in 600 to 1,200 ms, another one each time.
#[test]
fn election_timeouts_are_drawn_again_for_each_campaign() {
    let mut bench = Bench::new(boot(3), None);
    let mut waits = Vec::new();
    let mut started = bench.now;
    for _ in 0..30_000 {
        if bench.wait(20_000).iter().any(|effect| pre_vote_term(effect).is_some()) {
            waits.push(bench.now.since(started) / 20_000);
            started = bench.now;
        }
    }
    assert!(waits.len() > 400 && waits.iter().all(|ticks| (30..60).contains(ticks)), "{waits:?}");
    assert!((30..60).all(|ticks| waits.contains(&ticks)), "{waits:?}");
}

/// Lists have their own way, which keeps their order.
#[test]
fn only_a_change_proposes_a_list() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    let list = Payload::Members(vec![member(1, true)]).encode();
    for payload in [list, Bytes::from_static(&[1]), Bytes::from_static(&[99])] {
        assert_eq!(bench.only(Input::Propose(vec![payload])), [Effect::Refused(Refusal::Kind)]);
    }
}

#[test]
fn reads_that_wait_for_a_round_are_bounded() {
    let mut bench = Bench::new(boot(3), None);
    bench.lead();
    bench.only(Input::VoidLease);
    // The round of the first is under way, and the others wait for the next.
    let lost = (1..70_000).find(|id| bench.only(Input::ReadIndex(*id)) == [Effect::ReadLost(*id)]);
    assert_eq!(lost, Some(65_538));
}

#[test]
fn a_lease_holds_until_its_published_end() {
    let mut bench = Bench::new(boot(3), None);
    assert_eq!(bench.steps.lease_until(), None);
    bench.lead();
    let end = bench.steps.lease_until().unwrap();
    assert!(bench.steps.holds_lease_at(Mono(end.0 - 1)) && !bench.steps.holds_lease_at(end));
    bench.only(Input::VoidLease);
    assert_eq!(bench.steps.lease_until(), None);
}

/// Entries that are not applied are needed, however many bytes they have.
#[test]
fn a_trimmed_log_keeps_what_is_not_applied() {
    let entry = |index| Entry { id: LogId { term: 3, index }, payload: Bytes::from_static(&[2; 100]) };
    let mut bench = Bench::new(Boot { entries: (11..=30).map(entry).collect(), applied: 20, ..boot(3) }, None);
    bench.steps.trim_log(1_700);
    assert_eq!(bench.steps.before().index, 18);
    bench.steps.trim_log(0);
    assert_eq!((bench.steps.before().index, bench.steps.entry(21).is_some()), (20, true));
}
