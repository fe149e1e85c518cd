//! The thread that drives a member: it passes what arrives to [`Steps`] and performs the effects. It never waits for a
//! disk, the state or another node.

mod calls;
mod snapshots;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use keepfast_consensus::{
    Body, Chance, Change, Effect, Entry, Frame, Input, LogId, Message, Mono, Payload, Refusal, Role, Settings, Steps,
};
use keepfast_crypto::random;

use super::{
    apply_thread::ApplyJob,
    boot,
    clock::{self, Clocks},
    event::{Event, Request},
    node::{Inbox, Node},
    peers::Peers,
    published::{Numbers, View},
    receive::Received,
    threads::Threads,
    waiting::Waiting,
};
use crate::{
    Index, Member, Origin, StorageError,
    local::{disk::has_room, log::ReadLog},
    simulated,
};

/// Events that are processed before the next proposal.
const BURST: usize = 1024;
/// Committed bytes that wait for the state, above which no more entries are accepted from a leader.
const MAX_BACKLOG: u64 = 64 << 20;

/// A member, or a node that becomes one.
pub(crate) struct Driver {
    node: Arc<Node>,
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
    follow_ups: FollowUps,
}

/// What follows from effects, once all of them are performed.
#[derive(Default)]
struct FollowUps {
    /// This node has begun to lead, or its addresses may have changed.
    leads: bool,
    /// Events that had to wait.
    events: Vec<Event>,
}

/// How far the state machine is.
struct Progress {
    /// The last entry that was passed on to be applied.
    handed: u64,
    /// Bytes that are not applied yet.
    backlog: u64,
    /// Frames that are not synced yet.
    frames: VecDeque<Unsynced>,
    /// Whether the device had room for the last entries of a leader.
    has_room: bool,
    /// The next tick.
    tick: Mono,
    /// The last entry that drops a restore.
    abort: u64,
}

/// A frame that is being written.
struct Unsynced {
    number: u64,
    bytes: u64,
    since: Mono,
}

impl Progress {
    fn new() -> Self {
        Self { handed: 0, backlog: 0, frames: VecDeque::new(), has_room: true, tick: Mono(0), abort: 0 }
    }

    fn written(&mut self, frame: &Frame, since: Mono) {
        let bytes = frame.entries.iter().map(|entry| entry.payload.len() as u64 + 32).sum();
        self.frames.push_back(Unsynced { number: frame.number, bytes, since });
    }

    fn synced(&mut self, number: u64) {
        while self.frames.pop_front_if(|frame| frame.number <= number).is_some() {}
    }

    fn unsynced(&self) -> u64 {
        self.frames.iter().map(|frame| frame.bytes).sum()
    }

    /// Since when the oldest frame is being synced.
    fn syncs_since(&self) -> Option<Mono> {
        self.frames.front().map(|frame| frame.since)
    }
}

impl Driver {
    /// A member, or a node that joins. `is_founding`: this node has just written the first list, and leads alone.
    pub(crate) fn new(node: Arc<Node>, threads: Threads, events: Sender<Event>, is_founding: bool) -> Self {
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
            progress: Progress::new(),
            is_running: false,
            founding: is_founding.then(Vec::new),
            installing: None,
            follow_ups: FollowUps::default(),
        }
    }

    /// Runs to the end, beginning with this event.
    pub(crate) fn run(mut self, first: Option<Event>, events: &Receiver<Event>) {
        self.found();
        let mut next = first;
        loop {
            let received = match (next.take(), self.until_tick()) {
                (Some(event), _) => Ok(event),
                (None, Some(time)) => events.recv_timeout(time),
                (None, None) => events.recv().map_err(RecvTimeoutError::from),
            };
            let is_end = matches!(received, Err(RecvTimeoutError::Disconnected));
            if self.turn(received.ok(), events) || is_end {
                break;
            }
        }
        self.end(&StorageError::Closed);
        self.threads.end();
    }

    /// Begins the first election of a node that founds its cluster.
    pub(crate) fn found(&mut self) {
        if self.founding.is_some()
            && let Err(error) = self.start()
        {
            self.fail(&error);
        }
    }

    /// Processes this event and those that wait, and what the time requires. Returns whether this was the end.
    pub(crate) fn turn(&mut self, mut first: Option<Event>, events: &Receiver<Event>) -> bool {
        let mut is_end = false;
        self.note_applied();
        for _ in 0..BURST {
            let Some(current) = first.take().or_else(|| events.try_recv().ok()) else { break };
            is_end |= matches!(current, Event::Close);
            self.event(current);
            self.follow_up();
        }
        if !is_end {
            self.tick();
            self.follow_up();
            self.propose_queue();
        }
        is_end
    }

    /// The time until the next tick, or until commits that wait are to be proposed; `None` while the node exchanges no
    /// messages.
    pub(crate) fn until_tick(&self) -> Option<Duration> {
        let tick = || self.progress.tick.since(clock::now()).min(self.settings.tick);
        self.is_running.then(|| Duration::from_micros(self.gathers().map_or_else(tick, |rest| rest.min(tick()))))
    }

    fn tick(&mut self) {
        let now = clock::now();
        if !self.is_running || now < self.progress.tick {
            return;
        }
        self.progress.tick = now + self.settings.tick;
        self.input(Input::Tick);
        self.waiting.expire(now);
        self.publish_numbers(now);
        if self.node.published.view.borrow().is_leading {
            self.abort_restore();
        }
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
            Event::SendCommit => self.pass(Input::SendCommit),
            Event::Change(change, reply) => self.change(*change, reply),
            Event::Departed(incarnation, reply) => {
                let departed = self.steps.as_ref().and_then(|steps| steps.departed(incarnation));
                let _ = reply.send(departed.map(Index).ok_or(StorageError::NoLeader));
            }
            Event::Leave(Index(commit), reply) => {
                self.removed(commit);
                let _ = reply.send(Ok(()));
            }
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
            Event::LogRead { first, entries } => self.pass(Input::LogRead { first, entries }),
            Event::Persisted(number) => {
                self.progress.synced(number);
                self.pass(Input::Persisted(number));
            }
            Event::Applied => self.note_applied(),
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
        // Before an acknowledgement counts from a time that is no more than it seems.
        if self.clocks.have_parted() {
            steps.step(clock::now(), Input::VoidLease, &mut SystemChance, &mut effects);
        }
        steps.step(clock::now(), input, &mut SystemChance, &mut effects);
        // Before a message leaves that lets another node lead.
        let lease = steps.lease_until().filter(|_| self.is_running);
        self.node.published.set_lease(lease, steps.status().committed, self.clocks.offset());
        self.node.published.set_sent_commit(steps.sent_commit());
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
            Effect::Persist(frame) => {
                self.progress.written(&frame, clock::now());
                self.threads.write(frame);
            }
            Effect::Send(message) => self.send(&message),
            Effect::Commit(index) => self.commit(index),
            Effect::ReadReady { id, index } => self.waiting.read_ready(id, Ok(Index(index))),
            Effect::ReadLost(id) => self.waiting.read_ready(id, Err(StorageError::NoLeader)),
            Effect::Role(role) => self.role(role),
            Effect::ReadLog { first, end, bytes } => self.read_log(first..end, bytes),
            Effect::SendSnapshot { to, term, .. } => self.send_snapshot(to, term),
            Effect::Install { vote, last, .. } => self.install(vote, last),
            Effect::Removed { commit } => self.removed(commit),
            Effect::LostEntries { of, last, acknowledged } => {
                let node = self.steps.as_ref().and_then(|steps| steps.member(of)).map(|member| member.node.clone());
                let node = node.unwrap_or_default();
                tracing::error!(
                    node,
                    last,
                    acknowledged,
                    "a member has lost entries: it has no vote until it has them again"
                );
            }
            Effect::Broken(why) => self.stop_for(&StorageError::corrupt(why)),
            // What is committed at its position decides on a proposal.
            Effect::Proposed { .. } | Effect::Refused(_) => {}
        }
    }

    /// Passes committed entries on to be applied, with those that wait for them.
    fn commit(&mut self, index: u64) {
        let Some(steps) = &self.steps else { return };
        let entries: Option<Vec<Entry>> = (self.progress.handed + 1..=index).map(|index| steps.entry(index)).collect();
        let Some(entries) = entries else {
            self.stop_for(&StorageError::corrupt(format!("a committed entry up to {index} is not in memory")));
            return;
        };
        self.progress.backlog += entries.iter().map(|entry| entry.payload.len() as u64 + 32).sum::<u64>();
        self.progress.handed = self.progress.handed.max(index);
        let replies = self.waiting.committed(&entries);
        self.threads.apply(ApplyJob::Entries(entries, replies));
    }

    /// Passes on what the thread of the state has applied.
    fn note_applied(&mut self) {
        let Some((index, bytes)) = self.threads.unnoted.take() else { return };
        self.progress.backlog = self.progress.backlog.saturating_sub(bytes);
        self.pass(Input::Applied(index));
        if let Some(steps) = &mut self.steps {
            steps.trim_log(boot::window());
            steps.purge_stored(self.threads.log.base().index);
            if steps.members() != &*self.node.published.view.borrow().members {
                self.note_members();
            }
        }
        self.waiting.applied(index);
    }

    /// The list of members is another one.
    fn note_members(&mut self) {
        let announced = self.steps.as_ref().map_or(u32::MAX, Steps::announced_ms);
        let announced = announced.max(boot::election_ms(&self.node.options));
        if self.node.layout.read(|layout| announced < layout.announced_ms) {
            self.threads.apply(ApplyJob::LowerTimeout(announced));
        }
        self.role(self.steps.as_ref().map_or(NO_ROLE, Steps::role));
        let removed = self.node.published.removed();
        if self.node.layout.read(|layout| layout.removed_peers != removed) {
            self.threads.apply(ApplyJob::NoteRemoved(removed));
        }
    }

    /// Publishes the role; a new leader ends a restore that another one has begun.
    fn role(&mut self, role: Role) {
        let Some(steps) = &self.steps else { return };
        let leads = matches!(role, Role::Leading { .. });
        if self.founding.is_some() && !leads {
            return;
        }
        let members: Arc<[_]> = steps.members().into();
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
            self.follow_ups.events = held;
        }
        self.follow_ups.leads |= is_leading && !was_leading;
    }

    fn follow_up(&mut self) {
        for event in std::mem::take(&mut self.follow_ups.events) {
            self.event(event);
        }
        if std::mem::take(&mut self.follow_ups.leads) {
            self.begin_leading();
        }
    }

    fn begin_leading(&mut self) {
        self.progress.abort = 0;
        self.abort_restore();
        let network = self.node.published.network();
        let own = network.zip(self.own_member());
        if let Some((network, member)) = own
            && let Some(now) = boot::updated(&member, &network, &self.node.options)
        {
            self.pass(Input::Change(Change::Update(now)));
        }
    }

    /// Drops a restore that this node does not run: one of an earlier leader, or one whose beginning was committed after
    /// its caller had given it up. No batch could pass.
    fn abort_restore(&mut self) {
        if planted!(AbortMissing) {
            return;
        }
        let is_foreign = !self.node.is_restoring() && self.node.applier.state().is_restoring();
        let applied = self.steps.as_ref().map_or(0, |steps| steps.status().applied);
        if is_foreign
            && applied >= self.progress.abort
            && let Some(Ok(id)) = self.input(Input::Propose(vec![Payload::RestoreAbort.encode()]))
        {
            self.progress.abort = id.index;
        }
    }

    fn own_member(&self) -> Option<Member> {
        let steps = self.steps.as_ref()?;
        steps.members().iter().find(|member| member.id == steps.id()).cloned()
    }

    /// Ends all calls that wait with this error.
    fn end(&mut self, error: &StorageError) {
        for request in self.queue.drain(..) {
            let _ = request.result.send(Err(error.clone()));
        }
        for event in self.founding.take().unwrap_or_default() {
            match event {
                Event::Commit(Request { result, .. }) | Event::Change(_, result) | Event::Read(result) => {
                    let _ = result.send(Err(error.clone()));
                }
                Event::Transfer(_, result) => drop(result.send(Err(error.clone()))),
                _ => {}
            }
        }
        self.waiting.end(error);
    }

    /// Reports an error that ends the node.
    fn stop_for(&self, error: &StorageError) {
        self.node.applier.stop_once(error);
        let _ = self.events.send(Event::Failed);
    }

    /// Nothing can be written any more: the node leaves the cluster for good.
    fn fail(&mut self, error: &StorageError) {
        self.node.applier.stop_once(error);
        self.is_running = false;
        self.pass(Input::StepDown);
        self.take_no_part(error);
    }

    /// This node was removed, as the leader has sent. It keeps its data, and takes no part after a restart either.
    fn removed(&mut self, commit: u64) {
        tracing::error!(commit, "this node was removed from its cluster");
        let stored = self.node.layout.change(|layout| layout.remove(&*self.node.disk));
        if let Err(error) = stored {
            self.stop_for(&error);
        }
        self.is_running = false;
        self.take_no_part(&StorageError::Removed);
        self.node.published.repeat_role();
    }

    fn take_no_part(&mut self, error: &StorageError) {
        self.steps = None;
        self.installing = None;
        self.node.published.withdraw();
        self.end(error);
        self.waiting.left();
    }

    fn message(&mut self, origin: Origin, message: Message) {
        let is_entries = matches!(&message.body, Body::Append { entries, .. } if !entries.is_empty());
        // A message is lost: the leader sends it again.
        if !self.is_running || (is_entries && !self.takes_entries(&message)) {
            return;
        }
        self.peers.note(&message, &origin, clock::now());
        self.pass(Input::Message { origin, message });
    }

    /// Whether entries of a leader find room in memory and on the device. Until they do, this node acknowledges none.
    fn takes_entries(&mut self, message: &Message) -> bool {
        if self.progress.backlog + self.progress.unsynced() > MAX_BACKLOG {
            return false;
        }
        // A leader leaves more room; a device without any would stop the state for good.
        let has_room = has_room(&*self.node.disk, self.node.options.reserve_bytes / 2, Inbox::size(message) as u64);
        if has_room != self.progress.has_room {
            self.progress.has_room = has_room;
            match has_room {
                true => tracing::info!("the device has room again: this node takes entries"),
                false => tracing::error!("the device has no room: this node takes no entries until it has"),
            }
        }
        has_room
    }

    fn send(&mut self, message: &Message) {
        let Some(network) = self.node.published.network().filter(|_| self.is_running) else { return };
        let Some(steps) = &self.steps else { return };
        if let Some(member) = self.peers.address(steps, message.to) {
            network.transport.send(&member, message.encode());
        }
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

struct SystemChance;

impl Chance for SystemChance {
    fn below(&mut self, bound: u64) -> u64 {
        if let Some(number) = simulated::below(bound) {
            return number;
        }
        random::below(usize::try_from(bound).unwrap_or(usize::MAX)) as u64
    }
}
