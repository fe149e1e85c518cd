//! The form of messages: golden files, round trips, and bytes that are refused.

use bytes::Bytes;

use crate::entry::{Entry, LogId, RaftId};
use crate::member::Member;
use crate::message::{Body, MAX_MESSAGE, Message, ReadContext, Rejection};
use crate::payload::{Kind, Payload};
use crate::sim::Rng;
use crate::steps::Chance;
use crate::wire::WireError;

/// The kinds of messages.
const KINDS: u64 = 11;
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/messages.txt");

/// Drawn messages of every kind, with every flag.
struct Draw(Rng);

impl Draw {
    fn number(&mut self) -> u64 {
        let bits = self.0.below(63);
        self.0.below((1 << bits) + 1)
    }

    fn position(&mut self) -> LogId {
        LogId { term: self.number(), index: self.number() }
    }

    fn flag(&mut self) -> bool {
        self.0.below(2) == 1
    }

    fn bytes(&mut self, most: u64) -> Bytes {
        let length = self.0.below(most);
        (0..length).map(|_| self.0.below(256) as u8).collect()
    }

    fn text(&mut self) -> String {
        let length = self.0.below(20);
        (0..length).map(|_| char::from(b'a' + self.0.below(26) as u8)).collect()
    }

    fn read(&mut self) -> Option<ReadContext> {
        self.flag().then(|| ReadContext { epoch: self.number(), count: self.number() })
    }

    fn members(&mut self) -> Vec<Member> {
        let count = 1 + self.0.below(6);
        let member = |number: u64| Member {
            id: RaftId(number + 1),
            node: format!("n{}", self.text()),
            incarnation: std::array::from_fn(|_| self.0.below(256) as u8),
            cluster_addr: self.text(),
            api_addr: self.text(),
            voter: number == 0 || self.flag(),
            wants_vote: self.flag(),
            election_ms: 100 + self.0.below(5000) as u32,
            version: self.text(),
        };
        (0..count).map(member).collect()
    }

    fn body(&mut self, kind: u64) -> Body {
        match kind {
            0 => {
                let previous = LogId { term: self.number(), index: self.0.below(1 << 40) };
                let count = self.0.below(5);
                let indexes = previous.index + 1..=previous.index + count;
                let entries = indexes
                    .map(|index| Entry { id: LogId { term: self.number(), index }, payload: self.bytes(40) })
                    .collect();
                Body::Append { previous, commit: self.number(), entries }
            }
            1 => {
                let rejection = self.flag().then(|| Rejection { hint: self.number(), hint_term: self.number() });
                Body::AppendResponse { index: self.number(), commit: self.number(), rejection }
            }
            2 => Body::Vote { last: self.position(), commit: self.position(), forced: self.flag() },
            3 => Body::VoteResponse { granted: self.flag(), commit: self.position() },
            4 => Body::PreVote { last: self.position(), commit: self.position() },
            5 => Body::PreVoteResponse { granted: self.flag(), commit: self.position() },
            6 => Body::Heartbeat { commit: self.number(), read: self.read() },
            7 => Body::HeartbeatResponse { commit: self.number(), read: self.read() },
            8 => Body::TimeoutNow,
            9 => Body::Snapshot { last: self.position(), members: self.members() },
            _ => Body::Gone { commit: self.number(), incarnation: std::array::from_fn(|_| self.0.below(256) as u8) },
        }
    }

    fn message(&mut self, kind: u64) -> Message {
        let (from, to, term) = (RaftId(self.number()), RaftId(self.number()), self.number());
        Message { from, to, term, body: self.body(kind) }
    }
}

/// Two messages of each kind, as hexadecimal lines.
fn golden() -> String {
    let mut draw = Draw(Rng::new(1));
    let messages = (0..2 * KINDS).map(|number| draw.message(number / 2));
    messages.map(|message| format!("{message:?}\n{}\n", hex::encode(message.encode()))).collect()
}

#[test]
fn the_form_of_messages_is_that_of_the_golden_file() {
    if std::env::var_os("KEEPFAST_BLESS").is_some() {
        std::fs::write(GOLDEN, golden()).unwrap();
    }
    let stored = std::fs::read_to_string(GOLDEN).unwrap();
    assert_eq!(stored, golden(), "a node of another version would not understand these messages");
    for line in stored.lines().skip(1).step_by(2) {
        let bytes = Bytes::from(hex::decode(line).unwrap());
        assert_eq!(Message::decode(bytes.clone()).unwrap().encode(), bytes);
    }
}

#[test]
fn messages_survive_a_round_trip() {
    for seed in 0..2000 {
        let message = Draw(Rng::new(seed)).message(seed % KINDS);
        assert_eq!(Message::decode(message.encode()), Ok(message), "seed {seed}");
    }
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    for seed in 0..200 {
        let bytes = Draw(Rng::new(seed)).message(seed % KINDS).encode();
        for length in 0..bytes.len() {
            assert!(Message::decode(bytes.slice(..length)).is_err(), "seed {seed}, {length} bytes");
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert_eq!(Message::decode(longer), Err(WireError::Trailing(1)), "seed {seed}");
    }
}

/// Changed bytes are refused, or they are the form of another message: there is one form of each.
#[test]
fn changed_bytes_never_panic_and_have_one_meaning() {
    for seed in 0..20_000 {
        let mut draw = Draw(Rng::new(seed));
        let mut bytes = draw.message(seed % KINDS).encode().to_vec();
        for _ in 0..=draw.0.below(4) {
            let at = draw.0.below(bytes.len() as u64) as usize;
            bytes[at] = draw.0.below(256) as u8;
        }
        if let Ok(message) = Message::decode(bytes.clone().into()) {
            assert_eq!(message.encode(), bytes, "seed {seed}");
        }
    }
}

#[test]
fn unknown_versions_kinds_and_large_messages_are_refused() {
    let heartbeat = Body::Heartbeat { commit: 3, read: None };
    let valid = Message { from: RaftId(1), to: RaftId(2), term: 3, body: heartbeat }.encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = valid.to_vec();
        bytes[at] = byte;
        Message::decode(bytes.into())
    };
    assert_eq!(with(0, 2), Err(WireError::Version(2)));
    assert_eq!(with(1, 0), Err(WireError::Kind(0)));
    assert_eq!(with(1, 12), Err(WireError::Kind(12)));
    assert_eq!(with(34, 2), Err(WireError::Flag(2)));
    // The highest bytes of from, and so an id above 2^62.
    assert_eq!(with(9, 0x41), Err(WireError::Bound("a number")));
    assert_eq!(Message::decode(vec![0; MAX_MESSAGE + 1].into()), Err(WireError::Bound("a message")));
}

#[test]
fn payloads_survive_a_round_trip_and_a_list_needs_a_voter() {
    let mut draw = Draw(Rng::new(7));
    let members = draw.members();
    let learners = members.iter().map(|member| Member { voter: false, ..member.clone() }).collect();
    let twice = [&members[..], &members[..1]].concat();
    let body = draw.bytes(30);
    let payloads = [
        Payload::Blank,
        Payload::Batch(body.clone()),
        Payload::Members(members),
        Payload::RestoreBegin(body.clone()),
        Payload::RestorePart(7, body),
        Payload::RestoreEnd([9; 32]),
        Payload::RestoreAbort,
    ];
    for payload in payloads {
        assert_eq!(Payload::decode(&payload.encode()), Ok(payload));
    }
    for list in [learners, twice, Vec::new()] {
        assert!(Payload::decode(&Payload::Members(list).encode()).is_err());
    }
    assert_eq!(Payload::decode(&Bytes::from_static(&[8])), Err(WireError::Kind(8)));
    // A blank entry is empty.
    assert_eq!(Payload::decode(&Bytes::from_static(&[1])), Err(WireError::Kind(1)));
    assert_eq!(Payload::decode(&Bytes::from_static(&[7, 0])), Err(WireError::Trailing(1)));
}

#[test]
fn stored_kinds_never_change() {
    for (byte, kind) in (1..).zip(Kind::ALL) {
        assert_eq!((kind as u8, Kind::from_byte(byte)), (byte, Some(kind)));
    }
    assert!([0, 8, 255].map(Kind::from_byte).iter().all(Option::is_none));
}

/// An encoded payload shares memory with the message that carried it.
#[test]
fn decoding_copies_no_payload() {
    let payload = Payload::Batch(Bytes::from(vec![7; 1000])).encode();
    let entry = Entry { id: LogId { term: 1, index: 3 }, payload };
    let previous = LogId { term: 1, index: 2 };
    let body = Body::Append { previous, commit: 2, entries: vec![entry] };
    let bytes = Message { from: RaftId(1), to: RaftId(2), term: 1, body }.encode();
    let decoded = Message::decode(bytes.clone()).unwrap();
    let Body::Append { entries, .. } = &decoded.body else { panic!("not an append") };
    assert!(bytes.as_ptr_range().contains(&entries[0].payload.as_ptr()));
}
