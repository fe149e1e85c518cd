//! The thread that drives a member: it passes what arrives to [`Steps`] and performs the effects. It never waits for a
//! disk, the state or another node.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::Duration,
};

use keepfast_consensus::{
    Change, Effect, Entry, Input, LogId, Message, Mono, NodeId, Payload, RaftId, Refusal, Role, Settings, Steps,
};
use keepfast_crypto::random;

use super::{
    apply_thread::{ApplyJob, NewState},
    boot::{self, WINDOW},
    clock::{self, Clocks},
    event::{Event, Proposal, Reply, Request},
    node::Node,
    peers::Peers,
    published::{Numbers, View},
    receive::{self, Received},
    threads::Threads,
    waiting::{Until, Waiting},
};
use crate::{Index, Joined, StorageError, local::disk::has_room};

/// One proposal has at most so many batches or bytes; the batch that exceeds them is the last.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 4 << 20;
/// Events that are processed before the next proposal.
const BURST: usize = 1024;
/// Committed bytes that wait for the state, above which no more entries are accepted from a leader.
const MAX_BACKLOG: u64 = 64 << 20;
/// How long a transfer may take, in microseconds.
const TRANSFER: u64 = 3_000_000;
/// How long a node that leaves waits for a successor, in microseconds.
const LEAVE: u64 = 2_000_000;

pub(crate) struct Driver {
    node: std::sync::Arc<Node>,
    settings: Settings,
    threads: Threads,
    /// Sends to this thread.
    events: Sender<Event>,
    /// `None` until the first start.
    steps: Option<Steps>,
    clocks: Clocks,
    /// Commits that are not proposed yet.
    queue: VecDeque<Request>,
    waiting: Waiting,
    peers: Peers,
    progress: Progress,
    /// Whether the node exchanges messages.
    is_running: bool,
    /// While the node that founded the cluster wins its first election: what waits for that.
    founding: Option<Vec<Event>>,
    /// The snapshot that is being installed.
    installing: Option<Received>,
}

/// How far the state machine is.
#[derive(Default)]
struct Progress {
    /// The last entry that was passed on to be applied.
    handed: u64,
    /// Bytes that are not applied yet.
    backlog: u64,
    /// The next tick.
    tick: Mono,
}

impl Driver {
    /// A member, or a node that joins. `is_founding`: this node has just written the first list, and leads alone.
    pub(crate) fn new(node: std::sync::Arc<Node>, threads: Threads, events: Sender<Event>, is_founding: bool) -> Self {
        Self {
            settings: boot::settings(&node.options),
            node,
            threads,
            events,
            steps: None,
            clocks: Clocks::new(),
            queue: VecDeque::new(),
            waiting: Waiting::default(),
            peers: Peers::default(),
            progress: Progress::default(),
            is_running: false,
            founding: is_founding.then(Vec::new),
            installing: None,
        }
    }

    /// Runs to the end, beginning with this event.
    pub(crate) fn run(mut self, first: Option<Event>, events: &Receiver<Event>) {
        if self.founding.is_some()
            && let Err(error) = self.start()
        {
            self.fail(&error);
        }
        let mut next = first;
        loop {
            let received = match next.take() {
                Some(event) => Ok(event),
                None if self.is_running => events.recv_timeout(self.until_tick()),
                None => events.recv().map_err(RecvTimeoutError::from),
            };
            let mut is_end = matches!(received, Err(RecvTimeoutError::Disconnected));
            let mut event = received.ok();
            for _ in 0..BURST {
                let Some(current) = event.take().or_else(|| events.try_recv().ok()) else { break };
                is_end |= matches!(current, Event::Close);
                self.event(current);
            }
            if is_end {
                break;
            }
            self.tick();
            self.propose_queue();
        }
        self.end(&StorageError::Closed);
        self.threads.end();
    }

    fn until_tick(&self) -> Duration {
        Duration::from_micros(self.progress.tick.since(clock::now()).min(self.settings.tick))
    }

    fn tick(&mut self) {
        let now = clock::now();
        if !self.is_running || now < self.progress.tick {
            return;
        }
        self.progress.tick = now + self.settings.tick;
        if self.clocks.have_parted() {
            self.input(Input::VoidLease);
        }
        self.input(Input::Tick);
        self.waiting.expire(now);
        self.publish_numbers(now);
        if self.waiting.leaves_by(now) {
            self.leave();
        }
    }

    fn event(&mut self, event: Event) {
        if let Some(held) = &mut self.founding
            && matches!(event, Event::Commit(_) | Event::Read(_) | Event::Change(..) | Event::Transfer(..))
        {
            held.push(event);
            return;
        }
        match event {
            Event::Commit(request) => self.queue.push_back(request),
            Event::Read(reply) => self.read(Some(reply)),
            Event::Renew => self.read(None),
            Event::Change(change, reply) => self.change(*change, reply),
            Event::Transfer(to, reply) => self.transfer(to, reply),
            Event::Start(reply) => {
                let started = self.start();
                let _ = reply.send(started);
            }
            Event::Stop(reply) => self.stop(reply),
            Event::Join(joined, reply) => {
                let _ = reply.send(self.join(&joined));
            }
            Event::Message(origin, message) => {
                self.node.inbox.done(&message);
                self.message(origin, message);
            }
            Event::Snapshot(received) => self.snapshot(*received),
            Event::SnapshotDone { to, ok } => self.pass(Input::SnapshotDone { to, ok }),
            Event::Persisted(number) => self.pass(Input::Persisted(number)),
            Event::Applied { index, bytes } => self.applied(index, bytes),
            Event::Installed => self.installed(),
            Event::Failed => {
                let error = self.node.applier.stopped().unwrap_or(StorageError::Closed);
                self.fail(&error);
            }
            Event::Close => {}
        }
    }

    /// An input without a response.
    fn pass(&mut self, input: Input) {
        let _ = self.input(input);
    }

    /// Gives an input to the state machine and performs the effects. Returns the response to a proposal.
    fn input(&mut self, input: Input) -> Option<Result<LogId, Refusal>> {
        let steps = self.steps.as_mut()?;
        let mut effects = Vec::new();
        steps.step(clock::now(), input, &mut SystemChance, &mut effects);
        // Before a message leaves that lets another node lead.
        let lease = steps.lease_until().filter(|_| self.is_running);
        self.node.published.set_lease(lease, steps.status().committed);
        let response = effects.iter().find_map(|effect| match effect {
            Effect::Proposed { first } => Some(Ok(*first)),
            Effect::Refused(refusal) => Some(Err(*refusal)),
            _ => None,
        });
        for effect in effects {
            self.perform(effect);
        }
        response
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(frame) => self.threads.write(frame),
            Effect::Send(message) => self.send(&message),
            Effect::Commit(index) => self.commit(index),
            Effect::ReadReady { id, index } => self.waiting.read_ready(id, Ok(Index(index))),
            Effect::ReadLost(id) => self.waiting.read_ready(id, Err(StorageError::NoLeader)),
            Effect::Role(role) => self.role(role),
            Effect::SendSnapshot { to, .. } => self.send_snapshot(to),
            Effect::Install { vote, last, .. } => self.install(vote, last),
            // What is proposed gets its fate from what is committed.
            Effect::Lost { .. } | Effect::Proposed { .. } | Effect::Refused(_) => {}
        }
    }

    /// Passes committed entries on to be applied, with those that wait for them.
    fn commit(&mut self, index: u64) {
        let Some(steps) = &self.steps else { return };
        let entries: Option<Vec<Entry>> = (self.progress.handed + 1..=index).map(|index| steps.entry(index)).collect();
        let Some(entries) = entries else {
            let error = StorageError::corrupt(format!("a committed entry up to {index} is not in memory"));
            self.node.applier.stop(&error);
            self.fail(&error);
            return;
        };
        self.progress.backlog += entries.iter().map(|entry| entry.payload.len() as u64 + 32).sum::<u64>();
        self.progress.handed = self.progress.handed.max(index);
        let replies = self.waiting.committed(&entries);
        self.threads.apply(ApplyJob::Entries(entries, replies));
    }

    fn applied(&mut self, index: u64, bytes: u64) {
        self.progress.backlog = self.progress.backlog.saturating_sub(bytes);
        self.pass(Input::Applied(index));
        if let Some(steps) = &mut self.steps {
            steps.trim_log(WINDOW);
            if steps.members() != &*self.node.published.view.borrow().members {
                self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
            }
        }
        self.waiting.applied(index);
    }

    /// Publishes the role; a new leader ends a restore that another one has begun.
    fn role(&mut self, role: Role) {
        let Some(steps) = &self.steps else { return };
        let leads = matches!(role, Role::Leading { .. });
        if self.founding.is_some() && !leads {
            return;
        }
        let members: std::sync::Arc<[_]> = steps.members().into();
        let was_leading = self.node.published.view.borrow().is_leading;
        let view = match self.is_running {
            true => View::of(role, steps.id(), members),
            false => View::without_leader(Some(steps.id()), steps.status().term, members),
        };
        let (is_leading, accepts) = (view.is_leading, view.accepts);
        self.node.published.set_view(view);
        if !accepts {
            self.waiting.transferred();
        }
        if let Some(held) = self.founding.take_if(|_| leads) {
            held.into_iter().for_each(|event| self.event(event));
        }
        if is_leading && !was_leading {
            self.begin_leading();
        }
    }

    fn begin_leading(&mut self) {
        if !self.node.is_restoring() && self.node.applier.state().is_restoring().unwrap_or(false) {
            self.pass(Input::Propose(vec![Payload::RestoreAbort.encode()]));
        }
        let network = self.node.published.network();
        let own = network.zip(self.own_member());
        if let Some((network, member)) = own
            && let Some(now) = boot::updated(&member, &network, &self.node.options)
        {
            self.pass(Input::Change(Change::Update(now)));
        }
    }

    fn own_member(&self) -> Option<crate::Member> {
        let steps = self.steps.as_ref()?;
        steps.members().iter().find(|member| member.id == steps.id()).cloned()
    }

    /// Proposes commits that wait. Those for which there is no room yet stay.
    fn propose_queue(&mut self) {
        while !self.queue.is_empty() {
            let group = self.next_group();
            if group.is_empty() {
                continue;
            }
            let payloads = group.iter().filter_map(|request| match &request.proposal {
                Proposal::Payload(payload, _) => Some(payload.clone()),
                Proposal::Batch(_) => None,
            });
            let payloads = payloads.collect();
            match self.input(Input::Propose(payloads)) {
                Some(Ok(first)) => {
                    let now = clock::now();
                    for (index, request) in (first.index..).zip(group) {
                        self.waiting.add(LogId { index, ..first }, now, Until::Applied, request.result);
                    }
                }
                Some(Err(Refusal::Busy | Refusal::Transferring)) => {
                    group.into_iter().rev().for_each(|request| self.queue.push_front(request));
                    return;
                }
                response => {
                    let error = refused(response.and_then(Result::err).unwrap_or(Refusal::NotLeader));
                    group.into_iter().for_each(|request| drop(request.result.send(Err(error.clone()))));
                }
            }
        }
    }

    /// The commits of the next proposal. Answers those for which the device has no room.
    fn next_group(&mut self) -> Vec<Request> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP
            && bytes < GROUP_BYTES
            && let Some(Request { proposal, result }) = self.queue.pop_front()
        {
            bytes += proposal.size();
            group.push(Request { proposal: proposal.encoded(), result });
        }
        if has_room(&*self.node.disk, self.node.options.reserve_bytes, bytes as u64) {
            return group;
        }
        let (without, fitting): (Vec<_>, Vec<_>) = group.into_iter().partition(|request| request.proposal.puts());
        without.into_iter().for_each(|request| drop(request.result.send(Err(StorageError::Full))));
        fitting
    }

    fn read(&mut self, reply: Option<Reply<Index>>) {
        let id = self.waiting.read(reply);
        if self.steps.is_none() || !self.is_running {
            self.waiting.read_ready(id, Err(StorageError::NoLeader));
            return;
        }
        self.pass(Input::ReadIndex(id));
    }

    fn change(&mut self, change: Change, reply: Reply<Index>) {
        match self.input(Input::Change(change)) {
            Some(Ok(id)) => self.waiting.add(id, clock::now(), Until::Effective, reply),
            response => {
                let refusal = response.and_then(Result::err).unwrap_or(Refusal::NotLeader);
                let _ = reply.send(Err(refused(refusal)));
            }
        }
    }

    fn transfer(&mut self, to: Option<NodeId>, reply: Reply<()>) {
        match self.input(Input::Transfer(to)) {
            Some(Err(refusal)) => drop(reply.send(Err(refused(refusal)))),
            _ if self.steps.is_none() => drop(reply.send(Err(StorageError::NotLeader))),
            _ => self.waiting.transfer(clock::now() + TRANSFER, reply),
        }
    }

    /// Begins or goes on to exchange messages.
    fn start(&mut self) -> Result<(), StorageError> {
        if let Some(error) = self.node.applier.stopped() {
            return Err(error);
        }
        if self.steps.is_none() {
            let layout = self.node.layout.lock().clone();
            if layout.removed {
                return Err(StorageError::Removed);
            }
            let boot = match layout.joining {
                true => boot::joining(&layout, &self.threads.log)?,
                false => boot::member_of(&layout, &self.threads.log, &self.node.applier.state())?,
            };
            self.progress.handed = boot.applied;
            let steps = Steps::new(self.settings.clone(), boot, clock::now(), &mut SystemChance);
            self.steps = Some(steps.map_err(|error| StorageError::corrupt(error.to_string()))?);
        }
        self.is_running = true;
        self.progress.tick = clock::now();
        self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
        // Addresses may be other ones.
        if self.node.published.view.borrow().is_leading {
            self.begin_leading();
        }
        Ok(())
    }

    /// Leaves the network once another node leads, or after a time.
    fn stop(&mut self, reply: Reply<()>) {
        let leads = self.node.published.view.borrow().accepts;
        let transfers = leads && self.is_running && matches!(self.input(Input::Transfer(None)), None | Some(Ok(_)));
        self.waiting.leave(clock::now() + if transfers { LEAVE } else { 0 }, reply);
        if !transfers || !self.node.published.view.borrow().accepts {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.pass(Input::StepDown);
        self.is_running = false;
        self.node.published.set_lease(None, self.node.published.committed());
        self.end(&StorageError::NoLeader);
        self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
        self.waiting.left();
    }

    /// Answers everything that waits.
    fn end(&mut self, error: &StorageError) {
        for request in self.queue.drain(..) {
            let _ = request.result.send(Err(error.clone()));
        }
        for event in self.founding.take().unwrap_or_default() {
            if let Event::Commit(Request { result, .. }) | Event::Change(_, result) | Event::Read(result) = event {
                let _ = result.send(Err(error.clone()));
            }
        }
        self.waiting.end(error);
    }

    /// Nothing can be written any more: the node leaves the cluster for good.
    fn fail(&mut self, error: &StorageError) {
        self.node.applier.stop_once(error);
        self.is_running = false;
        self.pass(Input::StepDown);
        self.steps = None;
        self.installing = None;
        self.end(error);
        self.waiting.left();
        let view = self.node.published.view();
        self.node.published.set_lease(None, 0);
        self.node.published.set_view(View::without_leader(view.id, view.term, view.members));
    }

    /// Stores what the leader has told a node that joins.
    fn join(&mut self, joined: &Joined) -> Result<(), StorageError> {
        if self.steps.is_some() || !self.node.layout.lock().joining {
            return Err(StorageError::Layout("it belongs to a cluster already".into()));
        }
        self.node.store_join(joined)
    }

    fn message(&mut self, origin: crate::Origin, message: Message) {
        let is_entries =
            matches!(&message.body, keepfast_consensus::Body::Append { entries, .. } if !entries.is_empty());
        // A message is lost: the leader sends it again.
        if !self.is_running || (is_entries && self.progress.backlog > MAX_BACKLOG) {
            return;
        }
        self.peers.note(&message, &origin, clock::now());
        self.pass(Input::Message { origin, message });
    }

    fn send(&mut self, message: &Message) {
        let Some(network) = self.node.published.network().filter(|_| self.is_running) else { return };
        let Some(steps) = &self.steps else { return };
        if let Some(member) = self.peers.address(steps.members(), message.to) {
            network.transport.send(&member, message.encode());
        }
    }

    /// Streams the applied state. Each one that is asked for is reported, also when there is nowhere to send it.
    fn send_snapshot(&mut self, to: RaftId) {
        let Some(steps) = &self.steps else { return };
        let (from, term) = (steps.id(), steps.status().term);
        let member = self.peers.address(steps.members(), to);
        let network = self.node.published.network().filter(|_| self.is_running);
        let prepared = network.zip(member).map(|(network, member)| {
            let (last, members, parts) = self.node.image()?;
            let message = Message { from, to, term, body: keepfast_consensus::Body::Snapshot { last, members } };
            Ok::<_, StorageError>((network, member, message.encode(), parts))
        });
        let events = self.events.clone();
        match prepared {
            Some(Ok((network, member, head, parts))) => {
                let runtime = network.runtime.clone();
                runtime.spawn(async move {
                    let sent = network.transport.send_snapshot(&member, head, parts).await;
                    if let Err(error) = &sent {
                        tracing::warn!(node = member.node, %error, "a snapshot did not arrive");
                    }
                    let _ = events.send(Event::SnapshotDone { to, ok: sent.is_ok() });
                });
            }
            _ => drop(events.send(Event::SnapshotDone { to, ok: false })),
        }
    }

    fn snapshot(&mut self, received: Received) {
        let is_ready = self.is_running && self.steps.is_some() && self.installing.is_none();
        if !is_ready {
            self.discard(received, Err(StorageError::NoLeader));
            return;
        }
        self.peers.note(&received.message, &received.origin, clock::now());
        let input = Input::Snapshot { origin: received.origin.clone(), message: received.message.clone() };
        self.installing = Some(received);
        self.pass(input);
        // No effect has taken it: this node has all of it, or does not want it.
        if let Some(received) = self.installing.take_if(|received| received.state.is_some()) {
            self.discard(received, Ok(()));
        }
    }

    fn discard(&self, mut received: Received, result: Result<(), StorageError>) {
        if let Some(state) = received.state.take() {
            receive::discard(&*self.node.disk, state);
        }
        received.answer(result);
    }

    fn install(&mut self, vote: keepfast_consensus::Vote, last: LogId) {
        let Some(state) = self.installing.as_mut().and_then(|received| received.state.take()) else {
            let error = StorageError::corrupt("a snapshot is to be installed that was not received");
            self.node.applier.stop(&error);
            self.fail(&error);
            return;
        };
        // Those up to there have their fate in the snapshot, which does not tell it.
        self.waiting.lose_until(last.index);
        self.progress.handed = last.index;
        self.threads.apply(ApplyJob::Install(Box::new(NewState { state, vote, last })));
    }

    fn installed(&mut self) {
        self.progress.backlog = 0;
        self.pass(Input::Installed);
        if let Some(received) = self.installing.take() {
            received.answer(Ok(()));
        }
        self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
    }

    fn publish_numbers(&mut self, now: Mono) {
        let Some(steps) = &self.steps else { return };
        let status = steps.status();
        let leader = match status.role {
            Role::Following { leader: Some(leader), .. } => self.peers.contacts.get(&leader).copied(),
            Role::Following { leader: None, .. } => None,
            _ => Some(now),
        };
        *self.node.published.numbers.lock() = Numbers {
            last: status.last.index,
            committed: status.committed,
            peers: Numbers::with_contacts(steps.progress(), &self.peers.contacts),
            contact: leader,
        };
    }
}

/// The role of a node that has not started.
const NO_ROLE: Role = Role::Following { leader: None, term: 0 };

fn refused(refusal: Refusal) -> StorageError {
    match refusal {
        Refusal::NotLeader => StorageError::NotLeader,
        Refusal::Transferring | Refusal::Busy => StorageError::NoLeader,
        Refusal::TooLarge => {
            let limit = keepfast_consensus::MAX_ENTRY;
            StorageError::TooLarge { size: limit + 1, limit }
        }
        Refusal::Kind => StorageError::corrupt("an entry of this kind cannot be proposed"),
        Refusal::ChangeOpen => StorageError::ChangeOpen,
        Refusal::NoTarget => StorageError::NoTarget,
        Refusal::Change(error) => StorageError::Change(error),
    }
}

struct SystemChance;

impl keepfast_consensus::Chance for SystemChance {
    fn below(&mut self, bound: u64) -> u64 {
        random::below(usize::try_from(bound).unwrap_or(usize::MAX)) as u64
    }
}
