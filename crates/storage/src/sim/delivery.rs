//! Packets between nodes.

use keepfast_consensus::{Body, Chance, Message};

use super::{
    node::{Done, Node, Work},
    port::{Call, Outgoing, Packet},
    world::{Event, World},
};
use crate::{Index, Origin, StorageError, local::entry::Vote};

/// The time after which a call that has no response fails.
const CALL_TIMEOUT: u64 = 4_000_000;

impl World {
    pub(super) fn send(&mut self, from: usize, sent: Outgoing) {
        let Outgoing { node, incarnation, mut packet } = sent;
        let to = Node::number_of(&node);
        if let Packet::Message(message) = &packet
            && let Ok(Message { body: Body::VoteResponse { granted: true, .. }, term, to: candidate, .. }) =
                Message::decode(message.clone())
        {
            self.nodes[from].voted = Some(Vote { term, candidate });
        }
        let Some(origin) = self.nodes[from].process.as_ref().map(|process| process.port.origin.clone()) else { return };
        let run = self.nodes[from].run;
        if let Packet::Call(call, kind) = &packet {
            self.after(CALL_TIMEOUT, Event::CallFails { node: from, run, call: *call });
            if matches!(kind, Call::Snapshot(_))
                && let Some(target) = self.nodes.get(to)
            {
                let run = target.run;
                let fails = Event::StreamFails { node: to, run, from: origin.clone(), call: *call };
                self.after(CALL_TIMEOUT, fails);
            }
        }
        let is_there = self.nodes.get(to).and_then(|node| node.origin.as_ref());
        if to == from || is_there.is_none_or(|known| known.incarnation != incarnation) {
            return;
        }
        self.damage_part(&mut packet);
        if let Some((at, generation)) = self.network.send(from, to, self.time, &self.weather, &mut self.rng) {
            self.at(at, Event::Arrive { from: origin, to, generation, packet });
        }
    }

    /// Changes a bit of the end of a snapshot, which has its counts and its digest. What a changed length does elsewhere
    /// would depend on ciphertext, which differs in each run.
    fn damage_part(&mut self, packet: &mut Packet) {
        if let Packet::Part(_, Some(part)) = packet
            && self.rng.hits(self.weather.damaged_parts)
        {
            let mut bytes = part.to_vec();
            let (end, counts) = (bytes.len().min(52), if self.rng.hits(5000) { 12 } else { 52 });
            let bit = 8 * (bytes.len() - end) + self.rng.below(8 * counts.min(end) as u64) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            *part = bytes.into();
            self.report.faults += 1;
        }
    }

    pub(super) fn arrive(&mut self, number: usize, from: Origin, packet: Packet) {
        self.with(number, |process| {
            let Some(consensus) = process.consensus() else { return };
            let port = process.port.clone();
            match packet {
                Packet::Message(message) => drop(consensus.deliver(from, message)),
                Packet::Response(call, result) => port.respond(call, result),
                Packet::Part(call, part) => port.part(from.incarnation, call, part),
                Packet::Call(call, kind) => {
                    let stream = matches!(kind, Call::Snapshot(_)).then(|| port.open_stream(from.incarnation, call));
                    process.spawn(Work::Serve, async move {
                        let result = match kind {
                            Call::Propose(batch) => consensus.propose(batch).await,
                            Call::ReadIndex => consensus.read_index().await,
                            Call::Snapshot(head) => match stream {
                                Some(mut parts) => {
                                    consensus.receive_snapshot(from.clone(), head, &mut parts).await.map(|()| Index(0))
                                }
                                None => Err(StorageError::NoLeader),
                            },
                        };
                        port.push(&from, Packet::Response(call, result));
                        Done::Nothing
                    });
                }
            }
        });
    }
}
